"""What the benchmarks share: they measure ratios of speeds, side by side.

The speed of a machine drifts, so speeds of different times are not compared. The contenders take
turns, round after round, and a ratio is the median of the rounds' ratios.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mlflow
import psutil
import torch

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.system.console import table
from synthdetect.system.errors import UserError
from synthdetect.system.extras import require_extra
from synthdetect.training.devices import Device

RESULTS = Path(__file__).parent / "results"


def parser(description: str, *, rounds: int, needs: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have.

    Args:
        description: What is measured.
        rounds: Default number of rounds.
        needs: Extras without whose packages the benchmark ends here, before anything is measured.
    """
    try:
        for extra in needs:
            require_extra(extra, "this benchmark")
    except UserError as error:
        sys.exit(str(error))
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--rounds", type=int, default=rounds, help="rounds that are measured")
    result.add_argument("--smoke", action="store_true", help="run on the smallest input, as a test")
    result.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON file")
    return result


def random_detector(arch: str, image_size: int) -> Detector:
    """Return an untrained detector; it is as fast as a trained one."""
    torch.manual_seed(0)
    spec = ModelSpec.of(arch, image_size)
    return Detector(build(spec), Card(model=spec, geometry="resize"))


def take_turns(contenders: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Run each contender once per round, after a first round that is not measured.

    Args:
        contenders: Functions by name. Each does its work and returns the number of units of work,
            such as images.
        rounds: Number of measured rounds.

    Returns:
        Units per second in each round, by contender.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            began = time.perf_counter()
            units = work()
            if number:
                speeds[name].append(units / (time.perf_counter() - began))
    return speeds


class Contender:
    """A contender in a process of its own, which waits while others compute.

    Attributes:
        memory: Resident memory after each turn in MiB.

    Args:
        make: A function of a module that returns a context, which gives the work, and what is
            asked of it at the end.
        arguments: The function's arguments, which are pickled.
    """

    def __init__(
        self,
        make: Callable[..., AbstractContextManager[tuple[Callable[[], int], Callable[[], Any]]]],
        *arguments: Any,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        given = (theirs, multiprocessing.get_start_method(), make, arguments)
        self._process = context.Process(target=_take_turns, args=given)
        self._process.start()
        theirs.close()
        self.memory: list[float] = []

    def work(self) -> int:
        """Work, and return the number of units."""
        self._ours.send(True)
        units, memory = self._ours.recv()
        self.memory.append(memory)
        return int(units)

    def end(self) -> Any:
        """End the process, and return what is asked of the contender at the end."""
        self._ours.send(False)
        result = self._ours.recv()
        self._process.join()
        return result


def _take_turns(
    pipe: Connection, method: str, make: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    # Else processes that a contender starts, such as readers, would import everything anew.
    multiprocessing.set_start_method(method, force=True)
    with make(*arguments) as (work, result):
        while pipe.recv():
            units = work()
            pipe.send((units, psutil.Process().memory_info().rss / 2**20))
        pipe.send(result())


def ratio(speeds: dict[str, list[float]], of: str, to: str) -> dict[str, float]:
    """Return median, minimum and maximum of the rounds' ratios of speeds."""
    ratios = [a / b for a, b in zip(speeds[of], speeds[to], strict=True)]
    return {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def seconds_of(command: list[str], folder: str) -> float:
    """Measure the seconds of a process whose tracking store and cache are in a folder."""
    environment = {
        **os.environ,
        "SYNTHDETECT_CACHE": f"{folder}/cache",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
    }
    began = time.perf_counter()
    subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def row_of(key: str, what: str, against: str, wanted: float, ratios: list[float]) -> dict[str, Any]:
    """Return a row for `report` from the ratio of each round."""
    return {
        "key": key,
        "what": what,
        "against": against,
        "wanted": wanted,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
    }


def _arguments() -> list[str]:
    """Return the arguments of this process without `--output`."""
    arguments = sys.argv[1:]
    if "--output" in arguments:
        at = arguments.index("--output")
        del arguments[at : at + 2]
    return arguments


def report(
    name: str, module: str, rows: list[dict[str, Any]], device: Device, output: Path, notes: str
) -> None:
    """Print a table, write it as JSON and log it as an MLflow run.

    Args:
        name: Name of the result.
        module: Module of this package that measured it.
        rows: Each with `key` (name of the metric in MLflow), `what` and `against` (the contenders),
            `ratio`, `low`, `high`, and `wanted` (the lowest ratio that is wanted; 0 if the ratio is
            only shown for comparison).
        device: The device that computed.
        output: Folder for the JSON file.
        notes: What was measured, and on which data.
    """
    shown = [
        [row["what"], row["against"], f"{row['ratio']:.3f}", f"{row['low']:.3f}–{row['high']:.3f}",
         f"{row['wanted']:g}" if row["wanted"] else ""]
        for row in rows
    ]  # fmt: skip
    table(name, ["what", "against", "ratio", "rounds", "at least"], shown)
    result = {
        "benchmark": name,
        "command": " ".join(["python -m", f"benchmarks.{module}", *_arguments()]),
        "notes": notes,
        "machine": device.describe(),
        "rows": rows,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    with mlflow.start_run(run_name=f"benchmark {name}", tags={"synthdetect.kind": "benchmark"}):
        mlflow.log_dict(result, f"{name}.json")
        mlflow.log_metrics({row["key"]: row["ratio"] for row in rows})
