"""Commands on bad input, run in this process, and what must hold of every answer to it."""

import hashlib
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import LoggedModel
from mlflow.tracking import MlflowClient
from PIL import Image

from sweeps.__main__ import COMMANDS as SWEEPS
from synthdetect.cli import TRACEBACK, main
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.system.errors import UserError
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.opening import open_run
from tests.conftest import STORE

TINY = ("--arch=mobilenet_v3_large", "--image-size=32", "--epochs=1", "--device=cpu",
        "--weights=none")  # fmt: skip
"""Options of a training that would be quick if it ever began."""

Say = Callable[[str, object], None]
"""pytest's `record_property`: what `tests.faults.table` shows."""


@dataclass
class Refused:
    """Runs commands that must be refused, and checks what holds of every refusal.

    Attributes:
        folder: the working folder, with an empty tracking store.
        said: the messages so far.
        may_write: whether a run was rightly opened before anything could be known.
    """

    folder: Path
    read: Callable[[], str]
    said: list[str] = field(default_factory=list)
    may_write: bool = False

    def __call__(self, *arguments: str, status: int = 2, named: tuple[str, ...] = ()) -> str:
        """Run a command.

        Args:
            arguments: the command and its options.
            status: 2 for what was given, 1 for what broke.
            named: what the message must hold: the place, and a word of the remedy.

        Returns:
            The message.
        """
        before, runs = _content(self.folder), _runs(self.folder)
        self.read()
        found = _status(arguments)
        message = self.read()
        assert "Traceback" not in message
        assert found == status, message
        assert message.startswith(("synthdetect: ", "usage: ")) or not status, message
        missing = [text for text in named if text not in message]
        assert not missing, f"{missing} not in {message}"
        assert all(c.isprintable() or c in "\n\t" for c in message), repr(message)
        assert len(message) < 8000
        if not self.may_write:
            assert _content(self.folder) == before
            assert _runs(self.folder) == runs
        if message:
            self.said.append(message.removeprefix("synthdetect: ").strip())
        return message

    def statuses(self) -> list[str]:
        """Of the runs in the tracking store."""
        return [status for _, status in _runs(self.folder)]

    def interrupted_run(self, record: bytes | None) -> str:
        """Make a run that was interrupted, with such a record; returns its id."""
        client = MlflowClient()
        run_id: str = client.create_run("0").info.run_id
        if record is not None:
            file = self.folder.parent / "config.json"
            file.write_bytes(record)
            client.log_artifact(run_id, str(file))
        client.set_terminated(run_id, "KILLED")
        return run_id

    def track(self, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
        """Have the commands record in another store."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)


def _status(arguments: tuple[str, ...]) -> int:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if arguments[0] in SWEEPS:
            return main(arguments, program="sweeps", commands=SWEEPS)
        assert arguments[0] in COMMANDS
        return main(arguments)
    except SystemExit as end:  # argparse's own exit
        return int(end.code or 0)
    finally:
        signal.signal(signal.SIGTERM, handler)


def _content(folder: Path) -> dict[str, str]:
    """Everything below a folder but the tracking store, which MLflow alone writes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            found[str(path)] = ""
        elif not path.name.startswith(STORE):
            large = path.stat().st_size > 2**26
            content = b"" if large else path.read_bytes()
            found[str(path)] = hashlib.sha256(content).hexdigest()
    return found


def _runs(folder: Path) -> list[tuple[str, ...]]:
    """Id and status of the runs in the tracking store, if it is one."""
    try:
        with sqlite3.connect(f"file:{folder / STORE}?mode=ro", uri=True) as store:
            return store.execute("select run_uuid, status from runs order by 1").fetchall()
    except sqlite3.Error:
        return []


def refusal(action: Callable[[], object]) -> str:
    """What the user is told of an action that cannot be done; empty if it was done."""
    try:
        action()
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture
def refused(
    workspace: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Say,
) -> Iterator[Refused]:
    """Commands in an empty working folder with a store of its own."""
    monkeypatch.delenv(TRACEBACK, raising=False)
    answers = Refused(workspace, lambda: capfd.readouterr().err)
    before = mlflow.get_tracking_uri()
    yield answers
    mlflow.set_tracking_uri(before)  # a test may have set that of a store that does not work
    if answers.said:
        record_property("said", answers.said[0])


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that nobody has trained."""
    torch.manual_seed(0)
    spec = ModelSpec.of("mobilenet_v3_large", 32)
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    Detector(build(spec), Card(model=spec, geometry="resize")).save(path)
    return path


@dataclass(frozen=True)
class Logged:
    """A tracking store that holds a detector."""

    folder: Path
    uri: str
    model: LoggedModel
    run_id: str


@pytest.fixture(scope="session")
def logged(tmp_path_factory: pytest.TempPathFactory, detector_file: Path) -> Logged:
    """A detector as a training logs it. Its tests change it, each in a copy of its own."""
    folder = tmp_path_factory.mktemp("logged")
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{folder / STORE}"
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("here", artifact_location=str(folder / "mlruns"))
    with pytest.MonkeyPatch.context() as patch:
        # `mlflow.set_experiment` would hold for every later test of the process.
        patch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        with open_run("one", kind="train", tags={}) as run:
            model = log_detector(run, Detector.load(detector_file))
    mlflow.set_tracking_uri(before)
    return Logged(folder, uri, model, run.id)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 small images, real and fake, that a training would take."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(24):
        file = folder / ("real", "fake")[number % 2] / f"{number:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    return folder


@pytest.fixture
def images(pictures: Path, tmp_path: Path) -> Path:
    """The same, to be spoiled."""
    return shutil.copytree(pictures, tmp_path / "images")
