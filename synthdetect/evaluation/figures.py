"""Figures of an evaluation, drawn after training and never while it waits."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.evaluation.examples import worst_mistakes
from synthdetect.evaluation.metrics import ECE_BINS
from synthdetect.evaluation.predictions import Evaluation
from synthdetect.images.geometry import Preprocess

matplotlib.use("Agg")

REAL_COLOUR, SYNTHETIC_COLOUR, NEUTRAL = "#0072B2", "#D55E00", "#666666"
"""Two colours that stay apart for colour-blind readers (Okabe and Ito), and a grey."""

WORST = 20
"""Images on the sheet of worst mistakes."""


def draw(
    evaluation: Evaluation, threshold: float, images: tuple[Sequence[Path], Preprocess] | None
) -> Iterator[tuple[str, Figure]]:
    """The figures of one split, by name; those that need both classes only where both are there.

    Args:
        evaluation: of the split.
        threshold: from validation.
        images: the image files in the order of the predictions, and how the network saw them,
            which is how the worst mistakes are shown; None shows none.
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
    if images:
        yield "worst_mistakes", _worst_mistakes(table, evaluation.split, threshold, *images)


def learning_curves(history: list[dict[str, float]], best_epoch: int) -> Figure:
    """Loss and AUC of training and validation by epoch; the chosen epoch is marked."""
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


def plain(name: str) -> str:
    """Text from the data, in which a dollar sign starts no formula and nothing breaks a line."""
    return "".join(c if c.isprintable() else "?" for c in name).replace("$", r"\$")


def _square(title: str) -> tuple[Figure, "matplotlib.axes.Axes"]:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _roc(table: pd.DataFrame, evaluation: Evaluation) -> Figure:
    auc = evaluation.overall.set_index("metric").loc["auc"]
    title = f"{evaluation.split}: AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]"
    figure, axes = _square(title)
    RocCurveDisplay.from_predictions(
        table["label"], table["logit"], ax=axes, plot_chance_level=True, name="all generators",
        curve_kwargs={"color": REAL_COLOUR},
    )  # fmt: skip
    axes.set(xlabel="real images called synthetic", ylabel="synthetic images found")
    axes.set_title(title)
    return figure


def _precision_recall(table: pd.DataFrame) -> Figure:
    figure, axes = _square("Precision and recall")
    PrecisionRecallDisplay.from_predictions(
        table["label"], table["logit"], ax=axes, plot_chance_level=True, name="all generators",
        curve_kwargs={"color": REAL_COLOUR},
    )  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision")
    return figure


def _reliability(table: pd.DataFrame, evaluation: Evaluation) -> Figure:
    ece = evaluation.overall.set_index("metric").loc["ece"]
    figure, axes = _square(f"{evaluation.split}: calibration error {ece['value']:.3f}")
    axes.plot([0, 1], [0, 1], linestyle=":", color=NEUTRAL)
    curves = [("after calibration", table["probability"], REAL_COLOUR)]
    if "raw_logit" in table:
        curves.insert(0, ("before", expit(table["raw_logit"]), NEUTRAL))
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
        xlabel="mean probability of synthetic", ylabel="share that is synthetic",
        xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
    return figure


def _confusion(table: pd.DataFrame, split: str, threshold: float) -> Figure:
    figure, axes = _square(f"{split}, threshold {threshold:.3f}")
    counts = pd.crosstab(table["label"], table["predicted"]).reindex(
        index=[REAL, SYNTHETIC], columns=[REAL, SYNTHETIC], fill_value=0
    )
    shares = counts.div(counts.sum(axis=1), axis=0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true in (REAL, SYNTHETIC):
        for said in (REAL, SYNTHETIC):
            share = shares.loc[true, said]
            axes.text(
                said, true, f"{counts.loc[true, said]}\n{share:.0%}", ha="center", va="center",
                color="white" if share > 0.5 else "black", fontsize=14,
            )  # fmt: skip
    axes.set_xticks([REAL, SYNTHETIC], CLASSES)
    axes.set_yticks([REAL, SYNTHETIC], CLASSES)
    axes.set(xlabel="called", ylabel="is")
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
        [plain(f"{g} ({n})") for g, n in zip(table["generator"], table["images"], strict=True)],
    )
    axes.axvline(0.5, color=NEUTRAL, linestyle=":")
    axes.set(
        xlim=(min(0.4, table["auc_low"].min() - 0.02), 1.01), ylim=(-0.6, len(table) - 0.4),
        xlabel="AUC against all real images, with 95 % interval",
        title=f"{evaluation.split}: each generator",
    )  # fmt: skip
    return figure


def _worst_mistakes(
    table: pd.DataFrame,
    split: str,
    threshold: float,
    files: Sequence[Path],
    preprocess: Preprocess,
) -> Figure:
    """The images furthest on the wrong side, as the network saw them."""
    worst = worst_mistakes(table, threshold, WORST)
    columns = 5
    rows = max(1, -(-len(worst) // columns))
    figure = Figure(figsize=(2.3 * columns, 2.75 * rows), layout="constrained")
    figure.suptitle(f"{split}: {'worst' if len(worst) else 'no'} mistakes")
    for axes, i in zip(figure.subplots(rows, columns, squeeze=False).flat, worst, strict=False):
        row = table.iloc[i]
        axes.imshow(preprocess(files[i].read_bytes()))
        axes.set_title(
            f"{plain(row['generator'] or CLASSES[row['label']])}\np = {row['probability']:.3f}",
            fontsize=9,
        )
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def effects_figure(effects: pd.DataFrame) -> Figure:
    """Each change's effect on AUC with its interval, a panel for each set of images judged on.

    Args:
        effects: as `evaluation.effects` makes it, with a column `on`.
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
        names = part[["factor", "level", "against"]].to_numpy()
        axes.set_yticks(y, [f"{f}: {level} for {first}" for f, level, first in names])
        axes.set(title=f"on {outcome}", xlabel="change of AUC, with 95 % interval")
    return figure


def folds_figure(per_fold: pd.DataFrame, pool: pd.DataFrame) -> Figure:
    """Validation AUC, accuracy and F1 of each fold with their means, and the ROC of each fold.

    Args:
        per_fold: a row a fold, columns as the folds' runs name their metrics.
        pool: out-of-fold predictions of all folds, with a column `fold`.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = ("auc", "accuracy", "f1")
    for x, name in enumerate(names):
        values = per_fold[f"best/val/{name}"]
        left.scatter(np.full(len(values), x), values, color=REAL_COLOUR, alpha=0.7)
        left.errorbar(x + 0.15, values.mean(), values.std(ddof=1), fmt="s", color="black")
    left.set_xticks(range(len(names)), names)
    left.set(title="Folds, and their mean and standard deviation", xlim=(-0.5, 2.5))
    for fold, table in pool.groupby("fold"):
        RocCurveDisplay.from_predictions(
            table["label"], table["logit"], ax=right, name=f"fold {fold}", curve_kwargs={"lw": 1}
        )
    right.set(xlabel="real images called synthetic", ylabel="synthetic images found")
    return figure
