"""Trainings in child runs under one parent run, each done once however often one resumes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from synthdetect.config.options import Options
from synthdetect.datasets.prepare import Prepared
from synthdetect.runs.kinds import RUN_KINDS
from synthdetect.runs.messages import command_tags, conclude
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.resume import computing_as_begun, fetch_checkpoint
from synthdetect.runs.training import Predetermined, register_model, run_training
from synthdetect.system.console import console
from synthdetect.system.timetable import Part, current
from synthdetect.tracking.availability import StoreAway
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import child_ids, existing, is_finished
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import FOLD
from synthdetect.training.devices import Device


@dataclass(frozen=True)
class ChildTraining:
    """One of the trainings under a parent run.

    Attributes:
        name: Its name, unique under the parent; the number of a fold, for example.
        title: The name of the child run.
        kind: The kind of the child run, a name of `RUN_KINDS`.
        options: The options of the training.
        device: The device that computes.
        prepare_data: Makes its data when it begins, so that only one training's are in memory.
        predetermined: Epochs and decision of a training without validation.
        data: Which data they are, where trainings under one parent differ in it.
    """

    name: str
    title: str
    kind: str
    options: TrainOptions
    device: Device
    prepare_data: Callable[[], Prepared]
    predetermined: Predetermined | None = None
    data: str = ""

    @property
    def part(self) -> Part:
        """The training as a part of its command, whose work is measured in epochs."""
        epochs = self.predetermined.epochs if self.predetermined else self.options.optim.epochs
        return Part(self.name, epochs, f"{self.options.model.arch} {self.kind} {self.data}")


class TrainingsFailed(RuntimeError):
    """Some of the trainings ended in an error."""


def train_children(
    parent: Run, trainings: list[ChildTraining], command: str, options: Options
) -> dict[str, str]:
    """Train what is not done yet; a training that fails does not stop the others.

    Args:
        parent: The run to nest under.
        trainings: The trainings, in this order.
        command: The command that was called with `options`, for the tags.
        options: The options of the command.

    Returns:
        The ids of the child runs by name of the training.

    Raises:
        TrainingsFailed: If some failed, after all others were done.
    """
    done: dict[str, str] = {}
    failed: dict[str, str] = {}
    known = child_ids(parent.id)
    for training in trainings:
        child = known.get(training.name, "")
        if child and is_finished(child):
            console.print(f"{training.title}  is done (run {child})", style="bold")
            done[training.name] = child
            current().drop(training.name)
            continue
        console.print(training.title, style="bold")
        try:
            begun = _begun(known, training)
            tags = command_tags(command, options)
            with current().part(training.name):
                done[training.name] = _train(parent, training, tags, child, begun)
        except StoreAway:
            raise  # the next training would wait as long
        except Exception as error:
            failed[training.title] = f"{type(error).__name__}: {error}"
            console.print(f"{training.title} failed: {failed[training.title]}", style="bold red")
    if failed:
        listed = "; ".join(f"{title}: {error}" for title, error in failed.items())
        raise TrainingsFailed(
            f"{len(failed)} of {len(trainings)} trainings failed: {listed}. "
            f"Resume with: synthdetect {command} --resume {parent.id}"
        )
    return done


def _begun(known: Mapping[str, str], training: ChildTraining) -> Mapping[str, str]:
    """Return the parameters whose device settings the training must use.

    They are those of its own run if it has begun, else those of another child run with the same
    architecture.
    """
    for run_id in filter(None, (known.get(training.name), *known.values())):
        params = existing(run_id).params
        if params.get("model.arch") == training.options.model.arch:
            return params
    return {}


def _train(
    parent: Run,
    training: ChildTraining,
    tags: Mapping[str, str],
    resume: str,
    begun: Mapping[str, str],
) -> str:
    kind, tags = training.kind, {**tags, FOLD: training.name}
    with open_run(training.title, kind=kind, tags=tags, resume=resume, parent=parent) as child:
        if resume:
            fetch_checkpoint(child, training.options.run.output)
        with computing_as_begun(child, begun, training.device) as device:
            result = run_training(
                child,
                training.options,
                training.prepare_data(),
                device,
                kind=RUN_KINDS[kind],
                predetermined=training.predetermined,
            )
        if training.predetermined:
            name = training.options.run.register
            conclude(child, result, name, register_model(child, result, name))
    return child.id
