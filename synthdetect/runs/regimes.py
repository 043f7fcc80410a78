"""The paper's two regimes in its tables, and the effect of each of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import prepare
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.effects import Cell, effects
from synthdetect.evaluation.figures import effects_figure
from synthdetect.evaluation.metrics import bootstrap_metrics, metrics, percentile_interval
from synthdetect.evaluation.summary import markdown, with_interval
from synthdetect.report.writing import write_report
from synthdetect.runs.children import ChildTraining, train_children
from synthdetect.runs.messages import announce, command_tags
from synthdetect.runs.options import RegimesOptions, TrainOptions
from synthdetect.runs.preflight import require_trainable, resolve_device
from synthdetect.runs.recipes import AUGMENTATIONS
from synthdetect.runs.resume import recorded_options, require_same_data
from synthdetect.runs.setting import log_setting
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.system.files import require_folder
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import existing, read_table
from synthdetect.tracking.run import Run

PAPER: dict[tuple[str, str], tuple[float, float, float]] = {
    ("val", "constrained"): (0.56, 0.52, 0.45),
    ("val", "open"): (0.91, 0.97, 0.91),
    ("test", "constrained"): (0.46, 0.44, 0.41),
    ("test", "open"): (0.81, 0.90, 0.80),
}
"""Accuracy, ROC-AUC and F1 of the paper's tables 1 (val) and 2 (test)."""

_SHOWN = ("accuracy", "auc", "f1")
_TITLES = {"val": "Table 1: validation set", "test": "Table 2: test set"}
_OUTCOMES = {"test": "all of the test", "unseen": "generators that no training had"}
_DATA = {"generators": "--narrow", "per_category": "--narrow-per-category",
         "supplement": "--supplement", "finetune": "--finetune"}  # fmt: skip
"""Data options in which the trainings may differ, and the options of this command that set them."""


def study_regimes(options: RegimesOptions) -> None:
    """Train the regimes, or all combinations, in child runs, and tabulate the results.

    Raises:
        UserError: If options or data do not fit.
        TrainingsFailed: If some trainings failed; the others are kept.
    """
    digest = ""
    if options.resume:
        options, digest = recorded_options(options)
    if options.factorial and not options.archs:
        raise UserError("--archs: name at least one; see: synthdetect list architectures.")
    require_folder(Path(options.output), "--output")
    everything = _training(options, {"supplement": options.supplement})
    with counting("reading the data") as count:
        prepared = own = prepare(
            _training(options, {}).data, seed=options.optim.seed, progress=count
        )
        if options.supplement:
            prepared = prepare(everything.data, seed=options.optim.seed, progress=count)
    if digest:
        require_same_data(prepared, digest, options.resume)
    narrow = _narrow(options, own.manifest)
    cells = _cells(options, narrow)
    _require_data(options, cells, own.manifest)
    parts = _parts(options, cells)
    name = "regimes factorial" if options.factorial else "regimes"
    with open_run(
        name, kind="regimes", tags=command_tags("regimes", options), resume=options.resume
    ) as run:
        announce(run, everything, prepared)
        console.print(f"narrow data: {_described(options, narrow)}")
        log_setting(run, options, digest=prepared.digest(), manifest=prepared.manifest)
        run.log_params({"regimes.narrow_generators": ",".join(narrow)})
        done = train_children(run, list(parts.values()), "regimes", options)
        runs = {key: done[part.name] for key, part in parts.items()}
        if options.factorial:
            _conclude_factorial(run, options, runs)
        else:
            _conclude_tables(run, options, runs)
    console.print(f"run          {run.id}")
    write_report(run.id)


def _narrow(options: RegimesOptions, manifest: Manifest) -> tuple[str, ...]:
    """Return the generators of the narrow data; empty if all, when something else narrows them."""
    train = manifest.split("train").table
    generators = train.loc[train["label"] == SYNTHETIC, "generator"]
    counts = generators[generators != ""].value_counts()
    found = ", ".join(sorted(counts.index)) or "none"
    unknown = sorted(set(options.narrow) - set(counts.index))
    if unknown:
        raise UserError(
            f"--narrow: {', '.join(unknown)} not in the train split of {manifest.name}. "
            f"Found: {found}."
        )
    narrow = options.narrow or tuple(sorted(counts[counts == counts.max()].index)[:1])
    everything = not narrow or generators.isin(narrow).all()
    if everything and not (options.supplement or _is_capped(options, train)):
        raise UserError(
            f"--narrow: the narrow data would be all of the train split of {manifest.name} "
            f"(generators: {found}), like the diverse data. Name at least two generators in the "
            "generator column and leave one out of --narrow, give --supplement, which only the "
            "diverse data include, or a smaller --narrow-per-category."
        )
    return narrow


def _is_capped(options: RegimesOptions, train: pd.DataFrame) -> bool:
    """Return whether --narrow-per-category removes images."""
    pairs = train.groupby(["category", "label"]).size().unstack(fill_value=0).min(axis=1)
    return 0 < options.narrow_per_category < 2 * int(pairs.max())


def _described(options: RegimesOptions, narrow: tuple[str, ...]) -> str:
    most = options.narrow_per_category
    capped = f", at most {most:,} images per category" if most else ""
    return f"{', '.join(narrow) or f'all of {options.source.data}'}{capped}"


def _cells(options: RegimesOptions, narrow: tuple[str, ...]) -> dict[str, dict[str, str | float]]:
    """Return how each training differs from the defaults, apart from its seed, by name."""
    data: dict[str, dict[str, str | float]] = {
        "narrow": {"generators": ",".join(narrow), "per_category": options.narrow_per_category},
        "diverse": {"supplement": options.supplement},
    }
    if not options.factorial:
        return {
            "constrained": {**data["narrow"], "recipe": "constrained",
                            "per_category": options.narrow_per_category},
            "open": {**data["diverse"], "recipe": "open", "finetune": options.finetune},
        }  # fmt: skip
    return {
        f"{arch} {breadth} {strength}": {"arch": arch, **data[breadth], **AUGMENTATIONS[strength]}
        for arch, breadth, strength in product(options.archs, data, AUGMENTATIONS)
    }


def _training(options: RegimesOptions, differences: Mapping[str, str | float]) -> TrainOptions:
    shared = {k: v for k, v in options.to_json().items() if k in TrainOptions.fields()}
    shared = {k: v for k, v in shared.items() if k not in ("supplement", "finetune", "resume")}
    return TrainOptions.resolve({**shared, "keep_last": False, **differences})


def _parts(
    options: RegimesOptions, cells: Mapping[str, Mapping[str, str | float]]
) -> dict[tuple[str, int], ChildTraining]:
    """Return the trainings by cell and seed.

    The first seed makes the splits, so that all are evaluated on the same images.

    Raises:
        UserError: If a training cannot begin.
    """
    parts = {}
    for cell, seed in product(cells, range(options.optim.seed, options.optim.seed + options.seeds)):
        training = _training(options, {**cells[cell], "seed": seed})
        require_trainable(training)
        device = resolve_device(training.device, training.model.arch)
        name = cell if options.seeds == 1 else f"{cell} seed {seed}"
        data = partial(prepare, training.data, seed=options.optim.seed)
        parts[cell, seed] = ChildTraining(name, name, "regime", training, device, data)
    archs = sorted({part.options.model.arch for part in parts.values()})
    if options.weights not in ("auto", "imagenet", "none") and len(archs) > 1:
        raise UserError(
            f"--weights: a file fits one architecture, but these are trained: {', '.join(archs)}. "
            "Give auto, imagenet or none."
        )
    return parts


def _require_data(
    options: RegimesOptions, cells: Mapping[str, Mapping[str, str | float]], manifest: Manifest
) -> None:
    """Check that all data can be trained and evaluated on, before anything is trained.

    Raises:
        UserError: If some cannot.
    """
    if options.factorial and manifest.split("test").table["label"].nunique() < 2:
        raise UserError(
            f"--factorial: {manifest.name} has no test split with both classes. Put real and "
            "synthetic images into test, or empty the split column so that it is made."
        )
    tried: list[dict[str, str | float]] = [{"supplement": options.supplement}]
    for differences in cells.values():
        data = {name: value for name, value in differences.items() if name in _DATA}
        if data in tried:
            continue
        tried.append(data)
        try:
            with counting("checking the data of each training") as count:
                prepare(_training(options, data).data, seed=options.optim.seed, progress=count)
        except UserError as error:
            raise UserError(f"{', '.join(_DATA[name] for name in data)}: {error}") from error


def _conclude_tables(
    run: Run, options: RegimesOptions, runs: Mapping[tuple[str, int], str]
) -> None:
    """Log and print both tables of the paper, with its numbers and the measured ones."""
    rows = []
    for (split, regime), published in PAPER.items():
        ids = [run_id for (cell, _), run_id in runs.items() if cell == regime]
        tables = [read_table(run_id, f"predictions/{split}.csv") for run_id in ids]
        if any(t is None for t in tables):
            continue  # the data have no such split
        thresholds = [existing(run_id).metrics["decision/threshold"] for run_id in ids]
        found = _mean_over_seeds(
            [t for t in tables if t is not None], thresholds, options.optim.seed
        )
        arch = existing(ids[0]).params["model.arch"]
        for metric, paper in zip(_SHOWN, published, strict=True):
            rows.append((split, f"{regime} ({arch})", metric, paper, *found[metric]))
            if np.isfinite(found[metric][0]):  # a test of one class has no AUC
                run.log_metrics({f"regimes/{regime}/{split}/{metric}": found[metric][0]})
    columns = ["table", "regime", "metric", "paper", "ours", "low", "high"]
    long = pd.DataFrame(rows, columns=columns)
    run.log_table(long, "regimes/tables.csv")
    texts = []
    for split, title in _TITLES.items():
        wide = _wide(long[long["table"] == split])
        if len(wide):
            table(title, list(wide.columns), wide.to_numpy().tolist())
            texts.append(f"**{title}**\n\n{markdown(wide)}")
    run.describe("\n\n".join(texts))


def _mean_over_seeds(
    tables: Sequence[pd.DataFrame], thresholds: Sequence[float], seed: int
) -> dict[str, tuple[float, float, float]]:
    """Return the mean of each metric over trainings, with its 95 % interval over sources only."""
    values, draws = [], []
    for predictions, threshold in zip(tables, thresholds, strict=True):
        args = (predictions["label"], predictions["logit"], threshold)
        everything = {"": np.ones(len(predictions), dtype=bool)}
        values.append(metrics(*args))
        draws.append(bootstrap_metrics(*args, group_codes(predictions), everything, seed=seed)[""])
    return {
        name: (
            float(np.mean([v[name] for v in values])),
            *percentile_interval(np.mean([d[name] for d in draws], axis=0)),
        )
        for name in _SHOWN
    }


def _wide(long: pd.DataFrame) -> pd.DataFrame:
    """Return a table in the form of the paper: for each run its numbers and the measured ones."""
    rows = []
    for regime, part in long.groupby("regime", sort=False):
        measured = part[["ours", "low", "high"]].to_numpy()
        rows.append([f"{regime}, paper", *(f"{value:.2f}" for value in part["paper"])])
        rows.append([f"{regime}, here", *(with_interval(*numbers) for numbers in measured)])
    return pd.DataFrame(rows, columns=["Run / Model", "Accuracy", "ROC-AUC", "F1"])


def _conclude_factorial(
    run: Run,
    options: RegimesOptions,
    runs: Mapping[tuple[str, int], str],
) -> None:
    """Log and print every cell, and the effect of each factor on test and unseen generators."""
    factors: dict[str, Sequence[str]] = {
        "architecture": options.archs,
        "data": ("narrow", "diverse"),
        "augmentation": tuple(AUGMENTATIONS),
    }
    studied = {name: levels for name, levels in factors.items() if len(levels) > 1}
    made = []
    for (cell, seed), run_id in runs.items():
        predictions = read_table(run_id, "predictions/test.csv")
        if predictions is None:
            raise UserError(f"run {run_id} has no predictions/test.csv any more; restore it.")
        levels = dict(zip(factors, cell.split(" "), strict=True)) | {"seed": str(seed)}
        predictions = predictions.sort_values("path", ignore_index=True)
        made.append(Cell(levels, predictions, existing(run_id).metrics["decision/threshold"]))
    seen = _seen(runs)
    found, listed = [], []
    for outcome in _OUTCOMES:
        judged = [_on(cell, outcome, seen) for cell in made]
        if judged[0].predictions["label"].nunique() < 2:
            continue  # no generator of the test split is known to be unseen
        measured = effects(judged, studied, "auc", seed=options.optim.seed)
        found.append(measured.assign(on=outcome))
        for one in judged:
            auc = metrics(one.predictions["label"], one.predictions["logit"], 0.5)["auc"]
            listed.append({**one.levels, "on": outcome, "auc": auc})
    changes = pd.concat(found, ignore_index=True)
    run.log_table(changes, "regimes/effects.csv")
    run.log_table(pd.DataFrame(listed), "regimes/cells.csv")
    run.log_figure(effects_figure(changes), "figures/effects.png")
    shown = []
    for row in changes.to_dict(orient="records"):
        change = f"{row['effect']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        what = f"{row['factor']}: {row['level']} instead of {row['against']}"
        shown.append([what, _OUTCOMES[row["on"]], change, str(row["pairs"])])
        key = f"effects/{row['factor']}/{row['level']}/{row['on']}/auc"
        run.log_metrics({key: row["effect"]})
    columns = ["change", "judged on", "change of AUC [95 %]", "pairs"]
    table("The effect of each difference", columns, shown)
    run.describe(markdown(pd.DataFrame(shown, columns=columns)))


def _seen(runs: Mapping[tuple[str, int], str]) -> set[str]:
    """Return the generators of any training, and the empty name, which may stand for any."""
    seen = {""}
    for run_id in runs.values():
        counts = read_table(run_id, "data/counts.csv")
        if counts is not None:
            trained = (counts["split"] == "train") & (counts["label"] == CLASSES[SYNTHETIC])
            seen |= set(counts.loc[trained, "generator"])
    return seen


def _on(cell: Cell, outcome: str, seen: set[str]) -> Cell:
    rows = cell.predictions
    if outcome == "unseen":
        rows = rows[(rows["label"] == REAL) | ~rows["generator"].isin(seen)]
    return replace(cell, predictions=rows.reset_index(drop=True))
