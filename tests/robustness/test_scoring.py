"""Scoring under conditions: once decoded, the same whatever the order, workers and cache."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.geometry import GEOMETRIES, Preprocess
from synthdetect.images.perturbations import UNPERTURBED, Condition, perturb, select_conditions
from synthdetect.images.reading import read_image
from synthdetect.models.networks import Network, build
from synthdetect.robustness import scoring as perturbed
from synthdetect.robustness.scoring import PerturbedFiles, score_conditions
from synthdetect.system.errors import UserError
from synthdetect.training.devices import Device
from synthdetect.training.loop import predict

SIZE = 32
CPU = Device("cpu", "fp32", 0)
CONDITIONS = select_conditions("jpeg:50,blur:1,crop,noise:5")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return build("mobilenet_v3_large", SIZE).eval()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Nine JPEG pictures, large enough that libjpeg decodes them at a reduced scale."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.jpg" for number in range(9)]
    for number, path in enumerate(paths):
        pixels = rng.integers(0, 256, (20, 30 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((300 + number, 200)).save(path, quality=92)
    return paths


def hashes(files: list[Path]) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def score(
    network: Network, files: list[Path], conditions: list[Condition] = CONDITIONS, *,
    sha256: list[str] | None = None, geometry: str = "resize", device: Device = CPU,
    cache_limit: int = 0, seed: int = 1,
) -> npt.NDArray[np.float64]:  # fmt: skip
    return score_conditions(
        network, files, sha256 or hashes(files), Preprocess(SIZE, geometry), conditions, device,
        seed=seed, batch_size=4, cache_limit=cache_limit,
    )  # fmt: skip


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_squares_are_of_the_whole_picture_perturbed(files: list[Path], geometry: str) -> None:
    preprocess = Preprocess(SIZE, geometry)
    dataset = PerturbedFiles(files, hashes(files), preprocess, CONDITIONS[1:], seed=1)
    assert len(dataset) == len(files) * (len(CONDITIONS) - 1)
    for row in np.random.default_rng(0).permutation(len(dataset)).tolist():
        image, condition = divmod(row, len(CONDITIONS) - 1)
        data = files[image].read_bytes()
        changed = perturb(
            read_image(data), CONDITIONS[1 + condition], hashlib.sha256(data).hexdigest(), 1
        )
        np.testing.assert_array_equal(dataset[0, row][1], preprocess.square(changed))
    assert dataset.name(len(CONDITIONS)) == f"{files[1]} under blur:1"


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("cache_limit", [0, 10**8])
def test_the_unperturbed_is_plain_evaluation_to_the_last_bit(
    network: Network, files: list[Path], geometry: str, cache_limit: int
) -> None:
    images = ImageFiles(files, Preprocess(SIZE, geometry))
    batches = Batches(images, Order(len(files), 4), 0)
    plain = predict(network, batches.epoch(0), CPU, len(files))
    for _ in range(2):
        logits = score(network, files, geometry=geometry, cache_limit=cache_limit)
        assert CONDITIONS[0] == UNPERTURBED
        np.testing.assert_array_equal(logits[0], plain)


def test_each_condition_stands_in_its_row_whatever_else_is_asked_for(
    network: Network, files: list[Path]
) -> None:
    whole = score(network, files)
    assert whole.shape == (len(CONDITIONS), len(files))
    assert len({row.tobytes() for row in whole}) == len(CONDITIONS)
    for conditions in (CONDITIONS[::-1], CONDITIONS[2:4], [UNPERTURBED], CONDITIONS[1:]):
        rows = [CONDITIONS.index(condition) for condition in conditions]
        np.testing.assert_allclose(score(network, files, conditions), whole[rows], atol=1e-5)


def test_the_order_of_the_images_and_workers_change_nothing(
    network: Network, files: list[Path]
) -> None:
    whole = score(network, files)
    order = np.random.default_rng(3).permutation(len(files))
    shuffled = score(network, [files[i] for i in order])
    np.testing.assert_allclose(shuffled, whole[:, order], atol=1e-5)
    helped = score(network, files, device=Device("cpu", "fp32", 2))
    np.testing.assert_array_equal(helped, whole)


def test_copies_of_a_picture_become_one_square_whatever_they_are_called(
    files: list[Path], tmp_path: Path
) -> None:
    """No label goes in; the content alone decides, so a class cannot be treated otherwise."""
    both = [tmp_path / "real" / "a.jpg", tmp_path / "synthetic" / "b.jpg"]
    for copy in both:
        copy.parent.mkdir()
        copy.write_bytes(files[0].read_bytes())
    conditions = select_conditions("all")[1:]
    dataset = PerturbedFiles(both, hashes(both), Preprocess(SIZE, "resize"), conditions, seed=1)
    for condition in range(len(conditions)):
        real, synthetic = (dataset[0, i * len(conditions) + condition][1] for i in range(2))
        np.testing.assert_array_equal(real, synthetic)


def test_the_seed_decides_what_is_random_and_only_that(network: Network, files: list[Path]) -> None:
    one, other = score(network, files, seed=1), score(network, files, seed=2)
    same = [bool((a == b).all()) for a, b in zip(one, other, strict=True)]
    assert same == [c.perturbation in ("none", "jpeg", "blur") for c in CONDITIONS]


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
    with pytest.raises(UserError, match="No such file"):  # another seed is another cache
        score(network, files, sha256=sha256, geometry=geometry, cache_limit=10**8, seed=2)


def test_a_cache_too_small_for_all_changes_nothing(network: Network, files: list[Path]) -> None:
    whole = score(network, files)
    room_for_two = 2 * len(CONDITIONS) * SIZE * SIZE * 3
    for _ in range(2):
        np.testing.assert_array_equal(score(network, files, cache_limit=room_for_two), whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_decoded_once_for_all_conditions(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    log = tmp_path / "log"

    def logged(data: bytes) -> Image.Image:
        with log.open("a") as file:
            file.write(hashlib.sha256(data).hexdigest() + "\n")
        return read_image(data)

    monkeypatch.setattr(perturbed, "read_image", logged)
    network = build("mobilenet_v3_large", SIZE)
    score(network, files, device=Device("cpu", "fp32", workers))
    assert sorted(log.read_text().split()) == sorted(hashes(files))


@pytest.mark.parametrize("conditions", [CONDITIONS, CONDITIONS[1:]])
def test_a_damaged_image_is_named(
    network: Network, files: list[Path], conditions: list[Condition]
) -> None:
    files[5].write_bytes(files[5].read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"5\.jpg.*truncated") as caught:
        score(network, files, conditions)
    assert "Repair the image or leave it out" in str(caught.value)


def test_an_image_too_long_for_a_format_is_named_with_the_condition(
    network: Network, tmp_path: Path
) -> None:
    long = tmp_path / "long.png"
    Image.new("RGB", (70000, 2)).save(long)
    with pytest.raises(UserError, match=r"long\.png under jpeg:50: cannot be written as JPEG"):
        score(network, [long], select_conditions("jpeg:50"))


def test_progress_counts_every_square(network: Network, files: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    score_conditions(
        network, files, hashes(files), Preprocess(SIZE, "resize"), CONDITIONS, CPU, seed=1,
        batch_size=4, cache_limit=0, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    total = len(CONDITIONS) * len(files)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
