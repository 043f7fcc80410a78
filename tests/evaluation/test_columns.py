"""Tables with the columns that published code writes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from synthdetect.evaluation.external import External, read_predictions
from synthdetect.system.errors import UserError

FILES = ["r0.png", "r1.png", "f0.png", "f1.png"]
LABELS = [0, 0, 1, 1]
LLR = [-2.0, -1.0, 1.0, 3.0]
PROBABILITIES = expit(LLR)


def read(folder: Path, columns: Sequence[str] = (), **table: object) -> External:
    file = folder / "table.csv"
    pd.DataFrame(table).to_csv(file, index=False)
    return read_predictions(file, columns)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        # An evaluation script around DRCT: true_label, pred_prob_fake, image_path.
        ({"true_label": LABELS, "pred_prob_fake": PROBABILITIES, "image_path": FILES},
         "path=image_path,label=true_label,probability=pred_prob_fake"),
        # Classifiers that export both; the log-odds are exact where probabilities round.
        ({"filepath": FILES, "true_label": ["real", "real", "fake", "fake"],
          "pred_label": ["real", "fake", "fake", "fake"], "logit": LLR, "prob": PROBABILITIES},
         "path=filepath,label=true_label"),
        # CNNDetection and its descendants, whose validate() returns y_true and y_pred.
        ({"img_path": FILES, "y_true": LABELS, "y_pred": PROBABILITIES},
         "path=img_path,label=y_true,probability=y_pred"),
        # AIDE and other scripts of two classes with argmax beside the probability.
        ({"image": FILES, "label": LABELS, "pred": [0, 1, 1, 1], "score": PROBABILITIES},
         "path=image,probability=score"),
        # OpenFake: its list with the score of a detector.
        ({"file_name": FILES, "label": ["real", "real", "fake", "fake"],
          "model": ["laion", "laion", "flux", "sd3"], "prob_fake": PROBABILITIES},
         "path=file_name,probability=prob_fake,generator=model"),
        ({"Image Name": FILES, "Ground-Truth": ["Real", "Real", "AI", "AI"], "Score": LLR},
         "path=Image Name,label=Ground-Truth,logit=Score"),
    ],
)  # fmt: skip
def test_published_forms_are_recognised_and_said(
    tmp_path: Path, table: dict[str, object], words: str
) -> None:
    found = read(tmp_path, **table)
    assert found.recognised.words.endswith(f"--columns {words}")
    assert found.rows["label"].tolist() == LABELS
    np.testing.assert_allclose(found.rows["raw_logit"], LLR, atol=1e-6)
    assert found.rows["path"].tolist() == FILES
    given = read(tmp_path, words.split(","), **table)
    pd.testing.assert_frame_equal(given.rows[found.rows.columns[:5]], found.rows.iloc[:, :5])


def test_real_images_have_no_generator(tmp_path: Path) -> None:
    table = read(
        tmp_path, file_name=FILES, label=LABELS, model=["laion", "laion", "flux", "sd3"], logit=LLR
    ).rows
    assert table["generator"].tolist() == ["", "", "flux", "sd3"]


def test_clipdet_names_label_and_generator_in_one_column(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        filename=FILES, typ=["real", "real", "dalle3", "midjourney"],
        clipdet_latent10k_plus=[-1, -2, 0, 1], Corvi2023=[-1, 0, 1, 2], fusion=LLR,
    )  # fmt: skip
    assert found.rows["label"].tolist() == LABELS
    assert found.rows["generator"].tolist() == ["", "", "dalle3", "midjourney"]
    assert found.rows["raw_logit"].tolist() == LLR
    assert "logit=fusion" in found.recognised.words


def test_several_scores_of_unknown_names_are_offered(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, filename=FILES, typ=["real", "real", "a", "b"], clipdet=LLR,
             Corvi2023=PROBABILITIES)  # fmt: skip
    assert "--columns logit=clipdet or --columns probability=Corvi2023" in str(caught.value)
    found = read(tmp_path, ["logit=clipdet"], filename=FILES, typ=["real", "real", "a", "b"],
                 clipdet=LLR, Corvi2023=PROBABILITIES)  # fmt: skip
    assert found.rows["raw_logit"].tolist() == LLR


@pytest.mark.parametrize(
    ("further", "offered"),
    [
        ({"prob_fake": PROBABILITIES, "fake_prob": PROBABILITIES},
         "--columns probability=prob_fake or --columns probability=fake_prob"),
        ({"y_true": LABELS, "target": LABELS, "logit": LLR},
         "--columns label=y_true or --columns label=target"),
        ({"image_path": FILES, "filepath": FILES, "logit": LLR, "label": LABELS},
         "--columns path=image_path or --columns path=filepath"),
    ],
)  # fmt: skip
def test_what_could_be_either_is_asked_for(
    tmp_path: Path, further: dict[str, object], offered: str
) -> None:
    table = {"file": FILES, "gt": LABELS} if "prob_fake" in further else {}
    with pytest.raises(UserError) as caught:
        read(tmp_path, **table, **further)
    assert offered in str(caught.value)


def test_answers_and_the_confidence_of_an_answer_are_no_scores(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither 'logit' nor 'probability'"):
        read(tmp_path, filename=FILES, label=LABELS, pred=[0, 0, 1, 1])
    with pytest.raises(UserError, match=r"Give --columns probability=confidence; a score is high"):
        read(tmp_path, filename=FILES, label=LABELS, confidence=PROBABILITIES)


def test_rows_without_names_are_numbered(tmp_path: Path) -> None:
    found = read(tmp_path, y_true=LABELS, y_score=PROBABILITIES)
    assert found.rows["path"].tolist() == ["row 1", "row 2", "row 3", "row 4"]


def test_our_own_names_go_before_others(tmp_path: Path) -> None:
    found = read(tmp_path, path=FILES, label=LABELS, probability=PROBABILITIES, target=[1] * 4,
                 filename=["x"] * 4, y_score=LLR)  # fmt: skip
    assert found.recognised.words == ""
    assert found.rows["label"].tolist() == LABELS
