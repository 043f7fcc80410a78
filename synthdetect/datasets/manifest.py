"""The one table that says what the data are: an image a row.

A manifest is a CSV or Parquet file with the columns `path,label,split,generator,category,source_id`
and any further ones. Only `path` and `label` must be filled; a split beyond train, val and test is
a further evaluation set. In memory it is a `Manifest`, whichever file or folder it came from.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.datasets import layouts
from synthdetect.datasets.dialects import read_table, split_of
from synthdetect.datasets.labels import CLASSES, label_of
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically

COLUMNS = ("path", "label", "split", "generator", "category", "source_id")
SPLITS = ("train", "val", "test")
"""The splits with a role; every other one only evaluates."""

SPLIT_NAME = re.compile(r"[^\W_][\w.\- ]{0,63}")
"""What a split may be called: it becomes a part of metrics' and files' names."""
SPLIT_RULE = "use a letter or digit, then letters, digits, spaces, '.', '-' and '_', at most 64"

SAMPLE = "sample"
"""The name that stands for the built-in data set."""


@dataclass(frozen=True)
class Manifest:
    """A table of labelled images and the folder its paths start from.

    Attributes:
        table: `COLUMNS` first. `label` is 0 (real) or 1 (synthetic); the others are text, empty
            where unknown.
        root: what a relative path is relative to.
        name: what the user called it.
    """

    table: pd.DataFrame
    root: Path
    name: str

    def __len__(self) -> int:
        return len(self.table)

    def file(self, path: str) -> Path:
        """Where the image of that `path` lies."""
        return self.root / path

    def files(self) -> list[str]:
        """Where the image of each row lies."""
        root = str(self.root)  # not by way of Path: it is ten times as slow
        return [os.path.join(root, path) for path in self.table["path"]]

    def with_table(self, table: pd.DataFrame) -> "Manifest":
        """The same manifest with other rows or columns."""
        return replace(self, table=table.reset_index(drop=True))

    def split(self, name: str) -> "Manifest":
        """The rows of one split."""
        return self.with_table(self.table[self.table["split"] == name])

    @property
    def splits(self) -> list[str]:
        """The splits present: train, val, test, then the further ones by name."""
        present = set(self.table["split"].unique()) - {""}
        return [s for s in SPLITS if s in present] + sorted(present - set(SPLITS))

    def digest(self) -> str:
        """SHA-256 of what the rows say: content, label, split, generator, category, source.

        Independent of where the files lie and of the order of the rows.
        """
        identity = "sha256" if "sha256" in self.table else "path"
        columns = [identity, "label", "split", "generator", "category", "source_id"]
        hashes = pd.util.hash_pandas_object(self.table[columns].astype(str), index=False)
        return hashlib.sha256(np.sort(hashes.to_numpy()).tobytes()).hexdigest()

    def counts(self) -> pd.DataFrame:
        """Number of images per split, label and generator."""
        named = self.table.assign(label=self.table["label"].map(dict(enumerate(CLASSES))))
        return named.groupby(["split", "label", "generator"]).size().reset_index(name="images")


def load(data: str, *, option: str = "data") -> Manifest:
    """Read a manifest from whatever `-P data=` names.

    Args:
        data: `sample` (the built-in set), a manifest file (`.csv`, `.parquet`), a foreign CSV or
            a folder in one of the layouts of `synthdetect.datasets.layouts`.
        option: which gave it, for messages.

    Raises:
        UserError: nothing is there, or what is there cannot be understood.
    """
    if data == SAMPLE:
        folder = Path(str(files("synthdetect"))) / "sample"
        return replace(read(folder / "manifest.csv"), name=SAMPLE)
    path = Path(data).expanduser()
    if data and path.is_dir():
        return Manifest(_checked(layouts.import_folder(path), str(path)), path.resolve(), data)
    if path.is_file():
        return replace(read(path), name=data)
    raise UserError(
        f"{option}: {data!r} is neither '{SAMPLE}' nor a folder nor a manifest file. "
        "Give a path that exists."
    )


def read(path: Path) -> Manifest:
    """Read a manifest file; a CSV without the native columns goes to the foreign dialects.

    Raises:
        UserError: unreadable, without `path` and `label`, with an unknown label, an empty or
            repeated path, or no rows.
    """
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a manifest: {error}") from error
    if not {"path", "label"} <= set(table.columns):
        table = layouts.import_csv(path)
    return Manifest(_checked(table, str(path)), path.resolve().parent, str(path))


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest as CSV or Parquet, by the suffix; labels as `real` and `synthetic`.

    Raises:
        UserError: another suffix.
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
    """See that a manifest can be written under this name.

    Raises:
        UserError: it cannot.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{path}: a manifest ends in .csv or .parquet.")


def _checked(table: pd.DataFrame, where: str) -> pd.DataFrame:
    if table.empty:
        raise UserError(f"{where}: holds no images.")
    table = table.copy()
    for column in COLUMNS:
        if column not in table:
            table[column] = ""
    for column in (*COLUMNS[2:], "path"):
        table[column] = table[column].astype("str").fillna("").str.strip()
    _require(table["path"] != "", table, where, "has no path")
    nul = table["path"].str.contains("\0", regex=False)
    _require(~nul, table, where, "has a NUL in its path, which no file's name has")
    climbing = table["path"].str.contains(r"(?:^|[/\\])\.\.(?:[/\\]|$)", regex=True)
    _require(~climbing, table, where, "climbs out of its folder with '..'; give an absolute path")
    _require(~table["path"].duplicated(), table, where, "is listed twice; keep one row")
    if table["label"].dtype == object:  # of a Parquet file; a list, say, is no key to look up
        table["label"] = table["label"].map(str)
    names: dict[Any, int] = {name: label_of(name, where=where) for name in table["label"].unique()}
    table["label"] = table["label"].map(names).astype("int8")
    table["split"] = table["split"].map(split_of)
    odd = [name for name in table["split"].unique() if name and not SPLIT_NAME.fullmatch(name)]
    _require(~table["split"].isin(odd), table, where, f"has a split that is no name; {SPLIT_RULE}")
    further = [column for column in table.columns if column not in COLUMNS]
    return table[[*COLUMNS, *further]].reset_index(drop=True)


def _require(holds: "pd.Series[bool]", table: pd.DataFrame, where: str, what: str) -> None:
    if not holds.all():
        row = int(np.argmin(holds.to_numpy()))
        path = table["path"].iloc[row]
        raise UserError(f"{where}: row {row + 1} ({path!r}) {what}.")
