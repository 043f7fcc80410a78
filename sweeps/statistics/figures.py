"""The forest plot of a comparison: every strategy's difference from the baseline."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from sweeps.statistics.comparison import OUTCOMES, Comparison, Difference
from sweeps.statistics.verdicts import (
    BETTER,
    EQUIVALENT,
    INCONCLUSIVE,
    NOT_BETTER,
    WORSE,
    Verdict,
)
from synthdetect.evaluation.figures import NEUTRAL, REAL_COLOUR, SYNTHETIC_COLOUR

PANELS = {
    "auc_unseen": "change of AUC,\nunseen generators",
    "auc_seen": "change of AUC,\nin-distribution",
    "auc_control": "change of AUC,\ncontrols",
    "ece_seen": "change of ECE,\nin-distribution",
    "seconds": "training time per image,\nratio",
}
"""Outcomes of the panels, from left to right, with their titles; without controls, theirs is left
out."""


@dataclass(frozen=True)
class _Style:
    colour: str
    marker: str


_STYLES = {
    BETTER: _Style(REAL_COLOUR, "^"),
    WORSE: _Style(SYNTHETIC_COLOUR, "v"),
    EQUIVALENT: _Style("#333333", "s"),
    NOT_BETTER: _Style("#333333", "<"),
    INCONCLUSIVE: _Style(NEUTRAL, "o"),
}


def forest(comparisons: dict[str, Comparison], verdicts: dict[str, Verdict]) -> Figure:
    """Draw differences with their intervals, the best strategy by the primary outcome at the top.

    Thick lines are the interval of each difference alone, thin ones the simultaneous interval;
    lines are cut off at the border of a panel. Colour and marker show the verdict, and a band the
    changes of the primary outcome that are smaller than the smallest effect of interest.
    """
    changes = {name: c.differences[c.primary].value for name, c in comparisons.items()}
    names = sorted(changes, key=lambda name: (np.nan_to_num(changes[name], nan=-np.inf), name))
    figure = Figure(figsize=(13, 1.9 + 0.42 * len(names)), layout="constrained")
    one = next(iter(comparisons.values()))
    titles = {o: t for o, t in PANELS.items() if o != "auc_control" or one.sources["control"]}
    panels: list[Axes] = list(figure.subplots(1, len(titles), sharey=True))
    for axes, (outcome, title) in zip(panels, titles.items(), strict=True):
        found = [comparisons[name].differences[outcome] for name in names]
        for y, (name, difference) in enumerate(zip(names, found, strict=True)):
            _row(axes, y, difference, _STYLES[verdicts[name].word])
        _dress(axes, outcome, found, title)
    margin = one.smallest_effect
    panels[list(titles).index(one.primary)].axvspan(-margin, margin, color="#eeeeee", zorder=0)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(-0.6, len(names) - 0.4)
    for y, name in enumerate(names):
        judged = verdicts[name]
        panels[-1].text(
            1.04, y, "\n".join(filter(None, (judged.word, ", ".join(judged.criteria)))),
            transform=panels[-1].get_yaxis_transform(), va="center", fontsize=9,
            color=_STYLES[judged.word].colour,
        )  # fmt: skip
    figure.supxlabel(
        "thick: interval of each difference alone; thin: simultaneous interval; "
        "for controls, ECE and time, left is better",
        fontsize=9, color=NEUTRAL,
    )  # fmt: skip
    return figure


def _row(axes: Axes, y: int, difference: Difference, style: _Style) -> None:
    for low, high, width in (
        (difference.wide_low, difference.wide_high, 1.0),
        (difference.low, difference.high, 3.5),
    ):
        axes.plot([low, high], [y, y], color=style.colour, linewidth=width, solid_capstyle="butt")
    axes.plot(difference.value, y, marker=style.marker, color=style.colour, markersize=8,
              markeredgecolor="white")  # fmt: skip


def _dress(axes: Axes, outcome: str, found: list[Difference], title: str) -> None:
    """Set the title, the line of no difference, and limits that hold the thick intervals."""
    is_ratio = OUTCOMES[outcome].is_ratio
    no_difference = 1.0 if is_ratio else 0.0
    axes.axvline(no_difference, color="black", linewidth=0.8)
    ends = np.array([no_difference, *(x for d in found for x in (d.low, d.value, d.high))])
    ends = ends[np.isfinite(ends)]
    if is_ratio:
        axes.set_xscale("log")
        low, high = ends.min() / 1.1, ends.max() * 1.1
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    else:
        margin = 0.08 * (np.ptp(ends) or 1.0)
        low, high = ends.min() - margin, ends.max() + margin
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlim(low, high)
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
