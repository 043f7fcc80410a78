"""Tests of a training through `mlflow run`: its record, resuming, interruptions and errors."""

import json
import re
import signal
import socket
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from playwright.sync_api import expect, sync_playwright

from synthdetect.detectors.detector import Detector
from synthdetect.images.geometry import SQUARE_VERSION
from tests.e2e.conftest import Platform, end

EPOCHS = "3"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(platform: Platform) -> Run:
    """One run through `mlflow run`, registered."""
    status = platform.run(*platform.project("train", epochs=EPOCHS, register="detector"))
    assert status == 0, platform.output()
    return platform.latest()


def artifact(run: Run, path: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path))


def history(platform: Platform, run: Run, name: str) -> list[tuple[int, float]]:
    points = platform.client().get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in points]


def test_the_run_is_finished_and_says_what_it_did(platform: Platform, finished: Run) -> None:
    assert finished.info.status == "FINISHED"
    params = finished.data.params
    assert params["lr"] == "1e-3"  # as the user wrote it
    assert params["optim.lr"] == "0.001"  # as it was understood
    assert params["model.start"] == "random"
    assert params["hardware.kind"] == "cpu"
    assert params["hardware.fallback"] == params["hardware.nondeterministic"] == "none"
    assert params["version.preprocessing"] == str(SQUARE_VERSION)
    assert params["version.torch"]
    assert len(params["data.digest"]) == 64
    assert "--arch=mobilenet_v3_large" in finished.data.tags["synthdetect.command"]
    assert "models:/" in finished.data.tags["mlflow.note.content"]
    output = platform.output()
    assert finished.info.run_name == "mobilenet_v3_large baseline"  # not a random one
    assert finished.data.metrics["auc"] == finished.data.metrics["test/auc"]
    assert f"synthdetect ui {finished.info.run_id}" in output
    assert f"/#/experiments/0/runs/{finished.info.run_id}?workflowType=machine_learning" in output
    assert "mlflow models serve -m models:/" in output
    assert "Traceback" not in output
    assert "Warning" not in output


@pytest.mark.parametrize(
    "name",
    ["train/loss", "train/auc", "val/loss", "val/auc", "val/accuracy", "val/f1",
     "train/lr", "train/images_per_second"],
)  # fmt: skip
def test_every_epoch_is_logged_once(platform: Platform, finished: Run, name: str) -> None:
    steps = [step for step, _ in history(platform, finished, name)]
    assert steps == [1, 2, 3]


def test_results_are_there_as_metrics_tables_and_figures(platform: Platform, finished: Run) -> None:
    metrics = finished.data.metrics
    for name in ("test/auc", "test/nll", "best/val/auc", "test/generator/realsr_df2k/auc",
                 "control/auc_against_real", "decision/threshold"):  # fmt: skip
        assert np.isfinite(metrics[name])
    assert "control/auc" not in metrics  # undefined: no synthetic images
    assert metrics["system/system_memory_usage_percentage"] > 0
    test = pd.read_csv(artifact(finished, "predictions/test.csv"))
    assert len(test) == 30
    assert {"path", "label", "generator", "logit", "probability", "predicted"} <= set(test)
    figures = {item.path for item in platform.client().list_artifacts(finished.info.run_id,
                                                                      "figures/test")}  # fmt: skip
    names = ("roc", "precision_recall", "reliability", "confusion", "scores", "generators",
             "worst_mistakes")  # fmt: skip
    assert figures == {f"figures/test/{name}.png" for name in names}
    recorded = json.loads(artifact(finished, "config.json").read_text())
    assert recorded["options"]["lr"] == 0.001


def test_data_are_recorded_as_datasets_that_metrics_are_bound_to(
    platform: Platform, finished: Run
) -> None:
    assert finished.inputs is not None
    inputs = {i.dataset.name: i for i in finished.inputs.dataset_inputs}
    assert set(inputs) == {f"small.csv-{s}" for s in ("train", "val", "test", "control")}
    contexts = {name: i.tags[0].value for name, i in inputs.items()}
    assert contexts["small.csv-val"] == "validation"
    model = platform.client().search_logged_models(["0"])[0]
    bound = {(m.key, m.dataset_name) for m in model.metrics or ()}
    assert ("test/auc", "small.csv-test") in bound


def test_the_model_is_logged_once_without_pickle_and_scores_as_offline(
    platform: Platform, finished: Run
) -> None:
    models = platform.client().search_logged_models(["0"])
    mine = [m for m in models if m.source_run_id == finished.info.run_id]
    assert len(mine) == 1
    folder = Path(mlflow.artifacts.download_artifacts(mine[0].model_uri))
    suffixes = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".pth", ".bin"}
    assert not list(folder.rglob("*.jpg"))  # the sample stays behind
    card = json.loads(artifact(finished, "model/card.json").read_text())
    assert card["classes"] == ["real", "synthetic"]
    assert card["provenance"]["run_id"] == finished.info.run_id
    detector = Detector.load(next(folder.rglob("*.safetensors")))
    val = pd.read_csv(artifact(finished, "predictions/val.csv"))
    squares = [detector.preprocess(Path(path).read_bytes()) for path in val["path"]]
    np.testing.assert_allclose(detector.score(np.stack(squares)), val["probability"], atol=1e-5)
    threshold = card["decision"]["threshold"]
    assert threshold == detector.card.decision.threshold
    assert ((val["probability"] >= threshold) == val["predicted"]).all()


def test_the_first_version_is_the_champion_and_only_promoting_moves_it(
    platform: Platform, finished: Run
) -> None:
    client = platform.client()

    def champion() -> int:
        return int(client.get_model_version_by_alias("detector", "champion").version)

    assert champion() == 1
    model = client.search_logged_models(["0"])[0]
    mlflow.register_model(model.model_uri, "detector")
    assert champion() == 1
    assert platform.run("synthdetect", "promote", "detector", "2") == 2
    assert "--data: name labelled images" in platform.output()
    data = str(platform.data)
    assert platform.run("synthdetect", "promote", "detector", "2", "--data", data) == 0
    assert "AUC +0.000 [0.000, 0.000]" in platform.output()  # it is the same model
    assert champion() == 2
    assert platform.run("synthdetect", "promote", "detector", "9") == 2
    assert "no version '9'" in platform.output()


def test_killed_and_resumed_equals_uninterrupted(platform: Platform, finished: Run) -> None:
    process = platform.start(*platform.direct("train", epochs=EPOCHS))
    platform.wait_for(process, "epoch   2/3")
    end(process, signal.SIGKILL)
    cut = platform.latest()
    assert cut.info.status == "RUNNING"  # nobody was left to say otherwise
    assert cut.info.run_id != finished.info.run_id
    parameters = {"epochs": EPOCHS, "resume": cut.info.run_id}
    assert platform.run(*platform.project("train", **parameters)) == 0, platform.output()
    resumed = platform.client().get_run(cut.info.run_id)
    assert resumed.info.status == "FINISHED"
    for name in ("train/loss", "val/loss", "val/auc", "train/lr"):
        assert history(platform, resumed, name) == history(platform, finished, name)
    cards = [
        json.loads(artifact(run, "model/card.json").read_text()) for run in (resumed, finished)
    ]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]
    same = [name for name in finished.data.metrics if name.startswith(("test/", "best/"))]
    assert {n: resumed.data.metrics[n] for n in same} == {n: finished.data.metrics[n] for n in same}
    assert not (platform.folder / "runs" / cut.info.run_id).exists()


@pytest.mark.long
@pytest.mark.thorough
def test_another_process_does_it_again_bit_for_bit(platform: Platform, finished: Run) -> None:
    command = ["mlflow", "run", ".", "-e", "reproduce", "--env-manager", "local"]
    assert platform.run(*command, "-P", f"run_id={finished.info.run_id}") == 0, platform.output()
    assert "reproduced bit for bit" in platform.output()
    again = platform.latest(synthdetect__reproduces=finished.info.run_id)
    assert again.info.status == "FINISHED"
    assert again.data.metrics["test/auc"] == finished.data.metrics["test/auc"]


@pytest.mark.long
@pytest.mark.parametrize("way", ["project", "direct"])
def test_interrupting_ends_the_run_as_killed_with_what_it_had(platform: Platform, way: str) -> None:
    command = getattr(platform, way)("train", epochs="500", patience="500")
    process = platform.start(*command)
    platform.wait_for(process, "epoch   1/500")
    status = end(process, signal.SIGINT)
    assert status == 130 if way == "direct" else status != 0
    run = platform.latest()
    deadline = time.monotonic() + 30  # `mlflow run` has its say last, and is corrected
    while way == "project" and time.monotonic() < deadline:
        time.sleep(0.5)
        run = platform.latest()
    assert run.info.status == "KILLED"
    items = platform.client().list_artifacts(run.info.run_id, "checkpoints")
    assert "checkpoints/last.safetensors" in [item.path for item in items]
    refused = platform.direct("train", epochs="7", patience="500", resume=run.info.run_id)
    assert platform.run(*refused) == 2
    assert "--epochs: run" in platform.output()


def test_an_error_ends_the_run_as_failed_and_exits_1(platform: Platform) -> None:
    assert platform.run(*platform.direct("train", epochs="2", lr="1e30")) == 1
    run = platform.latest()
    assert run.info.status == "FAILED"
    assert "loss is" in run.data.tags["synthdetect.error"]
    assert "Lower --lr" in platform.output()
    assert "Traceback" not in platform.output()


def test_mlflow_run_fails_for_an_unknown_parameter(platform: Platform) -> None:
    assert platform.run(*platform.project("main", lrr="3")) != 0
    assert "unknown option --lrr. Did you mean --lr?" in platform.output()
    assert platform.latest().info.status == "FAILED"


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium (.ci/run installs it)")
def test_a_browser_shows_the_run_its_results_its_figures_and_its_report(
    platform: Platform, finished: Run
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert platform.run(sys.executable, "-m", "synthdetect", "report", finished.info.run_id) == 0
    command = (sys.executable, "-m", "synthdetect", "ui", finished.info.run_id, "--no-browser")
    server = platform.start(*command, "--port", str(port))
    try:
        platform.wait_for(server, "Press Ctrl-C")
        (address,) = re.findall(r"look at it +(http\S+)", platform.output())
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            run = f"http://127.0.0.1:{port}/#/experiments/0/runs/{finished.info.run_id}"
            page.goto(address)
            described = page.locator("img[src*='figures/test/scores.png']")
            expect(described).to_be_attached(timeout=60_000)
            shown = "image => image.complete && image.naturalWidth > 300"
            page.wait_for_function(shown, arg=described.element_handle())
            expect(page.get_by_text("Finished", exact=True).first).to_be_visible(timeout=60_000)
            expect(page.get_by_text("test / realsr_df2k").first).to_be_attached(timeout=30_000)
            page.goto(f"{run}/artifacts?workflowType=machine_learning")
            for name in ("figures", "test", "worst_mistakes.png"):
                page.get_by_text(name, exact=True).first.click(timeout=30_000)
            picture = page.locator("img[src^='blob:'], img[src*='get-artifact']").first
            expect(picture).to_be_visible(timeout=30_000)
            assert picture.evaluate("image => image.naturalWidth") > 500
            view = f"http://127.0.0.1:{port}/#/experiments/0/runs?viewStateShareKey=synthdetect"
            page.goto("about:blank")
            page.goto(view)
            expect(page.get_by_role("button", name="synthdetect")).to_be_visible(timeout=30_000)
            expect(page.get_by_text("auc_low", exact=True).first).to_be_visible(timeout=30_000)
            page.goto("about:blank")
            page.goto(f"{run}/artifacts?workflowType=machine_learning")
            page.get_by_text("report.html", exact=True).first.click()
            report = page.frame_locator("iframe[src^='blob:']")
            expect(report.get_by_role("rowheader", name="realsr_df2k").first).to_be_attached(
                timeout=30_000
            )
            results = report.get_by_role("heading", name="Results")
            expect(results).not_to_be_in_viewport()
            report.get_by_role("link", name="Results").press("Enter")
            expect(results).to_be_in_viewport()
            browser.close()
    finally:
        end(server, signal.SIGTERM)
