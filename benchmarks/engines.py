"""Exported detectors against torch in bf16: in memory, from files, and served.

    python -m benchmarks.engines --model RUN_ID|FILE [--images 128] [--rounds 10]

It measures every inference engine in every precision on the CPU. The notes give the change of the
AUC on the sample's test images. Without --model the network is untrained, and the AUC has no
meaning.
"""

import base64
import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.common import parser, random_detector, ratio, report, take_turns
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.convert import quantise, to_graph
from synthdetect.detectors.engines.exported import load_exported, save_exported
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.detectors.scoring import Scoring
from synthdetect.evaluation.metrics import metrics
from synthdetect.images.batches import ImageFiles
from synthdetect.serving.model import ServedDetector
from synthdetect.tracking.detectors import find_detectors
from synthdetect.training.devices import Device, resolve

BATCH = 64
BASE = "torch bf16"
_CALIBRATED_ON = 128
_WANTED = {"openvino int8": 1.5}

Work = Callable[[], int]


def main() -> None:
    arguments = parser("Measure the inference engines.", rounds=10, needs=("export",))
    arguments.add_argument("--model", default="", help="trained detector: a run id or a file")
    arguments.add_argument("--arch", default="resnet18", help="architecture, without --model")
    arguments.add_argument("--images", type=int, default=128, help="files per round of predict")
    given = arguments.parse_args()
    size = 224
    if given.smoke:
        given.images, given.rounds, size = 8, 1, 32

    device = resolve("cpu", "fp32", "auto")
    if given.model:
        (found,) = find_detectors((given.model,))
        detector = found.detector
    else:
        detector = random_detector(given.arch, size)
    sample = load("sample")
    test = sample.split("test")
    if given.smoke:
        test = test.with_table(test.table.groupby("label").head(4))
    with tempfile.TemporaryDirectory() as folder:
        detectors = _detectors(detector, sample.split("train"), Path(folder))
        squares = _squares(detector, test)
        changes = _changes(detectors, squares, test)
        rows: list[dict[str, Any]] = []
        for what, make in _workloads(squares, test, given.images, device, Path(folder)).items():
            work = {name: partial(_measured, name, make(one)) for name, one in detectors.items()}
            speeds = take_turns(work, given.rounds)
            rows += [
                {
                    "key": f"{name} {what}".replace(" ", "_"),
                    "what": f"{name}: {what}",
                    "against": BASE,
                    "wanted": _WANTED.get(name, 0.0),
                    **ratio(speeds, name, BASE),
                    "images_per_second": speeds[name],
                }
                for name in detectors
                if name != BASE
            ]
    shown = f"{detector.card.model.arch} at {detector.card.model.image_size}"
    notes = (
        f"{shown}, {given.rounds} rounds, {torch.get_num_threads()} thread(s); change of the AUC "
        f"on the sample's test images from torch fp32: {changes}"
    )
    report(f"engines_{detector.card.model.arch}", "engines", rows, device, given.output, notes)


def _detectors(detector: Detector, train: Manifest, folder: Path) -> dict[str, Detector]:
    """Return the detector in torch and exported, by the name of engine and precision."""
    chosen = train.table.sample(_CALIBRATED_ON, random_state=0)
    squares = _squares(detector, train.with_table(chosen))
    made = {BASE: detector, "torch fp32": detector}
    plain = to_graph(detector)
    for engine, entry in ENGINES.items():
        for precision in entry.precisions:
            graph = copy.deepcopy(plain)
            if precision == "int8":
                graph = quantise(graph, engine, np.array_split(squares, _CALIBRATED_ON // 16))
            file = folder / f"{engine}_{precision}.onnx"
            save_exported(file, graph, replace(detector.card, engine=engine, precision=precision))
            made[f"{engine} {precision}"] = load_exported(file)
    return made


def _workloads(
    squares: np.ndarray, test: Manifest, count: int, device: Device, folder: Path
) -> dict[str, Callable[[Detector], Work]]:
    """Return functions that make the work of a detector, by the name of what they measure."""
    batch = np.resize(squares, (BATCH, *squares.shape[1:]))
    files = [Path(file) for file in test.files()[:count]]
    text = base64.b64encode(files[0].read_bytes()).decode()
    request = pd.DataFrame({"image": [text]})

    def in_memory(size: int, detector: Detector) -> Work:
        def work() -> int:
            for begin in range(0, BATCH, size):
                detector.score(batch[begin : begin + size])
            return BATCH

        return work

    def through_predict(detector: Detector) -> Work:
        def work() -> int:
            with tempfile.TemporaryDirectory(dir=folder) as journals:
                images = ImageFiles(files, detector.preprocess)
                scoring = Scoring(Path(journals), [detector], images, data="", batch_size=BATCH)
                scoring.run(device, lambda done, total: None)
                scoring.scores()
            return len(files)

        return work

    def served(detector: Detector) -> Work:
        model = ServedDetector()
        model.detector = detector

        def work() -> int:
            for _ in range(16):
                model.predict(None, request)
            return 16

        return work

    return {
        f"batches of {BATCH} in memory": partial(in_memory, BATCH),
        "one image at a time in memory": partial(in_memory, 1),
        "predict from files": through_predict,
        "served one image a request": served,
    }


def _changes(detectors: dict[str, Detector], squares: np.ndarray, test: Manifest) -> str:
    """Describe the AUC of torch in fp32, and how much that of each detector differs."""
    auc = {}
    for name, detector in detectors.items():
        with _precision(name):
            scores = [detector.score(part) for part in np.array_split(squares, 8)]
        auc[name] = metrics(test.table["label"], np.concatenate(scores), 0.5)["auc"]
    base = auc["torch fp32"]
    return f"{base:.4f}, " + ", ".join(f"{name} {auc[name] - base:+.4f}" for name in auc)


def _squares(detector: Detector, manifest: Manifest) -> np.ndarray:
    return np.stack([detector.preprocess(Path(file).read_bytes()) for file in manifest.files()])


def _measured(name: str, work: Work) -> int:
    with _precision(name):
        return work()


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """Compute in bf16 for `BASE`; the other detectors have a precision of their own."""
    with torch.autocast("cpu", torch.bfloat16, enabled=name == BASE):
        yield


if __name__ == "__main__":
    main()
