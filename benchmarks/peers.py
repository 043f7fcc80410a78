"""Whole-epoch training and batch inference from JPEG files, against what people use today.

    python -m benchmarks.peers [--arch resnet18] [--rounds 6]        (needs: pip install timm)

Against timm, put together as its training script does, in its best CPU configuration: bf16 AMP,
channels-last, its own loader with the number of workers that is best here, AdamW. Against timm's
inference script at its defaults. And against the plain loop of many repositories: PIL transforms
in a DataLoader with as many workers as cores, fp32, contiguous tensors.
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageDataset, create_loader
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import get_model

from benchmarks.common import parser, ratio, report, take_turns
from benchmarks.inference import exact
from benchmarks.training import some_images
from synthdetect.datasets.labels import CLASSES
from synthdetect.datasets.manifest import Manifest
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.models.networks import build
from synthdetect.runs.options import TrainOptions
from synthdetect.training.devices import Device, resolve
from synthdetect.training.loop import predict, prepared, start_training, train_epoch

Work = Callable[[], int]


def main() -> None:
    arguments = parser("training and inference against others", rounds=6)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=192, help="images a round")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds = 32, 32, 1

    options = TrainOptions(arch=given.arch, image_size=given.image_size)
    device = resolve("cpu", options.precision, options.workers, options.arch)
    manifest = some_images(given.images)
    folder = Path(tempfile.mkdtemp())
    try:
        _link(manifest, folder)
        torch.manual_seed(0)
        training = take_turns(
            {"ours": _ours(options, manifest, device), "plain": _plain(options, folder),
             **{f"timm {n}": _timm(options, folder, n) for n in (0, 1, 2)}},
            given.rounds,
        )  # fmt: skip
        scoring = take_turns(
            {**_ours_scoring(options, manifest, folder),
             **{f"timm {n}": _timm_scoring(options, folder, n) for n in (0, 1, 2)}},
            given.rounds,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    what = f"{options.arch} at {options.image_size}"
    trained = f"{what}, {device.precision}: epoch from JPEG files"
    timm_trains, timm_scores = (_fastest(speeds, "timm") for speeds in (training, scoring))
    rows = [
        _row("training_to_timm", trained, training, "ours", timm_trains, 1.05),
        _row("training_to_plain", trained, training, "ours", "plain", 2.5),
    ]
    fastest = _fastest(scoring, "ours")
    for name in (name for name in scoring if name.startswith("ours")):
        engine = name.removeprefix("ours ")
        scored = f"{what}, {engine} fp32: scoring JPEG files"
        wanted = 1.5 * (name == fastest)
        rows.append(_row(f"{engine}_to_timm", scored, scoring, name, timm_scores, wanted))
    notes = (
        f"{given.images} images of the sample, {given.rounds} rounds, batch 32 (training) and 64; "
        f"timm {timm.__version__}, the number after its name is its workers: the best is compared"
    )
    report(f"peers_{options.arch}", "peers", rows, device, given.output, notes)


def _row(
    key: str, what: str, speeds: dict[str, list[float]], ours: str, against: str, wanted: float
) -> dict[str, Any]:
    return {
        "key": key,
        "what": what,
        "against": against,
        "wanted": wanted,
        **ratio(speeds, ours, against),
        "images_per_second": {name: speeds[name] for name in (ours, against)},
    }


def _fastest(speeds: dict[str, list[float]], whose: str) -> str:
    names = [name for name in speeds if name.startswith(whose)]
    return max(names, key=lambda name: statistics.median(speeds[name]))


def _link(manifest: Manifest, folder: Path) -> None:
    """The images as a folder a class, copied so that all contenders read the same files."""
    for row, (file, label) in enumerate(
        zip(manifest.files(), manifest.table["label"], strict=True)
    ):
        target = folder / CLASSES[label]
        target.mkdir(exist_ok=True)
        shutil.copy(file, target / f"{row:04}{os.path.splitext(file)[1]}")


def _ours(options: TrainOptions, manifest: Manifest, device: Device) -> Work:
    training = start_training(build(options.arch, options.image_size), device, options)
    files = ImageFiles(manifest.files(), Preprocess(options.image_size, options.geometry), seed=0)
    batches = Batches(files, Order(len(files), options.batch_size, seed=0), device.workers)
    labels = torch.tensor(manifest.table["label"].to_numpy(), dtype=torch.float32)

    def work() -> int:
        steps = prepared(batches, 1, labels, device, options, 0)
        train_epoch(training, steps, lambda images, loss: None)
        return len(files)

    return work


def _timm(options: TrainOptions, folder: Path, workers: int) -> Work:
    model = timm.create_model(options.arch, num_classes=1).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=options.lr, weight_decay=options.weight_decay
    )
    loader = create_loader(
        ImageDataset(str(folder)), input_size=(3, options.image_size, options.image_size),
        batch_size=options.batch_size, is_training=True, use_prefetcher=False,
        hflip=options.hflip, color_jitter=options.jitter, gaussian_blur_prob=options.blur,
        num_workers=workers, persistent_workers=workers > 0, device=torch.device("cpu"),
    )  # fmt: skip

    def loss_of(images: Tensor, targets: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return _cross_entropy(model, images, targets)

    return _epoch(model, loader, optimizer, loss_of)


def _plain(options: TrainOptions, folder: Path) -> Work:
    size = (options.image_size, options.image_size)
    transform = transforms.Compose([
        transforms.Resize(size),
        transforms.RandomHorizontalFlip(options.hflip),
        transforms.ColorJitter(options.jitter, options.jitter, options.jitter),
        transforms.RandomApply([transforms.GaussianBlur(5)], options.blur),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    loader: Iterable[tuple[Tensor, Tensor]] = torch.utils.data.DataLoader(
        ImageFolder(str(folder), transform), options.batch_size, shuffle=True, num_workers=2
    )
    model = get_model(options.arch, num_classes=1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.lr, weight_decay=options.weight_decay
    )

    return _epoch(model, loader, optimizer, partial(_cross_entropy, model))


def _cross_entropy(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0], targets.float())


def _epoch(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> Work:
    def work() -> int:
        model.train()
        seen = 0
        for images, targets in loader:
            optimizer.zero_grad()
            loss = loss_of(images, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen += len(images)
        return seen

    return work


def _ours_scoring(options: TrainOptions, manifest: Manifest, folder: Path) -> dict[str, Work]:
    network = build(options.arch, options.image_size)
    detector = Detector(network, Card(options.arch, options.image_size, options.geometry))
    files = ImageFiles(manifest.files(), detector.preprocess)
    device = resolve("cpu", "fp32", "auto")
    batches = Batches(files, Order(len(files), 64), device.workers)

    def work(detector: Detector) -> int:
        predict(detector.network, batches.strict_epoch(0), device, len(files))
        return len(files)

    return {f"ours {name}": partial(work, one) for name, one in exact(detector, folder).items()}


def _timm_scoring(options: TrainOptions, folder: Path, workers: int) -> Work:
    model = timm.create_model(options.arch, num_classes=1).eval()
    loader = create_loader(
        ImageDataset(str(folder)), input_size=(3, options.image_size, options.image_size),
        batch_size=64, use_prefetcher=False, num_workers=workers, device=torch.device("cpu"),
    )  # fmt: skip

    def work() -> int:
        seen = 0
        with torch.inference_mode():
            for images, _ in loader:
                model(images)
                seen += len(images)
        return seen

    return work


if __name__ == "__main__":
    main()
