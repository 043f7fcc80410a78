"""Cross-validation: folds in child runs, their pooled predictions, and the refit on everything."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.datasets.folds import (
    assign_folds,
    fold_manifest,
    holds_generators_out,
    merge_val_into_train,
    read_folds,
)
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared, narrow, prepare_whole
from synthdetect.datasets.schema import HELD_OUT
from synthdetect.evaluation.attribution import Attribution
from synthdetect.evaluation.cross_fitting import cross_fit, evaluate_cross_fitted
from synthdetect.evaluation.figures import folds_figure
from synthdetect.evaluation.summary import answer_words, main_metrics, with_interval
from synthdetect.evaluation.threshold import threshold_uncertainty
from synthdetect.report.writing import write_report
from synthdetect.runs.children import ChildTraining, train_children
from synthdetect.runs.messages import announce, command_tags
from synthdetect.runs.options import CvOptions
from synthdetect.runs.preflight import preflight, require_learnable
from synthdetect.runs.setting import log_setting
from synthdetect.runs.training import Predetermined
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.system.seeds import derive_seed
from synthdetect.system.timetable import Part, current, timetable
from synthdetect.tracking.evaluation import log_evaluation
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import child_ids, existing, read_table
from synthdetect.tracking.results import run_result
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import CHOSEN, FOLD
from synthdetect.tracking.views import RESULTS, View
from synthdetect.training.devices import Device

FOLDS = "folds.csv"
"""The artifact of the parent run that assigns images to folds."""

REFIT_RULE = "median of the folds' best epochs, rounded up"

_FOLDS_VIEW = View(
    (f"tags.{FOLD}", *RESULTS, "metrics.best/val/auc", "metrics.best/epoch", "params.optim.seed"),
    "metrics.best/val/auc",
)

_OF_PHOTOGRAPHS = (
    "Each labelled image was scored by the only fold model that was not trained on it. The epoch "
    "of that model was chosen on the images of its fold, so the scores are those of the best of "
    "several epochs. Each fold's logits were calibrated before they were pooled, and the "
    "calibration and the threshold that judge an image in the pool were chosen without its "
    "photograph (cross-fitting). "
    "The metrics of a single fold are measured at a threshold that the same images chose."
)
_OF_GENERATORS = (
    "Each fold chose its epoch, its calibration and its threshold on photographs of the generators "
    "that it was trained on. The images that it held out, those of another generator and of other "
    "real photographs, were scored once, at the end, and influenced none of these. In the pool, "
    "the threshold that judges the images of a fold was chosen on those of the other folds."
)
_OF_THE_REFIT = (
    "The calibration of a refit is the median of the folds' calibrations, and its threshold was "
    "chosen on the calibrated pool."
)


@dataclass(frozen=True)
class FinishedFold:
    """The results of a fold.

    Attributes:
        metrics: The metrics of its run.
        validation: The predictions of the images on which its epoch was chosen.
        held_out: The predictions of the images that it held out from training and validation; None
            for a fold of photographs.
    """

    metrics: Mapping[str, float]
    validation: pd.DataFrame
    held_out: pd.DataFrame | None


def cross_validate(options: CvOptions) -> dict[str, Any]:
    """Train a detector for each fold, in child runs, and pool the out-of-fold predictions."""
    ready = preflight(options, prepare_whole)
    options, prepared = ready.options, ready.prepared
    folds = _folds(options, prepared.manifest)
    require_valid_folds(options, prepared, folds)
    name = f"cv {options.model.arch} {options.recipe}"
    tags = command_tags("cv", options)
    with open_run(
        name,
        kind="cv",
        tags=tags,
        resume=options.run.resume,
        tracking=options.tracking,
        view=_FOLDS_VIEW,
    ) as run:
        announce(run, options, prepared)
        train_folds(run, options, prepared, folds, ready.device)
    run.print_pages()
    write_report(run.id)
    return run_result(run.id)


def train_folds(
    run: Run,
    options: CvOptions,
    prepared: Prepared,
    folds: pd.DataFrame,
    device: Device,
    *,
    seeds: Mapping[str, int] | None = None,
) -> None:
    """Train the folds that are not done, and the refit, in an open run.

    Each training has a seed of its own, so that the folds start from different weights. Everything
    that concerns the data goes by the seed of the options.

    Args:
        run: The parent run.
        options: The options of the cross-validation.
        prepared: All data.
        folds: The assignment of images to folds.
        device: The device that computes.
        seeds: Seeds of trainings by name, as `recorded_seeds` returns them, which are kept; the
            others are derived.
    """
    run.log_table(folds, FOLDS)
    log_setting(
        run,
        options,
        digest=prepared.digest(),
        manifest=prepared.manifest,
        target=prepared.target,
    )
    numbers = sorted(folds["fold"].unique().tolist())
    kept = {**(seeds or {}), **recorded_seeds(run.id)}

    def seeded(name: str, key: int) -> CvOptions:
        seed = kept.get(name, derive_seed(options.optim.seed, key))
        return options.replace(seed=seed)

    trainings = [
        ChildTraining(
            str(n),
            f"fold {n} of {len(numbers)}",
            "fold",
            seeded(str(n), n),
            device,
            partial(fold_data, options, prepared, folds, n),
        )
        for n in numbers
    ]
    parts = [training.part for training in trainings]
    if options.folds.refit:
        parts.append(Part("refit", options.optim.epochs, "refit"))
    with timetable(parts):
        _train_planned(run, options, prepared, folds, device, trainings, seeded)


def _train_planned(
    run: Run,
    options: CvOptions,
    prepared: Prepared,
    folds: pd.DataFrame,
    device: Device,
    trainings: list[ChildTraining],
    seeded: Callable[[str, int], CvOptions],
) -> None:
    runs = train_children(run, trainings, "cv", options)
    numbers = sorted(folds["fold"].unique().tolist())
    done = {fold: _finished_fold(runs[str(fold)], folds) for fold in numbers}
    predetermined = _conclude_folds(run, options, done)
    if options.folds.refit:
        console.print(
            f"refit  {predetermined.epochs} epochs on train and val together", style="bold"
        )
        refit = ChildTraining(
            "refit",
            "refit",
            "refit",
            seeded("refit", numbers[-1] + 1),
            device,
            partial(refit_data, options, prepared),
            predetermined,
        )
        current().plan([refit.part])
        run.set_tags(
            {"synthdetect.refit_run": train_children(run, [refit], "cv", options)["refit"]}
        )


def recorded_seeds(parent: str) -> dict[str, int]:
    """Return the seed of each training that has begun under a parent run, by name.

    A training resumes and is rerun with the seed that it recorded: older versions trained all folds
    with the seed of the cross-validation.
    """
    found = {name: existing(child).params for name, child in child_ids(parent).items()}
    return {
        name: int(params["optim.seed"]) for name, params in found.items() if "optim.seed" in params
    }


def fold_data(options: CvOptions, prepared: Prepared, folds: pd.DataFrame, fold: int) -> Prepared:
    """Return the data of one fold; its training images are narrowed, the others not."""
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
                fold = fold_data(options, prepared, folds, number)
                require_learnable(options, fold.manifest)
            except UserError as error:
                raise UserError(
                    f"fold {number}: {error} Or give other --folds, --group-by or --seed."
                ) from error
            count(done, len(numbers))


def recorded_folds(run_id: str) -> pd.DataFrame | None:
    """Return the folds that a cross-validation recorded, or None if it recorded none.

    Raises:
        UserError: If they are those of an older version that validated on what it held out.
    """
    folds = read_table(run_id, FOLDS)
    if folds is not None and holds_generators_out(folds) and "val" not in folds:
        raise UserError(
            f"run {run_id} was begun by a version whose folds chose epoch and threshold on the "
            "generator that they held out, which this version does not do. Start a new "
            f"cross-validation; --folds-from {run_id} takes its folds."
        )
    return folds


def _folds(options: CvOptions, manifest: Manifest) -> pd.DataFrame:
    """Return the folds of the resumed run if it has them, else given ones, else new ones."""
    resume, given = options.run.resume, options.folds.folds_from
    seed, val_share = options.optim.seed, options.data.val_share
    if resume:
        own = recorded_folds(resume)
        if own is not None:
            return own
    if not given:
        return assign_folds(manifest, options.folds, seed=seed, val_share=val_share)
    if Path(given).is_file():
        return read_folds(Path(given), manifest, seed=seed, val_share=val_share)
    found = read_table(given, FOLDS)
    if found is None:
        raise UserError(
            f"--folds-from: {given!r} is neither a file nor the run id of a cross-validation."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FOLDS
        found.to_csv(path, index=False)
        return read_folds(path, manifest, seed=seed, val_share=val_share)


def _conclude_folds(
    run: Run, options: CvOptions, done: Mapping[int, FinishedFold]
) -> Predetermined:
    """Log means, deviations and pooled metrics; return epochs and decision of the refit."""
    seed = options.optim.seed
    validation = pd.concat(
        [fold.validation.assign(fold=n) for n, fold in done.items()], ignore_index=True
    )
    held_out = [
        fold.held_out.assign(fold=n) for n, fold in done.items() if fold.held_out is not None
    ]
    if held_out:
        prefix, pool = f"{HELD_OUT}/", pd.concat(held_out, ignore_index=True)
        fitted = cross_fit(options.decision, pool, seed=seed, validation=validation)
    else:
        prefix, pool = "best/val/", validation
        fitted = cross_fit(options.decision, pool, seed=seed)
    evaluation = evaluate_cross_fitted(pool, fitted, "oof", seed=seed)
    rows = pd.DataFrame({fold: dict(result.metrics) for fold, result in done.items()}).T
    reported = ("best/", f"{HELD_OUT}/", "test/")
    per_fold = rows[[name for name in rows if name.startswith(reported)]].dropna(axis=1)
    summary = {}
    for name in per_fold:
        short = name.removeprefix(prefix).removeprefix("best/")
        summary[f"cv/{short}/mean"] = float(per_fold[name].mean())
        summary[f"cv/{short}/std"] = float(per_fold[name].std(ddof=1))
    epochs = int(np.ceil(np.median(rows["best/epoch"])))
    decision = fitted.decision
    log_evaluation(run, evaluation, "oof", decision.threshold)
    calibrated = pool.assign(logit=fitted.logits)
    uncertainty = threshold_uncertainty(options.decision, calibrated, seed=seed)
    run.log_metrics(
        {
            **summary,
            "refit/epochs": float(epochs),
            **{f"decision/{name}": value for name, value in decision.describe().items()},
            **(uncertainty.describe() if uncertainty else {}),
            **main_metrics({"oof": evaluation}),
        }
    )
    run.set_tags({"synthdetect.refit_rule": REFIT_RULE})
    run.log_table(per_fold.rename_axis("fold").reset_index(), "cv/folds.csv")
    run.log_figure(folds_figure(per_fold, evaluation.predictions, prefix), "figures/folds.png")
    shown = [
        [name, _pm(summary, name), _interval(evaluation.overall, name)]
        for name in ("auc", "balanced_accuracy", "accuracy", "f1", "ece")
    ]
    images = "held-out images" if held_out else "validation images"
    columns = [
        "metric",
        f"{images}, mean ± std of {len(done)} folds",
        "pooled, cross-fitted [95 %]",
    ]
    title = (
        "Cross-validation, one generator left out in each fold" if held_out else "Cross-validation"
    )
    table(title, columns, shown)
    lines = [" | ".join(["", *row, ""]).strip() for row in [columns, ["---"] * 3, *shown]]
    chosen = f"{_OF_GENERATORS if held_out else _OF_PHOTOGRAPHS} {_OF_THE_REFIT}"
    console.print(chosen)
    run.set_tags({CHOSEN: chosen})
    words = answer_words({"oof": evaluation}, None)
    run.describe_results(words, "\n".join([*lines, "", chosen]), "figures/folds.png")
    return Predetermined(epochs, decision, _attribution(rows))


def _attribution(folds: pd.DataFrame) -> Attribution | None:
    """Return the medians of the folds' temperatures and thresholds of attribution, if any."""
    chosen = ("decision/attribution_temperature", "decision/attribution_threshold")
    if not set(chosen) <= set(folds):
        return None
    temperature, threshold = (float(folds[name].median()) for name in chosen)
    return Attribution(temperature, threshold)


def _pm(summary: Mapping[str, float], name: str) -> str:
    return f"{summary[f'cv/{name}/mean']:.3f} ± {summary[f'cv/{name}/std']:.3f}"


def _interval(overall: pd.DataFrame, name: str) -> str:
    row = overall.set_index("metric").loc[name]
    return with_interval(row["value"], row["low"], row["high"])


def _finished_fold(run_id: str, folds: pd.DataFrame) -> FinishedFold:
    validation, held_out = _predictions(run_id, "val"), None
    if holds_generators_out(folds):
        held_out = _predictions(run_id, HELD_OUT)
    return FinishedFold(existing(run_id).metrics, validation, held_out)


def _predictions(run_id: str, split: str) -> pd.DataFrame:
    predictions = read_table(run_id, f"predictions/{split}.csv")
    if predictions is None:
        raise UserError(f"run {run_id} has lost its predictions; delete it and resume.")
    return predictions
