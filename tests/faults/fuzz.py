"""Looks for bytes that break the readers of images and of manifests, guided by what they reach.

    pip install atheris
    python -m tests.faults.fuzz [image|manifest] [seconds]

Ends with 0 if nothing was found in that time. No part of the suite: what it tries is new each time.
"""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["synthdetect", "PIL"]):
    from synthdetect.datasets.manifest import read
    from synthdetect.images.geometry import Preprocess
    from synthdetect.images.reading import BadImage, probe_image
    from synthdetect.system.errors import UserError

_PREPROCESS = Preprocess(16, "resize", 75)
_LONGEST = 4096  # bytes of an input
_FOLDER = Path(tempfile.mkdtemp())


def image(data: bytes) -> None:
    """An image, or `BadImage`."""
    for reader in (probe_image, _PREPROCESS):
        with suppress(BadImage):
            reader(data)


def manifest(data: bytes) -> None:
    """A manifest, or `UserError`."""
    file = _FOLDER / "m.csv"
    file.write_bytes(data)
    with suppress(UserError):
        found = read(file)
        found.digest()
        found.counts()


TARGETS = {"image": image, "manifest": manifest}


def seeds(target: str) -> Path:
    """Sound files to begin with."""
    folder = _FOLDER / "seeds"
    folder.mkdir()
    if target == "image":
        from tests.faults.test_bad_images import WHOLE

        for kind, data in WHOLE.items():
            (folder / kind).write_bytes(data)
    else:
        for number, header in enumerate(("path,label\n", "filename,typ\n", "image,class,split\n")):
            (folder / str(number)).write_text(header + "a.png,real,train\nb.png,fake,test\n")
    return folder


if __name__ == "__main__":
    name, seconds = (*sys.argv[1:], *("image", "60")[len(sys.argv) - 1 :])
    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        "-rss_limit_mb=4096",
        "-timeout=20",
    ]
    atheris.Setup([sys.argv[0], *flags, str(seeds(name))], TARGETS[name])
    atheris.Fuzz()
