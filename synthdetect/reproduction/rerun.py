"""How a recorded run is done again, by its kind: with its own options and first weights, on its
data as they are now, dealt as they were then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd

from synthdetect.commands.cv import (
    FOLDS,
    fold_data,
    refit_data,
    require_trainable,
    train_folds,
)
from synthdetect.commands.train import adapting, announce
from synthdetect.config import CvOptions, Options, ReproduceOptions, TrainOptions
from synthdetect.datasets.folds import assign_folds
from synthdetect.datasets.prepare import Prepared, prepare, prepare_whole
from synthdetect.evaluation.decision import Decision
from synthdetect.models.networks import check
from synthdetect.reproduction.manifest_diff import REMOVED, changes, match
from synthdetect.reproduction.results import has_weights
from synthdetect.runs.children import children
from synthdetect.runs.resume import read_config
from synthdetect.runs.training import Final, run_training
from synthdetect.system.console import counting
from synthdetect.system.errors import UserError
from synthdetect.tracking.detectors import logged_by
from synthdetect.tracking.run import FOLD, KIND, MANIFEST, Run, existing
from synthdetect.training.devices import Device, resolve

PARENT = "mlflow.parentRunId"
"""MLflow's tag of a run inside another: the other."""

_FIRST_WEIGHTS = {"random": "none", "imagenet": "imagenet"}
"""The option that gives for certain what `auto` came to; a file stands by its own name."""

Made = TypeVar("Made", bound=Options)


@dataclass(frozen=True)
class Recorded:
    """A finished run, and what was asked for in reproducing it.

    Attributes:
        run: the run.
        name: what it is called.
        tags: as set.
        params: of its first training, whose device and versions stand for all.
        options: as it recorded them.
        trainings: the run of each of its trainings, by part; a single one is the run itself.
        asked: how to reproduce it.
    """

    run: Run
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    options: Mapping[str, Any]
    trainings: Mapping[str, str]
    asked: ReproduceOptions

    @property
    def parent(self) -> Run:
        """The run that it is inside of."""
        return Run(self.tags[PARENT])

    def device(self) -> Device:
        """The device and precision of then; where they are not to be had, what `auto` finds."""
        kind, precision, workers = (
            self.params[f"hardware.{name}"] for name in ("kind", "precision", "workers")
        )
        try:
            return resolve(kind, precision, workers)
        except UserError:
            return resolve("auto", "auto", "auto", self.params["model.arch"])

    def resolve(self, kind: type[Made], options: Mapping[str, Any]) -> Made:
        """Options as recorded, but for where the data are and how the new run is kept.

        Raises:
            UserError: this version does not know them all.
        """
        values = dict(options) | {"output": self.asked.output}
        kept = {"register": "", "resume": "", "keep_last": False}
        values |= {name: value for name, value in kept.items() if name in values}
        if self.asked.data:
            values["data"] = self.asked.data
        start = self.params.get("model.start", "")
        values["weights"] = _FIRST_WEIGHTS.get(start, values["weights"])
        try:
            return kind.resolve(values)
        except UserError as error:
            raise UserError(
                f"run {self.run.id} was made by another version, whose options this one does not "
                f"know:\n{error}"
            ) from error


@dataclass(frozen=True)
class Again:
    """How a run is done again.

    Attributes:
        options: of its training, or trainings.
        changes: of the data, as `synthdetect.reproduction.manifest_diff.changes` lists them.
        moved: today's path of images that were under another one then, by that.
        train: does it in an open run.
    """

    options: TrainOptions
    changes: pd.DataFrame
    moved: Mapping[str, str]
    train: Callable[[Run], object]


Kind = Callable[[Recorded, Device], Again]


@dataclass(frozen=True)
class Data:
    """Today's data beside those of then.

    Attributes:
        prepared: today's; if nothing has changed, in the order of then.
        changes: what has changed.
        moved: today's path of images that were under another one then, by that.
    """

    prepared: Prepared
    changes: pd.DataFrame
    moved: Mapping[str, str]


def read_recorded(asked: ReproduceOptions, kinds: Mapping[str, Kind]) -> Recorded:
    """Read what a run recorded of itself.

    Args:
        asked: which run, and how to reproduce it.
        kinds: that can be done again.

    Raises:
        UserError: no such run, one that is not finished, of another kind, or without weights.
    """
    if not asked.run_id:
        raise UserError("--run-id: give the run to reproduce.")
    found = existing(asked.run_id)
    run, tags = Run(asked.run_id), found.data.tags
    kind = tags.get(KIND, "")
    if kind not in kinds:
        raise UserError(_not_this_kind(run, kind, kinds))
    if found.info.status != "FINISHED":
        raise UserError(
            f"--run-id: run {run.id} is {found.info.status}, so there is no result to compare "
            "with. Let it finish, or --resume it."
        )
    trainings = trainings_of(run)
    for training in trainings.values():
        if not has_weights(training):
            raise UserError(f"--run-id: run {training} has no model any more to compare with.")
    first = existing(next(iter(trainings.values()))).data
    record = read_config(run.id)
    name = found.info.run_name or run.id
    return Recorded(run, name, tags, first.params, record["options"], trainings, asked)


def trainings_of(run: Run) -> dict[str, str]:
    """The run of each training by its part of a cross-validation; else the run itself."""
    return children(run) or {"": run.id}


def _not_this_kind(run: Run, kind: str, kinds: Mapping[str, Kind]) -> str:
    inside = run.client.search_runs(
        [run.experiment_id], f"tags.`{PARENT}` = '{run.id}'", max_results=3
    )
    named = ", ".join(f"{child.info.run_id} ({child.info.run_name})" for child in inside)
    hint = f" It has trainings inside, such as {named}." if named else ""
    return (
        f"--run-id: run {run.id} is of the kind {kind!r}, which is not done again as a whole; "
        f"known here: {', '.join(kinds)}.{hint} `mlflow run . -e reproduce` knows all there are."
    )


def prepare_again(
    options: TrainOptions, seed: int, how: Callable[..., Prepared] = prepare
) -> Prepared:
    """Prepare the data as they are now; an image that can no longer be read is left out.

    Args:
        options: of the training, or trainings.
        seed: of the splits.
        how: `prepare` or `prepare_whole`.

    Raises:
        UserError: whatever else is wrong with them.
    """
    check(options.arch, options.image_size, options.weights)
    with counting("reading the data") as count:
        prepared = how(replace(options, on_bad_image="exclude"), seed=seed, progress=count)
    return adapting(options, prepared)


def beside(recorded: Recorded, run: Run, prepared: Prepared) -> Data:
    """Lay today's data beside the manifest that a run recorded.

    Args:
        recorded: the run to be done again.
        run: itself or its parent, whichever has the manifest.
        prepared: today's data.

    Raises:
        UserError: there is no manifest.
    """
    before, now = run.read_table(run.id, MANIFEST), prepared.manifest.table
    if before is None:
        raise UserError(f"--run-id: run {run.id} has no {MANIFEST}; an older version made it.")
    found, rows = changes(before, now), match(before, now)
    unreadable = prepared.excluded.set_index("path")["error"]
    for row in found.index[(found["change"] == REMOVED) & found["path"].isin(unreadable.index)]:
        found.loc[row, "today"] = unreadable[found.loc[row, "path"]]
    known = recorded.params.get("data.target_digest", "")
    if prepared.target and prepared.target.digest() != known:
        named = recorded.options["target"]
        found.loc[len(found)] = ["other target", named, known, prepared.target.digest()]
    paths = zip(before["path"][rows >= 0], now["path"].iloc[rows[rows >= 0]], strict=True)
    moved = {then: path for then, path in paths if then != path}
    if found.empty:  # what is drawn for an image goes by its row
        prepared = replace(prepared, manifest=prepared.manifest.with_table(now.iloc[rows]))
    return Data(prepared, found, moved)


def _train(recorded: Recorded, device: Device) -> Again:
    options = recorded.resolve(TrainOptions, recorded.options)
    data = beside(recorded, recorded.run, prepare_again(options, options.seed))

    def train(run: Run) -> None:
        announce(run, options, data.prepared)
        run_training(run, options, data.prepared, device)

    return Again(options, data.changes, data.moved, train)


def _regime(recorded: Recorded, device: Device) -> Again:
    """The splits are made by the first seed of all regimes."""
    options = recorded.resolve(TrainOptions, recorded.options)
    seed = int(read_config(recorded.parent.id)["options"]["seed"])
    data = beside(recorded, recorded.run, prepare_again(options, seed))
    return _alone(options, data, data.prepared, device)


def _cv(recorded: Recorded, device: Device) -> Again:
    options, data, folds = _dealt(recorded, recorded.run)

    def train(run: Run) -> None:
        announce(run, options, data.prepared)
        train_folds(run, options, data.prepared, folds, device)

    return Again(options, data.changes, data.moved, train)


def _fold(recorded: Recorded, device: Device) -> Again:
    options, data, folds = _dealt(recorded, recorded.parent)
    prepared = fold_data(options, data.prepared, folds, int(recorded.tags[FOLD]))
    return _alone(options, data, prepared, device)


def _refit(recorded: Recorded, device: Device) -> Again:
    """Epochs and decision are the folds', whose trainings are not done again."""
    options, data, _ = _dealt(recorded, recorded.parent)
    card = logged_by(recorded.run.id, recorded.name).detector.card
    epochs = int(recorded.run.metric(recorded.parent.id, "refit/epochs"))
    final = Final(epochs, Decision(card.calibration, card.threshold, card.unsure))
    return _alone(options, data, refit_data(options, data.prepared), device, final)


def _dealt(recorded: Recorded, parent: Run) -> tuple[CvOptions, Data, pd.DataFrame]:
    """Options, data and folds of a cross-validation; other data are dealt anew."""
    options = recorded.resolve(CvOptions, recorded.options)
    data = beside(recorded, parent, prepare_again(options, options.seed, prepare_whole))
    folds = parent.read_table(parent.id, FOLDS)
    if len(data.changes) or folds is None:
        folds = assign_folds(data.prepared.manifest, options, seed=options.seed)
        require_trainable(options, data.prepared, folds)
    return options, data, folds.assign(path=[data.moved.get(p, p) for p in folds["path"]])


def _alone(
    options: TrainOptions, data: Data, prepared: Prepared, device: Device,
    final: Final | None = None,
) -> Again:  # fmt: skip
    """One of several trainings by itself."""

    def train(run: Run) -> None:
        run_training(run, options, prepared, device, final)

    return Again(options, data.changes, data.moved, train)


KINDS: dict[str, Kind] = {
    "train": _train, "cv": _cv, "fold": _fold, "refit": _refit, "regime": _regime,
}  # fmt: skip
"""By a run's tag `synthdetect.kind`."""
