"""`synthdetect audit`, and the audit at the start of a training."""

from pathlib import Path

import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image

from synthdetect.cli import main
from tests.conftest import artifact

pytestmark = pytest.mark.usefixtures("without_figures")
TINY = ["--arch=mobilenet_v3_large", "--image-size=32", "--weights=none", "--epochs=1",
        "--device=cpu", "--keep-last=false"]  # fmt: skip


@pytest.fixture
def leaky(small_manifest: Path, tmp_path: Path) -> Path:
    """A manifest with synthetic images as PNG of another size, and a photograph in two splits."""
    table = pd.read_csv(small_manifest, keep_default_na=False)
    for row in table[table["label"] == "synthetic"].itertuples():
        path = tmp_path / f"{row.Index}.png"
        Image.open(row.path).resize((128, 128)).save(path)
        table.loc[row.Index, "path"] = str(path)
    row = table[(table["label"] == "real") & (table["split"] == "train")].iloc[0].to_dict()
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(Path(row["path"]).read_bytes())
    table.loc[len(table)] = row | {"path": str(copy), "split": "test"}
    path = tmp_path / "leaky.csv"
    table.to_csv(path, index=False)
    return path


def only_run() -> Run:
    (run,) = MlflowClient().search_runs(["0"])
    return run


def test_planted_leaks_are_named_in_the_run_and_on_the_console(
    workspace: Path, leaky: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = workspace / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 cut short")
    with leaky.open("a") as file:
        file.write(f"{bad},real,train,,,\n")
    assert main(["audit", f"--data={leaky}"]) == 0
    run = only_run()
    assert run.info.status == "FINISHED"
    names = set(run.data.tags["synthdetect.audit"].split(","))
    assert {"format_leak", "size_leak", "metadata_baseline", "duplicate_across_splits",
            "source_across_splits", "unreadable"} <= names  # fmt: skip
    assert run.data.tags["synthdetect.kind"] == "audit"
    page = MlflowClient().download_artifacts(run.info.run_id, "report.html")
    assert "source_across_splits" in Path(page).read_text()
    assert run.data.metrics["audit/metadata_auc"] > 0.9
    findings = artifact(run, "audit/findings.csv")
    assert run.data.metrics["audit/warnings"] == (findings["severity"] == "warning").sum()
    assert set(findings.loc[findings["severity"] == "warning", "name"]) == names
    assert artifact(run, "audit/unreadable.csv")["path"].tolist() == [str(bad)]
    assert set(artifact(run, "audit/format.csv")["value"]) == {"JPEG", "PNG"}
    pairs = artifact(run, "audit/duplicates.csv")
    assert "copy.jpg" in " ".join(pairs.loc[pairs["kind"] == "exact", "path_2"])
    assert run.inputs.dataset_inputs
    items = MlflowClient().list_artifacts(run.info.run_id, "figures/audit")
    drawn = {Path(item.path).stem for item in items}
    assert {"format", "size", "jpeg_quality", "aspect", "mode", "exif", "baseline"} <= drawn
    output = capsys.readouterr().out
    assert all(name in output for name in names)
    assert "WARNING" in output


def test_strict_fails_on_warnings_that_a_supplement_causes(
    workspace: Path, small_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(small_manifest, keep_default_na=False)
    extra = tmp_path / "extra.csv"
    table[table["split"] == "test"].to_csv(extra, index=False)
    options = [f"--supplement={extra}", "--near-duplicates=false", "--strict=true"]
    assert main(["audit", f"--data={small_manifest}", *options]) == 2
    assert "source_across_splits, duplicate_across_splits" in capsys.readouterr().err
    assert only_run().info.status == "FAILED"
    assert (
        only_run().data.tags["synthdetect.audit"] == "source_across_splits,duplicate_across_splits"
    )


def test_clean_data_without_splits_pass_strict(workspace: Path, small_manifest: Path) -> None:
    table = pd.read_csv(small_manifest, keep_default_na=False)
    table["split"] = table["split"].where(table["split"] == "control", "")
    table.to_csv(small_manifest, index=False)
    assert main(["audit", f"--data={small_manifest}", "--strict=true"]) == 0
    assert only_run().data.tags["synthdetect.audit"] == "clean"
    assert only_run().data.metrics["audit/warnings"] == 0
    names = {i.dataset.name for i in only_run().inputs.dataset_inputs}
    assert names == {"small.csv-control", "small.csv-unsplit"}


def test_a_training_warns_at_its_start_and_its_detector_equalises(
    workspace: Path, leaky: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(leaky, keep_default_na=False)
    table.iloc[:-1].to_csv(leaky, index=False)  # without the copy, on which training is refused
    assert main(["train", f"--data={leaky}", *TINY, "--equalise=true"]) == 0
    run = only_run()
    assert set(run.data.tags["synthdetect.audit"].split(",")) >= {"size_leak", "metadata_baseline"}
    assert run.data.metrics["audit/metadata_auc"] > 0.9
    assert len(artifact(run, "audit/findings.csv"))
    assert set(artifact(run, "audit/format.csv")["value"]) == {"JPEG"}
    card = MlflowClient().download_artifacts(run.info.run_id, "model/card.json")
    assert '"equalise_quality": 75' in Path(card).read_text()
    output = capsys.readouterr().out
    assert output.index("WARNING metadata_baseline") < output.index("epoch   1/1")


def test_a_training_warns_of_a_near_copy_across_given_splits(
    workspace: Path, small_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(small_manifest, keep_default_na=False)
    row = table[(table["label"] == "real") & (table["split"] == "train")].iloc[0].to_dict()
    copy = tmp_path / "copy.jpg"
    image = Image.open(row["path"])
    image.resize((image.width - 8, image.height - 8)).save(copy, quality=80)
    table.loc[len(table)] = row | {"path": str(copy), "split": "test", "source_id": "elsewhere"}
    table.to_csv(small_manifest, index=False)
    assert main(["train", f"--data={small_manifest}", *TINY]) == 0
    run = only_run()
    assert "near_duplicate_across_splits" in run.data.tags["synthdetect.audit"].split(",")
    pairs = artifact(run, "audit/duplicates.csv")
    assert (row["path"], str(copy)) in set(zip(pairs["path_1"], pairs["path_2"], strict=True))
    output = capsys.readouterr().out
    assert output.index("WARNING near_duplicate_across_splits") < output.index("epoch   1/1")
    assert str(copy) in output.replace("\n", "")
