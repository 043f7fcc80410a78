"""A run with its artifacts as plain data, and a page that is added to a run that has ended."""

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from mlflow.tracking import MlflowClient

from synthdetect.tracking.availability import waiting_client
from synthdetect.tracking.queries import StoredRun, child_runs, existing_entity, stored


@dataclass(frozen=True)
class RunRecord(StoredRun):
    """A run with its artifacts and child runs.

    Attributes:
        started: Date and time of its start in UTC, as text.
        seconds: How long it took; nan while it runs.
        sizes: Size of every artifact in bytes, by path.
        folder: Where the downloaded artifacts are, each under its path.
        children: The child runs, in the order of their starts.
    """

    started: str
    seconds: float
    sizes: Mapping[str, int]
    folder: Path
    children: tuple[StoredRun, ...] = ()


@contextmanager
def collected(
    run_id: str, suffixes: tuple[str, ...], under: tuple[str, ...] = ("",)
) -> Iterator[RunRecord]:
    """Collect a run in a temporary folder, which is deleted afterwards.

    Args:
        run_id: Id of the run.
        suffixes: Endings of the artifacts to download.
        under: Beginnings of their paths.

    Raises:
        UserError: If there is no such run, or it is deleted.
    """
    client = waiting_client()
    run = existing_entity(run_id)
    sizes = _sizes(client, run_id, "")
    begin, end = run.info.start_time, run.info.end_time
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for path in sizes if path.endswith(suffixes) and path.startswith(under)]
        _download(client, run_id, paths, Path(folder))
        yield RunRecord(
            **vars(stored(run)),
            started=datetime.fromtimestamp(begin / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            seconds=(end - begin) / 1000 if end else math.nan,
            sizes=sizes,
            folder=Path(folder),
            children=tuple(child_runs(run_id)),
        )


def log_page(run_id: str, html: str, path: str) -> str:
    """Add a page to the artifacts of a run, which may have ended.

    Returns:
        The page's URI.
    """
    client = waiting_client()
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
    """Download artifacts, each to its path below a folder; the client alone may flatten them."""
    for path in paths:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            continue  # a malicious store must not write outside of the folder
        target = folder / parts
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as elsewhere:
            shutil.move(client.download_artifacts(run_id, path, elsewhere), target)
