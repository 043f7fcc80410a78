"""Tests of batches of images and their order, with and without workers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from synthdetect.images.batches import Batch, Batches, ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.system.errors import UserError

SIZE = 16


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Thirteen images of noise, larger than the crop."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number}.png" for number in range(13)]
    for number, file in enumerate(files):
        pixels = rng.integers(0, 256, (24 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return files


def batches(
    files: list[Path],
    *,
    size: int = 4,
    seed: int | None = None,
    geometry: str = "random_crop",
    workers: int = 0,
    targets: npt.ArrayLike | None = None,
) -> Batches:
    dataset = ImageFiles(files, Preprocess(SIZE, geometry), targets=targets, seed=seed)
    return Batches(dataset, Order(len(files), size, seed=seed), workers)


def rows_of(order: Order, epoch: int = 0) -> list[list[int]]:
    order.epoch = epoch
    return [[row for _, row in batch] for batch in order]


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets.nan_to_num(-1), other.targets.nan_to_num(-1))
        assert one.unreadable == other.unreadable


class TestOrder:
    def test_without_seed_rows_come_in_their_own_order(self) -> None:
        assert rows_of(Order(7, 3)) == [[0, 1, 2], [3, 4, 5], [6]]
        assert rows_of(Order(7, 3), epoch=5) == [[0, 1, 2], [3, 4, 5], [6]]

    def test_it_depends_only_on_seed_and_epoch(self) -> None:
        order = Order(50, 8, seed=1)
        first = rows_of(order, 3)
        rows_of(order, 4)
        assert rows_of(order, 3) == first == rows_of(Order(50, 8, seed=1), 3)

    def test_epochs_and_seeds_differ(self) -> None:
        orders = [rows_of(Order(50, 8, seed=s), e) for s, e in ((1, 0), (1, 1), (2, 0), (2, 1))]
        assert len({str(order) for order in orders}) == 4
        assert rows_of(Order(50, 8)) not in orders

    @pytest.mark.parametrize("seed", [None, 1])
    @pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 7, 8, 9, 32, 33])
    @pytest.mark.parametrize("size", [1, 2, 4, 64])
    def test_every_row_comes_exactly_once(self, rows: int, size: int, seed: int | None) -> None:
        order = Order(rows, size, seed=seed)
        found = rows_of(order)
        assert sorted(row for batch in found for row in batch) == list(range(rows))
        assert len(found) == len(order)
        assert all(found)  # none is empty
        assert all(len(batch) <= size + 1 for batch in found)

    @pytest.mark.parametrize(
        ("rows", "sizes"),
        [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (5, [5]), (1, [1]), (13, [4, 4, 5])],
    )
    def test_in_training_a_single_last_image_joins_the_batch_before(
        self, rows: int, sizes: list[int]
    ) -> None:
        assert [len(batch) for batch in rows_of(Order(rows, 4, seed=1))] == sizes

    def test_strata_occur_equally_often(self) -> None:
        real, one, other = np.arange(30), np.arange(30, 80), np.arange(80, 83)
        order = Order(83, 8, seed=1, strata=[[real], [one, other]])
        for epoch in range(4):
            rows = np.concatenate(rows_of(order, epoch))
            assert len(rows) == len(set(rows.tolist())) == 83
            counts = np.bincount(rows % 83, minlength=83)
            assert {counts[real].sum(), counts[30:].sum()} == {41, 42}
            assert abs(int(counts[one].sum()) - int(counts[other].sum())) <= 1
            assert set(counts[real]) == {1, 2}
            assert counts[one].max() == 1
            assert counts[other].max() - counts[other].min() <= 1
        chosen = [{row % 83 for batch in rows_of(order, e) for row in batch} for e in (0, 1)]
        assert chosen[0] != chosen[1]

    def test_strata_depend_only_on_seed_and_epoch_and_change_no_size(self) -> None:
        strata = [[np.arange(5)], [np.arange(5, 21)]]
        order = Order(21, 4, seed=1, strata=strata)
        first = rows_of(order, 3)
        rows_of(order, 4)
        assert rows_of(order, 3) == first == rows_of(Order(21, 4, seed=1, strata=strata), 3)
        assert [len(batch) for batch in first] == [4, 4, 4, 4, 5]
        assert first != rows_of(order, 4)

    @pytest.mark.parametrize("strata", [None, [[np.arange(6)], [np.arange(6, 24)]]])
    def test_the_rows_of_a_group_follow_each_other(self, strata: list[list[Any]] | None) -> None:
        groups = np.arange(24) % 5
        order = Order(24, 4, seed=1, strata=strata, groups=groups)
        epochs = [[row for batch in rows_of(order, n) for row in batch] for n in (1, 2)]
        for rows in epochs:
            found = groups[np.array(rows) % 24]
            assert len(rows) == len(set(rows)) == 24
            assert (np.diff(found) != 0).sum() == 4  # five groups, each in one piece
        first, second = (groups[np.array(rows) % 24].tolist() for rows in epochs)
        assert list(dict.fromkeys(first)) != list(dict.fromkeys(second))
        again = Order(24, 4, seed=1, strata=strata, groups=groups)
        assert [row for batch in rows_of(again, 2) for row in batch] == epochs[1]

    def test_keys_carry_the_epoch(self) -> None:
        order = Order(3, 2, seed=1)
        order.epoch = 7
        assert {epoch for batch in order for epoch, _ in batch} == {7}


class TestImages:
    @pytest.mark.parametrize("geometry", ["resize", "center_crop", "random_crop", "resize_crop"])
    def test_in_evaluation_they_are_preprocessed(self, pictures: list[Path], geometry: str) -> None:
        preprocess = Preprocess(SIZE, geometry)
        found = list(batches(pictures, geometry=geometry).epoch(3))
        assert [batch.rows.tolist() for batch in found] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9, 10, 11],
            [12],
        ]
        for batch in found:
            for row, image in zip(batch.rows.tolist(), batch.images, strict=True):
                expected = preprocess(pictures[row].read_bytes())
                np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_they_are_bytes_with_channels_last(self, pictures: list[Path], workers: int) -> None:
        for batch in batches(pictures, workers=workers).epoch(0):
            assert batch.images.shape == (len(batch.rows), 3, SIZE, SIZE)
            assert batch.images.dtype == torch.uint8
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert batch.rows.dtype == torch.int64
            assert batch.unreadable == []

    def test_in_training_crops_differ_between_epochs(self, pictures: list[Path]) -> None:
        dataset = ImageFiles(pictures, Preprocess(SIZE, "random_crop"), seed=1)
        crops = [dataset[epoch, 5][1] for epoch in (0, 0, 1, 2)]
        np.testing.assert_array_equal(crops[0], crops[1])
        assert len({np.asarray(crop).tobytes() for crop in crops}) == 3

    def test_a_repeated_image_has_a_crop_of_its_own(self, pictures: list[Path]) -> None:
        preprocess = Preprocess(SIZE, "random_crop")
        dataset = ImageFiles(pictures, preprocess, targets=np.arange(13), seed=1)
        once, again = dataset[0, 1], dataset[0, 1 + len(pictures)]
        assert again.target == once.target == 1
        assert again.row == 1 + len(pictures)
        assert not np.array_equal(once.pixels, again.pixels)

    def test_crops_differ_between_rows_and_seeds(self, pictures: list[Path]) -> None:
        same = [pictures[12]] * 4
        preprocess = Preprocess(SIZE, "random_crop")
        crops = {
            np.asarray(ImageFiles(same, preprocess, seed=seed)[0, row][1]).tobytes()
            for seed in (1, 2)
            for row in range(4)
        }
        assert len(crops) > 6

    def test_a_geometry_without_random_crops_ignores_the_seed(self, pictures: list[Path]) -> None:
        preprocess = Preprocess(SIZE, "center_crop")
        with_seed, without = (ImageFiles(pictures, preprocess, seed=s)[4, 2] for s in (1, None))
        np.testing.assert_array_equal(with_seed[1], without[1])

    def test_names_of_any_length_are_in_one_arrow_buffer(self, pictures: list[Path]) -> None:
        dataset = ImageFiles(pictures, Preprocess(SIZE, "resize"))
        assert dataset.files.type == pa.large_string()
        assert dataset.files.to_pylist() == [str(file) for file in pictures]
        assert len(dataset) == 13


class TestTargets:
    TARGETS = np.linspace(0, 1, 13)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_each_image_comes_with_its_target(self, pictures: list[Path], workers: int) -> None:
        for batch in batches(pictures, seed=1, workers=workers, targets=self.TARGETS).epoch(3):
            assert batch.targets.dtype == torch.float32
            expected = self.TARGETS[batch.rows.numpy()].astype(np.float32)
            assert batch.targets.tolist() == expected.tolist()

    def test_the_target_of_an_unreadable_image_is_left_out_with_it(
        self, pictures: list[Path]
    ) -> None:
        pictures[1].write_text("broken")
        pictures[12].unlink()
        found = list(batches(pictures, targets=np.arange(13)).epoch(0))
        assert [batch.targets.tolist() for batch in found] == [
            [0, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [],
        ]  # fmt: skip
        assert found[3].targets.dtype == torch.float32

    def test_unknown_targets_are_nan(self, pictures: list[Path]) -> None:
        for batch in batches(pictures).epoch(0):
            assert batch.targets.shape == batch.rows.shape
            assert batch.targets.isnan().all()

    def test_all_targets_are_known_by_row(self, pictures: list[Path]) -> None:
        """A column of a manifest is a series whose index need not begin at 0."""
        labels = pd.Series([0, 1] * 6 + [1], index=range(100, 113), dtype="int8")
        reader = batches(pictures, seed=1, targets=labels)
        assert reader.targets.dtype == np.float32
        assert reader.targets.tolist() == labels.tolist()
        for batch in reader.epoch(0):
            assert batch.targets.tolist() == labels.to_numpy()[batch.rows.numpy()].tolist()

    def test_other_squares_of_the_same_images_have_the_same_targets(
        self, pictures: list[Path]
    ) -> None:
        dataset = ImageFiles(pictures, Preprocess(SIZE, "resize"), targets=self.TARGETS)
        other = dataset.seen_by(Preprocess(8, "resize"))
        item = other[0, 5]
        assert (item.row, np.shape(item.pixels)) == (5, (8, 8, 3))
        assert item.target == np.float32(self.TARGETS[5])


class TestWorkers:
    def test_the_number_of_workers_has_no_effect(self, pictures: list[Path]) -> None:
        pictures[3].write_text("broken")
        alone = batches(pictures, seed=1)
        parallel = batches(pictures, seed=1, workers=2)
        for epoch in (0, 1, 5, 0):
            expected = list(alone.epoch(epoch))
            assert_equal(list(parallel.epoch(epoch)), expected)
            assert sum(len(batch.rows) for batch in expected) == 12

    def test_an_epoch_can_be_stopped_early(self, pictures: list[Path]) -> None:
        parallel = batches(pictures, seed=1, workers=2)
        stopped = parallel.epoch(0)
        next(stopped)
        stopped.close()  # type: ignore[attr-defined]
        assert_equal(list(parallel.epoch(1)), list(batches(pictures, seed=1).epoch(1)))

    def test_the_number_of_batches_and_images(self, pictures: list[Path]) -> None:
        assert (len(batches(pictures, seed=1)), batches(pictures).images) == (3, 13)
        assert len(batches(pictures)) == 4


class TestUnreadable:
    def test_they_are_reported_and_the_others_returned(self, pictures: list[Path]) -> None:
        whole = list(batches(pictures).epoch(0))
        pictures[1].write_text("broken")
        pictures[2].unlink()
        pictures[12].write_bytes(b"")
        found = list(batches(pictures).epoch(0))
        assert [batch.unreadable for batch in found] == [
            [(1, "not an image of a known format"), (2, "No such file or directory")],
            [],
            [],
            [(12, "the file is empty")],
        ]
        assert found[0].rows.tolist() == [0, 3]
        assert torch.equal(found[0].images, whole[0].images[[0, 3]])
        assert torch.equal(found[1].images, whole[1].images)
        assert len(found[3].rows) == len(found[3].images) == 0
        assert found[3].images.ndim == 4

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_strict_epoch_names_the_file(self, pictures: list[Path], workers: int) -> None:
        reader = batches(pictures, workers=workers)
        assert len(list(reader.strict_epoch(0))) == 4
        pictures[6].write_text("broken")
        message = f"^{re.escape(str(pictures[6]))}: .*: not an image of a known format"
        with pytest.raises(UserError, match=message):
            list(reader.strict_epoch(1))

    def test_a_strict_epoch_yields_the_batches_before(self, pictures: list[Path]) -> None:
        pictures[6].write_text("broken")
        strict = batches(pictures).strict_epoch(0)
        assert next(strict).rows.tolist() == [0, 1, 2, 3]
        with pytest.raises(UserError):
            next(strict)
