"""Other detectors' tables: logits or probabilities, any names, and every fault by its row."""

from pathlib import Path

import pandas as pd
import pytest
from scipy.special import expit

from synthdetect.errors import UserError
from synthdetect.evaluation.foreign import NEAREST, read_predictions


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_logits_and_labels_in_any_spelling(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,logit,camera\na.png,REAL,-1.5,x\nb.png,1_fake,2,y\n")
    table, moved = read_predictions(path, [])
    assert table["label"].tolist() == [0, 1]
    assert table["raw_logit"].tolist() == [-1.5, 2.0]
    assert table["split"].tolist() == ["test", "test"]
    assert table["camera"].tolist() == ["x", "y"]
    assert moved == 0


def test_probabilities_become_log_odds(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,probability\na,0,0.25\nb,1,1.0\nc,1,0\n")
    table, moved = read_predictions(path, [])
    assert expit(table["raw_logit"]).tolist() == pytest.approx([0.25, 1 - NEAREST, NEAREST])
    assert moved == 2


def test_names_are_translated(tmp_path: Path) -> None:
    path = written(tmp_path, "filename,typ,LLR,label\na,real,-1,zzz\nb,sd15,1,zzz\n")
    with pytest.raises(UserError, match="unknown"):
        read_predictions(path, ["path=filename", "logit=LLR"])
    path = written(tmp_path, "filename,fake,LLR,gen\na,0,-1,\nb,1,1,sd15\n")
    table, _ = read_predictions(path, ["path=filename", "logit=LLR", "label=fake", "generator=gen"])
    assert table["generator"].tolist() == ["", "sd15"]
    assert table["path"].tolist() == ["a", "b"]


def test_parquet_is_read_too_and_splits_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    rows = {"path": ["a", "a"], "label": [0, 1], "logit": [0.5, 1], "split": ["valid", "test"]}
    pd.DataFrame(rows).to_parquet(path)
    assert read_predictions(path, [])[0]["split"].tolist() == ["val", "test"]


def test_names_that_look_like_numbers_stay_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,logit,source_id\n007,0,1,01\n008,1,1,NA\n")
    table, _ = read_predictions(path, [])
    assert table["path"].tolist() == ["007", "008"]
    assert table["source_id"].tolist() == ["01", "NA"]
    path = written(tmp_path, "file,label,logit,photo\n007,0,1,01\n008,1,1,02\n")
    table, _ = read_predictions(path, ["path=file", "source_id=photo"])
    assert table["path"].tolist() == ["007", "008"]
    assert table["source_id"].tolist() == ["01", "02"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label,logit\n", "has no rows"),
        ("label,logit\n1,2\n", r"no column 'path'.*--columns path="),
        ("path,logit\na,2\n", r"no column 'label'"),
        ("path,label\na,1\n", "neither 'logit' nor 'probability'"),
        ("path,label,logit\na,1,1\nb,1,high\n", r"row 2 \('b'\): logit is no finite number"),
        ("path,label,logit\na,1,inf\n", "row 1"),
        ("path,label,logit\na,1,\n", "row 1"),
        ("path,label,probability\na,1,0.5\nb,0,1.2\n", r"row 2 .*outside 0 to 1"),
        ("path,label,logit\na,maybe,1\n", "'maybe' is unknown"),
        ("path,label,logit\na,1,1\na,1,2\n", "row 2 .*listed twice"),
    ],
)
def test_every_fault_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_predictions(written(tmp_path, text), [])


@pytest.mark.parametrize(
    ("names", "message"),
    [(["label"], "pairs"), (["=x"], "pairs"), (["label=truth"], "no column 'truth'")],
)
def test_faults_in_the_names_are_named(tmp_path: Path, names: list[str], message: str) -> None:
    path = written(tmp_path, "path,label,logit\na,1,1\n")
    with pytest.raises(UserError, match=message):
        read_predictions(path, names)


def test_no_file_and_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no file"):
        read_predictions(tmp_path / "none.csv", [])
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(written(tmp_path, "nonsense", "x.parquet"), [])
