"""Training of attribution: which generators a network learns to tell apart, and the loss of that.

It is learned from the synthetic training images whose generator is named. Real images and images
without a named generator do not count.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch.nn.functional as F
from torch import Tensor

from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.evaluation.attribution import UNKNOWN
from synthdetect.system.errors import UserError
from synthdetect.training.options import LossOptions

NOT_COUNTED = -1
"""In place of the number of a generator: the image does not count."""


def attributed_generators(options: LossOptions, manifest: Manifest) -> tuple[str, ...]:
    """Return the generators of the training images by name; none if attribution is not asked for.

    Raises:
        UserError: If there are fewer than two, if one has the name of another answer, or if there
            are validation images but none of these generators, on which the threshold of "unknown"
            is chosen.
    """
    if not options.attribution:
        return ()
    given = f"--attribution {options.attribution:g}"
    found = _named(manifest.split("train").table)
    if len(found) < 2:
        names = ", ".join(found) or "none"
        raise UserError(
            f"{given}: the training images must be of two generators or more, named in the column "
            f"'generator' (found: {names}). Give other data, or leave the option out."
        )
    for name in (CLASSES[REAL], UNKNOWN):
        if name in found:
            raise UserError(
                f"{given}: a generator is named {name!r}, as an answer of another meaning is. "
                "Rename it in the data, or leave the option out."
            )
    val = manifest.split("val").table
    if len(val) and not set(_named(val)) & set(found):
        raise UserError(
            f"{given}: no validation image is of a generator of the training images, so the "
            "threshold of 'unknown' cannot be chosen. Give other data, or leave the option out."
        )
    return tuple(found)


def generator_numbers(table: pd.DataFrame, generators: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the place of each image's generator among `generators`, or `NOT_COUNTED`."""
    numbers = pd.Index(generators).get_indexer(table["generator"])
    return np.where(table["label"] == SYNTHETIC, numbers, NOT_COUNTED).astype(np.int64)


def attribution_loss(logits: Tensor, generators: Tensor) -> Tensor:
    """Return the mean cross-entropy over the images that count; 0 if none does.

    Args:
        logits: float32 of shape (batch, generators).
        generators: int64 of shape (batch,): the number of each image's generator, or `NOT_COUNTED`.
    """
    total = F.cross_entropy(logits, generators, ignore_index=NOT_COUNTED, reduction="sum")
    return total / (generators != NOT_COUNTED).sum().clamp(min=1)


def _named(table: pd.DataFrame) -> list[str]:
    return sorted(set(table.loc[table["label"] == SYNTHETIC, "generator"]) - {""})
