"""Kill commands at random moments, start them again, and compare what they leave with one unkilled.

    python -m tests.faults.kills [--commands train,cv,sweep,predict] [--kills 50] [--seed 0]
                                 [--signal KILL|TERM|INT] [--output kills.json]

Every third kill waits for a file in the middle of being written. Prints a table and writes it as
JSON; exits with 1 if anything differs, is left RUNNING, or was logged twice. After SIGTERM and
SIGINT no run may be RUNNING even before the command is started again.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from synthdetect.datasets.manifest import load
from synthdetect.tracking.detectors import find_detectors
from synthdetect.tracking.tags import FOLD, KIND, NOT_BEGUN
from tests.conftest import hear_interrupts

TRAINING = ["--arch=mobilenet_v3_large", "--image-size=32", "--batch-size=16", "--weights=none",
            "--lr=1e-3"]  # fmt: skip
_NO_RESULT = ("images_per_second", "system/", "seconds", "peak_mib", "memory", "time")
"""In the names of metrics that no two runs have alike."""

_IDENTITY = (KIND, FOLD, "optuna.study")
"""Tags that, with its parameters, say which run of a command it is. A trial's number does not: one
that goes on has another."""

_MOST_STARTS = 400


@dataclass
class Place:
    """A folder with a store, a cache and data of its own."""

    folder: Path
    data: Path
    detector: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "SYNTHDETECT_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
        }
        self.environment.pop("MLFLOW_RUN_ID", None)

    def client(self) -> MlflowClient:
        """A client of the store."""
        uri = self.environment["MLFLOW_TRACKING_URI"]
        mlflow.set_tracking_uri(uri)
        return MlflowClient(uri)

    def runs(self) -> list[Run]:
        """All runs, the newest first."""
        return list(self.client().search_runs(["0"], max_results=1000))

    def module(self, arguments: list[str]) -> str:
        """The one that has a command."""
        return "sweeps" if arguments[0] == "sweep" else "synthdetect"

    def start(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        """Start a command; what it prints is added to `output.txt`."""
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", self.module(arguments), *arguments], cwd=self.folder,
                env=self.environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip


def _begin(name: str) -> Callable[[Place], list[str]]:
    given = {
        "train": ["--epochs=4"],
        "cv": ["--epochs=2", "--folds=2", "--refit=true"],
        "sweep": [
            "--epochs=2",
            "--folds=2",
            "--seeds=1",
            "--trials=2",
            "--strategies=label_smoothing",
        ],
    }[name]
    return lambda place: [name, f"--data={place.data}", *TRAINING, *given]


def _predict(place: Place) -> list[str]:
    return ["predict", f"--model={place.detector}", f"--data={place.data}", "--output=scores",
            "--batch-size=4"]  # fmt: skip


def _go_on(name: str) -> Callable[[Place], list[str]]:
    """With the run that is unfinished, as a person would who looks at the UI; or anew."""

    def arguments(place: Place) -> list[str]:
        run = newest(place, name)
        return [name, f"--resume={run.info.run_id}"] if run else _begin(name)(place)

    return arguments


def newest(place: Place, kind: str) -> Run | None:
    """The newest run of a kind that had begun."""
    runs = (run for run in place.runs() if run.data.tags.get(KIND) == kind)
    return next((run for run in runs if NOT_BEGUN not in run.data.tags), None)


COMMANDS: dict[str, tuple[Callable[[Place], list[str]], Callable[[Place], list[str]]]] = {
    "train": (_begin("train"), _go_on("train")),
    "cv": (_begin("cv"), _go_on("cv")),
    "sweep": (_begin("sweep"), _begin("sweep")),
    "predict": (_predict, _predict),
}
"""By name: how to begin, and how to go on."""


@dataclass
class Outcome:
    """What came of killing one command.

    Attributes:
        command: its name.
        kills: that hit it.
        writing: of these, the ones in the middle of writing a file.
        rounds: times that it came to its end in spite of them.
        faults: what was wrong, in words.
    """

    command: str
    kills: int = 0
    writing: int = 0
    rounds: int = 0
    faults: list[str] = field(default_factory=list)


def torment(
    command: str, kills: int, seed: int, folder: Path, number: int = signal.SIGKILL
) -> Outcome:
    """Kill a command, and let it go on, until it has been hit often enough.

    Args:
        command: a name of `COMMANDS`.
        kills: the least number.
        seed: of the moments.
        folder: an empty one, for everything.
        number: of the signal.
    """
    begin, go_on = COMMANDS[command]
    data, detector = data_in(folder), folder / "detector.safetensors"
    if command == "predict":
        train_detector(Place(folder / "detector", data, detector))
    whole = Place(folder / "whole", data, detector)
    began = time.monotonic()
    if whole.start(begin(whole)).wait():
        raise RuntimeError((whole.folder / "output.txt").read_text())
    usual = time.monotonic() - began
    wanted = signature(whole)
    outcome, moments, heard = Outcome(command), random.Random(seed), False
    while outcome.kills < kills:
        place = Place(folder / f"round-{outcome.rounds}", data, detector)
        arguments = begin(place)
        for _ in range(_MOST_STARTS):
            process = place.start(arguments)
            enough = outcome.kills >= kills
            hit = outcome.kills
            status = (
                process.wait() if enough else _kill(process, usual, moments, place, outcome, number)
            )
            heard |= status in (-number, 128 + number)
            if outcome.kills > hit and status in (128 + number, 0):
                running = [run for run in place.runs() if run.info.status == "RUNNING"]
                outcome.faults += [f"{run.info.run_name} is RUNNING" for run in running]
            run = newest(place, command)
            if status == 0 or (run and run.info.status == "FINISHED"):
                break
            if status > 0 and status != 128 + number and not _had_not_begun(place):
                outcome.faults.append(f"exit status {status} when started again")
                break
            arguments = go_on(place)
        outcome.rounds += 1
        outcome.faults += differences(wanted, signature(place))
    return outcome if heard else replace(outcome, faults=["no process ended by the signal"])


def _kill(
    process: "subprocess.Popen[bytes]", usual: float, moments: random.Random, place: Place,
    outcome: Outcome, number: int,
) -> int:  # fmt: skip
    """Kill a process at some moment, unless it ends before; its exit status."""
    writing = outcome.kills % 3 == 2
    end = time.monotonic() + moments.uniform(0, usual)
    while process.poll() is None and time.monotonic() < end:
        if writing and time.monotonic() > end - 0.7 * usual and any(_unfinished(place.folder)):
            break
        time.sleep(0.0005 if writing else 0.005)
    if process.poll() is None:
        os.killpg(process.pid, number)
        outcome.kills += 1
        outcome.writing += any(_unfinished(place.folder))
    return process.wait()


def _unfinished(folder: Path) -> Iterator[Path]:
    return (file for sub in ("runs", "scores") for file in (folder / sub).rglob(".*.tmp"))


def _had_not_begun(place: Place) -> bool:
    return "before it had begun" in (place.folder / "output.txt").read_text()[-2000:]


def signature(place: Place) -> dict[str, Any]:
    """All that a command left which two equal ones have in common."""
    found: dict[str, Any] = {}
    for run in place.runs():
        if run.info.status == "KILLED" and not run.data.params and not run.data.metrics:
            continue  # it had recorded nothing yet
        key = " ".join(run.data.tags.get(tag, "-") for tag in _IDENTITY)
        free = ("workers", "resume")  # of which no result depends
        params = {k: v for k, v in run.data.params.items() if not k.endswith(free)}
        key += " " + hashlib.sha256(repr(sorted(params.items())).encode()).hexdigest()[:8]
        while key in found:
            key += " again"
        found[key] = _of_run(place.client(), run)
    scores = place.folder / "scores"
    for file in sorted(scores.rglob("*.csv")) if scores.is_dir() else ():
        found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _of_run(client: MlflowClient, run: Run) -> dict[str, Any]:
    run_id = run.info.run_id
    result: dict[str, Any] = {"status": run.info.status}
    for name in run.data.metrics:
        if not any(part in name for part in _NO_RESULT):
            points = client.get_metric_history(run_id, name)
            result[name] = sorted((point.step, point.value) for point in points)
    for item in client.list_artifacts(run_id, "predictions"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(client.download_artifacts(run_id, item.path, folder))
            result[item.path] = hashlib.sha256(file.read_bytes()).hexdigest()
    if run.outputs and run.outputs.model_outputs:
        digest = hashlib.sha256()
        for found in find_detectors((run_id,)):
            for name, value in sorted(found.detector.network.state_dict().items()):
                digest.update(name.encode() + value.numpy().tobytes())
        result["weights"] = digest.hexdigest()
    return result


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is not as in the uninterrupted one, in words."""
    faults = [f"{name}: is missing" for name in wanted if name not in found]
    faults += [f"{name}: is there once too often" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        if isinstance(wanted[name], dict):
            both = wanted[name].keys() | found[name].keys()
            faults += [f"{name}: {what} differs" for what in sorted(both)
                       if wanted[name].get(what) != found[name].get(what)]  # fmt: skip
        elif wanted[name] != found[name]:
            faults.append(f"{name}: differs")
    return faults


def data_in(folder: Path) -> Path:
    """A few dozen images of the sample."""
    sample = load("sample")
    table = sample.table.assign(path=sample.files())
    parts = [rows.sample(12, random_state=0) for _, rows in table.groupby(["split", "generator"])]
    data = folder / "small.csv"
    named = pd.concat(parts)
    named = named.assign(label=named["label"].map({0: "real", 1: "synthetic"}))
    named.to_csv(data, index=False)
    return data


def train_detector(place: Place) -> None:
    if place.start(["train", f"--data={place.data}", *TRAINING, "--epochs=1"]).wait():
        raise RuntimeError((place.folder / "output.txt").read_text())
    run = place.runs()[0]
    (found,) = find_detectors((run.info.run_id,))
    found.detector.save(place.detector)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("kills.json"))
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    given = parser.parse_args()
    number = signal.Signals[f"SIG{given.signal}"]
    hear_interrupts()
    results = []
    for command in given.commands.split(","):
        with tempfile.TemporaryDirectory() as folder:
            outcome = torment(command, given.kills, given.seed, Path(folder), number)
        print(outcome, flush=True)
        results.append({"signal": given.signal, **vars(outcome)})
        given.output.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(any(result["faults"] for result in results))


if __name__ == "__main__":
    main()
