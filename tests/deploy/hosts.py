"""Hosts on this machine: Linux namespaces with host names, process ids and addresses of their own.

They are joined by a bridge, know each other by name, and share the file system. Nothing of them is
left when their processes end.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_START = """
set -e
if [ -n "{etc}" ]; then mount -t overlay overlay -o "lowerdir={etc}:/etc" /etc; fi
mount --bind {hosts} /etc/hosts
hostname {name}
ip link set lo up
sleep infinity
"""
"""What the first process of a host does."""


@dataclass
class Host:
    """A host of a `Network`.

    Attributes:
        name: Its name.
        address: Its address.
        pid: Id, on this machine, of its first process.
    """

    name: str
    address: str
    pid: int
    _holder: "subprocess.Popen[bytes]" = field(repr=False)

    def enter(self, *, processes: bool = True, folder: Path | None = None) -> tuple[str, ...]:
        """Words that start a command on this host.

        Args:
            processes: Whether the command gets a process id of the host.
            folder: Its working folder.
        """
        kinds = ("--pid",) if processes else ()
        return ("nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", *kinds,
                f"--wdns={folder or Path.cwd()}", "--")  # fmt: skip

    def start(
        self, *command: str, folder: Path, environment: Mapping[str, str], output: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a command on this host; what it prints is added to a file."""
        with output.open("ab") as file:
            return subprocess.Popen(
                [*self.enter(folder=folder), *command], env=dict(environment), stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip

    def cut_power(self) -> None:
        """End every process of this host at once."""
        os.kill(self.pid, signal.SIGKILL)  # the kernel ends all others in its namespace
        self._holder.wait()


class Network:
    """A bridge to which hosts are joined; this machine is on it too, with the last address."""

    def __init__(self, folder: Path) -> None:
        self._hosts = folder / "hosts"
        self._subnet = f"10.{random.randint(128, 250)}.{random.randint(0, 250)}"
        self._hosts.write_text("127.0.0.1 localhost\n")
        self._used = 0
        self._holders: list[subprocess.Popen[bytes]] = []
        self._bridge = self._hold("unshare", "--net", "--kill-child", "sleep", "infinity").pid
        time.sleep(0.5)
        self._on_bridge("ip", "link", "add", "bridge", "type", "bridge")
        self._on_bridge("ip", "link", "set", "bridge", "up")
        name = f"t{os.getpid()}"
        self._join(name, os.getpid())
        _run("ip", "addr", "add", f"{self._subnet}.254/24", "dev", name)
        _run("ip", "link", "set", name, "up")

    def add(self, name: str, etc: Path | None = None) -> Host:
        """Add a host, whose name the others then know; a folder's content is added to its /etc."""
        self._used += 1
        address = f"{self._subnet}.{self._used}"
        with self._hosts.open("a") as hosts:  # the file that every host has bound
            hosts.write(f"{address} {name}\n")
        holder = self._hold(
            "unshare", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
            "sh", "-c", _START.format(hosts=self._hosts, name=name, etc=etc or ""),
        )  # fmt: skip
        pid = _first_process(holder)
        host = Host(name, address, pid, holder)
        self._join("eth0", pid)
        within = host.enter(processes=False)
        _run(*within, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        _run(*within, "ip", "link", "set", "eth0", "up")
        return host

    def end(self) -> None:
        """End all hosts, and the bridge."""
        for holder in reversed(self._holders):
            for child in psutil.Process(holder.pid).children() if holder.poll() is None else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            holder.kill()
            holder.wait()

    def _hold(self, *command: str) -> "subprocess.Popen[bytes]":
        dies_with_us = ("setpriv", "--pdeathsig=KILL")
        holder = subprocess.Popen([*dies_with_us, *command], start_new_session=True)
        self._holders.append(holder)
        return holder

    def _on_bridge(self, *command: str) -> None:
        _run("nsenter", f"--target={self._bridge}", "--net", *command)

    def _join(self, name: str, pid: int) -> None:
        """Lay a cable from the bridge to the network of a process, where its end has a name."""
        plug = f"p{pid}"
        self._on_bridge("ip", "link", "add", plug, "type", "veth", "peer", "name", name, "netns",
                        str(pid))  # fmt: skip
        self._on_bridge("ip", "link", "set", plug, "master", "bridge")
        self._on_bridge("ip", "link", "set", plug, "up")


def _first_process(holder: "subprocess.Popen[bytes]") -> int:
    """Id of a host's first process, once it has done what it does at the start."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        assert holder.poll() is None, "hosts need root, unshare and iproute2"
        for child in psutil.Process(holder.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # the shell's short commands
                if any(grandchild.name() == "sleep" for grandchild in child.children()):
                    return child.pid
        time.sleep(0.05)
    raise AssertionError("a host did not start")


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """Make a network whose hosts end with the block."""
    assert os.geteuid() == 0, "these tests make network namespaces, for which they must be root"
    made = Network(folder)
    try:
        yield made
    finally:
        made.end()
