"""Going on with an earlier run: its recorded options, data and checkpoints."""

import json
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from synthdetect.config import Options, option_name
from synthdetect.data.prepare import Prepared
from synthdetect.errors import UserError
from synthdetect.experiment import CHECKPOINTS, CONFIG
from synthdetect.tracking.run import KIND, Run, close_unbegun, existing
from synthdetect.training.session import LAST

Given = TypeVar("Given", bound=Options)

_MAY_CHANGE = ("resume", "register", "output", "workers", "keep_last", "cache_gib")
"""Options that a resumed run may be given anew, since they change no number."""


def recorded(given: Given) -> tuple[Given, str]:
    """The options and data digest of the run that the option `resume` names.

    Raises:
        UserError: no such run, one that is finished, or options that contradict its own.
    """
    values = given.to_json()
    run_id = values["resume"]
    record = read_config(run_id)
    status = MlflowClient().get_run(run_id).info.status
    if status == "FINISHED":
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
    return type(given).resolve(options), record["digest"]


def read_config(run_id: str) -> dict[str, Any]:
    """What a run recorded of its options and data.

    Raises:
        UserError: no such run, or one without a record, or with a damaged one.
    """
    run = existing(run_id)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = MlflowClient().download_artifacts(run_id, CONFIG, folder)
            content = Path(path).read_bytes()
    except (MlflowException, OSError) as error:
        if run.info.status == "RUNNING" and KIND in run.data.tags:
            close_unbegun(run_id)
            raise UserError(
                f"--resume: run {run_id} was interrupted before it had begun, and is KILLED now. "
                "Start it anew, without --resume."
            ) from error
        raise UserError(f"run {run_id} has no recorded configuration: no training run.") from error
    return _record(content, run_id)


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


def fetch_checkpoint(run: Run, output: str) -> None:
    """Get a run's checkpoints from its artifacts if this machine has none."""
    folder = Path(output) / run.id
    if (folder / LAST).is_file():
        return
    if run.client.list_artifacts(run.id, CHECKPOINTS):
        with tempfile.TemporaryDirectory() as temporary:
            run.client.download_artifacts(run.id, CHECKPOINTS, temporary)
            folder.mkdir(parents=True, exist_ok=True)
            for file in (Path(temporary) / CHECKPOINTS).iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
