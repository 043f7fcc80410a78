"""The detector of a file behind LitServe, with its batches.

python benchmarks/servers/litserve_server.py DETECTOR PORT
"""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np

from synthdetect.detectors.engines.exported import load_detector
from synthdetect.serving.batching import BATCH


class DetectorAPI(litserve.LitAPI):
    """One image of a request, as base64 text."""

    def setup(self, device: str) -> None:
        self.detector = load_detector(Path(sys.argv[1]))

    def decode_request(self, request: dict[str, str]) -> Any:
        return self.detector.preprocess(base64.b64decode(request["image"]))

    def predict(self, squares: list[Any]) -> Any:
        return self.detector.score(np.stack(squares))

    def encode_response(self, output: Any) -> dict[str, float]:
        return {"probability": float(output)}


if __name__ == "__main__":
    api = DetectorAPI(max_batch_size=BATCH, batch_timeout=0.004)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False,
               log_level="warning")  # fmt: skip
