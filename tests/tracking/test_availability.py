"""A store that is away is recognised and waited for; everything else is not."""

import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.tracking import MlflowClient

from synthdetect.system.errors import UserError
from synthdetect.tracking import availability
from synthdetect.tracking.availability import (
    PATIENCE,
    StoreAway,
    answers,
    is_away,
    retry,
    retrying,
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is spent on waiting."""
    monkeypatch.setattr(availability, "PAUSE", 0.0)


def failing(*errors: Exception) -> Callable[[], str]:
    """A function that raises these errors, one a call, and then returns "done"."""
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return action


def test_what_needs_the_store_is_retried_while_it_is_away(
    workspace: Path, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retry(failing(*[requests.ConnectionError("refused")] * 3)) == "done"
    assert capsys.readouterr().out.count("refused") == 1


def test_a_store_that_stays_away_is_an_error(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setenv(PATIENCE, "0.2")
    with pytest.raises(StoreAway, match=r"mlflow\.db.*refused.*Do this"):
        retry(failing(*[requests.ConnectionError("refused")] * 10**6), "Do this.")


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_patience_that_is_no_number_of_seconds_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(PATIENCE, text)
    with pytest.raises(UserError, match=f"^SYNTHDETECT_PATIENCE={text}: give a number"):
        retry(failing())


def test_only_a_store_that_is_away_is_retried(workspace: Path, impatient: None) -> None:
    for error in (ValueError(), MlflowException("full", INTERNAL_ERROR)):
        with pytest.raises(type(error)):
            retry(failing(error))


def test_a_server_is_away_when_it_fails_and_not_when_it_refuses(away: str) -> None:
    assert is_away(MlflowException("broken", INTERNAL_ERROR))
    assert is_away(MlflowException("starting", TEMPORARILY_UNAVAILABLE))
    assert not is_away(MlflowException("no such run", RESOURCE_DOES_NOT_EXIST))


def test_a_retrying_client_waits_in_every_call(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    client = MlflowClient()
    failures = failing(requests.ConnectionError("refused"), requests.Timeout("late"))
    monkeypatch.setattr(client, "create_run", lambda experiment: failures() + experiment)
    assert str(retrying(client).create_run("0")) == "done0"


class _Wary(http.server.BaseHTTPRequestHandler):
    """Answers 401 to requests with the token, and 500 to all others."""

    def do_GET(self) -> None:
        self.send_response(401 if self.headers["Authorization"] == "Bearer hunter2" else 500)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def certificate(folder: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1 and its key."""
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


def test_a_server_is_asked_with_mlflows_token_and_certificate(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path)
    before = mlflow.get_tracking_uri()
    with serving(file) as uri:
        mlflow.set_tracking_uri(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
        assert not answers()  # the certificate is not trusted
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
        assert answers()
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        assert answers()
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "other")
        assert not answers()
    assert not answers()
    mlflow.set_tracking_uri(before)
