"""Data of trainings that are compared: equal in size, and validated on the same images."""

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.splits import group_codes


def match_size(pool: pd.DataFrame, like: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Draw as many real and as many synthetic images from a pool as another table has.

    Photographs are drawn, each with its real and its synthetic images. They are stratified by what
    a photograph has: the categories and generators of its images. The shares of the categories and
    generators thereby stay those of the pool. At most one photograph per class is drawn in part.

    Args:
        pool: Images to draw from, with the columns `label`, `category`, `generator`, `source_id`
            and, if known, `sha256`; of each class at least as many as in `like`.
        like: Images of which only the number of each label counts.
        seed: Seed of the draw.

    Returns:
        Rows of `pool`, in its order.
    """
    groups = group_codes(pool)
    rng = np.random.default_rng(seed)
    kinds = pool.groupby(["label", "category", "generator"]).ngroup().to_numpy()
    # The sum of a random number for each kind of image is one number for each set of kinds.
    keys = rng.integers(2**53, size=kinds.max() + 1)[kinds]
    held = pd.DataFrame({"group": groups, "key": keys}).drop_duplicates()
    stratum = held.groupby("group")["key"].sum().to_numpy()
    # Each photograph lies at a place of its own between 0 and 1 in its stratum, so that the first
    # part of all photographs has the same share of every stratum.
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    in_strata = pd.DataFrame({"stratum": stratum[order], "size": sizes[order]})
    by_stratum = in_strata.groupby("stratum")["size"]
    before = by_stratum.cumsum() - in_strata["size"]
    place = np.empty(len(sizes))
    within = before + rng.random(len(sizes)) * in_strata["size"]
    place[order] = within / by_stratum.transform("sum")
    ranked = pool["label"].reset_index(drop=True).iloc[np.argsort(place[groups], kind="stable")]
    rank = ranked.groupby(ranked).cumcount()
    drawn = rank < ranked.map(like["label"].value_counts()).fillna(0)
    return pool.iloc[np.sort(drawn.index[drawn])]


def validate_alike(manifest: Manifest, narrow: pd.DataFrame, diverse: pd.DataFrame) -> Manifest:
    """Leave out the validation images of what only some of the compared trainings know.

    These are the images of categories, and the synthetic images of generators, that the diverse
    training images have and the narrow ones have not. A training on narrow data that was chosen on
    such images would know of the diverse data.

    Args:
        manifest: The manifest, with a val split.
        narrow: Training images of the narrow data.
        diverse: Training images of the diverse data.
    """
    table = manifest.table
    unshared = table["category"].isin(set(diverse["category"]) - set(narrow["category"]))
    unshared |= (table["label"] == SYNTHETIC) & table["generator"].isin(
        _generators(diverse) - _generators(narrow)
    )
    return manifest.with_table(table[(table["split"] != "val") | ~unshared])


def _generators(table: pd.DataFrame) -> set[str]:
    return set(table.loc[table["label"] == SYNTHETIC, "generator"])
