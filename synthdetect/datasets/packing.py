"""Packing the images of a manifest into tar shards, with their manifest beside them."""

import io
import itertools
import json
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from synthdetect.datasets.index import COLUMNS as INDEXED
from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.labels import CLASSES
from synthdetect.datasets.manifest import Manifest, write
from synthdetect.datasets.shards import INDEX
from synthdetect.images.buckets import find, is_url, open_url, reaching
from synthdetect.images.contents import located, member_path, read_content, shard_stamps
from synthdetect.images.reading import BadImage
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically, require_folder


def pack(
    manifest: Manifest, output: str, *, shard_bytes: int, progress: ProgressCallback | None = None
) -> Manifest:
    """Write the images of a manifest as tar shards in WebDataset's layout, and their manifest.

    Each image keeps its bytes and its file name. Beside it is a `.json` of what the manifest says
    about it, so that other programs, and `synthdetect manifest`, can read the shards without the
    manifest. Splits have shards of their own, such as `train-000000.tar`. The manifest
    `shards.INDEX` is written last: shards without it are those of an interrupted call.

    Args:
        manifest: The images, indexed and readable.
        output: A folder or the URL of one, which is empty or does not exist.
        shard_bytes: Size from which a shard is full.
        progress: Called with the number of images that are written, and of all.

    Returns:
        The manifest of the shards.

    Raises:
        UserError: If the folder is not empty or cannot be written, or an image cannot be read.
    """
    _require_empty(output)
    table = manifest.table.sort_values("split", kind="stable", ignore_index=True)
    described = table.drop(columns=[c for c in ("path", *INDEXED) if c in table])
    described["label"] = described["label"].map(dict(enumerate(CLASSES)))
    digits = len(str(len(table)))
    paths: list[str] = []
    shards: list[str] = []
    for split, part in table.groupby("split", sort=False):
        fields = described.loc[part.index].itertuples(index=False, name=None)
        images = zip(part.index, part["path"].tolist(), fields, strict=True)
        image = next(images, None)
        for number in itertools.count():
            if image is None:
                break
            shard = f"{split or 'images'}-{number:06}.tar"
            shards.append(shard)
            with _writing(output, shard) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
                while image is not None and (tar.offset < shard_bytes or tar.offset == 0):
                    row, path, values = image
                    base = posixpath.basename(path.replace("\\", "/"))
                    name = f"{row:0{digits}}/{base}"
                    data = _content(manifest.file(path))
                    paths.append(member_path(shard, _add(tar, name, data), len(data), name))
                    key = posixpath.join(f"{row:0{digits}}", base.partition(".")[0])
                    _add(tar, f"{key}.json", _json(described.columns, values))
                    if progress:
                        progress(len(paths), len(table))
                    image = next(images, None)
    stamps = shard_stamps([located(output, shard) for shard in shards])
    of_row = [stamps[located(output, path.partition("#")[0])] for path in paths]
    table = table.assign(path=paths, mtime_ns=of_row)
    packed = replace(manifest, table=table, root=output, name=output)
    with tempfile.TemporaryDirectory() as folder:
        write(packed, Path(folder) / INDEX)
        with (Path(folder) / INDEX).open("rb") as file, _writing(output, INDEX) as stream:
            shutil.copyfileobj(file, stream)
    return packed


def _require_empty(output: str) -> None:
    if not is_url(output):
        require_folder(Path(output), "output")
        taken = Path(output).is_dir() and any(Path(output).iterdir())
    else:
        try:
            taken = bool(find(output))
        except FileNotFoundError:
            taken = False
        except OSError as error:
            raise UserError(f"{output}: {error.strerror or error}. Check the address.") from error
    if taken:
        raise UserError(f"{output}: is not empty. Give a new folder.")


@contextmanager
def _writing(output: str, name: str) -> Iterator[IO[bytes]]:
    target = located(output, name)
    try:
        if is_url(output):
            stream = open_url(target, "wb")
            try:
                yield stream
            except BaseException:
                stream.discard()  # type: ignore[attr-defined]  # closing would upload what there is
                raise
            with reaching():
                stream.close()
            return
        Path(output).mkdir(parents=True, exist_ok=True)
        with replace_atomically(Path(target)) as temporary, temporary.open("wb") as stream:
            yield stream
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written: {error.strerror or error}. Remove what is there, and "
            "give a folder with more room."
        ) from error


def _content(path: str) -> bytes:
    try:
        return read_content(path)
    except (BadImage, OSError) as error:
        raise UserError(
            f"{path}: was readable when it was indexed and is not any more: {error}. Restore it."
        ) from error


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file that is the same whenever and by whomever it is added, and return its offset."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    end: int = tar.offset
    return end - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _json(names: Iterable[str], values: Iterable[Any]) -> bytes:
    known = {
        name: value
        for name, value in zip(names, values, strict=True)
        if not (np.all(pd.isna(value)) or (isinstance(value, str) and not value))
    }
    return json.dumps(known, default=str).encode()
