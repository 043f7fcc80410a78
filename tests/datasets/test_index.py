"""The index of image files: it is complete, and only changed files are read again."""

import hashlib
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synthdetect.datasets.index import COLUMNS, index
from synthdetect.datasets.manifest import Manifest, read, write
from synthdetect.system.errors import UserError


def picture(file: Path, colour: int = 0, kind: str = "BMP") -> Path:
    """Write an image. As BMP, images of all colours have the same number of bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (colour, 0, 0)).save(file, kind)
    return file


def manifest_of(root: Path, *paths: str, **columns: list[object]) -> Manifest:
    table = pd.DataFrame({"path": list(paths), "label": np.zeros(len(paths), dtype="int8")})
    for column in ("split", "generator", "category", "source_id"):
        table[column] = pd.Series("", index=table.index, dtype="str")
    return Manifest(table.assign(**columns), root, "mine")


def three(tmp_path: Path) -> Manifest:
    root = tmp_path / "data"
    paths = ["a.bmp", "b.bmp", "c.bmp"]
    for number, path in enumerate(paths):
        picture(root / path, number)
    return manifest_of(root, *paths)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def swap_content(file: Path, colour: int) -> None:
    """Change the content but neither the size nor the modification time."""
    before = file.stat()
    picture(file, colour)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def touch(file: Path) -> None:
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


class TestIndexing:
    def test_each_file_is_described(self, tmp_path: Path) -> None:
        file = picture(tmp_path / "a.png", kind="JPEG")  # the content decides and not the suffix
        table = index(manifest_of(tmp_path, "a.png")).table
        assert table.columns[-len(COLUMNS) :].tolist() == list(COLUMNS)
        assert table.loc[0, list(COLUMNS)].to_dict() == {
            "bytes": file.stat().st_size,
            "mtime_ns": file.stat().st_mtime_ns,
            "sha256": sha256(file),
            "width": 6,
            "height": 4,
            "format": "JPEG",
            "mode": "RGB",
            "jpeg_quality": 75,
            "exif": False,
            "provenance": "",
            "error": "",
        }

    def test_columns_of_the_manifest_are_kept(self, tmp_path: Path) -> None:
        manifest = three(tmp_path)
        manifest = manifest.with_table(manifest.table.assign(platform=["x", "y", "z"], label=1))
        table = index(manifest).table
        assert table[manifest.table.columns].equals(manifest.table)
        assert len(table) == 3

    def test_an_unreadable_file_gets_a_reason_and_the_others_are_complete(
        self, tmp_path: Path
    ) -> None:
        picture(tmp_path / "good.bmp")
        (tmp_path / "empty.jpg").touch()
        (tmp_path / "text.jpg").write_text("not found")
        (tmp_path / "half.bmp").write_bytes((tmp_path / "good.bmp").read_bytes()[:80])
        (tmp_path / "folder.jpg").mkdir()
        paths = ["empty.jpg", "text.jpg", "half.bmp", "folder.jpg", "absent.jpg", "good.bmp"]
        table = index(manifest_of(tmp_path, *paths)).table.set_index("path")
        errors = table["error"].to_dict()
        assert errors.pop("half.bmp").startswith("image file is truncated")
        assert errors == {
            "empty.jpg": "the file is empty",
            "text.jpg": "not an image of a known format",
            "folder.jpg": "Is a directory",
            "absent.jpg": "No such file or directory",
            "good.bmp": "",
        }
        assert table.loc["good.bmp", "sha256"] == sha256(tmp_path / "good.bmp")
        assert (table.drop("good.bmp")["sha256"] == "").all()
        assert (table.drop("good.bmp")["width"] == 0).all()

    def test_types_are_the_same_from_files_cache_and_manifest(self, tmp_path: Path) -> None:
        manifest = three(tmp_path)
        (tmp_path / "data" / "b.bmp").write_text("broken")
        fresh = index(manifest)
        pd.testing.assert_frame_equal(index(manifest).table, fresh.table)
        for suffix in ("csv", "parquet"):
            file = tmp_path / "data" / f"list.{suffix}"
            write(fresh, file)
            pd.testing.assert_frame_equal(index(read(file)).table, fresh.table)
        assert fresh.table.dtypes[list(COLUMNS)].astype(str).to_dict() == {
            "bytes": "int64",
            "mtime_ns": "int64",
            "sha256": "str",
            "width": "int64",
            "height": "int64",
            "format": "str",
            "mode": "str",
            "jpeg_quality": "int64",
            "exif": "bool",
            "provenance": "str",
            "error": "str",
        }

    def test_equal_names_in_different_folders_are_kept_apart(self, tmp_path: Path) -> None:
        first, second = picture(tmp_path / "x" / "a.bmp", 1), picture(tmp_path / "y" / "a.bmp", 2)
        one = index(manifest_of(tmp_path / "x", "a.bmp", str(second))).table["sha256"]
        two = index(manifest_of(tmp_path / "y", "a.bmp", str(first))).table["sha256"]
        assert one.tolist() == [sha256(first), sha256(second)]
        assert two.tolist() == [sha256(second), sha256(first)]

    def test_progress_counts_every_file_read(self, tmp_path: Path) -> None:
        manifest = three(tmp_path)
        calls: list[tuple[int, int]] = []
        index(manifest, progress=lambda done, total: calls.append((done, total)))
        assert calls == [(1, 3), (2, 3), (3, 3)]
        touch(tmp_path / "data" / "b.bmp")
        calls.clear()
        index(manifest, progress=lambda done, total: calls.append((done, total)))
        assert calls == [(1, 1)]

    def test_many_threads_leave_the_process_its_warning_filters(self, tmp_path: Path) -> None:
        before = list(warnings.filters)
        for number in range(40):
            Image.new("RGB", (300, 300), (number, 0, 0)).save(tmp_path / f"{number}.png")
        index(manifest_of(tmp_path, *(f"{number}.png" for number in range(40))))
        assert list(warnings.filters) == before


class TestCaching:
    def test_a_second_run_reads_nothing(self, tmp_path: Path) -> None:
        manifest = three(tmp_path)
        first = index(manifest).table
        swap_content(tmp_path / "data" / "b.bmp", 99)
        calls: list[tuple[int, int]] = []
        second = index(manifest, progress=lambda *done: calls.append(done)).table
        pd.testing.assert_frame_equal(second, first)
        assert second.loc[1, "sha256"] != sha256(tmp_path / "data" / "b.bmp")
        assert calls == []

    def test_a_file_with_another_time_is_read_again(self, tmp_path: Path) -> None:
        manifest = three(tmp_path)
        first = index(manifest).table
        changed = tmp_path / "data" / "b.bmp"
        swap_content(changed, 99)
        swap_content(tmp_path / "data" / "c.bmp", 98)
        touch(changed)
        second = index(manifest).table
        assert second.loc[1, "sha256"] == sha256(changed) != first.loc[1, "sha256"]
        assert second.loc[2, "sha256"] == first.loc[2, "sha256"]  # c was not read again

    def test_a_file_with_another_size_is_read_again(self, tmp_path: Path) -> None:
        manifest = three(tmp_path)
        index(manifest)
        file = tmp_path / "data" / "b.bmp"
        stat = file.stat()
        file.write_bytes(file.read_bytes() + b"\0")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert index(manifest).table.loc[1, "sha256"] == sha256(file)

    def test_new_files_are_read_and_known_ones_are_not(self, tmp_path: Path) -> None:
        root = tmp_path / "data"
        manifest = three(tmp_path)
        first = index(manifest).table
        swap_content(root / "a.bmp", 99)
        picture(root / "d.bmp", 4)
        table = index(manifest_of(root, "d.bmp", "a.bmp")).table
        assert table["sha256"].tolist() == [sha256(root / "d.bmp"), first.loc[0, "sha256"]]
        swap_content(root / "c.bmp", 98)  # c is still cached
        assert index(manifest).table.loc[2, "sha256"] == first.loc[2, "sha256"]

    def test_a_replaced_unreadable_file_is_read_again(self, tmp_path: Path) -> None:
        file = tmp_path / "a.bmp"
        file.write_text("broken")
        manifest = manifest_of(tmp_path, "a.bmp", "late.bmp")
        errors = ["not an image of a known format", "No such file or directory"]
        assert index(manifest).table["error"].tolist() == errors
        assert index(manifest).table["error"].tolist() == errors
        picture(file)
        picture(tmp_path / "late.bmp")
        table = index(manifest).table
        assert table["error"].tolist() == ["", ""]
        assert table["width"].tolist() == [6, 6]

    def test_a_file_that_vanished_is_noticed(self, tmp_path: Path) -> None:
        manifest = three(tmp_path)
        index(manifest)
        (tmp_path / "data" / "b.bmp").unlink()
        table = index(manifest).table
        assert table["error"].tolist() == ["", "No such file or directory", ""]
        assert table.loc[1, "sha256"] == ""

    def test_an_error_of_the_file_system_is_not_cached(self, tmp_path: Path) -> None:
        """Errors such as missing permission or a lost mount are not about the content."""
        path = tmp_path / "a.gif"
        path.mkdir()
        stat = path.stat()
        manifest = manifest_of(tmp_path, "a.gif")
        assert index(manifest).table.loc[0, "error"] == "Is a directory"
        path.rmdir()
        picture(path, kind="GIF")
        content = path.read_bytes()
        if len(content) > stat.st_size:
            pytest.skip("the folder is smaller than the image on this file system")
        path.write_bytes(content.ljust(stat.st_size, b"\0"))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert index(manifest).table.loc[0, "error"] == ""

    @pytest.mark.parametrize("damage", ["cut", "empty", "text", "zeros", "other columns"])
    def test_with_a_damaged_cache_the_files_are_read_again(
        self, tmp_path: Path, cache: Path, damage: str
    ) -> None:
        manifest = three(tmp_path)
        first = index(manifest).table
        (store,) = (cache / "index").glob("*.parquet")
        content = store.read_bytes()
        if damage == "other columns":
            pd.DataFrame({"x": [1]}).to_parquet(store)
        else:
            store.write_bytes(
                {
                    "cut": content[: len(content) // 2],
                    "empty": b"",
                    "text": b"hello",
                    "zeros": content[:4] + bytes(len(content) - 8) + content[-4:],
                }[damage]
            )
        pd.testing.assert_frame_equal(index(manifest).table, first)
        swap_content(tmp_path / "data" / "b.bmp", 99)
        pd.testing.assert_frame_equal(index(manifest).table, first)  # from the repaired cache

    @pytest.mark.parametrize("trouble", ["closed", "full"])
    def test_without_a_writable_cache_the_files_are_read_each_time(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
    ) -> None:
        def write(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        if trouble == "closed":
            cache.write_text("a file, in which not even root can make a folder")
        else:
            monkeypatch.setattr(pd.DataFrame, "to_parquet", write)
        manifest = three(tmp_path)
        first = index(manifest).table
        assert first["error"].tolist() == [""] * 3
        calls: list[tuple[int, int]] = []
        pd.testing.assert_frame_equal(
            index(manifest, progress=lambda *done: calls.append(done)).table, first
        )
        assert calls[-1] == (3, 3)

    def test_only_the_cache_folder_is_written_to(self, tmp_path: Path, cache: Path) -> None:
        manifest = three(tmp_path)
        before = set((tmp_path / "data").rglob("*"))
        index(manifest)
        assert set((tmp_path / "data").rglob("*")) == before
        folders = {file.parent for file in cache.rglob("*") if file.is_file()}
        assert folders == {cache / "index", cache / "perceptual"}


class TestIndexedManifests:
    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_files_described_by_a_manifest_are_not_read_again(
        self, tmp_path: Path, cache: Path, suffix: str
    ) -> None:
        first = index(three(tmp_path))
        file = tmp_path / "data" / f"list.{suffix}"
        write(first, file)
        shutil.rmtree(cache)
        swap_content(tmp_path / "data" / "b.bmp", 99)
        pd.testing.assert_frame_equal(index(read(file)).table, first.table)

    def test_a_content_that_differs_from_its_hash_is_refused(self, tmp_path: Path) -> None:
        manifest = three(tmp_path)
        hashes = [sha256(Path(manifest.file(path))) for path in manifest.table["path"]]
        given = manifest.with_table(manifest.table.assign(sha256=[hashes[0], "0" * 64, ""]))
        message = r"mine: 1 file\(s\) .*sha256.*first 'b\.bmp'"
        with pytest.raises(UserError, match=message):
            index(given)
        correct = manifest.with_table(manifest.table.assign(sha256=[*hashes[:2], ""]))
        assert index(correct).table["sha256"].tolist() == hashes

    def test_a_file_changed_since_its_manifest_was_written_is_refused(self, tmp_path: Path) -> None:
        indexed = index(three(tmp_path))
        write(indexed, tmp_path / "data" / "list.csv")
        picture(tmp_path / "data" / "c.bmp", 99)
        with pytest.raises(UserError, match=r"first 'c\.bmp'"):
            index(read(tmp_path / "data" / "list.csv"))

    def test_an_unreadable_file_does_not_differ_from_its_hash(self, tmp_path: Path) -> None:
        manifest = manifest_of(tmp_path, "absent.bmp", sha256=["0" * 64])
        assert index(manifest).table.loc[0, "error"] == "No such file or directory"

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_rows_added_to_an_indexed_manifest_are_read(self, tmp_path: Path, suffix: str) -> None:
        root = tmp_path / "data"
        indexed = index(three(tmp_path))
        picture(root / "d.bmp", 4)
        both = pd.concat([indexed.table, manifest_of(root, "d.bmp").table], ignore_index=True)
        file = root / f"list.{suffix}"
        if suffix == "csv":
            both.to_csv(file, index=False)
        else:
            both.to_parquet(file, index=False)
        table = index(read(file)).table
        assert table["sha256"].tolist() == [sha256(root / path) for path in table["path"]]
        assert table["error"].tolist() == [""] * 4


def test_what_metadata_say_of_the_origin_is_indexed(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("prompt", '{"3": {"class_type": "KSampler"}}')
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png", pnginfo=info)
    picture(tmp_path / "b.bmp")
    manifest = manifest_of(tmp_path, "a.png", "b.bmp")
    for _ in range(2):  # the second time from the cache
        assert index(manifest).table["provenance"].tolist() == ["ComfyUI", ""]
