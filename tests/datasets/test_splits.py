"""Splits: sources stay whole, shares are right, and leaking splits are refused."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.splits import (
    assign_groups,
    check_splits,
    group_codes,
    make_missing_splits,
)
from synthdetect.system.errors import UserError

SHARES = (0.7, 0.15, 0.15)


def table_of(
    source_id: Sequence[str],
    label: npt.ArrayLike = 0,
    category: Sequence[str] | str = "",
    split: Sequence[str] | str = "",
    sha256: Sequence[str] | str = "",
) -> pd.DataFrame:
    rows = len(source_id)
    table = pd.DataFrame({"path": [f"{i}.jpg" for i in range(rows)]})
    table["label"] = np.asarray(label, dtype=np.int8) if not isinstance(label, int) else label
    for name, values in (("split", split), ("generator", ""), ("category", category)):
        table[name] = values if isinstance(values, str) else list(values)
    table["source_id"] = list(source_id)
    table["sha256"] = sha256 if isinstance(sha256, str) else list(sha256)
    return table


def manifest_of(table: pd.DataFrame) -> Manifest:
    return Manifest(table, Path("/data"), "mine")


def many(rows: int, *, per_source: int = 1, seed: int = 0) -> pd.DataFrame:
    """Make images of random labels, in random order, `per_source` of each source."""
    rng = np.random.default_rng(seed)
    sources = rows // per_source
    source = np.repeat(np.arange(sources), per_source)[rng.permutation(rows)]
    return table_of(
        [f"s{number}" for number in source],
        rng.integers(0, 2, rows),
        np.array(["cat", "dog", "car"])[source % 3].tolist(),
    )


def assert_undivided(table: pd.DataFrame, part: object) -> None:
    assert pd.Series(part).groupby(table["source_id"].to_numpy()).nunique().max() == 1


class TestGroups:
    @pytest.mark.parametrize(
        ("sources", "hashes", "groups"),
        [
            (["a", "b", "a", "c"], ["", "", "", ""], [[0, 2], [1], [3]]),
            (["", "", ""], ["x", "y", "x"], [[0, 2], [1]]),
            (["", "", ""], ["", "", ""], [[0], [1], [2]]),
            # 0-1 share a source, 1-2 a content and 2-3 a source: one group without 4.
            (["a", "a", "b", "b", "c"], ["1", "2", "2", "3", "4"], [[0, 1, 2, 3], [4]]),
            (["a", "b", "c", "a", "b"], ["1", "2", "3", "3", "1"], [[0, 1, 2, 3, 4]]),
            (["x", "y"], ["y", "x"], [[0], [1]]),  # a source is not a content
        ],
    )
    def test_rows_are_linked_by_source_and_by_content(
        self, sources: list[str], hashes: list[str], groups: list[list[int]]
    ) -> None:
        codes = group_codes(table_of(sources, sha256=hashes))
        found = [np.flatnonzero(codes == code).tolist() for code in range(codes.max() + 1)]
        assert sorted(found) == groups

    def test_hashes_are_not_required(self) -> None:
        codes = group_codes(table_of(["a", "b", "a"]).drop(columns="sha256"))
        assert codes[0] == codes[2] != codes[1]

    def test_a_long_chain_is_one_group(self) -> None:
        rows = 2000
        order = np.random.default_rng(0).permutation(rows)
        sources = [f"s{i // 2}" for i in order]
        hashes = [f"h{(i + 1) // 2}" for i in order]
        assert set(group_codes(table_of(sources, sha256=hashes))) == {0}

    def test_the_index_of_the_table_does_not_matter(self) -> None:
        table = table_of(["a", "b", "a"])
        table.index = pd.Index([7, 7, 3])
        assert group_codes(table).tolist() == group_codes(table_of(["a", "b", "a"])).tolist()


class TestAssigningGroups:
    @pytest.mark.parametrize("per_source", [1, 2, 5])
    @pytest.mark.parametrize("shares", [SHARES, (0.5, 0.5), (0.2,) * 5, (0.98, 0.01, 0.01)])
    def test_shares_are_right_and_sources_undivided(
        self, per_source: int, shares: tuple[float, ...]
    ) -> None:
        table = many(10_000, per_source=per_source)
        part = assign_groups(table, shares, seed=1, by_category=True)
        sizes = np.bincount(part, minlength=len(shares)) / 10_000
        np.testing.assert_allclose(sizes, shares, atol=0.01)
        assert_undivided(table, part)

    def test_sources_of_unequal_size_are_undivided_and_shares_right(self) -> None:
        rng = np.random.default_rng(3)
        sizes = rng.geometric(0.05, 500)
        sources = np.repeat([f"s{i}" for i in range(500)], sizes)
        table = table_of(sources.tolist(), rng.integers(0, 2, len(sources)))
        part = assign_groups(table, SHARES, seed=1, by_category=False)
        np.testing.assert_allclose(np.bincount(part) / len(part), SHARES, atol=0.03)
        assert_undivided(table, part)

    def test_content_linked_across_sources_is_undivided(self) -> None:
        table = many(1000)
        table["sha256"] = [f"h{i // 4}" for i in range(1000)]
        part = assign_groups(table, SHARES, seed=1, by_category=True)
        assert (part.reshape(250, 4) == part.reshape(250, 4)[:, :1]).all()

    def test_every_part_has_each_label_and_category_in_proportion(self) -> None:
        rng = np.random.default_rng(0)
        label = (rng.random(10_000) < 0.2).astype(int)
        category = np.where(rng.random(10_000) < 0.1, "rare", "common")
        table = table_of([""] * 10_000, label, category.tolist())
        part = assign_groups(table, SHARES, seed=1, by_category=True)
        for (_, _), rows in table.groupby(["label", "category"]).indices.items():
            sizes = np.bincount(part[rows], minlength=3) / len(rows)
            np.testing.assert_allclose(sizes, SHARES, atol=0.02)

    def test_without_categories_labels_alone_are_in_proportion(self) -> None:
        table = many(3000)
        part = assign_groups(table, SHARES, seed=1, by_category=False)
        for label in (0, 1):
            sizes = np.bincount(part[table["label"] == label]) / (table["label"] == label).sum()
            np.testing.assert_allclose(sizes, SHARES, atol=0.01)
        by_category = assign_groups(table, SHARES, seed=1, by_category=True)
        assert (by_category != part).any()

    def test_a_rare_label_is_in_every_part(self) -> None:
        label = np.zeros(2000, dtype=int)
        label[:20] = 1
        for seed in range(20):
            part = assign_groups(table_of([""] * 2000, label), SHARES, seed=seed, by_category=False)
            assert set(part[:20]) == {0, 1, 2}

    def test_the_seed_decides(self) -> None:
        table = many(500)
        first, second, other = (
            assign_groups(table, SHARES, seed=s, by_category=True) for s in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, second)
        assert (first != other).mean() > 0.2

    def test_neighbouring_rows_are_not_assigned_in_turn(self) -> None:
        part = assign_groups(table_of([""] * 1000), SHARES, seed=1, by_category=False)
        gaps = np.diff(np.flatnonzero(part == 1))
        assert gaps.min() == 1
        assert gaps.max() > 12

    def test_any_order_of_rows_keeps_sources_whole_and_shares_right(self) -> None:
        table = many(2000, per_source=4)
        for seed in range(3):
            shuffled = table.sample(frac=1, random_state=seed)
            part = assign_groups(shuffled, SHARES, seed=1, by_category=True)
            assert_undivided(shuffled, part)
            np.testing.assert_allclose(np.bincount(part) / 2000, SHARES, atol=0.02)

    def test_few_large_sources_reach_every_part(self) -> None:
        sources = [f"s{i // 50}" for i in range(1000)]
        table = table_of(sources, [i % 2 for i in range(1000)])
        for seed in range(20):
            part = assign_groups(table, SHARES, seed=seed, by_category=True)
            assert_undivided(table, part)
            assert (np.abs(np.bincount(part, minlength=3) - [700, 150, 150]) <= 50).all()

    def test_one_huge_source_is_undivided(self) -> None:
        sources = ["huge"] * 900 + [f"s{i}" for i in range(100)]
        table = table_of(sources, [i % 2 for i in range(1000)])
        part = assign_groups(table, SHARES, seed=0, by_category=True)
        assert len(set(part[:900])) == 1
        np.testing.assert_allclose(np.bincount(part[900:]) / 100, SHARES, atol=0.1)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("per_source", [1, 2])
    def test_five_folds_are_equal_and_hold_both_classes(self, seed: int, per_source: int) -> None:
        table = many(200, per_source=per_source)
        fold = assign_groups(table, (0.2,) * 5, seed=seed, by_category=False)
        for number in range(5):
            chosen = table[fold == number]
            assert len(chosen) == pytest.approx(40, abs=4)
            assert chosen["label"].sum() == pytest.approx(20, abs=8)

    def test_700_000_rows_are_assigned(self) -> None:
        rows = 700_000
        rng = np.random.default_rng(0)
        source = rng.integers(0, 300_000, rows)
        table = pd.DataFrame(
            {
                "label": rng.integers(0, 2, rows).astype("int8"),
                "category": pd.Series(np.array(["a", "b", "c", "d"])[source % 4], dtype="str"),
                "source_id": pd.Series(source.astype(str), dtype="str"),
            }
        )
        part = assign_groups(table, SHARES, seed=1, by_category=True)
        lowest, highest = np.full(300_000, 9), np.full(300_000, -1)
        np.minimum.at(lowest, source, part)
        np.maximum.at(highest, source, part)
        assert (lowest == highest)[np.unique(source)].all()
        np.testing.assert_allclose(np.bincount(part) / rows, SHARES, atol=0.01)


class TestMakingSplits:
    def test_without_any_split_all_three_are_made(self) -> None:
        manifest = manifest_of(many(1000, per_source=2))
        result = make_missing_splits(manifest, seed=1, val_share=0.1, test_share=0.2)
        sizes = result.table["split"].value_counts().to_dict()
        assert sizes == pytest.approx({"train": 700, "val": 100, "test": 200}, abs=10)
        assert_undivided(result.table, result.table["split"])
        assert (manifest.table["split"] == "").all()  # the given manifest is unchanged
        assert result.table.drop(columns="split").equals(manifest.table.drop(columns="split"))

    def test_a_missing_val_is_taken_from_train_and_test_stays(self) -> None:
        table = many(1000, per_source=2)
        table["split"] = np.where(table["source_id"].str[-1] < "2", "test", "train")
        result = make_missing_splits(
            manifest_of(table), seed=1, val_share=0.15, test_share=0.15
        ).table
        was_test = table["split"] == "test"
        assert (result.loc[was_test, "split"] == "test").all()
        assert set(result.loc[~was_test, "split"]) == {"train", "val"}
        share = (result.loc[~was_test, "split"] == "val").mean()
        assert share == pytest.approx(0.15 / 0.85, abs=0.01)
        assert_undivided(result, result["split"])

    @pytest.mark.parametrize("names", [("train", "val", "test"), ("train", "val", "wild")])
    def test_given_splits_are_kept(self, names: tuple[str, ...]) -> None:
        given = list(itertools.islice(itertools.cycle(names), 90))
        manifest = manifest_of(table_of([""] * 90, split=given))
        result = make_missing_splits(manifest, seed=1, val_share=0.1, test_share=0.1)
        assert result.table["split"].tolist() == given

    @pytest.mark.parametrize(
        "sizes", [[20] * 3, [20] * 8, [100, 80, 60, 50, 40, 40, 30, 30, 20, 20, 15, 15], [90, 5, 5]]
    )
    def test_with_few_sources_all_splits_are_made_or_the_data_are_refused(
        self, sizes: list[int]
    ) -> None:
        sources = np.repeat([f"s{i}" for i in range(len(sizes))], sizes).tolist()
        manifest = manifest_of(table_of(sources, [i % 2 for i in range(len(sources))]))
        for seed in range(30):
            with contextlib.suppress(UserError):
                result = make_missing_splits(manifest, seed=seed, val_share=0.15, test_share=0.15)
                assert (seed, result.splits) == (seed, ["train", "val", "test"])
                assert_undivided(result.table, result.table["split"])

    def test_the_seed_decides(self) -> None:
        manifest = manifest_of(many(300))
        first, second, other = (
            make_missing_splits(manifest, seed=s, val_share=0.15, test_share=0.15)
            .table["split"]
            .tolist()
            for s in (1, 1, 2)
        )
        assert first == second != other

    def test_a_split_for_some_rows_only_is_refused(self) -> None:
        table = table_of(["", "", ""], split=["train", "", "val"])
        with pytest.raises(UserError, match=r"mine: 1 image\(s\) .*'1\.jpg'"):
            make_missing_splits(manifest_of(table), seed=1, val_share=0.1, test_share=0.1)

    def test_data_without_train_are_refused(self) -> None:
        table = table_of(["", "", ""], split=["val", "test", "wild"])
        with pytest.raises(UserError, match=r"mine: .*no train split .*test, val, wild"):
            make_missing_splits(manifest_of(table), seed=1, val_share=0.1, test_share=0.1)

    @pytest.mark.parametrize("given", ["", "train"])
    @pytest.mark.parametrize(("val", "test"), [(0.6, 0.5), (0.5, 0.5)])
    def test_shares_that_leave_no_training_images_are_refused(
        self, given: str, val: float, test: float
    ) -> None:
        table = many(100).assign(split=given)
        with pytest.raises(UserError, match="--val-share, --test-share: "):
            make_missing_splits(manifest_of(table), seed=1, val_share=val, test_share=test)


class TestChecking:
    @staticmethod
    def valid(**changes: dict[int, object]) -> Manifest:
        """Make train, val, test and a control from the photographs of test, then change values."""
        splits = ["train", "train", "val", "val", "test", "test", "control"]
        table = table_of(
            ["t", "t", "v", "v", "e", "e", "e"],
            [0, 1, 0, 1, 0, 1, 0],
            split=splits,
            sha256=[f"h{i}" for i in range(7)],
        )
        for column, values in changes.items():
            for row, value in values.items():
                table.loc[row, column] = value
        return manifest_of(table)

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"source_id": dict.fromkeys(range(7), "")},
            {"sha256": dict.fromkeys(range(7), "")},
            {"sha256": {6: "h4"}},  # the control repeats a real test image
            {"sha256": {0: "h9"}, "source_id": {0: "x"}},
            {"split": {4: "wild", 5: "wild", 6: "wild"}},
        ],
    )
    def test_valid_splits_pass(self, changes: dict[str, dict[int, object]]) -> None:
        check_splits(self.valid(**changes))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"source_id": {3: "t"}}, "1 source_id .*source in train or val"),
            ({"source_id": {4: "t"}}, "1 source_id .*source in train or val"),
            ({"source_id": {6: "v"}}, "1 source_id .*source in train or val"),
            ({"sha256": {2: "h0"}}, "1 sha256 .*content in train or val"),
            ({"sha256": {6: "h2"}}, "1 sha256 .*content in train or val"),
            ({"sha256": {1: "h0"}}, "1 sha256 .*other class"),
            ({"sha256": {5: "h4"}}, "1 sha256 .*other class"),
            ({"label": {1: 0}}, "train split .*real images only"),
            ({"label": {0: 1}}, "train split .*synthetic images only"),
            ({"label": {3: 0}}, "val split .*real images only"),
            ({"split": {2: "test", 3: "test"}}, "val split .*no images"),
        ],
    )
    def test_each_fault_is_refused(
        self, changes: dict[str, dict[int, object]], message: str
    ) -> None:
        with pytest.raises(UserError, match=message) as caught:
            check_splits(self.valid(**changes))
        assert str(caught.value).startswith("mine: ")

    def test_a_leak_is_reported_with_images_and_their_splits(self) -> None:
        with pytest.raises(UserError, match=r"'0\.jpg' \(train\), '4\.jpg' \(test\)"):
            check_splits(self.valid(sha256={4: "h0"}))

    def test_a_leak_of_a_large_source_is_reported_with_both_splits(self) -> None:
        table = table_of(
            ["s"] * 6,
            [0, 1] * 3,
            split=["train"] * 4 + ["val"] * 2,
            sha256=[f"h{i}" for i in range(6)],
        )
        with pytest.raises(UserError, match=r"\(val\)") as caught:
            check_splits(manifest_of(table))
        assert "(train)" in str(caught.value)

    def test_splits_that_were_made_pass(self) -> None:
        table = many(600, per_source=3)
        check_splits(
            make_missing_splits(manifest_of(table), seed=1, val_share=0.15, test_share=0.15)
        )
