"""A run with its artifacts as plain data, and a page that is added to a run that has ended."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from synthdetect.tracking.availability import retrying, waiting_client
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
    run = existing_entity(run_id)
    # A client would ask the store for the run, and for models of its name, at every artifact.
    repository = retrying(get_artifact_repository(run.info.artifact_uri))
    sizes = _sizes(repository, "")
    begin, end = run.info.start_time, run.info.end_time
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for path in sizes if path.endswith(suffixes) and path.startswith(under)]
        _download(repository, paths, folder)
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


def _sizes(repository: ArtifactRepository, folder: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for item in repository.list_artifacts(folder or None):
        if item.is_dir:
            sizes |= _sizes(repository, item.path)
        else:
            sizes[item.path] = item.file_size or 0
    return sizes


def _download(repository: ArtifactRepository, paths: list[str], folder: str) -> None:
    """Download artifacts, each to its path below a folder."""
    download: Callable[[str, str], str] = repository.download_artifacts  # which has no types
    for path in paths:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            continue  # a malicious store must not write outside of the folder
        download(path, folder)
