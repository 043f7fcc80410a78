"""Epochs from the decoded-image cache against epochs that decode every image.

    python -m benchmarks.cache [--arch mobilenet_v3_large] [--image-size 96] [--side 4032]

The cache helps where decoding dominates: with a small network and photographs as large as a
camera's. The sample's images are enlarged to 12 megapixels for that. They are also measured as they
are, small crops whose decoding is a small part of a step.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.common import parser, ratio, report, take_turns
from benchmarks.training import epochs, some_images, with_temporary_cache
from synthdetect.runs.options import TrainOptions
from synthdetect.runs.preflight import resolve_device
from synthdetect.system.files import file_sha256


def main() -> None:
    arguments = parser("Measure the decoded-image cache.", rounds=8)
    arguments.add_argument("--arch", default="mobilenet_v3_large")
    arguments.add_argument("--image-size", type=int, default=96)
    arguments.add_argument("--images", type=int, default=192, help="images per epoch")
    arguments.add_argument(
        "--side", type=int, default=4032, help="longer side of the enlarged images in pixels"
    )
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.side, given.rounds = 16, 32, 300, 1

    options = TrainOptions.resolve({"arch": given.arch, "image_size": given.image_size, "seed": 0})
    device = resolve_device(options.device, given.arch)
    manifest = some_images(given.images)
    crops = manifest.files()
    large = _enlarged(crops, given.side)
    rows = []
    for key, source, wanted, files in (
        ("cached_to_photographs", f"JPEG files of {given.side} pixels", 2.0, large),
        ("cached_to_crops", "the sample's JPEG files", 0.0, crops),
    ):
        hashes = [file_sha256(Path(file)) for file in files]
        work = epochs(options, device, manifest, files, hashes)
        del work["memory"]
        speeds = take_turns(work, given.rounds)
        rows.append({
            "key": key,
            "what": f"{given.arch} at {given.image_size}, {device.precision}: "
            "epoch from the decoded-image cache",
            "against": source,
            "wanted": wanted,
            **ratio(speeds, "cached", "files"),
            "images_per_second": speeds,
        })  # fmt: skip
    notes = f"{given.images} images per epoch, {given.rounds} rounds, batch 32, JPEG quality 90"
    report(f"cache_{given.arch}", "cache", rows, device, given.output, notes)


def _enlarged(files: Sequence[str], side: int) -> list[str]:
    """Write the images as JPEG files whose longer side has `side` pixels; return their paths."""
    folder = Path(os.environ["SYNTHDETECT_CACHE"])
    result = []
    for number, file in enumerate(files):
        with Image.open(file) as image:
            scale = side / max(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        result.append(str(folder / f"{number}.jpg"))
        large.save(result[-1], quality=90)
    return result


if __name__ == "__main__":
    with_temporary_cache(main)
