"""Tables of external predictions: scores, column names, splits and errors."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from synthdetect.evaluation.external import MARGIN, keep_threshold_side, read_predictions
from synthdetect.system.errors import UserError

THOUSANDTHS = np.arange(1001) / 1000


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_logits_and_labels_of_any_spelling_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,logit,camera\na.png,REAL,-1.5,x\nb.png,1_fake,2,y\n")
    table, moved, _ = read_predictions(path, [])
    assert table["label"].tolist() == [0, 1]
    assert table["raw_logit"].tolist() == [-1.5, 2.0]
    assert table["split"].tolist() == ["test", "test"]
    assert table["camera"].tolist() == ["x", "y"]
    assert moved == 0


def test_probabilities_become_log_odds(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,probability\na,0,0.25\nb,1,1.0\nc,1,0\n")
    table, moved, _ = read_predictions(path, [])
    assert expit(table["raw_logit"]).tolist() == pytest.approx([0.25, 1 - MARGIN, MARGIN])
    assert moved == 2


def test_only_probabilities_of_0_and_1_are_moved_and_the_order_is_preserved(
    tmp_path: Path,
) -> None:
    rising = [0, 1e-300, 1e-12, 1e-9, 0.5, 1 - 1e-9, 1 - 1e-12, 1 - 2**-53, 1]
    lines = [f"{p!r},{n % 2},{p!r}\n" for n, p in enumerate(rising)]
    table, moved, _ = read_predictions(
        written(tmp_path, "path,label,probability\n" + "".join(lines)), []
    )
    assert moved == 2
    assert table["probability"].tolist() == rising
    assert np.isfinite(table["raw_logit"]).all()
    assert (np.diff(table["raw_logit"]) > 0).all()
    assert table["raw_logit"].tolist()[1:-1] == logit(rising[1:-1]).tolist()


def test_probabilities_of_only_0_and_1_have_finite_log_odds(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,probability\na,0,0\nb,1,1\nc,1,0.0\n")
    table, moved, _ = read_predictions(path, [])
    assert moved == 3
    assert expit(table["raw_logit"]).tolist() == pytest.approx([MARGIN, 1 - MARGIN, MARGIN])


def check_sides(probabilities: np.ndarray, threshold: float) -> None:
    """Check sides of the threshold, order, and closeness to the probabilities."""
    with np.errstate(divide="ignore"):
        logits = np.clip(logit(probabilities), -746, 37.5)
    moved = keep_threshold_side(logits, probabilities, threshold)
    np.testing.assert_array_equal(expit(moved) >= threshold, probabilities >= threshold)
    assert (np.diff(moved) >= 0).all()
    inside = (probabilities > 0) & (probabilities < 1)
    np.testing.assert_allclose(expit(moved)[inside], probabilities[inside], 1e-12, 1e-300)


@pytest.mark.parametrize("tenth", range(10))
def test_probabilities_of_three_decimals_stay_on_their_side_of_each_of_them(tenth: int) -> None:
    for threshold in THOUSANDTHS[100 * tenth :][:101]:
        check_sides(THOUSANDTHS, threshold)
        moved = keep_threshold_side(np.clip(logit(THOUSANDTHS), -20, 20), THOUSANDTHS, threshold)
        assert len(np.unique(moved)) == 1001


PROBABILITY = st.floats(0, 1) | st.sampled_from([0.0, 5e-324, 1e-300, 1 - 2**-53, 1.0])


@settings(max_examples=300, deadline=None)
@given(st.lists(PROBABILITY, min_size=1, max_size=8), PROBABILITY)
def test_any_probability_stays_keep_threshold_side_of_any_threshold(
    found: list[float], threshold: float
) -> None:
    near = [np.nextafter(threshold, 0), threshold, np.nextafter(threshold, 1)]
    check_sides(np.sort([*found, *near]), threshold)


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    path = written(tmp_path, "filename,typ,LLR,label\na,real,-1,zzz\nb,sd15,1,zzz\n")
    with pytest.raises(UserError, match="unknown"):
        read_predictions(path, ["path=filename", "logit=LLR"])
    path = written(tmp_path, "filename,fake,LLR,gen\na,0,-1,\nb,1,1,sd15\n")
    table, *_ = read_predictions(
        path, ["path=filename", "logit=LLR", "label=fake", "generator=gen"]
    )
    assert table["generator"].tolist() == ["", "sd15"]
    assert table["path"].tolist() == ["a", "b"]


def test_parquet_is_read_too_and_splits_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    rows = {"path": ["a", "a"], "label": [0, 1], "logit": [0.5, 1], "split": ["valid", "test"]}
    pd.DataFrame(rows).to_parquet(path)
    assert read_predictions(path, [])[0]["split"].tolist() == ["val", "test"]


def test_splits_of_any_spelling_are_recognised(tmp_path: Path) -> None:
    splits = ["Train", "VALIDATION", "Valid", "Test", "", "Wild"]
    lines = [f"{n},{n % 2},0.5,{split}\n" for n, split in enumerate(splits)]
    path = written(tmp_path, "path,label,logit,split\n" + "".join(lines))
    found = read_predictions(path, [])[0]["split"]
    assert found.tolist() == ["train", "val", "val", "test", "test", "Wild"]


def test_names_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,logit,source_id\n007,0,1,01\n008,1,1,NA\n")
    table, *_ = read_predictions(path, [])
    assert table["path"].tolist() == ["007", "008"]
    assert table["source_id"].tolist() == ["01", "NA"]
    path = written(tmp_path, "file,label,logit,photo\n007,0,1,01\n008,1,1,02\n")
    table, *_ = read_predictions(path, ["path=file", "source_id=photo"])
    assert table["path"].tolist() == ["007", "008"]
    assert table["source_id"].tolist() == ["01", "02"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("path,label,logit\n", "no rows"),
        ("logit\n2\n", r"no column 'path'.*--columns path="),
        ("path,logit\na,2\n", r"no column 'label'"),
        ("path,label\na,1\n", "'logit'.*'probability'.*--columns"),
        ("path,label,logit\na,1,1\nb,1,high\n", r"row 2 \('b'\).*logit"),
        ("path,label,logit\na,1,inf\n", "row 1"),
        ("path,label,logit\na,1,\n", "row 1"),
        ("path,label,probability\na,1,0.5\nb,0,1.2\n", r"row 2 .*probability"),
        ("path,label,logit\na,maybe,1\n", "'maybe'"),
        ("path,label,logit\na,1,1\na,1,2\n", "row 2 .*twice"),
    ],
)
def test_invalid_tables_are_refused_with_the_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_predictions(written(tmp_path, text), [])


@pytest.mark.parametrize(
    ("names", "message"),
    [(["label"], "--columns"), (["=x"], "--columns"), (["label=truth"], "--columns.*'truth'")],
)
def test_invalid_column_names_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    path = written(tmp_path, "path,label,logit\na,1,1\n")
    with pytest.raises(UserError, match=message):
        read_predictions(path, names)


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--predictions.*none\.csv"):
        read_predictions(tmp_path / "none.csv", [])
    with pytest.raises(UserError, match=r"--predictions.*x\.parquet"):
        read_predictions(written(tmp_path, "nonsense", "x.parquet"), [])
