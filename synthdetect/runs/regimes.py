"""The paper's two regimes, or all combinations of the factors that set them apart, in child runs.

All trainings validate on the same images, so that nothing but what they trained on sets them apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from synthdetect.datasets.folds import merge_val_into_train
from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.matching import match_size, validate_alike
from synthdetect.datasets.prepare import Prepared, prepare_whole
from synthdetect.datasets.selection import (
    SUPPLEMENT,
    merge_supplement_into_train,
    move_val_to_train,
    select,
)
from synthdetect.datasets.splits import check_splits
from synthdetect.models.weights import NAMES
from synthdetect.report.writing import write_report
from synthdetect.runs.children import ChildTraining, train_children
from synthdetect.runs.messages import announce, command_tags
from synthdetect.runs.options import RegimesOptions, TrainOptions
from synthdetect.runs.preflight import require_trainable, resolve_device
from synthdetect.runs.recipes import AUGMENTATIONS, FACTORS, GEOMETRIES
from synthdetect.runs.regime_results import Trained, conclude_factorial, conclude_tables
from synthdetect.runs.resume import recorded_options, require_same_data
from synthdetect.runs.setting import log_setting
from synthdetect.runs.training import Predetermined
from synthdetect.system.console import console, counting
from synthdetect.system.errors import UserError
from synthdetect.system.files import require_folder
from synthdetect.system.seeds import derive_seed
from synthdetect.system.timetable import current, timetable
from synthdetect.tracking.detectors import logged_by
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import existing
from synthdetect.tracking.results import run_result
from synthdetect.tracking.tags import FOLD
from synthdetect.tracking.views import RESULTS, View

_REGIMES_VIEW = View((f"tags.{FOLD}", *RESULTS, "metrics.best/val/auc", "params.model.arch"))

_MOST_CATEGORIES = 20
"""Most categories of the narrow data by default: as many as those of the paper have."""

_NARROWING = "--narrow, --narrow-categories, --narrow-per-category"
"""The options of this command that select the narrow data."""

_REFIT = " refit"
"""What the name of a training on all labelled images ends in."""


@dataclass(frozen=True)
class Regime:
    """One of the ways to train that are compared.

    Attributes:
        name: Its name.
        levels: Its level by factor; the paper's regimes are the levels of the factor `regime`.
        data: Which data it trains on, a level of the factor `data`.
        differences: How its options differ from the defaults.
    """

    name: str
    levels: Mapping[str, str]
    data: str
    differences: Mapping[str, Any]


def study_regimes(options: RegimesOptions) -> dict[str, Any]:
    """Train the regimes, or all combinations, in child runs, and tabulate the results.

    Raises:
        UserError: If options or data do not fit.
        TrainingsFailed: If some trainings failed; the others are kept.
    """
    digest = ""
    if options.resume:
        options, digest = recorded_options(options)
    require_folder(Path(options.output), "--output")
    everything = whole_options(options)
    with counting("reading the data") as count:
        whole = prepare_whole(everything.data, seed=options.optim.seed, progress=count)
    if digest:
        require_same_data(whole, digest, options.resume)
    regimes = _regimes(options, whole.manifest)
    described = _require_data(options, regimes, whole)
    pairs = list(product(regimes, range(options.seeds)))
    trainings = [_training(options, whole, *pair) for pair in pairs]
    _require_weights(options, trainings)
    refits = options.refit and not options.factorial
    name = "regimes factorial" if options.factorial else "regimes"
    with open_run(
        name,
        kind="regimes",
        tags=command_tags("regimes", options),
        resume=options.resume,
        tracking=options.tracking,
        view=_REGIMES_VIEW,
    ) as run:
        announce(run, everything, whole)
        for line in described:
            console.print(line)
        planned = f"{len(regimes)} x {options.seeds} = {len(trainings)} trainings"
        console.print(f"{planned}, each followed by a refit" if refits else planned, style="bold")
        log_setting(run, options, digest=whole.digest(), manifest=whole.manifest)
        run.log_params({"regimes.compared_data": " ".join(described)})
        parts = [training.part for training in trainings]
        planned_refits = [replace(p, name=p.name + _REFIT) for p in parts] if refits else []
        with timetable([*parts, *planned_refits]):
            done = train_children(run, trainings, "regimes", options)
            tested = trainings
            if refits:
                tested = [
                    _refit(options, whole, regime, training, done[training.name])
                    for (regime, _), training in zip(pairs, trainings, strict=True)
                ]
                current().plan([training.part for training in tested])
                done |= train_children(run, tested, "regimes", options)
        trained = [
            Trained(regime.levels, number, done[training.name], done[last.name])
            for (regime, number), training, last in zip(pairs, trainings, tested, strict=True)
        ]
        conclude = conclude_factorial if options.factorial else conclude_tables
        conclude(run, trained, seed=options.optim.seed)
    run.print_pages()
    write_report(run.id)
    return run_result(run.id)


def regime_data(
    options: RegimesOptions, whole: Prepared, data: str, *, refit: bool = False
) -> Prepared:
    """Return the data of one training.

    Args:
        options: The options of the study.
        whole: All data, as `prepare_whole` returns them for `whole_options`.
        data: Which data train: a level of the factor `data`.
        refit: Whether the validation images train too, as far as they belong to these data.

    Raises:
        UserError: If they cannot be trained on.
    """
    seed = options.optim.seed
    manifest = merge_val_into_train(whole.manifest) if refit else whole.manifest
    diverse = merge_supplement_into_train(manifest)
    if not _has_narrow(options):
        check_splits(diverse)
        return replace(whole, manifest=diverse)
    own = manifest.with_table(manifest.table[manifest.table["split"] != SUPPLEMENT])
    try:
        choice = _training_options(options, _narrow_choice(options, whole.manifest)).data
        narrow = select(own, choice, seed=seed)
    except UserError as error:
        raise UserError(f"{_NARROWING}: {error}") from error
    pool, few = diverse.split("train").table, narrow.split("train").table
    chosen = {"narrow": narrow, "diverse": diverse}.get(data)
    if chosen is None:  # matched
        drawn = match_size(pool, few, seed=seed)["path"]
        table = diverse.table
        chosen = diverse.with_table(
            table[(table["split"] != "train") | table["path"].isin(set(drawn))]
        )
    if refit:
        return replace(whole, manifest=chosen)
    if options.factorial:
        chosen = validate_alike(chosen, few, pool)
        _require_common_validation(chosen)
    else:
        chosen = _finetuned(chosen, options.finetune, data, seed)
    check_splits(chosen)
    return replace(whole, manifest=chosen)


def regime_of(options: RegimesOptions, whole: Prepared, name: str) -> tuple[Regime, bool]:
    """Return the regime of a training by the training's name, and whether it is a refit."""
    for regime in _regimes(options, whole.manifest):
        for number in range(options.seeds):
            training = _name(options, regime, number)
            if name in (training, training + _REFIT):
                return regime, name != training
    raise KeyError(name)


def whole_options(options: RegimesOptions) -> TrainOptions:
    """Return the options of a training on all data of a study."""
    return _training_options(options, {"supplement": options.supplement})


def _training_options(options: RegimesOptions, differences: Mapping[str, Any]) -> TrainOptions:
    shared = {k: v for k, v in options.to_json().items() if k in TrainOptions.fields()}
    shared = {k: v for k, v in shared.items() if k not in ("supplement", "finetune", "resume")}
    return TrainOptions.resolve({**shared, "keep_last": False, **differences})


# --- which regimes there are


def _has_narrow(options: RegimesOptions) -> bool:
    return not options.factorial or "data" in options.factors


def _regimes(options: RegimesOptions, manifest: Manifest) -> list[Regime]:
    """Return the paper's regimes, or all combinations of the crossed factors."""
    diverse: dict[str, Any] = {"supplement": options.supplement}
    data = {"diverse": diverse, "matched": diverse}
    if _has_narrow(options):
        data["narrow"] = _narrow_choice(options, manifest)
    if not options.factorial:
        constrained = {"recipe": "constrained", **data["narrow"]}
        opened = {"recipe": "open", **data["diverse"], "finetune": options.finetune}
        return [
            Regime("constrained", {"regime": "constrained"}, "narrow", constrained),
            Regime("open", {"regime": "open"}, "diverse", opened),
        ]
    levels = {**FACTORS, "architecture": options.archs}
    fixed = {"architecture": options.archs[0], "data": "diverse", "augmentation": "light",
             "geometry": "resize"}  # fmt: skip
    crossed = [levels[f] if f in options.factors else (fixed[f],) for f in FACTORS]
    return [
        Regime(
            f"{arch} {breadth} {strength} {geometry}",
            dict(zip(FACTORS, (arch, breadth, strength, geometry), strict=True)),
            breadth,
            {"arch": arch, **data[breadth], **AUGMENTATIONS[strength], **GEOMETRIES[geometry]},
        )
        for arch, breadth, strength, geometry in product(*crossed)
    ]


def _narrow_choice(options: RegimesOptions, manifest: Manifest) -> dict[str, Any]:
    """Return the data options of the narrow data: generators, categories and their cap.

    By default these are the generator with most training images, and the more frequent half of the
    categories in which it has images of both classes beside real ones.

    Raises:
        UserError: If the train split does not have those that are given.
    """
    train = manifest.split("train").table
    made = train.loc[train["label"] == SYNTHETIC, "generator"]
    generators = options.narrow or _most_frequent(made)[:1]
    _require_known("--narrow", options.narrow, made, manifest)
    _require_known("--narrow-categories", options.narrow_categories, train["category"], manifest)
    categories, there = options.narrow_categories, _most_frequent(train["category"])
    if not categories and len(there) > 1:
        rows = train[(train["label"] == REAL) | train["generator"].isin(generators or [""])]
        both = rows.groupby("category")["label"].transform("nunique") == 2
        half = min(len(there) // 2, _MOST_CATEGORIES)
        categories = _most_frequent(rows.loc[both, "category"])[:half]
    return {"generators": ",".join(generators), "categories": ",".join(categories),
            "per_category": options.narrow_per_category}  # fmt: skip


def _most_frequent(names: "pd.Series[str]") -> tuple[str, ...]:
    """Return the names that are not empty, the most frequent first, equal ones by name."""
    counts = names[names != ""].value_counts()
    return tuple(sorted(counts.index, key=lambda name: (-counts[name], name)))


def _require_known(
    option: str, names: Sequence[str], column: "pd.Series[str]", manifest: Manifest
) -> None:
    found = sorted(set(column) - {""})
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise UserError(
            f"{option}: {', '.join(unknown)} not in the train split of {manifest.name}. "
            f"Found: {', '.join(found) or 'none'}."
        )


# --- their data


def _finetuned(manifest: Manifest, amount: float, data: str, seed: int) -> Manifest:
    """Let the diverse data train on a part of the validation images, which validates neither."""
    moved = move_val_to_train(manifest, amount, seed=seed)
    if data == "diverse":
        return moved
    table = manifest.table
    kept = set(moved.split("val").table["path"])
    return manifest.with_table(table[(table["split"] != "val") | table["path"].isin(kept)])


def _require_common_validation(manifest: Manifest) -> None:
    if manifest.split("val").table["label"].nunique() < 2:
        raise UserError(
            f"the val split of {manifest.name} has no real and synthetic images of what both the "
            "narrow and the diverse data train on. Put some into it, or empty the split column so "
            "that it is made, or choose other narrow data."
        )


def _require_data(options: RegimesOptions, regimes: Sequence[Regime], whole: Prepared) -> list[str]:
    """Check that all data can be trained and evaluated on, before anything is trained.

    Returns:
        Sentences that describe the data that are compared.

    Raises:
        UserError: If some cannot, or if the narrow data are not narrow.
    """
    manifest = whole.manifest
    if options.factorial and manifest.split("test").table["label"].nunique() < 2:
        raise UserError(
            f"--factorial: {manifest.name} has no test split with both classes. Put real and "
            "synthetic images into test, or empty the split column so that it is made."
        )
    described = []
    if _has_narrow(options):
        described.append(f"Narrow data: {_described(options, manifest)}.")
    sizes, validating = {}, 0
    names = sorted({regime.data for regime in regimes})
    with counting("checking the data of each training") as count:
        for number, data in enumerate(names, 1):
            found = regime_data(options, whole, data).manifest
            sizes[data], validating = len(found.split("train")), len(found.split("val"))
            count(number, len(names))
    if _has_narrow(options):
        _require_narrow(options, manifest)
    listed = ", ".join(f"{data} {size:,}" for data, size in sizes.items())
    return [*described, f"Training images: {listed}. All validate on the same {validating:,}."]


def _require_narrow(options: RegimesOptions, manifest: Manifest) -> None:
    """Check that something is narrow about the narrow data.

    Raises:
        UserError: If nothing is.
    """
    choice = _narrow_choice(options, manifest)

    def count(**values: Any) -> int:
        selection = _training_options(options, {**choice, **values}).data
        return len(select(manifest, selection, seed=options.optim.seed).split("train"))

    everything = len(manifest.split("train"))
    if options.supplement or count(per_category=0) < everything:
        return
    if not options.factorial and count() < everything:
        return
    train = manifest.split("train").table
    generators = sorted(set(train.loc[train["label"] == SYNTHETIC, "generator"]) - {""})
    categories = sorted(set(train["category"]) - {""})
    raise UserError(
        f"--narrow: the narrow data would be all of the train split of {manifest.name} "
        f"(generators: {', '.join(generators) or 'none'}; categories: "
        f"{', '.join(categories) or 'none'}), like the diverse data. Name at least two generators "
        "or categories in the columns of the manifest and leave one out of --narrow or "
        "--narrow-categories, or give --supplement, which only the diverse data include. Without "
        "--factorial, a smaller --narrow-per-category is a difference too."
    )


def _described(options: RegimesOptions, manifest: Manifest) -> str:
    """Describe the narrow data."""
    choice = _narrow_choice(options, manifest)
    train = manifest.split("train").table
    there, most = set(train["category"]) - {""}, choice["per_category"]
    parts = [f"generators {choice['generators'].replace(',', ', ') or 'all'}"]
    if choice["categories"]:
        chosen = choice["categories"].split(",")
        parts.append(f"categories {', '.join(chosen)} ({len(chosen)} of {len(there)})")
    else:
        reason = "only one category" if there else "no categories"
        parts.append(f"content not narrowed, since the training images have {reason}")
    if most:
        parts.append(f"at most {most:,} images {'of each category' if there else 'in all'}")
    return "; ".join(parts)


# --- their trainings


def _name(options: RegimesOptions, regime: Regime, number: int) -> str:
    return regime.name if options.seeds == 1 else f"{regime.name} {number + 1}"


def _training(
    options: RegimesOptions, whole: Prepared, regime: Regime, number: int
) -> ChildTraining:
    """Return one training; those of one number share their seed, whichever the regime.

    Raises:
        UserError: If it cannot begin.
    """
    seed = derive_seed(options.optim.seed, number)
    training = _training_options(options, {**regime.differences, "seed": seed})
    require_trainable(training)
    device = resolve_device(training.device, training.model.arch)
    name = _name(options, regime, number)
    data = partial(regime_data, options, whole, regime.data)
    return ChildTraining(name, name, "regime", training, device, data, data=regime.data)


def _refit(
    options: RegimesOptions, whole: Prepared, regime: Regime, training: ChildTraining, run_id: str
) -> ChildTraining:
    """Return the training on all labelled images, with what a training chose by validation."""
    card = logged_by(run_id, training.name).detector.card
    epochs = int(existing(run_id).metrics["best/epoch"])
    name = training.name + _REFIT
    return ChildTraining(
        name,
        name,
        "regime_refit",
        training.options.replace(finetune=0.0),  # all validation images train
        training.device,
        partial(regime_data, options, whole, regime.data, refit=True),
        Predetermined.of(epochs, card),
        regime.data,
    )


def _require_weights(options: RegimesOptions, trainings: Sequence[ChildTraining]) -> None:
    archs = sorted({training.options.model.arch for training in trainings})
    if options.weights not in NAMES and len(archs) > 1:
        raise UserError(
            f"--weights: a file fits one architecture, but these are trained: {', '.join(archs)}. "
            f"Give one of {', '.join(NAMES)}."
        )
