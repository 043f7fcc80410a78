"""How a recorded run is rerun, by its kind: with its own options, weights and splits."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd

from synthdetect.config.options import Options
from synthdetect.datasets.folds import assign_folds
from synthdetect.datasets.prepare import Prepared, prepare, prepare_whole
from synthdetect.reproduction.manifest_diff import REMOVED, diff_manifests, match
from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.reproduction.results import has_weights
from synthdetect.runs.cross_validation import (
    fold_data,
    recorded_folds,
    recorded_seeds,
    refit_data,
    require_valid_folds,
    train_folds,
)
from synthdetect.runs.kinds import RunKind
from synthdetect.runs.messages import announce
from synthdetect.runs.options import CvOptions, RegimesOptions, TrainOptions
from synthdetect.runs.preflight import require_trainable, with_target
from synthdetect.runs.regimes import regime_data, regime_of, whole_options
from synthdetect.runs.resume import read_config
from synthdetect.runs.training import Predetermined, run_training
from synthdetect.system.console import counting
from synthdetect.system.errors import UserError
from synthdetect.tracking.detectors import logged_by
from synthdetect.tracking.queries import child_ids, child_runs, existing, read_table
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import FOLD, KIND, MANIFEST, PARENT
from synthdetect.training.devices import Device, resolve

_INITIAL_WEIGHTS = {
    ("auto", "imagenet"): "imagenet",
    ("auto_v1", "imagenet"): "imagenet_v1",
    ("auto", "random"): "none",
    ("auto_v1", "random"): "none",
}
"""The value of `weights` that loads again what another one found, by this one and what it found."""

AnyOptions = TypeVar("AnyOptions", bound=Options)


@dataclass(frozen=True)
class RecordedRun:
    """A finished run, and the request to reproduce it.

    Attributes:
        run: The run.
        name: Its name.
        tags: Its tags.
        params: The parameters of its first training, whose device and versions stand for all.
        options: The options that it recorded.
        trainings: The run of each of its trainings by name; a single training is the run itself.
        request: How to reproduce it.
    """

    run: Run
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    options: Mapping[str, Any]
    trainings: Mapping[str, str]
    request: ReproduceOptions

    @property
    def kind(self) -> str:
        """The name of its kind in `RUN_KINDS` or of an extension's."""
        return self.tags[KIND]

    @property
    def parent(self) -> Run:
        """Its parent run."""
        return Run(self.tags[PARENT])

    def device(self) -> Device:
        """Return the recorded device and precision, or what `auto` finds if they do not exist."""
        kind, precision, workers = (
            self.params[f"hardware.{name}"] for name in ("kind", "precision", "workers")
        )
        try:
            return resolve(kind, precision, workers)
        except UserError:
            return resolve("auto", "auto", "auto", self.params["model.arch"])

    def resolve(self, kind: type[AnyOptions], options: Mapping[str, Any]) -> AnyOptions:
        """Return recorded options, except for where the data are and how the new run is kept.

        Raises:
            UserError: If this version does not know all of them.
        """
        values = dict(options) | {"output": self.request.output}
        # The number of processes changes no result, and those of several machines are not here.
        unset = {"register": "", "resume": "", "keep_last": False, "processes": 1}
        values |= {name: value for name, value in unset.items() if name in values}
        if self.request.data:
            values["data"] = self.request.data
        start = self.params.get("model.start", "")
        weights = values["weights"]
        values["weights"] = _INITIAL_WEIGHTS.get((weights, start), weights)
        try:
            return kind.resolve(values)
        except UserError as error:
            raise UserError(
                f"run {self.run.id} was recorded by another version, with options that this one "
                f"does not know:\n{error}"
            ) from error


@dataclass(frozen=True)
class Rerun:
    """How a recorded run is run again.

    Attributes:
        options: The options of its training, or trainings.
        diff: The manifest diff: what has changed in the data.
        moved: Today's path of the images whose path has changed, by their recorded path.
        train: Runs it again in an open run.
    """

    options: TrainOptions
    diff: pd.DataFrame
    moved: Mapping[str, str]
    train: Callable[[Run], object]


@dataclass(frozen=True)
class TodaysData:
    """Today's data compared with the recorded ones.

    Attributes:
        prepared: Today's data; in the recorded order if nothing has changed.
        diff: The manifest diff.
        moved: Today's path of the images whose path has changed, by their recorded path.
    """

    prepared: Prepared
    diff: pd.DataFrame
    moved: Mapping[str, str]


def read_recorded(request: ReproduceOptions, kinds: Mapping[str, RunKind]) -> RecordedRun:
    """Read what a run recorded of itself.

    Args:
        request: Which run, and how to reproduce it.
        kinds: The known kinds of runs.

    Raises:
        UserError: If there is no such run, it is not finished, its kind cannot be rerun, or no
            weights are left to compare with.
    """
    if not request.run_id:
        raise UserError("--run-id: give the run to reproduce.")
    found, run = existing(request.run_id), Run(request.run_id)
    kind = found.tags.get(KIND, "")
    if kind not in kinds or not kinds[kind].rerun:
        raise UserError(_cannot_rerun(run, kind, kinds))
    if found.status != "FINISHED":
        raise UserError(
            f"--run-id: run {run.id} is {found.status}, so there is no result to compare "
            "with. Let it finish, or --resume it."
        )
    trainings = trainings_of(run)
    for training in trainings.values():
        if not has_weights(training):
            raise UserError(f"--run-id: run {training} has no model any more to compare with.")
    first = existing(next(iter(trainings.values())))
    options = read_config(run.id)["options"]
    return RecordedRun(run, found.name, found.tags, first.params, options, trainings, request)


def plan_rerun(recorded: RecordedRun, kinds: Mapping[str, RunKind], device: Device) -> Rerun:
    """Prepare running a recorded run again.

    Raises:
        UserError: If its options or data do not fit.
    """
    module, _, function = kinds[recorded.kind].rerun.partition(":")
    rerun: Rerun = getattr(importlib.import_module(module), function)(recorded, device)
    return rerun


def trainings_of(run: Run) -> dict[str, str]:
    """Return the run of each training by name: the child runs, or the run itself."""
    return child_ids(run.id) or {"": run.id}


def _cannot_rerun(run: Run, kind: str, kinds: Mapping[str, RunKind]) -> str:
    named = ", ".join(f"{child.id} ({child.name})" for child in child_runs(run.id)[:3])
    hint = f" Give one of the trainings inside it, such as {named}." if named else ""
    known = ", ".join(name for name, entry in kinds.items() if entry.rerun)
    return (
        f"--run-id: run {run.id} is of the kind {kind!r}, which cannot be rerun as a whole; kinds "
        f"that can: {known}.{hint}"
    )


def compare_data(
    recorded: RecordedRun,
    run: Run,
    options: TrainOptions,
    *,
    seed: int | None = None,
    prepare_data: Callable[..., Prepared] = prepare,
) -> TodaysData:
    """Prepare today's data and compare them with a recorded manifest.

    Args:
        recorded: The run to rerun.
        run: The run itself or its parent, whichever recorded the manifest.
        options: The options of the training.
        seed: Seed of the splits; None means that of the options.
        prepare_data: How the data are prepared: `prepare` or `prepare_whole`.

    Raises:
        UserError: If the data cannot be used; images that cannot be read any more are removed.
    """
    require_trainable(options)
    lenient = options.data.replace(on_bad_image="exclude")
    with counting("reading the data") as count:
        seed = options.optim.seed if seed is None else seed
        prepared = prepare_data(lenient, seed=seed, progress=count)
    return diff_data(recorded, run, with_target(options.replace(on_bad_image="exclude"), prepared))


def diff_data(recorded: RecordedRun, run: Run, prepared: Prepared) -> TodaysData:
    """Compare prepared data with a recorded manifest.

    Raises:
        UserError: If the run recorded no manifest.
    """
    before, now = read_table(run.id, MANIFEST), prepared.manifest.table
    if before is None:
        raise UserError(f"--run-id: run {run.id} has no {MANIFEST}; an older version made it.")
    diff, rows = diff_manifests(before, now), match(before, now)
    unreadable = prepared.excluded.set_index("path")["error"]
    for row in diff.index[(diff["change"] == REMOVED) & diff["path"].isin(unreadable.index)]:
        diff.loc[row, "today"] = unreadable[diff.loc[row, "path"]]
    known = recorded.params.get("data.target_digest", "")
    if prepared.target and prepared.target.digest() != known:
        target = recorded.options["target"]
        diff.loc[len(diff)] = ["other target", target, known, prepared.target.digest()]
    paths = zip(before["path"][rows >= 0], now["path"].iloc[rows[rows >= 0]], strict=True)
    moved = {then: path for then, path in paths if then != path}
    if diff.empty:  # random numbers of an image derive from its row
        prepared = replace(prepared, manifest=prepared.manifest.with_table(now.iloc[rows]))
    return TodaysData(prepared, diff, moved)


def rerun_training(recorded: RecordedRun, device: Device) -> Rerun:
    options = recorded.resolve(TrainOptions, recorded.options)
    data = compare_data(recorded, recorded.run, options)

    def train(run: Run) -> None:
        announce(run, options, data.prepared)
        run_training(run, options, data.prepared, device)

    return Rerun(options, data.diff, data.moved, train)


def rerun_regime(recorded: RecordedRun, device: Device) -> Rerun:
    """Rerun one regime, or its refit with the recorded epochs and decision."""
    options = recorded.resolve(TrainOptions, recorded.options)
    study = read_config(recorded.parent.id)["options"]
    if "factors" not in study:  # an older version prepared each training's data by its own options
        data = compare_data(recorded, recorded.run, options, seed=int(study["seed"]))
        return _one_training(options, data, data.prepared, device)
    regimes = recorded.resolve(RegimesOptions, study)
    data = compare_data(
        recorded,
        recorded.parent,
        whole_options(regimes),
        prepare_data=prepare_whole,
    )
    regime, refit = regime_of(regimes, data.prepared, recorded.tags[FOLD])
    prepared = regime_data(regimes, data.prepared, regime.data, refit=refit)
    if not refit:
        return _one_training(options, data, prepared, device)
    epochs = int(existing(recorded.run.id).metrics["best/epoch"])
    card = logged_by(recorded.run.id, recorded.name).detector.card
    predetermined = Predetermined.of(epochs, card)
    return _one_training(options, data, prepared, device, predetermined)


def rerun_cross_validation(recorded: RecordedRun, device: Device) -> Rerun:
    options, data, folds = _folds_of(recorded, recorded.run)

    def train(run: Run) -> None:
        announce(run, options, data.prepared)
        seeds = recorded_seeds(recorded.run.id)
        train_folds(run, options, data.prepared, folds, device, seeds=seeds)

    return Rerun(options, data.diff, data.moved, train)


def rerun_fold(recorded: RecordedRun, device: Device) -> Rerun:
    """Rerun one fold; its seed trains it, and the seed of the cross-validation made its data."""
    whole, data, folds = _folds_of(recorded, recorded.parent)
    prepared = fold_data(whole, data.prepared, folds, int(recorded.tags[FOLD]))
    options = recorded.resolve(CvOptions, recorded.options)
    return _one_training(options, data, prepared, device)


def rerun_refit(recorded: RecordedRun, device: Device) -> Rerun:
    """Rerun a refit with the recorded epochs and decision of the folds, which are not rerun."""
    whole, data, _ = _folds_of(recorded, recorded.parent)
    card = logged_by(recorded.run.id, recorded.name).detector.card
    epochs = int(existing(recorded.parent.id).metrics["refit/epochs"])
    prepared = refit_data(whole, data.prepared)
    options = recorded.resolve(CvOptions, recorded.options)
    predetermined = Predetermined.of(epochs, card)
    return _one_training(options, data, prepared, device, predetermined)


def _folds_of(recorded: RecordedRun, parent: Run) -> tuple[CvOptions, TodaysData, pd.DataFrame]:
    """Return options, data and folds of a cross-validation; changed data are assigned anew."""
    options = recorded.resolve(CvOptions, read_config(parent.id)["options"])
    data = compare_data(recorded, parent, options, prepare_data=prepare_whole)
    folds = recorded_folds(parent.id)
    if len(data.diff) or folds is None:
        seed, val_share = options.optim.seed, options.data.val_share
        folds = assign_folds(data.prepared.manifest, options.folds, seed=seed, val_share=val_share)
        require_valid_folds(options, data.prepared, folds)
    return options, data, folds.assign(path=[data.moved.get(p, p) for p in folds["path"]])


def _one_training(
    options: TrainOptions,
    data: TodaysData,
    prepared: Prepared,
    device: Device,
    predetermined: Predetermined | None = None,
) -> Rerun:
    def train(run: Run) -> None:
        run_training(run, options, prepared, device, predetermined=predetermined)

    return Rerun(options, data.diff, data.moved, train)
