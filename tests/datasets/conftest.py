"""Helpers of the tests of data sets."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synthdetect.images.batches import Images
from synthdetect.images.reading import BadImage


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, which does not exist yet."""
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_csv(folder: Path, text: str) -> Path:
    """Write `list.csv`."""
    file = folder / "list.csv"
    file.write_text(text, encoding="utf-8")
    return file


def noise_image(seed: int) -> bytes:
    """Encode an image of noise as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def rows(table: pd.DataFrame) -> list[tuple[object, ...]]:
    """Return the rows of a table without trailing empty fields."""
    found = []
    for row in table.itertuples(index=False):
        values = list(row)
        while values[-1] == "":
            values.pop()
        found.append(tuple(values))
    return found


NAMES = ["b/2.PNG", "b/10.png", "a.webp", "c/d/e.jpeg"]
"""Names of images, unsorted and with different suffixes."""

CONTENT = {name: noise_image(number) for number, name in enumerate(NAMES)}
"""The content of each."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the images of `CONTENT`, other files and hidden ones."""
    root = tmp_path / "images"
    for name, data in CONTENT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "notes.txt").write_text("no image")
    (root / "._a.webp").write_bytes(b"macOS")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(noise_image(9))
    return root


def tar_info(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    """Make the header of a member."""
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def pack(path: Path, members: dict[str, bytes]) -> Path:
    """Make a zip or tar archive, by the suffix, with its members in the given order."""
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
    """Return the name of each image."""
    return [images.name(row) for row in range(len(images))]


def contents_of(images: Images) -> list[bytes]:
    """Read all images."""
    return [images.read(row) for row in range(len(images))]


def refusal_of(images: Images, row: int) -> str:
    """Return the reason why an image cannot be read."""
    with pytest.raises(BadImage) as caught:
        images.read(row)
    return str(caught.value)
