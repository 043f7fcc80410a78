"""`synthdetect regimes`: the paper's two tables, and what each of its changes does by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.commands.children import Part, train_parts
from synthdetect.commands.report import write_report
from synthdetect.commands.resuming import recorded, require_same_data
from synthdetect.commands.train import announce, tags
from synthdetect.config import AUGMENTATIONS, RegimesOptions, TrainOptions
from synthdetect.console import console, counting, table
from synthdetect.data.labels import REAL, SYNTHETIC
from synthdetect.data.manifest import Manifest
from synthdetect.data.prepare import Prepared, prepare
from synthdetect.data.splits import group_codes
from synthdetect.errors import UserError
from synthdetect.evaluation.effects import Cell, effects
from synthdetect.evaluation.figures import effects_figure
from synthdetect.evaluation.metrics import interval, metrics, resampled
from synthdetect.evaluation.summary import markdown, with_interval
from synthdetect.experiment import CONFIG
from synthdetect.files import require_folder
from synthdetect.models.networks import check
from synthdetect.tracking.run import Run, open_run
from synthdetect.training.devices import Device, resolve

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


def study_regimes(options: RegimesOptions) -> None:
    """Train the regimes (or all combinations), each in a child run, and tabulate them.

    Raises:
        UserError: options or data that do not fit.
        PartsFailed: some trainings failed; the others are kept.
    """
    digest = ""
    if options.resume:
        options, digest = recorded(options)
    require_folder(Path(options.output), "--output")
    with counting("reading the data") as count:
        prepared = prepare(_training(options, {}), seed=options.seed, progress=count)
    if digest:
        require_same_data(prepared, digest, options.resume)
    narrow = _narrow(options, prepared.manifest)
    cells = _cells(options, narrow)
    for differences in cells.values():
        training = _training(options, differences)
        check(training.arch, training.image_size, training.weights)
        _device(training)
    name = "regimes factorial" if options.factorial else "regimes"
    with open_run(
        name, kind="regimes", tags=tags("regimes", options), resume=options.resume
    ) as run:
        announce(run, _training(options, {}), prepared)
        console.print(f"narrow data: {', '.join(narrow)}")
        run.log_params({**options.to_flat(), "data.digest": prepared.manifest.digest(),
                        "regimes.narrow_generators": ",".join(narrow)})  # fmt: skip
        record = {"options": options.to_json(), "digest": prepared.digest()}
        run.log_json(record, CONFIG)
        run.log_manifest(prepared.manifest)
        runs = _train(run, options, cells)
        if options.factorial:
            _conclude_factorial(run, options, cells, runs)
        else:
            _conclude_tables(run, options, runs)
    console.print(f"run          {run.id}")
    write_report(run.id)


def _narrow(options: RegimesOptions, manifest: Manifest) -> tuple[str, ...]:
    """The generators of the narrow data."""
    train = manifest.split("train").table
    counts = train.loc[train["label"] == SYNTHETIC, "generator"].value_counts()
    unknown = sorted(set(options.narrow) - set(counts.index))
    if unknown:
        raise UserError(
            f"--narrow: {', '.join(unknown)} not in the train split of {manifest.name}. "
            f"Found: {', '.join(sorted(counts.index))}."
        )
    return options.narrow or (str(min(counts[counts == counts.max()].index)),)


def _cells(options: RegimesOptions, narrow: tuple[str, ...]) -> dict[str, dict[str, str | float]]:
    """By name, how each training differs from the defaults, but for its seed."""
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


def _device(training: TrainOptions) -> Device:
    return resolve(training.device, training.precision, training.workers, training.arch)


def _train(
    run: Run, options: RegimesOptions, cells: Mapping[str, Mapping[str, str | float]]
) -> dict[tuple[str, int], str]:
    """The child runs' ids by cell and seed."""
    seeds = range(options.seed, options.seed + options.seeds)
    names = {
        (cell, seed): cell if options.seeds == 1 else f"{cell} seed {seed}"
        for cell, seed in product(cells, seeds)
    }

    def prepared_for(training: TrainOptions) -> Callable[[], Prepared]:
        # The first seed makes the splits, so that all trainings are judged on the same images.
        return partial(prepare, training, seed=options.seed)

    parts = []
    for (cell, seed), name in names.items():
        training = replace(_training(options, cells[cell]), seed=seed)
        device = _device(training)
        parts.append(Part(name, name, "regime", training, device, prepared_for(training)))
    runs = train_parts(run, parts, "regimes", options)
    return {key: runs[name] for key, name in names.items()}


def _conclude_tables(
    run: Run, options: RegimesOptions, runs: Mapping[tuple[str, int], str]
) -> None:
    """Both tables in the paper's form, its numbers beside ours."""
    rows = []
    for (split, regime), published in PAPER.items():
        ids = [run_id for (cell, _), run_id in runs.items() if cell == regime]
        tables = [run.read_table(run_id, f"predictions/{split}.csv") for run_id in ids]
        if any(t is None for t in tables):
            continue  # the data have no such split
        thresholds = [run.metric(run_id, "decision/threshold") for run_id in ids]
        found = _mean_over_seeds([t for t in tables if t is not None], thresholds, options.seed)
        arch = run.client.get_run(ids[0]).data.params["model.arch"]
        for metric, paper in zip(_SHOWN, published, strict=True):
            rows.append((split, f"{regime} ({arch})", metric, paper, *found[metric]))
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
    """Each metric's mean over trainings with its interval over sources, not over seeds."""
    values, draws = [], []
    for predictions, threshold in zip(tables, thresholds, strict=True):
        args = (predictions["label"], predictions["logit"], threshold)
        everything = {"": np.ones(len(predictions), dtype=bool)}
        values.append(metrics(*args))
        draws.append(resampled(*args, group_codes(predictions), everything, seed=seed)[""])
    return {
        name: (
            float(np.mean([v[name] for v in values])),
            *interval(np.mean([d[name] for d in draws], axis=0)),
        )
        for name in _SHOWN
    }


def _wide(long: pd.DataFrame) -> pd.DataFrame:
    """The paper's form: a row a run, once with its numbers and once with ours."""
    rows = []
    for regime, part in long.groupby("regime", sort=False):
        measured = part[["ours", "low", "high"]].to_numpy()
        rows.append([f"{regime}, paper", *(f"{value:.2f}" for value in part["paper"])])
        rows.append([f"{regime}, here", *(with_interval(*numbers) for numbers in measured)])
    return pd.DataFrame(rows, columns=["Run / Model", "Accuracy", "ROC-AUC", "F1"])


def _conclude_factorial(
    run: Run,
    options: RegimesOptions,
    cells: Mapping[str, Mapping[str, str | float]],
    runs: Mapping[tuple[str, int], str],
) -> None:
    """Every cell, and the effect of each change by itself on all of the test and on the unseen."""
    factors: dict[str, Sequence[str]] = {
        "architecture": options.archs,
        "data": ("narrow", "diverse"),
        "augmentation": tuple(AUGMENTATIONS),
    }
    studied = {name: levels for name, levels in factors.items() if len(levels) > 1}
    made = []
    for (cell, seed), run_id in runs.items():
        predictions = run.read_table(run_id, "predictions/test.csv")
        if predictions is None:
            raise UserError("--factorial: the data have no labelled test split to judge on.")
        levels = dict(zip(factors, cell.split(" "), strict=True)) | {"seed": str(seed)}
        predictions = predictions.sort_values("path", ignore_index=True)
        made.append(Cell(levels, predictions, run.metric(run_id, "decision/threshold")))
    seen = _seen(run, runs)
    found, listed = [], []
    for outcome in _OUTCOMES:
        judged = [_on(cell, outcome, seen) for cell in made]
        if judged[0].predictions["label"].nunique() < 2:
            continue  # every generator of the test was in training
        measured = effects(judged, studied, "auc", seed=options.seed)
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
    table("What each change does by itself", columns, shown)
    run.describe(markdown(pd.DataFrame(shown, columns=columns)))


def _seen(run: Run, runs: Mapping[tuple[str, int], str]) -> set[str]:
    """The generators that any training had."""
    seen: set[str] = set()
    for run_id in runs.values():
        counts = run.read_table(run_id, "data/counts.csv")
        if counts is not None:
            seen |= set(counts.loc[counts["split"] == "train", "generator"]) - {""}
    return seen


def _on(cell: Cell, outcome: str, seen: set[str]) -> Cell:
    rows = cell.predictions
    if outcome == "unseen":
        rows = rows[(rows["label"] == REAL) | ~rows["generator"].isin(seen)]
    return replace(cell, predictions=rows.reset_index(drop=True))
