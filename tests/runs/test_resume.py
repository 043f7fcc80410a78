"""A run that goes on is what it began as: its first weights, its numbers, its record."""

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
from synthdetect.models import weights
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.runs.resume import OTHERWISE, computing_as_begun
from synthdetect.tracking import evaluation
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.provenance import environment
from synthdetect.tracking.run import Run as Logged
from synthdetect.training import devices
from synthdetect.training.devices import Device
from synthdetect.training.session import Session

TINY = ["--arch=mobilenet_v3_large", "--image-size=32", "--batch-size=16", "--lr=1e-3",
        "--epochs=2"]  # fmt: skip


@pytest.fixture
def data(workspace: Path, small_table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> str:
    """Some images' manifest. No figures are drawn, which take most of a small run's time."""
    monkeypatch.setattr(evaluation, "draw", lambda *details: ())
    table = small_table[small_table["split"].isin(["train", "val", "test"])]
    table = table.groupby("split", group_keys=False).sample(24, random_state=0)
    table.to_csv("small.csv", index=False)
    return "--data=small.csv"


@pytest.fixture
def two_threads() -> Iterator[Callable[[], None]]:
    """Have what follows compute with two threads, until the test is over."""
    before = torch.get_num_threads()
    yield lambda: torch.set_num_threads(2)
    torch.set_num_threads(before)


def begin(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Start a command that is interrupted once an epoch is on disk."""

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
    """What could be ImageNet's weights."""
    return dict(torchvision.models.get_model("mobilenet_v3_large", weights=None).state_dict())


@pytest.mark.parametrize(
    ("first", "then", "start"), [(offline, online, "random"), (online, offline, "imagenet")]
)
def test_first_weights_are_those_that_there_were(
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


def test_first_weights_that_are_gone_are_needed_no_more(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(online(), "first.pt")
    begin(monkeypatch, "train", data, *TINY, "--weights=first.pt")
    (run,) = runs("train")
    Path("first.pt").unlink()
    assert main(["train", data, *TINY, f"--resume={run.info.run_id}"]) == 0
    assert provenance(runs("train")[0])["weights"] == "file"


# --- in the numbers in which it began


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Threads and precision of every training to come."""
    seen: list[tuple[int, str]] = []
    fit = Session.fit

    def spy(self: Session, *arguments: Any, **options: Any) -> None:
        seen.append((torch.get_num_threads(), self._device.precision))
        fit(self, *arguments, **options)

    monkeypatch.setattr(Session, "fit", spy)
    return seen


def test_a_training_goes_on_in_the_numbers_in_which_it_began(
    data: str, monkeypatch: pytest.MonkeyPatch, two_threads: Callable[[], None]
) -> None:
    """It began on a machine without bf16, with one thread."""
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


def test_folds_and_refit_go_on_as_the_first_fold_began(
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
    """What this machine would have recorded, but for some of it."""
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
def test_what_cannot_be_as_it_was_is_said_and_tagged(
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


def test_a_run_that_had_recorded_nothing_computes_as_this_machine_does(workspace: Path) -> None:
    with open_run("r", kind="train", tags={}) as run:
        device = Device("cpu", "bf16", 1)
        with computing_as_begun(run, {}, device) as found:
            assert found is device
