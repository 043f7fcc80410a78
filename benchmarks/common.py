"""Measuring ratios side by side: what every benchmark here shares.

A machine's speed drifts, so nothing is compared across runs. The contenders take turns within one
process, round after round, and a ratio is the median of the rounds' ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow

from synthdetect.system.console import table
from synthdetect.training.devices import Device

RESULTS = Path(__file__).parent / "results"


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """A command line with the options that every benchmark has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--rounds", type=int, default=rounds, help="turns of each contender")
    result.add_argument("--smoke", action="store_true", help="the least that shows it runs")
    result.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON file")
    return result


def take_turns(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Run each contender once a round, after one round that does not count.

    Args:
        contenders: each does its work and returns how many units (images, say) it did.

    Returns:
        Units a second by contender, one a round.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            began = time.perf_counter()
            units = work()
            if number:
                speeds[name].append(units / (time.perf_counter() - began))
    return speeds


def ratio(speeds: dict[str, list[float]], of: str, to: str) -> dict[str, float]:
    """Median, least and greatest of the rounds' ratios."""
    ratios = [a / b for a, b in zip(speeds[of], speeds[to], strict=True)]
    return {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def seconds_of(command: list[str], folder: str) -> float:
    """Seconds that a whole process takes, with a store and a cache of its own in a folder."""
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
    """A row of `report`'s table from one ratio a round."""
    return {
        "key": key,
        "what": what,
        "against": against,
        "wanted": wanted,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
    }


def _given() -> list[str]:
    """What this process was given, but for where to put the results."""
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
        name: of the result.
        module: of this package, that measures it again.
        rows: each with `key` (for MLflow), `what`, `against`, `ratio`, `low`, `high`, and `wanted`,
            0 where it is only shown.
        device: what computed.
        output: folder for the JSON file.
        notes: what was measured, on what data.
    """
    shown = [
        [row["what"], row["against"], f"{row['ratio']:.3f}", f"{row['low']:.3f}–{row['high']:.3f}",
         f"{row['wanted']:g}" if row["wanted"] else ""]
        for row in rows
    ]  # fmt: skip
    table(name, ["what", "against", "ratio", "rounds", "at least"], shown)
    result = {
        "benchmark": name,
        "command": " ".join(["python -m", f"benchmarks.{module}", *_given()]),
        "notes": notes,
        "machine": device.describe(),
        "rows": rows,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    with mlflow.start_run(run_name=f"benchmark {name}", tags={"synthdetect.kind": "benchmark"}):
        mlflow.log_dict(result, f"{name}.json")
        mlflow.log_metrics({row["key"]: row["ratio"] for row in rows})
