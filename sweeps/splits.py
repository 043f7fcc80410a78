"""The splits of a sweep: which images tune, train, test, or are only adapted to.

All splits are made by photograph: images of one photograph are always in the same part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.seeds import division_seed
from synthdetect.datasets.labels import REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS
from synthdetect.datasets.selection import SUPPLEMENT
from synthdetect.datasets.splits import assign_groups
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically

CONTROL = "control"
"""Name of the split of controls: real images that a careless detector takes for synthetic ones,
such as enlarged photographs. It is scored if the data have it."""

_VALIDATION_SHARE = 0.3
"""Share of the photographs that validate where there is a single fold."""


@dataclass(frozen=True)
class SweepSplits:
    """The images of a sweep, by their use.

    Attributes:
        tuning: Manifest of each fold of tuning, with the splits train and val.
        final: Manifests of the final fits by division and fold, each with the splits train, val and
            test, and `CONTROL` if there are any. They have no photograph of `tuning`.
        target: Images taken from the test split, which are adapted to without their labels and are
            not tested on.
        seen: Generators of the training images of the final fits.
        parts: Every image, with its use as its split: tuning, final, test, target, `CONTROL` or
            `SUPPLEMENT`.
    """

    tuning: list[Manifest]
    final: list[list[Manifest]]
    target: pd.DataFrame
    seen: frozenset[str]
    parts: pd.DataFrame

    def test_parts(self, test: pd.DataFrame, control: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Return the real images of a test together with other images, by the kind of these.

        Args:
            test: Table of images of the test, with the columns `label` and `generator`.
            control: Likewise of the controls; it may have no rows.

        Returns:
            Tables with the keys `seen` (with generators that were in training), `unseen` (with the
            others) and `control` (with the controls, whose label is 1 there).
        """
        is_real, is_seen = test["label"] == REAL, test["generator"].isin(self.seen)
        return {
            "seen": test[is_real | is_seen].reset_index(drop=True),
            "unseen": test[is_real | ~is_seen].reset_index(drop=True),
            "control": pd.concat([test[is_real], control.assign(label=1)], ignore_index=True),
        }


def make_splits(
    manifest: Manifest, *, tuning_share: float, tuning_folds: int, folds: int, divisions: int,
    target_share: float, seed: int, narrow: Callable[[Manifest], Manifest] = lambda whole: whole,
) -> SweepSplits:  # fmt: skip
    """Split a manifest for a sweep.

    Args:
        manifest: Manifest with the splits train, val and test. The images of the split
            `SUPPLEMENT`, if there are any, are in every fold; those of `CONTROL` are scored beside
            the test; other splits are left out.
        tuning_share: Share of the labelled photographs (train and val) that tune.
        tuning_folds: Folds of the tuning part; 1 makes a single split.
        folds: Folds of the remaining labelled photographs, for the final fits.
        divisions: How often these are divided into folds, each time differently.
        target_share: Share of the test photographs that are adapted to; 0 for none.
        seed: Seed of all splits.
        narrow: Applied to the manifest of each fold: selects the training images.

    Raises:
        UserError: If there is no test split with both classes, if an image of `CONTROL` is
            synthetic, or if a fold would not have both classes in train and val.
    """
    table = manifest.table
    test = table[table["split"] == "test"]
    if test["label"].nunique() < 2:
        raise UserError(f"{manifest.name}: a sweep needs a labelled test split with both classes.")
    if (table.loc[table["split"] == CONTROL, "label"] == SYNTHETIC).any():
        raise UserError(
            f"{manifest.name}: the split {CONTROL} of a sweep is for real images, and some of its "
            "images are synthetic. Give them another split."
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
        CONTROL: _controls(table, beside=test[adapted == 1]),
        SUPPLEMENT: table[table["split"] == SUPPLEMENT],
    }

    def manifests(
        part: str, option: str, count: int, *added: str, seed: int = seed
    ) -> list[Manifest]:
        """One manifest for each fold of a part, with the images of the added parts."""
        fold_tables = _folds(tables[part], count, seed)
        if any(_lacks_a_class(table) for table in fold_tables):
            raise UserError(
                f"{manifest.name}: too few photographs for {option} {count} with both classes in "
                f"train and val of each fold. Give a lower {option}, another --tuning-share, or "
                "more data."
            )
        others = [tables[name] for name in added]
        return [narrow(manifest.with_table(pd.concat([table, *others]))) for table in fold_tables]

    final = [
        manifests(
            "final", "--folds", folds, "test", CONTROL, SUPPLEMENT, seed=division_seed(seed, number)
        )
        for number in range(divisions)
    ]
    trained = pd.concat([fold.split("train").table for fold in chain(*final)])
    return SweepSplits(
        manifests("tuning", "--tuning-folds", tuning_folds, SUPPLEMENT),
        final,
        tables["target"],
        frozenset(trained.loc[trained["label"] == SYNTHETIC, "generator"]),
        pd.concat([t.assign(split=name) for name, t in tables.items()], ignore_index=True),
    )


def _controls(table: pd.DataFrame, beside: pd.DataFrame) -> pd.DataFrame:
    """The controls, but for those of photographs that are adapted to."""
    adapted = set(beside["source_id"]) - {""}
    return table[(table["split"] == CONTROL) & ~table["source_id"].isin(adapted)]


def _folds(table: pd.DataFrame, folds: int, seed: int) -> list[pd.DataFrame]:
    """The table once for each fold: that fold is its split val, the others its split train."""
    shares = [1 / folds] * folds if folds > 1 else [1 - _VALIDATION_SHARE, _VALIDATION_SHARE]
    part = assign_groups(table, shares, seed=seed, by_category=True)
    validating = range(folds) if folds > 1 else [1]
    return [table.assign(split=np.where(part == fold, "val", "train")) for fold in validating]


def _lacks_a_class(table: pd.DataFrame) -> bool:
    classes = table.groupby("split")["label"].nunique().reindex(DEVELOPMENT_SPLITS)
    return bool((classes != 2).any())


def write_target(rows: pd.DataFrame, manifest: Manifest, file: Path) -> None:
    """Write the list of the images to adapt to: their paths, without labels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    paths = pd.DataFrame({"path": [manifest.file(path) for path in rows["path"]]})
    with replace_atomically(file) as temporary:
        paths.to_csv(temporary, index=False)
