"""Figures of an evaluation, of cross-validation folds, training histories and effects."""

from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.evaluation.examples import worst_mistakes
from synthdetect.evaluation.matrix import WORST as WORST_CELL
from synthdetect.evaluation.metrics import ECE_BINS
from synthdetect.evaluation.predictions import Evaluation
from synthdetect.images.contents import read_content
from synthdetect.images.geometry import Preprocess

matplotlib.use("Agg")

REAL_COLOUR, SYNTHETIC_COLOUR, NEUTRAL = "#0072B2", "#D55E00", "#666666"
"""Colours that colour-blind readers can distinguish (Okabe and Ito), and a grey."""

WORST = 20
"""Maximum number of images in the figure of worst mistakes."""


def draw(
    evaluation: Evaluation, threshold: float, images: tuple[Sequence[str], Preprocess] | None
) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of one split; those that need both classes are left out without them.

    Args:
        evaluation: evaluation of the split.
        threshold: threshold from validation.
        images: image files in the order of the predictions, and the detector's preprocessing, to
            show the worst mistakes; None leaves them out.

    Yields:
        Names and figures.
    """
    table = evaluation.predictions
    if table["label"].nunique() == 2:
        yield "roc", _roc(table, evaluation)
        yield "precision_recall", _precision_recall(table)
        yield "reliability", _reliability(table, evaluation)
        yield "confusion", _confusion(table, evaluation.split, threshold)
    yield "scores", _scores(table, evaluation.split, threshold)
    if len(evaluation.generators):
        yield "generators", _generators(evaluation)
    if len(evaluation.matrix):
        yield "matrix", _matrix(evaluation)
    if images:
        yield "worst_mistakes", _worst_mistakes(table, evaluation.split, threshold, *images)


def learning_curves(history: list[dict[str, float]], best_epoch: int) -> Figure:
    """Plot training and validation loss and AUC over the epochs, and mark the chosen epoch."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "auc"), strict=True):
        for split, colour in (("train", NEUTRAL), ("val", REAL_COLOUR)):
            values = [record.get(f"{split}/{name}", np.nan) for record in history]
            axes.plot(epochs, values, marker=".", color=colour, label=split)
        axes.axvline(best_epoch, color=SYNTHETIC_COLOUR, linestyle="--", label="chosen epoch")
        axes.set(xlabel="epoch", title=name.upper() if name == "auc" else "loss")
        axes.legend()
    return figure


def display_text(name: str) -> str:
    """Escape text from the data for a figure: no formulas and no unprintable characters."""
    return "".join(c if c.isprintable() else "?" for c in name).replace("$", r"\$")


def _square_figure(title: str) -> tuple[Figure, "matplotlib.axes.Axes"]:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _roc(table: pd.DataFrame, evaluation: Evaluation) -> Figure:
    auc = evaluation.overall.set_index("metric").loc["auc"]
    title = f"{evaluation.split}: AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]"
    figure, axes = _square_figure(title)
    RocCurveDisplay.from_predictions(
        table["label"], table["logit"], ax=axes, plot_chance_level=True, name="all generators",
        curve_kwargs={"color": REAL_COLOUR},
    )  # fmt: skip
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    axes.set_title(title)
    return figure


def _precision_recall(table: pd.DataFrame) -> Figure:
    figure, axes = _square_figure("Precision and recall")
    PrecisionRecallDisplay.from_predictions(
        table["label"], table["logit"], ax=axes, plot_chance_level=True, name="all generators",
        curve_kwargs={"color": REAL_COLOUR},
    )  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision")
    return figure


def _reliability(table: pd.DataFrame, evaluation: Evaluation) -> Figure:
    ece = evaluation.overall.set_index("metric").loc["ece"]
    figure, axes = _square_figure(f"{evaluation.split}: calibration error {ece['value']:.3f}")
    axes.plot([0, 1], [0, 1], linestyle=":", color=NEUTRAL)
    curves = [("calibrated", table["probability"], REAL_COLOUR)]
    if "raw_logit" in table:
        curves.insert(0, ("uncalibrated", expit(table["raw_logit"]), NEUTRAL))
    edges = np.linspace(0, 1, ECE_BINS + 1)
    for name, probability, colour in curves:
        bins = np.clip(np.digitize(probability, edges) - 1, 0, ECE_BINS - 1)
        grouped = pd.DataFrame({"p": probability, "y": table["label"]}).groupby(bins)
        sizes, means = grouped.size(), grouped.mean()
        axes.plot(means["p"], means["y"], color=colour, label=name)
        axes.scatter(means["p"], means["y"], s=20 + 300 * sizes / sizes.max(), color=colour,
                     alpha=0.6)  # fmt: skip
    if len(curves) > 1:
        axes.legend(loc="upper left")
    axes.set(
        xlabel="mean probability of synthetic", ylabel="share of synthetic images",
        xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
    return figure


def _confusion(table: pd.DataFrame, split: str, threshold: float) -> Figure:
    figure, axes = _square_figure(f"{split}, threshold {threshold:.3f}")
    counts = pd.crosstab(table["label"], table["predicted"]).reindex(
        index=[REAL, SYNTHETIC], columns=[REAL, SYNTHETIC], fill_value=0
    )
    shares = counts.div(counts.sum(axis=1), axis=0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true in (REAL, SYNTHETIC):
        for predicted in (REAL, SYNTHETIC):
            count, share = counts.loc[true, predicted], shares.loc[true, predicted]
            axes.text(
                predicted, true, f"{count}\n{share:.0%}", ha="center", va="center",
                color="white" if share > 0.5 else "black", fontsize=14,
            )  # fmt: skip
    axes.set_xticks([REAL, SYNTHETIC], CLASSES)
    axes.set_yticks([REAL, SYNTHETIC], CLASSES)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def _scores(table: pd.DataFrame, split: str, threshold: float) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for label, colour in ((REAL, REAL_COLOUR), (SYNTHETIC, SYNTHETIC_COLOUR)):
        values = table.loc[table["label"] == label, "probability"]
        if len(values):
            axes.hist(values, bins=np.linspace(0, 1, 31).tolist(), alpha=0.6, color=colour,
                      label=f"{CLASSES[label]} ({len(values)})")  # fmt: skip
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
    axes.set(title=f"{split}: scores", xlabel="probability of synthetic", ylabel="images")
    axes.legend()
    return figure


def _generators(evaluation: Evaluation) -> Figure:
    table = evaluation.generators.iloc[::-1]
    figure = Figure(figsize=(7, 1.2 + 0.5 * len(table)), layout="constrained")
    axes = figure.subplots()
    spread = [table["auc"] - table["auc_low"], table["auc_high"] - table["auc"]]
    axes.errorbar(
        table["auc"], np.arange(len(table)), xerr=np.maximum(spread, 0), fmt="o",
        color=REAL_COLOUR, capsize=4,
    )  # fmt: skip
    axes.set_yticks(
        np.arange(len(table)),
        [
            display_text(f"{g} ({n})")
            for g, n in zip(table["generator"], table["images"], strict=True)
        ],
    )
    axes.axvline(0.5, color=NEUTRAL, linestyle=":")
    axes.set(
        xlim=(min(0.4, table["auc_low"].min() - 0.02), 1.01), ylim=(-0.6, len(table) - 0.4),
        xlabel="AUC against all real images, with 95 % interval",
        title=f"{evaluation.split}: AUC by generator",
    )  # fmt: skip
    return figure


def _matrix(evaluation: Evaluation) -> Figure:
    """Plot a heat map of the AUC of each generator against each group of real images."""
    cells = evaluation.matrix[evaluation.matrix["generator"] != WORST_CELL]
    table = cells.pivot(index="generator", columns="real_group", values="auc")
    rows, columns = table.shape
    figure = Figure(figsize=(max(6, 3 + 0.9 * columns), 2 + 0.4 * rows), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(table, cmap="Blues", vmin=0.5, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(table.to_numpy()):
        axes.text(
            x, y, f"{value:.2f}", ha="center", va="center", fontsize=8,
            color="white" if value > 0.8 else "black",
        )  # fmt: skip
    axes.set_yticks(range(rows), [display_text(name) for name in table.index])
    names = [display_text(name) for name in table.columns]
    axes.set_xticks(range(columns), names, rotation=30, ha="right")
    axes.set(xlabel="real images", title=f"{evaluation.split}: AUC against groups of real images")
    figure.colorbar(picture, ax=axes, label="AUC", extend="min", pad=0.01)
    return figure


def _worst_mistakes(
    table: pd.DataFrame,
    split: str,
    threshold: float,
    files: Sequence[str],
    preprocess: Preprocess,
) -> Figure:
    """Plot the misclassified images furthest from the threshold, after preprocessing."""
    worst = worst_mistakes(table, threshold, WORST)
    columns = 5
    rows = max(1, -(-len(worst) // columns))
    figure = Figure(figsize=(2.3 * columns, 2.75 * rows), layout="constrained")
    figure.suptitle(f"{split}: {'worst' if len(worst) else 'no'} mistakes")
    for axes, i in zip(figure.subplots(rows, columns, squeeze=False).flat, worst, strict=False):
        row = table.iloc[i]
        axes.imshow(preprocess(read_content(files[i])))
        origin = display_text(row["generator"] or CLASSES[row["label"]])
        axes.set_title(f"{origin}\np = {row['probability']:.3f}", fontsize=9)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def effects_figure(effects: pd.DataFrame) -> Figure:
    """Plot effects on AUC with their intervals, in one panel per set of test images.

    Args:
        effects: table of `evaluation.effects` with a further column `on`, the set of test images.
    """
    outcomes = effects["on"].unique()
    rows = len(effects) // len(outcomes)
    figure = Figure(figsize=(5 + 3.5 * len(outcomes), 1.4 + 0.45 * rows), layout="constrained")
    panels = figure.subplots(1, len(outcomes), sharey=True, squeeze=False)[0]
    for axes, outcome in zip(panels, outcomes, strict=True):
        part = effects[effects["on"] == outcome].iloc[::-1]
        y = np.arange(len(part))
        spread = [part["effect"] - part["low"], part["high"] - part["effect"]]
        axes.errorbar(part["effect"], y, xerr=spread, fmt="o", color=REAL_COLOUR, capsize=4)
        axes.axvline(0, color=NEUTRAL, linestyle=":")
        names = part[["change", "level", "against"]].to_numpy()
        axes.set_yticks(y, [f"{name}: {level} vs. {first}" for name, level, first in names])
        axes.set(title=f"on {outcome}", xlabel="change of AUC, with 95 % interval")
    return figure


def folds_figure(per_fold: pd.DataFrame, pool: pd.DataFrame, prefix: str) -> Figure:
    """Plot AUC, accuracy and F1 of each fold with their means, and the ROC curves.

    Args:
        per_fold: metrics of the folds' runs, one row per fold.
        pool: out-of-fold predictions of all folds, with a column `fold`.
        prefix: prefix of the metrics to plot, `best/val/` for example.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = ("auc", "accuracy", "f1")
    for x, name in enumerate(names):
        values = per_fold[f"{prefix}{name}"]
        left.scatter(np.full(len(values), x), values, color=REAL_COLOUR, alpha=0.7)
        left.errorbar(x + 0.15, values.mean(), values.std(ddof=1), fmt="s", color="black")
    left.set_xticks(range(len(names)), names)
    left.set(title="Folds, mean and standard deviation", xlim=(-0.5, 2.5))
    for fold, table in pool.groupby("fold"):
        RocCurveDisplay.from_predictions(
            table["label"], table["logit"], ax=right, name=f"fold {fold}", curve_kwargs={"lw": 1}
        )
    right.set(xlabel="false-positive rate", ylabel="true-positive rate")
    return figure
