"""Training on every kind of device that this machine has; kinds that it lacks are skipped."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.training.checkpoint import load, save
from synthdetect.training.devices import Device, deterministic
from synthdetect.training.loop import (
    Hooks,
    TrainingData,
    TrainingState,
    fit,
    predict,
    steps_of,
    train_epoch,
)
from tests.training.conftest import CPU, START
from tests.training.test_devices import KINDS
from tests.training.test_loop import CHANGED, Data, assert_same, data, start

__all__ = ["data"]  # a fixture

on_each = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.skipif(not there, reason=f"there is no {kind} device"))
        for kind, there in KINDS.items()
    ],
)


def batches(data: Data, device: Device, seed: int | None) -> Batches:
    images = ImageFiles(data.files, Preprocess(32, "center_crop"), targets=data.labels, seed=seed)
    order = Order(len(data.files), 8, seed=seed)
    return Batches(images, order, device.workers, pin_memory=device.pin_memory)


def data_of(data: Data, device: Device) -> TrainingData:
    return TrainingData(
        batches(data.part(0, 60), device, 0), batches(data.part(60, 100), device, None)
    )


def trained(data: Data, device: Device, *, epochs: int = 2) -> TrainingState:
    training = start(2, device=device, **CHANGED)
    with deterministic(0):
        fit(training, data_of(data, device), Hooks(), epochs=epochs)
    return training


@on_each
def test_it_learns_what_the_cpu_learns(data: Data, kind: str) -> None:
    here, there = (trained(data, device) for device in (CPU, Device(kind, "fp32", 0)))
    for mine, others in zip(here.progress.history, there.progress.history, strict=True):
        assert others["train/loss"] == pytest.approx(mine["train/loss"], rel=0.02)
        assert others["val/auc"] == pytest.approx(mine["val/auc"], abs=0.05)


@on_each
def test_it_resumes_to_the_last_bit(data: Data, kind: str, tmp_path: Path) -> None:
    device = Device(kind, "fp32", 0)
    save(tmp_path / "last.safetensors", trained(data, device, epochs=1), START)
    resumed = start(2, device=device, weights=9, **CHANGED)
    load(tmp_path / "last.safetensors", resumed)
    with deterministic(0):
        fit(resumed, data_of(data, device), Hooks())
    assert_same(trained(data, device), resumed)


@on_each
def test_a_network_scores_as_on_the_cpu(data: Data, kind: str) -> None:
    network = trained(data, CPU).network
    there = copy.deepcopy(network).to(Device(kind, "fp32", 0).torch)
    scores = [
        predict(one, batches(data, device, None).epoch(0), device, len(data.files))
        for one, device in ((network, CPU), (there, Device(kind, "fp32", 0)))
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=0, atol=1e-3)


@pytest.mark.skipif(not KINDS["cuda"], reason="there is no cuda device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_device(data: Data, precision: str) -> None:
    """Torch raises at whatever waits, from the first step to the last."""
    device = Device("cuda", precision, 2)
    training = start(1, device=device, **CHANGED, average="ema", clip_norm=1.0)

    class Watching(Hooks):
        steps = 0

        def on_batch(self, images: int, loss: float) -> None:
            self.steps += 1
            torch.cuda.set_sync_debug_mode("error" if self.steps < 8 else "default")

    hooks = Watching()
    try:
        train_epoch(training, steps_of(training, data_of(data, device), 1), hooks)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert hooks.steps == 8
