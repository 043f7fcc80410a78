"""The detector of a file behind MLServer, with its adaptive batches."""

import base64
from pathlib import Path

import mlserver
import numpy as np
from mlserver.codecs import NumpyCodec, StringCodec

from synthdetect.detectors.engines.exported import load_detector


class DetectorRuntime(mlserver.MLModel):
    """Images as base64 text, in one input."""

    async def load(self) -> bool:
        self.detector = load_detector(Path(self.settings.parameters.uri))
        return True

    async def predict(
        self, payload: mlserver.types.InferenceRequest
    ) -> mlserver.types.InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        squares = [self.detector.preprocess(base64.b64decode(text)) for text in texts]
        scores = self.detector.score(np.stack(squares))[:, None]
        return mlserver.types.InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("probability", scores)]
        )
