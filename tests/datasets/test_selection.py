"""Selection of the training images, and changes of the train split."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.options import DataOptions
from synthdetect.datasets.schema import COLUMNS
from synthdetect.datasets.selection import (
    SUPPLEMENT,
    append_supplement,
    merge_supplement_into_train,
    move_val_to_train,
    one_class_categories,
    select,
)
from synthdetect.datasets.splits import check_splits
from synthdetect.runs.options import TrainOptions
from synthdetect.system.errors import UserError

ROOT = Path("/data/first")


def manifest_of(rows: list[tuple[object, ...]], root: Path = ROOT, name: str = "mine") -> Manifest:
    table = pd.DataFrame(rows, columns=[*COLUMNS[1:]])
    table.insert(0, "path", [f"{i}.jpg" for i in range(len(rows))])
    return Manifest(table, root, name)


def row(
    label: int, split: str = "train", generator: str = "", category: str = "", source: str = ""
) -> tuple[object, ...]:
    return label, split, generator, category, source


@pytest.fixture
def mixed() -> Manifest:
    """Train: 30 real and 20 gan cats, 10 real and 25 ldm dogs, 5 real cars. Val, test: 2 each."""
    kinds = [
        *[row(0, "train", "", "cat")] * 30,
        *[row(1, "train", "gan", "cat")] * 20,
        *[row(0, "train", "", "dog")] * 10,
        *[row(1, "train", "ldm", "dog")] * 25,
        *[row(0, "train", "", "car")] * 5,
        row(0, "val", "", "dog"),
        row(1, "val", "ldm", "dog"),
        row(0, "test", "", "ship"),
        row(1, "test", "unseen", "cat"),
    ]
    order = np.random.default_rng(0).permutation(len(kinds))
    return manifest_of([kinds[i] for i in order])


def training(manifest: Manifest) -> dict[tuple[int, str, str], int]:
    table = manifest.split("train").table
    sizes = table.groupby(["label", "generator", "category"]).size()
    return {(label, generator, category): n for (label, generator, category), n in sizes.items()}


def rest(manifest: Manifest) -> pd.DataFrame:
    table = manifest.table
    return table[table["split"] != "train"].reset_index(drop=True)


class TestSelecting:
    def test_an_empty_selection_changes_nothing(self, mixed: Manifest) -> None:
        pd.testing.assert_frame_equal(select(mixed, DataOptions(), seed=1).table, mixed.table)

    def test_generators_keep_the_real_images(self, mixed: Manifest) -> None:
        chosen = select(mixed, DataOptions(generators=("gan",)), seed=1)
        assert training(chosen) == {
            (0, "", "cat"): 30,
            (0, "", "dog"): 10,
            (0, "", "car"): 5,
            (1, "gan", "cat"): 20,
        }

    def test_several_generators_add_up(self, mixed: Manifest) -> None:
        chosen = select(mixed, DataOptions(generators=("ldm", "gan")), seed=1)
        assert training(chosen) == training(mixed)

    def test_categories_select_both_labels(self, mixed: Manifest) -> None:
        chosen = select(mixed, DataOptions(categories=("dog", "car")), seed=1)
        assert training(chosen) == {
            (0, "", "dog"): 10,
            (0, "", "car"): 5,
            (1, "ldm", "dog"): 25,
        }

    def test_options_can_be_combined(self, mixed: Manifest) -> None:
        chosen = select(mixed, DataOptions(generators=("gan",), categories=("cat",)), seed=1)
        assert training(chosen) == {(0, "", "cat"): 30, (1, "gan", "cat"): 20}

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            (
                DataOptions(generators=("gan", "dalle", "unseen")),
                r"--generators: dalle, unseen .*mine.*gan, ldm",
            ),
            (
                DataOptions(categories=("ship",)),
                r"--categories: ship .*mine.*car, cat, dog",
            ),
            (DataOptions(categories=("Cat",)), "--categories: Cat "),
        ],
    )
    def test_unknown_names_are_refused_with_the_known_ones(
        self, mixed: Manifest, choice: DataOptions, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            select(mixed, choice, seed=1)

    def test_a_manifest_without_names_is_refused(self) -> None:
        manifest = manifest_of([row(0), row(1)])
        with pytest.raises(UserError, match=r"--generators: gan .*none"):
            select(manifest, DataOptions(generators=("gan",)), seed=1)

    @pytest.mark.parametrize(
        ("per_category", "cat", "dog"), [(8, 4, 4), (9, 4, 4), (30, 15, 10), (1000, 20, 10)]
    )
    def test_categories_are_balanced_exactly(
        self, mixed: Manifest, per_category: int, cat: int, dog: int
    ) -> None:
        chosen = select(mixed, DataOptions(per_category=per_category), seed=1)
        assert training(chosen) == {  # cars have no synthetic images
            (0, "", "cat"): cat,
            (1, "gan", "cat"): cat,
            (0, "", "dog"): dog,
            (1, "ldm", "dog"): dog,
        }

    def test_images_without_category_are_balanced_as_one(self) -> None:
        manifest = manifest_of([row(0)] * 30 + [row(1)] * 10)
        assert training(select(manifest, DataOptions(per_category=16), seed=1)) == {
            (0, "", ""): 8,
            (1, "", ""): 8,
        }

    @pytest.mark.parametrize(("number", "real", "synthetic"), [(45, 22, 23), (60, 30, 30)])
    def test_max_images_keeps_the_classes_in_proportion(
        self, mixed: Manifest, number: int, real: int, synthetic: int
    ) -> None:
        labels = select(mixed, DataOptions(max_images=number), seed=1).split("train").table["label"]
        assert len(labels) == number
        assert (labels == 0).sum() == pytest.approx(real, abs=1)
        assert (labels == 1).sum() == pytest.approx(synthetic, abs=1)

    def test_max_images_keeps_a_rare_class_in_proportion(self) -> None:
        manifest = manifest_of([row(0)] * 900 + [row(1)] * 100)
        labels = select(manifest, DataOptions(max_images=50), seed=1).split("train").table["label"]
        assert labels.value_counts().to_dict() == {0: 45, 1: 5}

    @pytest.mark.parametrize("number", [90, 91, 10_000])
    def test_a_larger_max_images_changes_nothing(self, mixed: Manifest, number: int) -> None:
        chosen = select(mixed, DataOptions(max_images=number), seed=1)
        pd.testing.assert_frame_equal(chosen.table, mixed.table)

    @pytest.mark.parametrize(
        "choice",
        [
            DataOptions(generators=("gan",)),
            DataOptions(categories=("cat",)),
            DataOptions(per_category=4),
            DataOptions(max_images=6),
            DataOptions(generators=("gan",), categories=("cat",), per_category=4, max_images=2),
        ],
    )
    def test_validation_and_test_stay_whole(self, mixed: Manifest, choice: DataOptions) -> None:
        chosen = select(mixed, choice, seed=1)
        assert len(chosen.split("train")) < len(mixed.split("train"))
        pd.testing.assert_frame_equal(rest(chosen), rest(mixed))
        # The rows keep their order and get a new index.
        numbers = chosen.table["path"].str.removesuffix(".jpg").astype(int)
        assert numbers.is_monotonic_increasing
        assert chosen.table.index.tolist() == list(range(len(chosen)))

    @pytest.mark.parametrize("choice", [DataOptions(per_category=8), DataOptions(max_images=20)])
    def test_the_seed_decides_which_images(self, mixed: Manifest, choice: DataOptions) -> None:
        first, second, other = (set(select(mixed, choice, seed=s).table["path"]) for s in (1, 1, 2))
        assert first == second
        assert first != other


def test_categories_of_one_class_are_listed_and_may_not_be_all(mixed: Manifest) -> None:
    assert one_class_categories(mixed) == ("car",)
    with pytest.raises(UserError, match="--per-category: "):
        TrainOptions.resolve({"per_category": 1})
    lone = manifest_of([row(0, category="sea"), row(1, category="sky")])
    with pytest.raises(UserError, match="--per-category: "):
        select(lone, DataOptions(per_category=4), seed=0)


class TestSupplementing:
    @pytest.fixture
    def extra(self) -> Manifest:
        rows = [row(0, "test", "", "sky", "p1"), row(1, "", "flux", "sky", "")]
        return manifest_of(rows, Path("/data/second"), "second")

    def test_all_images_are_added_to_train(self, mixed: Manifest, extra: Manifest) -> None:
        appended = append_supplement(mixed, extra)
        assert appended.table["split"].iloc[-2:].tolist() == [SUPPLEMENT] * 2
        result = merge_supplement_into_train(appended)
        pd.testing.assert_frame_equal(result.table.iloc[: len(mixed)], mixed.table)
        assert result.table.iloc[len(mixed) :][list(COLUMNS)].to_numpy().tolist() == [
            ["/data/second/0.jpg", 0, "train", "", "sky", "p1"],
            ["/data/second/1.jpg", 1, "train", "flux", "sky", ""],
        ]
        assert result.table.index.tolist() == list(range(len(mixed) + 2))
        assert (result.root, result.name) == (mixed.root, mixed.name)

    def test_paths_are_those_of_the_supplement(self, mixed: Manifest, extra: Manifest) -> None:
        result = append_supplement(mixed, extra)
        files = [result.file(path) for path in result.table["path"].iloc[-2:]]
        assert files == ["/data/second/0.jpg", "/data/second/1.jpg"]

    def test_a_supplement_with_a_validation_source_is_refused(self, extra: Manifest) -> None:
        rows = [row(i % 2, split) for split in ("train", "val") for i in range(2)]
        first = manifest_of([*rows, row(0, "val", source="p1")])
        first = first.with_table(first.table.assign(sha256=""))
        extra = extra.with_table(extra.table.assign(sha256=""))
        both = merge_supplement_into_train(append_supplement(first, extra))
        with pytest.raises(UserError, match=r"source_id .*train or val"):
            check_splits(both)

    def test_a_manifest_with_a_split_of_that_name_is_refused(self, extra: Manifest) -> None:
        with pytest.raises(UserError, match=r"--supplement: mine .*'supplement'"):
            append_supplement(manifest_of([row(0, SUPPLEMENT)]), extra)

    def test_neither_manifest_is_changed(self, mixed: Manifest, extra: Manifest) -> None:
        before = mixed.table.copy(), extra.table.copy()
        append_supplement(mixed, extra)
        pd.testing.assert_frame_equal(mixed.table, before[0])
        pd.testing.assert_frame_equal(extra.table, before[1])

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("kind", ["text", "number", "truth"])
    @pytest.mark.parametrize("where", ["first", "second"])
    def test_columns_of_one_manifest_are_empty_for_the_other(
        self, extra: Manifest, kind: str, where: str
    ) -> None:
        values = {"text": ["x", "y"], "number": [5, 6], "truth": [True, False]}[kind]
        first = manifest_of([row(0), row(1)])
        if where == "first":
            first = first.with_table(first.table.assign(further=values))
            added = slice(0, 2)
        else:
            extra = extra.with_table(extra.table.assign(further=values))
            added = slice(2, 4)
        column = append_supplement(first, extra).table["further"]
        assert column.iloc[added].tolist() == values
        missing = column.drop(column.index[added])
        assert all(value == "" or pd.isna(value) for value in missing)

    def test_columns_of_both_keep_their_type(self, extra: Manifest) -> None:
        first = manifest_of([row(0), row(1)])
        first = first.with_table(first.table.assign(bytes=[1, 2], sha256=["a", "b"], exif=False))
        extra = extra.with_table(extra.table.assign(bytes=[3, 4], sha256=["c", "d"], exif=True))
        table = append_supplement(first, extra).table
        assert table["bytes"].tolist() == [1, 2, 3, 4]
        assert table["bytes"].dtype == "int64"
        assert table["exif"].dtype == "bool"
        assert table["sha256"].tolist() == ["a", "b", "c", "d"]


class TestMovingToTrain:
    @staticmethod
    def validated(source_sizes: list[int]) -> Manifest:
        sources = itertools.chain.from_iterable(
            [f"s{number}"] * size for number, size in enumerate(source_sizes)
        )
        rows = [row(i % 2, "val", source=source) for i, source in enumerate(sources)]
        return manifest_of([row(0), row(1), *rows, row(0, "test"), row(1, "test")])

    @pytest.mark.parametrize(
        ("amount", "moved"), [(1, 1), (20, 20), (99, 99), (0.2, 20), (0.99, 99), (0.004, 0)]
    )
    def test_a_number_or_a_share_of_val_moves(self, amount: float, moved: int) -> None:
        result = move_val_to_train(self.validated([1] * 100), amount, seed=1)
        sizes = result.table["split"].value_counts().to_dict()
        assert sizes == {"train": 2 + moved, "val": 100 - moved, "test": 2}

    @pytest.mark.parametrize("amount", [10, 33, 0.5])
    def test_whole_sources_move(self, amount: float) -> None:
        manifest = self.validated([4] * 10 + [7] * 5 + [1] * 25)
        result = move_val_to_train(manifest, amount, seed=3).table
        named = result[result["source_id"] != ""]
        assert named.groupby("source_id")["split"].nunique().max() == 1
        moved = int((named["split"] == "train").sum())
        wanted = amount if amount >= 1 else 50
        assert wanted - 7 < moved <= wanted

    def test_copies_of_one_file_move_together(self) -> None:
        manifest = self.validated([1] * 60)
        hashes = [f"h{i // 3}" for i in range(-2, 62)]
        table = manifest.table.assign(sha256=hashes)
        result = move_val_to_train(manifest.with_table(table), 20, seed=1).table.iloc[2:62]
        assert result.groupby("sha256")["split"].nunique().max() == 1
        assert (result["split"] == "train").sum() == 18

    def test_everything_else_is_unchanged(self) -> None:
        manifest = self.validated([2] * 20)
        before = manifest.table.copy()
        result = move_val_to_train(manifest, 10, seed=1).table
        pd.testing.assert_frame_equal(manifest.table, before)
        pd.testing.assert_frame_equal(result.drop(columns="split"), before.drop(columns="split"))
        others = before["split"] != "val"
        assert result.loc[others, "split"].tolist() == before.loc[others, "split"].tolist()

    def test_the_seed_decides(self) -> None:
        manifest = self.validated([1] * 50)
        first, second, other = (
            move_val_to_train(manifest, 10, seed=s).table["split"].tolist() for s in (1, 1, 2)
        )
        assert first == second != other

    @pytest.mark.parametrize("amount", [10, 11, 5000, 0.96])
    def test_val_is_not_emptied(self, amount: float) -> None:
        with pytest.raises(UserError, match=r"--finetune: .* 10 validation images of mine"):
            move_val_to_train(self.validated([1] * 10), amount, seed=1)

    def test_without_val_there_is_nothing_to_move(self) -> None:
        with pytest.raises(UserError, match=r"--finetune: .* 0 validation images"):
            move_val_to_train(manifest_of([row(0), row(1)]), 0.2, seed=1)
