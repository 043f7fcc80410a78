"""A change's effect by itself is found, whatever else changes, and an absent one is not claimed."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from synthdetect.evaluation.effects import Cell, effects
from synthdetect.evaluation.metrics import metrics
from synthdetect.evaluation.predictions import tabulate

FACTORS = {"data": ("narrow", "diverse"), "depth": ("18", "50", "101")}


def study(
    breadth: float, depth: float, seed: int, *, noise: float = 0.3, sources: int = 60
) -> list[Cell]:
    """A 2 x 3 design: levels add to how far the classes lie apart, trainings a little noise."""
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], 2 * sources)
    rows = pd.DataFrame(
        {
            "path": [f"{i}" for i in range(len(label))],
            "label": label.astype("int8"),
            "source_id": [f"s{i // 4}" for i in range(len(label))],
        }
    )
    common = rng.normal(size=len(label))
    cells = []
    for (a, data), (b, name) in product(*(enumerate(levels) for levels in FACTORS.values())):
        apart = 1 + breadth * a + depth * b + noise * rng.normal() / 3
        logits = common + apart * label + 0.3 * rng.normal(size=len(label))
        cells.append(Cell({"data": data, "depth": name}, tabulate(rows, logits, 0.5), 0.5))
    return cells


def test_an_effect_is_the_mean_of_the_matched_differences() -> None:
    cells = study(1.0, 0.0, 0)
    found = effects(cells, FACTORS, "auc", seed=0).set_index(["factor", "level"])
    aucs = [metrics(c.predictions["label"], c.predictions["logit"], 0.5)["auc"] for c in cells]
    row = found.loc["data", "diverse"]
    changes = [aucs[3 + i] - aucs[i] for i in range(3)]
    assert row["effect"] == pytest.approx(np.mean(changes))
    assert row["spread"] == pytest.approx(np.std(changes, ddof=1))
    assert (row["pairs"], row["against"]) == (3, "narrow")
    assert found.index.tolist() == [("data", "diverse"), ("depth", "50"), ("depth", "101")]
    assert found.loc[("depth", "101"), "pairs"] == 2


def test_one_factors_effect_is_not_another_ones() -> None:
    found = effects(study(1.5, 0.0, 1), FACTORS, "auc", seed=0).set_index(["factor", "level"])
    assert found.loc[("data", "diverse"), "low"] > 0
    for level in ("50", "101"):
        assert found.loc[("depth", level), "low"] < 0 < found.loc[("depth", level), "high"]


def test_nothing_is_claimed_more_often_than_one_time_in_twenty() -> None:
    claims = []
    for seed in range(60):
        found = effects(study(0.0, 0.0, seed, sources=20), FACTORS, "auc", seed=seed)
        claims += ((found["low"] > 0) | (found["high"] < 0)).tolist()
    assert np.mean(claims) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(claims))


def test_one_pair_has_no_spread_and_an_interval_over_sources() -> None:
    cells = [c for c in study(1.0, 0.0, 3) if c.levels["depth"] == "18"]
    (row,) = effects(cells, {"data": FACTORS["data"]}, "auc", seed=0).to_dict(orient="records")
    assert row["pairs"] == 1
    assert math.isnan(row["spread"])
    assert row["low"] < row["effect"] < row["high"]
    same = [cells[0], Cell({**cells[0].levels, "data": "diverse"}, cells[0].predictions, 0.5)]
    (row,) = effects(same, {"data": FACTORS["data"]}, "auc", seed=0).to_dict(orient="records")
    assert (row["effect"], row["low"], row["high"]) == (0, 0, 0)


def test_the_order_of_the_cells_makes_no_difference() -> None:
    cells = study(0.5, 0.5, 4)
    forward, backward = (effects(c, FACTORS, "auc", seed=0) for c in (cells, cells[::-1]))
    pd.testing.assert_frame_equal(forward, backward)
