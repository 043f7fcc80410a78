"""Tests of resuming: the recorded options, initial weights and device of the run are kept."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
import torchvision
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from synthdetect.cli import main
from synthdetect.config.options import Affects, option_name
from synthdetect.models import weights
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.runs.options import CvOptions, TrainOptions
from synthdetect.runs.resume import (
    OTHERWISE,
    computing_as_begun,
    read_config,
    recorded_options,
)
from synthdetect.system.errors import UserError
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.provenance import environment
from synthdetect.tracking.run import Run as Logged
from synthdetect.training import devices
from synthdetect.training.devices import Device
from synthdetect.training.session import Session

TINY = ["--arch=mobilenet_v3_large", "--image-size=32", "--batch-size=16", "--lr=1e-3",
        "--epochs=2"]  # fmt: skip


@pytest.fixture
def data(workspace: Path, small_table: pd.DataFrame) -> str:
    """Return the option that names a small manifest."""
    table = small_table[small_table["split"].isin(["train", "val", "test"])]
    table = table.groupby("split", group_keys=False).sample(24, random_state=0)
    table.to_csv("small.csv", index=False)
    return "--data=small.csv"


@pytest.fixture
def two_threads() -> Iterator[Callable[[], None]]:
    """Return a function that sets two threads; they are reset after the test."""
    before = torch.get_num_threads()
    yield lambda: torch.set_num_threads(2)
    torch.set_num_threads(before)


def begin(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run a command that is interrupted once the checkpoint of an epoch is on disk."""

    def interrupt(*details: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Logged, "log_progress", interrupt)
        assert main(arguments) == 130


def runs(kind: str) -> list[Run]:
    query = f"tags.`synthdetect.kind` = '{kind}'"
    return list(mlflow.search_runs(filter_string=query, output_format="list"))


def provenance(run: Run) -> dict[str, Any]:
    card = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/model/card.json")
    return dict(card["provenance"])


def offline(*details: Any) -> None:
    raise OSError("no network")


def online(*details: Any) -> dict[str, torch.Tensor]:
    """Return weights in place of ImageNet's."""
    return dict(torchvision.models.get_model("mobilenet_v3_large", weights=None).state_dict())


# --- the recorded options


def interrupted(workspace: Path, options: dict[str, Any], digest: str = "abc") -> str:
    """Make a run that recorded options and was interrupted, and return its id."""
    client = MlflowClient()
    run_id: str = client.create_run("0").info.run_id
    file = workspace / "config.json"
    file.write_text(json.dumps({"options": options, "digest": digest}))
    client.log_artifact(run_id, str(file))
    client.set_terminated(run_id, "KILLED")
    return run_id


NEW_VALUES: dict[str, Any] = {
    "workers": "3", "cache_gib": 0.5, "output": "elsewhere", "register": "model",
    "keep_last": False, "license": "apache-2.0", "experiment": "other", "run_name": "mine",
    "processes": 2,
}  # fmt: skip
"""Values, other than the defaults, of the options that may change on resuming."""


def test_options_that_affect_no_number_are_taken_from_the_command(workspace: Path) -> None:
    recorded = TrainOptions.resolve({"workers": "1", "cache_gib": 2, "lr": 0.5}).to_json()
    run_id = interrupted(workspace, recorded)
    options, digest = recorded_options(TrainOptions.resolve({**NEW_VALUES, "resume": run_id}))
    assert {name: options.value(name) for name in NEW_VALUES} == NEW_VALUES
    assert {*NEW_VALUES, "resume"} == TrainOptions.affecting(Affects.SPEED, Affects.RECORD)
    left = recorded.keys() - NEW_VALUES.keys() - {"resume"}
    found = options.to_json()
    assert {name: found[name] for name in left} == {name: recorded[name] for name in left}
    assert digest == "abc"


def test_defaults_of_such_options_are_taken_too(workspace: Path) -> None:
    """A run that began with --workers 3 resumes with automatic workers if none are given."""
    recorded = TrainOptions.resolve(NEW_VALUES).to_json()
    run_id = interrupted(workspace, recorded)
    options, _ = recorded_options(TrainOptions.resolve({"resume": run_id}))
    assert options == TrainOptions.resolve({"resume": run_id})


@pytest.mark.parametrize(
    ("name", "recorded", "given"),
    [
        ("lr", 0.5, 0.25),
        ("arch", "resnet50", "vit_b_16"),
        ("front_end", "npr", None),
        ("threshold_rule", "half", "f1"),
        ("schedule", "constant", None),
        ("accumulate", 4, 2),
        ("epochs", 3, 4),
        ("data", "one.csv", "two.csv"),
        ("recipe", "constrained", "open"),
        ("device", "cpu", "mps"),
    ],
)
def test_options_that_affect_numbers_stay_and_must_not_be_contradicted(
    workspace: Path, name: str, recorded: Any, given: Any
) -> None:
    run_id = interrupted(workspace, TrainOptions.resolve({name: recorded}).to_json())
    for repeated in ({}, {name: recorded}):
        options, _ = recorded_options(TrainOptions.resolve({**repeated, "resume": run_id}))
        assert options.value(name) == recorded
    if given is not None:
        with pytest.raises(UserError) as error:
            recorded_options(TrainOptions.resolve({name: given, "resume": run_id}))
        for part in (option_name(name), run_id, repr(recorded), repr(given)):
            assert part in str(error.value)


def test_an_option_that_older_versions_named_threshold_is_read(workspace: Path) -> None:
    options = TrainOptions.resolve({"threshold_rule": "f1"}).to_json()
    options["threshold"] = options.pop("threshold_rule")
    run_id = interrupted(workspace, options)
    assert read_config(run_id)["options"]["threshold_rule"] == "f1"
    assert "threshold" not in read_config(run_id)["options"]
    resumed, _ = recorded_options(TrainOptions.resolve({"resume": run_id}))
    assert resumed.decision.threshold_rule == "f1"


def test_a_run_of_another_command_is_refused(workspace: Path) -> None:
    run_id = interrupted(workspace, CvOptions.resolve({}).to_json())
    with pytest.raises(UserError, match=f"{run_id} was made by another command"):
        recorded_options(TrainOptions.resolve({"resume": run_id}))


def test_options_that_do_not_go_together_are_refused_without_the_resumed_run(
    workspace: Path,
) -> None:
    """A cross-validation without a final fit has no model to register."""
    run_id = interrupted(workspace, CvOptions.resolve({}).to_json())
    with pytest.raises(UserError, match="--register model"):
        recorded_options(CvOptions.resolve({"resume": run_id, "register": "model"}))


# --- the initial weights


@pytest.mark.parametrize(
    ("first", "then", "start"), [(offline, online, "random"), (online, offline, "imagenet")]
)
def test_initial_weights_are_those_of_the_first_start(
    data: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    first: Callable[..., Any],
    then: Callable[..., Any],
    start: str,
) -> None:
    monkeypatch.setattr(weights, "_download", first)
    begin(monkeypatch, "train", data, *TINY)
    (run,) = runs("train")
    capsys.readouterr()
    monkeypatch.setattr(weights, "_download", then)
    assert main(["train", data, *TINY, f"--resume={run.info.run_id}"]) == 0
    assert ("RANDOM weights" in capsys.readouterr().out) == (start == "random")
    (run,) = runs("train")
    assert run.data.params["model.start"] == start
    assert run.data.tags["synthdetect.weights"] == start
    card = provenance(run)
    assert card["weights"] == start
    assert card["weights_detail"] == run.data.params["model.start_detail"]


def test_a_removed_file_of_initial_weights_is_not_needed(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(online(), "first.pt")
    begin(monkeypatch, "train", data, *TINY, "--weights=first.pt")
    (run,) = runs("train")
    Path("first.pt").unlink()
    assert main(["train", data, *TINY, f"--resume={run.info.run_id}"]) == 0
    assert provenance(runs("train")[0])["weights"] == "file"


# --- the device, precision and threads


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Return a list that collects the threads and precision of every training from now on."""
    seen: list[tuple[int, str]] = []
    fit = Session.fit

    def spy(self: Session, *arguments: Any, **options: Any) -> None:
        seen.append((torch.get_num_threads(), self._device.precision))
        fit(self, *arguments, **options)

    monkeypatch.setattr(Session, "fit", spy)
    return seen


def test_a_training_resumes_with_its_precision_and_threads(
    data: str, monkeypatch: pytest.MonkeyPatch, two_threads: Callable[[], None]
) -> None:
    """The training began on a machine without bf16, with one thread."""
    given = ["train", data, *TINY, "--weights=none"]
    monkeypatch.setitem(ARCHITECTURES, "mobilenet_v3_large", _paying())
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: False)
    begin(monkeypatch, *given)
    (run,) = runs("train")
    two_threads()
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: True)
    seen = spied(monkeypatch)
    assert main([*given, f"--resume={run.info.run_id}"]) == 0
    assert seen == [(1, "fp32")]
    assert torch.get_num_threads() == 2
    assert main(given) == 0
    assert seen[1:] == [(2, "bf16")]


def _paying() -> Any:
    entry = ARCHITECTURES["mobilenet_v3_large"]
    return type(entry)(**{**vars(entry), "bf16_pays": True})


def test_folds_and_refit_resume_as_the_first_fold_began(
    data: str, monkeypatch: pytest.MonkeyPatch, two_threads: Callable[[], None]
) -> None:
    given = ["cv", data, *TINY, "--weights=none", "--folds=2", "--refit=true"]
    begin(monkeypatch, *given)
    (parent,) = runs("cv")
    two_threads()
    seen = spied(monkeypatch)
    assert main([*given, f"--resume={parent.info.run_id}", "--register=detector"]) == 0
    assert seen == [(1, "fp32")] * 3
    for run in (*runs("fold"), *runs("refit")):
        assert run.data.params["hardware.threads"] == "1"
        assert OTHERWISE not in run.data.tags
    (refit,) = runs("refit")
    said = refit.data.tags["mlflow.note.content"]
    assert "validation AUC" not in said
    assert "The last of " in said
    assert "by validation AUC" in runs("fold")[0].data.tags["mlflow.note.content"]
    version = MlflowClient().get_model_version_by_alias("detector", "champion")
    assert version.run_id == refit.info.run_id


def test_nothing_is_registered_of_folds_alone_though_they_are_gone_on_with(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(monkeypatch, "cv", data, *TINY, "--weights=none", "--folds=2")
    (parent,) = runs("cv")
    assert main(["cv", data, f"--resume={parent.info.run_id}", "--register=detector"]) == 2
    assert "--register detector" in capsys.readouterr().err


def begun(**changes: object) -> dict[str, str]:
    """Return what this machine would have recorded, with some changes."""
    facts = Device("cpu", "fp32", 0).describe() | changes
    return {f"hardware.{k}": str(v) for k, v in facts.items()} | environment()


@pytest.mark.parametrize(
    ("changes", "has_bf16", "precision", "said"),
    [
        ({}, True, "fp32", ""),
        ({"workers": 3, "memory_gib": 1}, True, "fp32", ""),
        ({"precision": "bf16"}, True, "bf16", ""),
        ({"precision": "bf16"}, False, "fp32", "hardware.precision bf16, now fp32"),
        ({"threads": 4096}, True, "fp32", "hardware.threads 4096, now 1"),
        ({"kind": "mps"}, True, "fp32", "hardware.kind mps, now cpu"),
        ({"name": "Another"}, True, "fp32", "hardware.name Another, now "),
    ],
)
def test_settings_that_cannot_be_kept_are_printed_and_tagged(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    has_bf16: bool,
    precision: str,
    said: str,
) -> None:
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: has_bf16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with open_run("r", kind="train", tags={}) as run:
        known = begun(**changes)
        with computing_as_begun(run, known, Device("cpu", "fp32", 2)) as device:
            assert device == Device("cpu", precision, 2)
    tag = MlflowClient().get_run(run.id).data.tags.get(OTHERWISE, "")
    assert tag.startswith(said)
    assert bool(tag) == bool(said)
    shown = " ".join(capsys.readouterr().out.split())
    assert said in shown
    assert ("other settings" in shown) == bool(said)


def test_a_run_without_recorded_settings_uses_the_given_device(workspace: Path) -> None:
    with open_run("r", kind="train", tags={}) as run:
        device = Device("cpu", "bf16", 1)
        with computing_as_begun(run, {}, device) as found:
            assert found is device
