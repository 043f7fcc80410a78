"""The processes of one training: the first one tracks the run, the others follow it.

`synthdetect train --processes N` starts N - 1 further processes on this machine and ends them with
the training. Under torchrun, which may start processes on several machines, all run `synthdetect
train`, and those whose `RANK` is not 0 follow. A process that follows takes everything from the
first one (options, data, device), and neither opens a run nor writes a checkpoint.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import pandas as pd
import torch
from torch.distributed import FileStore  # type: ignore[attr-defined]

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared
from synthdetect.images.batches import Division
from synthdetect.runs.options import TrainOptions
from synthdetect.system.allocation import keep_freed_memory
from synthdetect.system.errors import UserError
from synthdetect.training.devices import Device, deterministic, noting_operators
from synthdetect.training.distributed import Group, ProcessLost, alone, joined
from synthdetect.training.loop import Hooks
from synthdetect.training.session import Session

AnyTrainOptions = TypeVar("AnyTrainOptions", bound=TrainOptions)

_MEETING = "SYNTHDETECT_MEETING"
"""Environment variable of the processes that this module starts: the file by which they meet."""

_HERE = "here/"
"""Key, with its rank, of a process that is about to join."""

_REFUSED = 3  # exit status of a process after a `UserError`, whose message it prints last, as JSON
_LOOKS_EVERY = 0.1  # seconds between two looks whether all processes are there
_NOTICES = 10.0  # seconds in which a process notices by itself that another one has ended


def by_torchrun() -> bool:
    """Whether torchrun, or what sets the same variables, started this process beside others."""
    given = os.environ
    return "MASTER_ADDR" in given and "RANK" in given and int(given.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Whether this process follows another one."""
    return by_torchrun() and int(os.environ["RANK"]) > 0


def processes_here(options: TrainOptions) -> int:
    """Return how many processes train on this machine."""
    return (
        int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if by_torchrun()
        else options.parallel.processes
    )


def local_processes(options: TrainOptions) -> int:
    """Return among how many processes `together` divides the cores of this machine.

    torchrun has done so itself.
    """
    return 1 if by_torchrun() else options.parallel.processes


def with_processes(options: AnyTrainOptions) -> AnyTrainOptions:
    """Return the options with the number of processes that torchrun started, and of parts.

    Raises:
        UserError: If the options contradict torchrun or cannot be followed in several processes.
    """
    if by_torchrun():
        started, asked = int(os.environ["WORLD_SIZE"]), options.parallel.processes
        if asked not in (1, started):
            raise UserError(
                f"--processes {asked}: torchrun started {started}. Leave the option out."
            )
        options = options.replace(processes=started)
    processes = options.parallel.processes
    if processes > 1 and not options.optim.shards:
        if options.run.resume:
            raise UserError(
                f"--processes {processes}: run {options.run.resume} began without --shards, so its "
                "batches are not divided. Resume it in one process."
            )
        options = options.replace(shards=processes)
    return options


def require_devices(options: TrainOptions, device: Device) -> None:
    """Check that each process on this machine has a device.

    Raises:
        UserError: If there are fewer.
    """
    processes = local_processes(options)
    if processes > 1 and device.kind == "mps":
        raise UserError(f"--processes {processes}: there is one MPS device. Give --device cpu.")
    if device.kind == "cuda" and processes > (found := torch.cuda.device_count()):
        raise UserError(f"--processes {processes}: there are {found} CUDA devices. Give {found}.")


@dataclass(frozen=True)
class _Assignment:
    """What the first process tells the others, beside the table of the images."""

    options: dict[str, Any]
    folder: str
    device: dict[str, Any]
    threads: int
    epochs: int | None
    splits: Sequence[str]
    root: str
    name: str


@contextmanager
def together(
    options: TrainOptions,
    prepared: Prepared,
    device: Device,
    folder: Path,
    *,
    epochs: int | None,
    splits: Sequence[str],
) -> Iterator[tuple[Group, list[dict[str, Any]]]]:
    """Gather the processes of a training, which then train with this one and score the splits.

    Args:
        options: The options of the training.
        prepared: Its data.
        device: The device, precision and readers of each process.
        folder: The folder of the checkpoints.
        epochs: Epochs after which to stop; None means those of the options.
        splits: The splits that are scored after training.

    Yields:
        The group, and facts about the device of each process; none for a single process.

    Raises:
        ProcessLost: If another process ends before the training does.
    """
    processes = options.parallel.processes
    if processes == 1:
        yield alone(options.optim.parts), []
        return
    assignment = _Assignment(
        options.to_json() | {"resume": ""},
        str(folder.resolve()),
        asdict(device),
        torch.get_num_threads(),
        epochs,
        splits,
        str(prepared.manifest.root),
        prepared.manifest.name,
    )
    table = io.BytesIO()
    prepared.manifest.table.to_parquet(table)
    with ExitStack() as stack:
        followers, store = None, None
        if not by_torchrun():
            if sys.platform.startswith("linux"):
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            meeting = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "meeting"
            store = FileStore(str(meeting), processes)
            followers = stack.enter_context(_Followers(processes, meeting))
        try:
            if followers and store:
                followers.wait_for(store)
            with joined(Division(options.optim.parts, processes), store) as group:
                if followers:
                    followers.watch(group)
                group.tell(json.dumps(asdict(assignment)).encode())
                group.tell(table.getvalue())
                _use(device)
                yield group, _facts(group, device)
        except RuntimeError as error:  # among them all errors of torch
            lost = isinstance(error, ProcessLost)
            ended = followers.ended(_NOTICES if lost else 0) if followers else None
            if ended and ended.refused:
                raise UserError(ended.refused) from error
            if ended and (lost or ended.status < 0):
                raise ProcessLost(f"{ended.reason}. The run can be resumed.") from error
            raise


def follow() -> None:
    """Train and score as the first process says, beside it.

    Raises:
        ProcessLost: If another process ends before the training does.
    """
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    meeting = os.environ.get(_MEETING)
    store = FileStore(meeting, processes) if meeting else None
    if store:
        store.set(f"{_HERE}{rank}", "")
    with joined(Division(processes, processes, rank), store) as group:
        told = _Assignment(**json.loads(group.tell()))
        table = pd.read_parquet(io.BytesIO(group.tell()))
        options = TrainOptions.resolve(told.options)
        group.division = replace(group.division, parts=options.optim.parts)
        device = Device(**told.device)
        _use(device)
        torch.set_num_threads(told.threads)
        keep_freed_memory()
        _facts(group, device)
        manifest = Manifest(table, told.root, told.name)
        prepared = Prepared(manifest, pd.DataFrame(), frozenset(), ())
        with noting_operators():
            with deterministic(options.optim.seed):
                session = Session(options, prepared, device, Path(told.folder), group)
                session.fit(Hooks(), epochs=told.epochs)
            with deterministic(options.optim.seed):
                session.outputs(told.splits)


def _use(device: Device) -> None:
    """Compute on this process's own device."""
    if device.kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def _facts(group: Group, device: Device) -> list[dict[str, Any]]:
    """Return facts about the devices of all processes."""
    own = json.dumps(device.describe()).encode()
    rank, ranks = group.division.rank, range(group.division.processes)
    told = [group.tell(own if rank == sender else b"", sender=sender) for sender in ranks]
    return [json.loads(facts) for facts in told]


@dataclass(frozen=True)
class _Ended:
    """A process that has ended in an error: its exit status and the last line that it printed."""

    rank: int
    status: int
    line: str

    @property
    def refused(self) -> str:
        """The message of a `UserError`; empty if it has ended for another reason."""
        return str(json.loads(self.line)) if self.status == _REFUSED else ""

    @property
    def reason(self) -> str:
        """Why it has ended."""
        how = f"signal {-self.status}" if self.status < 0 else f"exit status {self.status}"
        line = f": {self.line}" if self.line else ""
        return f"process {self.rank}, beside process 0, ended with {how}{line}"


class _Followers:
    """The processes that this one starts. They end with it, however it ends.

    Args:
        processes: Number of all processes.
        meeting: The file by which they meet.
    """

    def __init__(self, processes: int, meeting: Path) -> None:
        self._processes, self._meeting = processes, meeting
        self._started: list[subprocess.Popen[bytes]] = []
        self._said: list[IO[bytes]] = []
        self._ending = False

    def __enter__(self) -> Self:
        path = os.pathsep.join(part for part in sys.path if part)
        for rank in range(1, self._processes):
            said = tempfile.TemporaryFile()
            self._said.append(said)
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self._processes}
            self._started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "synthdetect.runs.processes"],
                    env={
                        **os.environ,
                        **{name: str(number) for name, number in numbers.items()},
                        _MEETING: str(self._meeting),
                        "PYTHONPATH": path,
                    },
                    stdin=subprocess.PIPE,  # its end tells them that this process has ended
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,  # so that Ctrl-C ends them through this process
                )
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending = True
        for process in self._started:
            if kind is not None:
                process.kill()  # nothing that it holds is missed
            with suppress(subprocess.TimeoutExpired):
                process.wait(_NOTICES)
            process.kill()
            process.wait()
        for file in (*self._said, *(process.stdin for process in self._started)):
            if file:
                file.close()

    def wait_for(self, store: FileStore) -> None:
        """Wait until all are about to join.

        Raises:
            ProcessLost: If one ends before.
        """
        keys = [f"{_HERE}{rank}" for rank in range(1, self._processes)]
        while not store.check(keys):
            if ended := self.ended(_LOOKS_EVERY):
                raise ProcessLost(ended.reason)

    def watch(self, group: Group) -> None:
        """Let the communication of this process fail if one of the others ends in an error."""

        def watching(process: "subprocess.Popen[bytes]") -> None:
            if process.wait() and not self._ending:
                group.abandon()

        for process in self._started:
            threading.Thread(target=watching, args=(process,), daemon=True).start()

    def ended(self, patience: float) -> _Ended | None:
        """Return one of them that has ended in an error, if there is one.

        Args:
            patience: Seconds to wait for that.
        """
        end = time.monotonic() + patience
        while not any(process.poll() for process in self._started) and time.monotonic() < end:
            time.sleep(0.05)
        ended = [(process.poll() or 0, rank) for rank, process in enumerate(self._started, 1)]
        # A signal first: the others may have ended because that one did.
        for status, rank in sorted(found for found in ended if found[0]):
            said = self._said[rank - 1]
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            return _Ended(rank, status, lines[-1].strip() if lines else "")
        return None


def _end_with_the_first() -> None:
    """End this process when the one that started it has ended."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    try:
        follow()
    except UserError as error:
        print(f"\n{json.dumps(str(error))}", file=sys.stderr)
        sys.exit(_REFUSED)
