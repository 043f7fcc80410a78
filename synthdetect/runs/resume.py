"""Resuming a run: its recorded options, its data, its checkpoints, and the device it began on."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from synthdetect.config.options import Affects, Options, option_name
from synthdetect.datasets.prepare import Prepared
from synthdetect.runs.settings import compare_settings
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically
from synthdetect.system.processes import is_gone
from synthdetect.tracking.provenance import environment
from synthdetect.tracking.queries import (
    StoredRun,
    artifact_paths,
    close_unbegun,
    download,
    existing,
    fetch,
    require_idle,
)
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import CHECKPOINTS, CONFIG, PROCESS
from synthdetect.training.devices import Device, computing_with, resolve
from synthdetect.training.session import LAST

Given = TypeVar("Given", bound=Options)

OTHERWISE = "synthdetect.resumed_otherwise"
"""Tag of a run that resumed with other settings than it began with; the value lists them."""

_RENAMED = {"threshold": "threshold_rule"}
"""Options that older versions recorded under another name."""


def recorded_options(given: Given) -> tuple[Given, str]:
    """Return the options and the data digest of the run that the option `resume` names.

    Options that affect no number (speed, folders, names) are taken from `given`.

    Raises:
        UserError: If there is no such run, it is finished, another process works on it, or the
            given options contradict its own.
    """
    values = given.to_json()
    run_id = values["resume"]
    record = read_config(run_id)
    run = existing(run_id)
    require_idle(run)
    if run.status == "FINISHED":
        raise UserError(f"--resume: run {run_id} is FINISHED; there is nothing to resume.")
    options = record["options"]
    if set(options) != set(type(given).fields()):
        raise UserError(f"--resume: run {run_id} was made by another command or version.")
    chosen = {name: values[name] for name in ("recipe",) if name in values}
    defaults = type(given).resolve(chosen).to_json()
    defaults |= {name: type(given).fields()[name].default for name in chosen}
    replaceable = type(given).affecting(Affects.SPEED, Affects.RECORD)
    for name, value in values.items():
        if name in replaceable:
            options[name] = value
        elif value not in (defaults[name], options[name]):
            raise UserError(
                f"{option_name(name)}: run {run_id} was started with {options[name]!r}, not "
                f"{value!r}. Leave the option out, or start a new run."
            )
    type(given).resolve({**options, "resume": ""})  # together they must be valid
    return type(given).resolve(options), record["digest"]


def read_config(run_id: str) -> dict[str, Any]:
    """Return the options and the data digest that a run recorded.

    Raises:
        UserError: If there is no such run, or its record is missing or damaged.
    """
    run = existing(run_id)
    with tempfile.TemporaryDirectory() as folder:
        file = fetch(run_id, CONFIG, folder)
        if file is None:
            raise _without_record(run)
        return _record(file.read_bytes(), run_id)


def _without_record(run: StoredRun) -> UserError:
    """Return why a run has no record; a run that was killed too early for it is closed."""
    run_id, status, process = run.id, run.status, run.tags.get(PROCESS, "")
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
    options = {_RENAMED.get(name, name): value for name, value in record["options"].items()}
    return {**record, "options": options}


def require_same_data(prepared: Prepared, digest: str, run_id: str) -> None:
    """Check that a run resumes on the data that it began with.

    Raises:
        UserError: If the data have changed.
    """
    if digest != prepared.digest():
        raise UserError(
            f"--resume: the data of run {run_id} have changed since it began. "
            "Restore them, or start a new run."
        )


@contextmanager
def computing_as_begun(
    run: Run, begun: Mapping[str, str], device: Device, processes: int = 1
) -> Iterator[Device]:
    """Compute with the device, precision and threads that a run began with.

    These decide the last bits of every number. What this machine lacks is printed and recorded in
    the tag `OTHERWISE`, because MLflow's parameters cannot change.

    Args:
        run: The run that resumes.
        begun: The parameters that it recorded, if any.
        device: The device to use where nothing is recorded or the machine lacks it.
        processes: Processes that share the cores of this machine where nothing is recorded.

    Yields:
        The device to compute with.
    """
    if "hardware.threads" not in begun:
        with computing_with(max(1, torch.get_num_threads() // processes)):
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
                f"The run began with other settings: {'; '.join(listed)}. Its numbers may differ "
                "in the last bits from those of an uninterrupted run. Resume it where it began, or "
                "start a new run, if they must not.",
                style="bold yellow",
            )
        yield device


def _as_begun(kind: str, precision: str, device: Device) -> Device:
    """Return the recorded device and precision, or the given ones if the machine lacks them."""
    try:
        best = resolve(kind, "auto", str(device.workers))
    except UserError:
        return device
    supported = precision in ("fp32", best.precision, device.precision)
    return replace(best, precision=precision) if supported else device


def fetch_checkpoint(run: Run, output: str) -> None:
    """Download the checkpoints of a run from its artifacts if this machine has none."""
    folder = Path(output) / run.id
    if (folder / LAST).is_file():
        return
    if artifact_paths(run.id, CHECKPOINTS):
        with tempfile.TemporaryDirectory() as temporary:
            download(run.id, CHECKPOINTS, temporary)
            folder.mkdir(parents=True, exist_ok=True)
            files = (Path(temporary) / CHECKPOINTS).iterdir()
            # LAST is written last: if it exists, the best weights beside it are taken to be whole.
            for file in sorted(files, key=lambda file: file.name == LAST):
                with replace_atomically(folder / file.name) as target:
                    shutil.copyfile(file, target)
