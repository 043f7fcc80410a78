"""Reads runs of the tracking store. Every function waits while the store is away."""

import posixpath
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from synthdetect.system.errors import UserError
from synthdetect.system.processes import is_another_alive
from synthdetect.tracking.availability import is_absent, waiting_client
from synthdetect.tracking.store import tracking_uri
from synthdetect.tracking.tags import FOLD, NOT_BEGUN, PARENT, PROCESS

_URI = "models:/"
_LEAST_DIGITS = 4
_PREFIX = re.compile(rf"[0-9a-f]{{{_LEAST_DIGITS},32}}")
_MOST_MATCHES = 5
_BINARY = {"0": 0, "1": 1}
_TEXT_COLUMNS = ("path", "generator", "category", "source_id", "held_out")


@dataclass(frozen=True)
class StoredRun:
    """A run as the tracking store has it.

    Attributes:
        id: Its id.
        name: Its name in the UI.
        status: RUNNING, FINISHED, FAILED or KILLED.
        params: Its parameters.
        metrics: The last value of each metric.
        tags: Its tags.
    """

    id: str
    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def existing(run_id: str) -> StoredRun:
    """Read a run.

    Raises:
        UserError: If there is no such run, or it is deleted.
    """
    return stored(existing_entity(run_id))


def existing_entity(run_id: str) -> MlflowRun:
    """Read a run as `existing` does, as MLflow represents it."""
    try:
        found = waiting_client().get_run(run_id)
    except MlflowException as error:
        if not is_absent(error):
            raise
        raise UserError(
            f"no run {run_id!r} in {tracking_uri()}. "
            "Set MLFLOW_TRACKING_URI to the store that has it."
        ) from error
    if found.info.lifecycle_stage != "active":
        raise UserError(f"run {run_id} is deleted; restore it first.")
    return found


def stored(run: MlflowRun) -> StoredRun:
    """Take the plain facts out of MLflow's representation of a run."""
    return StoredRun(
        id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        params=run.data.params,
        metrics=run.data.metrics,
        tags=run.data.tags,
    )


def is_there(run_id: str) -> bool:
    """Whether the tracking store has a run, and it is not deleted."""
    try:
        return bool(run_id and existing(run_id))
    except UserError:
        return False


def is_finished(run_id: str) -> bool:
    """Whether a run ended as FINISHED."""
    return existing(run_id).status == "FINISHED"


def require_idle(run: StoredRun) -> None:
    """Check that no other living process of this machine works on a run.

    Raises:
        UserError: If one does.
    """
    process = run.tags.get(PROCESS, "")
    if run.status == "RUNNING" and is_another_alive(process):
        raise UserError(
            f"run {run.id} is RUNNING: process {process.split(' ')[1]} of this machine works on "
            "it. Wait for it, or end it first."
        )


def child_runs(parent_id: str) -> list[StoredRun]:
    """The runs that are nested under a run, in the order of their starts."""
    client = waiting_client()
    experiment = client.get_run(parent_id).info.experiment_id
    found: list[MlflowRun] = []
    token = None
    while token is None or token:
        page = client.search_runs(
            [experiment],
            f"tags.`{PARENT}` = '{parent_id}'",
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        found += page
        token = page.token or ""
    return [stored(run) for run in found]


def child_ids(parent_id: str) -> dict[str, str]:
    """Ids of the child runs by their name, which is their tag `FOLD`; the last one first."""
    return {child.tags.get(FOLD, ""): child.id for child in reversed(child_runs(parent_id))}


def find_run(text: str, option: str) -> str:
    """Find the run that a text names.

    Args:
        text: The id of a run, the beginning of one that no other run has, or the `models:/` URI of
            a model, which stands for the run that logged it.
        option: The option that names it, for messages.

    Returns:
        The id of the run.

    Raises:
        UserError: If there is no such run, or several begin like this.
    """
    client = waiting_client()
    if text.startswith(_URI):
        return _run_of_model(text, option)
    if not _PREFIX.fullmatch(text):
        raise UserError(
            f"{option}: {text!r} is neither a run id, nor at least {_LEAST_DIGITS} digits with "
            f"which one begins, nor a {_URI} URI."
        )
    experiments = [e.experiment_id for e in client.search_experiments()]
    query = f"attributes.run_id LIKE '{text}%'"
    found = client.search_runs(experiments, query, max_results=_MOST_MATCHES + 1)
    ids = [run.info.run_id for run in found]
    if len(ids) > 1 and text not in ids:
        shown = ", ".join(ids[:_MOST_MATCHES])
        raise UserError(f"{option}: several runs begin with {text}: {shown}. Give more digits.")
    if not ids:
        return existing(text).id  # which says where it has looked
    return text if text in ids else str(ids[0])


def _run_of_model(uri: str, option: str) -> str:
    """Return the id of the run that logged a model, given as for `find_run`."""
    client = waiting_client()
    name = uri.removeprefix(_URI)
    model, alias, version = "", "", ""
    if "@" in name:
        model, _, alias = name.rpartition("@")
    elif "/" in name:
        model, _, version = name.rpartition("/")
    try:
        if alias:
            run_id = client.get_model_version_by_alias(model, alias).run_id
        elif version:
            run_id = client.get_model_version(model, version).run_id
        else:
            run_id = client.get_logged_model(name).source_run_id
    except MlflowException as error:
        if not is_absent(error):
            raise
        raise UserError(f"{option}: no model {uri} in {tracking_uri()}.") from error
    if not run_id or not is_there(run_id):
        raise UserError(f"{option}: the run that logged {uri} is not in {tracking_uri()}.")
    return str(run_id)


def logged_datasets(run_id: str) -> dict[str, str]:
    """Return the digests of the datasets that a run has logged as its inputs, by their name."""
    inputs = existing_entity(run_id).inputs
    found = inputs.dataset_inputs if inputs else []
    return {one.dataset.name: one.dataset.digest for one in found}


def input_models(run_id: str) -> list[str]:
    """Return the ids of the models of other runs that a run has used."""
    inputs = existing_entity(run_id).inputs
    return [model.model_id for model in inputs.model_inputs] if inputs else []


def metric_history(run_id: str, name: str) -> dict[int, float]:
    """The values of a run's metric, by step."""
    points = waiting_client().get_metric_history(run_id, name)
    return {point.step: point.value for point in sorted(points, key=lambda point: point.step)}


def artifact_paths(run_id: str, folder: str = "") -> list[str]:
    """The paths of the artifacts directly in a folder of a run."""
    return [item.path for item in waiting_client().list_artifacts(run_id, folder or None)]


def download(run_id: str, path: str, folder: str | Path) -> Path:
    """Download an artifact, or a folder of artifacts, into a folder.

    Returns:
        Where it is now.
    """
    return Path(waiting_client().download_artifacts(run_id, path, str(folder)))


def fetch(run_id: str, path: str, folder: str | Path) -> Path | None:
    """Download a file among a run's artifacts, as `download` does.

    Returns:
        Where it is now, or None if there is no such run or file. A store or a server that fails is
        an error, not a missing file.
    """
    try:
        listed = artifact_paths(run_id, posixpath.dirname(path))
    except MlflowException as error:
        if not is_absent(error):
            raise
        return None
    return download(run_id, path, folder) if path in listed else None


def read_table(run_id: str, path: str) -> pd.DataFrame | None:
    """Read a CSV file among a run's artifacts, or return None if there is no such run or file.

    Columns of names and paths are text, even if they look like numbers.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = fetch(run_id, path, folder)
        if file is None:
            return None
        return pd.read_csv(file, keep_default_na=False, dtype=dict.fromkeys(_TEXT_COLUMNS, str))


def read_predictions(run_id: str, path: str) -> pd.DataFrame:
    """Read a predictions table among a run's artifacts, its numbers exactly as they were written.

    Columns are only checked to have finite numbers where they must; any may be missing.

    Raises:
        UserError: If it cannot be parsed, or a number in it is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = download(run_id, path, folder)
        try:
            table = pd.read_csv(file, keep_default_na=False, dtype=str)
            for name in ("logit", "probability"):
                if name in table:
                    table[name] = table[name].map(float)  # pandas may be off by the last bit
            for name in ("label", "predicted"):
                if name in table:
                    table[name] = table[name].map(_BINARY.__getitem__)
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} is no table of predictions: {error}.") from error
    if "logit" in table and not np.isfinite(table["logit"]).all():
        raise UserError(f"{path} is no table of predictions: a logit is not finite.")
    return table


def close_unbegun(run_id: str) -> None:
    """End, as KILLED, a run that was interrupted before it had recorded anything to resume."""
    client = waiting_client()
    client.set_tag(run_id, NOT_BEGUN, "true")
    if client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, "KILLED")
