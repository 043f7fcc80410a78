"""One tracked training: the training core, the evaluation and the tracking, put together."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mlflow.data.dataset import Dataset
from mlflow.entities import LoggedModel

from synthdetect.config import TrainOptions
from synthdetect.console import console, counting, training_bar
from synthdetect.data.batches import Batches, ImageFiles, Order
from synthdetect.data.cache import DecodedCache
from synthdetect.data.geometry import Preprocess
from synthdetect.data.manifest import Manifest
from synthdetect.data.prepare import Prepared
from synthdetect.data.target import Target
from synthdetect.detector import Card, Detector
from synthdetect.evaluation.decision import Decision, decide
from synthdetect.evaluation.figures import learning_curves
from synthdetect.evaluation.predictions import Evaluation, evaluate, tabulate
from synthdetect.evaluation.summary import summary_markdown
from synthdetect.models.networks import Network, Start, build, initialise
from synthdetect.tracking.evaluation import log_evaluation
from synthdetect.tracking.model import log_detector
from synthdetect.tracking.run import MANIFEST, Run, environment, undisturbed
from synthdetect.training import checkpoint
from synthdetect.training.devices import Device, deterministic, noting_fallbacks
from synthdetect.training.loop import Training, fit, predict, start_training

LAST, BEST = "last.safetensors", "best.safetensors"
CONFIG = "config.json"
"""The artifact that holds a run's options and the digest of its data."""
CHECKPOINTS = "checkpoints"
"""Folder of a run's artifacts that holds `LAST`, and `BEST` if the run did not finish."""

_EVALUATION_BATCH = 64


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
    training: Training


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
        run: to log to; its id names the folder of checkpoints.
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
    cache = decoded_cache(prepared, options)
    try:
        with deterministic(options.seed), noting_fallbacks() as fallbacks:
            network = build(options.arch, options.image_size)
            start = initialise(network, options.arch, options.image_size, options.weights)
            _log_start(run, start)
            training = start_training(network, device, options)
            if (folder / LAST).is_file():
                checkpoint.load(folder / LAST, training)
                run.log_history(training.progress.history, datasets)
            epochs = final.epochs if final else options.epochs
            _fit(run, options, prepared, device, cache, training, folder, datasets, epochs)
            checkpoint.load_network(folder / BEST, network)
            detector, logits = _calibrated(
                options, prepared, device, cache, network, start, run, final
            )
    except BaseException:
        with undisturbed():
            for name in (LAST, BEST):
                if (folder / name).is_file():
                    run.log_file(folder / name, CHECKPOINTS)
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
    _log_results(run, outcome, manifest, datasets)
    if options.keep_last:
        run.log_file(folder / LAST, CHECKPOINTS)
    shutil.rmtree(folder)
    return outcome


def _log_setting(
    run: Run, options: TrainOptions, prepared: Prepared, device: Device
) -> dict[str, Dataset]:
    facts = {f"hardware.{name}": value for name, value in device.describe().items()}
    digest = prepared.manifest.digest()
    run.log_params({**options.to_flat(), **facts, **environment(), "data.digest": digest})
    if prepared.target:
        run.log_params({"data.target_digest": prepared.target.digest()})
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
            f"[bold yellow]Training starts from RANDOM weights:[/] {start.detail}. "
            "Results will differ much from ImageNet's; --weights none says that this is meant."
        )


def _fit(
    run: Run,
    options: TrainOptions,
    prepared: Prepared,
    device: Device,
    cache: DecodedCache,
    training: Training,
    folder: Path,
    datasets: Mapping[str, Dataset],
    epochs: int,
) -> None:
    train, val = prepared.manifest.split("train"), prepared.manifest.split("val")
    batches = _batches(train, options, device, cache, seed=options.seed)
    val_batches = _batches(val, options, device, cache) if len(val) else None
    target = prepared.target
    unlabelled = _target_batches(target, options, device, cache) if target else None
    progress = training.progress
    with training_bar(epochs, progress.epoch, len(train) + len(val)) as bar:

        def on_epoch(training: Training) -> None:
            progress = training.progress
            if progress.improved:
                checkpoint.save_network(folder / BEST, training.network)
            checkpoint.save(folder / LAST, training)
            # Only now: an epoch that MLflow knows is on disk, and is never logged twice.
            run.log_epoch(progress.history[-1], progress.epoch, datasets)
            bar.epoch(progress.epoch, progress.history[-1], progress.improved)

        fit(
            training,
            batches,
            val_batches,
            torch.tensor(train.table["label"].to_numpy(), dtype=torch.float32),
            val.table["label"].to_numpy(),
            device,
            options,
            unlabelled=unlabelled,
            epochs=epochs,
            patience=options.patience if len(val) else 0,
            seed=options.seed,
            on_batch=bar.batch,
            on_epoch=on_epoch,
        )


def decoded_cache(prepared: Prepared, options: TrainOptions) -> DecodedCache:
    """The cache for all images there are, whichever split or fold asks for them."""
    preprocess = Preprocess(options.image_size, options.geometry)
    limit = int(options.cache_gib * 2**30)
    hashes = prepared.manifest.table["sha256"].tolist()
    further = prepared.target.hashes if prepared.target else ()
    return DecodedCache([*hashes, *further], preprocess, limit)


def _batches(
    manifest: Manifest,
    options: TrainOptions,
    device: Device,
    cache: DecodedCache,
    *,
    seed: int | None = None,
) -> Batches:
    """Training batches in random order if there is a seed, else evaluation batches in order."""
    dataset = ImageFiles(
        [manifest.file(path) for path in manifest.table["path"]],
        Preprocess(options.image_size, options.geometry),
        seed=seed,
        cache=(cache, cache.slots(manifest.table["sha256"].tolist())),
    )
    size = options.batch_size if seed is not None else _EVALUATION_BATCH
    return Batches(dataset, Order(len(manifest), size, seed=seed), device.workers)


def _target_batches(
    target: Target, options: TrainOptions, device: Device, cache: DecodedCache
) -> Batches:
    """Batches of the images to adapt to, in random order."""
    images = target.images.seen_by(Preprocess(options.image_size, options.geometry))
    images.seed = options.seed
    images.cache = (cache, cache.slots(target.hashes))
    return Batches(images, Order(len(images), options.batch_size, seed=images.seed), device.workers)


def _calibrated(
    options: TrainOptions,
    prepared: Prepared,
    device: Device,
    cache: DecodedCache,
    network: Network,
    start: Start,
    run: Run,
    final: Final | None,
) -> tuple[Detector, dict[str, Any]]:
    """Score every evaluation split, and set calibration and threshold on val alone."""
    manifest = prepared.manifest
    splits = [split for split in manifest.splits if split != "train"]
    parts = {split: manifest.split(split) for split in splits}
    logits = {}
    with counting("evaluating") as count:
        total, done = sum(map(len, parts.values())), 0
        for split, part in parts.items():
            batches = _batches(part, options, device, cache).strict_epoch(0)

            def on_batch(images: int, loss: float) -> None:
                nonlocal done
                done += images
                count(done, total)

            logits[split] = predict(network, batches, device, len(part), on_batch)
    if final:
        decision = final.decision
    else:
        decision = decide(options, parts["val"].table["label"], logits["val"])
    card = Card(
        arch=options.arch,
        image_size=options.image_size,
        geometry=options.geometry,
        calibration=decision.calibration,
        threshold=decision.threshold,
        unsure=decision.unsure,
        provenance=_provenance(options, prepared, start, run),
    )
    return Detector(network.cpu(), card), logits


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
        "training_generators": sorted(set(train["generator"]) - {""}),
    }


def _log_results(
    run: Run, outcome: Outcome, manifest: Manifest, datasets: Mapping[str, Dataset]
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
    chosen = f"Best of {progress.epoch} epochs by validation AUC: {progress.best_epoch}."
    model = f"Model: `models:/{model_id}`"
    run.describe(f"{summary_markdown(outcome.evaluations)}\n\n{chosen} {model}")
