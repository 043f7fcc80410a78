"""Robustness tables, curves and figures on simulated logits."""

import io
import re

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.special import expit

from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.intervals import effective_sources, interval
from synthdetect.evaluation.metrics import metrics
from synthdetect.evaluation.predictions import overall_metrics, per_generator, prediction_table
from synthdetect.images.perturbations import PerturbationLevel, select_perturbations
from synthdetect.robustness.figures import (
    robustness_figure,
    robustness_generators_figure,
)
from synthdetect.robustness.tables import (
    MEASURES,
    REENCODED,
    equalised_table,
    flip_table,
    robustness_generators,
    robustness_table,
    severity_curves,
)

LEVELS = select_perturbations("jpeg:75,jpeg:30,blur:2")
THRESHOLD = 0.4


def made(
    perturbations: list[PerturbationLevel] = LEVELS,
) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    """Predictions of sixty images of thirty sources; each further perturbation adds more noise."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 30)
    rows = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(60)],
            "label": labels.astype("int8"),
            "split": "test",
            "generator": [("", ("sd", "glide", "")[i // 2 % 3])[label]
                          for i, label in enumerate(labels)],
            "category": "",
            "source_id": [f"s{i // 2}" for i in range(60)],
        }
    )  # fmt: skip
    base = rng.normal(size=60) + 2 * labels
    logits = np.stack([base + 0.5 * k * rng.normal(size=60) for k in range(len(perturbations))])
    return prediction_table(rows, logits[0], Decision(threshold=THRESHOLD)), logits


def test_each_row_has_the_metrics_of_its_perturbation() -> None:
    predictions, logits = made()
    table = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=1)
    found = list(zip(table["perturbation"], table["level"], strict=True))
    assert found == [("none", 0.0), ("jpeg", 75.0), ("jpeg", 30.0), ("blur", 2.0)]
    assert (table["images"] == 60).all()
    for row, scores in zip(table.to_dict(orient="records"), logits, strict=True):
        expected = metrics(predictions["label"], scores, THRESHOLD)
        assert {n: row[n] for n in ("auc", *MEASURES)} == {
            n: expected[n] for n in ("auc", *MEASURES)
        }
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
        assert row["auc_change"] == row["auc"] - table["auc"][0]


def test_the_unperturbed_row_equals_a_plain_evaluation() -> None:
    predictions, logits = made()
    row = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=1).iloc[0]
    plain = overall_metrics(predictions, THRESHOLD, seed=1).set_index("metric").loc["auc"]
    assert row[["auc", "auc_low", "auc_high"]].tolist() == plain.tolist()
    assert row[["auc_change", "auc_change_low", "auc_change_high"]].tolist() == [0, 0, 0]


def test_versions_of_the_images_are_measured_as_perturbations_are() -> None:
    predictions, logits = made()
    expected = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=1)
    named = dict(zip(("raw", "a", "b", "c"), logits, strict=True))
    table = equalised_table(predictions, named, THRESHOLD, seed=1)
    assert table["condition"].tolist() == ["raw", "a", "b", "c"]
    assert set(table["split"]) == {"test"}
    measured = ["images", "auc", "auc_change", "auc_change_low", "auc_change_high", *MEASURES]
    pd.testing.assert_frame_equal(table[measured], expected[measured])


def test_equal_ranks_have_no_change_and_an_interval_of_zero_width() -> None:
    predictions, logits = made()
    logits[2] = logits[0] * 3 + 1  # other numbers, the same ranks
    row = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=1).iloc[2]
    assert row[["auc_change", "auc_change_low", "auc_change_high"]].tolist() == [0, 0, 0]
    assert row["auc_high"] > row["auc_low"]
    assert row["real_accuracy"] < 1


def test_the_interval_of_the_change_is_paired_and_over_sources() -> None:
    predictions, logits = made()
    row = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=5).iloc[3]
    labels = predictions["label"].to_numpy()
    changes = []
    for source in range(-1, 30):
        kept = np.arange(60) // 2 != source
        one, other = (metrics(labels[kept], logits[k][kept], 0.5)["auc"] for k in (0, 3))
        changes.append(other - one)
    sources = effective_sources(labels, np.arange(60) // 2)
    expected = interval(np.array(changes), sources, scale="difference")
    assert row[["auc_change_low", "auc_change_high"]].tolist() == pytest.approx(expected)


def test_the_unperturbed_images_may_be_in_any_row_but_must_be_present() -> None:
    predictions, logits = made()
    table = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=1)
    reversed_ = robustness_table(predictions, logits[::-1], LEVELS[::-1], THRESHOLD, seed=1)
    pd.testing.assert_frame_equal(reversed_[::-1].reset_index(drop=True), table)
    with pytest.raises(ValueError, match="not in list"):
        robustness_table(predictions, logits[1:], LEVELS[1:], THRESHOLD, seed=1)


def test_generators_are_against_all_real_images_under_the_same_perturbation() -> None:
    predictions, logits = made()
    table = robustness_generators(predictions, logits, LEVELS, seed=1)
    assert len(table) == 3 * len(LEVELS)
    assert table["images"].unique().tolist() == [10]
    for k, perturbation in enumerate(LEVELS):
        perturbed = predictions.assign(logit=logits[k])
        expected = per_generator(perturbed, THRESHOLD, seed=1).iloc[:3]  # without mean and worst
        chosen = table["perturbation"].eq(perturbation.name) & table["level"].eq(perturbation.level)
        columns = ["generator", "images", "auc", "auc_low", "auc_high"]
        pd.testing.assert_frame_equal(
            table.loc[chosen, columns].reset_index(drop=True), expected[columns]
        )


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_accuracies_and_no_auc(label: int) -> None:
    predictions, logits = made()
    members = np.flatnonzero(predictions["label"] == label)
    predictions, logits = predictions.iloc[members], logits[:, members]
    table = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=1)
    assert table[["auc", "auc_low", "auc_change", "auc_change_high"]].isna().all(axis=None)
    assert table["fake_accuracy" if label else "real_accuracy"].notna().all()
    assert len(robustness_generators(predictions, logits, LEVELS, seed=1)) == 0
    names = {name.rsplit("/", 1)[1] for name in severity_curves(table)}
    assert names == {"fake_accuracy" if label else "real_accuracy", "ece", "flip_rate"}
    assert png(robustness_figure(table, "control"))


def test_the_step_of_a_curve_is_the_severity() -> None:
    predictions, logits = made()
    table = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=1)
    found = severity_curves(table)
    auc = table["auc"].tolist()
    # jpeg:75 is the third of five levels and jpeg:30 the fifth, also if others are not selected
    assert found["robustness/jpeg/auc"] == [(0, auc[0]), (3, auc[1]), (5, auc[2])]
    assert found["robustness/blur/auc"] == [(0, auc[0]), (3, auc[3])]
    assert found["robustness/jpeg/auc_at_30"] == [(0, auc[2])]
    assert found["robustness/jpeg/auc_change"][0] == (0, 0.0)
    assert found["robustness/blur/fake_accuracy"][1] == (3, table["fake_accuracy"][3])
    assert len(found) == 2 * (3 + len(MEASURES)) + 3


def test_mlflow_accepts_the_names_of_the_curves() -> None:
    perturbations = select_perturbations("all")
    predictions, logits = made(perturbations)
    table = robustness_table(predictions, logits, perturbations, THRESHOLD, seed=1)
    assert all(re.fullmatch(r"[A-Za-z0-9_\-. /]+", name) for name in severity_curves(table))


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    return file.getvalue()


@pytest.mark.parametrize(("selection", "panels"), [("blur:2", 1), ("jpeg,blur,crop,noise", 4)])
def test_the_figure_has_one_panel_per_perturbation_starting_with_unperturbed_images(
    selection: str, panels: int
) -> None:
    perturbations = select_perturbations(selection)
    predictions, logits = made(perturbations)
    table = robustness_table(predictions, logits, perturbations, THRESHOLD, seed=1)
    figure = robustness_figure(table, "test")
    used = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in used] == [part.split(":")[0]
                                                   for part in selection.split(",")]  # fmt: skip
    assert len(used) == panels
    for axes in used:
        auc = np.asarray(axes.get_lines()[1].get_ydata()).tolist()
        levels = table.loc[table["perturbation"] == axes.get_title(), "auc"]
        assert auc == [table["auc"][0], *levels]
        assert axes.get_xticklabels()[0].get_text() == "as is"
    assert png(figure)


def test_the_generators_figure_has_a_cell_per_generator_and_perturbation() -> None:
    predictions, logits = made()
    predictions["generator"] = predictions["generator"].replace("sd", "a $x^$ _b_")
    table = robustness_generators(predictions, logits, LEVELS, seed=1)
    figure = robustness_generators_figure(table, "test")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [f"{auc:.2f}".removeprefix("0") for auc in table["auc"]]
    assert png(figure)


def test_the_flip_rate_is_the_share_of_answers_that_change() -> None:
    predictions, logits = made()
    table = robustness_table(predictions, logits, LEVELS, THRESHOLD, seed=1)
    answers = expit(logits) >= THRESHOLD
    assert table["flip_rate"].tolist() == [(row != answers[0]).mean() for row in answers]
    assert table["flip_rate"][0] == 0
    assert (table["flip_rate_low"] <= table["flip_rate"]).all()
    assert (table["flip_rate"] <= table["flip_rate_high"]).all()
    assert 0 < table["flip_rate_high"][0] < 0.2  # no flip among thirty photographs is no proof
    curve = severity_curves(table)["robustness/jpeg/flip_rate"]
    assert [value for _, value in curve] == table["flip_rate"][:3].tolist()


def test_flips_are_counted_under_any_level_and_under_any_re_encoding() -> None:
    predictions, _ = made()
    levels = select_perturbations("jpeg:75,jpeg:30,webp:75,blur:2")
    logits = np.tile(np.where(predictions["label"] == 1, 2.0, -2.0), (5, 1))
    for row, images in enumerate([[0], [1, 2], [2, 3], range(30)], start=1):
        logits[row, list(images)] *= -1
    found = flip_table(predictions, logits, levels, 0.5, seed=1).set_index("perturbation")
    assert (found["flip_rate"] * 60).round(9).to_dict() == {
        "jpeg": 3, "webp": 2, "blur": 30, REENCODED: 4,
    }  # fmt: skip
    assert found["levels"].tolist() == [2, 1, 1, 3]
    blur = flip_table(predictions, logits[[0, 4]], [levels[0], levels[4]], 0.5, seed=1)
    assert blur["perturbation"].tolist() == ["blur"]
