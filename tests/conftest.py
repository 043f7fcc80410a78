"""What many tests share: a private cache folder, a small manifest of real images, a store."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest
import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from synthdetect.datasets.manifest import load
from synthdetect.tracking import evaluation
from synthdetect.tracking.availability import PATIENCE

# Child processes that train do so beside others: more threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# MLflow keeps connections to every store that a process has ever used, and a process of the tests
# uses more than it may open files.
os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"

ROOT = Path(__file__).parent.parent
"""The repository."""

STORE = "mlflow.db"
"""File of the tracking store in the fixtures `workspace` and `module_path`."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny inputs, and other work on the machine: more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    hear_interrupts()


def hear_interrupts() -> None:
    """Handle SIGINT in this process and in those that it starts, although it was ignored.

    A shell that starts a process in the background may have it ignore SIGINT, and so do all
    processes that it starts. A signal that a process handles has its default effect in those.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def newest(kind: str = "") -> Run:
    """The newest run, or the newest of a kind."""
    query = f"tags.`synthdetect.kind` = '{kind}'" if kind else ""
    found: list[Run] = mlflow.search_runs(
        filter_string=query, output_format="list", search_all_experiments=True
    )
    return found[0]


def artifact(run: Run, path: str) -> pd.DataFrame:
    """A table among a run's artifacts."""
    file = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path)
    return pd.read_csv(file)


@pytest.fixture(scope="session")
def small_table() -> pd.DataFrame:
    """A few dozen images of the sample, every split and generator, with absolute paths."""
    sample = load("sample")
    table = sample.table.assign(path=[sample.file(path) for path in sample.table["path"]])
    sizes = {"train": 20, "val": 8, "test": 5, "control": 6}
    parts = [
        rows.head(sizes[split] if generator else 2 * sizes[split])
        for (split, generator), rows in table.groupby(["split", "generator"])
    ]
    return pd.concat(parts).assign(
        label=lambda rows: rows["label"].map(["real", "synthetic"].__getitem__)
    )


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A folder with a store for the tests of a module.

    It goes with the last of them, since all together would take gigabytes.
    """
    folder = tmp_path_factory.mktemp("module")
    copy_store(empty_store, folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def without_figures() -> Iterator[None]:
    """Draw and explain nothing in evaluations, which would take most of a small run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "draw", lambda *details: ())
        for name in ("log_explanations", "log_spectra"):
            patch.setattr(f"synthdetect.runs.evaluation.{name}", lambda *details, **options: None)
        yield


@pytest.fixture
def small_manifest(small_table: pd.DataFrame, tmp_path: Path) -> Path:
    """`small_table` as a file."""
    path = tmp_path / "small.csv"
    small_table.to_csv(path, index=False)
    return path


def copy_store(store: Path, folder: Path) -> str:
    """Copy an empty tracking store into a folder, which is to have its artifacts; its URI."""
    file = folder / STORE
    shutil.copy(store, file)
    with closing(sqlite3.connect(file)) as database, database:
        location = (str(folder / "mlruns" / "0"),)
        database.execute("UPDATE experiments SET artifact_location = ?", location)
    return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store as MLflow makes it, which takes seconds. `copy_store` copies it."""
    file = tmp_path_factory.mktemp("store") / STORE
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{file}")
    MlflowClient().search_experiments()
    mlflow.set_tracking_uri(before)
    return file


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A working folder with its own MLflow store and cache, and nothing else."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = copy_store(empty_store, folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)  # else an earlier test's stays in force
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return folder


def _named(process: "subprocess.Popen[bytes]") -> str:
    start = psutil.Process(process.pid).create_time() - psutil.boot_time()
    return f"{socket.gethostname()} {process.pid} {start:.2f}"


@pytest.fixture
def alive() -> Iterator[str]:
    """The name of a process that is running."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield _named(process)
    process.kill()
    process.wait()


@pytest.fixture
def dead() -> str:
    """The name of a process that was killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    name = _named(process)
    process.kill()
    process.wait()
    return name


@pytest.fixture
def away(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a tracking server that does not exist, for which nobody waits."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv(PATIENCE, "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)
