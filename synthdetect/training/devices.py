"""The device that computes, the precision of its steps, and what is recorded about both."""

import contextlib
import os
import platform
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from shutil import which
from typing import Any

import psutil
import torch
from torch.amp.grad_scaler import GradScaler

from synthdetect.models.spec import architecture
from synthdetect.system.errors import UserError

_TF32_CAPABILITY = (8, 0)  # Ampere
_MPS_FALLBACK = re.compile(r"operator '([^']+)' is not currently supported on the MPS backend")
_NONDETERMINISTIC = re.compile(
    r"(.+?) (?:does not have a deterministic implementation|defaults to a non-deterministic alg)"
    r"|.*is not deterministic because it uses (CuBLAS)"
)
_TYPES = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A device and the precision of training steps on it.

    Attributes:
        kind: `cpu`, `cuda` or `mps`.
        precision: `fp32`, `tf32`, `bf16` or `fp16`; evaluation always uses fp32.
        workers: Processes that read images; 0 reads them in the training process.
    """

    kind: str
    precision: str
    workers: int

    @property
    def torch(self) -> torch.device:
        """The device of torch."""
        return torch.device(self.kind)

    @property
    def pin_memory(self) -> bool:
        """Whether batches are read into pinned memory, so that copying them needs no waiting."""
        return self.kind == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context for the forward pass of a training step."""
        dtype = _TYPES[self.precision]
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=dtype)

    def scaler(self) -> GradScaler:
        """Return a loss scaler; only that of fp16 is enabled."""
        return GradScaler(self.kind, enabled=self.precision == "fp16")

    def describe(self) -> dict[str, Any]:
        """Return facts for the record: kind, name, memory, cores, instruction set, driver."""
        facts: dict[str, Any] = {
            "kind": self.kind,
            "precision": self.precision,
            "workers": self.workers,
            "threads": torch.get_num_threads(),
            "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "platform": platform.platform(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "name": platform.processor() or platform.machine(),
            "driver": "none",
        }
        if self.kind == "cpu":
            facts["name"] = torch.cpu.get_capabilities().get("cpu_name", facts["name"])
            facts["bf16_instructions"] = _cpu_has_bf16()
        elif self.kind == "cuda":
            properties = torch.cuda.get_device_properties(torch.cuda.current_device())
            facts["name"] = properties.name
            facts["memory_gib"] = round(properties.total_memory / 2**30, 1)
            facts["driver"] = f"CUDA {torch.version.cuda}"
        else:
            facts["driver"] = f"Metal, macOS {platform.mac_ver()[0]}"
            facts["fallback_enabled"] = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == "1"
        return facts


def resolve(
    device: str, precision: str, workers: str, arch: str = "", processes: int = 1
) -> Device:
    """Turn options into a device that exists.

    `auto` prefers CUDA to MPS to the CPU, and bf16 if the hardware supports it and the architecture
    gains by it.

    Args:
        device: `auto`, `cuda`, `mps` or `cpu`.
        precision: `auto`, `fp32`, `tf32`, `bf16` or `fp16`.
        workers: `auto` or a number.
        arch: Architecture that is trained; matters only to `auto` precision.
        processes: Processes among which the cores of this machine are divided; matters only to
            `auto` workers.

    Raises:
        UserError: If the device does not exist here, or does not support the precision.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    kind = next(k for k, v in there.items() if v) if device == "auto" else device
    if not there[kind]:
        usable = ", ".join(k for k, v in there.items() if v)
        raise UserError(f"--device: {kind} is not available here; usable: auto, {usable}.")
    if precision == "auto":
        has_bf16 = {
            "cpu": lambda: _cpu_has_bf16() and (not arch or architecture(arch).bf16_pays),
            "cuda": lambda: bool(torch.cuda.is_bf16_supported()),  # type: ignore[no-untyped-call]
            "mps": lambda: False,
        }[kind]()
        precision = "bf16" if has_bf16 else "fp32"
    if kind == "cpu" and precision == "fp16":
        raise UserError("--precision: fp16 does not train on a CPU; use bf16 or fp32.")
    if precision == "tf32" and not (
        kind == "cuda" and torch.cuda.get_device_capability() >= _TF32_CAPABILITY
    ):
        raise UserError(
            "--precision: tf32 needs a CUDA device of compute capability 8.0 or higher; use bf16 "
            "or fp32."
        )
    return Device(kind, precision, _workers(kind, workers, processes))


def require_compiler(device: Device) -> None:
    """Check that `torch.compile` finds what makes its code.

    Raises:
        UserError: If the device is MPS, or there is no compiler.
    """
    if device.kind == "mps":
        raise UserError("--compile true: is for CUDA and the CPU. Leave it out.")
    names = (
        ("CXX", "c++", "g++", "clang++") if device.kind == "cpu" else ("CC", "cc", "gcc", "clang")
    )
    if not any(which(os.environ.get(name, name)) for name in names):
        raise UserError(
            f"--compile true: no compiler is found ({', '.join(names[1:])}). Install one, or leave "
            "the option out."
        )
    if device.kind == "cuda" and not find_spec("triton"):
        raise UserError("--compile true: needs the package triton. Install it, or leave it out.")


@dataclass(frozen=True)
class Operators:
    """Operators that did not compute as they were asked to.

    Attributes:
        fallback: Those that ran on the CPU because MPS lacks them.
        nondeterministic: Those without a deterministic form on the device, by their names in torch.
    """

    fallback: set[str] = field(default_factory=set)
    nondeterministic: set[str] = field(default_factory=set)

    def describe(self) -> dict[str, str]:
        """Return the names by attribute, separated by commas, or `none`, for the record."""
        found = {"fallback": self.fallback, "nondeterministic": self.nondeterministic}
        return {name: ", ".join(sorted(names)) or "none" for name, names in found.items()}


@contextlib.contextmanager
def noting_operators() -> Iterator[Operators]:
    """Collect the operators that torch warns of, whose warnings are not shown."""
    operators = Operators()

    def note(message: Warning | str, *details: Any, **more: Any) -> None:
        text = str(message)
        if found := _MPS_FALLBACK.search(text):
            operators.fallback.add(found[1])
        elif found := _NONDETERMINISTIC.match(text):
            operators.nondeterministic.add(found[1] or found[2])
        else:
            before(message, *details, **more)

    with warnings.catch_warnings():
        for pattern in (_MPS_FALLBACK, _NONDETERMINISTIC):
            # By default Python passes on each warning once in the life of the process only.
            warnings.filterwarnings("always", f".*(?:{pattern.pattern})")
        before = warnings.showwarning
        warnings.showwarning = note
        yield operators


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in CUDA's products and convolutions of fp32; restore it afterwards.

    TF32 rounds the factors to 10 bits of mantissa. By default torch allows it in convolutions.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Compute with a number of threads if there are as many cores; restore it afterwards.

    The number of threads decides how sums are split, and thereby their last bits. Libraries need
    not respect a number that is larger than that of the cores.
    """
    before = torch.get_num_threads()
    if 0 < threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _workers(kind: str, workers: str, processes: int) -> int:
    if workers != "auto":
        return int(workers)
    if kind == "cpu":
        # The network uses every core, and a worker beside it makes its threads wait for each
        # other: reading between the steps keeps .97 of the speed of the bare step, one worker .9.
        return 0
    return min(8, max((os.cpu_count() or 1) // processes - 1, 0))


def _cpu_has_bf16() -> bool:
    facts = torch.cpu.get_capabilities()
    return any(facts.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextlib.contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Seed torch, request deterministic algorithms and forbid TF32; restore both afterwards.

    An operator without a deterministic form still computes, with a warning that
    `noting_operators` records.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's condition for it
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Torch would fill each new tensor before it is written: a twelfth of the time of a step.
    memory.fill_uninitialized_memory = False
    torch.manual_seed(seed)
    try:
        with tf32(allowed=False):
            yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
