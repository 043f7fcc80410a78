"""The results of an evaluation in words: does it work, on what, and how sure is that."""

from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from synthdetect.datasets.schema import HELD_OUT
from synthdetect.evaluation.predictions import MEAN, WORST

JUDGED = ("oof", HELD_OUT, "test")
"""Splits that judge a detector, the first that there is before the others."""

CHOSEN_ON = ("train", "val")
"""Splits whose images have had an influence on the detector, so that they do not judge it."""

_MOST_NAMED = 6  # generators that a sentence names


def judged_split(splits: Iterable[str]) -> str:
    """Return the split whose results are the main ones; empty if none influenced no choice.

    Args:
        splits: Names of the evaluated splits that have both classes.
    """
    found = [name for name in splits if name not in CHOSEN_ON]
    return next((name for name in (*JUDGED, *found) if name in found), "")


def main_results(overall: pd.DataFrame, generators: pd.DataFrame) -> dict[str, float]:
    """Return the few results that a table of runs compares first.

    Args:
        overall: Columns `metric`, `value`, `low`, `high`.
        generators: Table of `predictions.per_generator`.

    Returns:
        `auc` with its interval as `auc_low` and `auc_high`, `balanced_accuracy`, `ece`, and the
        `worst_generator_auc`, as far as they are defined.
    """
    rows = overall.set_index("metric")
    found = {name: rows["value"].get(name) for name in ("auc", "balanced_accuracy", "ece")}
    if "auc" in rows.index:
        found |= {f"auc_{bound}": rows.loc["auc", bound] for bound in ("low", "high")}
    if len(generators):
        found["worst_generator_auc"] = _of_generators(generators)["auc"].min()
    return {name: float(v) for name, v in found.items() if v is not None and v == v}


def answer(
    split: str,
    overall: pd.DataFrame,
    generators: pd.DataFrame,
    *,
    control: Sequence[float] | None = None,
    trained_on: Collection[str] | None = None,
    images: int = 0,
    sources: int = 0,
) -> list[str]:
    """Say what a split's results show. The words follow from the 95 % intervals alone.

    Args:
        split: Name of the split.
        overall: Columns `metric`, `value`, `low`, `high`; numbers.
        generators: Table of `predictions.per_generator`; may be empty.
        control: AUC of real images that were only processed against the other real ones, with the
            bounds of its interval.
        trained_on: Generators that the detector was trained on, if they are known.
        images: Number of images of the split; 0 if it is not known.
        sources: Number of photographs that they come from; 0 if they are not named.

    Returns:
        Sentences, the most important first; none without an AUC.
    """
    rows = overall.set_index("metric")
    if "auc" not in rows.index or rows.loc["auc", "value"] != rows.loc["auc", "value"]:
        return []
    value, low, high = (float(v) for v in rows.loc["auc", ["value", "low", "high"]])
    shown = _auc(value, low, high)
    counted = f"{images:,} {split} images" if images else f"{split} images"
    if low > 0.5:
        said = [f"It tells synthetic images from real ones on {counted}: {shown}."]
    elif high < 0.5:
        said = [
            f"It is worse than chance on {counted}: {shown}. Its scores or the labels may be "
            "inverted."
        ]
    else:
        said = [f"It is not shown to be better than chance on {counted}: {shown}."]
    said[0] += " 0.5 is chance, 1 is perfect."
    if {"real_accuracy", "fake_accuracy"} <= set(rows.index):
        real, fake = (1 - float(rows.loc[f"{name}_accuracy", "value"]) for name in ("real", "fake"))
        if real == real and fake == fake:
            said.append(
                f"At its threshold it takes {real:.0%} of the real images for synthetic and misses "
                f"{fake:.0%} of the synthetic ones."
            )
    said += _by_generator(generators, trained_on)
    if control is not None and control[0] == control[0]:
        where = _auc(*control)
        if control[1] > 0.5:
            said.append(
                "It also takes real images that were only processed for synthetic ones "
                f"({where} against other real images, where 0.5 is wanted): part of what it has "
                "learned is processing, not generation."
            )
        else:
            said.append(f"Real images that were only processed do not mislead it ({where}).")
    said.append(_how_sure(split, sources))
    return said


def _auc(value: float, low: float, high: float) -> str:
    bounds = f" [{low:.3f}, {high:.3f}]" if low == low and high == high else ""
    return f"AUC {value:.3f}{bounds}"


def _of_generators(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["generator"].isin((MEAN, WORST))]


def _by_generator(table: pd.DataFrame, trained_on: Collection[str] | None) -> list[str]:
    if not len(table):
        return []
    rows = _of_generators(table).dropna(subset=["auc"]).sort_values("auc", ascending=False)
    works = rows["auc_low"] > 0.5
    said = []
    for part, begin in ((rows[works], "Shown for"), (rows[~works], "Not shown for")):
        named = [
            f"{row['generator']} {row['auc']:.3f}"
            + ("" if trained_on is None or row["generator"] in trained_on else " (not trained on)")
            for row in part.to_dict(orient="records")
        ]
        if named:
            rest = len(named) - _MOST_NAMED
            more = f" and {rest} more" if rest > 0 else ""
            said.append(f"{begin} {', '.join(named[:_MOST_NAMED])}{more}.")
    return said


def _how_sure(split: str, sources: int) -> str:
    over = f"{sources:,} photographs" if sources else "images, since the data name no photographs"
    text = (
        f"The intervals are of 95 % over {over}; they do not cover other seeds, other photographs' "
        "origins or other generators."
    )
    if split in CHOSEN_ON:
        text += f" Choices were made on {split}, so these numbers are too good."
    return text
