"""Devices and precisions: what is refused, what `auto` takes, and what the record says."""

import os
import warnings
from pathlib import Path

import pytest
import torch

from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.system.errors import UserError
from synthdetect.training.devices import (
    Device,
    computing_with,
    deterministic,
    noting_operators,
    require_compiler,
    resolve,
    tf32,
)
from tests.training.conftest import CPU

KINDS = {
    "cuda": torch.cuda.is_available(),
    "mps": torch.backends.mps.is_available(),
    "cpu": True,
}


@pytest.mark.parametrize("kind", [kind for kind, there in KINDS.items() if not there])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(kind: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(kind, "auto", "0")
    usable = ", ".join(k for k, there in KINDS.items() if there)
    assert str(caught.value) == f"--device: {kind} is not available here; usable: auto, {usable}."


def test_half_precision_is_refused_on_a_cpu() -> None:
    with pytest.raises(UserError, match="--precision: fp16 does not train on a CPU"):
        resolve("cpu", "fp16", "0")


def test_auto_takes_the_fastest_device_there_is() -> None:
    assert resolve("auto", "fp32", "0").kind == next(k for k, there in KINDS.items() if there)


def test_auto_precision_is_bf16_only_where_the_cpu_has_instructions_for_it() -> None:
    device = resolve("cpu", "auto", "0")
    assert device.precision == ("bf16" if device.describe()["bf16_instructions"] else "fp32")


@pytest.mark.parametrize("arch", [name for name, a in ARCHITECTURES.items() if not a.bf16_pays])
def test_auto_precision_is_fp32_on_a_cpu_for_what_is_slower_in_bf16(arch: str) -> None:
    assert resolve("cpu", "auto", "0", arch).precision == "fp32"
    assert resolve("cpu", "auto", "0", "resnet18") == resolve("cpu", "auto", "0")
    assert resolve("cpu", "bf16", "0", arch).precision == "bf16"


def test_processes_divide_the_cores_for_reading_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    found = {n: resolve("cuda", "fp32", "auto", processes=n).workers for n in (1, 4, 16)}
    assert found == {1: 8, 4: 3, 16: 0}
    assert resolve("cuda", "fp32", "5", processes=16).workers == 5


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_compiler(CPU)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--compile true: no compiler is found \(c\+\+, g\+\+"):
        require_compiler(CPU)
    with pytest.raises(UserError, match=r"\(cc, gcc, clang\)"):
        require_compiler(Device("cuda", "bf16", 0))


def test_mps_does_not_compile() -> None:
    with pytest.raises(UserError, match="--compile true: is for CUDA and the CPU"):
        require_compiler(Device("mps", "fp32", 0))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_asked_for_is_what_one_gets(precision: str) -> None:
    assert resolve("cpu", precision, "3") == Device("cpu", precision, 3)


def test_auto_reads_in_the_training_process_on_a_cpu() -> None:
    assert resolve("cpu", "fp32", "auto").workers == 0


def test_the_forward_pass_runs_in_the_precision_asked_for() -> None:
    layer, images = torch.nn.Linear(4, 2), torch.ones(3, 4)
    for precision, expected in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with Device("cpu", precision, 0).autocast():
            assert layer(images).dtype == expected
    assert layer(images).dtype == torch.float32


@pytest.mark.parametrize(("precision", "enabled"), [("fp32", False), ("bf16", False)])
def test_only_half_precision_scales_its_loss(precision: str, enabled: bool) -> None:
    assert Device("cpu", precision, 0).scaler().is_enabled() == enabled
    assert Device("cpu", "fp16", 0).scaler().is_enabled()


def test_the_record_says_what_computed() -> None:
    facts = Device("cpu", "fp32", 2).describe()
    assert {
        "kind", "precision", "workers", "threads", "cores", "memory_gib", "platform",
        "instruction_set", "name", "driver", "bf16_instructions",
    } == set(facts)  # fmt: skip
    assert (facts["kind"], facts["precision"], facts["workers"]) == ("cpu", "fp32", 2)
    assert facts["threads"] == torch.get_num_threads()
    assert facts["memory_gib"] > 0.5
    assert facts["cores"] >= 1
    assert facts["name"]
    assert isinstance(facts["bf16_instructions"], bool)


# --- operators that torch warns of

WARNING = (
    "The operator 'aten::{name}' is not currently supported on the MPS backend and will fall back "
    "to run on the CPU. This may have performance implications. (Triggered internally at x.mm:14.)"
)


def test_operators_that_fell_back_are_collected_and_not_shown() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with noting_operators() as operators:
            for name in ("grid_sampler", "linalg_qr", "grid_sampler"):
                warnings.warn(WARNING.format(name=name), UserWarning, stacklevel=1)
    assert operators.fallback == {"aten::grid_sampler", "aten::linalg_qr"}
    assert operators.describe()["fallback"] == "aten::grid_sampler, aten::linalg_qr"
    assert shown == []


def test_other_warnings_are_passed_on() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with noting_operators() as operators:
            warnings.warn("lr_scheduler before optimizer", UserWarning, stacklevel=1)
    assert operators.describe() == {"fallback": "none", "nondeterministic": "none"}
    assert [str(w.message) for w in shown] == ["lr_scheduler before optimizer"]


def test_afterwards_warnings_are_shown_as_before_even_after_an_error() -> None:
    before = warnings.showwarning
    with pytest.raises(KeyError), noting_operators():
        raise KeyError
    assert warnings.showwarning is before


def put() -> None:
    """An operator without a deterministic form, on any device."""
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))


def test_operators_without_a_deterministic_form_are_collected_in_every_run() -> None:
    """Python passes on a repeated warning once only, and one process may do several trainings."""
    for _ in range(2):
        with deterministic(0), noting_operators() as operators:
            put()
        assert operators.describe() == {"fallback": "none", "nondeterministic": "put_"}
    with noting_operators() as operators:
        put()  # nobody asked for determinism
    assert operators.nondeterministic == set()


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (
            "Memory Efficient attention defaults to a non-deterministic algorithm. To explicitly "
            "enable determinism call torch.use_deterministic_algorithms(True, warn_only=False).",
            "Memory Efficient attention",
        ),
        (
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms("
            "True)` or `at::Context::setDeterministicAlgorithms(true)`, but this operation is not "
            "deterministic because it uses CuBLAS and you have CUDA >= 10.2. To enable it, ...",
            "CuBLAS",
        ),
    ],
)
def test_what_has_another_warning_on_cuda_is_collected_too(message: str, name: str) -> None:
    with noting_operators() as operators:
        warnings.warn(message, UserWarning, stacklevel=1)
    assert operators.nondeterministic == {name}


# --- TF32


def allowed() -> tuple[bool, bool]:
    """Whether products and convolutions may round to TF32 on CUDA."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_tf32_is_forbidden_whatever_was_set_and_allowed_on_demand() -> None:
    before = allowed()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with deterministic(3):
            assert allowed() == (False, False)
            with tf32(allowed=True):
                assert allowed() == (True, True)
            assert allowed() == (False, False)
        with pytest.raises(KeyError), tf32(allowed=False):
            raise KeyError
        assert allowed() == (True, True)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_tf32_is_refused_without_a_device_that_has_it() -> None:
    with pytest.raises(UserError, match="--precision: tf32 needs a CUDA device"):
        resolve("cpu", "tf32", "0")


# --- determinism


def test_deterministic_seeds_and_restores() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with deterministic(3):
        assert torch.are_deterministic_algorithms_enabled()
        first = torch.rand(3)
    with deterministic(3):
        assert torch.equal(torch.rand(3), first)
    with deterministic(4):
        assert not torch.equal(torch.rand(3), first)
    assert torch.are_deterministic_algorithms_enabled() == before
    with pytest.raises(KeyError), deterministic(3):
        raise KeyError
    assert torch.are_deterministic_algorithms_enabled() == before


def test_as_many_threads_as_there_are_cores_are_set_and_taken_back() -> None:
    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    with computing_with(cores):
        assert torch.get_num_threads() == cores
    assert torch.get_num_threads() == before
    for impossible in (cores + 1, 0):
        with computing_with(impossible):
            assert torch.get_num_threads() == before
    with pytest.raises(KeyError), computing_with(cores):
        raise KeyError
    assert torch.get_num_threads() == before
