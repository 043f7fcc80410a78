"""Files that are damaged, hostile or no images, wherever an image is read."""

import io
import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import GEOMETRIES
from synthdetect.images.reading import (
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    BadImage,
    probe_image,
    read_image,
)
from tests.faults.conftest import TINY, Refused

SIDE = 48

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of decoders


def encode(kind: str) -> bytes:
    """A photograph-like picture in a format."""
    rng = np.random.default_rng(len(kind))
    ramp = np.linspace(0, 200, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3)
    pixels = (ramp + rng.integers(0, 55, ramp.shape)).astype(np.uint8)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


WHOLE = {kind: encode(kind) for kind in FORMATS}

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "the first 4 bytes": lambda data: data[:4],
    "the first 20 bytes": lambda data: data[:20],
    "the first tenth": lambda data: data[: len(data) // 10],
    "all but the last byte": lambda data: data[:-1],
    "all but the first byte": lambda data: data[1:],
    "zeros in the middle": lambda data: (
        data[: len(data) // 3] + bytes(len(data) // 3) + data[len(data) * 2 // 3 :]
    ),
    "0xFF in the middle": lambda data: (
        data[: len(data) // 3] + b"\xff" * (len(data) // 3) + data[len(data) * 2 // 3 :]
    ),
    "0xFF after byte 16": lambda data: data[:16] + b"\xff" * (len(data) - 16),
    "zeros after byte 16": lambda data: data[:16] + bytes(len(data) - 16),
    "its bytes reversed": lambda data: data[:8] + data[:7:-1],
    "its bytes swapped": lambda data: (
        data[:8] + bytes(b for pair in zip(data[9::2], data[8::2], strict=False) for b in pair)
    ),
    "itself within itself": lambda data: data[: len(data) // 2] + data + data[len(data) // 2 :],
    "sizes at their largest": lambda data: (
        data[:8]
        + data[8:40]
        .replace(b"\0\0\0\x30", b"\x7f\xff\xff\xff")
        .replace(b"\0\x30", b"\xff\xff")
        .replace(b"\x30\0", b"\xff\xff")
        + data[40:]
    ),
    "sizes of nothing": lambda data: data[:8] + data[8:40].replace(b"\x30", b"\0") + data[40:],
}


def outcome(data: bytes) -> str:
    """`read`, or why it is not; whatever else happens fails the test."""
    reasons = []
    readers: list[Callable[[bytes], object]] = [
        read_image,
        probe_image,
        Preprocess(16, "resize", 75),
    ]
    readers += [Preprocess(16, geometry) for geometry in GEOMETRIES]
    for reader in readers:
        try:
            made = reader(data)
            reasons.append("")
        except BadImage as error:
            reasons.append(str(error))
            assert 0 < len(reasons[-1]) < 300
        else:
            if isinstance(made, Image.Image):
                assert made.mode == "RGB"
                assert 0 < made.width * made.height <= MAX_PIXELS
    return reasons[0] or "read"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_image_is_a_picture_or_unreadable(
    kind: str, damage: str, record_property: Callable[[str, object], None]
) -> None:
    """An image of each format, damaged in each of these ways."""
    record_property("said", outcome(DAMAGES[damage](WHOLE[kind])))


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    """A segment of a JPEG, whose length may be a lie."""
    size = len(content) + 2 if length is None else length
    return struct.pack(">BBH", 0xFF, marker, size) + content


def jpeg_with(extra: bytes) -> bytes:
    return WHOLE["JPEG"][:2] + extra + WHOLE["JPEG"][2:]


def chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    """A chunk of a PNG."""
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content) if length is None else length) + kind + content + crc


def png(width: int, height: int, bits: int, colour: int, *chunks: bytes, method: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, method)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def png_with(extra: bytes) -> bytes:
    return WHOLE["PNG"][:33] + extra + WHOLE["PNG"][33:]


def tiff(*entries: tuple[int, int, int, int], next_directory: int = 0, data: bytes = b"") -> bytes:
    """A TIFF of one directory: tag, type, count, value."""
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    directory = struct.pack("<H", len(entries)) + fields + struct.pack("<I", next_directory)
    return b"II*\0" + struct.pack("<I", 8) + directory + data


def bmp(width: int, height: int, bits: int, method: int = 0, data: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, method, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + header + data


SIZE_TAGS = ((256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (262, 3, 1, 1))
IDAT = chunk(b"IDAT", zlib.compress(bytes(65)))
GIF_HEAD = b"GIF89a\x08\0\x08\0\0\0\0"
SOF = WHOLE["JPEG"].index(b"\xff\xc0")

HOSTILE: dict[str, bytes] = {
    # JPEG
    "a JPEG of 65535x65535 pixels": WHOLE["JPEG"][: SOF + 5]
    + b"\xff" * 4
    + WHOLE["JPEG"][SOF + 9 :],
    "a JPEG of no height": WHOLE["JPEG"][: SOF + 5] + bytes(2) + WHOLE["JPEG"][SOF + 7 :],
    "a JPEG with 255 components": WHOLE["JPEG"][: SOF + 9] + b"\xff" + WHOLE["JPEG"][SOF + 10 :],
    "a JPEG of 12 bits": WHOLE["JPEG"][: SOF + 4] + b"\x0c" + WHOLE["JPEG"][SOF + 5 :],
    "a JPEG without tables": WHOLE["JPEG"].replace(b"\xff\xdb", b"\xff\xfe"),
    "a JPEG with a segment of no length": jpeg_with(segment(0xE1, b"Exif\0\0", 0)),
    "a JPEG with a segment beyond its end": jpeg_with(segment(0xE1, b"Exif\0\0", 65535)),
    "a JPEG whose EXIF points at itself": jpeg_with(
        segment(0xE1, b"Exif\0\0" + tiff((0x8769, 4, 1, 8), (0x0112, 3, 1, 6), next_directory=8))
    ),
    "a JPEG whose EXIF is 4 GiB": jpeg_with(
        segment(0xE1, b"Exif\0\0" + tiff((0x0112, 3, 2**32 - 1, 8)))
    ),
    "a JPEG whose orientation is text": jpeg_with(
        segment(0xE1, b"Exif\0\0" + tiff((0x0112, 2, 4, 0x41414141)))
    ),
    "a JPEG with a profile that is none": jpeg_with(
        segment(0xE2, b"ICC_PROFILE\0\1\1" + b"x" * 200)
    ),
    "a JPEG with a profile in 255 parts": jpeg_with(segment(0xE2, b"ICC_PROFILE\0\xff\1x")),
    "a JPEG with an index of others": jpeg_with(
        segment(0xE2, b"MPF\0" + tiff((0xB001, 4, 1, 2**31)))
    ),
    "a JPEG with Adobe's mark and three colours": jpeg_with(segment(0xEE, b"Adobe\0d\0\0\0\0\2")),
    "a JPEG with 10,000 comments": jpeg_with(segment(0xFE, b"x") * 10_000),
    "a JPEG with XMP": jpeg_with(
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<!DOCTYPE a [<!ENTITY b 'c'>]>")
    ),
    "a JPEG without its end": WHOLE["JPEG"][:-2],
    "a JPEG before a zip archive": WHOLE["JPEG"] + b"PK\x03\x04" + bytes(100),
    # PNG
    "a PNG of 2147483647x1": png(2**31 - 1, 1, 8, 0, IDAT),
    "a PNG of 0x0": png(0, 0, 8, 0, IDAT),
    "a PNG of 3 bits": png(8, 8, 3, 0, IDAT),
    "a PNG of colour 5": png(8, 8, 8, 5, IDAT),
    "a PNG without pixels": png(8, 8, 8, 0),
    "a PNG with few pixels": png(1000, 1000, 8, 0, IDAT),
    "a PNG without its palette": png(8, 8, 8, 3, IDAT),
    "a PNG with a palette of 7 bytes": png(8, 8, 8, 3, chunk(b"PLTE", bytes(7)), IDAT),
    "a PNG of interlacing 9": png(8, 8, 8, 0, IDAT, method=9),
    "a PNG with 4 GiB of pixels to come": png(8, 8, 8, 0, chunk(b"IDAT", b"x", 2**32 - 1)),
    "a PNG whose pixels are no zlib": png(8, 8, 8, 0, chunk(b"IDAT", b"not zlib at all")),
    "a PNG whose pixels unpack to 64 MiB": png(
        8, 8, 8, 0, chunk(b"IDAT", zlib.compress(bytes(2**26)))
    ),
    "a PNG whose profile unpacks to 64 MiB": png_with(
        chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**26)))
    ),
    "a PNG whose text unpacks to 64 MiB": png_with(
        chunk(b"iTXt", b"t\0\1\0\0\0" + zlib.compress(bytes(2**26)))
    ),
    "a PNG with 20,000 texts": png_with(chunk(b"tEXt", b"a\0b") * 20_000),
    "a PNG with an unknown critical chunk": png_with(chunk(b"EVIL", b"x")),
    "a PNG with a wrong checksum": WHOLE["PNG"][:29] + bytes(4) + WHOLE["PNG"][33:],
    "a PNG that moves a billion times": png_with(chunk(b"acTL", struct.pack(">II", 10**9, 0))),
    "a PNG with a frame beyond it": png_with(
        chunk(b"acTL", struct.pack(">II", 2, 0))
        + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 9999, 9999, 9999, 9999, 1, 1, 0, 0))
    ),
    "a PNG with transparency of the wrong kind": png_with(chunk(b"tRNS", b"x" * 300)),
    "a PNG with its EXIF in a circle": png_with(chunk(b"eXIf", tiff(next_directory=8))),
    # GIF
    "a GIF of no size": b"GIF89a" + bytes(7) + b";",
    "a GIF without a picture": b"GIF89a\x08\0\x08\0\0\0\0;",
    "a GIF whose codes are of 12 bits": GIF_HEAD + b",\0\0\0\0\x08\0\x08\0\0\x0c\x02\xff\xff\0;",
    "a GIF whose frame is of no size": GIF_HEAD + b"," + bytes(9) + b"\x02\x02\x4c\x01\0;",
    "a GIF with blocks without end": b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe\xff" + b"x" * 1000,
    "a GIF before a script": b"GIF89a=1;alert(1)//" + bytes(50),
    # TIFF
    "a TIFF whose directory is itself": tiff(*SIZE_TAGS, next_directory=8),
    "a TIFF with 65535 tags": b"II*\0\x08\0\0\0\xff\xff",
    "a TIFF with 4 billion strips": tiff(
        *SIZE_TAGS, (273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)
    ),
    "a TIFF with strips beyond its end": tiff(*SIZE_TAGS, (273, 4, 1, 2**31), (279, 4, 1, 4096)),
    "a TIFF of 2^32 pixels": tiff((256, 4, 1, 2**16), (257, 4, 1, 2**16), *SIZE_TAGS[2:]),
    "a TIFF of an unknown packing": tiff(*SIZE_TAGS, (259, 3, 1, 60_000), (273, 4, 1, 8)),
    "a TIFF with tiles of no size": tiff(
        *SIZE_TAGS, (322, 4, 1, 0), (323, 4, 1, 0), (324, 4, 1, 8)
    ),
    "a TIFF of 64 bits a number": tiff(
        *SIZE_TAGS[:2], (258, 3, 1, 64), (262, 3, 1, 1), (273, 4, 1, 8)
    ),
    "a TIFF with a thousand channels": tiff(*SIZE_TAGS, (277, 3, 1, 1000), (273, 4, 1, 8)),
    "a TIFF without tags": tiff(),
    "a BigTIFF of nothing": b"II+\0\x08\0\0\0" + bytes(24),
    # BMP
    "a BMP of 2^31 pixels a side": bmp(2**31 - 1, 2**31 - 1, 24),
    "a BMP of negative width": bmp(-8, 8, 24, data=bytes(192)),
    "a BMP of 0 bits": bmp(8, 8, 0),
    "a BMP of runs beyond it": bmp(8, 8, 8, 1, b"\xff\x01" * 1000),
    "a BMP of an unknown packing": bmp(8, 8, 24, 99),
    "a BMP whose header is 4 GiB": b"BM" + bytes(12) + b"\xff\xff\xff\xff",
    # WebP, AVIF, JPEG 2000
    "a WebP that says it is longer": b"RIFF\xff\xff\xff\xff" + WHOLE["WEBP"][8:],
    "a WebP of nothing": b"RIFF\x04\0\0\0WEBP",
    "a WebP of 16384x16384": b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0"
    + bytes(4)
    + b"\xff\x3f\0\xff\x3f\0"
    + bytes(8),
    "a WebP with a broken animation": b"RIFF\x2a\0\0\0WEBPVP8X\x0a\0\0\0\x02"
    + bytes(9)
    + b"ANIM"
    + bytes(12),
    "an AVIF of boxes within boxes": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"
    + b"\0\0\x10\0meta" * 50,
    "a HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
    "a JPEG 2000 of nothing": b"\0\0\0\x0cjP  \r\n\x87\n",
    "a JPEG 2000 codestream of 2^32 pixels": b"\xff\x4f\xff\x51\0\x2f\0\0"
    + b"\xff" * 32
    + b"\0\3"
    + b"\7\1\1" * 3,
    # PPM
    "a PPM of 10^9 pixels a side": b"P6 1000000000 1000000000 255\n",
    "a PPM of negative size": b"P6 -8 8 255\n" + bytes(192),
    "a PPM whose white is 0": b"P6 8 8 0\n" + bytes(192),
    "a PPM whose white is 65536": b"P6 8 8 65536\n" + bytes(192),
    "a PPM of a number of 10,000 digits": b"P6 " + b"9" * 10_000 + b" 8 255\n",
    "a PPM that is one comment": b"P6 #" + b"x" * 10_000,
    "a PPM of words": b"P3 8 8 255\n" + b"white " * 192,
    "a PPM of few pixels": b"P6 800 800 255\n" + bytes(10),
    "a PFM of infinities": b"Pf 8 8 -1.0\n" + struct.pack("<f", float("inf")) * 64,
    # no images
    "a pickle": pickle.dumps(os.getcwd, protocol=4),
    "a zip archive": b"PK\x03\x04" + bytes(100),
    "a tar archive": bytes(257) + b"ustar\x0000" + bytes(248),
    "a gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\3" + bytes(20),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%touch executed) (w) file\n",
    "an SVG that reads a file": b"<svg><image href='file:///etc/passwd'/></svg>",
    "XML that swells": b"<!DOCTYPE a [<!ENTITY b 'bb'><!ENTITY c '&b;&b;'>]><a>&c;</a>",
    "an ICO": b"\0\0\1\0\1\0\x08\x08\0\0\1\0 \0" + struct.pack("<II", 300, 22) + bytes(300),
    "a PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(50),
    "a FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "an MP4": b"\0\0\0\x20ftypisom" + bytes(50),
    "an executable": b"\x7fELF\2\1\1" + bytes(50),
    "text in UTF-16": "an image".encode("utf-16"),
    "JSON": b'{"error": "not found"}',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"0" * 64
    + b"\nsize 9\n",
    "one byte": b"\xff",
    "a byte order mark": b"\xef\xbb\xbf",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_a_picture_or_unreadable(
    case: str, record_property: Callable[[str, object], None]
) -> None:
    """A file made to be taken for more than it is, or for an image."""
    record_property("said", outcome(HOSTILE[case]))


@settings(max_examples=250, derandomize=True, deadline=None, database=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_picture_or_unreadable(data: bytes) -> None:
    """Any bytes at all: 250 made up by hypothesis."""
    outcome(data)


@settings(max_examples=250, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(FORMATS), st.data())
def test_an_image_with_any_bytes_in_it_is_a_picture_or_unreadable(
    kind: str, data: st.DataObject
) -> None:
    """An image with any bytes put into any place: 250 made up by hypothesis."""
    whole = WHOLE[kind]
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(begin + 64, len(whole))))
    outcome(whole[:begin] + data.draw(st.binary(max_size=64)) + whole[end:])


# --- where they are read from


def test_every_unreadable_image_of_a_folder_is_listed(refused: Refused, images: Path) -> None:
    """A folder in which eight images cannot be read."""
    bad = [name for name in HOSTILE if outcome(HOSTILE[name]) != "read"][:8]
    files = sorted(images.rglob("*.png"))[: len(bad)]
    for file, name in zip(files, bad, strict=True):
        file.write_bytes(HOSTILE[name])
    named = ("8 of 24", *map(str, files), "--on-bad-image exclude")
    refused("train", *TINY, f"--data={images}", named=named)


def huge(file: Path) -> None:
    file.touch()
    os.truncate(file, MAX_BYTES + 1)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a named pipe": (os.mkfifo, "not a regular file"),
    "a link to a device": (lambda file: file.symlink_to("/dev/zero"), "not a regular file"),
    "a link to nowhere": (lambda file: file.symlink_to("nowhere"), "No such file"),
    "a link to itself": (lambda file: file.symlink_to(file), "symbolic links"),
    "a file over the limit": (huge, "more than the limit"),
    "an empty file": (Path.touch, "the file is empty"),
    "a folder": (Path.mkdir, "Is a directory"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_file_is_named_and_not_read(
    refused: Refused, images: Path, case: str
) -> None:
    """Among the images something that is no file, or endless."""
    make, reason = FILES[case]
    victim, *others = sorted(images.rglob("*.png"))
    victim.unlink()
    make(victim)
    rows = "".join(f"{file},{file.parent.name}\n" for file in (victim, *others))
    (refused.folder / "m.csv").write_text("path,label\n" + rows)
    refused("train", *TINY, "--data=m.csv", named=("1 of 24", str(victim), reason, "exclude"))


@pytest.mark.parametrize("case", FILES)
def test_nothing_but_such_files_are_no_data(refused: Refused, case: str) -> None:
    """Nothing but such a file, and the wish to leave out what cannot be read."""
    make, reason = FILES[case]
    make(refused.folder / "a.png")
    (refused.folder / "m.csv").write_text("path,label\na.png,real\n")
    exclude = "--on-bad-image=exclude"
    refused("train", *TINY, "--data=m.csv", exclude, named=("1 of 1", "a.png", reason))
