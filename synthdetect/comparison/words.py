"""What the terminal and the page say of a comparison in the same words."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import pandas as pd

from synthdetect.comparison.compare import Comparison, SplitComparison
from synthdetect.datasets.labels import CLASSES
from synthdetect.evaluation.paired import LOWER_IS_BETTER
from synthdetect.evaluation.predictions import CONTROL
from synthdetect.report.text import format_interval, format_metric, label

MAIN = (CONTROL, "auc", "balanced_accuracy", "real_accuracy", "fake_accuracy", "f1", "nll", "ece")
"""The metrics of a short table; the page and the record have all."""

_NAME = 30  # characters of a file's name


def verdicts(split: SplitComparison, first: str) -> Iterator[str]:
    """Yield a sentence on each run but the first: what the difference of its AUC shows.

    Of real images alone there is no AUC, and their distance from other real images is no better or
    worse by its sign, so nothing is said.
    """
    rows = split.metrics[(split.metrics["part"] == "") & (split.metrics["metric"] == "auc")]
    for row in rows[rows["difference"].notna()].to_dict(orient="records"):
        yield verdict("auc", row["run"], first, *(row[name] for name in _DIFFERENCE))


_DIFFERENCE = ("difference", "difference_low", "difference_high")


def verdict(
    metric: str, name: str, against: str, difference: float, low: float, high: float
) -> str:
    """Say in a sentence what a difference and its interval show."""
    shown = f"{label(metric)} {signed(format_interval(difference, low, high))}"
    if low != low or high != high:
        return f"{name} against {against}: {shown}. There are too few photographs for an interval."
    if low <= 0 <= high:
        return f"{name} against {against}: {shown}. No difference is shown."
    is_better = (difference > 0) != (metric in LOWER_IS_BETTER)
    return f"{name} is {'better' if is_better else 'worse'} than {against}: {shown}."


def metric_cells(
    metrics: pd.DataFrame, first: str, other: str, names: Sequence[str]
) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of a table of two runs: metric, both values, and the difference."""
    for part, metric, by_run in by_metric(metrics, names):
        a, b = by_run.loc[first], by_run.loc[other]
        change = format_interval(*(b[name] for name in _DIFFERENCE))
        yield (
            row_title(part, metric), format_metric(a["value"]), format_metric(b["value"]),
            signed(change),
        )  # fmt: skip


def by_metric(
    metrics: pd.DataFrame, names: Sequence[str]
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield part, metric and the rows by run of the metrics with these names."""
    chosen = metrics[metrics["metric"].isin(names)]
    for (part, metric), rows in chosen.groupby(["part", "metric"], sort=False):
        yield part, metric, rows.set_index("run")


def row_title(part: str, metric: str) -> str:
    """Return the title of a metric's row."""
    return f"{label(metric)} of {part}" if part else label(metric)


def signed(text: str) -> str:
    """Return a formatted difference with its sign."""
    return f"+{text}" if text[:1].isdigit() else text


def disagreement_cells(split: SplitComparison, position: int) -> list[str]:
    """Return the file name of an image, what it is, and the answers of the runs."""
    row = split.shared.tables[0].iloc[position]
    name = PurePosixPath(str(row["path"])).name
    shown = name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-_NAME // 2 + 1 :]}"
    origin = CLASSES[int(row["label"])]
    if row.get("generator"):
        origin = str(row["generator"])
    return [shown, origin, *(_answer(table.iloc[position]) for table in split.shared.tables)]


def _answer(row: "pd.Series[str]") -> str:
    is_right = int(row["predicted"]) == int(row["label"])
    probability = f" {float(row['probability']):.3f}" if "probability" in row else ""
    return f"{CLASSES[int(row['predicted'])]}{probability} {'✓' if is_right else '✗'}"


def changed_words(comparison: Comparison) -> Iterator[str]:
    """Yield a sentence on each run whose recorded manifest differs from that of the first one."""
    first = comparison.contenders[0].letter
    for letter, changes in comparison.changed_images.items():
        if len(changes):
            counted = ", ".join(f"{count:,} {change}" for change, count in changes.items())
            yield f"From the images of {first} to those of {letter}: {counted}."
