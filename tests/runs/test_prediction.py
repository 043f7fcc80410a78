"""Tests of `synthdetect predict`: results, their order, and resuming after an interruption."""

import contextlib
import csv
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.special import expit, logit

from synthdetect import cli
from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.scoring import STATE, Scoring
from synthdetect.evaluation.calibration import Calibration
from synthdetect.evaluation.decision import Decision
from synthdetect.images.provenance import Provenance
from synthdetect.models.spec import ModelSpec
from synthdetect.submission.checking import check_submission
from synthdetect.submission.image_ids import image_ids_of
from synthdetect.system.errors import UserError
from synthdetect.tracking.detectors import find_detectors
from synthdetect.tracking.models import log_detector, register
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.tags import FOLD
from synthdetect.training.devices import Device
from tests.detectors.helpers import varied_network
from tests.images.videos import write_video

PROJECT = Path(cli.__file__).parents[1]
SIZE = 32
ALLOWED = {"weights": "imagenet", "supplement": "", "validation_images": 0}


class Stopped(Exception):
    pass


# --- a store, detectors and images


@pytest.fixture(scope="module")
def workspace(module_path: Path) -> Iterator[Path]:
    """A folder with a store of its own, in which everything here is run."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{module_path}/mlflow.db")
    here = Path.cwd()
    os.chdir(module_path)
    yield module_path
    os.chdir(here)
    mlflow.set_tracking_uri(before)


@dataclass(frozen=True)
class Saved:
    """A detector's file, and the detector as read from it."""

    path: str
    detector: Detector

    @property
    def threshold(self) -> float:
        return self.detector.card.decision.threshold


def picture(seed: int) -> bytes:
    """Return a PNG file of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE + 8, SIZE + 2, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def save(
    path: Path, seed: int, *, front_end: str = "rgb", unsure: float = 0.0,
    prior: float | None = None, **card: Any,
) -> Saved:  # fmt: skip
    """Make a detector whose scores of noise are on both sides of its threshold."""
    network = varied_network(ModelSpec.of("mobilenet_v3_large", SIZE, front_end), seed)
    decision = Decision(Calibration(slope=1 / (1 + seed)), unsure=unsure, prior=prior)
    given = {"geometry": "resize", "decision": decision, "provenance": ALLOWED, **card}
    detector = Detector(network, Card(model=network.spec, **given))
    seen = np.stack([detector.preprocess(picture(number)) for number in range(11)])
    threshold = float(np.median(detector.score(seen)))
    detector.card = replace(detector.card, decision=replace(decision, threshold=threshold))
    detector.save(path)
    return Saved(str(path), Detector.load(path))


@pytest.fixture(scope="module")
def detectors(workspace: Path) -> list[Saved]:
    """Two that see images alike, and one that crops them."""
    geometries = ["resize", "resize", "center_crop"]
    return [save(workspace / f"{n}.safetensors", n, geometry=g) for n, g in enumerate(geometries)]


@pytest.fixture(scope="module")
def images(workspace: Path) -> Path:
    """Eleven images in two folders."""
    for number in range(11):
        file = workspace / "images" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return workspace / "images"


@pytest.fixture
def broken(images: Path, tmp_path: Path) -> Path:
    """The same, one of them unreadable."""
    shutil.copytree(images, tmp_path / "broken")
    (tmp_path / "broken" / "a" / "4.png").write_text("no image")
    return tmp_path / "broken"


class Result(NamedTuple):
    status: int
    out: str
    err: str


Predict = Callable[..., Result]


@pytest.fixture
def predict(
    workspace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Predict]:
    """Run the command in this process, with the results in `tmp_path / "out"`."""
    handler = signal.getsignal(signal.SIGTERM)

    def call(models: list[Saved] | str, data: Path | str, **options: str) -> Result:
        named = models if isinstance(models, str) else ",".join(model.path for model in models)
        given = {"model": named, "data": str(data), "output": str(tmp_path / "out"), "workers": "0"}
        given |= options
        capfd.readouterr()
        status = cli.main(["predict", *(f"--{name}={value}" for name, value in given.items())])
        return Result(status, *capfd.readouterr())

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def read(folder: Path) -> pd.DataFrame:
    """The predictions, which both files hold alike."""
    table = pd.read_csv(folder / "predictions.csv", dtype={"label": "Int8"})
    for name in (name for name in table if name == "error" or name.startswith("metadata_")):
        table[name] = table[name].astype(object).fillna("")
    other = pd.read_parquet(folder / "predictions.parquet")
    for name in table:
        if name.startswith(("logit", "probability")):
            np.testing.assert_array_equal(table[name], other[name])
        else:
            assert table[name].isna().equals(other[name].isna())
            assert (table[name].dropna() == other[name].dropna()).all()
    assert list(table) == list(other)
    return table


def expected_logits(detector: Detector, files: list[Path]) -> Any:
    """What serving would say: each image by itself."""
    scores = [detector.score(np.stack([detector.preprocess(f.read_bytes())]))[0] for f in files]
    return logit(np.array(scores))


def last_run() -> MlflowRun:
    return MlflowClient().search_runs(["0"], "tags.`synthdetect.kind` = 'predict'")[0]


def artifacts(run: MlflowRun, folder: str) -> set[str]:
    found = MlflowClient().list_artifacts(run.info.run_id, folder)
    return {file.path.partition("/")[2] for file in found}


# --- one detector


def test_metadata_stand_beside_the_scores_and_do_not_change_them(
    predict: Predict, detectors: list[Saved], images: Path, out: Path, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "images")
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1")
    file = tmp_path / "images" / "a" / "0.png"
    Image.open(io.BytesIO(picture(0))).save(file, pnginfo=info)
    result = predict(detectors[:1], tmp_path / "images")
    assert result.status == 0
    table = read(out).set_index("image")
    assert table.loc["a/0.png", "metadata_generator"] == "Stable Diffusion web UI"
    assert table.loc["a/0.png", "metadata_says"] == "synthetic"
    assert (table["metadata_says"] != "").sum() == 1
    assert "1 image(s) are said to be synthetic (Stable Diffusion web UI 1)" in result.out
    metrics = last_run().data.metrics
    assert metrics["predict/metadata_synthetic"] == 1
    plain = predict(detectors[:1], images, metadata="false")
    assert plain.status == 0
    assert [name for name in read(out) if name.startswith("metadata_")] == []
    pd.testing.assert_series_equal(read(out).set_index("image")["logit"], table["logit"])


def test_a_video_is_scored_by_frames_with_a_verdict_for_the_clip(
    predict: Predict, detectors: list[Saved], out: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "a.mp4", frames=24)
    (folder / "b.webm").write_bytes(b"no video")
    (folder / "c.png").write_bytes(picture(3))
    result = predict(detectors[:1], folder, frames="4")
    assert result.status == 0
    table, clips = read(out), pd.read_csv(out / "clips.csv")
    assert len(table) == 4 + 1 + 1
    assert table["image"].str.startswith("a.mp4#").sum() == 4
    frames = table[table["image"].str.startswith("a.mp4#")]
    assert frames["error"].eq("").all()
    assert frames["logit"].nunique() > 1
    bad = table.set_index("image").loc["b.webm"]
    assert bad["error"] == "neither an MP4 nor a WebM video"
    (clip,) = clips.to_dict(orient="records")
    assert (clip["clip"], clip["frames"], clip["unreadable"]) == ("a.mp4", 4, 0)
    assert clip["logit"] == pytest.approx(frames["logit"].mean())
    assert clip["probability"] == pytest.approx(expit(clip["logit"]))
    assert clip["label"] == int(clip["probability"] >= detectors[0].threshold)
    assert clip["synthetic_share"] == pytest.approx(frames["label"].mean())
    assert "verdict" in result.out
    assert "clips.csv" in artifacts(last_run(), "predictions")
    single = predict(detectors[:1], folder / "a.mp4", frames="4")
    assert single.status == 0
    np.testing.assert_allclose(read(out)["logit"], frames["logit"], atol=1e-5)


def test_videos_without_their_package_are_refused_before_anything_is_scored(
    predict: Predict, detectors: list[Saved], out: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write_video(tmp_path / "a.mp4", frames=2)
    monkeypatch.setattr("synthdetect.system.extras.find_spec", lambda name: None)
    result = predict(detectors[:1], tmp_path / "a.mp4")
    assert result.status == 2
    assert 'pip install "synthdetect[video]"' in result.err
    assert not out.exists()


def test_the_predictions_are_the_detectors_scores_in_the_order_of_the_folder(
    predict: Predict, detectors: list[Saved], images: Path, out: Path
) -> None:
    result = predict(detectors[:1], images, batch_size="4")
    assert result.status == 0
    table = read(out)
    metadata = list(Provenance().columns())
    assert list(table) == ["image", "logit", "probability", "label", "error", *metadata]
    assert (table[metadata] == "").all(axis=None)
    assert table["image"].tolist() == sorted(f"{'ab'[n % 2]}/{n}.png" for n in range(11))
    expected = expected_logits(detectors[0].detector, [images / name for name in table["image"]])
    np.testing.assert_allclose(table["logit"], expected, atol=1e-5)
    np.testing.assert_array_equal(table["probability"], expit(table["logit"]))
    np.testing.assert_array_equal(table["label"], table["probability"] >= detectors[0].threshold)
    assert set(table["label"]) == {0, 1}
    assert sorted(os.listdir(out)) == ["models.json", "predictions.csv", "predictions.parquet"]
    listed = json.loads((out / "models.json").read_text())
    assert listed["threshold"] == detectors[0].threshold
    assert [m["number"] for m in listed["models"]] == [1]
    assert (
        listed["models"][0]["card"]["weights_sha256"] == detectors[0].detector.card.weights_sha256
    )
    for text in ("images/s", "11", str(out / "predictions.csv")):
        assert text in result.out


def test_the_run_records_the_command_and_has_the_results(
    predict: Predict, detectors: list[Saved], images: Path, out: Path
) -> None:
    assert predict(detectors[:1], images, views="single").status == 0
    run = last_run()
    assert run.info.status == "FINISHED"
    assert run.data.params["predict.views"] == "single"
    assert run.data.params["predict.model"] == detectors[0].path
    assert run.data.params["device.workers"] == "0"
    program, name, *options = shlex.split(run.data.tags["synthdetect.command"])
    assert (program, name) == ("synthdetect", "predict")
    assert set(options) == {
        f"--model={detectors[0].path}", f"--data={images}", f"--output={out}", "--views=single",
        "--workers=0",
    }  # fmt: skip
    assert run.data.tags["synthdetect.data"] == str(images)
    assert run.data.metrics["predict/images"] == 11
    assert run.data.metrics["predict/synthetic"] == read(out)["label"].sum()
    assert run.data.metrics["predict/images_per_second"] > 0
    assert artifacts(run, "predictions") == set(os.listdir(out))


@pytest.mark.parametrize("name", ["i.zip", "i.tar", "i.tgz", "list.csv", "list.parquet"])
def test_archives_and_lists_keep_their_own_order(
    predict: Predict, detectors: list[Saved], images: Path, out: Path, tmp_path: Path, name: str
) -> None:
    names = ["b/3.png", "a/10.png", "a/0.png"]
    path = tmp_path / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for member in names:
                archive.write(images / member, member)
    elif path.stem == "i":
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
            for member in names:
                tar.add(images / member, member)
    else:
        table = pd.DataFrame({"path": [str(images / member) for member in names]})
        table.to_csv(path) if path.suffix == ".csv" else table.to_parquet(path)
        names = table["path"].tolist()
    assert predict(detectors[:1], path).status == 0
    table = read(out)
    assert table["image"].tolist() == names
    expected = expected_logits(detectors[0].detector, [images / member for member in names])
    np.testing.assert_allclose(table["logit"], expected, atol=1e-5)


def test_a_flip_is_the_mean_with_the_mirror_image(
    predict: Predict, detectors: list[Saved], images: Path, out: Path
) -> None:
    options = {"views": "flip", "threshold": "0.5"}
    assert predict(detectors[:1], images, **options).status == 0
    detector = detectors[0].detector
    for name, found in read(out).set_index("image")["logit"].items():
        square = detector.preprocess((images / str(name)).read_bytes())
        both = detector.score(np.stack([square, square[:, ::-1]]))
        assert found == pytest.approx(logit(both).mean(), abs=1e-5)
        assert abs(np.subtract(*logit(both))) > 1e-4  # the mirror image makes a difference


def test_views_that_a_detector_was_not_decided_under_need_an_explicit_threshold(
    predict: Predict, detectors: list[Saved], images: Path, out: Path
) -> None:
    refused = predict(detectors[:1], images, views="flip")
    assert refused.status == 2
    assert not out.exists()
    for part in ("chosen under single", "--views flip --", "--decide val", "--threshold"):
        assert part.rstrip(" -") in refused.err
    assert f"--model {detectors[0].path}" in refused.err
    assert predict(detectors[:1], images, views="flip", threshold="0.3").status == 0
    table, listed = read(out), json.loads((out / "models.json").read_text())
    np.testing.assert_array_equal(table["label"], table["probability"] >= 0.3)
    assert listed["threshold"] == 0.3
    assert listed["models"][0]["views"] == "flip"
    assert listed["models"][0]["card"]["views"] == "single"


def test_a_detector_scores_under_the_views_of_its_card_unless_told_otherwise(
    predict: Predict, workspace: Path, images: Path, out: Path
) -> None:
    flipped = save(workspace / "flipped.safetensors", 0, views="flip")
    assert predict([flipped], images).status == 0
    table = read(out)
    expected = expected_logits(flipped.detector, [images / name for name in table["image"]])
    np.testing.assert_allclose(table["logit"], expected, atol=1e-5)
    single = expected_logits(
        flipped.detector.with_card(views="single"), [images / name for name in table["image"]]
    )
    assert np.abs(expected - single).max() > 1e-4
    np.testing.assert_array_equal(table["label"], table["probability"] >= flipped.threshold)
    refused = predict([flipped], images, views="single")
    assert refused.status == 2
    assert "chosen under flip" in refused.err


def test_an_expected_prior_shifts_the_logits_of_every_detector_from_its_own(
    predict: Predict, workspace: Path, images: Path, out: Path
) -> None:
    known = [
        save(workspace / f"prior{seed}.safetensors", seed, prior=prior)
        for seed, prior in enumerate((0.5, 0.2))
    ]
    assert predict(known, images).status == 0
    plain = read(out)
    assert predict(known, images, prior="0.8").status == 0
    shifted = read(out)
    for number, ratio in ((1, 4.0), (2, 16.0)):
        found = shifted[f"logit_{number}"] - plain[f"logit_{number}"]
        np.testing.assert_allclose(found, np.log(ratio))
    listed = json.loads((out / "models.json").read_text())
    assert listed["prior"] == 0.8
    assert [model["decision"]["prior"] for model in listed["models"]] == [0.8, 0.8]
    assert [model["card"]["decision"]["prior"] for model in listed["models"]] == [0.5, 0.2]
    assert last_run().data.params["predict.prior"] == "0.8"


def test_a_prior_cannot_be_shifted_from_an_unknown_one(
    predict: Predict, detectors: list[Saved], images: Path, out: Path
) -> None:
    refused = predict(detectors[:1], images, prior="0.8")
    assert refused.status == 2
    assert "--prior" in refused.err
    assert "--decide val --log-model true" in refused.err
    assert not out.exists()


# --- several


@pytest.mark.parametrize("ensemble", ["mean_logit", "mean_probability", "median", "vote"])
def test_several_detectors_are_combined_and_each_is_shown(
    predict: Predict, detectors: list[Saved], images: Path, out: Path, ensemble: str
) -> None:
    assert predict(detectors, images, ensemble=ensemble, batch_size="4").status == 0
    table = read(out)
    files = [images / name for name in table["image"]]
    logits = np.stack([expected_logits(d.detector, files) for d in detectors])
    thresholds = [d.threshold for d in detectors]
    for number in range(3):
        column = table[f"logit_{number + 1}"]
        np.testing.assert_allclose(column, logits[number], atol=1e-5)
        called = table[f"probability_{number + 1}"] >= thresholds[number]
        np.testing.assert_array_equal(table[f"label_{number + 1}"], called)
    exact = table[["logit_1", "logit_2", "logit_3"]].to_numpy()
    probability, threshold = {
        "mean_logit": (expit(exact.mean(1)), expit(np.mean(logit(thresholds)))),
        "mean_probability": (expit(exact).mean(1), np.mean(thresholds)),
        "median": (expit(np.median(exact, axis=1)), expit(np.median(logit(thresholds)))),
        "vote": ((expit(exact) >= thresholds).mean(1), 0.5),
    }[ensemble]
    np.testing.assert_allclose(table["probability"], probability, atol=1e-12)
    np.testing.assert_array_equal(table["label"], probability >= threshold)
    np.testing.assert_allclose(table["logit_std"], exact.std(1))
    np.testing.assert_allclose(table["probability_std"], expit(exact).std(1))
    listed = json.loads((out / "models.json").read_text())
    assert listed["ensemble"] == ensemble
    assert listed["threshold"] == pytest.approx(threshold)
    assert [m["model"] for m in listed["models"]] == [d.path for d in detectors]
    pairs = pd.read_csv(out / "agreement.csv")
    assert len(pairs) == 3
    same = (table["label_1"] == table["label_3"]).mean()
    assert pairs["same_label"][1] == pytest.approx(same)
    assert last_run().data.metrics["predict/logit_std"] == pytest.approx(exact.std(1).mean())


def test_detectors_that_see_alike_share_a_pass(
    detectors: list[Saved], images: Path, out: Path
) -> None:
    scoring = new_scoring(out, detectors, images)
    assert (scoring.passes, scoring.total) == (2, 22)


def test_within_the_band_of_doubt_an_image_is_unsure(
    predict: Predict, images: Path, out: Path, tmp_path: Path
) -> None:
    """The band of several detectors has the mean of their widths."""
    wide = save(tmp_path / "wide.safetensors", 0, unsure=0.02)
    none = save(tmp_path / "none.safetensors", 1)
    assert predict([wide], images).status == 0
    table = read(out)
    near = (table["probability"] - wide.threshold).abs()
    np.testing.assert_array_equal(table["unsure"], (near < 0.02).astype(int))
    assert set(table["unsure"]) == {0, 1}
    np.testing.assert_array_equal(table["label"], table["probability"] >= wide.threshold)
    assert predict([wide, none], images, ensemble="mean_probability").status == 0
    table = read(out)
    near = (table["probability"] - (wide.threshold + none.threshold) / 2).abs()
    np.testing.assert_array_equal(table["unsure"], (near < 0.01).astype(int))
    assert predict([none], images).status == 0
    assert "unsure" not in read(out)


# --- how a detector is named


@pytest.fixture(scope="module")
def logged(detectors: list[Saved]) -> dict[str, str]:
    """Every way to name the first detector once it is logged and registered."""
    with open_run("one", kind="train", tags={}) as run:
        model = log_detector(run, detectors[0].detector)
        version = register(model, "shown")
    return {
        "run": run.id,
        "id": f"models:/{model.model_id}",
        "version": f"models:/shown/{version}",
        "alias": "models:/shown@champion",
    }


@pytest.fixture(scope="module")
def cross_validation(detectors: list[Saved]) -> str:
    """Folds 10 and 9 finished, 2 not, and a refit."""
    with open_run("cv", kind="cv", tags={}) as parent:
        for fold, kind, saved in (("10", "fold", detectors[1]), ("9", "fold", detectors[0]),
                                  ("refit", "refit", detectors[2])):  # fmt: skip
            with open_run(fold, kind=kind, tags={FOLD: fold}, parent=parent) as child:
                log_detector(child, saved.detector)
        with (
            contextlib.suppress(Stopped),
            open_run("2", kind="fold", tags={FOLD: "2"}, parent=parent) as child,
        ):
            log_detector(child, detectors[2].detector)
            raise Stopped
    return parent.id


@pytest.mark.parametrize("way", ["run", "id", "version", "alias"])
def test_a_logged_detector_is_found(
    detectors: list[Saved], logged: dict[str, str], way: str
) -> None:
    ((name, found, _),) = find_detectors((logged[way],))
    assert name == logged[way]
    assert found.card == detectors[0].detector.card


def test_a_cross_validation_is_its_finished_folds_in_order(
    predict: Predict, detectors: list[Saved], cross_validation: str, images: Path, out: Path
) -> None:
    assert predict(cross_validation, images).status == 0
    listed = json.loads((out / "models.json").read_text())["models"]
    assert [m["model"] for m in listed] == [f"{cross_validation} fold {n}" for n in (9, 10)]
    hashes = [m["card"]["weights_sha256"] for m in listed]
    assert hashes == [d.detector.card.weights_sha256 for d in detectors[:2]]


def test_all_ways_of_naming_can_be_mixed(
    predict: Predict, detectors: list[Saved], logged: dict[str, str], images: Path, out: Path
) -> None:
    named = f"{logged['alias']},{detectors[1].path},{logged['run']}"
    assert predict(named, images).status == 0
    table = read(out)
    np.testing.assert_array_equal(table["logit_1"], table["logit_3"])
    assert pd.read_csv(out / "agreement.csv")["same_label"][1] == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nonsense", "'nonsense' is neither a file, nor a models:/ URI, nor a run in sqlite:"),
        ("gone.safetensors", "'gone.safetensors' is neither a file"),
        ("models:/nobody@champion", "models:/nobody@champion cannot be loaded from sqlite:"),
        ("models:/m-0123", "models:/m-0123 cannot be loaded"),
        ("models:/nobody/1", "models:/nobody/1 cannot be loaded"),
        ("", "--model: give"),
    ],
)
def test_an_unknown_model_is_refused_with_what_was_tried(
    predict: Predict, images: Path, out: Path, model: str, message: str
) -> None:
    result = predict(model, images)
    assert result.status == 2
    assert message in result.err
    assert not out.exists()


def test_a_run_without_a_model_and_a_model_of_another_kind_are_refused(workspace: Path) -> None:
    with open_run("empty", kind="train", tags={}) as run:
        pass
    with pytest.raises(UserError, match=f"run {run.id} .FINISHED. has logged no model"):
        find_detectors((run.id,))
    other = workspace / "other.py"
    other.write_text(
        "import mlflow\nfrom pathlib import Path\n"
        "class M(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n        return [1]\n"
        f"Path({str(workspace / 'executed')!r}).touch()\nmlflow.models.set_model(M())\n"
    )
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(name="other", python_model=str(other))
    (workspace / "executed").unlink(missing_ok=True)
    with pytest.raises(UserError, match="is no detector of synthdetect"):
        find_detectors((f"models:/{info.model_id}",))
    assert not (workspace / "executed").exists()


# --- unreadable images and submissions


def test_an_unreadable_image_is_listed_and_the_others_scored(
    predict: Predict, detectors: list[Saved], broken: Path, images: Path, out: Path
) -> None:
    assert predict(detectors, images, output=str(out.parent / "whole")).status == 0
    result = predict(detectors, broken)
    assert result.status == 0
    assert "1 image(s) cannot be read" in result.out
    assert "'a/4.png': not an image of a known format" in result.out
    table, whole = read(out).set_index("image"), read(out.parent / "whole").set_index("image")
    row = table.loc["a/4.png"]
    assert row["error"] == "not an image of a known format"
    numbers = [name for name in table if name.startswith(("logit", "prob", "label", "unsure"))]
    assert row[numbers].isna().all()
    rest = table.drop("a/4.png")
    assert (rest["error"] == "").all()
    expected = whole.drop("a/4.png")["logit"]
    np.testing.assert_allclose(rest["logit"], expected, atol=1e-5)
    with (out / "unreadable.csv").open() as file:
        assert list(csv.reader(file))[1:] == [["a/4.png", "not an image of a known format"]]
    assert predict(detectors[:1], images).status == 0  # what it had left is no more
    assert not (out / "unreadable.csv").exists()
    assert not (out / "agreement.csv").exists()


@pytest.mark.parametrize(("edition", "file"), [("2025", "me_open.zip"), ("2026", "me_open.csv")])
def test_a_submission_is_accepted(
    predict: Predict, detectors: list[Saved], images: Path, out: Path, edition: str, file: str
) -> None:
    result = predict(detectors, images, submission="open", team="me", edition=edition)
    assert result.status == 0
    ids = image_ids_of(images)
    assert check_submission(out / file, image_ids=ids, edition=edition) == []
    table = read(out)
    if edition == "2026":
        rows = pd.read_csv(out / file)
        assert rows["image_id"].tolist() == [name.split("/")[1] for name in table["image"]]
        np.testing.assert_array_equal(rows["prob"], table["probability"])
        np.testing.assert_array_equal(rows["label"], table["label"])
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["submission"]["file"] == file
    assert provenance["images"]["count"] == 11
    assert provenance["options"]["edition"] == edition
    assert [m["card"]["provenance"] for m in provenance["models"]] == [ALLOWED] * 3
    assert artifacts(last_run(), "submission") == {file, "provenance.json"}
    checked = cli.main(["check-submission", str(out / file), f"--images={images}",
                        f"--edition={edition}"])  # fmt: skip
    assert checked == 0


def test_a_submission_asks_what_to_answer_for_an_unreadable_image(
    predict: Predict, detectors: list[Saved], broken: Path, out: Path
) -> None:
    asked = {"submission": "constrained", "team": "me", "edition": "2026"}
    result = predict(detectors[:1], broken, **asked)
    assert result.status == 2
    assert "'a/4.png'" in result.err
    assert "--unreadable-as" in result.err
    assert len(read(out)) == 11
    assert not (out / "me_constrained.csv").exists()
    assert last_run().info.status == "FAILED"
    for name in broken.rglob("*.png"):
        name.write_text("not read again")
    for answer, prob, label in (("real", 0, 0), ("synthetic", 1, 1)):
        again = predict(detectors[:1], broken, **asked, unreadable_as=answer)
        assert again.status == 0
        rows = pd.read_csv(out / "me_constrained.csv").set_index("image_id")
        assert rows.loc["4.png", ["prob", "label"]].tolist() == [prob, label]
        if answer == "real":
            assert "after 11 of 11 images" in again.out
            assert len(rows) == 11
            assert rows["prob"].nunique() == 11
            kept = json.loads((out / "provenance.json").read_text())
            assert kept["images"]["unreadable"] == ["a/4.png"]


@pytest.mark.parametrize(
    ("provenance", "reason"),
    [
        ({**ALLOWED, "weights": "file"}, "its starting weights are 'file'"),
        ({}, "its starting weights are 'unknown'"),
        ({**ALLOWED, "supplement": "more.csv"}, "further data (more.csv)"),
        ({**ALLOWED, "validation_images": 7}, "validation images (7 of the data's own)"),
        ({"weights": "imagenet"}, "validation images (an unknown number of the data's own)"),
        ({**ALLOWED, "target": "split:test"}, "adapted to further images (split:test)"),
    ],
)
def test_a_constrained_submission_refuses_what_has_seen_more(
    predict: Predict, detectors: list[Saved], images: Path, out: Path, tmp_path: Path,
    provenance: dict[str, Any], reason: str,
) -> None:  # fmt: skip
    seen_more = save(tmp_path / "more.safetensors", 3, provenance=provenance)
    asked = {"submission": "constrained", "team": "me"}
    result = predict([detectors[0], seen_more], images, **asked)
    assert result.status == 2
    assert seen_more.path in result.err
    assert reason in result.err
    assert not out.exists()
    assert predict([detectors[0], seen_more], images, **{**asked, "submission": "open"}).status == 0


def test_a_submission_that_cannot_be_is_refused_before_anything_is_scored(
    predict: Predict, detectors: list[Saved], images: Path, out: Path, tmp_path: Path
) -> None:
    assert "--team" in predict(detectors[:1], images, submission="open").err
    assert "--team" in predict(detectors[:1], images, submission="open", team="my_team").err
    shutil.copytree(images, tmp_path / "twice")
    shutil.copy(images / "a" / "0.png", tmp_path / "twice" / "b")
    result = predict(detectors[:1], tmp_path / "twice", submission="open", team="me")
    assert (result.status, out.exists()) == (2, False)
    assert "a/0.png and b/0.png have the same file name" in result.err
    assert "--data" in predict(detectors[:1], "").err


def test_check_submission_counts_the_errors(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "me_open.csv"
    file.write_text("image_id,prob,label,threshold\na.png,0.9,0,0.5\na.png,1.5,1,0.5\n")
    assert cli.main(["check-submission", str(file)]) == 2
    printed = capsys.readouterr()
    assert f"{file}: 3 error(s)" in printed.err
    assert printed.out.count("error: ") == 3
    assert "label contradicts" in printed.out


def test_nothing_but_unreadable_images_is_no_crash(
    predict: Predict, detectors: list[Saved], tmp_path: Path, out: Path
) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_text("no image")
    assert predict(detectors, tmp_path / "none").status == 0
    assert read(out)["error"].tolist() == ["not an image of a known format"]


# --- interrupted


def new_scoring(folder: Path, detectors: list[Saved], images: Path, **other: Any) -> Scoring:
    given = {"data": "here", "batch_size": 4, **other}
    return Scoring(folder, [d.detector for d in detectors], unlabelled(str(images)), **given)


def run_until(scoring: Scoring, images: int) -> None:
    def stop(done: int, total: int) -> None:
        if done >= images:
            raise Stopped

    with pytest.raises(Stopped):
        scoring.run(Device("cpu", "fp32", 0), stop)


@pytest.mark.parametrize("left", ["", "8,1.25", "8,1.25,\n9,1.5,\n", "\0\0\0\0"])
def test_what_a_kill_left_of_a_batch_is_cut_and_scored_again(
    detectors: list[Saved], images: Path, out: Path, left: str
) -> None:
    whole = new_scoring(out / "whole", detectors[:1], images)
    whole.run(Device("cpu", "fp32", 0), lambda done, total: None)
    run_until(new_scoring(out, detectors[:1], images), 8)
    journal = out / ".partial-1.csv"
    before = journal.read_text()
    assert len(before.splitlines()) == 8
    journal.write_text(before + left)
    again = new_scoring(out, detectors[:1], images)
    assert again.done == 8
    again.run(Device("cpu", "fp32", 0), lambda done, total: None)
    assert journal.read_text() == (out / "whole" / ".partial-1.csv").read_text()
    np.testing.assert_array_equal(again.scores().logits, whole.scores().logits)


def test_a_pass_that_is_done_is_not_done_again(
    detectors: list[Saved], images: Path, out: Path
) -> None:
    run_until(new_scoring(out, detectors, images), 15)
    again = new_scoring(out, detectors, images)
    assert (again.done, again.total) == (15, 22)
    again.run(Device("cpu", "fp32", 0), lambda done, total: None)
    assert np.isfinite(again.scores().logits).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 5}, "batch_size"),
        ({"data": "elsewhere"}, "data"),
        ({"detectors": slice(1, 2)}, "models"),
        ({"images": "a"}, "images"),
    ],
)
def test_another_unfinished_prediction_is_left_alone(
    detectors: list[Saved], images: Path, out: Path, change: dict[str, Any], named: str
) -> None:
    run_until(new_scoring(out, detectors[:1], images), 4)
    journal = (out / ".partial-1.csv").read_bytes()
    models = detectors[change.pop("detectors", slice(0, 1))]
    folder = images / change.pop("images", ".")
    with pytest.raises(UserError, match=f"{out}: holds an unfinished .* another {named}[.]") as e:
        new_scoring(out, models, folder, **change)
    assert str(out / STATE) in str(e.value)
    assert (out / ".partial-1.csv").read_bytes() == journal
    (out / STATE).unlink()  # as it says
    assert new_scoring(out, models, folder, **change).done == 0


def test_an_output_that_is_a_file_is_refused(
    predict: Predict, detectors: list[Saved], images: Path, out: Path
) -> None:
    out.write_text("")
    result = predict(detectors[:1], images)
    assert result.status == 2
    assert f"--output: {out}" in result.err


def test_a_detector_without_finite_scores_is_refused(
    predict: Predict, images: Path, tmp_path: Path
) -> None:
    diverged = save(tmp_path / "nan.safetensors", 5)
    with torch.no_grad():
        next(diverged.detector.network.parameters()).fill_(float("nan"))
    diverged.detector.save(tmp_path / "nan.safetensors")
    result = predict([diverged], images)
    assert result.status == 2
    assert "number 1 " in result.err
    assert "not finite" in result.err


def test_killed_in_the_middle_it_goes_on_and_gives_the_same_bytes(
    predict: Predict, detectors: list[Saved], tmp_path: Path, workspace: Path, out: Path
) -> None:
    data = tmp_path / "many"
    data.mkdir()
    for number in range(240):
        (data / f"{number:03}.png").write_bytes(picture(number))
    (data / "150.png").write_text("no image")
    options = {"batch_size": "4", "submission": "open", "team": "me", "unreadable_as": "real",
               "workers": "0"}  # fmt: skip
    whole = predict(detectors[:2], data, **options, output=str(tmp_path / "whole"))
    assert whole.status == 0

    given = {"model": f"{detectors[0].path},{detectors[1].path}", "data": data, "output": out}
    arguments = [f"--{name}={value}" for name, value in {**given, **options}.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "synthdetect", "predict", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    journal = out / ".partial-1.csv"
    end = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 100:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    scored = journal.read_bytes().count(b"\n") // 4 * 4
    assert 100 <= scored < 240
    assert not (out / "predictions.csv").exists()

    for number in range(scored):  # were one of them read again, it would be unreadable
        (data / f"{number:03}.png").write_text("read again")
    result = predict(detectors[:2], data, **options)
    assert result.status == 0
    assert f"after {scored} of 240 images" in result.out
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "whole"))
    for name in ("predictions.csv", "predictions.parquet", "models.json", "agreement.csv",
                 "unreadable.csv", "me_open.zip"):  # fmt: skip
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
