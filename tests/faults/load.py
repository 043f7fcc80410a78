"""A real server under load and abuse: many clients at once, and some of them mean it ill.

    python -m tests.faults.load [--clients 64] [--seconds 300] [--bad 0.05] [--seed 0]

Every good request must get the answer that the detector gives in this process; every bad one a
refusal that tells nothing of the server. Prints a table and writes it as JSON; exits with 1 if
anything else happened, or if the server's memory grew.
"""

import argparse
import base64
import contextlib
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from synthdetect.datasets.manifest import load
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.serving.options import ServeOptions
from tests.conftest import hear_interrupts

JSON = {"Content-Type": "application/json"}
_GROWTH = 32  # MiB from the second fifth of the load to the last
_MOST = ServeOptions().max_mib * 2**20  # bytes of a body, which the server would take
_HELD = 24  # connections at once that declare so many and send none
_SLOW = 3  # seconds that a request may take to come, in this test


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        seconds: of every good request's answer.
        refused: how often each kind of abuse got each status.
        faults: what should not have happened.
        memory: the server's, in MiB, twice a second.
    """

    seconds: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Requests, seconds of the middle one and of the 99th in a hundred, and memory.

        Peaks of memory are of the largest requests, and so are by chance; its medians tell growth.
        """
        fifth = len(self.memory) // 5
        early, late = self.memory[fifth : 2 * fifth], self.memory[-fifth:]
        return {
            "good requests": len(self.seconds),
            "bad requests": sum(self.refused.values()),
            "p50 s": float(np.quantile(self.seconds, 0.5)),
            "p99 s": float(np.quantile(self.seconds, 0.99)),
            "peak memory MiB": max(self.memory),
            "usual memory in the second fifth MiB": float(np.median(early)),
            "usual memory in the last fifth MiB": float(np.median(late)),
        }


@contextlib.contextmanager
def serving(detector: Path, *options: str) -> Iterator["tuple[int, subprocess.Popen[bytes]]"]:
    """`synthdetect serve` on a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "synthdetect", "serve", "-m", str(detector), "-p", str(port),
         *options],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path[:1]])},
    )  # fmt: skip
    try:
        for _ in range(400):
            with contextlib.suppress(OSError):
                if ask(port, "GET", "/ping")[0] == 200:
                    break
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            time.sleep(0.2)
        yield port, process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def ask(
    port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def request_of(*contents: bytes) -> bytes:
    """A request that scores images."""
    images = [base64.b64encode(content).decode() for content in contents]
    return json.dumps({"inputs": {"image": images}}).encode()


def bomb(side: int = 12_000) -> bytes:
    """A picture of 144 million pixels, or another square, in a few kilobytes."""
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def _abuse(port: int) -> dict[str, Callable[[], tuple[int, bytes]]]:
    """Every kind, and how it is done."""
    unpacks = request_of(bomb())

    def send(body: bytes, headers: dict[str, str] = JSON) -> Callable[[], tuple[int, bytes]]:
        return lambda: ask(port, "POST", "/invocations", body, headers)

    return {
        "no JSON": send(b'{"inputs": '),
        "other JSON": send(b"[1, 2, 3]"),
        "deep JSON": send(b"[" * 100_000),
        "no base64": send(b'{"inputs": {"image": ["???"]}}'),
        "no image": send(request_of(b"no image at all")),
        "a number for an image": send(b'{"inputs": {"image": [5]}}'),
        "another column": send(b'{"inputs": {"picture": ["aaaa"], "more": ["b"]}}'),
        "another type": send(b"\x00\xff" * 500, {"Content-Type": "application/x-pickle"}),
        "decompression bomb": send(unpacks),
        "many large images below the limit": send(request_of(*[bomb(7000)] * 256)),
        "too many images": send(json.dumps({"inputs": {"image": ["aaaa"] * 5000}}).encode()),
        "oversize body": lambda: _declared(port, 2**31),
        "oversize in chunks": lambda: _chunked(port),
        "slow client": lambda: _declared(port, 5000),
        "declares the most and sends nothing": lambda: _nothing_of_it(port),
        "says nothing": lambda: _unfinished(port, b""),
        "half a header": lambda: _unfinished(port, b"POST /invocations HTTP/1.1\r\nHost: a\r\nCo"),
        "elsewhere": lambda: ask(port, "GET", "/redoc"),
    }


def _declared(port: int, size: int) -> tuple[int, bytes]:
    """Announce a body, send its beginning, and wait."""
    head = f"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n" \
           "Content-Type: application/json\r\n\r\n{"  # fmt: skip
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def _chunked(port: int) -> tuple[int, bytes]:
    """Send chunk after chunk without saying how many there will be."""
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" \
           b"Content-Type: application/json\r\n\r\n"  # fmt: skip
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                connection.sendall(chunk)
        try:
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.read()
        except (ConnectionResetError, http.client.HTTPException):
            return 413, b""  # hung up on in the middle of what nobody wants


def _nothing_of_it(port: int) -> tuple[int, bytes]:
    """Announce many large bodies at once and send none of them; others must be heard meanwhile."""
    ways = (f"Content-Length: {_MOST}", "Transfer-Encoding: chunked")
    with contextlib.ExitStack() as stack:
        for number in range(_HELD):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            head = f"POST /invocations HTTP/1.1\r\nHost: a\r\n{ways[number % 2]}\r\n\r\n"
            connection.sendall(head.encode())
        heard = ask(port, "POST", "/invocations", b"{}", JSON)
        if heard[0] != 400:
            return heard
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def _unfinished(port: int, head: bytes) -> tuple[int, bytes]:
    """Begin a request's head, and wait to be hung up on."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head)
        return (200, b"") if connection.recv(1) else (408, b"")


def told(answer: bytes) -> list[str]:
    """Words in an answer that a client has no business with."""
    text = answer.decode(errors="replace")
    inside = ("Traceback", 'File "', "/site-packages", str(Path.cwd()), "synthdetect", "mlflow")
    return [word for word in inside if word in text] + (["its length"] if len(text) > 500 else [])


def torment(
    folder: Path, *, clients: int = 64, seconds: float = 300, bad: float = 0.05, seed: int = 0
) -> Outcome:
    """Serve a detector that nobody has trained, and have at it."""
    torch.manual_seed(seed)
    file = folder / "detector.safetensors"
    spec = ModelSpec.of("mobilenet_v3_large", 96)
    Detector(build(spec), Card(model=spec, geometry="resize")).save(file)
    detector = Detector.load(file)
    contents = [Path(path).read_bytes() for path in load("sample").files()[:40]]
    wanted = [detector.score(detector.preprocess(content)[None])[0] for content in contents]
    bodies = [request_of(content) for content in contents]
    outcome, lock = Outcome(), threading.Lock()
    with serving(file, f"--timeout={_SLOW}") as (port, process):
        kinds = _abuse(port)
        end = time.monotonic() + seconds
        server = psutil.Process(process.pid)

        def client(number: int) -> None:
            chance = random.Random(seed * 1000 + number)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            while time.monotonic() < end:
                try:
                    if chance.random() < bad:
                        kind = chance.choice(list(kinds))
                        status, answer = kinds[kind]()
                        with lock:
                            outcome.refused[f"{kind}: {status}"] += 1
                            if not 400 <= status < 500:
                                outcome.faults.append(f"{kind}: {status}")
                            outcome.faults.extend(f"{kind} tells {word}" for word in told(answer))
                        continue
                    row = chance.randrange(len(bodies))
                    began = time.perf_counter()
                    connection.request("POST", "/invocations", bodies[row], JSON)
                    response = connection.getresponse()
                    answer = response.read()
                    took = time.perf_counter() - began
                    with lock:
                        outcome.seconds.append(took)
                        if response.status != 200:
                            outcome.faults.append(f"good: {response.status} {answer[:200]!r}")
                            continue
                        found = json.loads(answer)["predictions"][0]["probability"]
                        if abs(found - wanted[row]) > 1e-5:
                            outcome.faults.append(f"row {row}: {found}, not {wanted[row]}")
                except OSError as error:
                    with lock:
                        outcome.faults.append(f"{type(error).__name__}: {error}")
                    connection.close()

        threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            outcome.memory.append(server.memory_info().rss / 2**20)
            time.sleep(0.5)
        if process.poll() is not None:
            outcome.faults.append(f"the server ended with {process.returncode}")
    return outcome


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clients", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=300)
    arguments.add_argument("--bad", type=float, default=0.05)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--output", type=Path, default=Path("load.json"))
    given = arguments.parse_args()
    hear_interrupts()
    with tempfile.TemporaryDirectory() as folder:
        outcome = torment(
            Path(folder), clients=given.clients, seconds=given.seconds, bad=given.bad,
            seed=given.seed,
        )  # fmt: skip
    figures = outcome.figures()
    late = figures["usual memory in the last fifth MiB"]
    if late - figures["usual memory in the second fifth MiB"] > _GROWTH:
        outcome.faults.append("the server's memory grew")
    result = {"figures": figures, "refused": dict(sorted(outcome.refused.items())),
              "faults": dict(Counter(outcome.faults))}  # fmt: skip
    given.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
