"""The pipeline of every training: a tracked run from options and data to a logged detector."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.attribution import ATTRIBUTED, Attribution, choose_attribution
from synthdetect.evaluation.decision import Decision, decide
from synthdetect.evaluation.figures import learning_curves
from synthdetect.evaluation.predictions import Evaluation, evaluate, prediction_table
from synthdetect.evaluation.summary import (
    answer_words,
    described_split,
    main_metrics,
    summary_markdown,
)
from synthdetect.evaluation.threshold import ThresholdUncertainty, threshold_uncertainty
from synthdetect.images.geometry import SQUARE_VERSION
from synthdetect.models.weights import Start
from synthdetect.runs.kinds import RUN_KINDS, RunKind
from synthdetect.runs.model_cards import write_card
from synthdetect.runs.options import RecipeOptions, TrainOptions
from synthdetect.runs.processes import together
from synthdetect.runs.setting import log_setting
from synthdetect.system.allocation import keep_freed_memory
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import console, counting, training_bar
from synthdetect.tracking.availability import StoreAway
from synthdetect.tracking.evaluation import log_evaluation
from synthdetect.tracking.models import LoggedModel, log_detector, register
from synthdetect.tracking.opening import undisturbed
from synthdetect.tracking.run import Dataset, Run
from synthdetect.tracking.tags import CHECKPOINTS, PROCESSES
from synthdetect.training.devices import Device, deterministic, noting_operators
from synthdetect.training.distributed import Group
from synthdetect.training.loop import Hooks, TrainingState
from synthdetect.training.session import BEST, LAST, Session, preprocessing


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        detector: The detector of the best epoch.
        evaluations: Evaluations by split: val, test and further ones.
        model: The model as logged in MLflow.
        training: The state in the end, with its history.
        chosen: How certain the threshold is; None if it was not chosen on the validation images.
    """

    detector: Detector
    evaluations: dict[str, Evaluation]
    model: LoggedModel
    training: TrainingState
    chosen: ThresholdUncertainty | None


@dataclass(frozen=True)
class Predetermined:
    """What a training without validation images takes from elsewhere.

    Attributes:
        epochs: Number of epochs to train.
        decision: From logits to answers.
        attribution: From the logits of generators to answers; None if images are not attributed.
    """

    epochs: int
    decision: Decision
    attribution: Attribution | None = None

    @classmethod
    def of(cls, epochs: int, card: Card) -> "Predetermined":
        """Return what another training's detector answers by, for so many epochs."""
        return cls(epochs, card.decision, card.attribution)


def run_training(
    run: Run,
    options: TrainOptions,
    prepared: Prepared,
    device: Device,
    *,
    kind: RunKind = RUN_KINDS["train"],
    predetermined: Predetermined | None = None,
    hooks: Hooks | None = None,
    measuring: AbstractContextManager[Any] | None = None,
    score_train: bool = False,
) -> TrainingResult:
    """Train, evaluate and log one detector in an open run, or resume where the run had stopped.

    Args:
        run: The run to log to. Its id names the folder of checkpoints, which is removed when the
            run is FINISHED.
        options: The options of the training.
        prepared: Data with train and val splits; without val if `predetermined` is given.
        device: The device that computes.
        kind: The kind of the run.
        predetermined: Epochs and decision of a training on all labelled images.
        hooks: Called for every batch and for every epoch once it is logged.
        measuring: Entered around training and scoring.
        score_train: Whether predictions of the training images are logged too.

    Raises:
        UserError: If a checkpoint does not fit or initial weights cannot be loaded.
        Diverged: If the loss becomes infinite or undefined.
    """
    folder = Path(options.run.output) / run.id
    datasets = log_setting(
        run,
        options,
        digest=prepared.digest(),
        manifest=prepared.manifest,
        target=prepared.target,
        device=device,
    )
    run.log_metrics({"data/excluded": float(len(prepared.excluded))})
    if len(prepared.excluded):
        run.log_table(prepared.excluded, "data/excluded.csv")
    epochs = predetermined.epochs if predetermined else None
    manifest = prepared.manifest
    splits = [split for split in manifest.splits if split != "train" or score_train]
    with (
        _saving_checkpoints(run, folder),
        measuring or nullcontext(),
        noting_operators() as operators,
        together(options, prepared, device, folder, epochs=epochs, splits=splits) as (group, facts),
    ):
        if facts:
            run.log_json({"processes": facts}, PROCESSES)
        session = train_network(
            run,
            options,
            prepared,
            device,
            folder,
            datasets=datasets,
            hooks=hooks,
            epochs=epochs,
            group=group,
        )
        with deterministic(options.optim.seed):
            outputs = _score(session, manifest, splits)
    run.log_params({f"hardware.{name}": names for name, names in operators.describe().items()})
    spec = session.network.spec
    if predetermined:
        decision, attribution = predetermined.decision, predetermined.attribution
    else:
        val, found = prepared.manifest.split("val").table, outputs["val"]
        decision = decide(options.decision, val["label"], found[:, 0])
        attribution = None
        if spec.generators:
            attribution = choose_attribution(spec.generators, val, found[:, 1:])
    detector = Detector(
        session.network.cpu(),
        Card(
            model=spec,
            geometry=options.image.geometry,
            equalise_quality=preprocessing(options.image).equalise_quality,
            views=options.image.views,
            decision=decision,
            attribution=attribution,
            provenance=_provenance(options, prepared, session.start, run),
        ),
    )
    tables = {
        split: _predictions(prepared.manifest.split(split), found, detector.card)
        for split, found in outputs.items()
    }
    if score_train:
        run.log_table(tables.pop("train"), "predictions/train.csv")
    evaluations = evaluate(tables, decision, seed=options.optim.seed, generators=spec.generators)
    model = log_detector(run, detector)
    chosen = None
    if not predetermined:
        chosen = threshold_uncertainty(options.decision, tables["val"], seed=options.optim.seed)
    result = TrainingResult(detector, evaluations, model, session.training, chosen)
    _log_result(run, result, prepared.manifest, datasets, kind, predetermined)
    write_card(run, options, model, detector, evaluations)
    if options.run.keep_last:
        run.log_file(folder / LAST, CHECKPOINTS)
    run.when_finished.append(partial(_remove, folder))
    return result


def train_network(
    run: Run,
    options: RecipeOptions,
    prepared: Prepared,
    device: Device,
    folder: Path,
    *,
    datasets: Mapping[str, Dataset] | None = None,
    hooks: Hooks | None = None,
    epochs: int | None = None,
    after: int = 0,
    group: Group | None = None,
) -> Session:
    """Train one network and log every epoch, or resume where `folder` says it had stopped.

    Args:
        run: The run to log to.
        options: The options of the training.
        prepared: The data.
        device: The device that computes.
        folder: Folder of the checkpoints.
        datasets: The logged datasets by split, to which the metrics are bound.
        hooks: Called for every batch and for every epoch once it is logged.
        epochs: Epochs after which to stop; None means those of the options.
        after: Number of steps that the run has logged for other networks before.
        group: The processes that train together; None means this one alone.

    Returns:
        The session, whose network has the weights of the best epoch.
    """
    bound: Mapping[str, Dataset] = datasets or {}
    total = epochs or options.optim.epochs
    keep_freed_memory()
    with deterministic(options.optim.seed):
        session = Session(options, prepared, device, folder, group)
        log_start(run, session.start)
        progress = session.training.progress
        run.log_history(progress.history, bound, after=after)
        images = sum(len(prepared.manifest.split(split)) for split in ("train", "val"))
        with training_bar(total, progress.epoch, images) as bar:

            class Logging(Hooks):
                def on_batch(self, images: int, loss: float) -> None:
                    bar.batch(images, loss)
                    if hooks:
                        hooks.on_batch(images, loss)

                def on_epoch(self, training: TrainingState) -> None:
                    progress = training.progress
                    # The checkpoint of the epoch is on disk, so a resumed run can log it too.
                    run.log_progress(progress.history, bound, after=after)
                    bar.epoch(progress.epoch, progress.history[-1], progress.improved)
                    if hooks:
                        hooks.on_epoch(training)

            session.fit(Logging(), epochs=epochs)
    return session


def register_model(run: Run, result: TrainingResult, name: str) -> str:
    """Register the model of a training, and return its version; an empty name registers nothing."""
    if not name:
        return ""
    return run.retry(partial(register, result.model, name))


@contextmanager
def _saving_checkpoints(run: Run, folder: Path) -> Iterator[None]:
    """Log the checkpoints if the training ends in an error, so that any machine can resume it."""
    try:
        yield
    except StoreAway:
        raise  # the checkpoints stay in their folder
    except BaseException:
        with undisturbed():
            # In this order: a resumed run takes the best weights beside the last state for its own.
            files = [folder / name for name in (BEST, LAST) if (folder / name).is_file()]
            run.try_to_log_files(files, CHECKPOINTS)
        raise


def _remove(folder: Path) -> None:
    """Remove the checkpoints; at no moment is there a last state without the best weights."""
    (folder / LAST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def log_start(run: Run, start: Start) -> None:
    """Log where the initial weights came from, and warn of random ones."""
    run.log_params({"model.start": start.source, "model.start_detail": start.detail})
    run.set_tags({"synthdetect.weights": start.source})
    if start.source == "random" and start.detail != "asked for":
        console.print(
            f"Training starts from RANDOM weights: {start.detail}. Results will differ much from "
            "those of ImageNet weights; --weights none confirms that random weights are intended.",
            style="bold yellow",
        )


def _score(session: Session, manifest: Manifest, splits: Sequence[str]) -> dict[str, FloatArray]:
    """Return the outputs of splits."""
    with counting("evaluating") as count:
        total, done = sum(len(manifest.split(split)) for split in splits), 0

        def on_batch(images: int, loss: float) -> None:
            nonlocal done
            done += images
            count(done, total)

        return session.outputs(splits, on_batch)


def _predictions(manifest: Manifest, outputs: FloatArray, card: Card) -> pd.DataFrame:
    """Return the predictions table of a split from outputs of shape (images, 1 + generators)."""
    raw, decision = outputs[:, 0], card.decision
    table = prediction_table(manifest.table, decision.calibration(raw), decision, raw)
    if card.attribution:
        table[ATTRIBUTED] = card.attributed(table["predicted"], outputs[:, 1:])
    return table


def _provenance(
    options: TrainOptions, prepared: Prepared, start: Start, run: Run
) -> dict[str, Any]:
    manifest, target = prepared.manifest, prepared.target
    train = manifest.split("train").table
    return {
        "run_id": run.id,
        "recipe": options.recipe,
        "preprocessing": SQUARE_VERSION,
        "weights": start.source,
        "weights_detail": start.detail,
        "data": options.data.data,
        "data_digest": manifest.digest(),
        "supplement": options.data.supplement,
        "finetune": options.data.finetune,
        "adaptation": options.adaptation.adaptation,
        "semi_supervised": options.semi_supervised.semi_supervised,
        "target": options.adaptation.target,
        "target_digest": target.digest() if target else "",
        "target_splits": list(target.splits) if target else [],
        "training_images": len(train),
        "validation_images": int(train["sha256"].isin(prepared.validation_hashes).sum()),
        "training_generators": sorted(set(train["generator"].unique()) - {""}),
    }


def _log_result(
    run: Run,
    result: TrainingResult,
    manifest: Manifest,
    datasets: Mapping[str, Dataset],
    kind: RunKind,
    predetermined: Predetermined | None,
) -> None:
    progress, decision = result.training.progress, result.detector.card.decision
    model_id, card = result.model.model_id, result.detector.card
    attribution = card.attribution.describe() if card.attribution else {}
    run.log_metrics(
        {
            "best/epoch": float(progress.best_epoch),
            **{f"decision/{name}": value for name, value in decision.describe().items()},
            **(result.chosen.describe() if result.chosen else {}),
            **{f"decision/{n}": v for n, v in attribution.items()},
            **main_metrics(result.evaluations),
        },
        model_id=model_id,
    )
    if kind.figures:
        figure = learning_curves(progress.history, progress.best_epoch)
        run.log_figure(figure, "figures/learning_curves.png")
    for split, evaluation in result.evaluations.items():
        files = [manifest.file(path) for path in evaluation.predictions["path"]]
        log_evaluation(
            run,
            evaluation,
            "best/val" if split == "val" else split,
            decision.threshold,
            dataset=datasets[split],
            model_id=model_id,
            images=(files, result.detector.preprocess),
            figures=kind.figures,
        )
    if predetermined:
        chosen = f"The last of {progress.epoch} epochs, as many as trainings with validation chose."
    else:
        chosen = f"Best of {progress.epoch} epochs by validation AUC: {progress.best_epoch}."
    model = f"Model: `models:/{model_id}`"
    trained_on = card.provenance.get("training_generators", ())
    described = described_split(result.evaluations) if kind.figures else ""
    run.describe_results(
        answer_words(result.evaluations, trained_on),
        f"{summary_markdown(result.evaluations)}\n\n{chosen} {model}",
        f"figures/{described}/scores.png" if described else "",
    )
