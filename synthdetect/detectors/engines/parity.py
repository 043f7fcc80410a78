"""Comparison of an engine's logits with those of torch on the same images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from synthdetect.detectors.card import Card
from synthdetect.evaluation.metrics import metrics
from synthdetect.system.arrays import FloatArray

FP32_TOLERANCE = 1e-3
"""Greatest allowed change of a logit in fp32, relative to the greatest absolute logit or to 1,
whichever is greater."""


class ParityError(Exception):
    """The results of an engine differ too much from those of torch."""


@dataclass(frozen=True)
class Parity:
    """Result of a comparison of an engine with torch.

    Attributes:
        images: Number of compared images.
        logit_max: Greatest absolute logit of torch.
        logit_change_max: Greatest absolute difference of the two logits of an image.
        logit_change_mean: Mean absolute difference of the two logits of an image.
        same_answer: Share of images with the same predicted label at the detector's threshold.
        auc_torch: Area under the ROC curve by torch.
        auc_engine: Area under the ROC curve by the engine.
        auc_change: `auc_engine` minus `auc_torch`.
    """

    images: int
    logit_max: float
    logit_change_max: float
    logit_change_mean: float
    same_answer: float
    auc_torch: float
    auc_engine: float
    auc_change: float


def compare(
    card: Card, labels: npt.ArrayLike, by_torch: FloatArray, by_engine: FloatArray
) -> Parity:
    """Compare the uncalibrated logits of the same images.

    Args:
        card: Card of the exported detector.
        labels: Labels 0 and 1, both present, shape (images,).
        by_torch: Logits of torch, shape (images,).
        by_engine: Logits of the engine, shape (images,).

    Raises:
        ParityError: If a logit of the engine is not finite.
    """
    if not np.isfinite(by_engine).all():
        raise ParityError(f"{card.engine} gives logits that are not finite numbers.")
    change = np.abs(by_engine - by_torch)
    decision = card.decision
    labels_by = [
        decision.answer(expit(decision.calibration(x))).label for x in (by_torch, by_engine)
    ]
    auc_torch, auc_engine = (
        metrics(labels, x, decision.threshold)["auc"] for x in (by_torch, by_engine)
    )
    return Parity(
        images=len(change),
        logit_max=float(np.abs(by_torch).max()),
        logit_change_max=float(change.max()),
        logit_change_mean=float(change.mean()),
        same_answer=float(np.mean(labels_by[0] == labels_by[1])),
        auc_torch=auc_torch,
        auc_engine=auc_engine,
        auc_change=auc_engine - auc_torch,
    )


def require_parity(card: Card, parity: Parity, tolerance: float) -> None:
    """Check that the results of an engine are close enough to those of torch.

    Args:
        card: Card of the exported detector.
        parity: Result of `compare`.
        tolerance: Greatest allowed absolute change of the AUC.

    Raises:
        ParityError: If the AUC, or in fp32 a logit, changes too much.
    """
    if abs(parity.auc_change) > tolerance:
        raise ParityError(
            f"the AUC of {card.engine} in {card.precision} is {parity.auc_engine:.4f} and that of "
            f"torch {parity.auc_torch:.4f}, which differ by more than {tolerance:g}. Nothing is "
            "exported. Give more --calibration-images, another --precision, or a larger "
            "--tolerance."
        )
    limit = FP32_TOLERANCE * max(1.0, parity.logit_max)
    if card.precision == "fp32" and parity.logit_change_max > limit:
        raise ParityError(
            f"a logit of {card.engine} differs from that of torch by "
            f"{parity.logit_change_max:.2g}, which exceeds the limit of {limit:.2g} for rounding "
            "errors. Nothing is exported. Use another --engine."
        )
