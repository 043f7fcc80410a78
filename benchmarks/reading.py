"""Reading large photographs in full against faster ways, and what those do to high frequencies.

    python -m benchmarks.reading [--image-size 224] [--side 4032]

An image is decoded in full and resized in one step. Faster would be to let libjpeg decode at a
reduced scale, which no other format can, or to average whole blocks of pixels before the resizing
(Pillow's `reducing_gap`), which only images far larger than the square can. Beside the speeds
stands the energy of the squares at high frequencies (above half of the highest) under each of these
ways, divided by that under full decoding and one resizing: a ratio other than 1 is a trace by which
a detector can tell the formats or the sizes of images apart.

The photographs are mosaics of the sample's real crops, which thus keep their detail.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks.common import parser, ratio, report, row_of, take_turns
from synthdetect.datasets.manifest import load
from synthdetect.images.batches import Pixels
from synthdetect.images.geometry import Preprocess
from synthdetect.images.reading import read_image
from synthdetect.training.devices import resolve

_GAPS = (2, 3, 4)
_SIDES = (1280, 1600, 2048, 2560, 3072, 4032)  # longer sides at which energies are measured


def main() -> None:
    arguments = parser("Measure the reading of large photographs.", rounds=8)
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--images", type=int, default=8, help="photographs")
    arguments.add_argument("--side", type=int, default=4032, help="longer side in pixels")
    given = arguments.parse_args()
    if given.smoke:
        given.images, given.image_size, given.side, given.rounds = 1, 32, 1280, 1

    photographs = _photographs(given.images, given.side)
    of_any_size = [_photographs(1, side)[0] for side in _SIDES if side <= given.side]
    preprocess = Preprocess(given.image_size, "resize")
    ways: dict[str, Callable[[bytes], Pixels]] = {
        "decoded at a reduced scale": lambda data: preprocess.square(
            _reduced(data, 2 * given.image_size)
        ),
        **{f"averaged first, gap {gap}": _averaging(given.image_size, gap) for gap in _GAPS},
    }

    def reading(way: Callable[[bytes], Pixels]) -> Callable[[], int]:
        return lambda: len([way(data) for data in photographs])

    contenders = {name: reading(way) for name, way in {"full": preprocess, **ways}.items()}
    speeds = take_turns(contenders, given.rounds)
    rows = []
    for name, way in ways.items():
        key = name.replace(" ", "_").replace(",", "")
        rows.append({
            "key": f"speed_to_{key}",
            "what": "images per second, decoded in full and resized",
            "against": name,
            "wanted": 0.0,
            **ratio(speeds, "full", name),
            "images_per_second": {"full": speeds["full"], name: speeds[name]},
        })  # fmt: skip
        energies = [_energy(way(data)) / _energy(preprocess(data)) for data in of_any_size]
        what = f"energy at high frequencies, {name} (range over sizes)"
        rows.append(row_of(f"energy_{key}", what, "decoded in full and resized", 0.0, energies))
    notes = (
        f"{given.images} JPEG files of {given.side} by {given.side * 3 // 4} pixels, quality 90, "
        f"to squares of {given.image_size}, {given.rounds} rounds; energies over longer sides of "
        f"{', '.join(map(str, _SIDES))} pixels"
    )
    device = resolve("cpu", "fp32", "0")
    report("reading", "reading", sorted(rows, key=_speeds_first), device, given.output, notes)


def _speeds_first(row: dict[str, object]) -> bool:
    return not str(row["key"]).startswith("speed")


def _reduced(data: bytes, at_least: int) -> Image.Image:
    """Decode a JPEG at the smallest scale whose short side keeps this many pixels."""
    image = Image.open(io.BytesIO(data))
    scale = at_least / min(image.size)
    image.draft(image.mode, tuple(round(side * scale) for side in image.size))  # type: ignore[arg-type]
    return image.convert("RGB")


def _averaging(size: int, gap: float) -> Callable[[bytes], Pixels]:
    def square(data: bytes) -> Pixels:
        image = read_image(data)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=gap))

    return square


def _photographs(count: int, side: int) -> list[bytes]:
    """Return mosaics of the sample's real crops as JPEG files whose longer side is `side`."""
    table = load("sample").split("train")
    rows = table.table
    crops = [
        Image.open(table.file(path)).convert("RGB") for path in rows.loc[rows["label"] == 0, "path"]
    ]
    rng = np.random.default_rng(0)
    result = []
    for _ in range(count):
        mosaic = Image.new("RGB", (side, side * 3 // 4))
        for left in range(0, mosaic.width, crops[0].width):
            for top in range(0, mosaic.height, crops[0].height):
                mosaic.paste(crops[rng.integers(len(crops))], (left, top))
        file = io.BytesIO()
        mosaic.save(file, "JPEG", quality=90)
        result.append(file.getvalue())
    return result


def _energy(square: Pixels) -> float:
    """Return the power of the luminance above half of the highest frequency."""
    grey = np.asarray(Image.fromarray(square).convert("L"), dtype=np.float64)
    power = np.abs(np.fft.fft2(grey)) ** 2
    along = np.abs(np.fft.fftfreq(len(grey)))
    return float(power[np.hypot(along[:, None], along) > 0.25].sum())


if __name__ == "__main__":
    main()
