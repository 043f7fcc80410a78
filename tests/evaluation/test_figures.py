"""Figures can be drawn from every kind of table, and show what they should."""

import io
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.figures import WORST, draw, effects_figure, learning_curves
from synthdetect.evaluation.predictions import evaluate, prediction_table
from synthdetect.images.geometry import Preprocess

BOTH = ["roc", "precision_recall", "reliability", "confusion", "scores"]
PREPROCESS = Preprocess(32, "resize")


def table_of(labels: list[int], logits: list[float], generator: str = "sd_1.4") -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(len(labels))],
            "label": np.array(labels, dtype="int8"),
            "split": "test",
            "generator": [generator if label else "" for label in labels],
            "category": "",
            "source_id": [f"s{i}" for i in range(len(labels))],
        }
    )
    return prediction_table(rows, np.array(logits), Decision())


def usual() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = [0, 1] * 15
    table = table_of(labels, (rng.normal(size=30) + labels).tolist())
    table.loc[table.index % 4 == 1, "generator"] = "glide"
    return table


TABLES = {
    "usual": (usual(), [*BOTH, "generators", "worst_mistakes"]),
    "real only": (table_of([0] * 6, [-2, -1, 0, 1, 2, 3]), ["scores", "worst_mistakes"]),
    "synthetic only": (table_of([1] * 6, [-2, -1, 0, 1, 2, 3]), ["scores", "worst_mistakes"]),
    "no mistake": (
        table_of([0, 0, 1, 1], [-3, -2, 2, 3]), [*BOTH, "generators", "worst_mistakes"]
    ),
    "nothing but mistakes": (
        table_of([0, 0, 1, 1], [3, 2, -2, -3]), [*BOTH, "generators", "worst_mistakes"]
    ),
    "one real image": (table_of([0], [0.5]), ["scores", "worst_mistakes"]),
    "one synthetic image": (table_of([1], [0.5]), ["scores", "worst_mistakes"]),
    "one of each": (table_of([0, 1], [0.5, 0.5]), [*BOTH, "generators", "worst_mistakes"]),
    "extreme scores": (
        table_of([0, 1, 0, 1], [800, -800, -800, 800]), [*BOTH, "generators", "worst_mistakes"]
    ),
    "no generator named": (
        table_of([0, 1, 1], [-1, 1, 2], ""), [*BOTH, "generators", "worst_mistakes"]
    ),
    "odd generator": (
        table_of([0, 1, 1], [-1, -1, -2], "a $x^$ _b_ \\n é 生成"),
        [*BOTH, "generators", "worst_mistakes"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Thirty small images of one colour each."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(30):
        Image.new("RGB", (40, 24), (8 * i, 128, 255 - 8 * i)).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(30)]


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_every_figure_is_drawn(kind: str, files: list[str]) -> None:
    table, names = TABLES[kind]
    evaluation = evaluate({"test": table}, Decision(), seed=0)["test"]
    figures = dict(draw(evaluation, 0.5, (files[: len(table)], PREPROCESS)))
    assert list(figures) == names
    for figure in figures.values():
        picture = png(figure)
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 1000
        assert Image.open(io.BytesIO(picture)).size > (100, 100)


def drawn(table: pd.DataFrame, name: str, files: list[str]) -> Figure:
    evaluation = evaluate({"test": table}, Decision(), seed=0)["test"]
    return dict(draw(evaluation, 0.5, (files[: len(table)], PREPROCESS)))[name]


def test_the_confusion_matrix_counts_every_image_once(files: list[str]) -> None:
    table = table_of([0, 0, 0, 1, 1, 1, 1], [-1, -1, 1, 1, -1, -1, -1])
    axes = drawn(table, "confusion", files).axes[0]
    shown = {text.get_position(): text.get_text().split("\n")[0] for text in axes.texts}
    assert shown == {(0, 0): "2", (1, 0): "1", (0, 1): "3", (1, 1): "1"}  # (predicted, true)


def test_the_worst_mistakes_come_first_and_are_shown_preprocessed(files: list[str]) -> None:
    table = table_of([0, 0, 1, 1], [3.0, -1.0, -5.0, 2.0])
    figure = drawn(table, "worst_mistakes", files)
    shown = [axes for axes in figure.axes if axes.get_title()]
    titles = [axes.get_title() for axes in shown]
    assert titles == ["sd_1.4\np = 0.007", "real\np = 0.953"]
    pixels = np.asarray(shown[0].images[0].get_array())
    assert (pixels == PREPROCESS(Path(files[2]).read_bytes())).all()


def test_the_number_of_worst_mistakes_is_limited(files: list[str]) -> None:
    figure = drawn(table_of([0] * 30, [1.0] * 30), "worst_mistakes", files)
    assert len([axes for axes in figure.axes if axes.get_title()]) == WORST < 30


def test_learning_curves_show_every_epoch_and_mark_the_chosen_one() -> None:
    history = [
        {"train/loss": 1 / i, "val/loss": 2 / i, "train/auc": 0.9, "val/auc": 0.5 + i / 10}
        for i in range(1, 5)
    ]
    figure = learning_curves(history, 3)
    assert len(png(figure)) > 1000
    loss, auc = figure.axes
    train, val, chosen = loss.lines
    assert (train.get_label(), val.get_label(), chosen.get_label()) == (
        "train", "val", "chosen epoch"
    )  # fmt: skip
    assert np.asarray(val.get_ydata()).tolist() == [2.0, 1.0, 2 / 3, 0.5]
    assert np.asarray(chosen.get_xdata()).tolist() == [3, 3]
    assert np.asarray(auc.lines[1].get_ydata()).tolist() == [0.6, 0.7, 0.8, 0.9]


def test_learning_curves_of_one_epoch_without_validation_can_be_drawn() -> None:
    assert len(png(learning_curves([{"train/loss": 1.0, "train/auc": 0.5}], 1))) > 1000


def test_no_figure_stays_in_pyplots_memory(files: list[str]) -> None:
    """pyplot would keep every figure of every trial until it is closed."""
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    table, _ = TABLES["usual"]
    evaluation = evaluate({"test": table}, Decision(), seed=0)["test"]
    for _, figure in draw(evaluation, 0.5, (files, PREPROCESS)):
        png(figure)
    png(learning_curves([{"train/loss": 1.0, "train/auc": 0.5}], 1))
    assert plt.get_fignums() == before


def test_effects_are_drawn_also_without_intervals() -> None:
    row = {"change": "data", "level": "diverse", "against": "narrow", "effect": 0.1}
    bounds = [{"on": "test", "low": 0.0, "high": 0.2}, {"on": "unseen", "low": nan, "high": nan}]
    figure = effects_figure(pd.DataFrame([{**row, **bound} for bound in bounds]))
    assert len(png(figure)) > 1000
    assert [axes.get_title() for axes in figure.axes] == ["on test", "on unseen"]
