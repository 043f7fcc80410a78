"""Perturbations: their effect, their determinism and their selection."""

import hashlib
import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features

from synthdetect.images.perturbations import (
    PERTURBATIONS,
    UNPERTURBED,
    PerturbationLevel,
    perturb,
    select_perturbations,
)
from synthdetect.images.reading import BadImage
from synthdetect.system.errors import UserError

SHA = "ab" * 32
LEVELS = select_perturbations("all")[1:]
RANDOM = ("crop", "noise")


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """An image of smooth colours with some grain, which every perturbation changes."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(scale=6, size=(height, width, 3))
    return Image.fromarray(np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8))


def distance(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


def fingerprint(perturbation: PerturbationLevel) -> str:
    return hashlib.sha256(perturb(picture(), perturbation, SHA, 7).tobytes()).hexdigest()


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_file_formats_are_available_if_pillow_can_write_them(name: str) -> None:
    assert (name in PERTURBATIONS) == features.check(name)


def test_every_perturbation_is_described() -> None:
    assert all(p.unit and p.help for p in PERTURBATIONS.values())


@pytest.mark.parametrize("perturbation", LEVELS, ids=str)
def test_each_returns_another_rgb_image_and_leaves_its_argument_unchanged(
    perturbation: PerturbationLevel,
) -> None:
    image = picture(600, 24)  # longer than the last level of `social`
    before = image.tobytes()
    changed = perturb(image, perturbation, SHA, 1)
    assert changed.mode == "RGB"
    assert changed.tobytes() != before == image.tobytes()


@pytest.mark.parametrize("perturbation", LEVELS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_images_of_any_shape_can_be_perturbed(
    perturbation: PerturbationLevel, size: tuple[int, int]
) -> None:
    changed = perturb(picture(*size), perturbation, SHA, 1)
    assert min(changed.size) >= 1
    changed.load()


@pytest.mark.parametrize("perturbation", LEVELS, ids=str)
def test_it_depends_on_content_perturbation_and_seed_alone(perturbation: PerturbationLevel) -> None:
    image = picture()

    def pixels(sha256: str = SHA, seed: int = 1) -> bytes:
        return perturb(image, perturbation, sha256, seed).tobytes()

    first = pixels()
    others = {pixels("cd" * 32), pixels(seed=2)}
    assert pixels() == first
    if perturbation.name not in RANDOM:
        assert others == {first}
    elif perturbation.name == "noise":
        assert len(others | {first}) == 3


def test_levels_have_independent_random_numbers() -> None:
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    five, ten = (
        np.asarray(perturb(grey, PerturbationLevel("noise", level), SHA, 1), float) - 128
        for level in (5, 10)
    )
    assert abs(np.corrcoef(five.ravel(), ten.ravel())[0, 1]) < 0.1


def test_another_process_gives_the_same_pixels() -> None:
    program = """
import runpy, sys
test = runpy.run_path(sys.argv[1])
for perturbation in reversed(test["LEVELS"]):
    print(perturbation, test["fingerprint"](perturbation))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, __file__], capture_output=True, text=True, check=True
    )
    found = dict(line.split() for line in done.stdout.splitlines())
    assert found == {str(perturbation): fingerprint(perturbation) for perturbation in LEVELS}


@pytest.mark.parametrize("name", [n for n in PERTURBATIONS if n not in ("upscale", "crop")])
def test_levels_run_from_mild_to_severe(name: str) -> None:
    image = picture(2000, 64) if name == "social" else picture(256, 192)
    distances = []
    for level in PERTURBATIONS[name].levels:
        changed = perturb(image, PerturbationLevel(name, level), SHA, 1)
        distances.append(distance(changed.resize(image.size), image))
    assert distances[0] > 0
    assert all(a < b for a, b in itertools.pairwise(distances))


@pytest.mark.parametrize("name", ["upscale", "crop"])
def test_severe_levels_change_the_size_most(name: str) -> None:
    levels = PERTURBATIONS[name].levels
    for level in levels:
        changed = perturb(picture(64, 48), PerturbationLevel(name, level), SHA, 1)
        assert changed.size == (round(64 * level), round(48 * level))
    severity = [abs(np.log(level)) for level in levels]
    assert severity == sorted(severity)


@pytest.mark.parametrize("quality", PERTURBATIONS["jpeg"].levels)
def test_jpeg_equals_the_encoder_of_pillow(quality: float) -> None:
    file = io.BytesIO()
    picture().save(file, "JPEG", quality=int(quality))
    changed = perturb(picture(), PerturbationLevel("jpeg", quality), SHA, 1)
    np.testing.assert_array_equal(changed, Image.open(file))


def test_crops_are_parts_of_the_image_at_positions_all_over_it() -> None:
    y, x = np.mgrid[:48, :64]
    image = Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))
    corners = set()
    for number in range(200):
        part = np.asarray(perturb(image, PerturbationLevel("crop", 0.5), f"{number:064x}", 1))
        left, top = int(part[0, 0, 0]), int(part[0, 0, 1])
        np.testing.assert_array_equal(part, np.asarray(image)[top : top + 24, left : left + 32])
        corners.add((left, top))
    lefts, tops = zip(*corners, strict=True)
    assert (min(lefts), max(lefts), min(tops), max(tops)) == (0, 32, 0, 24)


def test_the_level_of_noise_is_its_standard_deviation_in_every_band() -> None:
    grey = Image.new("RGB", (1500, 900), (128, 128, 128))  # about four bands
    pixels = np.asarray(perturb(grey, PerturbationLevel("noise", 10), SHA, 1), float) - 128
    assert pixels.std() == pytest.approx(10, rel=0.01)
    assert abs(pixels.mean()) < 0.05
    rows = pixels.reshape(900, -1)
    assert len({row.tobytes() for row in rows}) == 900


def test_social_downscales_large_images_and_upscales_none() -> None:
    sizes = [
        perturb(picture(*size), PerturbationLevel("social", 480), SHA, 1).size
        for size in ((960, 320), (320, 960), (100, 50))
    ]
    assert sizes == [(480, 160), (160, 480), (100, 50)]


@pytest.mark.skipif(not features.check("webp"), reason="needs WebP")
def test_an_image_too_large_for_a_format_is_refused() -> None:
    with pytest.raises(BadImage, match="WEBP"):
        perturb(Image.new("RGB", (20000, 1)), PerturbationLevel("webp", 50), SHA, 1)


class TestSelection:
    def test_all_selects_every_level_once_after_the_unperturbed_images(self) -> None:
        every = select_perturbations("all")
        assert every[0] == UNPERTURBED
        assert [(c.name, c.level) for c in every[1:]] == [
            (name, level) for name, p in PERTURBATIONS.items() for level in p.levels
        ]

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("jpeg:50", ["jpeg:50"]),
            ("upscale", ["upscale:1.5", "upscale:2"]),
            (" blur:4 , jpeg:30,blur:0.5,", ["jpeg:30", "blur:0.5", "blur:4"]),
            ("crop:0.5,crop,crop", ["crop:0.9", "crop:0.75", "crop:0.5"]),
        ],
    )
    def test_levels_are_selected_once_in_the_order_of_the_registry(
        self, text: str, names: list[str]
    ) -> None:
        assert [str(perturbation) for perturbation in select_perturbations(text)[1:]] == names

    @pytest.mark.parametrize("text", ["jpg", "jpeg:42", "jpeg:", "jpeg:x", "none", "all:1"])
    def test_an_unknown_selection_is_refused_with_the_known_ones(self, text: str) -> None:
        with pytest.raises(UserError) as caught:
            select_perturbations(f"blur,{text}")
        assert "--robustness" in str(caught.value)
        assert f": {text}." in str(caught.value)
        assert "jpeg: 95, 90, 75, 50, 30" in str(caught.value)
        assert "noise: 2, 5, 10, 20" in str(caught.value)
