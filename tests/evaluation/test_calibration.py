"""Calibrations recover known parameters, preserve the order of scores and stay in their limits."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from synthdetect.evaluation.calibration import (
    UNCALIBRATED,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)
from synthdetect.evaluation.metrics import metrics
from synthdetect.evaluation.options import CALIBRATIONS
from synthdetect.system.arrays import FloatArray

Labels = npt.NDArray[np.bool_]


def drawn(temperature: float, n: int = 20_000) -> tuple[Labels, FloatArray]:
    """Labels drawn from true log-odds, and these log-odds multiplied by a temperature."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=n) * 2
    return rng.random(n) < expit(true), temperature * true


def temperature_of(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float:
    return fit_temperature(labels, logits).describe()["temperature"]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_true_temperature_is_recovered(temperature: float) -> None:
    labels, logits = drawn(temperature)
    assert temperature_of(labels, logits) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_calibration_lowers_calibration_errors_and_preserves_the_auc(temperature: float) -> None:
    labels, logits = drawn(temperature)
    before = metrics(labels, logits, 0.5)
    after = metrics(labels, fit_temperature(labels, logits)(logits), 0.5)
    assert after["auc"] == before["auc"]
    assert after["accuracy"] == before["accuracy"]
    assert after["nll"] < before["nll"]
    assert after["ece"] < 0.02 < 0.05 < before["ece"]


def test_no_other_temperature_has_a_higher_likelihood() -> None:
    labels, logits = drawn(3.0, n=300)
    best = metrics(labels, fit_temperature(labels, logits)(logits), 0.5)["nll"]
    for temperature in np.geomspace(0.05, 20, 200):
        assert metrics(labels, logits / temperature, 0.5)["nll"] >= best - 1e-9


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_separated_classes_stay_inside_the_limits(scale: float) -> None:
    """Unbounded, the optimal temperature would be 0, or infinite with inverted scores."""
    labels, logits = [0, 0, 1, 1], scale * np.array([-2.0, -1.0, 1.0, 2.0])
    assert 0.05 <= temperature_of(labels, logits) <= 20
    assert 0.05 <= temperature_of(labels, -logits) <= 20


def test_the_limits_are_reached_if_the_likelihood_has_no_maximum() -> None:
    labels, logits = [0, 0, 1, 1], np.array([-0.02, -0.01, 0.01, 0.02])
    assert temperature_of(labels, logits) == pytest.approx(0.05, rel=0.01)
    assert temperature_of(labels, -logits) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [([0, 1], [0.0, 0.0]), ([0, 1, 1], [800.0, -800.0, 800.0]), ([1, 1], [1.0, 2.0])],
)
def test_degenerate_validation_sets_give_a_temperature_within_the_limits(
    labels: list[int], logits: list[float]
) -> None:
    assert 0.05 <= temperature_of(labels, logits) <= 20


# --- Platt scaling and isotonic regression


@pytest.mark.parametrize(("temperature", "offset"), [(0.5, 1.0), (3.0, -2.0)])
def test_platt_recovers_slope_and_offset(temperature: float, offset: float) -> None:
    labels, logits = drawn(temperature)
    found = fit_platt(labels, logits + offset)
    assert found.slope == pytest.approx(1 / temperature, rel=0.1)
    assert found.offset == pytest.approx(-offset / temperature, abs=0.15)
    assert metrics(labels, found(logits + offset), 0.5)["ece"] < 0.02


def test_isotonic_corrects_a_nonlinear_distortion() -> None:
    """On cubed logits, a temperature leaves an error that isotonic regression removes."""
    labels, logits = drawn(1.0)
    bent = np.sign(logits) * np.abs(logits) ** 3
    by_steps, by_slope = fit_isotonic(labels, bent), fit_temperature(labels, bent)
    fresh = metrics(labels, by_steps(bent), 0.5)["ece"]
    assert fresh < 0.02 < metrics(labels, by_slope(bent), 0.5)["ece"]
    assert len(by_steps.knots) > 5


@pytest.mark.parametrize("name", CALIBRATIONS)
@pytest.mark.parametrize("seed", range(5))
def test_every_method_preserves_the_order_of_scores(name: str, seed: int) -> None:
    """Also where the scores are worse than chance."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=60) * 4
    labels = rng.random(60) < expit(-logits)
    after = CALIBRATIONS[name].load()(labels, logits)(np.sort(logits))
    assert (np.diff(after) >= 0).all()
    assert np.isfinite(after).all()


@pytest.mark.parametrize("name", CALIBRATIONS)
@pytest.mark.parametrize(
    ("labels", "logits"),
    [([0, 1], [0.0, 0.0]), ([0, 1, 1], [800.0, -800.0, 800.0]), ([1, 1], [1.0, 2.0]),
     ([0, 0, 1, 1], [-2.0, -1.0, 1.0, 2.0])],
)  # fmt: skip
def test_every_method_gives_finite_logits_on_degenerate_sets(
    name: str, labels: list[int], logits: list[float]
) -> None:
    calibration = CALIBRATIONS[name].load()(labels, logits)
    assert np.isfinite(calibration(np.array([-1e4, -1, 0, 1, 1e4]))).all()
    assert all(np.isfinite(list(calibration.describe().values())))


def test_isotonic_equals_the_probabilities_of_scikit_learn() -> None:
    labels, logits = drawn(2.0, n=500)
    edge = 1 / 502
    expected = IsotonicRegression(y_min=edge, y_max=1 - edge).fit_transform(logits, labels)
    assert expit(fit_isotonic(labels, logits)(logits)) == pytest.approx(expected, abs=1e-9)


def test_uncalibrated_is_the_identity() -> None:
    assert UNCALIBRATED([1.5, -2.0]).tolist() == [1.5, -2.0]
    assert CALIBRATIONS["none"].load()([0, 1], [1.0, 2.0]) == UNCALIBRATED
