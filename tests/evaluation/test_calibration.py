"""The temperature is found again, and does nothing but scale."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit

from synthdetect.evaluation.calibration import fit_temperature
from synthdetect.evaluation.metrics import metrics

Labels = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def drawn(temperature: float, n: int = 20_000) -> tuple[Labels, Floats]:
    """Labels that true log-odds make, and those log-odds too sure by a factor."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=n) * 2
    return rng.random(n) < expit(true), temperature * true


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_logits_is_found(temperature: float) -> None:
    labels, logits = drawn(temperature)
    assert fit_temperature(labels, logits) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_calibration_lowers_the_errors_and_leaves_the_auc(temperature: float) -> None:
    labels, logits = drawn(temperature)
    before = metrics(labels, logits, 0.5)
    after = metrics(labels, logits / fit_temperature(labels, logits), 0.5)
    assert after["auc"] == before["auc"]
    assert after["accuracy"] == before["accuracy"]
    assert after["nll"] < before["nll"]
    assert after["ece"] < 0.02 < 0.05 < before["ece"]


def test_no_other_temperature_is_likelier() -> None:
    labels, logits = drawn(3.0, n=300)
    best = metrics(labels, logits / fit_temperature(labels, logits), 0.5)["nll"]
    for temperature in np.geomspace(0.05, 20, 200):
        assert metrics(labels, logits / temperature, 0.5)["nll"] >= best - 1e-9


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_separated_classes_stay_inside_the_limits(scale: float) -> None:
    """The likeliest temperature would be 0; the other way round, infinite."""
    labels, logits = [0, 0, 1, 1], scale * np.array([-2.0, -1.0, 1.0, 2.0])
    assert 0.05 <= fit_temperature(labels, logits) <= 20
    assert 0.05 <= fit_temperature(labels, -logits) <= 20


def test_the_limits_are_reached_where_the_likelihood_only_rises() -> None:
    labels, logits = [0, 0, 1, 1], np.array([-0.02, -0.01, 0.01, 0.02])
    assert fit_temperature(labels, logits) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(labels, -logits) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [([0, 1], [0.0, 0.0]), ([0, 1, 1], [800.0, -800.0, 800.0]), ([1, 1], [1.0, 2.0])],
)
def test_odd_validation_sets_give_a_usable_number(labels: list[int], logits: list[float]) -> None:
    assert 0.05 <= fit_temperature(labels, logits) <= 20
