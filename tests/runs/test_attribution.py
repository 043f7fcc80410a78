"""Test that a detector attributes images alike in training, evaluation, prediction and serving."""

import base64
import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from synthdetect.cli import main
from synthdetect.detectors.detector import Detector
from synthdetect.serving.model import ServedDetector
from synthdetect.tracking.detectors import find_detector
from tests.conftest import artifact, newest

TINY = ["--arch=resnet18_layer2", "--front-end=npr", "--image-size=96", "--batch-size=8",
        "--epochs=8", "--lr=2e-3", "--weights=none", "--device=cpu", "--geometry=center_crop",
        "--views=flip", "--jitter=0", "--blur=0"]  # fmt: skip
KNOWN = ("realesr_animevideov3", "realesrgan_x4plus")


def test_the_answers_are_the_same_everywhere(
    workspace: Path,
    small_manifest: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", f"--data={small_manifest}", *TINY, "--attribution=1"]) == 0
    trained = newest("train")
    wanted = artifact(trained, "predictions/test.csv")
    named = set(wanted["attributed"])
    assert named <= {"real", "unknown", *KNOWN}
    assert "real" in named
    assert named & set(KNOWN)
    assert ((wanted["attributed"] == "real") == (wanted["predicted"] == 0)).all()
    counts = artifact(trained, "evaluation/test_attribution.csv").set_index("images_of")
    assert counts["in_training"].to_dict().items() >= {KNOWN[0]: "yes", "realsr_df2k": "no"}.items()
    answers = [name for name in counts if name.startswith("as_")]
    assert counts[answers].sum(axis=1).tolist() == counts["images"].tolist()
    measured = artifact(trained, "evaluation/test_attribution_metrics.csv").set_index("metric")
    for name in ("accuracy", "unknown_recall"):
        assert trained.data.metrics[f"test/attribution/{name}"] == measured.loc[name, "value"]
    val = artifact(trained, "predictions/val.csv")
    known = val[val["generator"].isin(KNOWN)]
    assert (known["attributed"] == "unknown").mean() <= 0.05
    assert "Attribution on test" in trained.data.tags["mlflow.note.content"]

    assert main(["report", trained.info.run_id, "--output=page.html"]) == 0
    page = Path("page.html").read_text()
    assert "test: number of each answer to the images of each generator" in page
    assert "share of the images of known generators whose generator is named" in page

    detector = find_detector((trained.info.run_id,)).detector
    assert detector.card.model.generators == KNOWN
    detector.save(Path("detector.safetensors"))
    assert Detector.load(Path("detector.safetensors")).card.attribution == detector.card.attribution

    options = ["--explain=0", "--spectra=false"]
    pd.read_csv(small_manifest).query("split in ('val', 'test')").to_csv("two.csv", index=False)
    for decide in ("auto", "val"):
        given = ["--model=detector.safetensors", "--data=two.csv", f"--decide={decide}"]
        assert main(["evaluate", *given, *options]) == 0
        again = artifact(newest("evaluate"), "predictions/test.csv")
        np.testing.assert_array_equal(again["attributed"], wanted["attributed"])
    assert "Attribution on test: number of each answer" in capsys.readouterr().out

    wanted[["path"]].to_csv("test.csv", index=False)
    several = f"detector.safetensors,{trained.info.run_id}"
    for models, column in (("detector.safetensors", "attributed"), (several, "attributed_2")):
        assert main(["predict", f"--model={models}", "--data=test.csv", "--batch-size=3"]) == 0
        table = pd.read_csv("predictions/predictions.csv").set_index("image").loc[wanted["path"]]
        assert table[column].tolist() == wanted["attributed"].tolist()
    assert "attributed" not in table

    contents = [Path(path).read_bytes() for path in wanted["path"]]
    request = pd.DataFrame({"image": [base64.b64encode(c).decode() for c in contents]})
    model = trained.outputs.model_outputs[0].model_id if trained.outputs else ""
    logged = mlflow.pyfunc.load_model(f"models:/{model}")
    assert logged.metadata.signature.outputs.input_names()[-1] == "attributed"
    served = ServedDetector(Detector.load(Path("detector.safetensors"))).predict(None, request)
    for answered in (logged.predict(request), served):
        assert answered["attributed"].tolist() == wanted["attributed"].tolist()

    options = ["--engine=onnxruntime", "--precision=fp32", "--output=engine"]
    assert main(["export", f"--model={trained.info.run_id}", *options]) == 0
    assert "the attribution to generators is not exported" in capsys.readouterr().out
    (file,) = Path("engine").glob("*.onnx")
    assert json.loads(file.with_suffix(".parity.json").read_text())["logit_change_max"] < 1e-3
    assert main(["predict", f"--model={file}", "--data=test.csv"]) == 0
    assert "attributed" not in pd.read_csv("predictions/predictions.csv")


def test_a_refit_takes_the_medians_of_its_folds(workspace: Path, small_manifest: Path) -> None:
    options = ["--attribution=1", "--folds=2", "--refit=true", "--epochs=1"]
    assert main(["cv", f"--data={small_manifest}", *TINY, *options]) == 0
    chosen = [
        find_detector((run.info.run_id,)).detector.card.attribution
        for run in mlflow.search_runs(
            filter_string="tags.`synthdetect.kind` = 'fold'", output_format="list"
        )
    ]
    refit = find_detector((newest("refit").info.run_id,)).detector.card.attribution
    assert refit is not None
    thresholds = [attribution.threshold for attribution in chosen if attribution]
    assert len(set(thresholds)) == 2
    assert refit.threshold == pytest.approx(np.median(thresholds))


def test_data_of_one_generator_are_refused_before_a_run_is_opened(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.read_csv(small_manifest).query(f"generator != '{KNOWN[0]}'").to_csv("one.csv", index=False)
    for command in ("train", "cv"):
        assert main([command, "--data=one.csv", *TINY, "--attribution=1"]) == 2
        assert "two generators or more" in capsys.readouterr().err
    assert mlflow.search_runs(output_format="list") == []
