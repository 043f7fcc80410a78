"""A checkpoint gives everything back exactly, survives SIGKILL, and never executes anything."""

import dataclasses
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_optimizer import Lookahead
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import Start
from synthdetect.system.errors import UserError
from synthdetect.training import checkpoint
from synthdetect.training.checkpoint import FORMAT, load, load_network, save_network
from synthdetect.training.loop import Progress, TrainingState, start_training
from synthdetect.training.options import OPTIMIZERS
from tests.training.conftest import CPU, SPEC, Tiny, options_of

START = Start("file", "0123abcd")


def fresh(
    seed: int,
    *,
    width: int = 8,
    spec: ModelSpec = SPEC,
    lr: float = 0.01,
    scaler: bool = False,
    **options: Any,
) -> TrainingState:
    torch.manual_seed(seed)
    given = {"lr": lr, "weight_decay": 0.1, "epochs": 5, **options}
    training = start_training(Tiny(width=width, spec=spec), CPU, options_of(**given))
    training.scaler = GradScaler("cpu", enabled=scaler, init_scale=1024.0, growth_interval=3)
    return training


def step(training: TrainingState, seed: int) -> None:
    """One step on noise, and one of the schedule."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=generator)
    training.network.train()
    training.optimizer.zero_grad(set_to_none=True)
    loss = nn.functional.binary_cross_entropy_with_logits(
        training.network(images), torch.tensor([0.0, 1.0, 0.0, 1.0])
    )
    training.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.schedule.step()


def save(path: Path, training: TrainingState) -> None:
    checkpoint.save(path, training, START)


def trained(scaler: bool = False, **options: Any) -> TrainingState:
    training = fresh(0, scaler=scaler, **options)
    for seed in range(3):
        step(training, seed)
        training.progress = training.progress.after(
            {"val/auc": [0.7, 0.1 + 0.2, 0.6][seed], "train/loss": 1 / 3, "lr": math.nan}
        )
    return training


def states(training: TrainingState) -> dict[str, Any]:
    return {
        part: getattr(training, part).state_dict()
        for part in ("network", "objective", "optimizer", "schedule", "scaler")
    }


def assert_equal(first: Any, second: Any, where: str = "") -> None:
    """The same to the last bit, and of the same type but for tuples, which JSON makes lists."""
    if isinstance(first, tuple):
        first, second = list(first), list(second)
    assert type(first) is type(second), where
    if isinstance(first, Tensor):
        assert first.dtype == second.dtype, where
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal(a, b, f"{where}.{i}")
    else:
        assert first == second or (first != first and second != second), where


def refusal(path: Path, training: TrainingState) -> str:
    with pytest.raises(UserError) as caught:
        load(path, training)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- what comes back


@pytest.mark.parametrize("scaler", [False, True])
def test_everything_comes_back_exactly(tmp_path: Path, scaler: bool) -> None:
    training = trained(scaler)
    save(tmp_path / "last.safetensors", training)
    other = fresh(1, lr=0.5, scaler=scaler)
    load(tmp_path / "last.safetensors", other)
    for part in ("network", "optimizer", "scaler"):
        assert_equal(states(training)[part], states(other)[part], part)
    schedule, schedule_read = states(training)["schedule"], states(other)["schedule"]
    assert {k: schedule_read[k] for k in schedule} == schedule
    assert_equal(dataclasses.asdict(training.progress), dataclasses.asdict(other.progress))
    assert other.progress.best_epoch == 1
    assert len(states(other)["scaler"]) == (5 if scaler else 0)


def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    training = trained(scaler=True)
    save(tmp_path / "last.safetensors", training)
    other = fresh(1, scaler=True)
    load(tmp_path / "last.safetensors", other)
    for seed in (10, 11):
        step(training, seed)
        step(other, seed)
    for part in ("network", "optimizer", "scaler"):
        assert_equal(states(training)[part], states(other)[part], part)
    assert training.schedule.get_last_lr() == other.schedule.get_last_lr()


def test_where_the_first_weights_came_from_comes_back_too(tmp_path: Path) -> None:
    save(tmp_path / "last.safetensors", trained())
    assert load(tmp_path / "last.safetensors", fresh(1)) == START


def test_a_training_that_has_not_begun_comes_back_too(tmp_path: Path) -> None:
    save(tmp_path / "last.safetensors", fresh(0))
    other = trained()
    load(tmp_path / "last.safetensors", other)
    assert other.progress == Progress(0, 0, -math.inf, [])
    assert states(other)["optimizer"]["state"] == {}


def test_saving_changes_nothing(tmp_path: Path) -> None:
    training, same = trained(), trained()
    save(tmp_path / "last.safetensors", training)
    for part in ("network", "optimizer", "scaler"):
        assert_equal(states(training)[part], states(same)[part], part)
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_moments_lie_in_memory_as_their_parameters_do(tmp_path: Path) -> None:
    """Fused AdamW walks a parameter and its moments side by side, whatever their strides say."""
    save(tmp_path / "last.safetensors", trained())
    other = fresh(1)
    load(tmp_path / "last.safetensors", other)
    weight = other.network.get_parameter("convolution.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    for parameter, state in other.optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            assert state[name].stride() == parameter.stride()
        assert state["step"].tolist() == 3.0


def test_what_lookahead_keeps_lies_in_memory_as_its_parameters_do(tmp_path: Path) -> None:
    """Its own slow weights, and the moments of the AdamW that it goes around."""
    save(tmp_path / "last.safetensors", trained(optimizer="lookahead"))
    other = fresh(1, optimizer="lookahead")
    load(tmp_path / "last.safetensors", other)
    assert isinstance(other.optimizer, Lookahead)
    for parameter in other.network.parameters():
        kept = {**other.optimizer.state[parameter], **other.optimizer.optimizer.state[parameter]}
        assert {"slow_params", "exp_avg", "exp_avg_sq"} <= set(kept)
        for name in ("slow_params", "exp_avg", "exp_avg_sq"):
            assert kept[name].stride() == parameter.stride()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("further", [{}, {"decay_norms": False, "warmup_epochs": 4}], ids=str)
def test_every_optimizer_comes_back_exactly_and_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, optimizer: str, further: dict[str, Any]
) -> None:
    """With two groups of parameters too, and in the middle of a warm-up."""
    given: dict[str, Any] = {"optimizer": optimizer, "lookahead_steps": 2, **further}
    training = trained(scaler=True, **given)
    save(tmp_path / "last.safetensors", training)
    other = fresh(1, scaler=True, **given)
    load(tmp_path / "last.safetensors", other)
    for seed in (10, 11, 12):
        for part in ("network", "optimizer", "scaler"):
            assert_equal(states(training)[part], states(other)[part], part)
        step(training, seed)
        step(other, seed)
    assert training.schedule.get_last_lr() == other.schedule.get_last_lr()


def test_the_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save(path, trained(optimizer="sgd"))
    assert "does not fit" in refusal(path, fresh(1, optimizer="lookahead"))


def test_folders_are_made(tmp_path: Path) -> None:
    save(tmp_path / "runs" / "abc" / "last.safetensors", trained())
    save_network(tmp_path / "runs" / "def" / "best.safetensors", Tiny())
    assert (tmp_path / "runs" / "def" / "best.safetensors").is_file()


def test_a_networks_weights_alone_come_back_exactly(tmp_path: Path) -> None:
    network = trained().network
    save_network(tmp_path / "best.safetensors", network)
    other = Tiny()
    load_network(tmp_path / "best.safetensors", other)
    assert_equal(dict(network.state_dict()), dict(other.state_dict()))


# --- what is refused


@pytest.mark.parametrize("kept", [0, 7, 300, -1, -500])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "last.safetensors"
    save(path, trained())
    path.write_bytes(path.read_bytes()[:kept])
    refusal(path, fresh(1))


def rewritten(path: Path, **changes: Any) -> None:
    """Replace entries of a checkpoint's tree."""
    with safe_open(path, framework="pt") as file:
        tree = json.loads(file.metadata()["checkpoint"])
    save_file(load_file(path), path, {"checkpoint": json.dumps(tree | changes)})


@pytest.mark.parametrize("number", [0, FORMAT - 1, FORMAT + 1, None, str(FORMAT)])
def test_another_format_is_refused_by_number(tmp_path: Path, number: Any) -> None:
    path = tmp_path / "last.safetensors"
    save(path, trained())
    rewritten(path, format=number)
    message = refusal(path, fresh(1))
    assert f"checkpoint format {number}" in message
    assert f"reads {FORMAT}" in message


def test_what_has_changed_since_it_was_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save(path, trained())
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    for place in (whole.index(b"progress"), 8 + header + 10, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "has changed since it was written" in refusal(path, fresh(1))
    save_network(path, Tiny())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"last\.safetensors: "):
        load_network(path, Tiny())


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save(path, trained())
    assert "does not fit this configuration" in refusal(path, fresh(1, width=9))


@pytest.mark.parametrize(
    "spec",
    [
        dataclasses.replace(SPEC, arch="resnet34"),
        dataclasses.replace(SPEC, image_size=64),
        dataclasses.replace(SPEC, front_end="npr"),
        dataclasses.replace(SPEC, mean=(0.5, 0.456, 0.406)),
        dataclasses.replace(SPEC, std=(0.5, 0.224, 0.225)),
    ],
    ids=["arch", "image_size", "front_end", "mean", "std"],
)
def test_a_checkpoint_of_another_specification_is_refused(tmp_path: Path, spec: ModelSpec) -> None:
    """Even if every tensor would fit; the training stays as it was."""
    path = tmp_path / "last.safetensors"
    save(path, trained())
    other = fresh(1, spec=spec)
    before = states(fresh(1, spec=spec))["network"]
    message = refusal(path, other)
    field = next(f for f in dataclasses.asdict(spec) if getattr(spec, f) != getattr(SPEC, f))
    assert field in message
    assert_equal(states(other)["network"], before)
    assert other.progress == Progress()


def test_a_checkpoint_of_an_equal_specification_is_read(tmp_path: Path) -> None:
    """A specification comes back from JSON with lists for tuples."""
    path = tmp_path / "last.safetensors"
    save(path, trained())
    load(path, fresh(1, spec=ModelSpec.of(SPEC.arch, SPEC.image_size, SPEC.front_end)))


def test_a_tensor_that_is_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save(path, trained())
    tensors, text = checkpoint._read(path)
    del tensors["network.last.weight"]
    checkpoint._write(path, tensors, text)
    assert "network.last.weight" in refusal(path, fresh(1))


def test_plain_weights_are_no_checkpoint(tmp_path: Path) -> None:
    save_network(tmp_path / "best.safetensors", Tiny())
    assert "not a checkpoint" in refusal(tmp_path / "best.safetensors", fresh(1))


@pytest.mark.parametrize("text", ["not json", "[1]", "null"])
def test_a_header_that_is_no_checkpoints_is_refused(tmp_path: Path, text: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", {"checkpoint": text})
    refusal(tmp_path / "odd.safetensors", fresh(1))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "absent.safetensors", fresh(1))
    with pytest.raises(UserError, match=r"absent\.safetensors"):
        load_network(tmp_path / "absent.safetensors", Tiny())


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (open, (str(self.trace), "w"))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_executed(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "last.safetensors", tmp_path / "executed"
    if how == "torch":
        torch.save({"network": Bomb(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(trace)))
    refusal(path, fresh(1))
    with pytest.raises(UserError, match=r"last\.safetensors"):
        load_network(path, Tiny())
    assert not trace.exists()


def test_other_networks_weights_are_refused(tmp_path: Path) -> None:
    save_network(tmp_path / "best.safetensors", Tiny(width=9))
    with pytest.raises(UserError, match=r"best\.safetensors"):
        load_network(tmp_path / "best.safetensors", Tiny())


def test_what_a_checkpoint_cannot_hold_is_named_when_it_is_saved(tmp_path: Path) -> None:
    training = fresh(0)
    training.optimizer.param_groups[0]["note"] = {1, 2}
    with pytest.raises(TypeError, match=r"optimizer.*note is a set"):
        save(tmp_path / "last.safetensors", training)
    assert os.listdir(tmp_path) == []


# --- SIGKILL

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from torch import nn
from synthdetect.training.checkpoint import load, save
from synthdetect.training.loop import start_training
from tests.training.conftest import CPU, SPEC, START, options_of

torch.set_num_threads(1)
path = Path(sys.argv[1])

def made():
    network = nn.Sequential(*[nn.Linear(500, 500) for _ in range(8)])  # 8 MB
    network.spec = SPEC
    return start_training(network, CPU, options_of())

training, read = made(), made()
random.seed(0)
parent = os.getpid()
for attempt in range(10):
    child = os.fork()
    if not child:
        number = read.progress.epoch
        # Save as fast as it goes, until the parent is gone; a checkpoint is its number everywhere.
        while os.getppid() == parent:
            number += 1
            for parameter in training.network.parameters():
                parameter.data.fill_(number)
            training.progress = type(training.progress)(number, 0, 0.0, [])
            save(path, training, START)
        os._exit(1)
    while not path.exists():
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    before = read.progress.epoch
    load(path, read)
    numbers = {float(n) for p in read.network.parameters() for n in p.detach().aminmax()}
    assert numbers == {float(read.progress.epoch)}, (numbers, read.progress.epoch)
    assert read.progress.epoch >= before
print("saved", read.progress.epoch, "left", len(list(path.parent.iterdir())) - 1)
"""


def test_sigkill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "last.safetensors")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    word, saved, _, left = done.stdout.split()
    assert word == "saved"
    assert int(saved) >= 1
    assert 1 <= int(left) <= 10  # some were indeed killed in the middle
