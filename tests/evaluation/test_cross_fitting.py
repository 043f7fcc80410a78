"""Cross-fitted decisions: nothing that judges a photograph was chosen with it."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from benchmarks.cross_fitting import METHODS, SETTINGS, errors
from synthdetect.evaluation.cross_fitting import cross_fit, evaluate_cross_fitted
from synthdetect.evaluation.metrics import metrics
from synthdetect.evaluation.options import CALIBRATIONS, DecisionOptions

OPTIONS = DecisionOptions()


def pool_of(
    seed: int = 0, *, photographs: int = 20, scales: tuple[float, ...] = (1, 1, 1)
) -> pd.DataFrame:
    """Folds of photographs with a real and a synthetic image each."""
    rng = np.random.default_rng(seed)
    tables = []
    for fold, scale in enumerate(scales, 1):
        labels = np.tile([0, 1], photographs)
        sources = [f"f{fold}s{n // 2}" for n in range(2 * photographs)]
        logits = scale * (rng.normal(size=2 * photographs) + 1.6 * labels - 0.8)
        tables.append(
            pd.DataFrame({"label": labels, "raw_logit": logits, "fold": fold, "source_id": sources})
        )
    table = pd.concat(tables, ignore_index=True)
    generators = np.where(table["label"] == 1, "g", "")
    return table.assign(
        path=[f"{n}.jpg" for n in range(len(table))], generator=generators, category=""
    )


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_the_labels_of_a_photograph_do_not_change_what_judges_it(calibration: str) -> None:
    options, pool = DecisionOptions(calibration=calibration), pool_of()
    found = cross_fit(options, pool, seed=0)
    moved = 0
    for source in ("f1s0", "f2s7", "f3s19"):
        own = (pool["source_id"] == source).to_numpy()
        swapped = pool.assign(label=np.where(own, 1 - pool["label"], pool["label"]))
        other = cross_fit(options, swapped, seed=0)
        assert np.array_equal(found.logits[own], other.logits[own])
        assert np.array_equal(found.thresholds[own], other.thresholds[own])
        moved += not np.array_equal(found.logits[~own], other.logits[~own])
        moved += not np.array_equal(found.thresholds[~own], other.thresholds[~own])
    assert moved  # that of others does change it


def test_held_out_images_are_calibrated_by_validation_and_judged_by_the_other_folds() -> None:
    pool, validation = pool_of(scales=(1, 10, 0.1)), pool_of(1, scales=(1, 10, 0.1))
    found = cross_fit(OPTIONS, pool, seed=0, validation=validation)
    for fold in (1, 2, 3):
        own = (pool["fold"] == fold).to_numpy()
        val = validation[validation["fold"] == fold]
        calibration = CALIBRATIONS["temperature"].load()(val["label"], val["raw_logit"])
        assert np.array_equal(found.logits[own], calibration(pool.loc[own, "raw_logit"]))
        swapped = pool.assign(label=np.where(own, 1 - pool["label"], pool["label"]))
        other = cross_fit(OPTIONS, swapped, seed=0, validation=validation)
        assert np.array_equal(found.logits, other.logits)
        assert np.array_equal(found.thresholds[own], other.thresholds[own])
        assert len(np.unique(found.thresholds[own])) == 1


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_the_decision_of_a_further_network_is_the_median_of_the_folds(calibration: str) -> None:
    options, pool = DecisionOptions(calibration=calibration), pool_of(scales=(1, 2, 30))
    decision = cross_fit(options, pool, seed=0).decision
    assert decision.calibration.sound
    assert decision.prior == pool["label"].mean()
    fit = CALIBRATIONS[calibration].load()
    grid = np.array([-1.5, 0.0, 2.0])
    each = [fit(own["label"], own["raw_logit"])(grid) for _, own in pool.groupby("fold")]
    if calibration == "platt":  # the median of slope and of offset
        middle = sorted(
            fit(own["label"], own["raw_logit"]).slope for _, own in pool.groupby("fold")
        )
        assert decision.calibration.slope == middle[1]
    elif calibration == "isotonic":
        low, high = np.min(each, axis=0), np.max(each, axis=0)
        assert ((low <= decision.calibration(grid)) & (decision.calibration(grid) <= high)).all()
    else:
        assert decision.calibration(grid) == pytest.approx(np.median(each, axis=0))


def test_a_handful_of_photographs_is_not_calibrated_but_judged() -> None:
    pool = pool_of(photographs=1, scales=(1, 1))
    found = cross_fit(OPTIONS, pool, seed=0)
    assert np.isfinite(found.logits).all()
    assert ((found.thresholds >= 0) & (found.thresholds <= 1)).all()
    lone = pool_of(photographs=1, scales=(1, 1)).iloc[[0, 3]]  # a class in each fold
    found = cross_fit(OPTIONS, lone, seed=0)
    assert np.array_equal(found.logits, lone["raw_logit"])
    assert set(found.thresholds) == {0.5}


def test_each_image_counts_as_its_own_threshold_answers() -> None:
    pool = pool_of(scales=(1, 5, 0.2))
    options = DecisionOptions(unsure=0.1)
    fitted = cross_fit(options, pool, seed=0)
    found = evaluate_cross_fitted(pool, fitted, "oof", seed=0)
    table, values = found.predictions, found.overall.set_index("metric")["value"]
    probability = expit(fitted.logits)
    assert np.array_equal(table["predicted"], probability >= fitted.thresholds)
    assert np.array_equal(table["logit"], fitted.logits)
    assert values["accuracy"] == (table["predicted"] == pool["label"]).mean()
    recall = table.loc[pool["label"] == 1, "predicted"].mean()
    assert values["recall"] == recall == found.generators.set_index("generator")["recall"]["g"]
    plain = metrics(pool["label"], fitted.logits, fitted.decision.threshold)
    assert {name: values[name] for name in ("auc", "ece", "eer")} == pytest.approx(
        {name: plain[name] for name in ("auc", "ece", "eer")}
    )
    inside = np.abs(probability - fitted.thresholds) < 0.1
    assert found.extra["unsure/share"] == pytest.approx(inside.mean())
    assert {"low", "high"} <= set(found.overall)


@pytest.mark.parametrize("name", ["other scales", "weak detectors"])
def test_pooled_numbers_are_not_biased_as_those_of_raw_logits_are(name: str) -> None:
    """The simulation of `benchmarks.cross_fitting`, with fewer rounds."""
    found = {
        method: np.array(
            [np.mean(v - truth) for v, truth in errors(40, SETTINGS[name], "temperature", method)]
        )
        for method in METHODS
    }
    auc, accuracy, _ = found["cross-fitted"]
    assert abs(auc) < 0.02
    assert abs(accuracy) < 0.02
    if name == "other scales":
        assert found["raw"][0] < -0.02
    else:
        assert found["raw"][1] > 0.02
