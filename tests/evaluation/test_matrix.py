"""The AUC of each generator against each group of real images."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.matrix import WORST, default_real_by, real_groups_matrix
from synthdetect.evaluation.predictions import evaluate, prediction_table, sampling_unit
from synthdetect.evaluation.summary import interval_note, matrix_rows, worst_cell
from synthdetect.system.errors import UserError


def table(seed: int = 0) -> pd.DataFrame:
    """Two generators, and real images of two cameras, one of which looks synthetic."""
    rng = np.random.default_rng(seed)
    parts = [("", "phone", 0.0, 40), ("", "scan", 1.5, 40), ("", "film", 0.0, 3),
             ("sd", "", 2.0, 40), ("glide", "", 3.0, 40)]  # fmt: skip
    rows = pd.DataFrame(
        [
            {"label": int(bool(generator)), "generator": generator, "camera": camera,
             "split": "test", "path": f"{generator}{camera}{i}", "x": mean + rng.normal()}
            for generator, camera, mean, count in parts
            for i in range(count)
        ]
    )  # fmt: skip
    return prediction_table(rows.drop(columns="x"), rows["x"].to_numpy(), Decision())


def test_each_generator_is_measured_against_each_group_of_real_images() -> None:
    images = table()
    found = real_groups_matrix(images, "camera", seed=0)
    cells = found[found["generator"] != WORST]
    assert len(cells) == 2 * 3
    for row in cells.to_dict(orient="records"):
        real = images[(images["label"] == 0) & (images["camera"] == row["real_group"])]
        both = pd.concat([real, images[images["generator"] == row["generator"]]])
        assert (row["real"], row["synthetic"]) == (len(real), 40)
        assert row["auc"] == pytest.approx(roc_auc_score(both["label"], both["logit"]))
        assert row["auc_low"] < row["auc"] <= row["auc_high"]


def test_the_worst_cell_has_enough_sources() -> None:
    """Three images of film are too few to be called the worst, whatever their AUC."""
    images = table()
    images.loc[images["camera"] == "film", "logit"] = 9.0
    found = real_groups_matrix(images, "camera", seed=0)
    worst = found.iloc[-1]
    cells = found[(found["generator"] != WORST) & (found["real_group"] != "film")]
    assert (worst["generator"], worst["real_group"]) == (WORST, "sd against scan")
    assert worst["auc"] == cells["auc"].min() > found["auc"].min()
    assert worst["auc_low"] < worst["auc"] < worst["auc_high"]


def test_a_single_group_or_class_has_no_matrix() -> None:
    images = table()
    assert real_groups_matrix(images[images["camera"] != "scan"].assign(camera="x"), "camera",
                              seed=0).empty  # fmt: skip
    assert real_groups_matrix(images[images["label"] == 0], "camera", seed=0).empty
    with pytest.raises(UserError, match=r"--real-by: no column 'lens'.*camera"):
        real_groups_matrix(images, "lens", seed=0)


def test_the_default_is_the_first_usual_column_in_which_real_images_differ() -> None:
    images = table()
    assert default_real_by(images) == ""
    assert default_real_by(images.assign(category=images["generator"])) == ""  # real ones agree
    assert default_real_by(images.assign(format="png", category=images["camera"])) == "category"


def test_an_evaluation_records_the_worst_cell_and_summarises_the_matrix() -> None:
    evaluations = evaluate({"test": table()}, Decision(), seed=0, real_by="camera")
    matrix = evaluations["test"].matrix
    flat = evaluations["test"].flat("test")
    assert flat["test/matrix/worst/auc"] == matrix["auc"].iloc[-1]
    shown = matrix_rows(matrix)
    assert list(shown.columns) == ["generator", "film", "phone", "scan"]
    assert shown["generator"].tolist() == ["glide", "sd"]
    worst = worst_cell(matrix, "test")
    assert worst.startswith("worst AUC on test of the groups with at least 10 photographs")
    assert f"sd against scan, {matrix['auc'].iloc[-1]:.3f} [" in worst
    without = evaluate({"test": table()}, Decision(), seed=0)["test"]
    assert without.matrix.empty
    assert matrix_rows(without.matrix).empty
    assert worst_cell(without.matrix, "test") == ""


def test_many_groups_show_only_the_worst() -> None:
    images = table()
    images["camera"] = np.where(images["label"] == 0, np.arange(len(images)) % 9, 0).astype(str)
    images = pd.concat([images] * 3, ignore_index=True)
    matrix = real_groups_matrix(images, "camera", seed=0)
    assert matrix_rows(matrix).empty
    assert worst_cell(matrix, "test")


def test_the_note_names_what_the_intervals_are_over() -> None:
    images = table()
    named = images.assign(source_id=images["path"])
    assert sampling_unit(images) == sampling_unit(images.assign(source_id="")) == "image"
    assert sampling_unit(named) == "photograph"
    by_image, by_photograph = (
        interval_note(evaluate({"test": rows}, Decision(), seed=0)) for rows in (images, named)
    )
    assert by_photograph == "95 % intervals by photograph"
    assert by_image.startswith("95 % intervals by image")
