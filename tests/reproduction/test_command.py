"""Tests of `synthdetect reproduce`: reruns are equal bit for bit, or the reason is named."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image

from synthdetect.cli import main
from synthdetect.detectors.detector import Detector
from tests.conftest import artifact

TINY = ["--arch=mobilenet_v3_large", "--image-size=32", "--batch-size=16", "--weights=none",
        "--lr=1e-3", "--epochs=1", "--threshold-rule=f1"]  # fmt: skip
"""With this rule, scores that hardly differ are not all called real, and precision is defined."""


def runs(**tags: str) -> list[Run]:
    query = " and ".join(f"tags.`{k.replace('__', '.')}` = '{v}'" for k, v in tags.items())
    return list(mlflow.search_runs(filter_string=query, output_format="list"))


def reproduced(run: Run) -> Run:
    """Return the newest rerun of a run."""
    return runs(synthdetect__reproduces=run.info.run_id)[0]


@pytest.fixture(scope="module")
def workspace(
    module_path: Path, small_table: pd.DataFrame, without_figures: None
) -> Iterator[Path]:
    """A working folder with some images and their manifest, whose paths are relative to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_path)
        uri = f"sqlite:///{module_path}/mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        patch.setenv("SYNTHDETECT_CACHE", str(module_path / "cache"))
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        table = small_table[small_table["split"].isin(["train", "val", "test"])]
        table = table.groupby("split", group_keys=False).sample(24, random_state=0)
        Path("data").mkdir()
        names = [f"{number}.jpg" for number in range(len(table))]
        for name, path in zip(names, table["path"], strict=True):
            shutil.copy(path, Path("data") / name)
        table.assign(path=names).to_csv("data/table.csv", index=False)
        yield module_path


@pytest.fixture(scope="module")
def recorded(workspace: Path) -> Run:
    """A training."""
    assert main(["train", "--data=data/table.csv", *TINY]) == 0
    (run,) = runs(synthdetect__kind="train")
    return run


def test_a_training_is_reproduced_bit_for_bit_wherever_its_data_are(
    recorded: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = MlflowClient().get_run(recorded.info.run_id).to_dictionary()
    shutil.copytree("data", "moved")
    for number, file in enumerate(sorted(Path("moved").glob("*.jpg"))):
        file.rename(file.with_name(f"other_{number:02}.jpg"))
    names = {old: f"other_{n:02}.jpg" for n, old in enumerate(
        sorted(file.name for file in Path("data").glob("*.jpg")))}  # fmt: skip
    table = pd.read_csv("moved/table.csv", keep_default_na=False)
    table.replace({"path": names})[::-1].to_csv("moved/table.csv", index=False)

    assert main(["reproduce", recorded.info.run_id, "--data", "moved/table.csv"]) == 0
    output = capsys.readouterr().out
    assert "data         as recorded, image by image" in output
    assert "reproduced bit for bit" in output
    assert MlflowClient().get_run(recorded.info.run_id).to_dictionary() == before
    rerun = reproduced(recorded)
    assert rerun.info.status == "FINISHED"
    assert rerun.data.tags["synthdetect.kind"] == "reproduce"
    assert rerun.data.tags["synthdetect.reproduced"] == "reproduced bit for bit"
    assert rerun.data.metrics["reproduced/weights/values"] > 4e6
    assert rerun.data.metrics["reproduced/weights/differing"] == 0
    compared = artifact(rerun, "reproduction/compared.csv")
    assert {"weights", "epochs", "choices", "results", "predictions"} == set(compared["part"])
    assert {"train/loss", "val/auc", "test/auc", "decision/temperature"} <= set(compared["name"])
    logits = compared[compared["part"] == "predictions"].set_index("name")
    assert logits.loc["predictions/test.csv raw_logit", "values"] == 24
    settings = artifact(rerun, "reproduction/settings.csv")["setting"].tolist()
    assert set(settings) <= {"data.data", "git.dirty"}
    page = mlflow.artifacts.load_text(f"{rerun.info.artifact_uri}/report.html")
    assert "Reproduction of a run" in page
    assert "reproduced bit for bit" in page


def altered(table: pd.DataFrame) -> pd.DataFrame:
    with Image.open("data/0.jpg") as image:
        image.rotate(90).save("data/0.jpg")
    return table


def unlinked(table: pd.DataFrame) -> pd.DataFrame:
    Path("data/0.jpg").unlink()
    return table


def with_other_label(table: pd.DataFrame) -> pd.DataFrame:
    other = {"real": "synthetic", "synthetic": "real"}
    return table.assign(label=[other[table["label"][0]], *table["label"][1:]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (altered, "1 altered"),
        (unlinked, "1 removed"),
        (lambda table: table.drop(index=[3, 4]), "2 removed"),
        (with_other_label, "1 other label"),
        (lambda table: table.replace({"split": {"test": "more"}}), "24 other split"),
        (lambda table: table.assign(source_id=table["source_id"] + "x"), "72 other source"),
    ],
    ids=["altered", "unlinked", "dropped", "label", "split", "source"],
)
def test_changed_data_stop_a_rerun_before_it_trains(
    recorded: Run,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    said: str,
) -> None:
    shutil.copytree("data", "kept")
    count = len(runs())
    try:
        table = change(pd.read_csv("data/table.csv", keep_default_na=False))
        table.to_csv("data/table.csv", index=False)
        assert main(["reproduce", recorded.info.run_id]) == 2
    finally:
        shutil.rmtree("data")
        shutil.move("kept", "data")
    shown = capsys.readouterr()
    assert f"have changed: {said}" in shown.err
    assert "--on-changed-data train" in shown.err
    assert f"{said.partition(' ')[2]}: " in shown.out  # with the names of some
    assert len(runs()) == count


def test_one_bit_of_a_weight_and_another_version_are_found(
    recorded: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recorded model differs in one bit, as after a training on another machine."""
    (model,) = MlflowClient().search_logged_models(
        ["0"], filter_string=f"source_run_id = '{recorded.info.run_id}'"
    )
    folder = Path(mlflow.artifacts.download_artifacts(model.model_uri))
    (file,) = folder.rglob("*.safetensors")
    detector = Detector.load(file)
    digest = Detector.load(file).card.weights_sha256
    name = "backbone.classifier.0.weight"
    tensor = detector.network.get_parameter(name)
    tensor.detach().numpy().view(np.uint32).reshape(-1)[0] ^= 1
    whole, described = file.read_bytes(), (folder / "MLmodel").read_text()
    detector.save(file)
    other = described.replace(digest, Detector.load(file).card.weights_sha256)
    (folder / "MLmodel").write_text(other)  # which would be another, had it been logged so
    try:
        with sqlite3.connect("mlflow.db") as store:
            for key, value in (("version.torch", "1.13.0"), ("hardware.nondeterministic", "put_")):
                store.execute("update params set value = ? where key = ?", (value, key))
        assert main(["reproduce", "--run-id", recorded.info.run_id]) == 1
    finally:
        file.write_bytes(whole)
        (folder / "MLmodel").write_text(described)
    shown = capsys.readouterr()
    assert "version.torch: recorded 1.13.0, now " in shown.out
    assert "may change every number" in shown.out
    assert "1 of 4," in shown.err
    assert "version.torch (recorded 1.13.0, now" in shown.err
    assert "operators without a deterministic form (put_)" in shown.err
    rerun = reproduced(recorded)
    assert rerun.info.status == "FINISHED"  # it was trained and compared; the verdict is a result
    assert rerun.data.tags["synthdetect.reproduced"] == "not reproduced"
    compared = artifact(rerun, "reproduction/compared.csv")
    (row,) = compared[compared["differing"] > 0].to_dict(orient="records")
    assert (row["part"], row["name"], row["at"], row["differing"]) == ("weights", name, 0, 1)
    assert 0 < row["greatest"] < 1e-6
    assert name in rerun.data.tags["mlflow.note.content"]


def test_another_seed_and_other_data_are_reported_and_may_be_tolerated(
    recorded: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recorded options were changed; the parameters, which never change, show it."""
    file = Path(recorded.info.artifact_uri.removeprefix("file://")) / "config.json"
    record = json.loads(file.read_text())
    kept = file.read_text()
    shutil.copytree("data", "changed")
    table = pd.read_csv("changed/table.csv", keep_default_na=False)
    table[table["path"] != "0.jpg"].to_csv("changed/table.csv", index=False)
    file.write_text(json.dumps(record | {"options": record["options"] | {"seed": 8}}))
    try:
        given = ["--data=changed/table.csv", "--on-changed-data=train", "--tolerance=1e6"]
        assert main(["reproduce", recorded.info.run_id, *given]) == 0
    finally:
        file.write_text(kept)
    output = capsys.readouterr().out
    assert "optim.seed: recorded 42, now 8; may change every number" in output
    assert "the data (1 removed); optim.seed (recorded 42, now 8)" in output
    assert "reproduced within 1e+06" in output
    rerun = reproduced(recorded)
    assert rerun.data.params["optim.seed"] == "8"
    assert rerun.data.metrics["reproduced/weights/differing"] > 1e5
    assert artifact(rerun, "reproduction/data.csv")["path"].tolist() == ["0.jpg"]


NEWER = ("front_end", "schedule", "warmup_epochs", "decay_norms", "clip_norm", "accumulate",
         "balance", "pos_weight")  # fmt: skip
"""Options that older versions did not have."""


def test_the_record_of_an_older_version_is_reproduced(recorded: Run) -> None:
    """It lacks newer options and has `threshold_rule` under an older name."""
    file = Path(recorded.info.artifact_uri.removeprefix("file://")) / "config.json"
    kept = file.read_text()
    record = json.loads(kept)
    old = {name: value for name, value in record["options"].items() if name not in NEWER}
    old["threshold"] = old.pop("threshold_rule")
    file.write_text(json.dumps(record | {"options": old}))
    try:
        assert main(["reproduce", recorded.info.run_id]) == 0
    finally:
        file.write_text(kept)
    rerun = reproduced(recorded)
    assert rerun.data.tags["synthdetect.reproduced"] == "reproduced bit for bit"
    assert rerun.data.params["decision.threshold_rule"] == old["threshold"]


def test_a_cross_validation_and_each_of_its_trainings_are_reproduced(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv("data/table.csv", keep_default_na=False)
    table[table["split"] != "test"].to_csv("data/labelled.csv", index=False)
    given = ["--data=data/labelled.csv", "--folds=2", "--refit=true", *TINY]
    assert main(["cv", *given]) == 0
    (parent,) = runs(synthdetect__kind="cv")
    inside = {
        run.data.tags["synthdetect.fold"]: run
        for run in runs(**{"mlflow__parentRunId": parent.info.run_id})
    }
    every = {"1", "2", "refit"}
    for run, parts in ((parent, every), (inside["2"], set()), (inside["refit"], set())):
        capsys.readouterr()
        assert main(["reproduce", run.info.run_id]) == 0, capsys.readouterr().err
        assert "reproduced bit for bit" in capsys.readouterr().out
        compared = artifact(reproduced(run), "reproduction/compared.csv")
        assert set(compared["training"].dropna().astype(str)) == parts
        assert not compared["differing"].any()
        assert (compared["part"] == "weights").sum() == max(1, len(parts)) * 312
    compared = artifact(reproduced(parent), "reproduction/compared.csv")
    pooled = compared[compared["training"].isna()]
    assert {"predictions/oof.csv logit", "oof/auc", "cv/auc/mean"} <= set(pooled["name"])


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda run: [], "--run-id: give the run"),
        (lambda run: ["0123"], "no run '0123'"),
        (lambda run: [run("evaluate")], "kind 'evaluate'"),
        (lambda run: [run("train", "FAILED")], "is FAILED, so there is no result"),
        (lambda run: [run("train")], "has no model any more"),
    ],
)
def test_a_run_that_cannot_be_rerun_is_refused(
    workspace: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Callable[..., str]], list[str]],
    message: str,
) -> None:
    def run(kind: str, status: str = "FINISHED") -> str:
        made = MlflowClient().create_run("0", tags={"synthdetect.kind": kind})
        MlflowClient().set_terminated(made.info.run_id, status)
        return str(made.info.run_id)

    assert main(["reproduce", *prepare(run)]) == 2
    assert message in capsys.readouterr().err
