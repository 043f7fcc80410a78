"""Intervals against hand calculation, textbook cases and the kept simulation."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from benchmarks.intervals import SIZES, Detector, covered, simulate, values_of, with_truth
from synthdetect.evaluation.intervals import (
    auc_interval,
    calibration_interval,
    effective_sources,
    interval,
    jackknife_auc,
    jackknife_metrics,
    lowest_interval,
    metric_intervals,
)
from synthdetect.evaluation.metrics import METRICS, calibration_gaps, metrics
from synthdetect.system.arrays import FloatArray

Labels = npt.NDArray[np.int64]


def random_data(seed: int, n: int = 60) -> tuple[Labels, FloatArray]:
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, n - 2), [0, 1])
    return labels, rng.normal(size=n) * 1.5 + labels


def test_jackknife_values_are_the_metrics_without_each_source() -> None:
    labels, logits = random_data(0)
    groups = np.array([f"photo {i // 3}" for i in range(60)], dtype=object)
    part = np.arange(60) < 40
    found = jackknife_metrics(labels, logits, 0.4, groups, {"all": part | True, "part": part})
    for name, mask in (("all", part | True), ("part", part)):
        expected = [metrics(labels[mask], logits[mask], 0.4)]
        for photo in dict.fromkeys(groups):
            rest = mask & (groups != photo)
            expected.append(metrics(labels[rest], logits[rest], 0.4))
        for metric in METRICS:
            assert found[name][metric] == pytest.approx([e[metric] for e in expected], nan_ok=True)
    auc = jackknife_auc(labels, logits, groups, among=part)
    assert auc == pytest.approx(found["part"]["auc"])


def test_many_sources_are_left_out_in_parts_of_equal_size() -> None:
    labels, logits = random_data(1, 1000)
    values = jackknife_auc(labels, logits, np.arange(1000), seed=3)
    assert values.shape == (201,)
    low, high = interval(values, 400)
    draws = [jackknife_auc(labels, logits, np.arange(1000), seed=seed).std() for seed in range(4)]
    assert np.ptp(draws) / np.mean(draws) < 0.2
    value, n1, n0 = values[0], (labels == 1).sum(), (labels == 0).sum()
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)  # Hanley and McNeil 1982
    variance = (value * (1 - value) + (n1 - 1) * (q1 - value**2) + (n0 - 1) * (q2 - value**2)) / (
        n1 * n0
    )
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.15)


def test_the_interval_of_a_difference_is_that_of_students_t() -> None:
    """Leaving one of n numbers out of their mean gives the standard error of the mean."""
    numbers = np.array([1.0, -1, 1, -1, 1, -1, 1, -1]) + 0.3
    values = np.append(numbers.mean(), (numbers.sum() - numbers) / 7)
    expected = stats.t.interval(0.95, 7, numbers.mean(), stats.sem(numbers))
    assert interval(values, 8, scale="difference") == pytest.approx(expected)


def test_a_source_that_dominates_leaves_few_degrees_of_freedom() -> None:
    even = np.array([0.0, *[0.1, -0.1] * 10])
    one = np.array([0.0, math.sqrt(19) * 0.1, *[0.1 / math.sqrt(19)] * 19])
    assert (one[1:] ** 2).sum() == pytest.approx((even[1:] ** 2).sum())
    high = stats.t.ppf(0.975, 19) * math.sqrt(19 / 20 * 0.2)
    assert interval(even, 20, scale="difference")[1] == pytest.approx(high)
    assert interval(one, 20, scale="difference")[1] > 1.7 * high


def test_perfect_separation_has_the_exact_interval_of_the_photographs() -> None:
    """27 of 27 right: the lower bound is the 27th root of 0.025, 0.872."""
    labels, photographs = np.repeat([0, 1], 27), np.tile(np.arange(27), 2)
    value, low, high = auc_interval(labels, labels + 0.01 * photographs, photographs)
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(0.025 ** (1 / 27))


@pytest.mark.parametrize("errors", [1, 2, 3, 6, 13])
def test_no_share_has_a_wider_interval_than_one_observation_per_source(errors: int) -> None:
    wrong = np.arange(27) < errors
    accuracy = np.append(1 - wrong.mean(), [1 - np.delete(wrong, i).mean() for i in range(27)])
    low, high = interval(accuracy, 27)
    exact = stats.binomtest(27 - errors, 27).proportion_ci()
    assert exact.low - 1e-9 <= low < 1 - errors / 27 < high <= exact.high + 1e-9


def test_bounds_are_unknown_with_one_source_of_a_class() -> None:
    labels, logits = np.array([0] * 9 + [1] * 3), np.arange(12.0)
    table = metric_intervals(labels, logits, 0.5, np.append(np.arange(9), [9] * 3))
    row = table.set_index("metric").loc["auc"]
    assert row["value"] == 1
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    assert np.isnan(interval(np.array([0.5, 0.5]), 1)).all()


def test_intervals_of_undefined_metrics_are_undefined() -> None:
    table = metric_intervals([0] * 6, np.arange(6.0), 0.5, np.arange(6))
    nan = table["value"].isna()
    assert nan.any()
    assert (table["low"].isna() >= nan).all()
    assert (table["low"].isna() == table["high"].isna()).all()


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_contains_its_value(seed: int) -> None:
    labels, logits = random_data(seed, n=200)
    table = metric_intervals(labels, logits, 0.5, np.arange(200))
    assert table["metric"].tolist() == list(METRICS)
    # A calibration error of few images exceeds that of infinitely many, which is estimated.
    table = table[~table["metric"].isin(["ece", "ece_balanced"])].dropna()
    assert len(table) >= len(METRICS) - 3
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()


def test_recall_at_a_false_positive_rate_has_an_interval_if_three_real_images_decide_it() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [70, 70])
    table = metric_intervals(labels, rng.normal(size=140) + labels, 0.5, np.arange(140))
    known = table.set_index("metric")["low"].notna()
    assert not known["tpr_at_fpr_1"]  # 0.7 images
    assert known["tpr_at_fpr_5"]  # 3.5 images


def test_the_interval_of_the_auc_alone_equals_that_of_all_metrics() -> None:
    labels, logits = random_data(2)
    groups = np.arange(60) // 3
    row = metric_intervals(labels, logits, 0.5, groups).set_index("metric").loc["auc"]
    assert auc_interval(labels, logits, groups) == pytest.approx(
        row[["value", "low", "high"]].tolist()
    )


def test_intervals_of_a_higher_level_contain_those_of_a_lower_one() -> None:
    labels, logits = random_data(0)
    wide, narrow = (
        metric_intervals(labels, logits, 0.5, np.arange(60), level=level).dropna()
        for level in (0.99, 0.5)
    )
    assert (wide["low"] <= narrow["low"]).all()
    assert (wide["high"] >= narrow["high"]).all()
    assert wide["high"][0] - wide["low"][0] > 1.5 * (narrow["high"][0] - narrow["low"][0])


def test_copies_of_an_image_do_not_narrow_its_interval() -> None:
    """With nine copies of each image, leaving out images makes intervals three times too narrow."""
    labels, logits = random_data(1, n=80)
    copies = np.repeat(np.arange(80), 9)

    def width(labels: Labels, logits: FloatArray, groups: Labels) -> float:
        _, low, high = auc_interval(labels, logits, groups)
        return high - low

    once = width(labels, logits, np.arange(80))
    by_source = width(labels[copies], logits[copies], copies)
    by_image = width(labels[copies], logits[copies], np.arange(720))
    assert by_source == pytest.approx(once, rel=1e-9)
    assert 2.3 < by_source / by_image < 3.9


def test_the_effective_number_of_sources_is_kishs_in_the_rarer_class() -> None:
    labels = np.array([0] * 6 + [1] * 6)
    groups = np.array([0, 0, 0, 0, 1, 2, *range(6)])
    assert effective_sources(labels, groups) == pytest.approx(36 / (16 + 1 + 1))
    assert effective_sources(np.ones(4), np.arange(4)) == 4
    assert effective_sources(np.ones(0), np.arange(0)) == 0


def test_the_lowest_of_several_has_the_lower_bound_of_the_lowest_and_a_wider_upper_one() -> None:
    labels, logits = random_data(3, 200)
    cells = [
        (jackknife_auc(labels, logits + shift * labels, np.arange(200)), 80.0) for shift in (0, 2)
    ]
    low, high = lowest_interval(cells)
    alone = interval(*cells[0])
    assert low == alone[0]
    assert alone[1] < high == interval(*cells[0], level=0.975)[1]
    assert lowest_interval(cells[:1]) == alone


# --- the calibration error


def test_the_interval_of_the_calibration_error_is_for_infinitely_many_images() -> None:
    """Calibrated probabilities have an error of 0, even if that of 270 images is larger."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=270)
    labels = (rng.random(270) < 1 / (1 + np.exp(-logits))).astype(int)
    for factor, calibrated in ((1, True), (4, False)):
        row = metric_intervals(labels, factor * logits, 0.5, np.arange(270)).set_index("metric")
        value, low, high = row.loc["ece"]
        assert value > 0.03
        assert (low == 0) == calibrated
        assert high > 0.03


def test_the_interval_of_a_large_calibration_error_is_a_tenth_wider_than_students_t() -> None:
    """If all gaps have one sign, the error is a mean: of probability minus label."""
    rng = np.random.default_rng(1)
    labels, logits = (rng.random(200) < 0.1).astype(int), np.full(200, 2.0)
    gaps = calibration_gaps(
        labels, logits, np.vstack([np.ones(200), 1 - np.eye(200)]), balanced=False
    )
    numbers = 1 / (1 + np.exp(-logits)) - labels
    expected = stats.t.interval(0.95, 199, numbers.mean(), 1.1 * stats.sem(numbers))
    assert calibration_interval(gaps, 200) == pytest.approx(expected, abs=0.006)


# --- the simulation


@pytest.mark.parametrize("metric", ["auc", "accuracy", "f1", "ece"])
def test_the_simulation_computes_jackknife_values_fast(metric: str) -> None:
    rng = np.random.default_rng(0)
    sizes, detector = rng.integers(1, 4, size=9), Detector(1.0, 1.0)
    photograph, real, synthetic = test = simulate(rng, sizes, detector.separation)
    labels = np.repeat([0, 1], [len(real), synthetic.size])
    groups = np.append(photograph, np.repeat(photograph, synthetic.shape[1]))
    scores = np.append(real, synthetic.ravel())
    left_out = np.vstack([np.ones(9), 1 - np.eye(9)])
    found = values_of(metric, detector, sizes, test, left_out)
    if metric == "ece":
        logits = np.log(detector.probability(scores) / (1 - detector.probability(scores)))
        weights = left_out[:, groups]
        expected = calibration_gaps(labels, logits, weights, balanced=False)
    else:
        cut = scores - detector.separation / 2
        everything = {"": np.ones(len(labels), dtype=bool)}
        expected = jackknife_metrics(labels, cut, 0.5, groups, everything)[""][metric]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["auc", "accuracy", "f1"])
def test_the_truth_is_the_value_on_very_many_images(metric: str) -> None:
    rng = np.random.default_rng(0)
    detector, sizes = with_truth(metric, 0.9), np.ones(3000, dtype=np.int64)
    test = simulate(rng, sizes, detector.separation)
    (value,) = values_of(metric, detector, sizes, test, np.ones((1, 3000)))
    assert detector.truth(metric) == pytest.approx(0.9)
    assert value == pytest.approx(0.9, abs=0.01)


def test_the_truth_of_the_calibration_error_is_the_value_on_very_many_images() -> None:
    rng = np.random.default_rng(0)
    sizes = np.ones(100_000, dtype=np.int64)
    for confidence, expected in ((1.0, 0.0), (3.0, 0.12)):
        detector = Detector(with_truth("auc", 0.82).separation, confidence)
        test = simulate(rng, sizes, detector.separation)
        (gaps,) = values_of("ece", detector, sizes, test, np.ones((1, 100_000)))
        assert detector.truth("ece") == pytest.approx(expected, abs=0.001)
        assert np.abs(gaps).sum() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("metric", ["auc", "accuracy", "f1"])
def test_intervals_cover_where_the_percentile_bootstrap_does_not(metric: str) -> None:
    """27 photographs and a true value of 0.98; the benchmark has all cells and more rounds."""
    rng = np.random.default_rng(1)
    cell = covered(rng, 300, metric, with_truth(metric, 0.98), 27, SIZES["2 to 4 crops"])
    assert cell["interval_covers"] > 0.92
    assert cell["percentile_covers"] < 0.92
