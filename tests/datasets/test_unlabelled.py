"""Images without labels: their names and order, and what of an archive is not read."""

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

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from synthdetect.datasets.unlabelled import TarImages, ZipImages, unlabelled
from synthdetect.images.batches import Batches, Images, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.images.reading import MAX_BYTES, BadImage
from synthdetect.system.errors import UserError

NAMES = ["b/2.PNG", "b/10.png", "a.webp", "c/d/e.jpeg"]
"""Neither sorted nor all of one suffix."""


def picture(number: int, format: str = "PNG") -> bytes:
    """The file of a picture of noise."""
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(file, format)
    return file.getvalue()


CONTENT = {name: picture(number) for number, name in enumerate(NAMES)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images with things beside them that are none."""
    root = tmp_path / "images"
    for name, data in CONTENT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "notes.txt").write_text("no image")
    (root / "._a.webp").write_bytes(b"macOS")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(picture(9))
    return root


def tar_info(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def pack(path: Path, members: dict[str, bytes]) -> Path:
    """An archive by its suffix, its members in the order given."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
            for name, data in members.items():
                tar.addfile(tar_info(name, len(data)), io.BytesIO(data))
    return path


def names_of(images: Images) -> list[str]:
    return [images.name(row) for row in range(len(images))]


def contents_of(images: Images) -> list[bytes]:
    return [images.read(row) for row in range(len(images))]


def refusal_of(images: Images, row: int) -> str:
    with pytest.raises(BadImage) as caught:
        images.read(row)
    return str(caught.value)


# --- names, order, content


def test_a_folder_is_sorted_by_path_with_forward_slashes(folder: Path) -> None:
    images = unlabelled(str(folder))
    assert names_of(images) == sorted(NAMES)
    assert contents_of(images) == [CONTENT[name] for name in sorted(NAMES)]


ARCHIVES = ["i.zip", "i.tar", "i.tar.gz", "i.tgz", "I.ZIP"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_in_its_own_order_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    extra = {"notes.txt": b"no", "__MACOSX/._a.png": b"no", "b/._2.PNG": b"no", "_.png/": b""}
    path = pack(tmp_path / name.lower(), {**CONTENT, **extra}).rename(tmp_path / name)
    images = unlabelled(str(path))
    assert names_of(images) == NAMES
    assert contents_of(images) == list(CONTENT.values())
    assert contents_of(images)[::-1] == [images.read(row) for row in (3, 2, 1, 0)]
    assert os.listdir(tmp_path) == [name]


def test_names_from_the_folder_itself_lose_the_dot(tmp_path: Path) -> None:
    assert names_of(unlabelled(str(pack(tmp_path / "i.tar", {"./a.png": picture(0)})))) == ["a.png"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_manifest_is_in_its_own_order_with_its_own_names(
    folder: Path, suffix: str, labelled: bool
) -> None:
    absolute = str(folder / "a.webp")
    table = pd.DataFrame({"path": ["c/d/e.jpeg", absolute, "b/2.PNG"], "note": ["", "x,y", ""]})
    if labelled:
        table["label"] = ["real", "synthetic", "real"]
    path = folder / f"list{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    images = unlabelled(str(path))
    assert names_of(images) == table["path"].tolist()
    assert contents_of(images) == [CONTENT[n] for n in ("c/d/e.jpeg", "a.webp", "b/2.PNG")]


def test_the_sample() -> None:
    images = unlabelled("sample")
    assert len(images) == 1066
    assert images.name(0) == "train/real/p000_0.jpg"
    assert images.read(0)[:2] == b"\xff\xd8"


# --- as a dataset


@pytest.mark.parametrize("name", ["images", "i.zip", "i.tar.gz"])
@pytest.mark.parametrize("workers", [0, 2])
def test_they_are_read_by_any_number_of_processes(folder: Path, name: str, workers: int) -> None:
    if name != "images":
        pack(folder.parent / name, {n: CONTENT[n] for n in sorted(NAMES)})
    preprocess = Preprocess(16, "resize")
    images = unlabelled(str(folder.parent / name)).seen_by(preprocess)
    batches = list(Batches(images, Order(4, 2), workers).epoch(0))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1], [2, 3]]
    expected = np.stack([preprocess(CONTENT[n]) for n in sorted(NAMES)])
    found = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["i.zip", "i.tar"])
def test_processes_do_not_share_the_position_in_a_file(tmp_path: Path, name: str) -> None:
    members = {f"{number}.png": bytes([number]) * 20_000 for number in range(100)}
    images = unlabelled(str(pack(tmp_path / name, members)))
    images.read(0)  # open here, before others begin

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
def test_they_can_be_sent_to_another_process_when_open(tmp_path: Path, name: str) -> None:
    images = unlabelled(str(pack(tmp_path / name, CONTENT)))
    images.read(0)
    assert contents_of(pickle.loads(pickle.dumps(images))) == list(CONTENT.values())


def test_they_can_be_seen_in_several_ways(folder: Path) -> None:
    images = unlabelled(str(folder))
    small, large = (
        images.seen_by(Preprocess(16, "resize")),
        images.seen_by(Preprocess(32, "resize")),
    )
    assert [np.shape(i[0, 0][1]) for i in (small, large)] == [(16, 16, 3), (32, 32, 3)]


# --- hostile and damaged


@pytest.mark.parametrize("name", ["i.zip", "i.tar"])
def test_a_name_that_climbs_is_a_name(tmp_path: Path, name: str) -> None:
    climbing = ["../../etc/a.png", "/etc/b.png", "..\\c.png"]
    (tmp_path / "in").mkdir()
    path = pack(tmp_path / "in" / name, {n: picture(i) for i, n in enumerate(climbing)})
    images = unlabelled(str(path))
    assert names_of(images) == climbing
    assert contents_of(images) == [picture(0), picture(1), picture(2)]
    assert [p.name for p in tmp_path.rglob("*.png")] == []


def test_links_and_special_members_of_a_tar_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(1))
    path = tmp_path / "i.tar"
    with tarfile.open(path, "w") as tar:
        target = str(tmp_path / "secret.png")
        tar.addfile(tar_info("soft.png", type=tarfile.SYMTYPE, linkname=target))
        tar.addfile(tar_info("good.png", len(picture(0))), io.BytesIO(picture(0)))
        tar.addfile(tar_info("hard.png", type=tarfile.LNKTYPE, linkname="good.png"))
        tar.addfile(tar_info("pipe.png", type=tarfile.FIFOTYPE))
        tar.addfile(tar_info("device.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5))
        tar.addfile(tar_info("folder.png", type=tarfile.DIRTYPE))
    images = unlabelled(str(path))
    assert names_of(images) == ["soft.png", "good.png", "hard.png", "pipe.png", "device.png"]
    assert images.read(1) == picture(0)
    assert [refusal_of(images, row) for row in (0, 2, 3, 4)] == (
        ["a link", "a link", "a special member", "a special member"]
    )


def test_links_and_special_members_of_a_zip_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind in (("soft.png", stat.S_IFLNK), ("pipe.png", stat.S_IFIFO)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    images = unlabelled(str(path))
    assert [refusal_of(images, row) for row in (0, 1)] == ["a link", "a special member"]


def test_members_that_are_too_large_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("bomb.png", "w") as member:
            for _ in range(MAX_BYTES // 2**20):
                member.write(bytes(2**20))
            member.write(b"0")
        archive.writestr("good.png", picture(0))
    assert path.stat().st_size < 2**20
    assert "more than the limit" in refusal_of(unlabelled(str(path)), 0)
    assert unlabelled(str(path)).read(1) == picture(0)
    with (tmp_path / "huge.tar").open("wb") as tar:
        tar.write(tar_info("huge.png", MAX_BYTES + 1).tobuf())
        tar.truncate(512 + MAX_BYTES + 512 + 1024)
    assert "more than the limit" in refusal_of(unlabelled(str(tmp_path / "huge.tar")), 0)


def test_files_that_are_no_files_or_too_large_are_not_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "huge.png").touch()
    os.truncate(folder / "huge.png", MAX_BYTES + 1)
    images = unlabelled(str(folder))
    reasons = {images.name(row): refusal_of(images, row) for row in range(len(images))
               if "/" not in images.name(row) and images.name(row) != "a.webp"}  # fmt: skip
    assert reasons["pipe.png"] == "not a regular file"
    assert "more than the limit" in reasons["huge.png"]


def test_a_damaged_member_of_a_zip_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in CONTENT.items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    data[data.index(CONTENT["b/10.png"]) + 100] ^= 1
    path.write_bytes(data)
    images = unlabelled(str(path))
    assert "CRC" in refusal_of(images, 1)
    assert [images.read(row) for row in (0, 2, 3)] == (
        [CONTENT[n] for n in ("b/2.PNG", "a.webp", "c/d/e.jpeg")]
    )


def test_encrypted_and_strangely_packed_members_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", picture(0), zipfile.ZIP_LZMA)
        archive.writestr("b.png", picture(1))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the listing's entry of the second member
    data[at + 8 : at + 10] = struct.pack("<H", 1)
    path.write_bytes(data)
    images = unlabelled(str(path))
    assert refusal_of(images, 0) == "packed by method 14; use deflate"
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
def test_what_is_no_archive_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DAMAGES[name])
    with pytest.raises(UserError, match=re.escape(str(tmp_path / name))):
        unlabelled(str(tmp_path / name))


@pytest.mark.parametrize("name", ["i.zip", "i.tar", "i.tar.gz"])
def test_a_truncated_archive_is_refused_not_read_as_far_as_it_goes(
    name: str, tmp_path: Path
) -> None:
    path = pack(tmp_path / name, CONTENT)
    whole = path.read_bytes()
    for keep in (len(whole) * 9 // 10 if ".tar" not in name else 2000, len(whole) // 3):
        path.write_bytes(whole[:keep])
        with pytest.raises(UserError, match=re.escape(str(path))):
            unlabelled(str(path))


@pytest.mark.parametrize("name", ["i.tar", "i.tar.gz"])
def test_a_tar_with_a_damaged_header_is_refused(name: str, tmp_path: Path) -> None:
    """tarfile itself takes one for the end of the archive: images would be missing in silence."""
    plain = bytearray(pack(tmp_path / "whole.tar", CONTENT).read_bytes())
    plain[plain.index(b"a.webp")] ^= 1
    path = tmp_path / name
    path.write_bytes(plain if name == "i.tar" else gzip.compress(plain))
    with pytest.raises(UserError, match=f"{name}: the archive cannot be read"):
        unlabelled(str(path))


def test_an_archive_that_shrinks_while_it_is_read_gives_reasons(tmp_path: Path) -> None:
    path = pack(tmp_path / "i.tar", CONTENT)
    images = TarImages(path)
    os.truncate(path, 700)
    assert refusal_of(images, 3) == "the archive ends within it"


def test_an_archive_that_is_gone_stops_everything(tmp_path: Path) -> None:
    """A hundred images are not a hundred times unreadable because a disk was unplugged."""
    images = pickle.loads(pickle.dumps(ZipImages(pack(tmp_path / "i.zip", CONTENT))))
    (tmp_path / "i.zip").unlink()
    with pytest.raises(UserError, match=r"i\.zip"):
        images.seen_by(Preprocess(16, "resize"))[0, 0]


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tar_info("\udcff.png", 3), io.BytesIO(b"abc"))
    with pytest.raises(UserError, match="UTF-8"):
        unlabelled(str(path))


# --- nothing there


def test_what_holds_no_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = [tmp_path / "empty", pack(tmp_path / "i.zip", {"a.txt": b""}),
             pack(tmp_path / "i.tar", {"a.txt": b""}), tmp_path / "list.csv"]  # fmt: skip
    (tmp_path / "list.csv").write_text("path\n")
    for path in cases:
        with pytest.raises(UserError, match=f"{re.escape(str(path))}: holds no images"):
            unlabelled(str(path))


def test_other_data_are_refused_with_what_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "i.rar").touch()
    with pytest.raises(UserError, match=r"i\.rar: give a folder, a \.zip, \.tar"):
        unlabelled(str(tmp_path / "i.rar"))
    with pytest.raises(UserError, match="nowhere"):
        unlabelled(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.png\n", "no column 'path'; it has file"),
        ("path,label\na.png,real\n,real\n", "row 2 .* has no path"),
        ("path\na.png\n../b.png\n", "row 2 .* climbs out"),
        ("path\na.png\nb.png\na.png\n", "row 3 .* is listed twice"),
        ("path\na.png,b.png\n", "line 2"),
    ],
)
def test_a_list_with_faults_is_refused_with_the_row(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=f"list.csv.*{message}"):
        unlabelled(str(tmp_path / "list.csv"))


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(UserError, match=r"list\.parquet"):
        unlabelled(str(tmp_path / "list.parquet"))
