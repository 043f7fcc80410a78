"""Simulated sides of a comparison, from the logits that `benchmarks.verdicts` simulates."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.verdicts import simulate
from sweeps.statistics.final_fits import FinalFit, FitKey, Side
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.predictions import prediction_table
from synthdetect.system.arrays import FloatArray

KINDS = {"real": 0, "seen": 1, "unseen": 1, "control": 1}
CONTROL_BIAS = 1.0
"""How much higher the logits of controls are than those of the real images that they belong to."""

KEYS = tuple((fold, 40 + fold) for fold in range(5))


def predictions(logits: FloatArray, kinds: Sequence[str], threshold: float = 0.5) -> pd.DataFrame:
    """A predictions table with logits of shape (kinds, sources, images)."""
    rows = [
        (f"{kind}/{source}_{image}.png", KINDS[kind], "" if kind == "real" else kind, f"p{source}")
        for kind in kinds
        for source in range(logits.shape[1])
        for image in range(logits.shape[2])
    ]
    columns = ["path", "label", "generator", "source_id"]
    table = pd.DataFrame(rows, columns=columns).assign(split="test", category="")
    return prediction_table(
        table, logits.reshape(-1), Decision(threshold=threshold), logits.reshape(-1)
    )


def final_fit(
    logits: FloatArray,
    key: FitKey,
    *,
    gap: float = 0.02,
    seconds: float = 0.01,
    memory: float = 900.0,
) -> FinalFit:
    """A final fit with logits of shape (3, sources, images)."""
    return FinalFit(
        *key,
        seen=predictions(logits[[0, 1]], ("real", "seen")),
        unseen=predictions(logits[[0, 2]], ("real", "unseen")),
        control=predictions(
            logits[[0, 0]] + CONTROL_BIAS * np.eye(2)[:, 1, None, None], ("real", "control")
        ),
        threshold=0.5,
        train_auc=0.9 + gap,
        val_auc=0.9,
        seconds_per_image=seconds,
        peak_mib=memory,
    )


def alter(side: Side, change: Callable[[FinalFit], FinalFit]) -> Side:
    """The side with a change made to each of its final fits."""
    return replace(side, fits=tuple(map(change, side.fits)))


def simulated_sides(
    gains: dict[str, float],
    *,
    keys: Sequence[FitKey] = KEYS,
    sources: int = 60,
    spread: float = 0.05,
    seed: int = 0,
) -> list[Side]:
    """A baseline and strategies; a gain is added to the separation of real and synthetic images."""
    rng = np.random.default_rng(seed)
    logits = simulate(rng, len(keys), sources, spread=spread, gains=list(gains.values()))
    logits -= 1.0  # about calibrated
    jitter = rng.normal(size=(len(logits), len(keys)))
    return [
        Side(
            name,
            tuple(
                final_fit(
                    logits[side, i], key, gap=0.02 + 0.002 * jitter[side, i],
                    seconds=0.01 * (1 + 0.01 * jitter[side, i]),
                )
                for i, key in enumerate(keys)
            ),
            trials=10,
        )
        for side, name in enumerate(["baseline", *gains])
    ]  # fmt: skip
