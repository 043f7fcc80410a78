"""Trainings in child runs under one parent, each done once however often one starts again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from synthdetect.commands.train import conclude, tags
from synthdetect.config import Options, TrainOptions
from synthdetect.datasets.prepare import Prepared
from synthdetect.runs.resume import computing_as_begun, fetch_checkpoint
from synthdetect.runs.training import Final, run_training
from synthdetect.system.console import console
from synthdetect.tracking.availability import StoreAway
from synthdetect.tracking.models import register
from synthdetect.tracking.run import FOLD, Run, open_run
from synthdetect.training.devices import Device


@dataclass(frozen=True)
class Part:
    """One of the trainings under a parent.

    Attributes:
        name: which it is, unique under the parent; a fold's number, say.
        title: the child run's name.
        kind: of the child run.
        options: of the training.
        device: what computes.
        prepared: makes its data when it is its turn, so that only one part's are held.
        final: for a training without validation.
    """

    name: str
    title: str
    kind: str
    options: TrainOptions
    device: Device
    prepared: Callable[[], Prepared]
    final: Final | None = None


class PartsFailed(RuntimeError):
    """Some of the trainings ended in an error."""


def train_parts(parent: Run, parts: list[Part], command: str, options: Options) -> dict[str, str]:
    """Train what is not done; one that fails leaves the others.

    Args:
        parent: the run to nest under.
        parts: what to train, in this order.
        command: that was called with `options`, for the tags.
        options: of the command.

    Returns:
        The child runs' ids by part.

    Raises:
        PartsFailed: some failed, after all others were done.
    """
    done: dict[str, str] = {}
    failed: dict[str, str] = {}
    known = children(parent)
    for part in parts:
        child = known.get(part.name, "")
        if child and is_finished(parent, child):
            console.print(f"{part.title}  is done (run {child})", style="bold")
            done[part.name] = child
            continue
        console.print(part.title, style="bold")
        try:
            begun = _begun(parent, known, part)
            done[part.name] = _train(parent, part, tags(command, options), child, begun)
        except StoreAway:
            raise  # the next one would wait as long
        except Exception as error:
            failed[part.title] = f"{type(error).__name__}: {error}"
            console.print(f"{part.title} failed: {failed[part.title]}", style="bold red")
    if failed:
        listed = "; ".join(f"{title}: {error}" for title, error in failed.items())
        raise PartsFailed(
            f"{len(failed)} of {len(parts)} trainings failed: {listed}. "
            f"Go on with: synthdetect {command} --resume {parent.id}"
        )
    return done


def _begun(parent: Run, known: Mapping[str, str], part: Part) -> Mapping[str, str]:
    """What the part's run recorded, or else another's of its network, as which it would compute."""
    for run_id in filter(None, (known.get(part.name), *known.values())):
        params: Mapping[str, str] = parent.client.get_run(run_id).data.params
        if params.get("model.arch") == part.options.arch:
            return params
    return {}


def _train(
    parent: Run, part: Part, labels: Mapping[str, str], resume: str, begun: Mapping[str, str]
) -> str:
    labels = {**labels, FOLD: part.name}
    with open_run(part.title, kind=part.kind, tags=labels, resume=resume, parent=parent) as child:
        if resume:
            fetch_checkpoint(child, part.options.output)
        with computing_as_begun(child, begun, part.device) as device:
            outcome = run_training(child, part.options, part.prepared(), device, part.final)
        if part.final:
            name = part.options.register
            register_it = partial(register, outcome.model, name)
            version = child.retry(register_it) if name else ""
            conclude(child, outcome, name, version)
    return child.id


def children(run: Run) -> dict[str, str]:
    """The child runs' ids by part."""
    found = run.client.search_runs(
        [run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.id}'", max_results=1000
    )
    return {child.data.tags.get(FOLD, ""): child.info.run_id for child in found}


def is_finished(run: Run, run_id: str) -> bool:
    """Whether a run ended well."""
    return bool(run.client.get_run(run_id).info.status == "FINISHED")
