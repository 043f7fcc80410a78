"""The manifest of a data set: a table with one row per image.

A manifest is a CSV or Parquet file with the columns `path,label,split,generator,category,source_id`
and any further ones. Only `path` and `label` must be filled. A split other than train, val and test
is a further evaluation set. Manifest files, other lists and folders are all read into a `Manifest`.
"""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.datasets.dialects import import_csv, read_table
from synthdetect.datasets.labels import CLASSES, label_of
from synthdetect.datasets.layouts import NoImages, import_folder
from synthdetect.datasets.schema import COLUMNS, SPLIT_NAME, SPLIT_RULE, SPLITS, split_of
from synthdetect.datasets.shards import INDEX, find_shards, has_images, is_range, list_shards
from synthdetect.images.buckets import is_url, open_url
from synthdetect.images.contents import located
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically

SAMPLE = "sample"
"""The name of the built-in data set."""


@dataclass(frozen=True)
class Manifest:
    """A table of labelled images.

    Attributes:
        table: One row per image; begins with `schema.COLUMNS`. `label` is 0 (real) or 1
            (synthetic); the other columns are text, empty where unknown.
        root: Folder, or URL of a folder in a bucket, from which relative paths start.
        name: The name or path that the user gave.
    """

    table: pd.DataFrame
    root: Path | str
    name: str

    def __len__(self) -> int:
        return len(self.table)

    def file(self, path: str) -> str:
        """Return where the image with that value of `path` is, as in `contents`."""
        return located(self.root, path)

    def files(self) -> list[str]:
        """Return where the image of each row is."""
        root = str(self.root)  # pathlib would be ten times slower
        return [located(root, path) for path in self.table["path"]]

    def with_table(self, table: pd.DataFrame) -> "Manifest":
        """Return the manifest with another table."""
        return replace(self, table=table.reset_index(drop=True))

    def split(self, name: str) -> "Manifest":
        """Return the rows of one split."""
        return self.with_table(self.table[self.table["split"] == name])

    @property
    def splits(self) -> list[str]:
        """The splits that have images: train, val, test, then the others by name."""
        present = set(self.table["split"].unique()) - {""}
        return [s for s in SPLITS if s in present] + sorted(present - set(SPLITS))

    def digest(self) -> str:
        """Return the SHA-256 of content, label, split, generator, category and source of all rows.

        It depends neither on the folders of the files nor on the order of the rows.
        """
        identity = "sha256" if "sha256" in self.table else "path"
        columns = [identity, "label", "split", "generator", "category", "source_id"]
        hashes = pd.util.hash_pandas_object(self.table[columns].astype(str), index=False)
        return hashlib.sha256(np.sort(hashes.to_numpy()).tobytes()).hexdigest()

    def counts(self) -> pd.DataFrame:
        """Count the images of each split, label and generator."""
        named = self.table.assign(label=self.table["label"].map(dict(enumerate(CLASSES))))
        return named.groupby(["split", "label", "generator"]).size().reset_index(name="images")


def load(data: str, *, option: str = "--data") -> Manifest:
    """Read the manifest that `--data` names.

    Args:
        data: `sample` (the built-in data set), a manifest file (`.csv`, `.parquet`), a CSV in one
            of `dialects.DIALECTS`, a folder in one of `layouts.LAYOUTS`, or shards (see
            `shards.find_shards`). All but the sample may be the URL of an object in a bucket.
        option: The option that named `data`, for messages.

    Raises:
        UserError: If `data` does not exist or cannot be read as a manifest.
    """
    if data == SAMPLE:
        folder = Path(str(files("synthdetect"))) / "sample"
        return replace(read(folder / "manifest.csv"), name=SAMPLE)
    if is_url(data):
        try:
            return _from_bucket(data)
        except UserError as error:
            raise UserError(f"{option}: {error}") from error
    path = Path(data).expanduser()
    if data and path.is_dir():
        try:
            return Manifest(_checked(import_folder(path), str(path)), path.resolve(), data)
        except NoImages:
            shards, beside = find_shards(str(path.resolve()))
            if not shards:
                raise
        return _from_shards(shards, beside, str(path.resolve()), data)
    suffix = path.suffix.lower()
    is_shard = suffix == ".tar" or (suffix == ".parquet" and has_images(str(path)))
    if is_range(data) or (path.is_file() and is_shard):
        path = path.absolute()
        shards, beside = find_shards(str(path))
        if not shards:
            raise UserError(f"{option}: {data}: names no shards (.tar or .parquet).")
        return _from_shards(shards, beside, str(path.parent), data)
    if path.is_file():
        return replace(read(path), name=data)
    raise UserError(
        f"{option}: {data!r} is neither '{SAMPLE}' nor a folder nor a manifest file. "
        "Give a path that exists."
    )


def _from_bucket(url: str) -> Manifest:
    """Read a manifest, or list the shards, that a URL names."""
    folder, _, name = url.rpartition("/")
    suffix = name.lower().rpartition(".")[2]
    if suffix == "csv" or (suffix == "parquet" and not is_range(url) and not has_images(url)):
        return replace(_read_from_bucket(url), root=folder, name=url)
    shards, beside = find_shards(url)
    if not shards:
        raise UserError(f"{url}: holds no shards (.tar or .parquet). Give another address.")
    one = is_range(url) or suffix in ("tar", "parquet")
    return _from_shards(shards, beside, folder if one else url.rstrip("/"), url)


def _read_from_bucket(url: str) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / url.rpartition("/")[2]
        try:
            with open_url(url) as stream, copy.open("wb") as file:
                shutil.copyfileobj(stream, file)
            return read(copy)
        except OSError as error:
            raise UserError(f"{url}: {error.strerror or error}. Check the address.") from error
        except UserError as error:
            raise UserError(str(error).replace(str(copy), url)) from error


def _from_shards(shards: list[str], beside: str, root: str, name: str) -> Manifest:
    """Return the manifest beside shards, or list them if there is none."""
    if not beside:
        return Manifest(_checked(list_shards(shards, root), name), root, name)
    manifest = _read_from_bucket(beside) if is_url(root) else read(Path(beside))
    paths = manifest.table["path"].str.replace(r"#\d+\+\d+/.*", "", regex=True)
    unlisted = set(shards) - {located(root, path) for path in paths.unique()}
    if unlisted:
        raise UserError(
            f"{beside}: does not list {min(unlisted)}. Remove one of them: without "
            f"{INDEX}, the shards are listed anew."
        )
    return replace(manifest, root=root, name=name)


def read(path: Path) -> Manifest:
    """Read a manifest file, or a CSV in one of `dialects.DIALECTS`.

    Raises:
        UserError: If the file cannot be read, has no columns `path` and `label`, no rows, an
            unknown label, or an empty or repeated path.
    """
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a manifest: {error}") from error
    if not {"path", "label"} <= set(table.columns):
        table = import_csv(path)
    return Manifest(_checked(table, str(path)), path.resolve().parent, str(path))


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest as CSV or Parquet, by the suffix, with the labels `real` and `synthetic`.

    Raises:
        UserError: If the file has another suffix.
    """
    check_suffix(path)
    table = manifest.table.assign(label=manifest.table["label"].map(dict(enumerate(CLASSES))))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:
        if path.suffix.lower() == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)


def check_suffix(path: Path) -> None:
    """Refuse a file name that is not of a manifest.

    Raises:
        UserError: If it ends neither in .csv nor in .parquet.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{path}: the name of a manifest must end in .csv or .parquet.")


def check_paths(paths: "pd.Series[str]", where: str, first: int = 0) -> None:
    """Refuse paths that cannot name a file of a list, and repeated ones.

    Args:
        paths: The paths, without blanks around them.
        where: The list, for messages.
        first: The row of the first path in the list, counted from 0.

    Raises:
        UserError: If a path is empty, has a NUL character or `..`, or occurs twice.
    """
    climbing = paths.str.contains(r"(?:^|[/\\])\.\.(?:[/\\]|$)", regex=True)
    for wrong, message in (
        (paths == "", "has no path"),
        (paths.str.contains("\0", regex=False), "has a NUL character in its path"),
        (climbing, "climbs out of its folder with '..'; give an absolute path"),
        (paths.duplicated(), "is listed twice; keep one row"),
    ):
        _refuse(wrong, paths, where, message, first)


def _checked(table: pd.DataFrame, where: str) -> pd.DataFrame:
    if table.empty:
        raise UserError(f"{where}: holds no images.")
    table = table.copy()
    for column in COLUMNS:
        if column not in table:
            table[column] = ""
    for column in (*COLUMNS[2:], "path"):
        table[column] = table[column].astype("str").fillna("").str.strip()
    check_paths(table["path"], where)
    if table["label"].dtype == object:  # Parquet files may hold lists, which are not hashable
        table["label"] = table["label"].map(str)
    names: dict[Any, int] = {name: label_of(name, where=where) for name in table["label"].unique()}
    table["label"] = table["label"].map(names).astype("int8")
    table["split"] = table["split"].map(split_of)
    invalid = [name for name in table["split"].unique() if name and not SPLIT_NAME.fullmatch(name)]
    _refuse(
        table["split"].isin(invalid),
        table["path"],
        where,
        f"has a split whose name is not allowed; {SPLIT_RULE}",
    )
    further = [column for column in table.columns if column not in COLUMNS]
    return table[[*COLUMNS, *further]].reset_index(drop=True)


def _refuse(
    wrong: "pd.Series[bool]", paths: "pd.Series[str]", where: str, message: str, first: int = 0
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong.to_numpy()))
        raise UserError(f"{where}: row {first + row + 1} ({paths.iloc[row]!r}) {message}.")
