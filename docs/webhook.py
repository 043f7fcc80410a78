"""Receive MLflow's registry webhooks, and run a command for each new champion.

    WEBHOOK_SECRET=... python docs/webhook.py --port 8099 -- COMMAND...

The command gets the version in the environment variable `MODEL`, as models:/NAME/VERSION. A request
counts if it is signed with the secret, at most five minutes old and not seen before.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOST_BYTES, MOST_SECONDS, TIMEOUT = 64 * 1024, 300, 10


class Receiver(BaseHTTPRequestHandler):
    """Handler of one request."""

    timeout = TIMEOUT
    secret = b""
    action: tuple[str, ...] = ()
    seen: dict[str, float] = {}  # noqa: RUF012  (shared by all requests on purpose)
    lock = threading.Lock()

    def do_POST(self) -> None:
        """Answer before the command runs: MLflow sends again what is not answered in time."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self._answer(413)
            return
        body = self.rfile.read(int(length))
        if not self._is_signed(body):
            self._answer(401)
            return
        is_new = self._is_new()
        event = json.loads(body)
        self._answer(204)
        kind, data = (event["entity"], event["action"]), event["data"]
        if is_new and kind == ("model_version_alias", "created") and data["alias"] == "champion":
            model = f"models:/{data['name']}/{data['version']}"
            subprocess.run(self.action, env={**os.environ, "MODEL": model}, check=False)

    def _is_signed(self, body: bytes) -> bool:
        """Whether the signature is that of this body, and was made at most five minutes ago."""
        number, sent = (self.headers.get(f"X-MLflow-{n}", "") for n in ("Delivery-Id", "Timestamp"))
        if not sent.isdecimal() or abs(time.time() - int(sent)) > MOST_SECONDS:
            return False
        signed = f"{number}.{sent}.".encode() + body
        digest = hmac.new(self.secret, signed, hashlib.sha256).digest()
        expected = b"v1," + base64.b64encode(digest)
        return hmac.compare_digest(self.headers.get("X-MLflow-Signature", "").encode(), expected)

    def _is_new(self) -> bool:
        """Whether the delivery has not been seen; MLflow repeats it if an answer is lost."""
        number, now = self.headers["X-MLflow-Delivery-Id"], time.time()
        with self.lock:
            for old in [n for n, t in self.seen.items() if now - t > 2 * MOST_SECONDS]:
                del self.seen[old]
            is_new = number not in self.seen
            self.seen[number] = now
        return is_new

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.flush()


def main() -> None:
    """Listen until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    Receiver.secret, Receiver.action = os.environ["WEBHOOK_SECRET"].encode(), tuple(given.command)
    server = ThreadingHTTPServer((given.host, given.port), Receiver)
    print(f"listening on {given.host}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
