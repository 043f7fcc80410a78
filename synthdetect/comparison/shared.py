"""The images that several predictions tables have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from synthdetect.evaluation.predictions import sampling_unit


@dataclass(frozen=True)
class Shared:
    """Predictions tables of the same images.

    Attributes:
        tables: The tables, with the same images in the same order. The columns that say which
            images depend on each other are the same in all of them.
        sizes: The number of images that each table had.
        relabelled: How many of the common images are left out because their labels differ.
    """

    tables: tuple[pd.DataFrame, ...]
    sizes: tuple[int, ...]
    relabelled: int

    @property
    def images(self) -> int:
        """The number of images in all tables."""
        return len(self.tables[0])

    @property
    def unit(self) -> str:
        """What the intervals are computed over: `photograph`, or `image` if none is named."""
        return sampling_unit(self.tables[0])


def shared_images(tables: Sequence[pd.DataFrame]) -> Shared:
    """Select the images that all predictions tables have, in the order of the first one.

    An image is recognised by the hash of its content if all tables have one for every image, and
    otherwise by its path. Copies of one content are numbered in the order of their rows.
    """
    by_content = all("sha256" in t and (t["sha256"] != "").all() for t in tables)
    keyed = [table.set_index(_keys(table, by_content), drop=False) for table in tables]
    common = keyed[0].index
    for table in keyed[1:]:
        common = common[common.isin(table.index)]
    rows = [table.loc[common] for table in keyed]
    agree = np.all([row["label"].to_numpy() == rows[0]["label"].to_numpy() for row in rows], axis=0)
    rows = [row[agree].reset_index(drop=True) for row in rows]
    named = next((row for row in rows if sampling_unit(row) == "photograph"), rows[0])
    sources = {name: named[name] for name in ("source_id", "sha256") if name in named}
    return Shared(
        tuple(row.assign(**sources) for row in rows),
        tuple(len(table) for table in tables),
        int((~agree).sum()),
    )


def _keys(table: pd.DataFrame, by_content: bool) -> pd.Index:
    name = "sha256" if by_content else "path"
    number = table.groupby(name).cumcount().astype(str)
    return pd.Index(table[name].astype(str) + " " + number)
