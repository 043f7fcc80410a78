"""Main effects: planted ones are found, absent ones are not, and intervals have their coverage."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.effects import Cell, Change, effects, replicates
from synthdetect.evaluation.metrics import bootstrap_metrics, metrics
from synthdetect.evaluation.predictions import prediction_table

FACTORS = {"data": ("narrow", "diverse"), "depth": ("18", "50", "101")}
BREADTH = Change("data", "data", "narrow", "diverse")
CHANGES = [BREADTH, *(Change("depth", "depth", "18", deeper) for deeper in ("50", "101"))]


def found_in(
    cells: Sequence[Cell], changes: Sequence[Change] = CHANGES, *, seed: int = 0
) -> pd.DataFrame:
    return effects(cells, changes, replicates(cells, ["auc"], seed=seed))


def study(
    breadth: float, depth: float, seed: int, *, noise: float = 0.3, sources: int = 60,
    starts: int = 1, common: float = 0.0,
) -> list[Cell]:  # fmt: skip
    """Cells of a 2 x 3 design whose levels add to the separation of the classes.

    Args:
        breadth: separation that `diverse` adds.
        depth: separation that each level of `depth` adds.
        seed: seed of everything random.
        noise: randomness of each training's separation.
        sources: number of sources, with four images each.
        starts: number of seeds.
        common: randomness of the initial weights, which all trainings of a depth and seed share.
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
    of_images = rng.normal(size=len(label))
    begun = common * rng.normal(size=(starts, len(FACTORS["depth"])))
    cells = []
    crossed = product(range(starts), *(enumerate(levels) for levels in FACTORS.values()))
    for start, (a, data), (b, name) in crossed:
        apart = 1 + breadth * a + depth * b + noise * rng.normal() / 3 + begun[start, b]
        logits = of_images + apart * label + 0.3 * rng.normal(size=len(label))
        table = prediction_table(rows, logits, Decision())
        cells.append(Cell({"data": data, "depth": name}, start, table, 0.5))
    return cells


def test_an_effect_is_the_mean_of_the_matched_differences() -> None:
    cells = study(1.0, 0.0, 0)
    found = found_in(cells).set_index(["factor", "level"])
    aucs = [metrics(c.predictions["label"], c.predictions["logit"], 0.5)["auc"] for c in cells]
    row = found.loc["data", "diverse"]
    changes = [aucs[3 + i] - aucs[i] for i in range(3)]
    assert row["effect"] == pytest.approx(np.mean(changes))
    assert row["spread"] == pytest.approx(np.std(changes, ddof=1))
    assert (row["pairs"], row["against"]) == (3, "narrow")
    assert found.index.tolist() == [("data", "diverse"), ("depth", "50"), ("depth", "101")]
    assert found.loc[("depth", "101"), "pairs"] == 2


def test_the_effect_of_one_factor_is_not_attributed_to_another() -> None:
    found = found_in(study(1.5, 0.0, 1)).set_index(["factor", "level"])
    assert found.loc[("data", "diverse"), "low"] > 0
    for level in ("50", "101"):
        assert found.loc[("depth", level), "low"] < 0 < found.loc[("depth", level), "high"]


def test_intervals_exclude_zero_in_at_most_one_of_twenty_cases_without_effect() -> None:
    excluded = []
    for seed in range(60):
        found = found_in(study(0.0, 0.0, seed, sources=20), seed=seed)
        excluded += ((found["low"] > 0) | (found["high"] < 0)).tolist()
    assert np.mean(excluded) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(excluded))


def test_the_interval_adds_the_variances_of_pairs_and_of_sources() -> None:
    cells = study(1.0, 0.0, 2)
    (row,) = found_in(cells, [BREADTH], seed=3).to_dict(orient="records")
    draws = []
    for cell in cells:
        table = cell.predictions
        codes = table["source_id"].factorize()[0]
        everything = {"": np.ones(len(table), dtype=bool)}
        drawn = bootstrap_metrics(table["label"], table["logit"], 0.5, codes, everything, seed=3)
        draws.append(drawn[""]["auc"])
    by_source = np.mean([draws[3 + i] - draws[i] for i in range(3)], axis=0).var(ddof=1) * 60 / 59
    half = np.hypot(
        stats.t.ppf(0.975, 2) * row["spread"] / math.sqrt(3),
        stats.t.ppf(0.975, 59) * math.sqrt(by_source),
    )
    assert (row["low"], row["high"]) == pytest.approx((row["effect"] - half, row["effect"] + half))


def test_the_interval_of_one_pair_covers_its_sources_alone() -> None:
    cells = [c for c in study(1.0, 0.0, 3) if c.levels["depth"] == "18"]
    measured = replicates(cells, ["auc"], seed=0)
    (row,) = effects(cells, [BREADTH], measured).to_dict(orient="records")
    assert (row["pairs"], row["covers"]) == (1, "photographs")
    assert math.isnan(row["spread"])
    deviation = (measured["auc"][1] - measured["auc"][0])[1:].std(ddof=1) * math.sqrt(60 / 59)
    half = stats.t.ppf(0.975, 59) * deviation
    assert (row["low"], row["high"]) == pytest.approx((row["effect"] - half, row["effect"] + half))


def test_pairs_of_one_seed_count_once_if_there_are_several_seeds() -> None:
    cells = study(1.0, 0.0, 5, starts=4, common=0.3)
    aucs = replicates(cells, ["auc"], seed=0)["auc"][:, 0].reshape(4, 2, 3)
    row = found_in(cells).set_index("level").loc["50"]
    per_seed = (aucs[:, :, 1] - aucs[:, :, 0]).mean(axis=1)
    assert row["effect"] == pytest.approx(per_seed.mean())
    assert (row["pairs"], row["covers"]) == (8, "photographs and trainings")
    of_trainings = stats.t.ppf(0.975, 3) * per_seed.std(ddof=1) / 2
    assert of_trainings < row["high"] - row["effect"] < of_trainings + 0.05


def test_a_start_that_trainings_share_is_not_taken_for_an_effect() -> None:
    """Both trainings of a depth and seed start alike, which is no evidence for the depth."""
    excluded = []
    for seed in range(40):
        cells = study(0.0, 0.0, seed, noise=0.05, sources=20, starts=3, common=0.5)
        found = found_in(cells, CHANGES[1:], seed=seed)
        excluded += ((found["low"] > 0) | (found["high"] < 0)).tolist()
    assert np.mean(excluded) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(excluded))


def test_a_level_can_be_compared_with_any_other() -> None:
    cells = study(0.0, 0.5, 6)
    deeper = Change("more depth", "depth", "50", "101")
    (row,) = found_in(cells, [deeper]).to_dict(orient="records")
    both = found_in(cells).set_index("level")["effect"]
    assert (row["change"], row["factor"], row["against"]) == ("more depth", "depth", "50")
    assert row["effect"] == pytest.approx(both["101"] - both["50"])


def test_one_source_has_no_interval() -> None:
    found = found_in(study(1.0, 0.0, 3, sources=1))
    assert found["effect"].notna().all()
    assert found[["low", "high"]].isna().all(axis=None)


def test_equal_trainings_have_no_effect_and_no_doubt_about_it() -> None:
    cells = [c for c in study(1.0, 0.0, 3) if c.levels["data"] == "narrow"]
    same = cells + [Cell({**c.levels, "data": "diverse"}, 0, c.predictions, 0.5) for c in cells]
    (row,) = found_in(same, [BREADTH]).to_dict(orient="records")
    assert (row["effect"], row["low"], row["high"], row["spread"]) == (0, 0, 0, 0)


def test_the_order_of_the_cells_makes_no_difference() -> None:
    cells = study(0.5, 0.5, 4)
    forward, backward = (found_in(c) for c in (cells, cells[::-1]))
    pd.testing.assert_frame_equal(forward, backward)
