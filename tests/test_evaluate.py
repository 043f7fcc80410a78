"""`synthdetect evaluate`: of a table and of a detector; test images decide nothing."""

from pathlib import Path

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from mlflow.entities import Run

from synthdetect.cli import main
from synthdetect.evaluation.metrics import choose_threshold, metrics

SMALL = ["--arch", "mobilenet_v3_large", "--image-size", "32", "--epochs", "1", "--weights", "none",
         "--batch-size", "16", "--lr", "1e-3"]  # fmt: skip


def newest() -> Run:
    return mlflow.search_runs(output_format="list", search_all_experiments=True)[0]


def artifact(run: Run, path: str) -> pd.DataFrame:
    return pd.read_csv(mlflow.artifacts.download_artifacts(run_id=run.info.run_id,
                                                           artifact_path=path))  # fmt: skip


def write_table(path: Path, **changes: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Forty rows each of val and test, scores a little off."""
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], 40)
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(80)],
            "label": label,
            "split": np.repeat(["val", "test"], 40),
            "generator": np.where(label == 1, "sd", ""),
            "logit": 4 * rng.normal(size=80) + 3 * label + 1,
        }
    ).assign(**changes)
    table.to_csv(path, index=False)
    return table


def test_a_table_is_decided_on_its_val_rows_and_reported_on_the_others(workspace: Path) -> None:
    table = write_table(workspace / "table.csv")
    assert main(["evaluate", "--predictions", "table.csv"]) == 0
    run = newest()
    assert (run.info.status, run.data.tags["synthdetect.kind"]) == ("FINISHED", "evaluate")
    logged = run.data.metrics
    test = table[table["split"] == "test"]
    calibrated = test["logit"] / logged["decision/temperature"]
    expected = metrics(test["label"], calibrated, logged["decision/threshold"])
    for name, value in expected.items():
        assert logged[f"test/{name}"] == pytest.approx(value)
    best = choose_threshold(test["label"], calibrated, "balanced_accuracy")
    assert logged["test/oracle/threshold"] == pytest.approx(best)
    assert logged["test/oracle/balanced_accuracy"] >= logged["test/balanced_accuracy"]
    assert run.data.params["decision.from"] == "chosen on the val rows given here"
    written = pd.read_csv(workspace / "evaluation" / "predictions" / "test.csv")
    assert written["raw_logit"].to_numpy() == pytest.approx(test["logit"].to_numpy())


@pytest.mark.parametrize("calibration", ["temperature", "platt", "isotonic"])
def test_test_rows_decide_nothing(workspace: Path, calibration: str) -> None:
    """Turn all test labels round and move all test scores: threshold and calibration stay."""

    def decision(**changes: npt.NDArray[np.int64]) -> dict[str, float]:
        write_table(workspace / "table.csv", **changes)
        given = ["--predictions", "table.csv", "--calibration", calibration, "--decide", "val"]
        assert main(["evaluate", *given]) == 0
        return {k: v for k, v in newest().data.metrics.items() if k.startswith("decision/")}

    table = write_table(workspace / "table.csv")
    is_test = (table["split"] == "test").to_numpy()
    before = decision()
    turned = np.where(is_test, 1 - table["label"], table["label"])
    moved = np.where(is_test, -5 * table["logit"] + 7, table["logit"])
    assert decision(label=turned, logit=moved) == before
    assert decision(label=np.where(is_test, table["label"], 1 - table["label"])) != before


def test_the_detectors_own_decision_comes_from_val_alone(
    workspace: Path, small_table: pd.DataFrame
) -> None:
    """Train twice; the second time every test image has the other label."""
    names = {"real": "synthetic", "synthetic": "real"}

    def decision(table: pd.DataFrame) -> dict[str, float]:
        table.to_csv("small.csv", index=False)
        assert main(["train", "--data", "small.csv", *SMALL]) == 0
        logged = newest().data.metrics
        return {k: v for k, v in logged.items() if k.startswith(("decision/", "best/"))}

    turned = small_table.copy()
    is_test = turned["split"] == "test"
    turned.loc[is_test, "label"] = turned.loc[is_test, "label"].map(names)
    assert decision(small_table) == decision(turned)


def test_a_detector_scores_as_it_did_when_trained(workspace: Path, small_manifest: Path) -> None:
    assert main(["train", "--data", str(small_manifest), *SMALL, "--unsure", "0.01"]) == 0
    trained = newest()
    given = ["--model", trained.info.run_id, "--data", str(small_manifest), "--splits", "test"]
    assert main(["evaluate", *given, "--slices", "category,format"]) == 0
    run = newest()
    was, found = (artifact(r, "predictions/test.csv") for r in (trained, run))
    assert found["logit"].to_numpy() == pytest.approx(was["logit"].to_numpy(), abs=1e-5)
    assert run.data.metrics["decision/threshold"] == trained.data.metrics["decision/threshold"]
    assert 0 <= run.data.metrics["test/unsure/share"] <= 1
    assert set(artifact(run, "evaluation/test_slices.csv")["slice"]) == {"category", "format"}
    facts = artifact(run, "evaluation/held_out.csv").set_index("fact")["value"]
    assert facts["contents shared with train"].startswith("0 of ")
    assert not (workspace / "evaluation" / "state.json").exists()

    # On what it was trained on, it says so.
    assert main(["evaluate", *given[:4], "--splits", "train"]) == 0
    facts = artifact(newest(), "evaluation/held_out.csv").set_index("fact")
    assert facts.loc["contents shared with train", "warning"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model: give one"),
        (["--model", "a,b", "--data", "sample"], "--model: give one"),
        (["--model", "x"], "--data: give"),
        (["--predictions", "t.csv", "--model", "x"], "needs no --model"),
        (["--model", "x", "--data", "sample", "--columns", "a=b"], "--columns"),
        (["--predictions", "none.csv"], "is no file"),
        (["--predictions", "t.csv", "--splits", "other"], "--splits: no other here"),
        (["--predictions", "t.csv", "--slices", "camera"], "--slices: no column 'camera'"),
        (["--predictions", "one.csv", "--decide", "val"], "--decide val"),
        (["--predictions", "two.csv"], "'threshold' holds 2 values"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    table = write_table(workspace / "t.csv")
    table.assign(split="test").to_csv("one.csv", index=False)
    table.assign(threshold=np.tile([0.1, 0.2], 40)).to_csv("two.csv", index=False)
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert mlflow.search_runs(output_format="list") == []


def test_a_tables_own_threshold_is_kept(workspace: Path) -> None:
    write_table(workspace / "t.csv").assign(threshold=0.7).to_csv("t.csv", index=False)
    assert main(["evaluate", "--predictions", "t.csv"]) == 0
    assert newest().data.metrics["decision/threshold"] == 0.7
    assert newest().data.params["decision.from"] == "as the table says"
