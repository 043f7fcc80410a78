"""Manifests: reading, writing and refusing them, and what they compute."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synthdetect.datasets.manifest import Manifest, load, read, write
from synthdetect.datasets.schema import COLUMNS
from synthdetect.system.errors import UserError
from tests.datasets.conftest import write_csv

NATIVE = """path,label,split,generator,category,source_id
a.jpg,real,train,,cat,s1
b.jpg,synthetic,train,gan,cat,s1
c.jpg,real,val,,dog,s2
d/d.jpg,synthetic,test,ldm,dog,s3
"""


def native(folder: Path) -> Manifest:
    return read(write_csv(folder, NATIVE))


class TestReading:
    def test_a_manifest_csv_is_read_unchanged(self, tmp_path: Path) -> None:
        manifest = native(tmp_path)
        assert tuple(manifest.table.columns) == COLUMNS
        assert manifest.table.to_numpy().tolist() == [
            ["a.jpg", 0, "train", "", "cat", "s1"],
            ["b.jpg", 1, "train", "gan", "cat", "s1"],
            ["c.jpg", 0, "val", "", "dog", "s2"],
            ["d/d.jpg", 1, "test", "ldm", "dog", "s3"],
        ]
        assert manifest.table["label"].dtype == "int8"
        assert len(manifest) == 4

    def test_paths_start_from_the_manifests_folder(self, tmp_path: Path) -> None:
        manifest = native(tmp_path)
        assert manifest.root == tmp_path.resolve()
        assert manifest.file("d/d.jpg") == str(tmp_path.resolve() / "d" / "d.jpg")
        assert manifest.file("/data/x.jpg") == "/data/x.jpg"

    @pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV", ".Parquet"])
    def test_a_written_manifest_reads_back(self, tmp_path: Path, suffix: str) -> None:
        manifest = native(tmp_path)
        file = tmp_path / f"copy{suffix}"
        write(manifest, file)
        found = read(file)
        pd.testing.assert_frame_equal(found.table, manifest.table)
        assert found.digest() == manifest.digest()

    def test_labels_are_written_as_words(self, tmp_path: Path) -> None:
        write(native(tmp_path), tmp_path / "copy.csv")
        assert (tmp_path / "copy.csv").read_text() == NATIVE
        write(native(tmp_path), tmp_path / "copy.parquet")
        labels = pd.read_parquet(tmp_path / "copy.parquet")["label"]
        assert labels.tolist() == ["real", "synthetic", "real", "synthetic"]

    def test_a_manifest_ends_in_csv_or_parquet(self, tmp_path: Path) -> None:
        manifest = native(tmp_path)
        with pytest.raises(UserError, match=r"copy\.json: .*\.csv or \.parquet"):
            write(manifest, tmp_path / "copy.json")
        assert not (tmp_path / "copy.json").exists()

    def test_path_and_label_are_enough(self, tmp_path: Path) -> None:
        table = read(write_csv(tmp_path, "label,path\nfake,x.png\nreal,y.png\n")).table
        assert table.to_numpy().tolist() == [
            ["x.png", 1, "", "", "", ""],
            ["y.png", 0, "", "", "", ""],
        ]

    def test_further_columns_are_kept_behind(self, tmp_path: Path) -> None:
        text = "platform,path,note,label\nX,a.jpg,NA,0\n007,b.jpg,,1\n"
        table = read(write_csv(tmp_path, text)).table
        assert tuple(table.columns) == (*COLUMNS, "platform", "note")
        assert table["platform"].tolist() == ["X", "007"]
        assert table["note"].tolist() == ["NA", ""]

    @pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "007", "1e5"])
    def test_names_are_text_whatever_they_look_like(self, tmp_path: Path, name: str) -> None:
        text = f"path,label,generator,source_id\n{name},1,{name},{name}\n"
        table = read(write_csv(tmp_path, text)).table
        assert table.loc[0, ["path", "generator", "source_id"]].tolist() == [name, name, name]

    def test_names_lose_blanks_around_them(self, tmp_path: Path) -> None:
        text = "path,label,split,generator\n a.jpg , Real ,train , \n"
        assert read(write_csv(tmp_path, text)).table.iloc[0].tolist()[:4] == [
            "a.jpg",
            0,
            "train",
            "",
        ]

    def test_a_byte_order_mark_is_no_part_of_a_name(self, tmp_path: Path) -> None:
        file = tmp_path / "list.csv"
        file.write_bytes(b"\xef\xbb\xbfpath,label\nb\xc3\xa4r.jpg,real\n")
        assert read(file).table["path"].tolist() == ["bär.jpg"]

    @pytest.mark.filterwarnings("error")
    def test_missing_values_in_parquet_are_empty(self, tmp_path: Path) -> None:
        table = pd.DataFrame(
            {"path": ["a", "b"], "label": [0, 1], "generator": [None, "gan"], "split": [np.nan] * 2}
        )
        table.to_parquet(tmp_path / "list.parquet")
        assert read(tmp_path / "list.parquet").table.to_numpy().tolist() == [
            ["a", 0, "", "", "", ""],
            ["b", 1, "", "gan", "", ""],
        ]

    @pytest.mark.parametrize("values", [[0, 1], [0.0, 1.0], [False, True], ["REAL", "Fake"]])
    def test_labels_in_parquet_may_be_numbers(self, tmp_path: Path, values: list[object]) -> None:
        pd.DataFrame({"path": ["a", "b"], "label": values}).to_parquet(tmp_path / "list.parquet")
        assert read(tmp_path / "list.parquet").table["label"].tolist() == [0, 1]

    def test_spellings_of_val_are_one_split(self, tmp_path: Path) -> None:
        text = "path,label,split\na,0,valid\nb,0,validation\nc,0,val\nd,0,wild\n"
        table = read(write_csv(tmp_path, text)).table
        assert table["split"].tolist() == ["val", "val", "val", "wild"]

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_splits_in_any_case_are_the_ones_with_a_role(self, tmp_path: Path, suffix: str) -> None:
        splits = ["Train", "TEST", "Valid", "Validation", "VAL", "Wild", "wild", ""]
        table = pd.DataFrame({"path": list("abcdefgh"), "label": 0, "split": splits})
        file = tmp_path / f"list.{suffix}"
        table.to_csv(file, index=False) if suffix == "csv" else table.to_parquet(file)
        found = read(file)
        expected = ["train", "test", "val", "val", "val", "Wild", "wild", ""]
        assert found.table["split"].tolist() == expected
        assert found.splits == ["train", "val", "test", "Wild", "wild"]
        assert found.table["split"].dtype == "str"


class TestRefusal:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,label\na.jpg,real\nb.jpg,maybe\n", "label 'maybe'"),
            ("path,label\na.jpg,\n", "label ''"),
            ("path,label\n", "no images"),
            ("path,label\na.jpg,0\n,1\n", "row 2 .* has no path"),
            ("path,label\na.jpg,0\n  ,1\n", "row 2 .* has no path"),
            ("path,label\na,0\nb,0\na,1\n", r"row 3 \('a'\) is listed twice"),
            ("path,label\na,0\n a ,1\n", r"row 2 \('a'\) is listed twice"),
            ("path,label\n../a.jpg,0\n", r"row 1 \('\.\./a\.jpg'\) climbs out"),
            ("path,label\na/../../b,0\n", "row 1 .* climbs out"),
            ("path,label\na\\..\\b,0\n", "row 1 .* climbs out"),
            ("path,label\na/..,0\n", "row 1 .* climbs out"),
            ("path,label\na,0\nb,0,x,y\n", "fields"),
            ("path,label\na, b.jpg,0\nc, d.jpg,1\n", "fields"),  # unquoted commas in the paths
            ("path,label\na.jpg,0\nb.jpg\n", "fields|label ''"),
            ("one,two\n1,2\n", "one, two"),
            ("path\na.jpg\n", "path"),
            ("", "empty|cannot be read"),
        ],
    )
    def test_a_fault_in_a_csv_is_reported_with_the_file(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        file = write_csv(tmp_path, text)
        with pytest.raises(UserError, match=message) as caught:
            read(file)
        assert str(caught.value).startswith(str(file))

    @pytest.mark.parametrize("path", ["a..b.jpg", "..a/b.jpg", "...", "a/b..", "/abs/a.jpg"])
    def test_two_dots_within_a_name_are_allowed(self, tmp_path: Path, path: str) -> None:
        assert read(write_csv(tmp_path, f"path,label\n{path},0\n")).table["path"].tolist() == [path]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("list.csv", b"path,label\nb\xe4r.jpg,real\n"),
            ("list.csv", b"\x00\xff\xfe" * 50),
            ("list.parquet", b""),
            ("list.parquet", b"path,label\na.jpg,real\n"),
            ("list.parquet", b"PAR1" + bytes(100) + b"PAR1"),
        ],
    )
    def test_a_file_that_is_not_a_table_is_refused_by_name(
        self, tmp_path: Path, name: str, content: bytes
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)

    @pytest.mark.parametrize("columns", [{"path": ["a"]}, {"label": [0]}, {"x": [1]}])
    def test_a_parquet_file_without_path_and_label_is_refused(
        self, tmp_path: Path, columns: dict[str, list[object]]
    ) -> None:
        pd.DataFrame(columns).to_parquet(tmp_path / "list.parquet")
        with pytest.raises(UserError, match=r"list\.parquet"):
            read(tmp_path / "list.parquet")

    def test_a_parquet_file_without_rows_is_refused(self, tmp_path: Path) -> None:
        pd.DataFrame({"path": [], "label": []}).to_parquet(tmp_path / "list.parquet")
        with pytest.raises(UserError, match="no images"):
            read(tmp_path / "list.parquet")


class TestLoading:
    def test_the_sample_has_the_documented_images(self) -> None:
        sample = load("sample")
        assert (sample.name, len(sample)) == ("sample", 1066)
        assert sample.splits == ["train", "val", "test", "control"]
        assert sample.counts().to_numpy().tolist() == [
            ["control", "real", "", 68],
            ["test", "real", "", 68],
            ["test", "synthetic", "realcugan_se", 68],
            ["test", "synthetic", "realesr_animevideov3", 34],
            ["test", "synthetic", "realesrgan_x4plus", 34],
            ["test", "synthetic", "realsr_df2k", 68],
            ["train", "real", "", 295],
            ["train", "synthetic", "realesr_animevideov3", 146],
            ["train", "synthetic", "realesrgan_x4plus", 149],
            ["val", "real", "", 68],
            ["val", "synthetic", "realesr_animevideov3", 35],
            ["val", "synthetic", "realesrgan_x4plus", 33],
        ]
        assert all(Path(sample.file(path)).is_file() for path in sample.table["path"])

    def test_each_photograph_of_the_sample_is_in_one_role(self) -> None:
        table = load("sample").table
        roles = table["split"].replace({"control": "test"})
        assert (table["source_id"] != "").all()
        assert roles.groupby(table["source_id"]).nunique().max() == 1

    def test_a_manifest_file_keeps_the_name_it_was_given(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_csv(tmp_path, NATIVE)
        monkeypatch.chdir(tmp_path)
        manifest = load("list.csv")
        assert (manifest.name, manifest.root) == ("list.csv", tmp_path.resolve())

    def test_a_path_may_start_from_the_home_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_csv(tmp_path, NATIVE)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert len(load("~/list.csv")) == 4

    def test_a_folder_in_a_known_layout_is_read(self, tmp_path: Path) -> None:
        for name in ("0_real", "1_fake"):
            (tmp_path / "train" / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "x.png")
        manifest = load(str(tmp_path))
        assert manifest.table[["path", "label", "split"]].to_numpy().tolist() == [
            ["train/0_real/x.png", 0, "train"],
            ["train/1_fake/x.png", 1, "train"],
        ]
        assert all(Path(manifest.file(path)).is_file() for path in manifest.table["path"])

    def test_a_csv_of_a_known_dialect_is_read(self, tmp_path: Path) -> None:
        manifest = load(str(write_csv(tmp_path, "filename,typ\na.png,real\nb.png,flux\n")))
        assert manifest.table[["path", "label", "generator"]].to_numpy().tolist() == [
            ["a.png", 0, ""],
            ["b.png", 1, "flux"],
        ]

    @pytest.mark.parametrize("data", ["nowhere/list.csv", "smaple", "list.parquet"])
    def test_a_path_that_does_not_exist_is_named(
        self, tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=f"^--data: '{data}' is neither"):
            load(data)


class TestManifest:
    def test_splits_come_in_the_order_of_their_roles(self, tmp_path: Path) -> None:
        splits = ["zebra", "test", "", "apple", "val", "train", "test"]
        text = "path,label,split\n" + "".join(f"{i},0,{s}\n" for i, s in enumerate(splits))
        manifest = read(write_csv(tmp_path, text))
        assert manifest.splits == ["train", "val", "test", "apple", "zebra"]

    def test_a_split_has_its_rows_with_a_new_index(self, tmp_path: Path) -> None:
        part = native(tmp_path).split("val")
        assert part.table["path"].tolist() == ["c.jpg"]
        assert part.table.index.tolist() == [0]
        assert len(native(tmp_path).split("wild")) == 0

    def test_counts_by_split_label_and_generator(self, tmp_path: Path) -> None:
        counts = native(tmp_path).counts()
        assert counts.columns.tolist() == ["split", "label", "generator", "images"]
        assert counts.to_numpy().tolist() == [
            ["test", "synthetic", "ldm", 1],
            ["train", "real", "", 1],
            ["train", "synthetic", "gan", 1],
            ["val", "real", "", 1],
        ]


class TestDigest:
    @pytest.fixture
    def hashed(self, tmp_path: Path) -> Manifest:
        manifest = native(tmp_path)
        return manifest.with_table(manifest.table.assign(sha256=["11", "22", "33", "44"]))

    def test_it_does_not_depend_on_the_folder(self, hashed: Manifest, tmp_path: Path) -> None:
        table = hashed.table.assign(path=["w", "x", "y", "z"], width=[1, 2, 3, 4])
        elsewhere = Manifest(table, tmp_path / "elsewhere", "other")
        assert elsewhere.digest() == hashed.digest()

    def test_it_does_not_depend_on_the_order_of_rows(self, hashed: Manifest) -> None:
        assert hashed.with_table(hashed.table.iloc[[2, 0, 3, 1]]).digest() == hashed.digest()

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("sha256", "99"),
            ("label", 1),
            ("split", "val"),
            ("generator", "x"),
            ("category", "dog"),
            ("source_id", ""),
        ],
    )
    def test_it_changes_with_a_value_of_a_row(
        self, hashed: Manifest, column: str, value: object
    ) -> None:
        table = hashed.table.copy()
        table.loc[0, column] = value
        assert hashed.with_table(table).digest() != hashed.digest()

    def test_it_changes_when_rows_swap_their_values(self, hashed: Manifest) -> None:
        swapped = hashed.table.assign(sha256=["22", "11", "33", "44"])
        assert hashed.with_table(swapped).digest() != hashed.digest()

    def test_it_counts_repeated_rows(self, hashed: Manifest) -> None:
        twice = pd.concat([hashed.table, hashed.table.iloc[:1]])
        thrice = pd.concat([twice, hashed.table.iloc[:1]])
        digests = {hashed.with_table(table).digest() for table in (hashed.table, twice, thrice)}
        assert len(digests) == 3

    def test_before_indexing_paths_replace_the_content(self, tmp_path: Path) -> None:
        manifest = native(tmp_path)
        table = manifest.table.assign(path=["a.jpg", "b.jpg", "c.jpg", "e.jpg"])
        assert manifest.with_table(table).digest() != manifest.digest()

    def test_it_has_64_hexadecimal_digits(self, hashed: Manifest) -> None:
        assert len(hashed.digest()) == 64
        assert set(hashed.digest()) <= set("0123456789abcdef")


def test_relative_paths_start_from_the_root(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["a/b.png", "/c.png"]})
    assert Manifest(table, tmp_path, "mine").files() == [str(tmp_path / "a/b.png"), "/c.png"]
