"""Tests of `synthdetect promote`: what is promoted, what is refused, and what is recorded of it."""

import json
from collections.abc import Iterator

import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from tests.comparison.conftest import Made
from tests.conftest import newest

BAD, GOOD = "1", "2"
DATA = ("--data", "data.csv", "--images", "2")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def client(made: Made) -> Iterator[MlflowClient]:
    """The registry, in which the bad version is the champion at first."""
    client = MlflowClient()
    client.set_registered_model_alias("detector", "champion", BAD)
    yield client
    client.set_registered_model_alias("detector", "champion", BAD)


def champion(client: MlflowClient) -> ModelVersion:
    return client.get_model_version_by_alias("detector", "champion")


def evidence(client: MlflowClient, version: str) -> dict[str, object]:
    tags = client.get_model_version("detector", version).tags
    found: dict[str, object] = json.loads(tags["synthdetect.comparison"])
    return found


def test_a_better_version_is_promoted_and_says_why(client: MlflowClient) -> None:
    assert main(["promote", "detector", GOOD, *DATA]) == 0
    version = champion(client)
    assert str(version.version) == GOOD
    found = evidence(client, GOOD)
    run = newest("promote")
    assert (found["outcome"], found["accepted"], found["forced"]) == ("no worse", True, False)
    assert (found["against"], found["split"], found["images"]) == (BAD, "test", 48)
    assert found["run_id"] == run.info.run_id
    assert found["test"]["value"] == pytest.approx(1)  # type: ignore[index]
    assert "no worse than version 1 within a margin of 0.01: AUC 1.000" in version.description
    assert json.loads(version.tags["synthdetect.card"])["model"]["arch"] == "mobilenet_v3_large"
    paths = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"comparison.html", "comparison.json", "predictions"} <= paths


def test_a_worse_version_is_refused_with_the_interval(
    client: MlflowClient, capsys: Capture
) -> None:
    client.set_registered_model_alias("detector", "champion", GOOD)
    capsys.readouterr()
    assert main(["promote", "detector", BAD, *DATA]) == 1
    message = capsys.readouterr().err
    found = evidence(client, BAD)
    test: dict[str, float] = found["test"]  # type: ignore[assignment]
    assert "version 1 of detector is not promoted: it is worse than version 2" in message
    assert f"difference {test['gain']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}]" in message
    assert str(champion(client).version) == GOOD
    assert (found["outcome"], found["accepted"]) == ("worse", False)
    run = newest("promote")
    assert run.info.status == "FINISHED"
    assert "worse than version 2" in run.data.tags["synthdetect.verdict"]


def test_the_margin_says_how_much_worse_is_acceptable(client: MlflowClient) -> None:
    client.set_registered_model_alias("detector", "champion", GOOD)
    assert main(["promote", "detector", BAD, *DATA, "--margin", "1"]) == 0
    assert evidence(client, BAD)["outcome"] == "no worse"


def test_force_promotes_and_is_recorded(client: MlflowClient) -> None:
    client.set_registered_model_alias("detector", "champion", GOOD)
    assert main(["promote", "detector", BAD, *DATA, "--force"]) == 0
    assert str(champion(client).version) == BAD
    found = evidence(client, BAD)
    assert (found["outcome"], found["accepted"], found["forced"]) == ("worse", True, True)
    assert "Promoted by --force: worse" in champion(client).description


def test_without_data_only_force_promotes(client: MlflowClient, capsys: Capture) -> None:
    capsys.readouterr()
    assert main(["promote", "detector", GOOD]) == 2
    assert "--data: name labelled images" in capsys.readouterr().err
    assert str(champion(client).version) == BAD
    assert main(["promote", "detector", GOOD, "--force"]) == 0
    found = evidence(client, GOOD)
    assert (found["outcome"], found["forced"], found["test"]) == ("not compared", True, None)


def test_without_a_champion_the_version_is_promoted_and_that_is_said(
    client: MlflowClient, capsys: Capture
) -> None:
    client.delete_registered_model_alias("detector", "champion")
    assert main(["promote", "detector", GOOD]) == 0
    assert "detector has no champion" in capsys.readouterr().out
    assert str(champion(client).version) == GOOD
    assert evidence(client, GOOD)["outcome"] == "first champion"
    assert main(["promote", "detector", GOOD]) == 0
    assert "is version 2 already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["detector", "9"], "no version '9'"),
        (["nothing", "1"], "no version '1' of a registered model 'nothing'"),
        (["detector"], "name a registered model and the version"),
        (["detector", GOOD, "--data", "data.csv", "--split", "tset"], "Found: test"),
        (["detector", GOOD, "--data", "nowhere"], "--data: 'nowhere' is neither"),
        (["detector", GOOD, *DATA, "--metric", "roc"], "--metric"),
    ],
)
def test_what_cannot_be_compared_changes_nothing(
    client: MlflowClient, capsys: Capture, given: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(["promote", *given]) == 2
    assert message in capsys.readouterr().err
    assert str(champion(client).version) == BAD
