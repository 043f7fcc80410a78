"""Pairs: the photograph of which a synthetic image is a regeneration.

A pair is found by the table alone, so nothing guarantees that both images show the same; whoever
makes the data does. Crops of one photograph have one `source_id`, so their files must have the same
name to be told apart.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.system.errors import UserError

Rows = npt.NDArray[np.int64]

_SAME = ["split", "source_id"]


def photographs(table: pd.DataFrame) -> Rows:
    """Find the photograph of each synthetic image.

    It is the real image of the same split and `source_id` whose file has the same name, apart from
    folder and suffix. If there is none of that name, it is the only real image of the source. Its
    width and height must be those of the synthetic image, so that the same place in both shows the
    same.

    Args:
        table: Has the columns `path`, `label`, `split`, `source_id`, `width` and `height`.

    Returns:
        Row of the photograph of each image, shape (rows,); -1 for real images, and for synthetic
        ones without a photograph.
    """
    name = table["path"].str.extract(r"([^/\\]*?)(?:\.[^./\\]*)?$", expand=False)
    rows = table[[*_SAME, "label", "width", "height"]].assign(name=name, row=np.arange(len(table)))
    rows = rows[rows["source_id"] != ""]
    real, synthetic = rows[rows["label"] == REAL], rows[rows["label"] == SYNTHETIC]
    by_name = _only(real, synthetic, [*_SAME, "name"])
    by_source = _only(real, synthetic, _SAME)
    found = np.full(len(table), -1, dtype=np.int64)
    found[synthetic["row"]] = np.where(by_name >= 0, by_name, by_source)
    return found


def _only(real: pd.DataFrame, synthetic: pd.DataFrame, keys: list[str]) -> Rows:
    """Return the row of the only real image with the keys of each synthetic one, or -1.

    It is -1 too if the two images differ in size.
    """
    unique = real[~real.duplicated(keys, keep=False)]
    pairs = synthetic.merge(unique, how="left", on=keys, suffixes=("", "_of_photograph"))
    same_size = (pairs["width"] == pairs["width_of_photograph"]) & (
        pairs["height"] == pairs["height_of_photograph"]
    )
    found: Rows = pairs["row_of_photograph"].where(same_size, -1).to_numpy(np.int64)
    return found


def require_photographs(manifest: Manifest) -> None:
    """Check that some synthetic training image has its photograph among the training images.

    Raises:
        UserError: If none has.
    """
    if (photographs(manifest.split("train").table) < 0).all():
        raise UserError(
            f"{manifest.name}: no synthetic training image has its photograph beside it, which "
            "--pair-mix-pixels, --pair-mix-frequency and --align-quality need. Give regenerations "
            "the source_id, the size and the file name of their photograph, or leave these options "
            "out."
        )
