"""How the recorded options of a run become those of its rerun."""

import pytest

from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.reproduction.rerun import RecordedRun
from synthdetect.runs.options import TrainOptions
from synthdetect.tracking.run import Run


@pytest.mark.parametrize(
    ("weights", "found", "again"),
    [
        ("auto", "imagenet", "imagenet"),
        ("auto_v1", "imagenet", "imagenet_v1"),
        ("imagenet_v1", "imagenet", "imagenet_v1"),
        ("auto", "random", "none"),
        ("auto_v1", "random", "none"),
        ("none", "random", "none"),
        ("own.pt", "file", "own.pt"),
    ],
)
def test_a_rerun_starts_from_the_weights_that_the_run_found(
    weights: str, found: str, again: str
) -> None:
    options = TrainOptions.resolve({"weights": weights}).to_json()
    request = ReproduceOptions.resolve({"run_id": "1"})
    recorded = RecordedRun(Run("1"), "train", {}, {"model.start": found}, options, {}, request)
    assert recorded.resolve(TrainOptions, options).model.weights == again
