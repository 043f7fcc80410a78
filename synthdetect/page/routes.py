"""The routes of the page, beside those of MLflow's protocol."""

import asyncio
import copy
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from synthdetect.detectors.detector import Detector
from synthdetect.images.reading import BadImage, check_size
from synthdetect.models.networks import Network
from synthdetect.page.about import About
from synthdetect.page.documentation import describe, docs_page
from synthdetect.page.inspection import Inspection, inspect_image
from synthdetect.serving.options import ServeOptions

_WAITING = 8  # inspections that wait or run, beyond which clients are asked to try again
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_FASTAPI_DOCS = ("/docs", "/docs/oauth2-redirect", "/redoc")  # they load scripts from elsewhere

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_page(
    app: FastAPI, detector: Detector, known: About, options: ServeOptions
) -> Collection[str]:
    """Add the page and what it asks for to MLflow's application.

    Args:
        app: The application.
        detector: The detector.
        known: Its card, for the page.
        options: The limits on a request.

    Returns:
        The paths of the routes.
    """
    app.router.routes = [
        r for r in app.router.routes if getattr(r, "path", "") not in _FASTAPI_DOCS
    ]
    for path, (name, kind) in _FILES.items():
        content = Path(__file__).with_name(name).read_text(encoding="utf-8")
        app.add_api_route(path, _answering(content, kind), include_in_schema=False)

    @app.get("/model", tags=["page"], summary="The card of the detector")
    async def model() -> About:
        """What the detector is, how it decides, how well it was measured, and its limits."""
        return known

    inspector = _Inspector(detector, options)

    @app.post(
        "/inspect",
        tags=["page"],
        summary="Everything there is to see of one image",
        response_model=Inspection,
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "The content of one image's file.",
                "content": {"application/octet-stream": {"schema": {"type": "string"}}},
            }
        },
    )
    async def inspect(request: Request) -> Response:
        """The answer, where its evidence lies, how it changes under recompression, and metadata.

        It takes several times as long as a score. Inspections run one after the other.
        """
        return await inspector.answer(await request.body())

    describe(app, known)
    docs = docs_page(app.openapi())
    app.add_api_route("/docs", _answering(docs, "text/html"), include_in_schema=False)
    return (*_FILES, "/docs", "/openapi.json", "/model", "/inspect")


def _answering(content: str, kind: str) -> Any:
    async def answer() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=_HEADERS)

    return answer


class _Inspector:
    """Inspects images one after the other, so that the others' scores are not slowed down much.

    It has a copy of the network, since Grad-CAM hooks into it while others score.
    """

    def __init__(self, detector: Detector, options: ServeOptions) -> None:
        if isinstance(detector.network, Network):
            detector = Detector(copy.deepcopy(detector.network), detector.card)
        self._inspect = partial(inspect_image, detector, max_pixels=options.max_pixels)
        self._max_bytes = options.max_mib * 2**20
        self._worker = ThreadPoolExecutor(1, "inspection")
        self._waiting = 0

    async def answer(self, content: bytes) -> Response:
        if self._waiting >= _WAITING:
            return JSONResponse({"message": "busy; try again"}, status_code=429)
        self._waiting += 1
        try:
            check_size(len(content), most=self._max_bytes)
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._worker, self._inspect, content)
        except BadImage as error:
            return JSONResponse({"message": f"{error}."}, status_code=400)
        finally:
            self._waiting -= 1
        return JSONResponse(asdict(found))
