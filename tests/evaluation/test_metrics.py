"""Every metric against scikit-learn and by hand; intervals that cover; thresholds that are best."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, ndtr
from scipy.special import logit as log_odds
from sklearn import metrics as sk

from synthdetect.evaluation.metrics import (
    ECE_BINS,
    METRICS,
    auc_interval,
    bootstrap_weights,
    choose_threshold,
    epoch_metrics,
    interval,
    intervals,
    metrics,
    resampled,
    weighted_metrics,
)
from synthdetect.system.arrays import FloatArray

Labels = npt.NDArray[np.int64]

NEED_BOTH = {
    "auc", "average_precision", "balanced_accuracy", "precision", "f1", "f1_macro", "eer",
    "tpr_at_fpr_1", "tpr_at_fpr_5", "tpr_at_fpr_10", "nll_balanced", "ece_balanced",
}  # fmt: skip


def random_data(seed: int, n: int = 60, ties: bool = True) -> tuple[Labels, FloatArray]:
    """Both classes, the synthetic ones somewhat higher; with ties, on a grid of quarters."""
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, n - 2), [0, 1])
    logits = rng.normal(size=n) * 1.5 + labels
    return labels, np.round(logits * 4) / 4 if ties else logits


def from_sklearn(
    labels: Labels, logits: FloatArray, threshold: float, weight: FloatArray | None = None
) -> dict[str, float]:
    p = expit(logits)
    said = p >= threshold
    w = {"sample_weight": weight}
    return {
        "auc": sk.roc_auc_score(labels, logits, **w),
        "average_precision": sk.average_precision_score(labels, logits, **w),
        "accuracy": sk.accuracy_score(labels, said, **w),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, said, **w),
        "precision": sk.precision_score(labels, said, zero_division=np.nan, **w),
        "recall": sk.recall_score(labels, said, **w),
        "f1": sk.f1_score(labels, said, **w),
        "f1_macro": sk.f1_score(labels, said, average="macro", **w),
        "real_accuracy": sk.recall_score(labels, said, pos_label=0, **w),
        "fake_accuracy": sk.recall_score(labels, said, **w),
        "nll": sk.log_loss(labels, p, **w),
        "brier": sk.brier_score_loss(labels, p, **w),
    }


# --- values


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.73])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_values_equal_scikit_learns(seed: int, ties: bool, threshold: float) -> None:
    labels, logits = random_data(seed, ties=ties)
    assert (len(set(logits)) < len(logits)) == ties
    ours, theirs = metrics(labels, logits, threshold), from_sklearn(labels, logits, threshold)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_bootstrap_values_equal_scikit_learns_with_the_draws_as_weights(seed: int) -> None:
    labels, logits = random_data(seed, n=40)
    sources = np.arange(40) // 2
    (weights,) = bootstrap_weights(sources, 30, seed=seed)
    theirs = [from_sklearn(labels, logits, 0.5, weight) for weight in weights]
    ours = intervals(labels, logits, 0.5, sources, replicates=30, seed=seed).set_index("metric")
    for name in theirs[0]:
        low, high = np.nanpercentile([draw[name] for draw in theirs], [2.5, 97.5])
        assert ours.loc[name, ["low", "high"]].tolist() == pytest.approx([low, high], abs=1e-12)


def test_metrics_are_reported_under_these_names_in_this_order() -> None:
    names = [
        "auc", "average_precision", "accuracy", "balanced_accuracy", "precision", "recall", "f1",
        "f1_macro", "real_accuracy", "fake_accuracy", "eer", "tpr_at_fpr_1", "tpr_at_fpr_5",
        "tpr_at_fpr_10", "nll", "nll_balanced", "brier", "ece", "ece_balanced",
    ]  # fmt: skip
    assert list(METRICS) == names
    assert list(metrics([0, 1], [0.0, 1.0], 0.5)) == names
    assert intervals([0, 1], [0.0, 1.0], 0.5, [0, 1], replicates=2)["metric"].tolist() == names


def test_a_case_worked_by_hand() -> None:
    """Three real, two synthetic; at 0.5 one real is called synthetic and one synthetic missed."""
    labels = [0, 0, 0, 1, 1]
    logits = log_odds([0.1, 0.3, 0.6, 0.4, 0.9])
    expected = {
        "auc": 5 / 6,  # of six pairs only (0.6, 0.4) is in the wrong order
        "average_precision": 0.5 * 1 + 0.5 * 2 / 3,
        "accuracy": 3 / 5,
        "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
        "precision": 1 / 2,
        "recall": 1 / 2,
        "f1": 1 / 2,
        "f1_macro": (1 / 2 + 2 / 3) / 2,
        "real_accuracy": 2 / 3,
        "fake_accuracy": 1 / 2,
        "eer": (1 / 3 + 1 / 2) / 2,  # cut at 0.6: FPR 1/3, FNR 1/2
        "tpr_at_fpr_1": 1 / 2,
        "tpr_at_fpr_5": 1 / 2,
        "tpr_at_fpr_10": 1 / 2,
        "nll": -(math.log(0.9) + math.log(0.7) + math.log(0.4) + math.log(0.4) + math.log(0.9)) / 5,
        "nll_balanced": -(
            (math.log(0.9) + math.log(0.7) + math.log(0.4)) / 3
            + (math.log(0.4) + math.log(0.9)) / 2
        )
        / 2,
        "brier": (0.01 + 0.09 + 0.36 + 0.36 + 0.01) / 5,
        "ece": (0.1 + 0.3 + 0.6 + 0.6 + 0.1) / 5,  # every image has its bin for itself,
    }
    # but 0.6 = 9/15 and 0.4 = 6/15 are bins' edges; which bin they are in makes no difference
    values = metrics(labels, logits, 0.5)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert values["ece_balanced"] == pytest.approx((1.0 / 3 + 0.7 / 2) / 2, abs=1e-12)


def test_ties_count_half_in_the_auc() -> None:
    assert metrics([0, 1], [0.0, 0.0], 0.5)["auc"] == 0.5
    assert metrics([0, 0, 1, 1], [0.0, 1.0, 1.0, 2.0], 0.5)["auc"] == 3.5 / 4


def test_an_image_exactly_at_the_threshold_is_called_synthetic() -> None:
    assert metrics([0, 1], [-1.0, 0.0], 0.5)["recall"] == 1.0
    assert metrics([0, 1], [-1.0, 0.0], 0.5000001)["recall"] == 0.0


def test_a_perfect_detector() -> None:
    values = metrics([0, 0, 1, 1, 1], [-9.0, -8.0, 7.0, 8.0, 9.0], 0.5)
    ones = set(METRICS) - {"eer", "nll", "nll_balanced", "brier", "ece", "ece_balanced"}
    assert {name: values[name] for name in ones} == dict.fromkeys(ones, 1.0)
    assert values["eer"] == 0.0
    assert all(0 < values[name] < 1e-3 for name in ("nll", "nll_balanced", "brier", "ece"))


def test_an_inverted_detector() -> None:
    values = metrics([0, 0, 1, 1], [8.0, 9.0, -9.0, -8.0], 0.5)
    zeros = ("auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "f1_macro",
             "real_accuracy", "tpr_at_fpr_1", "tpr_at_fpr_10")  # fmt: skip
    assert {name: values[name] for name in zeros} == dict.fromkeys(zeros, 0.0)
    assert values["eer"] == 1.0
    assert values["brier"] > 0.99


def test_a_detector_that_knows_nothing() -> None:
    values = metrics([0, 0, 0, 1], [0.0] * 4, 0.5)
    assert values["auc"] == values["eer"] == values["balanced_accuracy"] == 0.5
    assert values["average_precision"] == 0.25
    assert values["nll"] == values["nll_balanced"] == pytest.approx(math.log(2))
    assert values["brier"] == 0.25
    assert values["ece"] == pytest.approx(0.25)
    assert values["ece_balanced"] == pytest.approx(0.0)


# --- classes that are missing


@pytest.mark.parametrize(
    ("label", "undefined"),
    [(0, NEED_BOTH | {"recall", "fake_accuracy"}), (1, NEED_BOTH | {"real_accuracy"})],
)
def test_what_needs_a_missing_class_is_undefined_and_nothing_else(
    label: int, undefined: set[str]
) -> None:
    values = metrics([label] * 4, [-1.0, 2.0, 3.0, -4.0], 0.5)
    assert {name for name, value in values.items() if math.isnan(value)} == undefined
    assert values["accuracy"] == 0.5
    right = [1.0, -2.0, -3.0, 4.0] if label == 0 else [-1.0, 2.0, 3.0, -4.0]
    assert values["nll"] == pytest.approx(np.mean([math.log1p(math.exp(-x)) for x in right]))


def test_one_class_has_undefined_intervals_where_the_value_is() -> None:
    table = intervals([0] * 6, np.arange(6.0), 0.5, np.arange(6), replicates=20)
    nan = table["value"].isna()
    assert (table["low"].isna() == nan).all()
    assert (table["high"].isna() == nan).all()
    assert set(table.loc[nan, "metric"]) == NEED_BOTH | {"recall", "fake_accuracy"}


def test_precision_is_undefined_where_nothing_is_called_synthetic() -> None:
    values = metrics([0, 0, 1], [-3.0, -2.0, -1.0], 0.5)
    assert math.isnan(values["precision"])
    assert {name for name, value in values.items() if math.isnan(value)} == {"precision"}
    assert (values["recall"], values["f1"], values["f1_macro"]) == (0.0, 0.0, 0.4)


# --- error rates


@pytest.mark.parametrize(
    ("real", "synthetic", "eer"),
    [
        ([1, 2, 3, 4], [5, 6, 7, 8], 0.0),
        ([1, 2, 3, 6], [5, 7, 8, 9], 0.25),  # cut between 5 and 6: FPR 1/4, FNR 1/4
        ([1, 2, 5, 6], [3, 4, 7, 8], 0.5),
        ([5, 6], [1, 2], 1.0),
        ([1, 4], [2, 3, 5], (1 / 2 + 1 / 3) / 2),  # no cut where they are equal
    ],
)
def test_equal_error_rate_by_hand(real: list[float], synthetic: list[float], eer: float) -> None:
    labels = [0] * len(real) + [1] * len(synthetic)
    values = metrics(labels, np.array([*real, *synthetic], dtype=float), 0.5)
    assert values["eer"] == pytest.approx(eer)


def test_recall_at_limited_false_positives_by_hand() -> None:
    """A hundred real at 1 to 100; five synthetic among them."""
    labels = [0] * 100 + [1] * 5
    logits = [*range(1, 101), 200.0, 99.5, 95.5, 90.5, 50.0]
    values = metrics(labels, np.array(logits) / 10, 0.5)
    # above 99.5 lies 1 real (1 %), above 95.5 are 5 (5 %), above 90.5 are 10 (10 %)
    assert values["tpr_at_fpr_1"] == 2 / 5
    assert values["tpr_at_fpr_5"] == 3 / 5
    assert values["tpr_at_fpr_10"] == 4 / 5


def test_recall_at_limited_false_positives_takes_ties_together() -> None:
    """The synthetic at the score of two of ten real cannot be had for fewer false positives."""
    labels = [0] * 10 + [1, 1]
    logits = np.array([1, 1, 1, 1, 1, 1, 1, 1, 5, 5, 5, 9], dtype=float)
    values = metrics(labels, logits, 0.5)
    assert values["tpr_at_fpr_10"] == 0.5


# --- calibration errors


def test_expected_calibration_error_by_hand() -> None:
    """Two images in the bin from 0.2 to 0.267, three in that from 0.8 to 0.867."""
    probabilities = [0.21, 0.25, 0.81, 0.83, 0.86]
    labels = [0, 1, 1, 1, 0]
    values = metrics(labels, log_odds(probabilities), 0.5)
    low = abs(0.21 + 0.25 - 1) / 5
    high = abs(0.81 + 0.83 + 0.86 - 2) / 5
    assert ECE_BINS == 15
    assert values["ece"] == pytest.approx(low + high)
    # two real of weight 1/4 each, three synthetic of weight 1/6 each
    low = abs((0.21 - 0) / 4 + (0.25 - 1) / 6)
    high = abs((0.81 - 1) / 6 + (0.83 - 1) / 6 + (0.86 - 0) / 4)
    assert values["ece_balanced"] == pytest.approx(low + high)


def test_a_probability_of_exactly_one_is_in_the_last_bin() -> None:
    values = metrics([0, 1, 1], [-800.0, 800.0, log_odds(0.95)], 0.5)
    assert expit(800.0) == 1.0
    assert values["ece"] == pytest.approx(0.05 / 3)


def test_balanced_forms_do_not_change_when_a_class_is_repeated() -> None:
    labels, logits = random_data(3)
    more_labels = np.concatenate([labels, *[labels[labels == 0]] * 4])
    more_logits = np.concatenate([logits, *[logits[labels == 0]] * 4])
    once, often = metrics(labels, logits, 0.5), metrics(more_labels, more_logits, 0.5)
    for name in ("nll_balanced", "ece_balanced", "balanced_accuracy", "auc", "eer"):
        assert often[name] == pytest.approx(once[name])
    for name in ("nll", "ece", "accuracy", "precision"):
        assert often[name] != pytest.approx(once[name])


def test_calibrated_probabilities_have_next_to_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=100_000)
    labels = rng.random(100_000) < expit(logits)
    assert metrics(labels, logits, 0.5)["ece"] < 0.01
    assert metrics(labels, 3 * logits, 0.5)["ece"] > 0.1


def test_extreme_logits_have_finite_losses() -> None:
    values = metrics([0, 1, 0, 1], [-800.0, 800.0, 800.0, -800.0], 0.5)
    assert values["nll"] == values["nll_balanced"] == 400.0
    assert values["brier"] == values["ece"] == 0.5
    assert all(math.isfinite(value) for value in values.values())


# --- weightings


def test_an_image_that_counts_twice_is_the_same_as_two_images() -> None:
    labels, logits = random_data(0)
    weights = np.random.default_rng(0).integers(0, 3, size=(4, 60))
    together = weighted_metrics(labels, logits, 0.4, weights)
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(60), weight)
        expected = metrics(labels[drawn], logits[drawn], 0.4)
        assert {name: values[row] for name, values in together.items()} == pytest.approx(expected)
    without_real = weighted_metrics(labels, logits, 0.4, labels[None])
    assert {name for name, (value,) in without_real.items() if math.isnan(value)} == (
        NEED_BOTH | {"real_accuracy"}
    )


@pytest.mark.parametrize("weights", [[1.0, 1.0], [[1.0]], [[1.0, -1.0]], [[1.0, math.nan]]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        weighted_metrics([0, 1], [0.0, 1.0], 0.5, weights)


# --- what is refused


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    for call in (
        lambda: metrics([0, 1, 1], [0.0, bad, 1.0], 0.5),
        lambda: intervals([0, 1, 1], [0.0, bad, 1.0], 0.5, [0, 1, 2], replicates=2),
        lambda: choose_threshold([0, 1, 1], [0.0, bad, 1.0], "f1"),
    ):
        with pytest.raises(ValueError, match="1 logits are not finite"):
            call()


@pytest.mark.parametrize(("labels", "logits"), [([], []), ([0, 1], [0.5]), ([1], [0.5, 1.0])])
def test_no_images_and_unequal_numbers_are_refused(labels: list[int], logits: list[float]) -> None:
    with pytest.raises(ValueError, match="need as many, and at least one"):
        metrics(labels, logits, 0.5)


# --- intervals


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_contains_its_value(seed: int) -> None:
    labels, logits = random_data(seed, n=200, ties=False)
    table = intervals(labels, logits, 0.5, np.arange(200), replicates=300)
    # calibration errors are biased upwards by resampling, and may lie below their interval
    table = table[~table["metric"].isin(["ece", "ece_balanced"])]
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert (table["low"] < table["high"]).all()


def test_intervals_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    labels, logits = random_data(0)
    groups = np.arange(60) // 3
    first, again, other = (
        intervals(labels, logits, 0.5, groups, replicates=50, seed=seed) for seed in (7, 7, 8)
    )
    assert first.equals(again)
    assert not first.equals(other)
    assert first["value"].equals(other["value"])


@pytest.mark.parametrize("seed", range(3))
def test_the_auc_alone_has_the_same_interval(seed: int) -> None:
    labels, logits = random_data(seed)
    groups = np.arange(len(labels)) // 3
    row = intervals(labels, logits, 0.5, groups, replicates=200, seed=seed).set_index("metric")
    alone = auc_interval(labels, logits, groups, replicates=200, seed=seed)
    np.testing.assert_allclose(alone, row.loc["auc", ["value", "low", "high"]].astype(float))


def test_a_higher_level_is_a_wider_interval_around_the_lower_one() -> None:
    labels, logits = random_data(0)
    wide, narrow = (
        intervals(labels, logits, 0.5, np.arange(60), replicates=200, level=level)
        for level in (0.99, 0.5)
    )
    assert (wide["low"] <= narrow["low"]).all()
    assert (wide["high"] >= narrow["high"]).all()
    assert wide["high"][0] - wide["low"][0] > 1.5 * (narrow["high"][0] - narrow["low"][0])


def test_what_the_names_of_sources_are_makes_no_difference() -> None:
    labels, logits = random_data(0)
    numbers = np.arange(60) // 3
    names = np.array([f"photo {number}" for number in numbers], dtype=object)
    by_number, by_name = (
        intervals(labels, logits, 0.5, groups, replicates=30) for groups in (numbers, names)
    )
    assert by_number.equals(by_name)


def test_copies_of_a_source_add_no_certainty() -> None:
    """Nine copies of each image: drawn one by one, intervals look three times too narrow."""
    labels, logits = random_data(1, n=80, ties=False)
    copies = np.repeat(np.arange(80), 9)

    def width(labels: Labels, logits: FloatArray, groups: Labels) -> float:
        auc = intervals(labels, logits, 0.5, groups, replicates=400).set_index("metric").loc["auc"]
        return float(auc["high"] - auc["low"])

    once = width(labels, logits, np.arange(80))
    by_source = width(labels[copies], logits[copies], copies)
    by_image = width(labels[copies], logits[copies], np.arange(720))
    assert by_source == pytest.approx(once, rel=1e-9)
    assert 2.3 < by_source / by_image < 3.9


def test_whole_sources_are_drawn_as_many_as_there_are() -> None:
    groups = np.array(["b", "a", "a", "c", "b", "d"], dtype=object)
    weights = np.concatenate(list(bootstrap_weights(groups, 500, seed=0)))
    assert weights.shape == (500, 6)
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3, 5]].sum(axis=1) == 4).all()
    assert weights[:, 3].mean() == pytest.approx(1.0, abs=0.15)
    assert weights[:, 3].var() == pytest.approx(0.75, abs=0.15)  # binomial: 4 * 1/4 * 3/4


def test_many_images_are_drawn_in_chunks_that_hold_every_replicate() -> None:
    chunks = list(bootstrap_weights(np.arange(1_500_000) % 10, 5, seed=0))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]


def test_intervals_of_the_auc_cover_the_truth_as_often_as_they_say() -> None:
    """Two normal distributions one and a half apart have an AUC of Phi(1.5 / sqrt 2) = 0.856."""
    truth = ndtr(1.5 / math.sqrt(2))
    labels = np.repeat([0, 1], 50)

    def covers() -> Iterator[bool]:
        for seed in range(200):
            logits = np.random.default_rng(seed).normal(size=100) + 1.5 * labels
            table = intervals(labels, logits, 0.5, np.arange(100), replicates=300, seed=seed)
            _, _, low, high = table.iloc[0]
            yield low <= truth <= high

    assert 0.90 <= np.mean(list(covers())) <= 0.99


# --- the threshold


def quality(labels: Labels, logits: FloatArray, threshold: float, rule: str) -> float:
    return metrics(labels, logits, threshold)[rule]


@pytest.mark.parametrize("rule", ["balanced_accuracy", "f1"])
@pytest.mark.parametrize("seed", range(40))
def test_no_cut_is_better_than_the_chosen_one_nor_as_good_and_nearer_to_a_half(
    seed: int, rule: str
) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 13))
    labels = np.append(rng.integers(0, 2, n - 2), [0, 1])
    logits = rng.integers(-4, 5, n) / 2  # many ties
    scores = np.unique(logits)
    cuts = [*expit((scores[:-1] + scores[1:]) / 2), expit(scores[0])]  # between, and below all
    reached = {cut: quality(labels, logits, cut, rule) for cut in cuts}
    best = max(reached.values())
    chosen = choose_threshold(labels, logits, rule)
    assert quality(labels, logits, chosen, rule) == pytest.approx(best, abs=1e-12)
    nearest = min(abs(c - 0.5) for c, q in reached.items() if q >= best - 1e-9)
    assert abs(chosen - 0.5) == pytest.approx(nearest, abs=1e-12)


def test_the_rules_differ_where_classes_are_unequal() -> None:
    labels = np.array([0] * 8 + [1, 1])
    logits = np.array([-4, -4, -4, -4, -4, 1, 1, 1, 0.5, 2.5])
    assert choose_threshold(labels, logits, "balanced_accuracy") == pytest.approx(
        expit((0.5 - 4) / 2)  # finds both at 3/8: (1 + 5/8) / 2 = .81 against (1/2 + 1) / 2
    )
    assert choose_threshold(labels, logits, "f1") == pytest.approx(
        expit((1 + 2.5) / 2)  # 2 / 3 against 4 / 7
    )


def test_a_half_is_a_half() -> None:
    assert choose_threshold([0, 1], [3.0, 4.0], "half") == 0.5
    assert choose_threshold([0, 0], [math.nan, 4.0], "half") == 0.5


def test_the_threshold_lies_midway_between_the_logits_it_separates() -> None:
    chosen = choose_threshold([0, 0, 1, 1], [-2.0, 1.0, 4.0, 9.0], "balanced_accuracy")
    assert log_odds(chosen) == pytest.approx(2.5)


def test_of_equally_good_cuts_the_one_nearest_to_a_half_is_chosen() -> None:
    """Between -3 and -1, and between 1 and 3, a cut is right about three of four."""
    labels, logits = [0, 1, 0, 1], [-3.0, -1.0, 1.0, 3.0]
    chosen = choose_threshold(labels, logits, "balanced_accuracy")
    assert metrics(labels, logits, chosen)["balanced_accuracy"] == 0.75
    assert abs(log_odds(chosen)) == pytest.approx(2.0)


def test_a_cut_below_everything_is_possible() -> None:
    """Two synthetic below the one real: f1 is best if all are called synthetic."""
    chosen = choose_threshold([1, 1, 0], [-1.0, 1.0, 2.0], "f1")
    assert metrics([1, 1, 0], [-1.0, 1.0, 2.0], chosen)["f1"] == pytest.approx(0.8)


def test_scores_that_round_to_one_probability_cannot_be_told_apart_by_a_threshold() -> None:
    """The sigmoid of 40 and of 50 is 1; a cut between them would be a cut below both."""
    labels = np.array([0] * 4 + [1] * 5 + [0] * 6 + [1] * 5)
    logits = np.array([-5.0] * 4 + [0.0] * 5 + [40.0] * 6 + [50.0] * 5)
    chosen = choose_threshold(labels, logits, "balanced_accuracy")
    reachable = max(quality(labels, logits, t, "balanced_accuracy") for t in (0.01, 0.3, 0.9, 1.0))
    assert reachable == 0.7
    assert quality(labels, logits, chosen, "balanced_accuracy") == pytest.approx(reachable)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="accuracy"):
        choose_threshold([0, 1], [0.0, 1.0], "accuracy")


# --- what an epoch reports


def test_an_epoch_reports_four_numbers_under_its_prefix() -> None:
    labels, logits = random_data(0)
    record = epoch_metrics("val", labels, logits)
    all_values = metrics(labels, logits, 0.5)
    assert record == {
        "val/loss": all_values["nll"],
        "val/auc": all_values["auc"],
        "val/accuracy": all_values["accuracy"],
        "val/f1": all_values["f1"],
    }


def test_mixed_targets_count_for_the_class_they_are_nearer_to() -> None:
    logits = [-1.0, 1.0, 2.0, -2.0]
    assert epoch_metrics("train", [0.1, 0.9, 0.5, 0.49], logits) == (
        epoch_metrics("train", [0, 1, 1, 0], logits)
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_fpr", [0.01, 0.1, 0.3, 0.9])
def test_a_false_positive_rate_is_kept_to_and_used_up(seed: int, max_fpr: float) -> None:
    labels, logits = random_data(seed)
    threshold = choose_threshold(labels, logits, "fpr", max_fpr)
    found = metrics(labels, logits, threshold)
    assert 1 - found["real_accuracy"] <= max_fpr
    possible = [
        m["recall"]
        for cut in [*expit(logits), 2.0]
        if 1 - (m := metrics(labels, logits, cut))["real_accuracy"] <= max_fpr
    ]
    assert found["recall"] == max(possible)


def test_nothing_is_called_synthetic_where_even_the_highest_score_is_a_real_one() -> None:
    labels, logits = [0, 1, 0], [2.0, 1.0, 0.0]
    threshold = choose_threshold(labels, logits, "fpr", 0.05)
    assert metrics(labels, logits, threshold)["real_accuracy"] == 1
    assert threshold == pytest.approx(expit(2.0))


def test_subsets_share_their_bootstrap_draws() -> None:
    labels, logits = random_data(2)
    groups = np.arange(len(labels)) // 3
    everything = np.ones(len(labels), dtype=bool)
    part = groups < 12
    found = resampled(
        labels, logits, 0.5, groups, {"all": everything, "again": everything, "part": part},
        replicates=50,
    )  # fmt: skip
    assert (found["all"]["auc"] == found["again"]["auc"]).all()
    weights = np.concatenate(list(bootstrap_weights(groups, 50, 0)))
    alone = weighted_metrics(labels[part], logits[part], 0.5, weights[:, part])
    assert found["part"]["f1"] == pytest.approx(alone["f1"], nan_ok=True)


def test_the_interval_of_nothing_defined_is_undefined() -> None:
    assert all(math.isnan(bound) for bound in interval(np.array([np.nan, np.nan])))
    assert interval(np.array([1.0, np.nan, 3.0]), 1.0) == (1.0, 3.0)
