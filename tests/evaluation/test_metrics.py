"""Metrics, bootstrap weights and thresholds against scikit-learn, hand calculation and search."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit
from scipy.special import logit as log_odds
from sklearn import metrics as sk

from synthdetect.evaluation.metrics import (
    ECE_BINS,
    METRICS,
    bootstrap_metrics,
    bootstrap_weights,
    choose_threshold,
    epoch_metrics,
    metrics,
    weighted_metrics,
)
from synthdetect.system.arrays import FloatArray

Labels = npt.NDArray[np.int64]

NEED_BOTH = {
    "auc", "average_precision", "balanced_accuracy", "precision", "f1", "f1_macro", "eer",
    "tpr_at_fpr_1", "tpr_at_fpr_5", "tpr_at_fpr_10", "nll_balanced", "ece_balanced",
}  # fmt: skip


def random_data(seed: int, n: int = 60, ties: bool = True) -> tuple[Labels, FloatArray]:
    """Labels and logits of both classes; with ties, the logits are multiples of 1/4."""
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, n - 2), [0, 1])
    logits = rng.normal(size=n) * 1.5 + labels
    return labels, np.round(logits * 4) / 4 if ties else logits


def from_sklearn(
    labels: Labels, logits: FloatArray, threshold: float, weight: FloatArray | None = None
) -> dict[str, float]:
    p = expit(logits)
    predicted = p >= threshold
    w = {"sample_weight": weight}
    return {
        "auc": sk.roc_auc_score(labels, logits, **w),
        "average_precision": sk.average_precision_score(labels, logits, **w),
        "accuracy": sk.accuracy_score(labels, predicted, **w),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, **w),
        "precision": sk.precision_score(labels, predicted, zero_division=np.nan, **w),
        "recall": sk.recall_score(labels, predicted, **w),
        "f1": sk.f1_score(labels, predicted, **w),
        "f1_macro": sk.f1_score(labels, predicted, average="macro", **w),
        "real_accuracy": sk.recall_score(labels, predicted, pos_label=0, **w),
        "fake_accuracy": sk.recall_score(labels, predicted, **w),
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


def test_all_metrics_are_reported_in_the_order_of_the_registry() -> None:
    assert list(metrics([0, 1], [0.0, 1.0], 0.5)) == list(METRICS)


def test_a_case_worked_by_hand() -> None:
    """Three real and two synthetic images; at 0.5 one of each is misclassified."""
    labels = [0, 0, 0, 1, 1]
    logits = log_odds([0.1, 0.3, 0.6, 0.4, 0.9])
    expected = {
        "auc": 5 / 6,  # of six pairs, only (0.6, 0.4) is in the wrong order
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
        # Each image is alone in its bin, on whichever side of the edges 6/15 and 9/15 it is.
        "ece": (0.1 + 0.3 + 0.6 + 0.6 + 0.1) / 5,
    }
    values = metrics(labels, logits, 0.5)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert values["ece_balanced"] == pytest.approx((1.0 / 3 + 0.7 / 2) / 2, abs=1e-12)


def test_ties_count_one_half_in_the_auc() -> None:
    assert metrics([0, 1], [0.0, 0.0], 0.5)["auc"] == 0.5
    assert metrics([0, 0, 1, 1], [0.0, 1.0, 1.0, 2.0], 0.5)["auc"] == 3.5 / 4


def test_an_image_exactly_at_the_threshold_is_classified_as_synthetic() -> None:
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


def test_an_uninformative_detector() -> None:
    values = metrics([0, 0, 0, 1], [0.0] * 4, 0.5)
    assert values["auc"] == values["eer"] == values["balanced_accuracy"] == 0.5
    assert values["average_precision"] == 0.25
    assert values["nll"] == values["nll_balanced"] == pytest.approx(math.log(2))
    assert values["brier"] == 0.25
    assert values["ece"] == pytest.approx(0.25)
    assert values["ece_balanced"] == pytest.approx(0.0)


# --- missing classes


@pytest.mark.parametrize(
    ("label", "undefined"),
    [(0, NEED_BOTH | {"recall", "fake_accuracy"}), (1, NEED_BOTH | {"real_accuracy"})],
)
def test_only_metrics_that_need_a_missing_class_are_undefined(
    label: int, undefined: set[str]
) -> None:
    values = metrics([label] * 4, [-1.0, 2.0, 3.0, -4.0], 0.5)
    assert {name for name, value in values.items() if math.isnan(value)} == undefined
    assert values["accuracy"] == 0.5
    correct = [1.0, -2.0, -3.0, 4.0] if label == 0 else [-1.0, 2.0, 3.0, -4.0]
    assert values["nll"] == pytest.approx(np.mean([math.log1p(math.exp(-x)) for x in correct]))


def test_precision_is_undefined_where_nothing_is_classified_as_synthetic() -> None:
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
        ([1, 4], [2, 3, 5], (1 / 2 + 1 / 3) / 2),  # no cut has equal rates
    ],
)
def test_equal_error_rate_by_hand(real: list[float], synthetic: list[float], eer: float) -> None:
    labels = [0] * len(real) + [1] * len(synthetic)
    values = metrics(labels, np.array([*real, *synthetic], dtype=float), 0.5)
    assert values["eer"] == pytest.approx(eer)


def test_recall_at_limited_false_positives_by_hand() -> None:
    """A hundred real images with scores of 1 to 100, and five synthetic ones among them."""
    labels = [0] * 100 + [1] * 5
    logits = [*range(1, 101), 200.0, 99.5, 95.5, 90.5, 50.0]
    values = metrics(labels, np.array(logits) / 10, 0.5)
    # 1 real image (1 %) lies above 99.5, 5 (5 %) above 95.5 and 10 (10 %) above 90.5
    assert values["tpr_at_fpr_1"] == 2 / 5
    assert values["tpr_at_fpr_5"] == 3 / 5
    assert values["tpr_at_fpr_10"] == 4 / 5


def test_recall_at_limited_false_positives_does_not_split_ties() -> None:
    """A synthetic image with the score of two of ten real ones cannot be found without them."""
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


def test_balanced_metrics_do_not_depend_on_the_sizes_of_the_classes() -> None:
    labels, logits = random_data(3)
    more_labels = np.concatenate([labels, *[labels[labels == 0]] * 4])
    more_logits = np.concatenate([logits, *[logits[labels == 0]] * 4])
    once, often = metrics(labels, logits, 0.5), metrics(more_labels, more_logits, 0.5)
    for name in ("nll_balanced", "ece_balanced", "balanced_accuracy", "auc", "eer"):
        assert often[name] == pytest.approx(once[name])
    for name in ("nll", "ece", "accuracy", "precision"):
        assert often[name] != pytest.approx(once[name])


def test_calibrated_probabilities_have_almost_no_calibration_error() -> None:
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


def test_a_weight_of_two_equals_two_copies_of_an_image() -> None:
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
def test_invalid_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        weighted_metrics([0, 1], [0.0, 1.0], 0.5, weights)


# --- invalid arguments


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    for call in (
        lambda: metrics([0, 1, 1], [0.0, bad, 1.0], 0.5),
        lambda: choose_threshold([0, 1, 1], [0.0, bad, 1.0], "f1"),
    ):
        with pytest.raises(ValueError, match="1 logits"):
            call()


@pytest.mark.parametrize(("labels", "logits"), [([], []), ([0, 1], [0.5]), ([1], [0.5, 1.0])])
def test_no_images_and_unequal_numbers_are_refused(labels: list[int], logits: list[float]) -> None:
    with pytest.raises(ValueError, match=f"{len(labels)} labels and {len(logits)} logits"):
        metrics(labels, logits, 0.5)


# --- the bootstrap


def test_each_replicate_draws_as_many_whole_sources_as_there_are() -> None:
    groups = np.array(["b", "a", "a", "c", "b", "d"], dtype=object)
    weights = np.concatenate(list(bootstrap_weights(groups, 500, seed=0)))
    assert weights.shape == (500, 6)
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3, 5]].sum(axis=1) == 4).all()
    assert weights[:, 3].mean() == pytest.approx(1.0, abs=0.15)
    assert weights[:, 3].var() == pytest.approx(0.75, abs=0.15)  # binomial: 4 * 1/4 * 3/4


def test_chunks_hold_all_replicates() -> None:
    chunks = list(bootstrap_weights(np.arange(1_500_000) % 10, 5, seed=0))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]


# --- the threshold


def quality(labels: Labels, logits: FloatArray, threshold: float, rule: str) -> float:
    return metrics(labels, logits, threshold)[rule]


@pytest.mark.parametrize("rule", ["balanced_accuracy", "f1"])
@pytest.mark.parametrize("seed", range(40))
def test_no_cut_is_better_than_the_chosen_one_or_as_good_and_closer_to_one_half(
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


def test_the_rules_differ_for_classes_of_unequal_size() -> None:
    labels = np.array([0] * 8 + [1, 1])
    logits = np.array([-4, -4, -4, -4, -4, 1, 1, 1, 0.5, 2.5])
    assert choose_threshold(labels, logits, "balanced_accuracy") == pytest.approx(
        expit((0.5 - 4) / 2)  # finds both at 3/8: (1 + 5/8) / 2 = .81 against (1/2 + 1) / 2
    )
    assert choose_threshold(labels, logits, "f1") == pytest.approx(
        expit((1 + 2.5) / 2)  # 2 / 3 against 4 / 7
    )


def test_the_rule_half_needs_no_scores() -> None:
    assert choose_threshold([0, 1], [3.0, 4.0], "half") == 0.5
    assert choose_threshold([0, 0], [math.nan, 4.0], "half") == 0.5


def test_the_threshold_lies_midway_between_the_logits_it_separates() -> None:
    chosen = choose_threshold([0, 0, 1, 1], [-2.0, 1.0, 4.0, 9.0], "balanced_accuracy")
    assert log_odds(chosen) == pytest.approx(2.5)


def test_the_cut_closest_to_one_half_is_chosen_among_equally_good_ones() -> None:
    """Cuts between -3 and -1 and between 1 and 3 classify three of four images correctly."""
    labels, logits = [0, 1, 0, 1], [-3.0, -1.0, 1.0, 3.0]
    chosen = choose_threshold(labels, logits, "balanced_accuracy")
    assert metrics(labels, logits, chosen)["balanced_accuracy"] == 0.75
    assert abs(log_odds(chosen)) == pytest.approx(2.0)


def test_a_cut_below_all_scores_is_possible() -> None:
    """With two synthetic images below a real one, F1 is best if all are classified as synthetic."""
    chosen = choose_threshold([1, 1, 0], [-1.0, 1.0, 2.0], "f1")
    assert metrics([1, 1, 0], [-1.0, 1.0, 2.0], chosen)["f1"] == pytest.approx(0.8)


def test_no_threshold_lies_between_scores_of_equal_probability() -> None:
    """The sigmoids of 40 and 50 are both 1, so a cut between them would be a cut below both."""
    labels = np.array([0] * 4 + [1] * 5 + [0] * 6 + [1] * 5)
    logits = np.array([-5.0] * 4 + [0.0] * 5 + [40.0] * 6 + [50.0] * 5)
    chosen = choose_threshold(labels, logits, "balanced_accuracy")
    reachable = max(quality(labels, logits, t, "balanced_accuracy") for t in (0.01, 0.3, 0.9, 1.0))
    assert reachable == 0.7
    assert quality(labels, logits, chosen, "balanced_accuracy") == pytest.approx(reachable)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="accuracy"):
        choose_threshold([0, 1], [0.0, 1.0], "accuracy")


# --- metrics of an epoch


def test_an_epoch_reports_four_metrics_under_its_prefix() -> None:
    labels, logits = random_data(0)
    record = epoch_metrics("val", labels, logits)
    all_values = metrics(labels, logits, 0.5)
    assert record == {
        "val/loss": all_values["nll"],
        "val/auc": all_values["auc"],
        "val/accuracy": all_values["accuracy"],
        "val/f1": all_values["f1"],
    }


def test_mixed_targets_are_rounded() -> None:
    logits = [-1.0, 1.0, 2.0, -2.0]
    assert epoch_metrics("train", [0.1, 0.9, 0.5, 0.49], logits) == (
        epoch_metrics("train", [0, 1, 1, 0], logits)
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_fpr", [0.01, 0.1, 0.3, 0.9])
def test_the_rule_fpr_maximises_recall_within_its_false_positive_rate(
    seed: int, max_fpr: float
) -> None:
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


def test_the_rule_fpr_classifies_nothing_as_synthetic_if_a_real_image_has_the_highest_score() -> (
    None
):
    labels, logits = [0, 1, 0], [2.0, 1.0, 0.0]
    threshold = choose_threshold(labels, logits, "fpr", 0.05)
    assert metrics(labels, logits, threshold)["real_accuracy"] == 1
    assert threshold == pytest.approx(expit(2.0))


def test_subsets_share_their_bootstrap_replicates() -> None:
    labels, logits = random_data(2)
    groups = np.arange(len(labels)) // 3
    everything = np.ones(len(labels), dtype=bool)
    part = groups < 12
    found = bootstrap_metrics(
        labels, logits, 0.5, groups, {"all": everything, "again": everything, "part": part},
        replicates=50,
    )  # fmt: skip
    assert (found["all"]["auc"] == found["again"]["auc"]).all()
    weights = np.concatenate(list(bootstrap_weights(groups, 50, 0)))
    alone = weighted_metrics(labels[part], logits[part], 0.5, weights[:, part])
    assert found["part"]["f1"] == pytest.approx(alone["f1"], nan_ok=True)
