"""`synthdetect doctor`: what this machine has, what is missing, and what will be slow."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import psutil
import torch
from PIL import features

from synthdetect import __version__
from synthdetect.commands.options import DoctorOptions
from synthdetect.images.reading import FORMATS
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.weights import where_weights_are
from synthdetect.system.console import console, table
from synthdetect.system.errors import UserError
from synthdetect.system.extras import EXTRAS, missing
from synthdetect.system.files import cache_folder, require_folder
from synthdetect.tracking.availability import answers
from synthdetect.tracking.store import require_store, tracking_uri
from synthdetect.training.devices import Device, resolve
from synthdetect.training.options import TrainingDeviceOptions

_LITTLE_MEMORY, _FEW_CORES = 4.0, 2  # GiB available; cores
_DISK = 2.0  # GiB beside the cache, for checkpoints, artifacts and the database


class Fact(NamedTuple):
    """A row of what the machine has."""

    part: str
    name: str
    value: str


def examine(options: DoctorOptions) -> dict[str, Any]:
    """Print what the machine has, what does not work, and what will be slow.

    Raises:
        UserError: If something that a training needs does not work; all of it is listed.
    """
    device = resolve("auto", "auto", "auto", "resnet18")
    weights = {name: where_weights_are(entry) for name, entry in ARCHITECTURES.items()}
    store, problems = _store()
    problems += _unwritable()
    facts = [*_versions(), *_computing(device), *_decoders(), *_weights(weights), *store]
    facts += [*_disks(), *_extras()]
    slow = list(_slow(device, weights))
    table("This machine", ["part", "", "has"], [list(fact) for fact in facts])
    for note in slow:
        console.print(f"note: {note}", style="bold yellow")
    for problem in problems:
        console.print(f"does not work: {problem}", style="bold red")
    result = {"facts": [fact._asdict() for fact in facts], "notes": slow, "problems": problems}
    if problems:
        raise UserError(f"doctor: {len(problems)} problem(s), listed above.", result)
    console.print("Everything that a training needs works.")
    return result


def _versions() -> Iterator[Fact]:
    yield Fact("versions", "synthdetect", __version__)
    yield Fact("versions", "Python", f"{platform.python_version()} ({sys.executable})")
    for name in ("torch", "torchvision", "mlflow", "optuna", "pillow"):
        yield Fact("versions", name, version(name))


def _computing(device: Device) -> Iterator[Fact]:
    facts = device.describe()
    yield Fact("device", "kind", f"{facts['kind']}, {facts['name']}, driver {facts['driver']}")
    yield Fact("device", "precision of auto", f"{device.precision} for training, fp32 otherwise")
    yield Fact("device", "threads", f"{facts['threads']} on {facts['cores']} cores")
    yield Fact("device", "instructions", str(facts["instruction_set"]))
    yield Fact("device", "processes that read images", str(device.workers))
    memory = psutil.virtual_memory()
    yield Fact("device", "memory", f"{_gib(memory.available)} free of {_gib(memory.total)}")


def _decoders() -> Iterator[Fact]:
    yield Fact("images", "formats", ", ".join(FORMATS))
    turbo = features.version("libjpeg_turbo")
    decoder = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    yield Fact("images", "JPEG decoder", f"{decoder}, Pillow {PIL.__version__}")


def _weights(weights: dict[str, str]) -> Iterator[Fact]:
    there = [name for name, place in weights.items() if place]
    yield Fact("ImageNet weights", "on this machine", ", ".join(there) or "none")
    yield Fact("ImageNet weights", "looked for in", f"{torch.hub.get_dir()}/checkpoints")


def _store() -> tuple[list[Fact], list[str]]:
    """Look whether the tracking store can be used, without making one."""
    found = [Fact("tracking", "store", tracking_uri())]
    began = time.perf_counter()
    try:
        require_store()
    except UserError as error:
        return found, [str(error)]
    if not answers():
        return found, [f"the tracking store {tracking_uri()} does not answer"]
    answer = f"usable, looked at in {time.perf_counter() - began:.1f} s"
    return [*found, Fact("tracking", "state", answer)], []


def _unwritable() -> list[str]:
    found = []
    for folder, name in ((Path(), "the current folder"), (cache_folder(), "the cache folder")):
        try:
            require_folder(folder, name)
        except UserError as error:
            found.append(str(error))
    return found


def _disks() -> Iterator[Fact]:
    for name, folder in (("current folder", Path()), ("cache", cache_folder())):
        free, total = _disk(folder)
        place = f"{free:.1f} GiB free of {total:.0f}"
        yield Fact("disk", name, f"{place}, {folder.absolute()}")


def _extras() -> Iterator[Fact]:
    for extra in EXTRAS:
        absent = missing(extra)
        how = f"missing {', '.join(absent)}: pip install 'synthdetect[{extra}]'"
        yield Fact("extras", extra, how if absent else "installed")


def _slow(device: Device, weights: dict[str, str]) -> Iterator[str]:
    """Yield what will be slow, or worse than it could be, and what helps."""
    cores = os.cpu_count() or 1
    if device.kind == "cpu":
        yield (
            f"no accelerator: networks are trained on {cores} CPU cores. The built-in sample takes "
            "minutes; for 10,000 images and more use a GPU, or --recipe probe, which trains on "
            "features that are computed once."
        )
        if device.precision == "fp32":
            yield "this CPU has no bf16 instructions: training steps are computed in fp32."
        if torch.get_num_threads() < (psutil.cpu_count(logical=False) or cores):
            yield (
                f"torch uses {torch.get_num_threads()} of {cores} cores: OMP_NUM_THREADS or the "
                "like limits it."
            )
        if cores <= _FEW_CORES:
            yield f"{cores} cores: another training beside this one halves the speed of both."
    if not weights["resnet18"]:
        yield (
            "no ImageNet weights for the default architecture, resnet18: they are downloaded when "
            "a training begins; without a network it starts from random weights, and needs far "
            "more images."
        )
    memory = psutil.virtual_memory().available / 2**30
    if memory < _LITTLE_MEMORY:
        yield f"{memory:.1f} GiB of memory are free: lower --batch-size if that fails."
    cached = float(TrainingDeviceOptions.fields()["cache_gib"].default)
    if _disk(cache_folder())[0] < cached + _DISK:
        yield (
            f"less than {cached + _DISK:g} GiB are free for the cache: images are then decoded in "
            "every epoch. Set SYNTHDETECT_CACHE to a folder on another disk, or lower --cache-gib."
        )
    if not features.check_feature("libjpeg_turbo"):
        yield "Pillow has no libjpeg-turbo: JPEG files are decoded at a fraction of the speed."
    if tracking_uri().startswith("sqlite"):
        yield (
            "the tracking store is an SQLite file: fine for a few processes; for sweeps with many "
            "workers use a server with PostgreSQL."
        )


def _disk(folder: Path) -> tuple[float, float]:
    """Return free and total GiB of the disk that a folder is or would be on."""
    there = folder.expanduser().absolute()
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    return usage.free / 2**30, usage.total / 2**30


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
