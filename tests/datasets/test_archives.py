"""Images in archives: their names, order and content, and members that are not read."""

import gzip
import io
import multiprocessing
import os
import pickle
import re
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from synthdetect.datasets.archives import TarImages, ZipImages, open_archive
from synthdetect.images.geometry import Preprocess
from synthdetect.images.reading import MAX_BYTES
from synthdetect.system.errors import UserError
from tests.datasets.conftest import (
    CONTENT,
    NAMES,
    contents_of,
    names_of,
    noise_image,
    pack,
    refusal_of,
    tar_info,
)

ARCHIVES = ["i.zip", "i.tar", "i.tar.gz", "i.tgz", "I.ZIP"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_keeps_its_order_and_nothing_is_unpacked(name: str, tmp_path: Path) -> None:
    extra = {"notes.txt": b"no", "__MACOSX/._a.png": b"no", "b/._2.PNG": b"no", "_.png/": b""}
    path = pack(tmp_path / name.lower(), {**CONTENT, **extra}).rename(tmp_path / name)
    images = open_archive(path)
    assert names_of(images) == NAMES
    assert contents_of(images) == list(CONTENT.values())
    assert contents_of(images)[::-1] == [images.read(row) for row in (3, 2, 1, 0)]
    assert os.listdir(tmp_path) == [name]


def test_names_lose_a_leading_dot(tmp_path: Path) -> None:
    assert names_of(open_archive(pack(tmp_path / "i.tar", {"./a.png": noise_image(0)}))) == [
        "a.png"
    ]


@pytest.mark.parametrize("name", ["i.zip", "i.tar"])
def test_processes_do_not_share_the_position_in_a_file(tmp_path: Path, name: str) -> None:
    members = {f"{number}.png": bytes([number]) * 20_000 for number in range(100)}
    images = open_archive(pack(tmp_path / name, members))
    images.read(0)  # opened here, before the processes start

    def read_all() -> None:
        for _ in range(20):
            assert contents_of(images) == list(members.values())

    others = [multiprocessing.get_context("fork").Process(target=read_all) for _ in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join(60)
    assert [process.exitcode for process in others] == [0, 0]


@pytest.mark.parametrize("name", ["i.zip", "i.tar"])
def test_an_open_archive_can_be_pickled(tmp_path: Path, name: str) -> None:
    images = open_archive(pack(tmp_path / name, CONTENT))
    images.read(0)
    assert contents_of(pickle.loads(pickle.dumps(images))) == list(CONTENT.values())


@pytest.mark.parametrize("name", ["i.zip", "i.tar"])
def test_a_climbing_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    climbing = ["../../etc/a.png", "/etc/b.png", "..\\c.png"]
    (tmp_path / "in").mkdir()
    path = pack(tmp_path / "in" / name, {n: noise_image(i) for i, n in enumerate(climbing)})
    images = open_archive(path)
    assert names_of(images) == climbing
    assert contents_of(images) == [noise_image(0), noise_image(1), noise_image(2)]
    assert [p.name for p in tmp_path.rglob("*.png")] == []


def test_links_and_special_members_of_a_tar_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(noise_image(1))
    path = tmp_path / "i.tar"
    with tarfile.open(path, "w") as tar:
        target = str(tmp_path / "secret.png")
        tar.addfile(tar_info("soft.png", type=tarfile.SYMTYPE, linkname=target))
        tar.addfile(tar_info("good.png", len(noise_image(0))), io.BytesIO(noise_image(0)))
        tar.addfile(tar_info("hard.png", type=tarfile.LNKTYPE, linkname="good.png"))
        tar.addfile(tar_info("pipe.png", type=tarfile.FIFOTYPE))
        tar.addfile(tar_info("device.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5))
        tar.addfile(tar_info("folder.png", type=tarfile.DIRTYPE))
    images = open_archive(path)
    assert names_of(images) == ["soft.png", "good.png", "hard.png", "pipe.png", "device.png"]
    assert images.read(1) == noise_image(0)
    assert [refusal_of(images, row) for row in (0, 2, 3, 4)] == (
        ["a link, which is not followed"] * 2 + ["not a regular file"] * 2
    )


def test_links_and_special_members_of_a_zip_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind in (("soft.png", stat.S_IFLNK), ("pipe.png", stat.S_IFIFO)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    images = open_archive(path)
    assert [refusal_of(images, row) for row in (0, 1)] == (
        ["a link, which is not followed", "not a regular file"]
    )


def test_members_that_are_too_large_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("bomb.png", "w") as member:
            for _ in range(MAX_BYTES // 2**20):
                member.write(bytes(2**20))
            member.write(b"0")
        archive.writestr("good.png", noise_image(0))
    assert path.stat().st_size < 2**20
    assert "limit" in refusal_of(open_archive(path), 0)
    assert open_archive(path).read(1) == noise_image(0)
    with (tmp_path / "huge.tar").open("wb") as tar:
        tar.write(tar_info("huge.png", MAX_BYTES + 1).tobuf())
        tar.truncate(512 + MAX_BYTES + 512 + 1024)
    assert "limit" in refusal_of(open_archive(tmp_path / "huge.tar"), 0)


def test_a_damaged_member_of_a_zip_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in CONTENT.items():
            archive.writestr(name, data)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(CONTENT["b/10.png"]) + 100] ^= 1
    path.write_bytes(damaged)
    images = open_archive(path)
    assert "CRC" in refusal_of(images, 1)
    assert [images.read(row) for row in (0, 2, 3)] == (
        [CONTENT[n] for n in ("b/2.PNG", "a.webp", "c/d/e.jpeg")]
    )


def test_encrypted_members_and_other_methods_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", noise_image(0), zipfile.ZIP_LZMA)
        archive.writestr("b.png", noise_image(1))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the directory entry of the second member
    data[at + 8 : at + 10] = struct.pack("<H", 1)
    path.write_bytes(data)
    images = open_archive(path)
    assert "method 14" in refusal_of(images, 0)
    assert refusal_of(images, 1) == "encrypted"


DAMAGES = {
    "empty.zip": b"",
    "text.zip": b"no archive",
    "empty.tar": b"",
    "text.tar": b"no archive" * 200,
    "text.tar.gz": b"\x1f\x8b no archive",
    "plain.tgz": b"no archive" * 200,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_is_no_archive_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DAMAGES[name])
    with pytest.raises(UserError, match=re.escape(str(tmp_path / name))):
        open_archive(tmp_path / name)


@pytest.mark.parametrize("name", ["i.zip", "i.tar", "i.tar.gz"])
def test_a_truncated_archive_is_refused(name: str, tmp_path: Path) -> None:
    path = pack(tmp_path / name, CONTENT)
    whole = path.read_bytes()
    for keep in (len(whole) * 9 // 10 if ".tar" not in name else 2000, len(whole) // 3):
        path.write_bytes(whole[:keep])
        with pytest.raises(UserError, match=re.escape(str(path))):
            open_archive(path)


@pytest.mark.parametrize("name", ["i.tar", "i.tar.gz"])
def test_a_tar_with_a_damaged_header_is_refused(name: str, tmp_path: Path) -> None:
    """tarfile by itself takes one for the end of the archive and misses the images after it."""
    plain = bytearray(pack(tmp_path / "whole.tar", CONTENT).read_bytes())
    plain[plain.index(b"a.webp")] ^= 1
    path = tmp_path / name
    path.write_bytes(plain if name == "i.tar" else gzip.compress(plain))
    with pytest.raises(UserError, match=f"{name}: the archive cannot be read"):
        open_archive(path)


def test_an_archive_that_was_truncated_after_opening_has_unreadable_images(tmp_path: Path) -> None:
    path = pack(tmp_path / "i.tar", CONTENT)
    images = TarImages(path)
    os.truncate(path, 700)
    assert refusal_of(images, 3) == "the archive ends within it"


def test_an_archive_that_was_deleted_is_an_error(tmp_path: Path) -> None:
    """Not hundreds of unreadable images, if for example a disk was unplugged."""
    images = pickle.loads(pickle.dumps(ZipImages(pack(tmp_path / "i.zip", CONTENT))))
    (tmp_path / "i.zip").unlink()
    with pytest.raises(UserError, match=r"i\.zip"):
        images.seen_by(Preprocess(16, "resize"))[0, 0]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tar_info("\udcff.png", 3), io.BytesIO(b"abc"))
    with pytest.raises(UserError, match="UTF-8"):
        open_archive(path)


@pytest.mark.parametrize("name", ["i.zip", "i.tar"])
def test_an_archive_without_images_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: .*no images"):
        open_archive(pack(tmp_path / name, {"a.txt": b""}))
