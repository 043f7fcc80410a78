"""One tracked training: the training core, the evaluation and the tracking, put together."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.data.dataset import Dataset
from mlflow.entities import LoggedModel

from synthdetect.config import TrainOptions
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared
from synthdetect.detectors.detector import Card, Detector
from synthdetect.evaluation.decision import Decision, decide
from synthdetect.evaluation.figures import learning_curves
from synthdetect.evaluation.predictions import Evaluation, evaluate, tabulate
from synthdetect.evaluation.summary import summary_markdown
from synthdetect.models.networks import Start
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import console, counting, training_bar
from synthdetect.tracking.evaluation import log_evaluation
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.outbox import StoreAway
from synthdetect.tracking.run import MANIFEST, TARGET, Run, environment, undisturbed
from synthdetect.training.devices import Device, deterministic, noting_fallbacks
from synthdetect.training.loop import TrainingState
from synthdetect.training.session import BEST, LAST, Session, preprocessing

CONFIG = "config.json"
"""The artifact that holds a run's options and the digest of its data."""
CHECKPOINTS = "checkpoints"
"""Folder of a run's artifacts that holds `LAST`, and `BEST` if the run did not finish."""


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        detector: the best epoch's.
        evaluations: by split: val, test and further ones.
        model: as logged in MLflow.
        training: its progress and history.
    """

    detector: Detector
    evaluations: dict[str, Evaluation]
    model: LoggedModel
    training: TrainingState


@dataclass(frozen=True)
class Final:
    """What is otherwise taken from validation, for a training that has none.

    Attributes:
        epochs: how many to train.
        decision: from scores to answers.
    """

    epochs: int
    decision: Decision


def run_training(
    run: Run,
    options: TrainOptions,
    prepared: Prepared,
    device: Device,
    final: Final | None = None,
) -> Outcome:
    """Train, evaluate and log one detector in an open run; goes on where the run had stopped.

    Args:
        run: to log to; its id names the folder of checkpoints, which goes when it is FINISHED.
        options: of the training.
        prepared: data with train and val splits, or, with a `final`, without val.
        device: what computes.
        final: for a final training on all labelled images.

    Raises:
        UserError: a checkpoint that does not fit, or starting weights that are not to be had.
        Diverged: the loss became infinite or undefined.
    """
    folder = Path(options.output) / run.id
    manifest = prepared.manifest
    datasets = _log_setting(run, options, prepared, device)
    try:
        with deterministic(options.seed), noting_fallbacks() as fallbacks:
            session = Session(options, prepared, device, folder)
            training = session.training
            _log_start(run, session.start)
            run.log_history(training.progress.history, datasets)
            epochs = final.epochs if final else options.epochs
            _fit(run, session, prepared, datasets, epochs)
            detector, logits = _calibrated(run, options, prepared, session, final)
    except StoreAway:
        raise  # the checkpoints stay where they are
    except BaseException:
        with undisturbed():
            # In this order, since the last one takes the best beside it for its own.
            files = [folder / name for name in (BEST, LAST) if (folder / name).is_file()]
            run.try_to_log_files(files, CHECKPOINTS)
        raise
    run.log_params({"hardware.fallback": ", ".join(sorted(fallbacks)) or "none"})
    card = detector.card
    tables = {
        split: tabulate(manifest.split(split).table, detector.calibrated(raw), card.threshold, raw)
        for split, raw in logits.items()
    }
    evaluations = evaluate(tables, card.threshold, seed=options.seed, band=card.unsure)
    model = log_detector(run, detector)
    outcome = Outcome(detector, evaluations, model, training)
    _log_results(run, outcome, manifest, datasets, final)
    if options.keep_last:
        run.log_file(folder / LAST, CHECKPOINTS)
    run.when_finished.append(partial(_remove, folder))
    return outcome


def _remove(folder: Path) -> None:
    """Remove the checkpoints; at no moment is there a last one without the best."""
    (folder / LAST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _log_setting(
    run: Run, options: TrainOptions, prepared: Prepared, device: Device
) -> dict[str, Dataset]:
    facts = {f"hardware.{name}": value for name, value in device.describe().items()}
    digest = prepared.manifest.digest()
    run.log_params({**options.to_flat(), **facts, **environment(), "data.digest": digest})
    if prepared.target:
        run.log_params({"data.target_digest": prepared.target.digest()})
        run.log_table(prepared.target.table(), TARGET)
    run.log_json({"options": options.to_json(), "digest": prepared.digest()}, CONFIG)
    run.log_table(prepared.manifest.table, MANIFEST)
    run.log_metrics({"data/excluded": float(len(prepared.excluded))})
    if len(prepared.excluded):
        run.log_table(prepared.excluded, "data/excluded.csv")
    return run.log_manifest(prepared.manifest)


def _log_start(run: Run, start: Start) -> None:
    run.log_params({"model.start": start.source, "model.start_detail": start.detail})
    run.set_tags({"synthdetect.weights": start.source})
    if start.source == "random" and start.detail != "asked for":
        console.print(
            f"Training starts from RANDOM weights: {start.detail}. "
            "Results will differ much from ImageNet's; --weights none says that this is meant.",
            style="bold yellow",
        )


def _fit(
    run: Run,
    session: Session,
    prepared: Prepared,
    datasets: Mapping[str, Dataset],
    epochs: int,
) -> None:
    images = sum(len(prepared.manifest.split(split)) for split in ("train", "val"))
    with training_bar(epochs, session.training.progress.epoch, images) as bar:

        def on_epoch(training: TrainingState) -> None:
            progress = training.progress
            # An epoch that MLflow knows is on disk, and is never logged twice.
            run.log_epoch(progress.history[-1], progress.epoch, datasets)
            bar.epoch(progress.epoch, progress.history[-1], progress.improved)

        session.fit(epochs, on_batch=bar.batch, on_epoch=on_epoch)


def _calibrated(
    run: Run, options: TrainOptions, prepared: Prepared, session: Session, final: Final | None
) -> tuple[Detector, dict[str, FloatArray]]:
    """Score every evaluation split, and set calibration and threshold on val alone."""
    manifest = prepared.manifest
    splits = [split for split in manifest.splits if split != "train"]
    with counting("evaluating") as count:
        total, done = sum(len(manifest.split(split)) for split in splits), 0

        def on_batch(images: int, loss: float) -> None:
            nonlocal done
            done += images
            count(done, total)

        logits = session.score(splits, on_batch)
    if final:
        decision = final.decision
    else:
        decision = decide(options, manifest.split("val").table["label"], logits["val"])
    card = Card(
        arch=options.arch,
        image_size=options.image_size,
        geometry=options.geometry,
        equalise_quality=preprocessing(options).equalise_quality,
        calibration=decision.calibration,
        threshold=decision.threshold,
        unsure=decision.unsure,
        provenance=_provenance(options, prepared, session.start, run),
    )
    return Detector(session.network.cpu(), card), logits


def _provenance(
    options: TrainOptions, prepared: Prepared, start: Start, run: Run
) -> dict[str, Any]:
    manifest, target = prepared.manifest, prepared.target
    train = manifest.split("train").table
    return {
        "run_id": run.id,
        "recipe": options.recipe,
        "weights": start.source,
        "weights_detail": start.detail,
        "data": options.data,
        "data_digest": manifest.digest(),
        "supplement": options.supplement,
        "finetune": options.finetune,
        "adaptation": options.adaptation,
        "target": options.target,
        "target_digest": target.digest() if target else "",
        "target_splits": list(target.splits) if target else [],
        "training_images": len(train),
        "validation_images": int(train["sha256"].isin(prepared.validation_hashes).sum()),
        "training_generators": sorted(set(train["generator"].unique()) - {""}),
    }


def _log_results(
    run: Run,
    outcome: Outcome,
    manifest: Manifest,
    datasets: Mapping[str, Dataset],
    final: Final | None,
) -> None:
    progress, card = outcome.training.progress, outcome.detector.card
    model_id = outcome.model.model_id
    run.log_metrics(
        {
            "best/epoch": float(progress.best_epoch),
            "decision/threshold": card.threshold,
            **{f"decision/{name}": v for name, v in card.calibration.describe().items()},
        },
        model_id=model_id,
    )
    figure = learning_curves(progress.history, progress.best_epoch)
    run.log_figure(figure, "figures/learning_curves.png")
    for split, evaluation in outcome.evaluations.items():
        files = [manifest.file(path) for path in evaluation.predictions["path"]]
        log_evaluation(
            run,
            evaluation,
            "best/val" if split == "val" else split,
            card.threshold,
            dataset=datasets[split],
            model_id=model_id,
            images=(files, outcome.detector.preprocess),
        )
    if final:
        chosen = f"The last of {progress.epoch} epochs, as many as the folds' best say."
    else:
        chosen = f"Best of {progress.epoch} epochs by validation AUC: {progress.best_epoch}."
    model = f"Model: `models:/{model_id}`"
    run.describe(f"{summary_markdown(outcome.evaluations)}\n\n{chosen} {model}")
