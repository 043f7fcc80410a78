"""Image ids of a run file: file names of the images without folders."""

import os
import re
from collections.abc import Collection
from pathlib import Path

from synthdetect.datasets.archives import ARCHIVE_SUFFIXES, open_archive
from synthdetect.datasets.layouts import IMAGE_SUFFIXES, walk
from synthdetect.system.errors import UserError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SLASH = re.compile(r"[/\\]")


def base_name(name: str) -> str:
    """Return the id of an image: its file name without folders, with either kind of slash."""
    return _SLASH.split(name)[-1]


def image_ids_of(path: Path) -> list[str]:
    """Return the sorted ids of the images in a folder or an archive, which a run must contain.

    A folder is searched with all its subfolders. Of an archive (.zip, .tar, .tar.gz, .tgz), only
    the names of the members are read. Files without an image suffix and hidden files are skipped.

    Raises:
        UserError: If there is no such folder or archive, it is damaged, it holds no images, or two
            images have the same file name.
    """
    if path.is_dir():
        names = ["/".join((*parts, name)) for parts, found in walk(path).items() for name in found]
    elif path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES):
        names = open_archive(path).names.to_pylist()
    else:
        raise UserError(f"{path}: is neither a folder nor a {', '.join(ARCHIVE_SUFFIXES)} file.")
    by_id: dict[str, str] = {}
    for name in sorted(set(names)):
        other = by_id.setdefault(base_name(name), name)
        if other != name:
            raise UserError(
                f"{path}: two images have the file name {base_name(name)}: {other} and {name}. A "
                "run names images without folders, so keep only one of them."
            )
    return sorted(by_id)


class ImageIds:
    """The ids that a run must contain, if they are known, and the rules for ids.

    A misspelt id that can be matched is reported as misspelt only, and not also as one missing and
    one unknown id.
    """

    def __init__(self, image_ids: Collection[str] | None) -> None:
        self.known = None if image_ids is None else frozenset(image_ids)
        self._by_stem = {
            name.rpartition(".")[0]: name for name in sorted(self.known or ()) if _has_suffix(name)
        }

    def match(self, written: str) -> tuple[str, bool]:
        """Return the id that is meant ("" if none is), and whether it is spelt correctly."""
        if self.known is not None and written in self.known:
            return written, True
        base = base_name(written.strip())
        if self.known is not None and base not in self.known and base in self._by_stem:
            return self._by_stem[base], False
        complete = bool(base) and (self.known is not None or _has_suffix(base))
        return base, complete and base == written and not _CONTROL.search(base)


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
