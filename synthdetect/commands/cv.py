"""`synthdetect cv`: folds, their pooled predictions, and the final training on everything."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.commands.report import write_report
from synthdetect.commands.train import announce, begin, tags
from synthdetect.config import CvOptions
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
from synthdetect.evaluation.predictions import evaluate, tabulate
from synthdetect.runs.children import Part, train_parts
from synthdetect.runs.training import CONFIG, Final
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.tracking.evaluation import log_evaluation
from synthdetect.tracking.run import MANIFEST, TARGET, Run, open_run
from synthdetect.training.devices import Device

FOLDS = "folds.csv"
"""The parent's artifact that says which image is in which fold."""

REFIT_RULE = "median of the folds' best epochs, rounded up"


@dataclass(frozen=True)
class Fold:
    """What a finished fold left.

    Attributes:
        metrics: of its run.
        predictions: of the images it held out.
    """

    metrics: Mapping[str, float]
    predictions: pd.DataFrame


def cross_validate(options: CvOptions) -> None:
    """Train a detector a fold, each in a child run, and pool what they say of unseen images."""
    options, device, prepared = begin(options, prepare_whole)
    folds = _folds(options, prepared.manifest)
    require_trainable(options, prepared, folds)
    name = f"cv {options.arch} {options.recipe}"
    with open_run(name, kind="cv", tags=tags("cv", options), resume=options.resume) as run:
        announce(run, options, prepared)
        train_folds(run, options, prepared, folds, device)
    console.print(f"run          {run.id}")
    write_report(run.id)


def train_folds(
    run: Run, options: CvOptions, prepared: Prepared, folds: pd.DataFrame, device: Device
) -> None:
    """Train what is not done of the folds, and of the final training, in an open run.

    Args:
        run: to log to, and to nest under.
        options: of the cross-validation.
        prepared: the data as a whole.
        folds: which image is in which fold.
        device: what computes.
    """
    run.log_table(folds, FOLDS)
    run.log_params({**options.to_flat(), "data.digest": prepared.manifest.digest()})
    record = {"options": options.to_json(), "digest": prepared.digest()}
    run.log_json(record, CONFIG)
    run.log_table(prepared.manifest.table, MANIFEST)
    run.log_manifest(prepared.manifest)
    if prepared.target:
        run.log_table(prepared.target.table(), TARGET)
    numbers = sorted(folds["fold"].unique())
    data = partial(fold_data, options, prepared, folds)
    parts = [
        Part(str(n), f"fold {n} of {len(numbers)}", "fold", options, device, partial(data, n))
        for n in numbers
    ]
    runs = train_parts(run, parts, "cv", options)
    done = {fold: _finished_fold(run, runs[str(fold)]) for fold in numbers}
    final = _conclude_folds(run, options, done)
    if options.refit:
        _refit(run, options, prepared, device, final)


def fold_data(options: CvOptions, prepared: Prepared, folds: pd.DataFrame, fold: int) -> Prepared:
    """The data of one fold's training: what it trains on is narrowed, what validates it is not."""
    manifest = fold_manifest(prepared.manifest, folds, fold)
    return prepared.with_splits(manifest, options, seed=options.seed)


def refit_data(options: CvOptions, prepared: Prepared) -> Prepared:
    """The data of the final training."""
    manifest = narrow(merge_val_into_train(prepared.manifest), options, seed=options.seed)
    return replace(prepared, manifest=manifest)


def require_trainable(options: CvOptions, prepared: Prepared, folds: pd.DataFrame) -> None:
    """Refuse folds of which one cannot be trained or validated, before any is.

    Raises:
        UserError: it says which, and why.
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
    """The assignment: the resumed run's if it has one, else a given one, else a new one."""
    if options.resume:
        own = Run(options.resume).read_table(options.resume, FOLDS)
        if own is not None:
            return own
    if options.folds_from:
        given = Path(options.folds_from)
        if given.is_file():
            folds = read_folds(given, manifest)
        else:
            found = Run(options.folds_from).read_table(options.folds_from, FOLDS)
            if found is None:
                raise UserError(
                    f"--folds-from: {options.folds_from!r} is neither a file nor a "
                    "cross-validation's run id."
                )
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / FOLDS
                found.to_csv(path, index=False)
                folds = read_folds(path, manifest)
        return folds
    return assign_folds(manifest, options, seed=options.seed)


def _refit(run: Run, options: CvOptions, prepared: Prepared, device: Device, final: Final) -> None:
    console.print(f"final training  {final.epochs} epochs on train and val together", style="bold")
    data = partial(refit_data, options, prepared)
    refit = Part("refit", "refit", "refit", options, device, data, final)
    child = train_parts(run, [refit], "cv", options)["refit"]
    run.set_tags({"synthdetect.refit_run": child})


def _conclude_folds(run: Run, options: CvOptions, done: Mapping[int, Fold]) -> Final:
    """Log means, deviations and pooled metrics; decide what the final training needs."""
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
    decision = decide(options, oof["label"], raw)
    pool = tabulate(oof, decision.calibration(raw), decision.threshold, raw)
    evaluation = evaluate(
        {"oof": pool}, decision.threshold, seed=options.seed, band=decision.unsure
    )["oof"]
    log_evaluation(run, evaluation, "oof", decision.threshold)
    run.log_metrics(
        {
            **summary,
            "refit/epochs": float(epochs),
            "decision/threshold": decision.threshold,
            **{f"decision/{name}": v for name, v in decision.calibration.describe().items()},
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
    return Final(epochs, decision)


def _pm(summary: Mapping[str, float], name: str) -> str:
    return f"{summary[f'cv/{name}/mean']:.3f} ± {summary[f'cv/{name}/std']:.3f}"


def _interval(overall: pd.DataFrame, name: str) -> str:
    row = overall.set_index("metric").loc[name]
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _finished_fold(run: Run, run_id: str) -> Fold:
    metrics = run.client.get_run(run_id).data.metrics
    predictions = run.read_table(run_id, "predictions/val.csv")
    if predictions is None:
        raise UserError(f"run {run_id} has lost its predictions; delete it and resume.")
    return Fold(metrics, predictions)
