"""Image ids of a test set, from a folder or an archive."""

import tarfile
import zipfile
from pathlib import Path

import pytest

from synthdetect.submission.image_ids import image_ids_of
from synthdetect.system.errors import UserError

FILES = ["b.JPG", "sub/a.png", "sub/deep/c.d.webp", "notes.txt", "._b.jpg", "__MACOSX/x.jpg", "jpg"]


def image_folder(path: Path, files: list[str] = FILES) -> Path:
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return path


def archive_of(folder: Path, name: str) -> Path:
    path = folder.parent / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
            tar.add(folder, ".")
    return path


def test_image_ids_of_a_folder_and_of_archives(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images")
    expected = ["a.png", "b.JPG", "c.d.webp"]
    assert image_ids_of(folder) == expected
    for name in ("t.tar", "t.tar.gz", "t.tgz", "t.zip"):
        assert image_ids_of(archive_of(folder, name)) == expected


@pytest.mark.parametrize("name", ["images", "t.tar", "t.zip"])
def test_two_images_of_the_same_file_name_are_refused(name: str, tmp_path: Path) -> None:
    path = image_folder(tmp_path / "images", ["0_real/a.jpg", "1_fake/a.jpg"])
    if name != "images":
        path = archive_of(path, name)
    with pytest.raises(UserError, match=r"a\.jpg: .*0_real/a.* and .*1_fake/a"):
        image_ids_of(path)


def test_a_path_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.tar: is neither a folder nor"):
        image_ids_of(tmp_path / "gone.tar")
    with pytest.raises(UserError, match="texts: holds no images"):
        image_ids_of(image_folder(tmp_path / "texts", ["a.txt"]))
    for name in ("bad.tar", "bad.tar.gz", "bad.zip"):
        (tmp_path / name).write_bytes(b"\x1f\x8b garbage")
        with pytest.raises(UserError, match=f"{name}: the archive cannot be read"):
            image_ids_of(tmp_path / name)
    (tmp_path / "images.rar").touch()
    with pytest.raises(UserError, match=r"images\.rar: .*\.zip"):
        image_ids_of(tmp_path / "images.rar")


def test_an_archive_with_a_damaged_header_is_refused(tmp_path: Path) -> None:
    """tarfile by itself takes one for the end of the archive and misses the ids after it."""
    folder = image_folder(tmp_path / "images", ["a.png", "b.png"])
    path = archive_of(folder, "t.tar")
    content = bytearray(path.read_bytes())
    content[content.rindex(b".png")] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"t\.tar: "):
        image_ids_of(path)
