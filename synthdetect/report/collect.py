"""A run as plain data, out of MLflow; and a page put among a run's artifacts."""

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from synthdetect.report.record import READ, ChildRun, RunRecord
from synthdetect.tracking.run import existing


@contextmanager
def collected(run_id: str) -> Iterator[RunRecord]:
    """Everything a report needs of a run, its small artifacts in a folder that goes away after.

    Raises:
        UserError: there is no such run, or it is deleted.
    """
    client = MlflowClient()
    run = existing(run_id)
    sizes = _sizes(client, run_id, "")
    begin, end = run.info.start_time, run.info.end_time
    with tempfile.TemporaryDirectory() as folder:
        _download(client, run_id, [path for path in sizes if path.endswith(READ)], Path(folder))
        yield RunRecord(
            **vars(_child(run)),
            started=datetime.fromtimestamp(begin / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            seconds=(end - begin) / 1000 if end else math.nan,
            sizes=sizes,
            folder=Path(folder),
            children=tuple(map(_child, _children(client, run))),
        )


def log_page(run_id: str, html: str, path: str) -> str:
    """Put a page among the artifacts of a run, even of one that has ended.

    Returns:
        The page's URI.
    """
    client = MlflowClient()
    client.log_text(run_id, html, path)
    return f"{client.get_run(run_id).info.artifact_uri}/{path}"


def _sizes(client: MlflowClient, run_id: str, folder: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for item in client.list_artifacts(run_id, folder or None):
        if item.is_dir:
            sizes |= _sizes(client, run_id, item.path)
        else:
            sizes[item.path] = item.file_size or 0
    return sizes


def _download(client: MlflowClient, run_id: str, paths: list[str], folder: Path) -> None:
    """Put artifacts under their paths in a folder; a client alone may leave out their folders."""
    for path in paths:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            continue  # no store should name it, and none may write elsewhere
        target = folder / parts
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as elsewhere:
            shutil.move(client.download_artifacts(run_id, path, elsewhere), target)


def _children(client: MlflowClient, run: MlflowRun) -> list[MlflowRun]:
    found: list[MlflowRun] = []
    token = None
    while token is None or token:
        page = client.search_runs(
            [run.info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{run.info.run_id}'",
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        found += page
        token = page.token or ""
    return found


def _child(run: MlflowRun) -> ChildRun:
    return ChildRun(
        id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        params=run.data.params,
        metrics=run.data.metrics,
        tags=run.data.tags,
    )
