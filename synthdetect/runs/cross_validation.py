"""Cross-validation: folds in child runs, their pooled predictions, and the refit on everything."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.datasets.folds import (
    assign_folds,
    fold_manifest,
    merge_val_into_train,
    read_folds,
)
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared, narrow, prepare_whole
from synthdetect.evaluation.decision import decide
from synthdetect.evaluation.figures import folds_figure
from synthdetect.evaluation.predictions import evaluate, prediction_table
from synthdetect.report.writing import write_report
from synthdetect.runs.children import ChildTraining, train_children
from synthdetect.runs.messages import announce, command_tags
from synthdetect.runs.options import CvOptions
from synthdetect.runs.preflight import preflight
from synthdetect.runs.setting import log_setting
from synthdetect.runs.training import Predetermined
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.tracking.evaluation import log_evaluation
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import existing, read_table
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device

FOLDS = "folds.csv"
"""The artifact of the parent run that assigns images to folds."""

REFIT_RULE = "median of the folds' best epochs, rounded up"


@dataclass(frozen=True)
class FinishedFold:
    """The results of a fold.

    Attributes:
        metrics: The metrics of its run.
        predictions: The predictions of the images that it held out.
    """

    metrics: Mapping[str, float]
    predictions: pd.DataFrame


def cross_validate(options: CvOptions) -> None:
    """Train a detector for each fold, in child runs, and pool the out-of-fold predictions."""
    ready = preflight(options, prepare_whole)
    options, prepared = ready.options, ready.prepared
    folds = _folds(options, prepared.manifest)
    require_valid_folds(options, prepared, folds)
    name = f"cv {options.model.arch} {options.recipe}"
    tags = command_tags("cv", options)
    with open_run(name, kind="cv", tags=tags, resume=options.run.resume) as run:
        announce(run, options, prepared)
        train_folds(run, options, prepared, folds, ready.device)
    console.print(f"run          {run.id}")
    write_report(run.id)


def train_folds(
    run: Run, options: CvOptions, prepared: Prepared, folds: pd.DataFrame, device: Device
) -> None:
    """Train the folds that are not done, and the refit, in an open run.

    Args:
        run: The parent run.
        options: The options of the cross-validation.
        prepared: All data.
        folds: The assignment of images to folds.
        device: The device that computes.
    """
    run.log_table(folds, FOLDS)
    log_setting(
        run,
        options,
        digest=prepared.digest(),
        manifest=prepared.manifest,
        target=prepared.target,
    )
    numbers = sorted(folds["fold"].unique())
    trainings = [
        ChildTraining(
            str(n),
            f"fold {n} of {len(numbers)}",
            "fold",
            options,
            device,
            partial(fold_data, options, prepared, folds, n),
        )
        for n in numbers
    ]
    runs = train_children(run, trainings, "cv", options)
    done = {fold: _finished_fold(runs[str(fold)]) for fold in numbers}
    predetermined = _conclude_folds(run, options, done)
    if options.folds.refit:
        _refit(run, options, prepared, device, predetermined)


def fold_data(options: CvOptions, prepared: Prepared, folds: pd.DataFrame, fold: int) -> Prepared:
    """Return the data of one fold; its training images are narrowed, its validation images not."""
    manifest = fold_manifest(prepared.manifest, folds, fold)
    return prepared.with_splits(manifest, options.data, seed=options.optim.seed)


def refit_data(options: CvOptions, prepared: Prepared) -> Prepared:
    """Return the data of the refit: all labelled images train."""
    everything = merge_val_into_train(prepared.manifest)
    manifest = narrow(everything, options.data, seed=options.optim.seed)
    return replace(prepared, manifest=manifest)


def require_valid_folds(options: CvOptions, prepared: Prepared, folds: pd.DataFrame) -> None:
    """Check that every fold can be trained and validated, before any is.

    Raises:
        UserError: If one cannot; the message names it.
    """
    numbers = sorted(folds["fold"].unique())
    with counting("checking the folds", "folds") as count:
        for done, number in enumerate(numbers, 1):
            try:
                fold_data(options, prepared, folds, number)
            except UserError as error:
                raise UserError(
                    f"fold {number}: {error} Or give other --folds, --group-by or --seed."
                ) from error
            count(done, len(numbers))


def _folds(options: CvOptions, manifest: Manifest) -> pd.DataFrame:
    """Return the folds of the resumed run if it has them, else given ones, else new ones."""
    resume, given = options.run.resume, options.folds.folds_from
    if resume:
        own = read_table(resume, FOLDS)
        if own is not None:
            return own
    if not given:
        return assign_folds(manifest, options.folds, seed=options.optim.seed)
    if Path(given).is_file():
        return read_folds(Path(given), manifest)
    found = read_table(given, FOLDS)
    if found is None:
        raise UserError(
            f"--folds-from: {given!r} is neither a file nor the run id of a cross-validation."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FOLDS
        found.to_csv(path, index=False)
        return read_folds(path, manifest)


def _refit(
    run: Run,
    options: CvOptions,
    prepared: Prepared,
    device: Device,
    predetermined: Predetermined,
) -> None:
    epochs = predetermined.epochs
    console.print(f"refit  {epochs} epochs on train and val together", style="bold")
    data = partial(refit_data, options, prepared)
    refit = ChildTraining("refit", "refit", "refit", options, device, data, predetermined)
    child = train_children(run, [refit], "cv", options)["refit"]
    run.set_tags({"synthdetect.refit_run": child})


def _conclude_folds(
    run: Run, options: CvOptions, done: Mapping[int, FinishedFold]
) -> Predetermined:
    """Log means, deviations and pooled metrics; return epochs and decision of the refit."""
    rows = pd.DataFrame({fold: dict(result.metrics) for fold, result in done.items()}).T
    per_fold = rows[[name for name in rows if name.startswith(("best/", "test/"))]].dropna(axis=1)
    summary = {}
    for name in per_fold:
        short = name.removeprefix("best/val/").removeprefix("best/")
        summary[f"cv/{short}/mean"] = float(per_fold[name].mean())
        summary[f"cv/{short}/std"] = float(per_fold[name].std(ddof=1))
    oof = pd.concat(
        [result.predictions.assign(fold=fold) for fold, result in done.items()], ignore_index=True
    )
    epochs = int(np.ceil(np.median(rows["best/epoch"])))
    raw = oof["raw_logit"].to_numpy()
    decision = decide(options.decision, oof["label"], raw)
    pool = prediction_table(oof, decision.calibration(raw), decision, raw)
    evaluation = evaluate({"oof": pool}, decision, seed=options.optim.seed)["oof"]
    log_evaluation(run, evaluation, "oof", decision.threshold)
    run.log_metrics(
        {
            **summary,
            "refit/epochs": float(epochs),
            **{f"decision/{name}": value for name, value in decision.describe().items()},
        }
    )
    run.set_tags({"synthdetect.refit_rule": REFIT_RULE})
    run.log_table(per_fold.rename_axis("fold").reset_index(), "cv/folds.csv")
    run.log_figure(folds_figure(per_fold, pool), "figures/folds.png")
    shown = [
        [name, _pm(summary, name), _interval(evaluation.overall, name)]
        for name in ("auc", "accuracy", "f1", "ece")
    ]
    columns = ["metric", f"mean ± std of {len(done)} folds", "pooled out of fold [95 %]"]
    table("Cross-validation", columns, shown)
    lines = [" | ".join(["", *row, ""]).strip() for row in [columns, ["---"] * 3, *shown]]
    run.describe("\n".join(lines))
    return Predetermined(epochs, decision)


def _pm(summary: Mapping[str, float], name: str) -> str:
    return f"{summary[f'cv/{name}/mean']:.3f} ± {summary[f'cv/{name}/std']:.3f}"


def _interval(overall: pd.DataFrame, name: str) -> str:
    row = overall.set_index("metric").loc[name]
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _finished_fold(run_id: str) -> FinishedFold:
    metrics = existing(run_id).metrics
    predictions = read_table(run_id, "predictions/val.csv")
    if predictions is None:
        raise UserError(f"run {run_id} has lost its predictions; delete it and resume.")
    return FinishedFold(metrics, predictions)
