"""Going on with an earlier run: its recorded options, data, checkpoints and numbers."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from synthdetect.config import Options, option_name
from synthdetect.datasets.prepare import Prepared
from synthdetect.reproduction.settings import compare_settings
from synthdetect.runs.training import CHECKPOINTS, CONFIG
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically
from synthdetect.system.processes import is_gone
from synthdetect.tracking.run import (
    PROCESS,
    Run,
    close_unbegun,
    environment,
    existing,
    fetch,
    require_left,
)
from synthdetect.training.devices import Device, computing_with, resolve
from synthdetect.training.session import LAST

Given = TypeVar("Given", bound=Options)

OTHERWISE = "synthdetect.resumed_otherwise"
"""Tag of a run that went on under other settings than it began: which, and so what may differ."""

_MAY_CHANGE = ("resume", "register", "output", "workers", "keep_last", "cache_gib")
"""Options that a resumed run may be given anew, since they change no number."""


def recorded(given: Given) -> tuple[Given, str]:
    """The options and data digest of the run that the option `resume` names.

    Raises:
        UserError: no such run, one that is finished or that another process works on, or options
            that contradict its own.
    """
    values = given.to_json()
    run_id = values["resume"]
    record = read_config(run_id)
    run = existing(run_id)
    require_left(run)
    if run.info.status == "FINISHED":
        raise UserError(f"--resume: run {run_id} is FINISHED; there is nothing to go on with.")
    options = record["options"]
    if set(options) != set(type(given).fields()):
        raise UserError(f"--resume: run {run_id} was made by another command or version.")
    chosen = {name: values[name] for name in ("recipe",) if name in values}
    defaults = type(given).resolve(chosen).to_json()
    for name, value in values.items():
        if name in _MAY_CHANGE:
            options[name] = value
        elif value not in (defaults[name], options[name]):
            raise UserError(
                f"{option_name(name)}: run {run_id} was started with {options[name]!r}, not "
                f"{value!r}. Leave the option out, or start a new run."
            )
    type(given).resolve({**options, "resume": ""})  # together they must be fit to begin with
    return type(given).resolve(options), record["digest"]


def read_config(run_id: str) -> dict[str, Any]:
    """What a run recorded of its options and data.

    Raises:
        UserError: no such run, or one without a record, or with a damaged one.
    """
    run = existing(run_id)
    with tempfile.TemporaryDirectory() as folder:
        file = fetch(MlflowClient(), run_id, CONFIG, folder)
        if file is None:
            raise _without_record(run)
        return _record(file.read_bytes(), run_id)


def _without_record(run: MlflowRun) -> UserError:
    """Why a run has no record; one that was killed too early for it is closed."""
    run_id, status, process = run.info.run_id, run.info.status, run.data.tags.get(PROCESS, "")
    if (status == "KILLED" and process) or (status == "RUNNING" and is_gone(process)):
        close_unbegun(run_id)
        return UserError(
            f"--resume: run {run_id} was interrupted before it had begun, and is KILLED now. "
            "Start it anew, without --resume."
        )
    if status == "RUNNING" and process:
        return UserError(
            f"--resume: run {run_id} has recorded nothing yet, and its process ({process}) may be "
            "alive. Wait for it, or start anew, without --resume."
        )
    return UserError(f"run {run_id} has no recorded configuration: no training run.")


def _record(content: bytes, run_id: str) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not (
        isinstance(record, dict)
        and isinstance(record.get("options"), dict)
        and isinstance(record.get("digest"), str)
    ):
        raise UserError(
            f"run {run_id}: its recorded configuration, {CONFIG}, is damaged. Restore it, or start "
            "a new run."
        )
    return record


def require_same_data(prepared: Prepared, digest: str, run_id: str) -> None:
    """Refuse to go on with other data than the run began with.

    Raises:
        UserError: they have changed.
    """
    if digest != prepared.digest():
        raise UserError(
            f"--resume: the data of run {run_id} have changed since it began. "
            "Restore them, or start a new run."
        )


@contextmanager
def computing_as_begun(run: Run, begun: Mapping[str, str], device: Device) -> Iterator[Device]:
    """Compute as a run began, so that it ends as if it had not stopped.

    Numbers go by precision and threads to the last bit, and not by who reads the images. What
    cannot be as it was is said, and stands in a tag, since parameters never change.

    Args:
        run: that goes on.
        begun: parameters as it recorded them, if it did.
        device: what computes where nothing is recorded or the machine lacks it.
    """
    if "hardware.threads" not in begun:
        yield device
        return
    with computing_with(int(begun["hardware.threads"])):
        device = _as_begun(begun["hardware.kind"], begun["hardware.precision"], device)
        facts = {f"hardware.{name}": str(value) for name, value in device.describe().items()}
        found = compare_settings(begun, {**facts, **environment()})
        found = found[~found["may_change"].str.startswith("nothing")]
        if len(found):
            listed = [f"{name} {then}, now {now}" for name, then, now, _ in found.to_numpy()]
            run.set_tags({OTHERWISE: "; ".join(listed)})
            console.print(
                f"Not as the run began: {'; '.join(listed)}. Its numbers may not be bit for bit "
                "what they would have been. For those, go on where it began, or start a new run.",
                style="bold yellow",
            )
        yield device


def _as_begun(kind: str, precision: str, device: Device) -> Device:
    """The device and precision of then, or the given ones where the machine has not got them."""
    try:
        best = resolve(kind, "auto", str(device.workers))
    except UserError:
        return device
    there = precision in ("fp32", best.precision, device.precision)
    return replace(best, precision=precision) if there else device


def fetch_checkpoint(run: Run, output: str) -> None:
    """Get a run's checkpoints from its artifacts if this machine has none."""
    folder = Path(output) / run.id
    if (folder / LAST).is_file():
        return
    if run.client.list_artifacts(run.id, CHECKPOINTS):
        with tempfile.TemporaryDirectory() as temporary:
            run.client.download_artifacts(run.id, CHECKPOINTS, temporary)
            folder.mkdir(parents=True, exist_ok=True)
            files = (Path(temporary) / CHECKPOINTS).iterdir()
            # The last one comes last: where it is, all is taken to be there.
            for file in sorted(files, key=lambda file: file.name == LAST):
                with replace_atomically(folder / file.name) as target:
                    shutil.copyfile(file, target)
