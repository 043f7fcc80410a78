"""Figures of metrics under perturbations."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synthdetect.evaluation.figures import NEUTRAL, REAL_COLOUR, SYNTHETIC_COLOUR, display_text
from synthdetect.images.perturbations import PERTURBATIONS, UNPERTURBED

_COLUMNS = 3


def robustness_figure(table: pd.DataFrame, split: str) -> Figure:
    """Plot AUC with its interval, real and fake accuracy over the levels of each perturbation.

    Args:
        table: table of `robustness_table` with at least one perturbation.
        split: name of the split, for the title.
    """
    unperturbed, panels = _panels(table)
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(7, 3.6 * columns), 0.8 + 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (name, levels) in zip(grid.flat, panels, strict=False):
        _curves(axes, name, pd.concat([unperturbed, levels]))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(f"{split}: perturbations from mild to severe, threshold from validation")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def robustness_generators_figure(generators: pd.DataFrame, split: str) -> Figure:
    """Plot a heat map of the AUC of each generator under each perturbation.

    Args:
        generators: table of `robustness_generators`; not empty.
        split: name of the split, for the title.
    """
    names = generators["generator"].unique()
    levels = generators[["perturbation", "level"]].drop_duplicates()
    auc = generators["auc"].to_numpy().reshape(len(names), len(levels))
    figure = Figure(
        figsize=(max(7, 2.5 + 0.4 * len(levels)), 1.6 + 0.4 * len(names)), layout="constrained"
    )
    axes = figure.subplots()
    picture = axes.imshow(auc, cmap="Blues", vmin=0.5, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(auc):
        axes.text(
            x, y, f"{value:.2f}".removeprefix("0"), ha="center", va="center", fontsize=8,
            color="white" if value > 0.8 else "black",
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [display_text(name) for name in names])
    axes.set_xticks(range(len(levels)), _level_names(levels), fontsize=8)
    above = axes.secondary_xaxis("top")
    starts = np.flatnonzero(levels["perturbation"] != levels["perturbation"].shift())
    middles = (starts + np.append(starts[1:], len(levels)) - 1) / 2
    above.set_xticks(middles, levels["perturbation"].iloc[starts], fontsize=9)
    above.tick_params(length=0)
    for start in starts[1:]:
        axes.axvline(start - 0.5, color="white", linewidth=4)
    axes.set_title(f"{split}: AUC of each generator, the real images perturbed alike")
    figure.colorbar(picture, ax=axes, label="AUC", extend="min", pad=0.01)
    return figure


def _panels(table: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, pd.DataFrame]]]:
    is_unperturbed = table["perturbation"] == UNPERTURBED.name
    groups = table[~is_unperturbed].groupby("perturbation", sort=False)
    return table[is_unperturbed], [(str(name), levels) for name, levels in groups]


def _curves(axes: Axes, name: str, rows: pd.DataFrame) -> None:
    x = np.arange(len(rows))
    axes.axhline(0.5, color=NEUTRAL, linestyle=":", linewidth=1)
    axes.fill_between(x, rows["auc_low"], rows["auc_high"], color="black", alpha=0.15, linewidth=0,
                      label="95 % interval of the AUC")  # fmt: skip
    for column, text, colour, style in (
        ("auc", "AUC", "black", "o-"),
        ("real_accuracy", "real accuracy", REAL_COLOUR, "s--"),
        ("fake_accuracy", "fake accuracy", SYNTHETIC_COLOUR, "^--"),
    ):
        axes.plot(x, rows[column], style, color=colour, label=text, markersize=4, linewidth=1.2)
    axes.set_xticks(x, _level_names(rows))
    axes.set(title=name, xlabel=PERTURBATIONS[name].unit, ylim=(-0.03, 1.03))


def _level_names(rows: pd.DataFrame) -> list[str]:
    return [
        "as is" if perturbation == UNPERTURBED.name else f"{level:g}"
        for perturbation, level in zip(rows["perturbation"], rows["level"], strict=True)
    ]
