"""A cross-validation of five folds against five times the computation of one fold.

    python -m benchmarks.cv [--arch resnet18] [--epochs 8] [--rounds 1]

The cross-validation is a whole process with an empty cache, which reads and decodes the data,
trains, scores, draws figures and tracks everything. The computation of one fold, its epochs and its
scoring, runs in this process from a full cache, and writes checkpoints only. With the recipe's
patience of seven, every training has at least eight epochs.
"""

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.common import parser, ratio, report, seconds_of
from synthdetect.datasets.folds import assign_folds, fold_manifest
from synthdetect.datasets.prepare import Prepared, prepare
from synthdetect.runs.options import CvOptions
from synthdetect.training.devices import Device, deterministic, resolve
from synthdetect.training.loop import Hooks
from synthdetect.training.session import Session


def main() -> None:
    arguments = parser("Measure a cross-validation.", rounds=1)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--folds", type=int, default=5)
    given = arguments.parse_args()
    if given.smoke:
        given.arch, given.image_size = "mobilenet_v3_large", 32
        given.epochs, given.folds, given.rounds = 1, 2, 1

    values = {"arch": given.arch, "image_size": given.image_size, "epochs": given.epochs,
              "weights": "none", "folds": given.folds, "keep_last": False}  # fmt: skip
    device = resolve("auto", "auto", "auto", given.arch)
    speeds: dict[str, list[float]] = {"cv": [], "folds": []}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SYNTHDETECT_CACHE"] = f"{folder}/cache"
        options = CvOptions.resolve(values)
        seed = options.optim.seed
        prepared = prepare(options.data, seed=seed)
        val_share = options.data.val_share
        folds = assign_folds(prepared.manifest, options.folds, seed=seed, val_share=val_share)
        number = int(folds["fold"].min())
        fold = replace(prepared, manifest=fold_manifest(prepared.manifest, folds, number))
        _compute(options, fold, device, Path(folder) / "warm", epochs=1)
        for turn in range(given.rounds):
            computed = _compute(options, fold, device, Path(folder) / f"{turn}", given.epochs)
            speeds["folds"].append(1 / (given.folds * computed))
            speeds["cv"].append(1 / _command(values))
    row = {
        "key": "cv_to_folds",
        "what": f"{given.arch} at {given.image_size}: {given.folds}-fold cv, the whole command",
        "against": f"{given.folds} times one fold's computation",
        "wanted": 0.9,
        **ratio(speeds, "cv", "folds"),
        "seconds": {name: [1 / value for value in values] for name, values in speeds.items()},
    }
    notes = f"{given.epochs} epochs per fold on the sample, {given.rounds} round(s)"
    report("cross_validation", "cv", [row], device, given.output, notes)


def _compute(
    options: CvOptions, fold: Prepared, device: Device, folder: Path, epochs: int
) -> float:
    """Measure the seconds of a fold's epochs and scoring."""
    began = time.perf_counter()
    with deterministic(options.optim.seed):
        session = Session(options, fold, device, folder)
        session.fit(Hooks(), epochs=epochs)
        session.outputs([split for split in fold.manifest.splits if split != "train"])
    return time.perf_counter() - began


def _command(values: dict[str, object]) -> float:
    """Measure the seconds of the whole command."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    with tempfile.TemporaryDirectory() as folder:
        return seconds_of([sys.executable, "-m", "synthdetect", "cv", *given], folder)


if __name__ == "__main__":
    main()
