"""A training that is tracked in MLflow against the same training without tracking.

    python -m benchmarks.tracking [--arch resnet18] [--epochs 3] [--rounds 3]

There are two ratios: of the epochs alone, and of the whole training with the evaluation, figures
and model that are logged once in the end, which matters less the longer the training is. The
training without tracking also writes its checkpoints and scores the same images.
"""

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import mlflow

from benchmarks.common import parser, ratio, report
from synthdetect.datasets.prepare import Prepared, prepare
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.training import run_training
from synthdetect.tracking.opening import open_run
from synthdetect.training.devices import Device, deterministic, resolve
from synthdetect.training.loop import Hooks, TrainingState
from synthdetect.training.session import Session


def main() -> None:
    arguments = parser("Measure the cost of tracking.", rounds=3)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--epochs", type=int, default=3)
    given = arguments.parse_args()
    if given.smoke:
        given.image_size, given.epochs, given.rounds = 32, 1, 1

    device = resolve("auto", "auto", "auto", given.arch)
    whole: dict[str, list[float]] = {"tracked": [], "untracked": []}
    epochs: dict[str, list[float]] = {"tracked": [], "untracked": []}
    with tempfile.TemporaryDirectory() as folder:
        options = TrainOptions.resolve(
            {"arch": given.arch, "image_size": given.image_size, "epochs": given.epochs,
             "weights": "none", "output": f"{folder}/runs"}
        )  # fmt: skip
        prepared = prepare(options.data, seed=options.optim.seed)
        work = {
            "tracked": partial(_tracked, options, prepared, device),
            "untracked": partial(_untracked, options, prepared, device, Path(folder) / "kept"),
        }
        for number in range(given.rounds + 1):
            for name in whole:
                began = time.perf_counter()
                ended = work[name]()
                if number:  # the first round fills the decoded-image cache
                    whole[name].append(1 / (time.perf_counter() - began))
                    if len(ended) > 1:
                        epochs[name].append((len(ended) - 1) / (ended[-1] - ended[0]))
    what = f"{given.arch} at {given.image_size}, {device.precision}: "
    rows = [
        {"key": key, "what": what + of, "against": "untracked", "wanted": wanted,
         **ratio(speeds, "tracked", "untracked")}
        for key, of, wanted, speeds in (
            ("tracked_epochs", "epochs, tracked", 0.99, epochs),
            ("tracked_whole", f"a whole training of {given.epochs} epochs, tracked", 0.9, whole),
        ) if speeds["tracked"]
    ]  # fmt: skip
    seconds = {name: [round(1 / speed, 1) for speed in speeds] for name, speeds in whole.items()}
    notes = f"the sample, {given.epochs} epochs, {given.rounds} rounds; whole: {seconds} s"
    report("tracking", "tracking", rows, device, given.output, notes)


def _tracked(options: TrainOptions, prepared: Prepared, device: Device) -> list[float]:
    """Train with tracking; return when each epoch ended, in seconds since 1970."""
    with open_run("benchmark", kind="benchmark", tags={}) as run:
        run_training(run, options, prepared, device)
    history = mlflow.MlflowClient().get_metric_history(run.id, "train/loss")
    return [metric.timestamp / 1000 for metric in history]


def _untracked(
    options: TrainOptions, prepared: Prepared, device: Device, folder: Path
) -> list[float]:
    """Train without tracking; return when each epoch ended, in seconds since 1970."""
    ended: list[float] = []

    class Timing(Hooks):
        def on_epoch(self, training: TrainingState) -> None:
            ended.append(time.time())

    with deterministic(options.optim.seed):
        session = Session(options, prepared, device, folder)
        session.fit(Timing())
        session.outputs([split for split in prepared.manifest.splits if split != "train"])
    shutil.rmtree(folder)
    return ended


if __name__ == "__main__":
    main()
