"""A session trains from options and data, and keeps its state in a folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from synthdetect.datasets.prepare import Prepared, prepare
from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import Start
from synthdetect.system.errors import UserError
from synthdetect.training import checkpoint, session
from synthdetect.training.loop import Hooks, TrainingState, start_training
from synthdetect.training.session import BEST, LAST, Session, model_spec
from tests.training.conftest import CPU, Tiny, options_of

GIVEN: dict[str, Any] = {"image_size": 32, "batch_size": 8, "epochs": 3, "weights": "none"}


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sessions build tiny networks, the same each time."""

    def build(spec: ModelSpec) -> Tiny:
        torch.manual_seed(0)
        return Tiny(dropout=0.5, spec=spec)

    monkeypatch.setattr(session, "build", build)
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def prepared(small_table: pd.DataFrame, tmp_path: Path) -> Prepared:
    """Eight images of each class in train and val, and four in test."""
    sizes = {"train": 8, "val": 8, "test": 4}
    parts = [
        rows.head(sizes.get(str(split), 0))
        for (split, _), rows in small_table.groupby(["split", "label"])
    ]
    path = tmp_path / "data.csv"
    pd.concat(parts).to_csv(path, index=False)
    return prepare(options_of(data=str(path)).data, seed=1)


def made(prepared: Prepared, folder: Path, **given: Any) -> Session:
    return Session(options_of(**{**GIVEN, **given}), prepared, CPU, folder)


def tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def read(path: Path, **given: Any) -> TrainingState:
    """The training that a checkpoint holds."""
    options = options_of(**{**GIVEN, **given})
    training = start_training(Tiny(spec=model_spec(options)), CPU, options)
    checkpoint.load(path, training)
    return training


def test_the_specification_is_that_of_the_options() -> None:
    options = options_of(arch="resnet50", image_size=96, front_end="npr")
    assert model_spec(options) == ModelSpec.of("resnet50", 96, "npr")


def test_every_epoch_is_on_disk_before_the_hook_is_called(
    prepared: Prepared, tmp_path: Path
) -> None:
    calls: list[str] = []

    class Checking(Hooks):
        def on_batch(self, images: int, loss: float) -> None:
            calls.append("batch")

        def on_epoch(self, training: TrainingState) -> None:
            calls.append(f"epoch {training.progress.epoch}")
            kept = read(tmp_path / LAST)
            assert kept.progress == training.progress
            assert_equal(tensors(kept.network), tensors(training.network))
            assert (tmp_path / BEST).is_file()

    made(prepared, tmp_path).fit(Checking())
    epoch = ["batch"] * 3  # two of training and one of validation
    assert calls == [*epoch, "epoch 1", *epoch, "epoch 2", *epoch, "epoch 3"]


def test_the_weights_afterwards_are_those_of_the_best_epoch(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is the second, whatever the network learns."""
    weights: list[dict[str, torch.Tensor]] = []
    aucs = iter([0.6, 0.8, 0.7])

    def metrics(name: str, *_: Any) -> dict[str, float]:
        return {f"{name}/auc": next(aucs)} if name == "val" else {}

    class Keeping(Hooks):
        def on_epoch(self, training: TrainingState) -> None:
            weights.append(tensors(training.network))

    monkeypatch.setattr("synthdetect.training.loop.epoch_metrics", metrics)
    trained = made(prepared, tmp_path)
    trained.fit(Keeping())
    assert trained.training.progress.best_epoch == 2
    assert_equal(tensors(trained.network), weights[1])
    assert_equal(tensors(read(tmp_path / LAST).network), weights[2])
    assert not torch.equal(weights[1]["last.weight"], weights[2]["last.weight"])


def test_without_validation_images_the_weights_are_those_of_the_last_epoch(
    prepared: Prepared, tmp_path: Path
) -> None:
    table = prepared.manifest.table
    manifest = prepared.manifest.with_table(table[table["split"] != "val"])
    trained = made(Prepared(manifest, prepared.excluded, frozenset(), ()), tmp_path)
    trained.fit(Hooks())
    assert trained.training.progress.best_epoch == 3
    assert_equal(tensors(trained.network), tensors(read(tmp_path / LAST).network))


@pytest.mark.parametrize(
    "given", [{}, {"front_end": "npr", "warmup_epochs": 2, "accumulate": 2, "clip_norm": 0.1}]
)
def test_a_session_goes_on_where_an_earlier_one_stopped(
    prepared: Prepared, tmp_path: Path, given: dict[str, Any]
) -> None:
    whole = made(prepared, tmp_path / "whole", **given)
    whole.fit(Hooks())
    made(prepared, tmp_path / "parts", **given).fit(Hooks(), epochs=1)
    assert read(tmp_path / "parts" / LAST, **given).progress.epoch == 1
    # It needs no initial weights any more.
    resumed = made(prepared, tmp_path / "parts", **{**given, "weights": "absent.pt"})
    assert resumed.start == whole.start == Start("random", "asked for")
    resumed.fit(Hooks())
    first, second = (read(tmp_path / name / LAST, **given) for name in ("whole", "parts"))
    assert_equal(tensors(first.network), tensors(second.network))
    assert_equal(tensors(whole.network), tensors(resumed.network))
    for split, logits in whole.score(["val", "test"]).items():
        assert np.array_equal(resumed.score([split])[split], logits)


def test_a_folder_of_another_network_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    made(prepared, tmp_path).fit(Hooks(), epochs=1)
    with pytest.raises(UserError, match="front_end"):
        made(prepared, tmp_path, front_end="npr")


def test_scores_are_in_the_order_of_the_manifest(prepared: Prepared, tmp_path: Path) -> None:
    trained = made(prepared, tmp_path)
    counted: list[int] = []
    scores = trained.score(["test", "val"], lambda images, loss: counted.append(images))
    assert {split: len(logits) for split, logits in scores.items()} == {"test": 8, "val": 16}
    assert sum(counted) == 24
    table = prepared.manifest.table
    backwards = prepared.manifest.with_table(table.iloc[::-1].reset_index(drop=True))
    other = Session(
        options_of(**GIVEN), Prepared(backwards, prepared.excluded, frozenset(), ()), CPU, tmp_path
    )
    reversed_ = other.score(["test"])["test"][::-1]
    np.testing.assert_allclose(reversed_, scores["test"], atol=1e-5)
    assert len(np.unique(scores["test"])) == 8
