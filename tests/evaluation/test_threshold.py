"""How far the choice of a threshold varies with the photographs that it is made on."""

import numpy as np
import pandas as pd
import pytest

from synthdetect.evaluation.metrics import choose_threshold, metrics
from synthdetect.evaluation.options import DecisionOptions
from synthdetect.evaluation.threshold import _quality, threshold_uncertainty


def table(photographs: int, seed: int = 0) -> pd.DataFrame:
    """Six images of each photograph; the best threshold is 0.5."""
    rng = np.random.default_rng(seed)
    label, source = np.tile([0, 0, 0, 1, 1, 1], photographs), np.repeat(np.arange(photographs), 6)
    effect = 0.7 * rng.normal(size=photographs)[source]
    logit = effect + 0.8 * rng.normal(size=len(label)) + 1.5 * (label - 0.5)
    return pd.DataFrame({"label": label, "logit": logit, "source_id": source.astype(str)})


@pytest.mark.parametrize("rule", ["balanced_accuracy", "f1"])
def test_more_photographs_make_the_threshold_more_certain(rule: str) -> None:
    options = DecisionOptions(threshold_rule=rule)
    few, many = (threshold_uncertainty(options, table(n), seed=1) for n in (20, 300))
    assert few
    assert many
    for n, found in ((20, few), (300, many)):
        images = table(n)
        chosen = choose_threshold(images["label"], images["logit"], rule)
        assert found.low <= chosen <= found.high
    assert many.high - many.low < (few.high - few.low) / 1.5
    assert 0 < many.loss < few.loss < 0.05
    assert set(few.describe()) == {f"decision/threshold_{x}" for x in ("low", "high", "loss")}
    assert f"{few.low:.4f} to {few.high:.4f}" in few.words


def test_whole_photographs_are_drawn() -> None:
    images = table(40)
    apart = images.assign(source_id=[str(row) for row in range(len(images))])
    options = DecisionOptions()
    found = {
        name: threshold_uncertainty(options, rows, seed=1)
        for name, rows in {"together": images, "apart": apart}.items()
    }
    assert found["together"] != found["apart"]
    same = images.assign(source_id="one")  # each replicate is the table itself
    alone = threshold_uncertainty(options, same, seed=1)
    assert alone
    assert (
        alone.low
        == alone.high
        == choose_threshold(images["label"], images["logit"], "balanced_accuracy")
    )
    assert alone.loss == pytest.approx(0, abs=1e-12)


def test_a_rule_that_maximises_nothing_loses_nothing() -> None:
    found = threshold_uncertainty(DecisionOptions(threshold_rule="fpr"), table(30), seed=1)
    assert found
    assert set(found.describe()) == {"decision/threshold_low", "decision/threshold_high"}
    assert "loss" not in found.words
    assert threshold_uncertainty(DecisionOptions(threshold_rule="half"), table(30), seed=1) is None


@pytest.mark.parametrize("rule", ["balanced_accuracy", "f1"])
def test_the_quality_of_a_threshold_is_its_metric(rule: str) -> None:
    images, thresholds = table(10), [0.0, 0.2, 0.5, 0.77, 1.0]
    y, x = images["label"].to_numpy(), images["logit"].to_numpy()
    expected = [metrics(y, x, threshold)[rule] for threshold in thresholds]
    assert _quality(rule, y, x, thresholds) == pytest.approx(expected)
