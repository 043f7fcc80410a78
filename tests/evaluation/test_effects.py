"""Main effects: planted ones are found, absent ones are not, and intervals have their coverage."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.effects import Cell, effects
from synthdetect.evaluation.metrics import bootstrap_auc, metrics
from synthdetect.evaluation.predictions import prediction_table

FACTORS = {"data": ("narrow", "diverse"), "depth": ("18", "50", "101")}


def study(
    breadth: float, depth: float, seed: int, *, noise: float = 0.3, sources: int = 60
) -> list[Cell]:
    """Cells of a 2 x 3 design whose levels add to the separation of the classes.

    Args:
        breadth: separation that `diverse` adds.
        depth: separation that each level of `depth` adds.
        seed: seed of everything random.
        noise: randomness of each training's separation.
        sources: number of sources, with four images each.
    """
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
        cells.append(
            Cell({"data": data, "depth": name}, prediction_table(rows, logits, Decision()), 0.5)
        )
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


def test_the_effect_of_one_factor_is_not_attributed_to_another() -> None:
    found = effects(study(1.5, 0.0, 1), FACTORS, "auc", seed=0).set_index(["factor", "level"])
    assert found.loc[("data", "diverse"), "low"] > 0
    for level in ("50", "101"):
        assert found.loc[("depth", level), "low"] < 0 < found.loc[("depth", level), "high"]


def test_intervals_exclude_zero_in_at_most_one_of_twenty_cases_without_effect() -> None:
    excluded = []
    for seed in range(60):
        found = effects(study(0.0, 0.0, seed, sources=20), FACTORS, "auc", seed=seed)
        excluded += ((found["low"] > 0) | (found["high"] < 0)).tolist()
    assert np.mean(excluded) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(excluded))


def test_the_interval_adds_the_variances_of_pairs_and_of_sources() -> None:
    cells = study(1.0, 0.0, 2)
    row = (
        effects(cells, FACTORS, "auc", seed=3).set_index(["factor", "level"]).loc["data", "diverse"]
    )
    draws = []
    for cell in cells:
        table = cell.predictions
        codes = table["source_id"].factorize()[0]
        draws.append(bootstrap_auc(table["label"], table["logit"], codes, seed=3))
    by_source = np.mean([draws[3 + i] - draws[i] for i in range(3)], axis=0).var(ddof=1) * 60 / 59
    half = np.hypot(
        stats.t.ppf(0.975, 2) * row["spread"] / math.sqrt(3),
        stats.t.ppf(0.975, 59) * math.sqrt(by_source),
    )
    assert (row["low"], row["high"]) == pytest.approx((row["effect"] - half, row["effect"] + half))


def test_one_pair_has_an_effect_but_neither_spread_nor_interval() -> None:
    cells = [c for c in study(1.0, 0.0, 3) if c.levels["depth"] == "18"]
    (row,) = effects(cells, {"data": FACTORS["data"]}, "auc", seed=0).to_dict(orient="records")
    assert row["pairs"] == 1
    assert row["effect"] > 0
    assert all(math.isnan(row[name]) for name in ("spread", "low", "high"))


def test_one_source_has_no_interval() -> None:
    found = effects(study(1.0, 0.0, 3, sources=1), FACTORS, "auc", seed=0)
    assert found["effect"].notna().all()
    assert found[["low", "high"]].isna().all(axis=None)


def test_equal_trainings_have_no_effect_and_no_doubt_about_it() -> None:
    cells = [c for c in study(1.0, 0.0, 3) if c.levels["data"] == "narrow"]
    same = cells + [Cell({**c.levels, "data": "diverse"}, c.predictions, 0.5) for c in cells]
    (row,) = effects(same, {"data": FACTORS["data"]}, "auc", seed=0).to_dict(orient="records")
    assert (row["effect"], row["low"], row["high"], row["spread"]) == (0, 0, 0, 0)


def test_the_order_of_the_cells_makes_no_difference() -> None:
    cells = study(0.5, 0.5, 4)
    forward, backward = (effects(c, FACTORS, "auc", seed=0) for c in (cells, cells[::-1]))
    pd.testing.assert_frame_equal(forward, backward)
