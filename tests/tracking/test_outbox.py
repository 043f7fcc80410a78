"""What is kept for the store is delivered whole, whoever else is at it."""

import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow.tracking import MlflowClient

from synthdetect.tracking.outbox import FOLDER, Line, Outbox, answers, waiting


def line(step: int) -> Line:
    return Line(metrics=[{"key": "a", "value": 0.5, "timestamp": 1, "step": step}])


def steps(run_id: str) -> list[int]:
    return sorted(point.step for point in MlflowClient().get_metric_history(run_id, "a"))


@pytest.fixture
def run_id(workspace: Path) -> str:
    return str(MlflowClient().create_run("0").info.run_id)


def test_what_one_keeps_while_another_delivers_is_not_lost(run_id: str) -> None:
    number = 60
    done = threading.Event()

    def keep() -> None:
        for step in range(number):
            Outbox(run_id).keep(line(step))
        done.set()

    training = threading.Thread(target=keep)
    training.start()
    while not done.is_set():
        Outbox(run_id).deliver()
    training.join()
    Outbox(run_id).deliver()
    assert steps(run_id) == list(range(number))
    assert not list(FOLDER.iterdir())


def test_what_a_kill_cut_short_spoils_nothing_that_comes_after(run_id: str) -> None:
    box = Outbox(run_id)
    box.keep(line(1))
    with (box.folder / "lines.jsonl").open("ab") as file:
        file.write(b'{"metrics": [{"key": "a", "val\0\xff')
    box.keep(line(2))
    box.keep(line(3))
    box.deliver()
    assert steps(run_id) == [1, 2, 3]
    assert not box.folder.exists()


def test_a_run_that_is_still_to_be_seen_to_is_not_forgotten(run_id: str) -> None:
    box = Outbox(run_id)
    box.keep(line(1))
    box.deliver(forget=False)
    assert box.is_empty
    assert list(waiting()) == [run_id]
    box.keep(line(2))
    box.forget()
    assert not box.is_empty
    box.deliver()
    assert not waiting()


class _Wary(http.server.BaseHTTPRequestHandler):
    """Answers those who bring the token, and breaks for all others."""

    def do_GET(self) -> None:
        self.send_response(401 if self.headers["Authorization"] == "Bearer hunter2" else 500)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def certificate(folder: Path) -> Path:
    """One of this machine, signed by nobody else, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


@contextmanager
def serving(certificate: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Wary)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_is_asked_as_mlflow_asks_it(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path)
    before = mlflow.get_tracking_uri()
    with serving(file) as uri:
        mlflow.set_tracking_uri(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
        assert not answers()  # nobody known has signed for it
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
        assert answers()
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        assert answers()
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "other")
        assert not answers()
    assert not answers()
    mlflow.set_tracking_uri(before)
