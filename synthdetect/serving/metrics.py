"""What a server counts, in the text format of Prometheus."""

import os
import time
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from synthdetect.serving.limits import App, Message, Receive, Send
from synthdetect.serving.processes import FOLDER


class Metrics:
    """The counts of one server, over all its processes if there is a `FOLDER`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "synthdetect_requests", "Requests that were answered, by path and HTTP status.",
            ("path", "status"), registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "synthdetect_request_seconds", "Seconds from the head of a request to its answer.",
            ("path",), registry=self._registry,
        )  # fmt: skip
        self._images = Histogram(
            "synthdetect_batch_images", "Images of a forward pass.",
            buckets=(1, 2, 4, 8, 16, 32), registry=self._registry,
        )  # fmt: skip
        self._pass_seconds = Histogram(
            "synthdetect_batch_seconds", "Seconds of a forward pass.", registry=self._registry
        )

    def count_pass(self, images: int, seconds: float) -> None:
        """Count a forward pass."""
        self._images.observe(images)
        self._pass_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all counts in the text format of Prometheus."""
        if os.environ.get(FOLDER):
            everywhere = CollectorRegistry()
            MultiProcessCollector(everywhere)  # type: ignore[no-untyped-call]
            return generate_latest(everywhere)
        return generate_latest(self._registry)

    def counting(self, app: App, paths: Collection[str]) -> App:
        """Return an ASGI application whose requests are counted.

        Args:
            app: The application.
            paths: The paths that are counted each by itself; the others are counted as `other`.
        """

        async def counted(scope: Message, receive: Receive, send: Send) -> None:
            status, began = "closed", time.perf_counter()  # closed by the client

            async def watched(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = str(message["status"])
                await send(message)

            try:
                await app(scope, receive, watched)
            finally:
                path = scope["path"] if scope["path"] in paths else "other"
                self._requests.labels(path, status).inc()
                self._seconds.labels(path).observe(time.perf_counter() - began)

        return counted
