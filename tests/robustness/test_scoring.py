"""Scoring of perturbed images: independent of order, workers and cache, with one decoding each."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import GEOMETRIES
from synthdetect.images.perturbations import (
    PERTURBATIONS,
    UNPERTURBED,
    Perturbation,
    PerturbationLevel,
    perturb,
    select_perturbations,
)
from synthdetect.images.reading import read_image
from synthdetect.models.networks import Network, build
from synthdetect.models.spec import ModelSpec
from synthdetect.robustness import scoring
from synthdetect.robustness.scoring import PerturbedFiles, score_perturbations
from synthdetect.system.errors import UserError
from synthdetect.training.devices import Device
from synthdetect.training.loop import predict

SIZE = 32
SPEC = ModelSpec.of("mobilenet_v3_large", SIZE)
CPU = Device("cpu", "fp32", 0)
LEVELS = select_perturbations("jpeg:50,blur:1,crop,noise:5")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return build(SPEC).eval()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Nine JPEG files, large enough that libjpeg could decode them at a reduced scale."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.jpg" for number in range(9)]
    for number, path in enumerate(paths):
        pixels = rng.integers(0, 256, (20, 30 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((300 + number, 200)).save(path, quality=92)
    return paths


def hashes(files: list[Path]) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def score(
    network: Network, files: list[Path], perturbations: list[PerturbationLevel] = LEVELS, *,
    sha256: list[str] | None = None, geometry: str = "resize", device: Device = CPU,
    cache_limit: int = 0, seed: int = 1,
) -> npt.NDArray[np.float64]:  # fmt: skip
    return score_perturbations(
        network, files, sha256 or hashes(files), Preprocess(SIZE, geometry), perturbations, device,
        seed=seed, batch_size=4, cache_limit=cache_limit,
    )  # fmt: skip


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_whole_image_is_perturbed_before_preprocessing(
    files: list[Path], geometry: str
) -> None:
    preprocess = Preprocess(SIZE, geometry)
    dataset = PerturbedFiles(files, hashes(files), preprocess, LEVELS[1:], seed=1)
    assert len(dataset) == len(files) * (len(LEVELS) - 1)
    for row in np.random.default_rng(0).permutation(len(dataset)).tolist():
        image, perturbation = divmod(row, len(LEVELS) - 1)
        data = files[image].read_bytes()
        perturbed = perturb(
            read_image(data), LEVELS[1 + perturbation], hashlib.sha256(data).hexdigest(), 1
        )
        np.testing.assert_array_equal(dataset[0, row][1], preprocess.square(perturbed))
    assert dataset.name(len(LEVELS)) == f"{files[1]} under blur:1"


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("cache_limit", [0, 10**8])
def test_unperturbed_logits_equal_a_plain_evaluation_to_the_last_bit(
    network: Network, files: list[Path], geometry: str, cache_limit: int
) -> None:
    images = ImageFiles(files, Preprocess(SIZE, geometry))
    batches = Batches(images, Order(len(files), 4), 0)
    plain = predict(network, batches.epoch(0), CPU, len(files))
    for _ in range(2):
        logits = score(network, files, geometry=geometry, cache_limit=cache_limit)
        assert LEVELS[0] == UNPERTURBED
        np.testing.assert_array_equal(logits[0], plain)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_perturbation_that_changes_nothing_changes_no_logit(
    network: Network, files: list[Path], geometry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perturbed and unperturbed images differ by the perturbation and not in how they are read."""
    nothing = Perturbation(lambda image, level, rng: image, (1,), "", "")
    monkeypatch.setitem(PERTURBATIONS, "nothing", nothing)
    perturbations = [UNPERTURBED, PerturbationLevel("nothing", 1)]
    plain, perturbed = score(network, files, perturbations, geometry=geometry)
    np.testing.assert_array_equal(perturbed, plain)


def test_each_perturbation_has_its_row_whatever_others_are_selected(
    network: Network, files: list[Path]
) -> None:
    whole = score(network, files)
    assert whole.shape == (len(LEVELS), len(files))
    assert len({row.tobytes() for row in whole}) == len(LEVELS)
    for perturbations in (LEVELS[::-1], LEVELS[2:4], [UNPERTURBED], LEVELS[1:]):
        rows = [LEVELS.index(perturbation) for perturbation in perturbations]
        np.testing.assert_allclose(score(network, files, perturbations), whole[rows], atol=1e-5)


def test_the_order_of_the_images_and_the_workers_make_no_difference(
    network: Network, files: list[Path]
) -> None:
    whole = score(network, files)
    order = np.random.default_rng(3).permutation(len(files))
    shuffled = score(network, [files[i] for i in order])
    np.testing.assert_allclose(shuffled, whole[:, order], atol=1e-5)
    helped = score(network, files, device=Device("cpu", "fp32", 2))
    np.testing.assert_array_equal(helped, whole)


def test_copies_of_a_file_are_perturbed_equally_whatever_their_paths(
    files: list[Path], tmp_path: Path
) -> None:
    """Only the content determines the random numbers, so no class is treated differently."""
    both = [tmp_path / "real" / "a.jpg", tmp_path / "synthetic" / "b.jpg"]
    for copy in both:
        copy.parent.mkdir()
        copy.write_bytes(files[0].read_bytes())
    perturbations = select_perturbations("all")[1:]
    dataset = PerturbedFiles(both, hashes(both), Preprocess(SIZE, "resize"), perturbations, seed=1)
    for perturbation in range(len(perturbations)):
        real, synthetic = (dataset[0, i * len(perturbations) + perturbation][1] for i in range(2))
        np.testing.assert_array_equal(real, synthetic)


def test_the_seed_changes_random_perturbations_and_no_others(
    network: Network, files: list[Path]
) -> None:
    one, other = score(network, files, seed=1), score(network, files, seed=2)
    same = [bool((a == b).all()) for a, b in zip(one, other, strict=True)]
    assert same == [c.name in ("none", "jpeg", "blur") for c in LEVELS]


@pytest.mark.parametrize("geometry", ["resize", "random_crop"])
def test_with_the_cache_a_second_pass_decodes_nothing(
    network: Network, files: list[Path], geometry: str
) -> None:
    sha256 = hashes(files)
    first = score(network, files, geometry=geometry, cache_limit=10**8)
    for file in files:
        file.unlink()
    second = score(network, files, sha256=sha256, geometry=geometry, cache_limit=10**8)
    np.testing.assert_array_equal(first, second)
    with pytest.raises(UserError, match="No such file"):  # another seed has another cache
        score(network, files, sha256=sha256, geometry=geometry, cache_limit=10**8, seed=2)


def test_a_cache_too_small_for_all_images_makes_no_difference(
    network: Network, files: list[Path]
) -> None:
    whole = score(network, files)
    room_for_two = 2 * len(LEVELS) * SIZE * SIZE * 3
    for _ in range(2):
        np.testing.assert_array_equal(score(network, files, cache_limit=room_for_two), whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_decoded_once_for_all_perturbations(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    log = tmp_path / "log"

    def logged(data: bytes) -> Image.Image:
        with log.open("a") as file:
            file.write(hashlib.sha256(data).hexdigest() + "\n")
        return read_image(data)

    monkeypatch.setattr(scoring, "read_image", logged)
    network = build(SPEC)
    score(network, files, device=Device("cpu", "fp32", workers))
    assert sorted(log.read_text().split()) == sorted(hashes(files))


@pytest.mark.parametrize("perturbations", [LEVELS, LEVELS[1:]])
def test_a_damaged_image_is_named(
    network: Network, files: list[Path], perturbations: list[PerturbationLevel]
) -> None:
    files[5].write_bytes(files[5].read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"5\.jpg.*truncated"):
        score(network, files, perturbations)


def test_an_image_too_long_for_a_format_is_named_with_the_perturbation(
    network: Network, tmp_path: Path
) -> None:
    long = tmp_path / "long.png"
    Image.new("RGB", (70000, 2)).save(long)
    with pytest.raises(UserError, match=r"long\.png.*jpeg:50.*JPEG"):
        score(network, [long], select_perturbations("jpeg:50"))


def test_progress_counts_every_image_under_every_perturbation(
    network: Network, files: list[Path]
) -> None:
    seen: list[tuple[int, int]] = []
    score_perturbations(
        network, files, hashes(files), Preprocess(SIZE, "resize"), LEVELS, CPU, seed=1,
        batch_size=4, cache_limit=0, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    total = len(LEVELS) * len(files)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
