"""Mean spectra show planted patterns at their frequencies, and none where there is none."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from synthdetect.explanation.spectra import (
    CLEAR_PEAK,
    Spectra,
    fingerprints,
    mean_spectra,
    radial_table,
)
from synthdetect.system.errors import UserError

SIZE = 64
Pixels = npt.NDArray[np.float64]


class Images:
    """A folder of grey images and their table, to which images can be added."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, []  # type: ignore[var-annotated]

    def add(self, pixels: Pixels, generator: str = "", source: str = "") -> None:
        name = f"{len(self.rows):03}.png"
        grey = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        Image.fromarray(grey).convert("RGB").save(self.folder / name)
        self.rows.append(
            {
                "path": name, "label": int(generator != ""), "generator": generator,
                "source_id": source or name, "width": grey.shape[1], "height": grey.shape[0],
            }
        )  # fmt: skip

    def measure(self, order: npt.NDArray[np.int64] | None = None) -> Spectra:
        table = pd.DataFrame(self.rows)
        table = table if order is None else table.iloc[order]
        return mean_spectra([self.folder / path for path in table["path"]], table, seed=0)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


def noise(seed: int, deviation: float = 20, shape: tuple[int, int] = (SIZE, SIZE)) -> Pixels:
    return 128 + deviation * np.random.default_rng(seed).normal(size=shape)


def test_white_noise_is_flat_at_its_variance(images: Images) -> None:
    for seed in range(8):
        images.add(noise(seed))
    spectra = images.measure()
    assert (spectra.size, spectra.groups, spectra.images.tolist()) == (SIZE, ("real",), [8])
    # The mean of an exponential variable's decibels is lower by 10 log10(e) times Euler's constant.
    expected = 10 * np.log10(20**2) - 2.507
    np.testing.assert_allclose(spectra.radial[0, 4:40], expected, atol=0.9)
    assert spectra.maps[0].mean() == pytest.approx(expected, abs=0.1)


def test_without_a_class_nothing_is_compared(tmp_path: Path) -> None:
    for generator in ("", "g"):
        folder = tmp_path / f"of_{generator}"
        folder.mkdir()
        images = Images(folder)
        for seed in range(3):
            images.add(noise(seed), generator)
        spectra = images.measure()
        assert len(fingerprints(spectra)) == 0
        assert radial_table(spectra)["difference_db"].isna().all()
        assert not np.isnan(spectra.radial).any()


X, Y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))


@pytest.mark.parametrize(
    ("pattern", "place", "radius"),
    [
        ((-1.0) ** (X + Y), (0.5, 0.5), 0.707),
        (np.cos(np.pi / 2 * X), (0.25, 0.0), 0.25),
        (np.cos(np.pi / 4 * Y), (0.0, 0.125), 0.125),
        (np.cos(np.pi / 2 * (X - Y)), (-0.25, 0.25), 0.354),
    ],
    ids=["checkerboard", "columns of 4", "rows of 8", "diagonal of 4"],
)
def test_a_planted_pattern_is_found_at_its_frequency(
    images: Images, pattern: Pixels, place: tuple[float, float], radius: float
) -> None:
    for seed in range(12):
        images.add(noise(seed))
        images.add(noise(100 + seed) + 8 * pattern, "grid")
        images.add(noise(200 + seed), "plain")
    spectra = images.measure()
    assert spectra.groups == ("real", "all synthetic", "grid", "plain")
    assert spectra.images.tolist() == [12, 24, 12, 12]
    found = fingerprints(spectra).set_index("group")
    grid = found.loc["grid"]
    x, y = float(grid["peak_x"]), float(grid["peak_y"])
    if 0.5 in place:  # -0.5 and 0.5 are the same frequency
        x, y = abs(x), abs(y)
    assert (x, y) == pytest.approx(place)
    assert grid["peak_deviations"] > CLEAR_PEAK
    assert grid["peak_db"] > 10
    assert found.loc["plain", "peak_deviations"] < CLEAR_PEAK
    curves = radial_table(spectra).set_index("group").loc["grid"]
    rise = curves["difference_db"] - curves["difference_db"].median()
    at = int(np.abs(curves["frequency"] - radius).to_numpy().argmin())
    assert rise.iloc[at] > 0.6


def test_a_loss_of_high_frequencies_is_seen_in_the_radial_curve(images: Images) -> None:
    for seed in range(10):
        images.add(noise(seed), source=f"s{seed}")
        pixels = noise(seed)
        images.add((pixels + np.roll(pixels, 1, axis=1)) / 2, "blur", source=f"s{seed}")
    blur = fingerprints(images.measure()).set_index("group").loc["blur"]
    assert blur["frequency"] > 0.45
    assert blur["low"] < blur["difference_db"] < blur["high"] < -3
    table = radial_table(images.measure())
    assert list(table) == [
        "group", "images", "frequency", "power_db", "difference_db", "low", "high"
    ]  # fmt: skip
    assert (table.loc[table["group"] == "real", "difference_db"] == 0).all()


def by_hand(pixels: list[Pixels], size: int) -> Pixels:
    """Mean map of the centres, computed one image at a time."""
    window = np.sin(np.pi * np.arange(size) / size) ** 2
    maps = []
    for grey in pixels:
        top, left = (grey.shape[0] - size) // 2, (grey.shape[1] - size) // 2
        cut = np.clip(np.rint(grey), 0, 255)[top : top + size, left : left + size]
        seen = (cut - cut.mean()) * np.outer(window, window)
        power = np.abs(np.fft.fftshift(np.fft.fft2(seen))) ** 2 / np.sum(window**2) ** 2
        maps.append(10 * np.log10(power + 1e-3))
    return np.mean(maps, axis=0)  # type: ignore[no-any-return]


def test_the_mean_of_many_shapes_equals_that_of_single_images(images: Images) -> None:
    rng = np.random.default_rng(0)
    pixels: dict[str, list[Pixels]] = {"": [], "a": [], "b": []}
    for i in range(45):  # more than one batch
        generator = ("", "a", "b")[i % 3]
        shape = (48 + 2 * int(rng.integers(0, 9)), 50 + 2 * int(rng.integers(0, 9)))
        pixels[generator].append(noise(i, 30, shape))
        images.add(pixels[generator][-1], generator)
    spectra = images.measure()
    assert spectra.size == 48
    expected = [by_hand(pixels[g], 48) for g in ("", "a", "b")]
    np.testing.assert_allclose(spectra.maps[[0, 2, 3]], expected, atol=0.05)
    np.testing.assert_allclose(spectra.maps[1], (spectra.maps[2] + spectra.maps[3]) / 2, 1e-6)
    radius = np.rint(np.hypot(*np.meshgrid(np.arange(-24, 24), np.arange(-24, 24)))).astype(int)
    means = [spectra.maps[0][radius == r].mean() for r in range(radius.max() + 1)]
    np.testing.assert_allclose(spectra.radial[0], means, atol=1e-4)
    assert spectra.frequencies[24] == 0.5


def test_the_order_of_the_rows_makes_no_difference(images: Images) -> None:
    for seed in range(9):
        images.add(noise(seed), ("", "a", "b")[seed % 3], source=f"s{seed // 3}")
    first, other = images.measure(), images.measure(np.random.default_rng(0).permutation(9))
    for name in ("maps", "radial", "low", "high"):
        assert np.array_equal(getattr(first, name), getattr(other, name), equal_nan=True)
    assert np.array_equal(first.low, images.measure().low, equal_nan=True)


def test_intervals_are_by_source_not_by_file(tmp_path: Path) -> None:
    widths = []
    for copies_share_a_source in (False, True):
        folder = tmp_path / str(copies_share_a_source)
        folder.mkdir()
        images = Images(folder)
        for i in range(16):
            source = f"s{i // 4}" if copies_share_a_source else ""
            images.add(noise(i // 4), source=source)  # four copies of each of four photographs
            images.add(noise(100 + i // 4, 10 + 5 * (i // 4)), "g", source=source)
        spectra = images.measure()
        widths.append(float((spectra.high[2] - spectra.low[2]).mean()))
    assert widths[1] > 1.5 * widths[0]


def test_few_small_images_of_a_group_are_left_out_and_listed(images: Images) -> None:
    for seed in range(30):
        images.add(noise(seed))
        images.add(noise(seed, shape=(40, 70)), "small ones")
    images.add(noise(99, shape=(300, 33)))
    spectra = images.measure()
    assert spectra.size == 40  # determined by the smaller group, not by one thumbnail
    assert spectra.images.tolist() == [30, 30, 30]
    assert spectra.left_out.to_dict(orient="records") == [
        {"path": "060.png", "width": 33, "height": 300}
    ]


def test_large_images_are_cropped_not_resized(images: Images) -> None:
    pattern = (-1.0) ** np.add.outer(np.arange(300), np.arange(320))
    for seed in range(2):
        images.add(noise(seed, shape=(300, 320)) + 8 * pattern)
    spectra = images.measure()
    assert spectra.size == 256
    assert np.unravel_index(spectra.maps[0].argmax(), (256, 256)) == (0, 0)  # (-0.5, -0.5)


def test_a_group_of_thumbnails_is_refused_with_its_name(images: Images) -> None:
    images.add(noise(0))
    images.add(noise(1, shape=(12, 12)), "icons")
    with pytest.raises(UserError, match=r"--spectra.*icons.*16 pixels"):
        images.measure()


def test_flat_images_have_a_finite_spectrum(images: Images) -> None:
    images.add(np.full((SIZE, SIZE), 255.0))
    images.add(np.full((SIZE, SIZE), 0.0), "black")
    spectra = images.measure()
    assert np.isfinite(spectra.maps).all()
    assert np.isfinite(fingerprints(spectra).drop(columns="group").to_numpy(float)).all()


def test_a_missing_image_is_refused_with_its_name(images: Images) -> None:
    images.add(noise(0))
    images.add(noise(1))
    (images.folder / "001.png").unlink()
    with pytest.raises(UserError, match=r"001\.png"):
        images.measure()
