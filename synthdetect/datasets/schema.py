"""The columns of a manifest and the names of its splits."""

import re

COLUMNS = ("path", "label", "split", "generator", "category", "source_id")
"""Columns that every manifest has, in this order."""

SPLITS = ("train", "val", "test")
"""The splits with a fixed role. Every other split is a further evaluation set."""

DEVELOPMENT_SPLITS = ("train", "val")
"""The splits on which a detector is trained and chosen. Every other split only evaluates."""

HELD_OUT = "held_out"
"""The split of the images that a fold of cross-validation leaves out of training and of validation,
if it leaves a generator out. It only evaluates."""

SPLIT_SPELLINGS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""The split that each accepted spelling stands for, in lower case."""

SPLIT_NAME = re.compile(r"[^\W_][\w.\- ]{0,63}")
"""Valid names of a split, which become part of the names of metrics and files."""
SPLIT_RULE = "use a letter or digit, then letters, digits, spaces, '.', '-' and '_', at most 64"


def split_of(name: str) -> str:
    """Return the split that a spelling stands for, in any case, or the name itself."""
    return SPLIT_SPELLINGS.get(name.strip().lower(), name)
