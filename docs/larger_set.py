"""The manifests of the larger set with which `docs/evaluation.md` was measured.

    python docs/larger_set.py FOLDER OUTPUT

FOLDER has the larger set, whose `manifest.csv` has no splits. Written to OUTPUT are `unseen.csv`,
the photographs of which no crop is in the sample's training or validation images, all for test;
and `split.csv`, all photographs, split to train on three generators; two more generators and the
control have only photographs of the test.
"""

import sys
from pathlib import Path

import pandas as pd

from synthdetect.datasets.manifest import SAMPLE, load

_HELD_OUT = ("realsr_df2k", "waifu2x_photo")


def main(folder: Path, output: Path) -> None:
    table = pd.read_csv(folder / "manifest.csv")
    table["path"] = [str((folder / path).resolve()) for path in table["path"]]
    sample = load(SAMPLE).table
    learnt = set(sample.loc[sample["split"].isin(["train", "val"]), "source_id"])
    unseen = table[~table["source_id"].isin(learnt)].copy()
    unseen["split"] = unseen["split"].fillna("test")
    unseen.to_csv(output / "unseen.csv", index=False)
    sources = table["source_id"].drop_duplicates().sample(frac=1, random_state=42).tolist()
    parts = {source: _part(place / len(sources)) for place, source in enumerate(sources)}
    table["split"] = table["split"].fillna(table["source_id"].map(parts))
    is_learnt = table["source_id"].map(parts).ne("test")
    only_for_test = table["generator"].isin(_HELD_OUT) | table["split"].eq("control")
    table[~(is_learnt & only_for_test)].to_csv(output / "split.csv", index=False)


def _part(share: float) -> str:
    return "train" if share < 0.6 else "val" if share < 0.75 else "test"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
