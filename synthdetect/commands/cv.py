"""`synthdetect cv`: folds, their pooled predictions, and the final training on everything."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from synthdetect.commands.report import write_report
from synthdetect.commands.resuming import fetch_checkpoint
from synthdetect.commands.train import announce, begin, conclude, tags
from synthdetect.config import CvOptions
from synthdetect.console import console, table
from synthdetect.data.folds import assign, fold_manifest, pooled
from synthdetect.data.folds import read as read_folds
from synthdetect.data.manifest import Manifest
from synthdetect.data.prepare import Prepared
from synthdetect.errors import UserError
from synthdetect.evaluation.figures import folds_figure
from synthdetect.evaluation.predictions import evaluate, tabulate
from synthdetect.experiment import CONFIG, Decision, decide, run_training
from synthdetect.tracking.model import register
from synthdetect.tracking.run import FOLD, Run, open_run
from synthdetect.training.devices import Device

FOLDS = "folds.csv"
"""The parent's artifact that says which image is in which fold."""

REFIT_RULE = "median of the folds' best epochs, rounded up"


class FoldsFailed(RuntimeError):
    """Some folds ended in an error."""


@dataclass(frozen=True)
class Fold:
    """What a finished fold left.

    Attributes:
        metrics: of its run.
        predictions: of the images it held out, with `raw_logit` beside the calibrated one.
    """

    metrics: Mapping[str, float]
    predictions: pd.DataFrame


def cross_validate(options: CvOptions) -> None:
    """Train a detector a fold, each in a child run, and pool what they say of unseen images."""
    options, device, prepared = begin(options)
    name = f"cv {options.arch} {options.recipe}"
    with open_run(name, kind="cv", tags=tags("cv", options), resume=options.resume) as run:
        announce(run, prepared)
        folds = _folds(run, options, prepared.manifest)
        run.log_params({**options.to_flat(), "data.digest": prepared.manifest.digest()})
        record = {"options": options.to_json(), "digest": prepared.manifest.digest()}
        run.log_json(record, CONFIG)
        run.log_manifest(prepared.manifest)
        done, failed = _train_folds(run, options, prepared, folds, device)
        if failed:
            listed = "; ".join(f"fold {fold}: {error}" for fold, error in failed.items())
            raise FoldsFailed(
                f"{len(failed)} of {folds['fold'].nunique()} folds failed: {listed}. "
                f"Go on with: synthdetect cv --resume {run.id}"
            )
        decision = _conclude_folds(run, options, done)
        if options.refit:
            _refit(run, options, prepared, device, decision)
    console.print(f"run          {run.id}")
    write_report(run.id)


def _folds(run: Run, options: CvOptions, manifest: Manifest) -> pd.DataFrame:
    """The assignment: the run's own if it has one, else a given one, else a new one."""
    own = _artifact(run, run.id, FOLDS)
    if own is not None:
        return own
    if options.folds_from:
        given = Path(options.folds_from)
        if given.is_file():
            folds = read_folds(given, manifest)
        else:
            found = _artifact(run, options.folds_from, FOLDS)
            if found is None:
                raise UserError(
                    f"--folds-from: {options.folds_from!r} is neither a file nor a "
                    "cross-validation's run id."
                )
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / FOLDS
                found.to_csv(path, index=False)
                folds = read_folds(path, manifest)
    else:
        folds = assign(manifest, options, seed=options.seed)
    run.log_table(folds, FOLDS)
    return folds


def _train_folds(
    run: Run, options: CvOptions, prepared: Prepared, folds: pd.DataFrame, device: Device
) -> tuple[dict[int, Fold], dict[int, str]]:
    """Train the folds that are not done; one that fails leaves the others."""
    done: dict[int, Fold] = {}
    failed: dict[int, str] = {}
    children = _children(run)
    for fold in sorted(folds["fold"].unique()):
        child = children.get(str(fold), "")
        if child and _is_finished(run, child):
            console.print(f"[bold]fold {fold}[/]  is done (run {child})")
            done[fold] = _finished_fold(run, child)
            continue
        console.print(f"[bold]fold {fold} of {folds['fold'].nunique()}[/]")
        part = replace(prepared, manifest=fold_manifest(prepared.manifest, folds, fold))
        try:
            child = _train_child(run, options, part, device, str(fold), f"fold {fold}", child)
        except Exception as error:
            failed[fold] = f"{type(error).__name__}: {error}"
            console.print(f"[bold red]fold {fold} failed:[/] {failed[fold]}")
            continue
        done[fold] = _finished_fold(run, child)
    return done, failed


def _train_child(
    parent: Run,
    options: CvOptions,
    prepared: Prepared,
    device: Device,
    fold: str,
    name: str,
    resume: str,
    decision: Decision | None = None,
) -> str:
    """One training in a child run; returns the child's id."""
    labels = {**tags("cv", options), FOLD: fold}
    kind = "refit" if decision else "fold"
    with open_run(name, kind=kind, tags=labels, resume=resume, parent=parent) as child:
        if resume:
            fetch_checkpoint(child, options.output)
        outcome = run_training(child, options, prepared, device, decision)
        if decision:
            version = register(outcome.model, options.register) if options.register else ""
            conclude(child, outcome, options.register, version)
    return child.id


def _refit(
    run: Run, options: CvOptions, prepared: Prepared, device: Device, decision: Decision
) -> None:
    child = _children(run).get("refit", "")
    if child and _is_finished(run, child):
        console.print(f"[bold]refit[/]  is done (run {child})")
        return
    console.print(f"[bold]refit[/]  {decision.epochs} epochs on all labelled images")
    part = replace(prepared, manifest=pooled(prepared.manifest))
    child = _train_child(run, options, part, device, "refit", "refit", child, decision)
    run.set_tags({"synthdetect.refit_run": child})


def _conclude_folds(run: Run, options: CvOptions, done: Mapping[int, Fold]) -> Decision:
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
    decision = decide(options, oof["label"], oof["raw_logit"].to_numpy(), epochs)
    logits = (oof["raw_logit"] / decision.temperature).to_numpy()
    pool = tabulate(oof.drop(columns=["logit", "probability", "predicted"]), logits,
                    decision.threshold)  # fmt: skip
    evaluation = evaluate({"oof": pool}, decision.threshold, seed=options.seed)["oof"]
    run.log_metrics({**summary, **evaluation.flat("oof")})
    run.log_metrics(
        {
            "refit/epochs": float(epochs),
            "decision/temperature": decision.temperature,
            "decision/threshold": decision.threshold,
        }
    )
    run.set_tags({"synthdetect.refit_rule": REFIT_RULE})
    run.log_table(per_fold.rename_axis("fold").reset_index(), "cv/folds.csv")
    run.log_table(pool, "predictions/oof.csv")
    run.log_table(evaluation.overall, "evaluation/oof.csv")
    if len(evaluation.generators):
        run.log_table(evaluation.generators, "evaluation/oof_generators.csv")
    run.log_figure(folds_figure(per_fold, pool), "figures/folds.png")
    shown = [
        [name, _pm(summary, name), _interval(evaluation.overall, name)]
        for name in ("auc", "accuracy", "f1", "ece")
    ]
    columns = ["metric", f"mean ± std of {len(done)} folds", "pooled out of fold [95 %]"]
    table("Cross-validation", columns, shown)
    lines = [" | ".join(["", *row, ""]).strip() for row in [columns, ["---"] * 3, *shown]]
    run.describe("\n".join(lines))
    return decision


def _pm(summary: Mapping[str, float], name: str) -> str:
    return f"{summary[f'cv/{name}/mean']:.3f} ± {summary[f'cv/{name}/std']:.3f}"


def _interval(overall: pd.DataFrame, name: str) -> str:
    row = overall.set_index("metric").loc[name]
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _children(run: Run) -> dict[str, str]:
    """The child runs by fold."""
    found = run.client.search_runs(
        [run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.id}'", max_results=1000
    )
    return {child.data.tags.get(FOLD, ""): child.info.run_id for child in found}


def _is_finished(run: Run, run_id: str) -> bool:
    return bool(run.client.get_run(run_id).info.status == "FINISHED")


def _finished_fold(run: Run, run_id: str) -> Fold:
    metrics = run.client.get_run(run_id).data.metrics
    predictions = _artifact(run, run_id, "predictions/val.csv")
    if predictions is None:
        raise UserError(f"run {run_id} has lost its predictions; delete it and resume.")
    raw = predictions["logit"] * metrics["decision/temperature"]
    return Fold(metrics, predictions.assign(raw_logit=raw))


def _artifact(run: Run, run_id: str, path: str) -> pd.DataFrame | None:
    """A table among a run's artifacts, or None where it has none."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = run.client.download_artifacts(run_id, path, folder)
            text = dict.fromkeys(("path", "generator", "category", "source_id", "held_out"), str)
            return pd.read_csv(file, keep_default_na=False, dtype=text)
    except (MlflowException, OSError):
        return None
