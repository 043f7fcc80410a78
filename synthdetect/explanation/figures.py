"""Figures of Grad-CAM explanations and of mean spectra."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from synthdetect.datasets.labels import CLASSES
from synthdetect.evaluation.figures import NEUTRAL, REAL_COLOUR, display_text
from synthdetect.explanation.gradcam import Explanation
from synthdetect.explanation.spectra import CLEAR_PEAK, Spectra, fingerprints

_COLUMNS = 4
_NAME = 30  # maximum length of a displayed file name
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


def explanation_sheet(title: str, explanation: Explanation) -> Figure:
    """Plot each image beside its overlay with the Grad-CAM map; only a title if there are none."""
    rows = max(1, -(-len(explanation.rows) // _COLUMNS))
    figure = Figure(figsize=(3.6 * _COLUMNS, 0.7 + 2.25 * rows), layout="constrained")
    hint = "bright: strongest evidence for the predicted label, scaled in each image"
    figure.suptitle(f"{display_text(title)}\n{hint if len(explanation.rows) else 'no images'}")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    for axes, (row, pair) in zip(panels, _pairs(explanation), strict=False):
        axes.imshow(pair)
        predicted = f"predicted {CLASSES[row['predicted']]}, p = {row['probability']:.3f}"
        axes.set_title(
            f"{display_text(_origin(row))}: {predicted}\n{display_text(_short(row['path']))}",
            fontsize=8,
        )
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def explanation_images(explanation: Explanation) -> Iterator[tuple[str, Image.Image]]:
    """Yield each image beside its overlay, with a unique file name that sorts by rank."""
    digits = max(2, len(str(len(explanation.rows))))
    for rank, (row, pair) in enumerate(_pairs(explanation), 1):
        origin = _NOT_IN_FILE_NAMES.sub("_", _origin(row))[:40]
        yield f"{rank:0{digits}}_p{row['probability']:.2f}_{origin}.png", Image.fromarray(pair)


def overlay(
    square: npt.NDArray[np.uint8], strength: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Blend the image in grey with colours whose opacity grows with the strength."""
    grey = np.asarray(Image.fromarray(square).convert("L").convert("RGB"))
    colours = 255 * matplotlib.colormaps["inferno"](strength)[..., :3]
    opacity = 0.75 * strength[..., None]
    blended: npt.NDArray[np.uint8] = np.rint(grey * (1 - opacity) + colours * opacity).astype("u1")
    return blended


def spectra_figures(spectra: Spectra) -> Iterator[tuple[str, Figure]]:
    """Yield figures of mean spectra as maps and as radial curves, with their names."""
    yield "spectra_maps", _maps(spectra)
    yield "spectra_radial", _radial(spectra)


def _pairs(explanation: Explanation) -> Iterator[tuple["pd.Series[str]", npt.NDArray[np.uint8]]]:
    """Yield each row with its image and overlay side by side, shape (size, 2 * size, 3)."""
    for i, square in enumerate(explanation.squares):
        pair = np.concatenate([square, overlay(square, explanation.maps[i])], axis=1)
        yield explanation.rows.iloc[i], pair


def _origin(row: "pd.Series[str]") -> str:
    return str(row["generator"] or CLASSES[int(row["label"])])


def _short(path: str) -> str:
    name = PurePosixPath(path).name
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-_NAME // 2 + 1 :]}"


def _maps(spectra: Spectra) -> Figure:
    """Plot each group's spectrum, or its difference to that of real images if there are any."""
    count = len(spectra.groups)
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns, 0.5 + 3.1 * rows), layout="constrained")
    figure.suptitle("Mean power in decibels by frequency in cycles per pixel")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(panels)[count:]:
        axes.set_axis_off()
    peaks = fingerprints(spectra)
    for group, axes in zip(range(count), figure.axes, strict=False):
        if group in spectra.compared:
            difference = spectra.maps[group] - spectra.maps[0]
            limit = float(np.percentile(np.abs(difference), 99.9))
            _map(figure, axes, difference, cmap="RdBu_r", vmin=-limit, vmax=limit)
            _mark(axes, peaks.iloc[group - 1])
            suffix = " minus real"
        else:
            _map(figure, axes, spectra.maps[group], cmap="inferno")
            suffix = ""
        name = f"{spectra.groups[group]}{suffix} ({spectra.images[group]})"
        axes.set_title(display_text(name), fontsize=9)
    return figure


def _map(
    figure: Figure, axes: Axes, values: npt.NDArray[np.float64], **colours: str | float
) -> None:
    half = 0.5 / len(values)  # pixel centres range from -0.5 to below 0.5
    edges = (-0.5 - half, 0.5 - half, 0.5 - half, -0.5 - half)
    image = axes.imshow(values, extent=edges, interpolation="nearest", **colours)  # type: ignore[arg-type]
    axes.set(xticks=(-0.5, -0.25, 0, 0.25), yticks=(-0.5, -0.25, 0, 0.25))
    axes.tick_params(labelsize=7)
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)


def _mark(axes: Axes, peak: "pd.Series[float]") -> None:
    """Mark the sharpest peak and its mirror image with rings, if it is clear."""
    if peak["peak_deviations"] >= CLEAR_PEAK:
        x, y = peak["peak_x"], peak["peak_y"]
        axes.plot([x, -x], [y, -y], "o", mfc="none", mec="black", ms=9)
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())


def _radial(spectra: Spectra) -> Figure:
    """Plot radial means, and their differences to real images with 95 % intervals."""
    panels = 2 if spectra.compared else 1
    figure = Figure(figsize=(6.5 * panels, 4.5), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    # Nine hues, then their lighter shades, without blue, which is used for real images.
    colours = [REAL_COLOUR, "black", *matplotlib.colormaps["tab20"](np.r_[2:20:2, 3:20:2])]
    for group, name in enumerate(spectra.groups):
        style = {"color": colours[group % len(colours)], "lw": 1.2}
        label = display_text(f"{name} ({spectra.images[group]})")
        axes[0].plot(spectra.frequencies, spectra.radial[group], label=label, **style)
        if group in spectra.compared:
            difference = spectra.radial[group] - spectra.radial[0]
            axes[1].plot(spectra.frequencies, difference, **style)
            axes[1].fill_between(
                spectra.frequencies, spectra.low[group], spectra.high[group],
                color=style["color"], alpha=0.15, lw=0,
            )  # fmt: skip
    titles = ("Mean power", "Difference to real, with 95 % interval")
    for panel, title in zip(axes, titles, strict=False):
        panel.axvline(0.5, color=NEUTRAL, linestyle=":", lw=1)
        panel.set(title=title, xlabel="frequency in cycles per pixel", ylabel="decibels")
    if spectra.compared:
        axes[1].axhline(0, color=REAL_COLOUR, lw=1)
    axes[0].legend(fontsize=8)
    return figure
