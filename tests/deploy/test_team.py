"""A team's servers: one member trains, another goes on elsewhere, and serves what came of it."""

import base64
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import requests

from synthdetect.tracking.models import CHAMPION
from tests.deploy.conftest import PASSWORD, USER, Team, wait_for

pytestmark = pytest.mark.long

EPOCHS = 3
TRAIN = [
    "synthdetect", "train", "--arch=mobilenet_v3_large", "--image-size=32", "--batch-size=16",
    "--weights=none", "--lr=1e-3", "--device=cpu", "--workers=0", f"--epochs={EPOCHS}",
    "--register=detector",
]  # fmt: skip


@pytest.mark.parametrize("account", [None, (USER, "another"), ("admin", "password1234")])
def test_nobody_reads_without_a_password(team: Team, account: tuple[str, str] | None) -> None:
    query = f"{team.uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert requests.get(query, auth=account, timeout=60).status_code == 401
    assert requests.get(query, auth=(USER, PASSWORD), timeout=60).status_code == 200


def test_a_request_by_a_foreign_name_is_refused(team: Team) -> None:
    query = f"{team.uri}/api/2.0/mlflow/experiments/search?max_results=1"
    answer = requests.get(
        query, auth=(USER, PASSWORD), headers={"Host": "elsewhere.example"}, timeout=60
    )
    assert answer.status_code == 403


def test_what_one_trains_another_resumes_reports_and_serves(team: Team) -> None:
    client, earlier = team.client(), len(_requests(team))
    ada, folder = team.host("ada")
    training = ada.start(
        *TRAIN, f"--data={team.data}",
        folder=folder, environment=team.environment(ada), output=folder / "output.txt",
    )  # fmt: skip
    wait_for(training, folder / "output.txt", "epoch   1/")
    os.killpg(training.pid, signal.SIGTERM)
    (run,) = client.search_runs(["0"], "tags.`synthdetect.kind` = 'train'")
    run_id = run.info.run_id
    end = time.monotonic() + 600
    while client.get_run(run_id).info.status == "RUNNING":
        assert time.monotonic() < end
        time.sleep(0.5)
    ada.cut_power()
    training.wait()
    assert client.get_run(run_id).info.artifact_uri.startswith("mlflow-artifacts:")

    # Another machine has nothing but the address of the server, and the images.
    bob, folder = team.host("bob")
    output = folder / "output.txt"

    def on_bob(*command: str) -> "subprocess.Popen[bytes]":
        return bob.start(
            *command, folder=folder, environment=team.environment(bob), output=output
        )  # fmt: skip

    resumed = on_bob(*TRAIN, f"--data={team.data}", f"--resume={run_id}")
    assert resumed.wait(timeout=1800) == 0, output.read_text()
    assert "epoch   1/" not in output.read_text(), "it goes on with the checkpoint of the server"
    assert client.get_run(run_id).info.status == "FINISHED"
    history = client.get_metric_history(run_id, "val/auc")
    assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    version = client.get_model_version_by_alias("detector", CHAMPION)
    assert version.run_id == run_id

    # The artifacts are in the store, to which only the server speaks.
    speakers = {line.split()[0] for line in _requests(team)[earlier:]}
    assert speakers == {team.address("mlflow")}
    keys = team.keys()
    assert any(run_id in key and key.endswith("predictions/test.csv") for key in keys)
    assert any("/models/" in key and key.endswith(".safetensors") for key in keys)

    assert on_bob("synthdetect", "report", run_id).wait(timeout=900) == 0, output.read_text()
    server = on_bob(
        "synthdetect", "serve", f"--model=models:/detector@{CHAMPION}", "--host=0.0.0.0",
        "--port=8080",
    )  # fmt: skip
    image = Path(pd.read_csv(team.data)["path"][0]).read_bytes()
    answer = _ask(server, f"http://{bob.address}:8080", image, output)
    assert 0 <= answer["probability"] <= 1
    bob.cut_power()
    server.wait()


def _requests(team: Team) -> list[str]:
    """What the store has printed about each request so far."""
    lines = (team.folder / "store.txt").read_text().splitlines()
    return [line for line in lines if " - - [" in line]


def _ask(
    server: "subprocess.Popen[bytes]", uri: str, image: bytes, output: Path
) -> dict[str, float]:
    body = {"inputs": {"image": [base64.b64encode(image).decode()]}}
    end = time.monotonic() + 900
    while True:
        assert server.poll() is None, output.read_text()
        assert time.monotonic() < end, output.read_text()
        try:
            answer = requests.post(f"{uri}/invocations", json=body, timeout=60)
        except requests.ConnectionError:
            time.sleep(0.5)
            continue
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["predictions"][0])
