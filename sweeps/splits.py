"""Which images tune, train, test, or are only adapted to: by photograph, never by file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS
from synthdetect.datasets.selection import SUPPLEMENT
from synthdetect.datasets.splits import assign_groups
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically

_VALIDATION = 0.3
"""Share of the photographs of a single tuning, or a single final, fold that validates."""


@dataclass(frozen=True)
class SweepSplits:
    """The data of a sweep.

    Attributes:
        tuning: a manifest with train and val a fold of tuning; no test image is in it.
        final: with train, val and test a fold of the final trainings, of other photographs.
        target: test images that are adapted to without their labels; no test image is among them.
        seen: the generators of the final training images.
        parts: every image with its part as its split: tuning, final, test, target or `SUPPLEMENT`.
    """

    tuning: list[Manifest]
    final: list[Manifest]
    target: pd.DataFrame
    seen: frozenset[str]
    parts: pd.DataFrame


def make_splits(
    manifest: Manifest, *, tuning_share: float, tuning_folds: int, folds: int,
    target_share: float, seed: int, narrow: Callable[[Manifest], Manifest] = lambda whole: whole,
) -> SweepSplits:  # fmt: skip
    """SweepSplits whole photographs.

    Args:
        manifest: with train, val and test splits, and perhaps `SUPPLEMENT`, which is beside the
            training images of every fold; further splits are left out.
        tuning_share: of the labelled (train and val) photographs.
        tuning_folds: how the tuning part is dealt; 1 is a single split.
        folds: how the rest is dealt.
        target_share: of the test's photographs; 0 for no target.
        seed: of all of it.
        narrow: what makes of the train split what is trained on, last of all.

    Raises:
        UserError: there is no test split, or there are too few photographs.
    """
    table = manifest.table
    test = table[table["split"] == "test"]
    if test["label"].nunique() < 2:
        raise UserError(
            f"{manifest.name}: a comparison needs a labelled test split with both classes."
        )
    labelled = table[table["split"].isin(DEVELOPMENT_SPLITS)]
    part = assign_groups(labelled, (tuning_share, 1 - tuning_share), seed=seed, by_category=True)
    adapted = np.zeros(len(test), dtype=np.int64)
    if target_share:
        adapted = assign_groups(test, (1 - target_share, target_share), seed=seed, by_category=True)
    tables = {
        "tuning": labelled[part == 0],
        "final": labelled[part == 1],
        "test": test[adapted == 0],
        "target": test[adapted == 1],
        SUPPLEMENT: table[table["split"] == SUPPLEMENT],
    }

    def made(part: str, count: int, *others: str) -> list[Manifest]:
        beside = [tables[name] for name in others]
        dealt = _folds(tables[part], count, seed, manifest)
        return [narrow(manifest.with_table(pd.concat([own, *beside]))) for own in dealt]

    final = made("final", folds, "test", SUPPLEMENT)
    trained = pd.concat([fold.split("train").table for fold in final])
    return SweepSplits(
        made("tuning", tuning_folds, SUPPLEMENT),
        final,
        tables["target"],
        frozenset(trained.loc[trained["label"] == SYNTHETIC, "generator"]),
        pd.concat([t.assign(split=name) for name, t in tables.items()], ignore_index=True),
    )


def _folds(table: pd.DataFrame, folds: int, seed: int, manifest: Manifest) -> list[pd.DataFrame]:
    """The table once a fold, with that fold as val and the rest as train."""
    shares = [1 / folds] * folds if folds > 1 else [1 - _VALIDATION, _VALIDATION]
    part = assign_groups(table, shares, seed=seed, by_category=True)
    held_out = range(folds) if folds > 1 else [1]
    tables = [table.assign(split=np.where(part == fold, "val", "train")) for fold in held_out]
    for found in tables:
        if (found.groupby("split")["label"].nunique().reindex(DEVELOPMENT_SPLITS) != 2).any():
            raise UserError(
                f"{manifest.name}: too few photographs for --folds {folds} with both classes in "
                "each; give fewer folds, another --tuning-share, or more data."
            )
    return tables


def write_target(rows: pd.DataFrame, manifest: Manifest, file: Path) -> None:
    """List the images to adapt to, by their paths alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    paths = pd.DataFrame({"path": [str(manifest.file(path)) for path in rows["path"]]})
    with replace_atomically(file) as temporary:
        paths.to_csv(temporary, index=False)
