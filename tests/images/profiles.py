"""ICC profiles built by hand (ICC.1:2010): Pillow itself can only make one of sRGB."""

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)

# Colorants of published profiles, adapted to D50: red, green, blue.
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
DISPLAY_P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))


def numbers(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + numbers(*values)


def power(gamma: float) -> bytes:
    """A curve that is a power of the level."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


SRGB_CURVE = (
    b"para\0\0\0\0"
    + struct.pack(">HH", 3, 0)
    + numbers(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
)


def profile(
    tags: dict[bytes, bytes], *, space: bytes = b"RGB ", kind: bytes = b"mntr", pcs: bytes = b"XYZ "
) -> bytes:
    """A profile with these tags."""
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(padded))
        data += padded
    header = struct.pack(">I4sI4s4s4s", start + len(data), b"", 0x04200000, kind, space, pcs)
    header += struct.pack(">6H", 2025, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + numbers(*D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def rgb_profile(colorants: tuple[tuple[float, ...], ...], curve: bytes = SRGB_CURVE) -> bytes:
    """A profile of an RGB space by the XYZ of its red, green and blue, and its curve."""
    xyzs = {f"{c}XYZ".encode(): xyz(*values) for c, values in zip("rgb", colorants, strict=True)}
    return profile({**xyzs, **{f"{c}TRC".encode(): curve for c in "rgb"}})


def grey_profile(curve: bytes) -> bytes:
    return profile({b"wtpt": xyz(*D50), b"kTRC": curve}, space=b"GRAY")


def cmyk_profile(corners: np.ndarray) -> bytes:
    """A profile of inks by the Lab, in bytes, of the 16 combinations of full inks (CMYK order)."""
    straight = bytes(range(256))
    table = struct.pack(">4B", 4, 3, 2, 0) + numbers(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += straight * 4 + corners.astype(np.uint8).tobytes() + straight * 3
    lut = b"mft1\0\0\0\0" + table
    tags = {b"wtpt": xyz(*D50), b"A2B0": lut, b"A2B1": lut}
    return profile(tags, space=b"CMYK", kind=b"prtr", pcs=b"Lab ")


def chained_profile(elements: int) -> bytes:
    """A Display P3 profile with a tag that chains so many matrices, all of the same few bytes."""
    matrix = b"matf\0\0\0\0" + struct.pack(">HH12f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    places = struct.pack(">II", 16 + 8 * elements, len(matrix)) * elements
    chain = b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, elements) + places + matrix
    xyzs = {f"{c}XYZ".encode(): xyz(*v) for c, v in zip("rgb", DISPLAY_P3, strict=True)}
    return profile({**xyzs, **{f"{c}TRC".encode(): SRGB_CURVE for c in "rgb"}, b"D2B1": chain})
