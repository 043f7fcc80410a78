"""Learning curves of several runs over each other, as a figure and as text."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from synthdetect.comparison.contenders import Contender

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
"""Colours that colour-blind readers can distinguish (Okabe and Ito), and a grey."""

_DASHES = ("solid", "dashed", "dotted", "dashdot")
_TWICE = "*"
"""The mark of several runs at one place of a plot in text."""

_WIDTH, _HEIGHT = 60, 12


def curves_figure(contenders: Sequence[Contender]) -> Figure:
    """Plot loss and AUC by epoch: validation bold, training thin, the chosen epoch as a dot."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "auc"), strict=True):
        for number, one in enumerate(contenders):
            style = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": _DASHES[number // len(COLOURS) % len(_DASHES)],
            }
            for split, width, opacity in (("train", 0.9, 0.5), ("val", 2.0, 1.0)):
                curve = one.curves.get(f"{split}/{name}", {})
                label = f"{one.letter}, {split}"
                axes.plot(
                    list(curve), list(curve.values()), label=label, linewidth=width, alpha=opacity,
                    **style,
                )  # fmt: skip
            chosen = one.curves.get(f"val/{name}", {}).get(one.chosen_epoch)
            if chosen is not None:
                axes.plot(one.chosen_epoch, chosen, "o", color=style["color"])
        axes.set(xlabel="epoch", title="loss" if name == "loss" else "AUC")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].legend(fontsize=8)
    return figure


def curves_text(contenders: Sequence[Contender], name: str) -> list[str]:
    """Draw the curves of a metric over each other with the letters of the runs.

    Returns:
        Lines of at most 72 characters; none if no run has two epochs of it.
    """
    curves = {one.letter: _finite(one.curves.get(name, {})) for one in contenders}
    points = [(x, y) for curve in curves.values() for x, y in curve.items()]
    epochs = sorted({x for x, _ in points})
    if len(epochs) < 2:
        return []
    low, high = min(y for _, y in points), max(y for _, y in points)
    width = min(_WIDTH, max(20, 4 * (epochs[-1] - epochs[0])))
    cells = [[" "] * (width + 1) for _ in range(_HEIGHT)]
    for letter, curve in curves.items():
        for x, y in curve.items():
            column = round(width * (x - epochs[0]) / (epochs[-1] - epochs[0]))
            row = round((_HEIGHT - 1) * (high - y) / (high - low)) if high > low else 0
            cells[row][column] = letter if cells[row][column] in (" ", letter) else _TWICE
    marks = {0: high, _HEIGHT - 1: low} if high > low else {0: high}
    lines = [
        f"{f'{marks[row]:.3f}' if row in marks else '':>9} |{''.join(line).rstrip()}"
        for row, line in enumerate(cells)
    ]
    first, last = str(epochs[0]), str(epochs[-1])
    axis = f"{'':9} +{'-' * (width + 1)}"
    return [*lines, axis, f"{'epoch':>9}  {first}{last:>{width + 1 - len(first)}}"]


def _finite(curve: Mapping[int, float]) -> dict[int, float]:
    return {x: y for x, y in curve.items() if np.isfinite(y)}
