"""Real processes, as a person starts them: `mlflow run`, `synthdetect`, `mlflow models serve`."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[2]
SMALL = {
    "arch": "mobilenet_v3_large",
    "image_size": "32",
    "batch_size": "16",
    "weights": "none",
    "lr": "1e-3",
}
"""A training of seconds."""


@dataclass
class Platform:
    """A copy of the project as `mlflow run` takes it, with a store of its own."""

    folder: Path
    environment: dict[str, str]
    data: Path

    def client(self) -> MlflowClient:
        """A client of the store."""
        uri = f"sqlite:///{self.folder}/mlflow.db"
        mlflow.set_tracking_uri(uri)
        return MlflowClient(uri)

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command in its own process group, its output in `output.txt`."""
        with (self.folder / "output.txt").open("w") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def run(self, *command: str) -> int:
        """Run a command to its end and return its exit status."""
        return self.start(*command).wait(timeout=300)

    def output(self) -> str:
        """What the last command printed."""
        return (self.folder / "output.txt").read_text()

    def wait_for(self, process: "subprocess.Popen[str]", text: str) -> None:
        """Wait until a running command has printed a text."""
        end = time.monotonic() + 180
        while text not in self.output():
            assert process.poll() is None, self.output()
            assert time.monotonic() < end, self.output()
            time.sleep(0.05)

    def project(self, entry: str, **parameters: str) -> list[str]:
        """The command of `mlflow run`."""
        command = ["mlflow", "run", ".", "-e", entry, "--env-manager", "local"]
        given = {**SMALL, "data": str(self.data), **parameters}
        for name, value in given.items():
            command += ["-P", f"{name}={value}"]
        return command

    def direct(self, name: str, **parameters: str) -> list[str]:
        """The same without MLflow Projects."""
        given = {**SMALL, "data": str(self.data), **parameters}
        module = "sweeps" if name == "sweep" else "synthdetect"
        return [sys.executable, "-m", module, name,
                *(f"--{k}={v}" for k, v in given.items())]  # fmt: skip

    def latest(self, **tags: str) -> Run:
        """The newest run, or the newest with such tags."""
        query = " and ".join(f"tags.`{k.replace('__', '.')}` = '{v}'" for k, v in tags.items())
        return self.client().search_runs(["0"], query, order_by=["start_time DESC"])[0]


@pytest.fixture(scope="module")
def platform(module_path: Path, small_table: pd.DataFrame) -> Platform:
    for package in ("synthdetect", "sweeps"):
        shutil.copytree(
            ROOT / package, module_path / package,
            ignore=shutil.ignore_patterns("sample", "__pycache__"),
        )  # fmt: skip
    for name in ("MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, module_path)
    data = module_path / "small.csv"
    small_table.to_csv(data, index=False)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{module_path}/mlflow.db",
        "SYNTHDETECT_CACHE": str(module_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
    }
    environment.pop("MLFLOW_RUN_ID", None)
    return Platform(module_path, environment, data)


def end(process: "subprocess.Popen[str]", number: signal.Signals) -> int:
    """Send a signal to a command's whole process group and wait for it."""
    os.killpg(process.pid, number)
    return process.wait(timeout=120)
