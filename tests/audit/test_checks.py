"""The audit finds each planted fault under its name, and none in clean data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synthdetect.audit.checks import audit
from synthdetect.audit.findings import NOTE, WARNING, Audit
from synthdetect.audit.integrity import FULL_SEARCH, QUICK_SEARCH, SEARCH_CUT_SHORT, NearSearch
from synthdetect.audit.metadata import CHANCE, MAX_ROWS, PROPERTIES
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.images import reading as images

Edit = Callable[[pd.DataFrame], object]


def clean(sources: int = 100, *, seed: int = 0) -> pd.DataFrame:
    """Make an indexed table whose metadata are independent of the label.

    Each source has a real and a synthetic image. 60 % of the sources are in train, 20 % in val.
    """
    rng = np.random.default_rng(seed)
    rows = 2 * sources
    source = np.repeat(np.arange(sources), 2)
    label = np.tile([0, 1], sources).astype(np.int8)
    split = np.array(["train", "train", "train", "val", "test"], dtype=object)[source % 5]
    table = pd.DataFrame({"path": [f"{i}.jpg" for i in range(rows)], "label": label})
    table["split"] = split
    table["generator"] = np.where(label == 1, "glide", "")
    table["category"] = rng.choice(["cat", "dog"], rows)
    table["source_id"] = [f"s{number}" for number in source]
    table["sha256"] = [f"{i:064x}" for i in range(rows)]
    table["width"] = rng.integers(300, 900, rows)
    table["height"] = rng.integers(300, 900, rows)
    table["format"] = rng.choice(["JPEG", "PNG"], rows, p=[0.9, 0.1])
    table["mode"] = rng.choice(["RGB", "L"], rows, p=[0.9, 0.1])
    quality = rng.integers(70, 99, rows)
    table["jpeg_quality"] = np.where(table["format"] == "JPEG", quality, 0)
    table["exif"] = rng.random(rows) < 0.3
    table["bytes"] = (table["width"] * table["height"] * rng.uniform(0.2, 0.5, rows)).astype(int)
    table["provenance"] = rng.choice(["", "camera"], rows, p=[0.8, 0.2])
    table["error"] = ""
    return table


def audited(table: pd.DataFrame, **options: int) -> Audit:
    manifest = Manifest(table.reset_index(drop=True), Path("/nowhere"), "made")
    return audit(manifest, seed=0, near_duplicates=None, **options)


def synthetic(table: pd.DataFrame, share: float = 0.9) -> "pd.Series[bool]":
    """Select most of the synthetic rows."""
    return (table["label"] == 1) & (np.random.default_rng(1).random(len(table)) < share)


def named(found: Audit, name: str) -> pd.DataFrame:
    return found.findings[found.findings["name"] == name]


def png(table: pd.DataFrame) -> None:
    table.loc[synthetic(table), ["format", "jpeg_quality"]] = ["PNG", 0]


def quality(table: pd.DataFrame) -> None:
    table.loc[synthetic(table) & (table["format"] == "JPEG"), "jpeg_quality"] = 75


def squares(table: pd.DataFrame) -> None:
    """Make the synthetic images squares of one size, which changes size and aspect ratio."""
    table.loc[synthetic(table), ["width", "height"]] = 512


def larger(table: pd.DataFrame) -> None:
    """Double the sides of the synthetic images without changing their aspect ratios."""
    rows = table["label"] == 1
    table.loc[rows, ["width", "height"]] *= 2
    table["bytes"] = table["width"] * table["height"] // 3


def mode(table: pd.DataFrame) -> None:
    table.loc[synthetic(table), "mode"] = "RGBA"


def exif(table: pd.DataFrame) -> None:
    table.loc[table["label"] == 1, "exif"] = False
    table.loc[table["label"] == 0, "exif"] = True


def generator_metadata(table: pd.DataFrame) -> None:
    table.loc[synthetic(table), "provenance"] = "ComfyUI"


def copy_across_splits(table: pd.DataFrame) -> None:
    table.loc[8, ["sha256", "source_id"]] = [table.loc[0, "sha256"], "s4"]
    assert (table.loc[0, "split"], table.loc[8, "split"]) == ("train", "test")


def copy_across_labels(table: pd.DataFrame) -> None:
    table.loc[1, "sha256"] = table.loc[0, "sha256"]


def source_across_splits(table: pd.DataFrame) -> None:
    table.loc[8, "source_id"] = table.loc[0, "source_id"]


def one_platform(table: pd.DataFrame) -> None:
    table["platform"] = np.where(table["label"] == 1, "Facebook", "X")


def content(table: pd.DataFrame) -> None:
    table.loc[table["label"] == 1, "category"] = "horse"


def real_generator(table: pd.DataFrame) -> None:
    table["generator"] = np.where(table["label"] == 1, "glide", "camera")


def unreadable(table: pd.DataFrame) -> None:
    table.loc[3, ["error", "format", "width", "height"]] = ["truncated", "", 0, 0]


def imbalance(table: pd.DataFrame) -> None:
    rows = table.index[(table["label"] == 1) & (table["split"] == "val")]
    table.loc[rows[4:], "label"] = 0


PLANTED: list[tuple[Edit, set[str]]] = [
    (png, {"format_leak", "metadata_baseline"}),
    (quality, {"jpeg_quality_leak", "metadata_baseline"}),
    (squares, {"size_leak", "aspect_leak", "metadata_baseline"}),
    (larger, {"size_leak", "metadata_baseline"}),
    (mode, {"mode_leak", "metadata_baseline"}),
    (exif, {"exif_leak", "metadata_baseline"}),
    (generator_metadata, {"provenance_leak", "metadata_baseline"}),
    (copy_across_splits, {"duplicate_across_splits"}),
    (copy_across_labels, {"duplicate_across_labels"}),
    (source_across_splits, {"source_across_splits"}),
    (one_platform, {"platform_one_side"}),
    (content, {"category_one_side"}),
    (real_generator, {"generator_one_side"}),
    (unreadable, {"unreadable"}),
    (imbalance, {"imbalance"}),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_clean_data_have_no_warnings(seed: int) -> None:
    found = audited(clean(seed=seed))
    assert found.warnings == [], found.findings["finding"].tolist()


@pytest.mark.parametrize(("plant", "names"), PLANTED, ids=lambda v: getattr(v, "__name__", ""))
def test_a_planted_fault_is_found_under_its_name_and_no_other(plant: Edit, names: set[str]) -> None:
    table = clean()
    plant(table)
    found = audited(table)
    assert set(found.warnings) == names, found.findings["finding"].tolist()
    assert (found.findings.loc[found.findings["severity"] == WARNING, "advice"] != "").all()
    if "metadata_baseline" in names:
        assert found.metadata_auc > 0.6


def test_a_leak_in_one_part_is_found_in_that_part() -> None:
    table = clean(400)
    rows = synthetic(table) & (table["split"] == "test")
    table.loc[rows, ["format", "jpeg_quality"]] = ["PNG", 0]
    found = audited(table)
    (leak,) = named(found, "format_leak")["finding"]
    assert leak.startswith("test: ")
    assert "AUC 0." in leak
    assert "JPEG is" in leak
    baseline = found.tables["baseline"].set_index(["part", "property"])["auc"]
    assert baseline["test", "format"] > 0.8 > 0.6 > baseline["train+val", "format"]


def test_tables_count_each_value_by_label() -> None:
    table = clean()
    png(table)
    found = audited(table)
    for name in PROPERTIES:
        rows = found.tables[name]
        assert {"part", "value", "real", "synthetic"} < set(rows)
        if name != "jpeg_quality":  # PNGs have none
            shares = rows.groupby("part")[["real_share", "synthetic_share"]].sum()
            np.testing.assert_allclose(shares, 1)
    formats = found.tables["format"].set_index(["part", "value"])
    synthetic_train = table[(table["label"] == 1) & table["split"].isin(["train", "val"])]
    expected = (synthetic_train["format"] == "PNG").sum()
    assert formats.loc[("train+val", "PNG"), "synthetic"] == expected
    assert formats.loc[("train+val", "PNG"), "synthetic_share"] == expected / len(synthetic_train)


def test_fewer_bits_per_pixel_give_a_note_but_are_not_metadata() -> None:
    table = clean()
    table.loc[table["label"] == 1, "bytes"] //= 3
    found = audited(table)
    assert found.warnings == []
    assert named(found, "bits_per_pixel_leak")["severity"].tolist() == [NOTE, NOTE]


def test_a_single_generator_gives_no_finding_and_an_unseen_one_a_note() -> None:
    table = clean()
    assert named(audited(table), "generator_one_side").empty
    table.loc[(table["label"] == 1) & (table["split"] == "test"), "generator"] = "flux"
    (note,) = named(audited(table), "generator_one_side").itertuples()
    assert note.severity == NOTE
    assert "in evaluation only: flux; in train or val only: glide" in note.finding


def test_a_control_of_real_images_only_is_not_measured_and_gives_no_warning() -> None:
    table = clean()
    control = table[(table["split"] == "test") & (table["label"] == 0)].assign(
        split="control", format="PNG", jpeg_quality=0, width=64, height=64
    )
    control["path"], control["sha256"] = "c" + control["path"], "c" + control["sha256"]
    found = audited(pd.concat([table, control], ignore_index=True))
    assert found.warnings == []  # although it shares its sources with test
    assert "control" not in set(found.tables["baseline"]["part"])
    assert "control" in set(found.tables["format"]["part"])


def test_copies_in_two_evaluation_splits_or_in_one_split_give_a_note_only() -> None:
    table = clean()
    test = table.index[table["split"] == "test"]
    table.loc[test[2:4], "split"] = "control"
    table.loc[test[2:4], "source_id"] = "another"
    table.loc[test[2], "sha256"] = table.loc[test[0], "sha256"]
    table.loc[2, "sha256"] = table.loc[0, "sha256"]
    found = audited(table)
    assert found.warnings == []
    (note,) = named(found, "duplicate_within_split").itertuples()
    assert note.value == 2
    assert len(found.tables["duplicates"]) == 2


def test_an_auc_that_may_be_chance_gives_a_note_and_no_warning() -> None:
    for seed in range(20):
        found = audited(clean(60, seed=seed))
        baseline = found.tables["baseline"].set_index(["part", "property"])
        row = baseline.loc[("test", "together")]
        if row["auc"] > 0.6 and row["p"] >= CHANCE:
            (note,) = named(found, "metadata_baseline").itertuples()
            assert note.severity == NOTE
            assert "chance" in note.finding
            return
    pytest.fail("no such table in twenty")


def test_too_few_sources_give_a_note_and_no_auc() -> None:
    table = clean(20)
    png(table)
    found = audited(table)
    assert "test: 4 real and 4 synthetic" in " ".join(named(found, "too_few_sources")["finding"])
    assert "test" not in set(found.tables["baseline"]["part"])
    alone = audited(table[table["split"] == "test"])
    assert np.isnan(alone.metadata_auc)
    assert alone.warnings == []


def test_images_without_a_source_are_counted() -> None:
    table = clean()
    table.loc[:9, "source_id"] = ""
    assert named(audited(table), "source_unknown")["value"].tolist() == [10]
    assert named(audited(table), "same_source_across_labels")["value"].tolist() == [95]


def test_unreadable_files_of_the_manifest_and_excluded_ones_are_listed() -> None:
    table = clean()
    unreadable(table)
    excluded = pd.DataFrame({"path": ["gone.jpg"], "error": ["the file is empty"]})
    manifest = Manifest(table, Path("/nowhere"), "made")
    found = audit(manifest, seed=0, near_duplicates=None, excluded=excluded)
    assert found.tables["unreadable"].to_numpy().tolist() == [
        ["gone.jpg", "the file is empty"], ["3.jpg", "truncated"]
    ]  # fmt: skip
    assert "2 of 201 images" in named(found, "unreadable")["finding"].item()
    assert found.tables["format"]["real"].sum() + found.tables["format"]["synthetic"].sum() == 199


def test_equalised_data_have_one_format_and_quality_and_keep_their_sizes() -> None:
    table = clean()
    png(table)
    exif(table)
    larger(table)
    found = audited(table, equalise_quality=80)
    assert set(found.warnings) == {"size_leak", "metadata_baseline"}
    assert set(found.tables["format"]["value"]) == {"JPEG"}
    assert set(found.tables["jpeg_quality"]["value"]) == {"80"}
    assert set(found.tables["mode"]["value"]) == {"RGB"}
    assert "bits_per_pixel" not in found.tables
    below = table["jpeg_quality"].between(1, 79)[table["label"] == 0].mean()
    (note,) = named(found, "equalised")["finding"]
    assert f"{below:.0%} of the real" in note


def test_a_large_table_is_measured_on_sampled_sources_and_no_image_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "read_image", None)
    table = clean(25_000)
    png(table)
    found = audited(table)
    assert set(found.warnings) == {"format_leak", "metadata_baseline"}
    counts = found.tables["format"].groupby("part")[["real", "synthetic"]].sum().sum(axis=1)
    assert counts.to_dict() == {"test": 10_000, "train+val": 40_000}
    row = found.tables["baseline"].set_index(["part", "property"]).loc[("train+val", "together")]
    assert (row["images"], row["of_images"], row["sources"]) == (MAX_ROWS, 40_000, MAX_ROWS // 2)
    assert "10,000 of 40,000" in " ".join(named(found, "metadata_baseline")["finding"])


def test_the_same_seed_gives_the_same_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthdetect.audit.metadata.MAX_ROWS", 100)
    table = clean()
    first, second = audited(table), audited(table)
    assert first.tables["baseline"]["images"].max() == 100
    pd.testing.assert_frame_equal(first.tables["baseline"], second.tables["baseline"])
    pd.testing.assert_frame_equal(first.findings, second.findings)


class TestNearDuplicates:
    """Image files, which are opened to find those that look alike."""

    @pytest.fixture
    def photographs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
        monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))
        sample = load("sample")
        table = sample.table.groupby(["split", "label"]).head(15).reset_index(drop=True)
        return table.assign(path=[sample.file(path) for path in table["path"]])

    def found(self, table: pd.DataFrame, search: NearSearch = FULL_SEARCH) -> Audit:
        manifest = index(Manifest(table.reset_index(drop=True), Path("/"), "made"))
        return audit(manifest, seed=0, near_duplicates=search)

    def copied(self, table: pd.DataFrame, folder: Path, **changes: object) -> pd.DataFrame:
        """Append a smaller, recompressed copy of the first training photograph."""
        row = table[(table["split"] == "train") & (table["label"] == 0)].iloc[0].copy()
        path = folder / "copy.jpg"
        Image.open(row["path"]).resize((150, 150)).save(path, quality=60)
        for name, value in {"path": str(path), "source_id": "elsewhere", **changes}.items():
            row[name] = value
        return pd.concat([table, row.to_frame().T.infer_objects()], ignore_index=True)

    def test_photographs_of_different_sources_do_not_look_alike(
        self, photographs: pd.DataFrame
    ) -> None:
        found = self.found(photographs)
        assert found.warnings == []
        assert found.tables["duplicates"].empty
        assert len(named(found, "same_source_across_labels"))

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"split": "test"}, "near_duplicate_across_splits"),
            ({"label": 1}, "near_duplicate_across_labels"),
        ],
    )
    def test_a_recompressed_copy_is_found(
        self, photographs: pd.DataFrame, tmp_path: Path, changes: dict[str, object], name: str
    ) -> None:
        table = self.copied(photographs, tmp_path, **changes)
        found = self.found(table)
        assert name in found.warnings
        pairs = found.tables["duplicates"]
        assert str(tmp_path / "copy.jpg") in set(pairs["path_2"])
        assert set(pairs["kind"]) == {"near"}
        common = table.assign(source_id=table["source_id"].replace("elsewhere", "p000"))
        assert not [w for w in self.found(common).warnings if w.startswith("near_duplicate")]

    def test_without_splits_images_that_look_alike_give_a_warning(
        self, photographs: pd.DataFrame, tmp_path: Path
    ) -> None:
        real = photographs[(photographs["label"] == 0) & (photographs["split"] != "control")]
        table = self.copied(real, tmp_path).assign(split="")
        assert self.found(table).warnings[-1] == "near_duplicate_across_sources"

    def test_the_quick_search_looks_for_pairs_across_splits_only(
        self, photographs: pd.DataFrame, tmp_path: Path
    ) -> None:
        leaking = self.copied(photographs, tmp_path, split="test")
        found = self.found(leaking, QUICK_SEARCH)
        assert "near_duplicate_across_splits" in found.warnings
        assert (
            found.tables["duplicates"]["split_1"] != found.tables["duplicates"]["split_2"]
        ).all()
        assert not len(named(found, SEARCH_CUT_SHORT))
        within = self.found(self.copied(photographs, tmp_path), QUICK_SEARCH)
        assert within.tables["duplicates"].empty
        only_train = leaking[leaking["split"] == "train"]
        assert self.found(only_train, QUICK_SEARCH).tables["duplicates"].empty

    def test_a_search_that_is_cut_short_says_so(self, photographs: pd.DataFrame) -> None:
        found = self.found(photographs, QUICK_SEARCH._replace(images=20))
        (note,) = named(found, SEARCH_CUT_SHORT).itertuples()
        assert f"looked at 20 of {len(photographs)} images" in note.finding
        assert note.severity == NOTE
