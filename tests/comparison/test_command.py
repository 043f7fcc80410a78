"""Tests of `synthdetect compare`: what it prints, logs and refuses."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.evaluation.paired import paired_auc
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import read_predictions
from tests.comparison.conftest import IMAGES, Made
from tests.conftest import newest

Capture = pytest.CaptureFixture[str]


def test_two_evaluations_are_compared_in_the_terminal_and_on_a_page(
    made: Made, capsys: Capture, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert main(["compare", made.of_bad[:12], made.of_good, "--output", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "B is better than A: AUC +" in printed
    assert re.search(r"optim.lr +│ 0.2 +│ 0.1", printed)
    assert "loss.loss" not in printed  # it is the same
    assert "Learning curves: validation AUC" in printed
    run = newest("compare")
    assert run.info.status == "FINISHED"
    assert run.data.tags["synthdetect.compared"] == f"{made.of_bad},{made.of_good}"
    logged = Path(MlflowClient().download_artifacts(run.info.run_id, "comparison.html"))
    html = logged.read_text()
    assert html == page.read_text()
    assert len(html) < 2_000_000
    assert html.count("data:image/webp;base64,") == 9  # and the curves
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "<script>1" not in html
    assert "&lt;script&gt;1" in html


def test_the_numbers_for_scripts_are_those_of_the_predictions(made: Made, capsys: Capture) -> None:
    given = ["compare", made.of_bad, made.of_good, "--images", "0", "--seed", "3", "--json"]
    capsys.readouterr()
    assert main(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["run_id"] for one in found["runs"]] == [made.of_bad, made.of_good]
    (split,) = found["splits"]
    assert split["images"] == IMAGES
    rows = pd.DataFrame(split["metrics"])
    auc = rows[(rows["part"] == "") & (rows["metric"] == "auc") & (rows["run"] == "B")].iloc[0]
    assert auc["value"] == pytest.approx(1)
    tables = [read_predictions(run, "predictions/test.csv") for run in (made.of_bad, made.of_good)]
    tables = [table.sort_values("path", ignore_index=True) for table in tables]
    pair = paired_auc(tables, seed=3)[0]
    assert auc["difference"] == pytest.approx(pair.difference)
    assert auc["difference_low"] < auc["difference"] < auc["difference_high"]
    answers = [dict(zip(t["path"], t["predicted"], strict=True)) for t in tables]
    differing = {path for path, answer in answers[0].items() if answers[1][path] != answer}
    assert {one["path"] for one in split["disagreements"]} == differing
    assert found["curves"]["A"]["val/auc"] == {"1": 0.6, "2": 0.7, "3": 0.8}


def external(path: str, paths: list[str], labels: list[int], scores: list[float]) -> str:
    """Evaluate a table, and return the id of the run."""
    table = pd.DataFrame({"path": paths, "label": labels, "probability": scores, "split": "test"})
    table.to_csv(path, index=False)
    assert main(["evaluate", "--predictions", path]) == 0
    return newest("evaluate").info.run_id


@pytest.fixture(scope="module")
def tables(made: Made) -> list[str]:
    """Evaluations of tables of images 0 to 9, of 4 to 13 with another label of 4, and of others."""
    labels, scores = [0, 1] * 5, [0.1, 0.9, 0.4, 0.6, 0.6, 0.7, 0.2, 0.3, 0.3, 0.8]
    names = [[f"{n}.png" for n in range(first, first + 10)] for first in (0, 4, 100)]
    other = [1, 1, *labels[2:]]
    return [
        external("a.csv", names[0], labels, scores),
        external("b.csv", names[1], other, scores[::-1]),
        external("c.csv", names[2], labels, scores),
    ]


def test_other_images_are_left_out_and_counted(tables: list[str], capsys: Capture) -> None:
    assert main(["compare", tables[0], tables[1], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (split,) = found["splits"]
    assert (split["images"], split["images_of_runs"], split["relabelled"]) == (5, [10, 10], 1)
    assert any("5 images that all runs have (A 10, B 10)" in note for note in found["notes"])
    assert any("1 images have other labels" in note for note in found["notes"])


def test_runs_without_a_common_image_are_told_what_to_do(
    tables: list[str], capsys: Capture
) -> None:
    assert main(["compare", tables[0], tables[2]]) == 0
    printed = capsys.readouterr().out
    assert "no image in common (A 10, B 10)" in printed
    assert "synthdetect evaluate" in printed
    assert "evaluate.predictions" in printed  # what can be compared is


def test_runs_without_predictions_or_from_elsewhere_are_told_why(
    made: Made, tables: list[str], capsys: Capture
) -> None:
    with open_run("of another version", kind="train", tags={}) as run:
        table = pd.DataFrame({"path": ["0.png"], "label": [1], "score": [0.5]})
        run.log_table(table, "predictions/test.csv")
    with open_run("broken", kind="train", tags={}) as broken:
        table = pd.DataFrame({"label": [1], "logit": ["nan"]})
        broken.log_table(table, "predictions/test.csv")
    unfinished = MlflowClient().create_run("0", run_name="going on").info.run_id
    assert main(["compare", tables[0], made.good, run.id, broken.id, unfinished]) == 0
    printed = capsys.readouterr().out
    assert "B: It has no predictions of labelled images." in printed
    assert "C: predictions/test.csv has no column logit, predicted" in printed
    assert "D: predictions/test.csv is no table of predictions: a logit is not" in printed
    assert "E: It is RUNNING and has no predictions yet" in printed


def test_a_registered_model_stands_for_its_run(made: Made, capsys: Capture) -> None:
    assert main(["compare", "models:/detector/2", made.of_bad, "--images", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["run_id"] for one in found["runs"]] == [made.good, made.of_bad]
    for uri in ("models:/detector@champion", f"models:/{model_of(made.bad)}"):
        assert main(["compare", uri, made.of_good, "--images", "0", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["runs"][0]["run_id"] == made.bad


def model_of(run_id: str) -> str:
    models = MlflowClient().search_logged_models(["0"], f"source_run_id = '{run_id}'")
    return str(models[0].model_id)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "give from two to 26 runs (got 1)"),
        (["{of_good}"], "are the same run"),
        (["{of_good:.8}"], "are the same run"),
        (["xyz%"], "is neither a run id"),
        (["0000dead"], "no run '0000dead'"),
        (["models:/detector/9"], "no model models:/detector/9"),
        (["models:/nothing@champion"], "no model models:/nothing@champion"),
        (["{of_bad}", "--splits=tset"], "Found: test"),
        (["{of_bad}", "--data=nowhere"], "--data: 'nowhere' is neither"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    made: Made, capsys: Capture, others: list[str], message: str
) -> None:
    capsys.readouterr()
    filled = [other.format(**made._asdict()) for other in others]
    assert main(["compare", made.of_good, *filled]) == 2
    assert message in capsys.readouterr().err
