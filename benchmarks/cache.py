"""Second and later epochs from the decoded-image cache against decoding every image every time.

    python -m benchmarks.cache [--arch mobilenet_v3_large] [--image-size 96] [--side 4032]

The cache is for where decoding dominates: a small network, and photographs as a camera makes them,
here the sample's own enlarged to 12 megapixels. Beside it stand the sample's small crops as they
are, whose decoding is little of a step.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.common import parser, ratio, report, take_turns
from benchmarks.training import epochs, some_images, with_a_cache_of_its_own
from synthdetect.runs.options import TrainOptions
from synthdetect.system.files import file_sha256
from synthdetect.training.devices import resolve


def main() -> None:
    arguments = parser("decoded-image cache", rounds=8)
    arguments.add_argument("--arch", default="mobilenet_v3_large")
    arguments.add_argument("--image-size", type=int, default=96)
    arguments.add_argument("--images", type=int, default=192, help="images an epoch")
    arguments.add_argument("--side", type=int, default=4032, help="longer side in pixels")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.side, given.rounds = 16, 32, 300, 1

    options = TrainOptions(arch=given.arch, image_size=given.image_size)
    device = resolve(options.device, options.precision, options.workers, options.arch)
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
            "what": f"{options.arch} at {options.image_size}, {device.precision}: "
            "epoch from the decoded-image cache",
            "against": source,
            "wanted": wanted,
            **ratio(speeds, "cached", "files"),
            "images_per_second": speeds,
        })  # fmt: skip
    notes = f"{given.images} images an epoch, {given.rounds} rounds, batch 32, JPEG quality 90"
    report(f"cache_{options.arch}", "cache", rows, device, given.output, notes)


def _enlarged(files: Sequence[str], side: int) -> list[str]:
    """JPEG files of the same pictures whose longer side has so many pixels."""
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
    with_a_cache_of_its_own(main)
