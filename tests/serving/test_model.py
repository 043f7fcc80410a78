"""Tests of the answers of a served detector."""

import base64
import io
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.decision import Decision
from synthdetect.models.spec import ModelSpec
from synthdetect.serving.model import Refused, ServedDetector
from synthdetect.serving.options import ServeOptions
from tests.detectors.helpers import varied_network

IMAGES = 12
ABOVE_ONE = math.nextafter(1, 2)


@pytest.fixture(scope="module", params=["rgb", "npr"])
def detector(request: pytest.FixtureRequest) -> Detector:
    """A detector with either front-end whose scores of noise differ."""
    network = varied_network(ModelSpec.of("mobilenet_v3_large", 32, request.param))
    return Detector(network, Card(model=network.spec, geometry="resize"))


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """PNG files of noise."""
    rng, contents = np.random.default_rng(0), []
    for _ in range(IMAGES):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 34, 3), dtype=np.uint8)).save(file, "PNG")
        contents.append(file.getvalue())
    return contents


@pytest.fixture(scope="module")
def scores(detector: Detector, files: list[bytes]) -> npt.NDArray[np.float64]:
    """The probabilities of the detector, all different."""
    found = detector.score(np.stack([detector.preprocess(content) for content in files]))
    assert len(set(found)) == IMAGES
    return found


def serve(
    detector: Detector, decision: Decision, files: list[bytes], threshold: float | None = None
) -> pd.DataFrame:
    """Return the answers of a detector with a decision, in a request with a threshold if given."""
    card = replace(detector.card, decision=decision)
    served = ServedDetector(Detector(detector.network, card), ServeOptions())
    texts = [base64.b64encode(content).decode() for content in files]
    params = None if threshold is None else {"threshold": threshold}
    return served.predict(None, pd.DataFrame({"image": texts}), params)


def test_answers_are_those_of_the_detectors_decision(
    detector: Detector, files: list[bytes], scores: npt.NDArray[np.float64]
) -> None:
    ordered = np.sort(scores)
    middle = float(ordered[IMAGES // 2])
    band = float(ordered[-1] - middle) / 2
    decision = Decision(threshold=middle, unsure=band)
    answers = serve(detector, decision, files)
    np.testing.assert_array_equal(answers["probability"], scores)
    assert answers["label"].tolist() == decision.answer(scores).words.tolist()
    assert set(answers["label"]) == {"real", "unsure", "synthetic"}
    assert (answers["threshold"] == middle).all()


def test_the_band_surrounds_a_threshold_that_a_request_gives(
    detector: Detector, files: list[bytes], scores: npt.NDArray[np.float64]
) -> None:
    given = float(scores.max())
    answers = serve(detector, Decision(threshold=0.0, unsure=1e-9), files, given)
    unsure = scores == given
    assert answers["label"].tolist() == np.where(unsure, "unsure", "real").tolist()
    assert (answers["threshold"] == given).all()


@pytest.mark.parametrize(("threshold", "label"), [(0.0, "synthetic"), (1.0, "real")])
def test_a_request_may_give_any_threshold_from_0_to_1(
    detector: Detector, files: list[bytes], threshold: float, label: str
) -> None:
    assert set(serve(detector, Decision(), files, threshold)["label"]) == {label}


@pytest.mark.parametrize("threshold", [ABOVE_ONE, 2.0, math.inf, math.nan])
def test_another_threshold_is_refused(
    detector: Detector, files: list[bytes], threshold: float
) -> None:
    with pytest.raises(Refused, match=f"threshold: .*{threshold}"):
        serve(detector, Decision(), files, threshold)


@pytest.mark.parametrize("given", [None, -1.0])
def test_a_detectors_own_threshold_may_be_above_1(
    detector: Detector, files: list[bytes], given: float | None
) -> None:
    """Under threshold_rule=fpr, if the highest score on validation is that of a real image."""
    answers = serve(detector, Decision(threshold=ABOVE_ONE), files, given)
    assert set(answers["label"]) == {"real"}
    assert (answers["threshold"] == ABOVE_ONE).all()
