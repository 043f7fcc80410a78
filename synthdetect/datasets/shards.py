"""Images in tar shards (WebDataset's layout) and in Parquet files, as the rows of a manifest.

Only headers and the columns of labels are read here. Members are never unpacked and no member but
an image, a `.cls` and a `.json` is looked at: WebDataset's decoders, some of which unpickle, do not
run. The path of a row says where its bytes are; see `images.contents`.
"""

import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthdetect.datasets.labels import REAL, label_of
from synthdetect.datasets.layouts import describe_names, is_image
from synthdetect.datasets.schema import COLUMNS, SPLIT_SPELLINGS, split_of
from synthdetect.datasets.tars import StrictTarInfo, refusal, refusing_damage
from synthdetect.images.buckets import find, is_url, open_url, reaching
from synthdetect.images.contents import SHARD_SUFFIXES, member_path
from synthdetect.images.row_groups import IMAGE_COLUMNS, image_column, open_parquet
from synthdetect.system.errors import UserError

INDEX = "manifest.parquet"
"""The manifest that `synthdetect shard` writes beside its shards."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "name": ("image_name", "file_name", "filename", "name"),
    "label": ("label",),
    "generator": ("generator", "model", "model_name"),
    "split": ("split",),
    "category": ("category",),
    "source_id": ("source_id",),
}
"""The names of each field in a `.json` or a Parquet file, the first of which counts: those of a
manifest, and those of OpenFake and Community Forensics."""

_MAX_SIDECAR = 2**20  # bytes of a .json or .cls
_THREADS = 8  # shards that are listed at the same time
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_RANGE = 100_000
_WORDS = re.compile(r"[^a-z]+")


class Listed(NamedTuple):
    """An image of a shard.

    Attributes:
        path: Its path in a manifest.
        name: Its name in the shard, with folders.
        fields: What the shard says about it, by the names of `COLUMNS`.
    """

    path: str
    name: str
    fields: dict[str, str]


def is_range(data: str) -> bool:
    """Whether a path or URL has a range of numbers, as `{000000..000099}`."""
    return _RANGE.search(data) is not None


def find_shards(data: str) -> tuple[list[str], str]:
    """Return the shards that a path or URL names, sorted, and the manifest `INDEX` among them.

    Both are empty if it names something else.

    Args:
        data: A shard, a folder of shards, or several by a range of numbers:
            `s3://bucket/train-{000000..000099}.tar`.

    Raises:
        UserError: If a bucket cannot be reached, or a shard is compressed.
    """
    numbers = _RANGE.search(data)
    if numbers:
        names = _numbered(data, numbers)
    elif is_url(data):
        try:
            names = find(data)
        except OSError as error:
            raise UserError(f"{data}: {error.strerror or error}. Check the address.") from error
    elif os.path.isdir(data):
        files = (file for file in Path(data).rglob("*") if file.is_file())
        names = sorted(str(file) for file in files if not _hidden(file, data))
    else:
        names = [data]
    compressed = [name for name in names if name.lower().endswith(_COMPRESSED)]
    if compressed and data != compressed[0]:
        raise UserError(
            f"{compressed[0]}: is compressed, so that its images cannot be read in any order. "
            "Unpack it to .tar (images are compressed themselves)."
        )
    shards = [name for name in names if name.lower().endswith(SHARD_SUFFIXES)]
    indices = [name for name in shards if posixpath.basename(name) == INDEX]
    return [name for name in shards if name not in indices], "".join(indices[:1])


def list_shards(shards: Sequence[str], root: str) -> pd.DataFrame:
    """List the images of shards.

    The label of an image is, in this order: that of the `.json` beside it (a field `label`), that
    of the `.cls` beside it, or, in a Parquet file, that of the column `label`. If no shard has any
    of these, folders in the names of members (and of shards) tell the labels, as in
    `layouts.LAYOUTS`. The split may be told by the name of a shard, such as `train-000000.tar`.

    Args:
        shards: Paths or URLs.
        root: The folder or its URL; paths of shards below it become relative.

    Returns:
        A table that begins with `COLUMNS`, in the order of the shards.

    Raises:
        UserError: If a shard is damaged, has no images, an image without a label or a member that
            is not a regular file.
    """
    listed, inside = _listed(shards, root)
    if any("label" in image.fields for image in listed):
        table = _from_fields(listed)
        table["path"] = inside
    else:
        table = _from_folders(listed, inside, root)
    return table[[*COLUMNS, *(column for column in table if column not in COLUMNS)]]


def list_members(shards: Sequence[str], root: str) -> list[str]:
    """Return the paths of the images of shards, whose labels need not be known; see `list_shards`.

    Raises:
        UserError: As `list_shards`, but for the labels.
    """
    return _listed(shards, root)[1]


def _listed(shards: Sequence[str], root: str) -> tuple[list[Listed], list[str]]:
    """Return the images of shards, and their paths, relative to the root if they are below it."""
    with ThreadPoolExecutor(_THREADS) as pool:
        listed = [image for found in pool.map(_list_shard, shards) for image in found]
    prefix = root.rstrip("/") + "/"
    return listed, [image.path.removeprefix(prefix) for image in listed]


def _from_fields(listed: list[Listed]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    labels: dict[str, int] = {}
    for image in listed:
        if "label" not in image.fields:
            raise UserError(
                f"{image.path}: has no label, which others have. Add a .json or a .cls beside it."
            )
        given = image.fields["label"]
        if given not in labels:
            labels[given] = label_of(given, where=image.path)
        label = labels[given]
        columns["label"].append(label)
        columns["split"].append(split_of(image.fields.get("split", "")) or _split_of(image.path))
        generator = image.fields.get("generator", "")
        columns["generator"].append("" if label == REAL else generator)
        for name in ("category", "source_id"):
            columns[name].append(image.fields.get(name, ""))
    columns["path"] = [""] * len(listed)
    return pd.DataFrame(columns)


def _from_folders(listed: list[Listed], inside: list[str], root: str) -> pd.DataFrame:
    """Describe images by the folders of their shard and the folders in it."""
    names = [
        posixpath.join(posixpath.dirname(path.partition("#")[0]), image.name)
        for image, path in zip(listed, inside, strict=True)
    ]
    table, order = describe_names(Path(root), names)
    table["path"] = [inside[row] for row in order]
    split = [_split_of(path) for path in table["path"]]
    table["split"] = table["split"].where(table["split"] != "", pd.Series(split, dtype="str"))
    return table


def _split_of(path: str) -> str:
    """Return the split that the name of a shard tells, as of Hugging Face's and WebDataset's."""
    words = _WORDS.split(posixpath.basename(path.partition("#")[0]).lower())
    splits = {SPLIT_SPELLINGS[word] for word in words if word in SPLIT_SPELLINGS}
    return splits.pop() if len(splits) == 1 else ""


def _list_shard(shard: str) -> list[Listed]:
    found = _list_tar(shard) if shard.lower().endswith(".tar") else _list_parquet(shard)
    if not found:
        raise UserError(f"{shard}: holds no images.")
    return found


# --- tar


def _list_tar(shard: str) -> list[Listed]:
    images: list[tuple[str, str, str]] = []  # path, name, key of the sample
    sidecars: dict[str, dict[str, str]] = {}
    with (
        refusing_damage(shard),
        _opened(shard) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=StrictTarInfo) as tar,
    ):
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps all headers
            name = member.name.removeprefix("./")
            if member.isdir():
                continue
            key, _, extension = posixpath.basename(name).partition(".")
            key = posixpath.join(posixpath.dirname(name), key)
            if is_image(name):
                if refusal(member):
                    raise UserError(f"{shard}: {name}: {refusal(member)}. Pack the shard again.")
                _check_name(shard, name)
                path = member_path(shard, member.offset_data, member.size, name)
                images.append((path, name, key))
            elif extension in ("json", "cls") and member.isreg():
                found = _read_sidecar(shard, name, extension, member.size, tar.extractfile(member))
                first = sidecars.get(key, {})
                sidecars[key] = first | found if extension == "json" else found | first
    described = [(key, name) for _, name, key in images if key in sidecars]
    if len(dict(described)) < len(described):
        names = [name for key, name in described if dict(described)[key] != name]
        raise UserError(
            f"{shard}: {names[0]}: is not the only image of its .json or .cls. Keep one image."
        )
    return [Listed(path, name, sidecars.get(key, {})) for path, name, key in images]


def _read_sidecar(
    shard: str, name: str, extension: str, size: int, stream: IO[bytes] | None
) -> dict[str, str]:
    if size > _MAX_SIDECAR or stream is None:
        raise UserError(f"{shard}: {name}: {size:,} bytes are more than {_MAX_SIDECAR:,}.")
    try:
        text = stream.read().decode()
        if extension == "cls":
            return {"label": text.strip()}
        given = json.loads(text)
        if not isinstance(given, dict):
            raise ValueError("must be a JSON object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shard}: {name}: cannot be read: {error}. Correct it.") from error
    return {
        field: str(given[own])
        for field, names in _NAMES.items()
        for own in [next((own for own in names if given.get(own) is not None), None)]
        if own is not None
    }


def _check_name(shard: str, name: str) -> None:
    if ".." in name.replace("\\", "/").split("/") or "\0" in name:
        raise UserError(f"{shard}: the member {name!r} climbs out of its folder. Rename it.")


@contextmanager
def _opened(shard: str) -> Iterator[IO[bytes]]:
    if not is_url(shard):
        with open(shard, "rb") as stream:
            yield stream
    else:
        with reaching(), open_url(shard) as stream:
            yield stream


# --- Parquet


def has_images(shard: str) -> bool:
    """Whether a Parquet file can be read and has a column of images, and not of their paths."""
    try:
        with _parquet(shard) as parquet:
            return image_column(parquet.schema_arrow) != ""
    except UserError:
        return False


def _list_parquet(shard: str) -> list[Listed]:
    with _parquet(shard) as parquet:
        schema = parquet.schema_arrow
        column = image_column(schema)
        if not column:
            raise UserError(
                f"{shard}: has no column of the bytes of images named {', '.join(IMAGE_COLUMNS)}; "
                f"it has {', '.join(schema.names[:30])}."
            )
        own = {
            field: next((name for name in names if name in schema.names), "")
            for field, names in _NAMES.items()
        }
        own = {field: name for field, name in own.items() if name and name != column}
        inner = column.replace(".bytes", ".path") if column.endswith(".bytes") else ""
        if inner and schema.field(inner.split(".")[0]).type.get_field_index("path") >= 0:
            own.setdefault("name", inner)
        classes = {field: _class_names(schema, name) for field, name in own.items()}
        found: list[Listed] = []
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            table = parquet.read_row_group(group, columns=list(own.values()), use_threads=False)
            texts = {field: _texts(table, name, rows) for field, name in own.items()}
            for field in set(texts) & set(classes):
                texts[field] = [classes[field].get(value, value) for value in texts[field]]
            for row in range(rows):
                fields = {field: values[row] for field, values in texts.items() if values[row]}
                name = posixpath.basename(fields.pop("name", "").replace("\\", "/"))
                name = name if name not in ("", ".", "..") else f"{len(found):06}"
                found.append(Listed(member_path(shard, group, row, name), name, fields))
        return found


def _class_names(schema: pa.Schema, column: str) -> dict[str, str]:
    """Return the names of the numbers of a column that is a `ClassLabel` of Hugging Face's.

    Their order is any: 0 is "fake" as often as "real".
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {str(number): str(name) for number, name in enumerate(features[column]["names"])}
    except (KeyError, TypeError, ValueError):
        return {}


def _texts(table: pa.Table, name: str, rows: int) -> list[str]:
    column = table.column(name.split(".")[0])
    if "." in name:
        column = pc.struct_field(column, name.partition(".")[2])
    values = column.to_pylist()
    if len(values) != rows:
        raise pa.ArrowInvalid(f"{name} has {len(values):,} rows and not {rows:,}")
    return ["" if value is None else str(value).replace("\0", "") for value in values]


@contextmanager
def _parquet(shard: str) -> Iterator[Any]:
    try:
        with open_parquet(shard) as stream, reaching():
            yield pq.ParquetFile(stream)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{shard}: the Parquet file cannot be read: {error}. Copy it again."
        ) from error


# --- names


def _numbered(data: str, numbers: re.Match[str]) -> list[str]:
    first, last = numbers.groups()
    if not 0 <= int(last) - int(first) < _MAX_RANGE or _RANGE.search(data, numbers.end()):
        raise UserError(
            f"{data}: give one range of at most {_MAX_RANGE:,} numbers, as {{000000..000099}}."
        )
    begin, end = data[: numbers.start()], data[numbers.end() :]
    return [f"{begin}{n:0{len(first)}}{end}" for n in range(int(first), int(last) + 1)]


def _hidden(file: Path, root: str) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
