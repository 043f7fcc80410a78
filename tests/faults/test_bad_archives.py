"""Archives with climbing paths, links and bombs, damaged ones, and such as are none."""

import contextlib
import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.images.reading import MAX_BYTES, BadImage
from tests.datasets.conftest import tar_info
from tests.faults.conftest import Refused, Say, refusal


def picture() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((20, 20), 80).convert("RGB").save(file, "PNG")
    return file.getvalue()


PICTURE = picture()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes], style: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=style) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


ZIP = zipped({"a.png": PICTURE, "b.png": PICTURE})
TAR = tarred((tar_info("a.png", len(PICTURE)), PICTURE), (tar_info("b.png", len(PICTURE)), PICTURE))
END = ZIP.index(b"PK\x05\x06")
LISTING = ZIP.index(b"PK\x01\x02")


def patched(data: bytes, place: int, content: bytes) -> bytes:
    return data[:place] + content + data[place + len(content) :]


def resized(data: bytes, size: bytes) -> bytes:
    """A tar whose first member says that it is so large, with the checksum that goes with it."""
    data = patched(patched(data, 124, size), 148, b" " * 8)
    return patched(data, 148, b"%06o\0 " % sum(data[:512]))


# --- what is no archive

NO_ARCHIVES: dict[str, tuple[str, bytes]] = {
    "an empty zip file": ("a.zip", b""),
    "text called zip": ("a.zip", b"no archive" * 100),
    "a zip of nothing": ("a.zip", zipped({})),
    "a zip without images": ("a.zip", zipped({"a.txt": b"", "b.pkl": b"", "c.png/": b""})),
    "a zip cut in its listing": ("a.zip", ZIP[: LISTING + 20]),
    "a zip cut at its end": ("a.zip", ZIP[:-10]),
    "a zip with a listing of 4 GiB": ("a.zip", patched(ZIP, END + 12, b"\xff\xff\xff\xff")),
    "a zip with a listing of zeros": ("a.zip", patched(ZIP, LISTING, bytes(END - LISTING))),
    "a tar called zip": ("a.zip", TAR),
    "an empty tar file": ("a.tar", b""),
    "text called tar": ("a.tar", b"no archive" * 100),
    "a tar of zeros": ("a.tar", bytes(10_240)),
    "a tar without images": ("a.tar", tarred((tar_info("a.txt"), b""))),
    "a tar cut in a member": ("a.tar", TAR[: 512 + len(PICTURE) // 2]),
    "a tar cut in a header": ("a.tar", TAR[:700]),
    "a tar with a wrong checksum": ("a.tar", patched(TAR, 148, b"0000000\0")),
    "a tar with a size of letters": ("a.tar", patched(TAR, 124, b"not a number")),
    "a tar with a negative size": ("a.tar", resized(TAR, b"\xff" * 12)),
    "a tar with a size of 2^90": ("a.tar", resized(TAR, b"\x80" + b"\x7f" * 11)),
    "a zip called tar": ("a.tar", ZIP),
    "a gzip of nothing": ("a.tgz", gzip.compress(b"")),
    "a gzip of zeros": ("a.tgz", gzip.compress(bytes(2**20))),
    "a gzip that is cut": ("a.tgz", gzip.compress(TAR)[:-9]),
    "a gzip with a wrong checksum": ("a.tgz", gzip.compress(TAR)[:-8] + bytes(8)),
    "a gzip of random bytes": ("a.tgz", b"\x1f\x8b" + np.random.default_rng(0).bytes(999)),
    "a gzip in a gzip": ("a.tar.gz", gzip.compress(gzip.compress(TAR))),
    "a tar that is cut in a gzip": ("a.tar.gz", gzip.compress(TAR[:700])),
    "7z": ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50)),
    "RAR": ("a.rar", b"Rar!\x1a\x07\x01\0" + bytes(50)),
    "bzip2": ("a.tar.bz2", b"BZh9" + bytes(50)),
    "xz": ("a.tar.xz", b"\xfd7zXZ\0" + bytes(50)),
    "an image": ("a.png", PICTURE),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_ARCHIVES)
def test_what_is_no_archive_is_refused_by_name(
    refused: Refused, detector_file: Path, case: str
) -> None:
    """A file that is no archive, a damaged one, or one without images."""
    name, content = NO_ARCHIVES[case]
    (refused.folder / name).write_bytes(content)
    refused("predict", f"--model={detector_file}", f"--data={name}", named=(name,))


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda file: file.symlink_to("/dev/zero"),
             lambda file: file.symlink_to("nowhere")],
    ids=["a pipe", "a folder", "a link to a device", "a link to nowhere"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_an_archive_that_is_no_file_is_refused(
    refused: Refused, detector_file: Path, name: str, make: Callable[[Path], object]
) -> None:
    """Something that is no file in place of an archive."""
    make(refused.folder / name)
    refused("predict", f"--model={detector_file}", f"--data={name}", named=(name,))


# --- hostile members: each is a reason, costs no other image, and touches nothing else


def link(kind: bytes, target: str) -> bytes:
    return tarred((tar_info("x.png", type=kind, linkname=target), b""))


def claims(size: int) -> bytes:
    """A zip whose first member says that it unpacks to so much."""
    data = patched(ZIP, 22, struct.pack("<I", size))
    return patched(data, LISTING + 24, struct.pack("<I", size))


def bomb(name: str) -> bytes:
    """A zip of a megabyte that unpacks to a gigabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(260)) + packer.flush()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, packed)
    data = file.getvalue()
    listing = data.rindex(b"PK\x01\x02")
    for place in (8, listing + 10):
        data = patched(data, place, struct.pack("<H", zipfile.ZIP_DEFLATED))
    for place in (22, listing + 24):
        data = patched(data, place, struct.pack("<I", 260 * 2**20))
    return data


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a name that climbs": ("a.zip", lambda: zipped({"../../x.png": b"x"})),
    "an absolute name": ("a.zip", lambda: zipped({"/etc/x.png": b"x"})),
    "a name with backslashes": ("a.zip", lambda: zipped({"..\\..\\x.png": b"x"})),
    "a name of a drive": ("a.zip", lambda: zipped({"C:\\x.png": b"x"})),
    "a name of 60,000 letters": ("a.zip", lambda: zipped({"x" * 60_000 + ".png": b"x"})),
    "a name that commands the terminal": ("a.zip", lambda: zipped({"\x1b[2J.png": b"x"})),
    "a name that is markup": ("a.zip", lambda: zipped({"[bold]x[/]x.png": b"x"})),
    "a name with a line's end": ("a.zip", lambda: zipped({"a\nb.png": b"x"})),
    "a bomb": ("a.zip", lambda: bomb("x.png")),
    "a zip in a zip called png": ("a.zip", lambda: zipped({"x.png": ZIP})),
    "a member that claims 4 GiB": ("a.zip", lambda: claims(2**32 - 2)),
    "a member that claims a byte less": ("a.zip", lambda: claims(len(PICTURE) - 1)),
    "a member that claims a byte more": ("a.zip", lambda: claims(len(PICTURE) + 1)),
    "a member that is said to lie elsewhere": (
        "a.zip", lambda: patched(ZIP, LISTING + 42, struct.pack("<I", 7)),
    ),
    "two members in one place": (
        "a.zip",
        lambda: patched(ZIP, ZIP.rindex(b"PK\x01\x02") + 42, struct.pack("<I", 0)),
    ),
    "a member under another name": ("a.zip", lambda: patched(ZIP, 30, b"z.png")),
    "a damaged member": ("a.zip", lambda: patched(ZIP, 60, b"\xff\xff\xff")),
    "an encrypted member": ("a.zip", lambda: patched(ZIP, LISTING + 8, b"\x01\0")),
    "a member of an unknown packing": ("a.zip", lambda: patched(ZIP, LISTING + 10, b"\x63\0")),
    "LZMA": ("a.zip", lambda: zipped({"x.png": PICTURE}, zipfile.ZIP_LZMA)),
    "bzip2 within": ("a.zip", lambda: zipped({"x.png": PICTURE}, zipfile.ZIP_BZIP2)),
    "a zip that was cut from the front": ("a.zip", lambda: ZIP[30:]),
    "a zip that lists itself elsewhere": ("a.zip", lambda: patched(ZIP, END + 16, b"\xff" * 3)),
    "a zip on the second of three disks": ("a.zip", lambda: patched(ZIP, END + 4, b"\x02\0\x01\0")),
    "a zip with a comment beyond its end": ("a.zip", lambda: patched(ZIP, END + 20, b"\xff\xff")),
    "a link to a secret": ("a.tar", lambda: link(tarfile.SYMTYPE, "/etc/passwd")),
    "a link that climbs": ("a.tar", lambda: link(tarfile.SYMTYPE, "../../../etc/passwd")),
    "a hard link": ("a.tar", lambda: link(tarfile.LNKTYPE, "/etc/passwd")),
    "a link to itself": ("a.tar", lambda: link(tarfile.SYMTYPE, "x.png")),
    "a device": ("a.tar", lambda: tarred((tar_info("x.png", type=tarfile.CHRTYPE, devmajor=1,
                                                 devminor=5), b""))),
    "a pipe": ("a.tar", lambda: tarred((tar_info("x.png", type=tarfile.FIFOTYPE), b""))),
    "a climbing name in a tar": ("a.tar", lambda: tarred((tar_info("../../x.png", 1), b"x"))),
    "a tar's name of 60,000 letters": (
        "a.tar", lambda: tarred((tar_info("x/" * 30_000 + "x.png", 1), b"x"))),
    "a member with strange headers": (
        "a.tar",
        lambda: tarred((tar_info("x.png", 1, pax_headers={"path": "../../y.png", "size": "99999"}),
                        b"x"), style=tarfile.PAX_FORMAT),
    ),
    "a name that unpacks to gigabytes": (
        "a.tgz",
        lambda: gzip.compress(tar_info("x", 2**32, type=tarfile.GNUTYPE_LONGNAME).tobuf()
                              + bytes(2**20)),
    ),
    "a header that unpacks to gigabytes": (
        "a.tgz",
        lambda: gzip.compress(tar_info("x", 2**32, type=tarfile.XHDTYPE).tobuf() + bytes(2**20)),
    ),
    "a member of setuid root": ("a.tar", lambda: tarred((tar_info("x.png", 1, mode=0o4777, uid=0),
                                                         b"x"))),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_is_unreadable_or_an_image_and_nothing_is_unpacked(
    tmp_path: Path, case: str, record_property: Say
) -> None:
    """An archive with a hostile member."""
    name, make = HOSTILE[case]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(make())
    reasons: list[str] = []

    def read() -> None:
        images = unlabelled(str(tmp_path / "in" / name))
        for row in range(len(images)):
            assert images.name(row)
            try:
                assert len(images.read(row)) <= MAX_BYTES
            except BadImage as error:
                reasons.append(str(error))

    message = refusal(read)
    assert not message or name in message
    assert [path.name for path in tmp_path.rglob("*")] == ["in", name]
    record_property("said", message.replace(f"{tmp_path}/in/", "") or "; ".join(reasons) or "read")


def test_hostile_members_cost_no_other_image(
    refused: Refused, detector_file: Path, images: Path
) -> None:
    """An archive with bad members between good ones, scored."""
    good = sorted(images.rglob("*.png"))[:3]
    members = {"../../evil.png": b"x", **{f.name: f.read_bytes() for f in good}, "[/]\x1b.png": b""}
    (refused.folder / "a.zip").write_bytes(zipped(members))
    refused.may_write = True
    refused(
        "predict", f"--model={detector_file}", "--data=a.zip", "--workers=0", "--output=out",
        status=0,
    )  # fmt: skip
    table = pd.read_csv(refused.folder / "out" / "predictions.csv")
    assert table["image"].tolist() == list(members)
    assert table["error"].isna().tolist() == [False, True, True, True, False]
    assert table["probability"].notna().sum() == 3
    assert not list(refused.folder.parent.rglob("evil.png"))


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(["a.zip", "a.tar", "a.tgz"]), st.data())
def test_an_archive_with_any_bytes_in_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    """An archive with any bytes put into any place: 150 made up by hypothesis."""
    whole = {"a.zip": ZIP, "a.tar": TAR, "a.tgz": gzip.compress(TAR, mtime=0)}[name]
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(begin + 40, len(whole))))
    file = tmp_path_factory.getbasetemp() / name
    file.write_bytes(whole[:begin] + data.draw(st.binary(max_size=40)) + whole[end:])

    def read() -> None:
        images = unlabelled(str(file))
        for row in range(len(images)):
            with contextlib.suppress(BadImage):
                images.read(row)

    message = refusal(read)
    assert not message or str(file) in message
