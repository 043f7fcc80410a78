"""Run files that are written read back exactly, and bad input is refused."""

import csv
import io
import math
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synthdetect.submission.checking import check_submission
from synthdetect.submission.format import COLUMNS, EDITIONS
from synthdetect.submission.writing import write_submission
from synthdetect.system.errors import UserError
from tests.submission.conftest import IDS, PROBS


def frame(ids: list[str] = IDS, probs: object = PROBS) -> pd.DataFrame:
    return pd.DataFrame({"image_id": ids, "prob": probs})


def written_rows(path: Path) -> list[list[str]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            (name,) = archive.namelist()
            assert name == f"{path.stem}.csv"
            text = archive.read(name).decode()
    else:
        text = path.read_bytes().decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def write(predictions: pd.DataFrame, folder: Path, **changes: object) -> Path:
    options = {"team": "my-team1", "run": "open", "edition": "2026", "threshold": 0.5} | changes
    return write_submission(predictions, folder, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("run", ["constrained", "open"])
@pytest.mark.parametrize("edition", EDITIONS)
def test_round_trip(edition: str, run: str, tmp_path: Path) -> None:
    ids = ['a,"b".jpg', "é ü.PNG", *reversed(IDS)]
    probs = [0.65, math.nextafter(0.65, 0), *PROBS]
    path = write(
        frame(ids, probs), tmp_path / "new" / "folder", run=run, edition=edition, threshold=0.65
    )

    assert path == tmp_path / "new" / "folder" / f"my-team1_{run}{EDITIONS[edition].suffix}"
    header, *rows = written_rows(path)
    assert tuple(header) == COLUMNS
    assert [row[0] for row in rows] == ids
    assert [float(row[1]) for row in rows] == probs
    assert [row[2] for row in rows] == [str(int(prob >= 0.65)) for prob in probs]
    assert {row[3] for row in rows} == {"0.65"}
    assert check_submission(path, image_ids=ids, edition=edition) == []
    assert list(path.parent.iterdir()) == [path]


def test_any_float64_reads_back_exactly(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    tiny = [5e-324, 1e-300, 2**-1074 * 3, 0.1 + 0.2, 1 - 2**-53, 0.0, 1.0]
    probs = np.concatenate([chance.random(993), tiny])
    path = write(frame([f"{i}.jpg" for i in range(1000)], probs), tmp_path)
    assert np.array([float(row[1]) for row in written_rows(path)[1:]]).tobytes() == probs.tobytes()


def test_float32_is_compared_as_it_is_written(tmp_path: Path) -> None:
    probs = np.linspace(0.05, 0.95, 10, dtype=np.float32)
    probs[0] = np.float32(0.65)  # 0.6499999761581421: not 0.65, and below it
    rows = written_rows(write(frame(probs=probs), tmp_path, threshold=np.float64(0.65)))
    assert rows[1] == ["image_0.jpg", "0.6499999761581421", "0", "0.65"]


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_same_input_gives_the_same_bytes(edition: str, tmp_path: Path) -> None:
    first = write(frame(), tmp_path / "a", edition=edition).read_bytes()
    second = write(frame(), tmp_path / "b", edition=edition).read_bytes()
    assert first == second
    if edition == "2025":
        with zipfile.ZipFile(io.BytesIO(first)) as archive:
            assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"team": "my_team"}, "--team: 'my_team'"),
        ({"team": ""}, "--team: ''"),
        ({"team": "../x"}, "--team: '../x'"),
        ({"team": "x\n"}, r"--team: 'x\n'"),
        ({"run": "Open"}, "--submission: 'Open'"),
        ({"edition": "2024"}, "--edition: '2024'"),
        ({"threshold": 1.5}, "threshold: 1.5"),
        ({"threshold": float("nan")}, "threshold: nan"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        write(frame(), tmp_path, **changes)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (frame(probs=[*PROBS[:-1], math.nan]), "line 11 ('image_9.jpg': 'nan')"),
        (frame(probs=[*PROBS[:-1], None]), "line 11 ('image_9.jpg': 'nan')"),
        (frame(probs=[-math.inf, *PROBS[1:]]), "line 2 ('image_0.jpg': '-inf')"),
        (frame(probs=[1.5, *PROBS[1:]]), "line 2 ('image_0.jpg': '1.5')"),
        (frame(probs=["0.5"] * 10), "numbers"),
        (frame([*IDS[:-1], IDS[0]]), "line 11 ('image_0.jpg': first on line 2)"),
        (frame([*IDS[:-1], "9"]), "line 11 ('9')"),
        (frame([*IDS[:-1], "a/9.jpg"]), "line 11 ('a/9.jpg')"),
        (frame([*IDS[:-1], "a\n9.jpg"]), r"('a\n9.jpg')"),
        (
            pd.DataFrame({"image_id": pd.Series(["\udc80.jpg"], dtype=object), "prob": [0.5]}),
            "UTF-8",
        ),
        (pd.DataFrame({"image_id": [1], "prob": [0.5]}), "row 0: image_id 1"),
        (frame([], np.array([], dtype=float)), "no predictions"),
        (frame().drop(columns="prob"), "column named prob"),
    ],
)
def test_bad_predictions_are_refused_and_an_earlier_file_stays(
    predictions: pd.DataFrame, message: str, tmp_path: Path
) -> None:
    before = write(frame(), tmp_path)
    content = before.read_bytes()
    with pytest.raises(UserError, match=re.escape(message)):
        write(predictions, tmp_path)
    assert list(tmp_path.iterdir()) == [before]
    assert before.read_bytes() == content


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"my-team1_open\.csv"):
        write(frame(), tmp_path / "file")
