"""One tracked training: the training core, the evaluation and the tracking, put together."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
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
from synthdetect.detector import Card, Detector
from synthdetect.evaluation.calibration import fit_temperature
from synthdetect.evaluation.figures import draw, learning_curves
from synthdetect.evaluation.metrics import choose_threshold
from synthdetect.evaluation.predictions import Evaluation, evaluate, tabulate
from synthdetect.models.networks import Network, Start, build, initialise
from synthdetect.tracking.model import log_detector
from synthdetect.tracking.run import Run, environment, undisturbed
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
class Decision:
    """What is otherwise taken from validation, for a training that has none.

    Attributes:
        epochs: how many to train.
        temperature: of the probabilities.
        threshold: between the labels.
    """

    epochs: int
    temperature: float
    threshold: float


def run_training(
    run: Run,
    options: TrainOptions,
    prepared: Prepared,
    device: Device,
    decision: Decision | None = None,
) -> Outcome:
    """Train, evaluate and log one detector in an open run; goes on where the run had stopped.

    Args:
        run: to log to; its id names the folder of checkpoints.
        options: of the training.
        prepared: data with train and val splits, or, with a `decision`, without val.
        device: what computes.
        decision: for a final training on all labelled images.

    Raises:
        UserError: a checkpoint that does not fit, or starting weights that are not to be had.
        Diverged: the loss became infinite or undefined.
    """
    folder = Path(options.output) / run.id
    manifest = prepared.manifest
    datasets = _log_setting(run, options, prepared, device)
    cache = decoded_cache(manifest, options)
    try:
        with deterministic(options.seed), noting_fallbacks() as fallbacks:
            network = build(options.arch, options.image_size)
            start = initialise(network, options.arch, options.image_size, options.weights)
            _log_start(run, start)
            training = start_training(
                network,
                device,
                lr=options.lr,
                weight_decay=options.weight_decay,
                epochs=options.epochs,
            )
            if (folder / LAST).is_file():
                checkpoint.load(folder / LAST, training)
                run.log_history(training.progress.history, datasets)
            epochs = decision.epochs if decision else options.epochs
            _fit(run, options, manifest, device, cache, training, folder, datasets, epochs)
            checkpoint.load_network(folder / BEST, network)
            detector, logits = _calibrated(
                options, manifest, device, cache, network, start, run, decision
            )
    except BaseException:
        with undisturbed():
            for name in (LAST, BEST):
                if (folder / name).is_file():
                    run.log_file(folder / name, CHECKPOINTS)
        raise
    run.log_params({"hardware.fallback": ", ".join(sorted(fallbacks)) or "none"})
    tables = {
        split: tabulate(manifest.split(split).table, logits[split], detector.card.threshold)
        for split in logits
    }
    evaluations = evaluate(tables, detector.card.threshold, seed=options.seed)
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
    run.log_json({"options": options.to_json(), "digest": digest}, CONFIG)
    run.log_table(prepared.manifest.table, "data/manifest.csv")
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
    manifest: Manifest,
    device: Device,
    cache: DecodedCache,
    training: Training,
    folder: Path,
    datasets: Mapping[str, Dataset],
    epochs: int,
) -> None:
    train, val = manifest.split("train"), manifest.split("val")
    batches = _batches(train, options, device, cache, seed=options.seed)
    val_batches = _batches(val, options, device, cache) if len(val) else None
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
            epochs=epochs,
            patience=options.patience if len(val) else 0,
            seed=options.seed,
            on_batch=bar.batch,
            on_epoch=on_epoch,
        )


def preprocessing(options: TrainOptions) -> Preprocess:
    """How a training sees its images, and its detector every image."""
    quality = options.equalise_quality if options.equalise else 0
    return Preprocess(options.image_size, options.geometry, quality)


def decoded_cache(manifest: Manifest, options: TrainOptions) -> DecodedCache:
    """The cache for all images of a manifest, whichever split or fold asks for them."""
    preprocess = preprocessing(options)
    limit = int(options.cache_gib * 2**30)
    return DecodedCache(manifest.table["sha256"].tolist(), preprocess, limit)


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
        preprocessing(options),
        seed=seed,
        cache=(cache, cache.slots(manifest.table["sha256"].tolist())),
    )
    size = options.batch_size if seed is not None else _EVALUATION_BATCH
    return Batches(dataset, Order(len(manifest), size, seed=seed), device.workers)


def _calibrated(
    options: TrainOptions,
    manifest: Manifest,
    device: Device,
    cache: DecodedCache,
    network: Network,
    start: Start,
    run: Run,
    decision: Decision | None,
) -> tuple[Detector, dict[str, Any]]:
    """Score every evaluation split, and set temperature and threshold on val alone."""
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
    if decision is None:
        decision = decide(options, parts["val"].table["label"], logits["val"])
    logits = {split: values / decision.temperature for split, values in logits.items()}
    card = Card(
        arch=options.arch,
        image_size=options.image_size,
        geometry=options.geometry,
        equalise_quality=preprocessing(options).equalise_quality,
        temperature=decision.temperature,
        threshold=decision.threshold,
        provenance=_provenance(options, manifest, start, run),
    )
    return Detector(network.cpu(), card), logits


def decide(
    options: TrainOptions, labels: npt.ArrayLike, logits: npt.NDArray[np.float64], epochs: int = 0
) -> Decision:
    """Fit temperature and threshold on validation images (or those out of fold), never on test."""
    temperature = 1.0
    if options.calibration == "temperature":
        temperature = fit_temperature(labels, logits)
    threshold = choose_threshold(labels, logits / temperature, options.threshold)
    return Decision(epochs, temperature, threshold)


def _provenance(
    options: TrainOptions, manifest: Manifest, start: Start, run: Run
) -> dict[str, Any]:
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
            "decision/temperature": card.temperature,
        },
        model_id=model_id,
    )
    figure = learning_curves(progress.history, progress.best_epoch)
    run.log_figure(figure, "figures/learning_curves.png")
    for split, evaluation in outcome.evaluations.items():
        prefix = "best/val" if split == "val" else split
        run.log_metrics(evaluation.flat(prefix), dataset=datasets[split], model_id=model_id)
        run.log_table(evaluation.predictions, f"predictions/{split}.csv")
        run.log_table(evaluation.overall, f"evaluation/{split}.csv")
        if len(evaluation.generators):
            run.log_table(evaluation.generators, f"evaluation/{split}_generators.csv")
        files = [manifest.file(path) for path in evaluation.predictions["path"]]
        for name, figure in draw(evaluation, card.threshold, files, outcome.detector.preprocess):
            run.log_figure(figure, f"figures/{split}/{name}.png")
    run.describe(summary_markdown(outcome))


def summary_rows(outcome: Outcome) -> pd.DataFrame:
    """The results a person looks at first: a row a split and a generator, as text."""
    rows = []
    for split, evaluation in outcome.evaluations.items():
        m = evaluation.overall.set_index("metric")
        auc = _with_interval(m.loc["auc"])
        if evaluation.control_auc == evaluation.control_auc:  # not nan
            auc = f"{evaluation.control_auc:.3f} against real"
        cells = [_text(m.loc[name, "value"]) for name in ("accuracy", "f1", "ece")]
        rows.append((split, len(evaluation.predictions), auc, *cells))
        for g in evaluation.generators.to_dict(orient="records") if split != "val" else ():
            auc = f"{g['auc']:.3f} [{g['auc_low']:.3f}, {g['auc_high']:.3f}]"
            rows.append((f"  {split} / {g['generator']}", g["images"], auc, "", "", ""))
    return pd.DataFrame(rows, columns=["images of", "n", "AUC [95 %]", "accuracy", "F1", "ECE"])


def summary_markdown(outcome: Outcome) -> str:
    """The same as Markdown, for the run's page in the UI."""
    table = summary_rows(outcome)
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.to_numpy()]
    progress = outcome.training.progress
    chosen = f"Best of {progress.epoch} epochs by validation AUC: {progress.best_epoch}."
    return "\n".join([*lines, "", f"{chosen} Model: `models:/{outcome.model.model_id}`"])


def _with_interval(row: "pd.Series[float]") -> str:
    if row["value"] != row["value"]:
        return "undefined"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _text(value: float) -> str:
    return "undefined" if value != value else f"{value:.3f}"
