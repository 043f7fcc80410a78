"""The forest plot shows the differences, also where an interval is undefined."""

import io

import numpy as np
import pytest

from sweeps.statistics.comparison import Comparison, compare
from sweeps.statistics.figures import PANELS, forest
from sweeps.statistics.verdicts import verdict
from tests.sweeps.conftest import simulated_sides


def drawn(comparisons: dict[str, Comparison]) -> tuple[list[str], list[str], bytes]:
    """Names from the bottom to the top, words at the side, and the PNG file."""
    figure = forest(comparisons, {name: verdict(c) for name, c in comparisons.items()})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    first, *_, last = figure.axes
    assert len(figure.axes) == len(PANELS)
    names = [label.get_text() for label in first.get_yticklabels()]
    return names, [text.get_text() for text in last.texts], buffer.getvalue()


def test_strategies_are_sorted_by_their_change_in_the_primary_outcome() -> None:
    sides = simulated_sides({"equal": 0.0, "good": 2.0, "bad": -1.0}, sources=20)
    comparisons = compare(sides[0], sides[1:], replicates=50)
    names, words, picture = drawn(comparisons)
    assert names == ["bad", "equal", "good"]
    assert [word.split("\n")[0] for word in words] == [verdict(comparisons[n]).word for n in names]
    assert picture.startswith(b"\x89PNG")


def test_intervals_are_drawn_at_their_bounds() -> None:
    sides = simulated_sides({"a": 0.3}, sources=20)
    comparisons = compare(sides[0], sides[1:], replicates=50)
    axes = forest(comparisons, {"a": verdict(comparisons["a"])}).axes[0]
    thin, thick, point, _ = axes.lines
    (band,) = axes.patches
    assert band.get_extents().transformed(axes.transData.inverted()).width == pytest.approx(0.04)
    found = comparisons["a"].differences["auc_unseen"]
    assert np.asarray(thin.get_xdata()).tolist() == [found.wide_low, found.wide_high]
    assert np.asarray(thick.get_xdata()).tolist() == [found.low, found.high]
    assert np.asarray(point.get_xdata()).tolist() == [found.value]
    assert thin.get_linewidth() < thick.get_linewidth()


def test_a_comparison_of_one_final_fit_can_be_drawn() -> None:
    sides = simulated_sides({"a": 0.3}, sources=20, keys=[(0, 1)])
    _, words, picture = drawn(compare(sides[0], sides[1:], replicates=20))
    assert words == ["inconclusive"]
    assert len(picture) > 1000
