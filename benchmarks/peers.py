"""Training epochs and batch inference from JPEG files against other software.

    python -m benchmarks.peers [--arch resnet18] [--rounds 6]    (needs: pip install -e '.[dev]')

Training is compared with timm, composed as its training script does, in its best configuration for
a CPU: bf16 AMP, channels-last, its own loader with the best number of workers, AdamW. It is also
compared with the plain loop of many repositories: PIL transforms in a DataLoader with two workers,
fp32, contiguous tensors. Each trains in a process of its own. Inference is compared with timm's
inference script at its defaults.
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import get_model

from benchmarks.common import Contender, parser, random_detector, ratio, report, take_turns
from benchmarks.inference import exact
from benchmarks.training import some_images
from synthdetect.datasets.labels import CLASSES
from synthdetect.datasets.manifest import Manifest
from synthdetect.detectors.detector import Detector
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.models.networks import build
from synthdetect.runs.options import TrainOptions
from synthdetect.system.allocation import keep_freed_memory
from synthdetect.training.devices import Device, resolve
from synthdetect.training.loop import (
    Hooks,
    TrainingData,
    predict,
    start_training,
    steps_of,
    train_epoch,
)
from synthdetect.training.session import model_spec, preprocessing

Work = Callable[[], int]


def main() -> None:
    arguments = parser(
        "Compare training and inference with other software.",
        rounds=6,
        needs=("export", "pretrained"),
    )
    import timm

    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=192, help="images per round")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.rounds = 32, 32, 1

    options = TrainOptions.resolve({"arch": given.arch, "image_size": given.image_size, "seed": 0})
    device = resolve("cpu", options.device.precision, options.device.workers, given.arch)
    manifest = some_images(given.images)
    folder = Path(tempfile.mkdtemp())
    try:
        _link(manifest, folder)
        contenders = {
            "ours": Contender(_trains, _ours, options, manifest, device),
            "plain": Contender(_trains, _plain, options, folder),
            **{f"timm {n}": Contender(_trains, _timm, options, folder, n) for n in (0, 1, 2)},
        }
        training = take_turns({name: one.work for name, one in contenders.items()}, given.rounds)
        for one in contenders.values():
            one.end()
        scoring = take_turns(
            {**_ours_scoring(options, manifest, folder),
             **{f"timm {n}": _timm_scoring(options, folder, n) for n in (0, 1, 2)}},
            given.rounds,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    what = f"{given.arch} at {given.image_size}"
    trained = f"{what}, {device.precision}: epoch from JPEG files"
    timm_trains, timm_scores = (_fastest(speeds, "timm") for speeds in (training, scoring))
    rows = [
        _row("training_to_timm", trained, training, "ours", timm_trains, 1.15),
        _row("training_to_plain", trained, training, "ours", "plain", 3.0),
    ]
    fastest = _fastest(scoring, "ours")
    for name in (name for name in scoring if name.startswith("ours")):
        engine = name.removeprefix("ours ")
        scored = f"{what}, {engine} fp32: scoring JPEG files"
        wanted = 1.5 * (name == fastest)
        rows.append(_row(f"{engine}_to_timm", scored, scoring, name, timm_scores, wanted))
    notes = (
        f"{given.images} images of the sample, {given.rounds} rounds, batch 32 (training) and 64; "
        f"timm {timm.__version__} with the best number of workers, which follows its name"
    )
    report(f"peers_{given.arch}", "peers", rows, device, given.output, notes)


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


def _fastest(speeds: dict[str, list[float]], prefix: str) -> str:
    names = [name for name in speeds if name.startswith(prefix)]
    return max(names, key=lambda name: statistics.median(speeds[name]))


def _link(manifest: Manifest, folder: Path) -> None:
    """Copy the images into a folder per class; all contenders read these files."""
    for row, (file, label) in enumerate(
        zip(manifest.files(), manifest.table["label"], strict=True)
    ):
        target = folder / CLASSES[label]
        target.mkdir(exist_ok=True)
        shutil.copy(file, target / f"{row:04}{os.path.splitext(file)[1]}")


@contextmanager
def _trains(
    make: Callable[..., Work], *arguments: Any
) -> Iterator[tuple[Work, Callable[[], None]]]:
    torch.manual_seed(0)
    yield make(*arguments), lambda: None


def _ours(options: TrainOptions, manifest: Manifest, device: Device) -> Work:
    keep_freed_memory()  # as `synthdetect train` does; the others' scripts do not
    training = start_training(build(model_spec(options)), device, options)
    files = ImageFiles(
        manifest.files(), preprocessing(options.image), targets=manifest.table["label"], seed=0
    )
    order = Order(len(files), options.optim.batch_size, seed=0)
    data = TrainingData(Batches(files, order, device.workers, pin_memory=device.pin_memory))

    def work() -> int:
        train_epoch(training, steps_of(training, data, 1), Hooks())
        return len(files)

    return work


def _timm(options: TrainOptions, folder: Path, workers: int) -> Work:
    import timm
    from timm.data import create_loader  # type: ignore[attr-defined]
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    model = timm.create_model(options.model.arch, num_classes=1)
    model = model.to(memory_format=torch.channels_last)
    optim, augment, size = options.optim, options.augment, options.image.image_size
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=optim.lr, weight_decay=optim.weight_decay
    )
    loader = create_loader(
        _timm_dataset(folder), input_size=(3, size, size),
        batch_size=optim.batch_size, is_training=True, use_prefetcher=False,
        hflip=augment.hflip, color_jitter=augment.jitter, gaussian_blur_prob=augment.blur,
        num_workers=workers, persistent_workers=workers > 0, device=torch.device("cpu"),
    )  # fmt: skip

    def loss_of(images: Tensor, targets: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return _cross_entropy(model, images, targets)

    return _epoch(model, loader, optimizer, loss_of)


def _plain(options: TrainOptions, folder: Path) -> Work:
    optim, augment, size = options.optim, options.augment, options.image.image_size
    transform = transforms.Compose([
        transforms.Resize((size, size)),
        transforms.RandomHorizontalFlip(augment.hflip),
        transforms.ColorJitter(augment.jitter, augment.jitter, augment.jitter),
        transforms.RandomApply([transforms.GaussianBlur(5)], augment.blur),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    loader: Iterable[tuple[Tensor, Tensor]] = torch.utils.data.DataLoader(
        ImageFolder(str(folder), transform), optim.batch_size, shuffle=True, num_workers=2
    )
    model = get_model(options.model.arch, num_classes=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)

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
    detector = random_detector(options.model.arch, options.image.image_size)
    files = ImageFiles(manifest.files(), detector.preprocess)
    device = resolve("cpu", "fp32", "auto")
    batches = Batches(files, Order(len(files), 64), device.workers)

    def work(detector: Detector) -> int:
        predict(detector.network, batches.strict_epoch(0), device, len(files))
        return len(files)

    return {f"ours {name}": partial(work, one) for name, one in exact(detector, folder).items()}


def _timm_dataset(folder: Path) -> Any:
    from timm.data import ImageDataset  # type: ignore[attr-defined]

    return ImageDataset(str(folder))  # type: ignore[no-untyped-call]


def _timm_scoring(options: TrainOptions, folder: Path, workers: int) -> Work:
    import timm
    from timm.data import create_loader  # type: ignore[attr-defined]

    model = timm.create_model(options.model.arch, num_classes=1).eval()
    size = options.image.image_size
    loader = create_loader(
        _timm_dataset(folder), input_size=(3, size, size),
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
