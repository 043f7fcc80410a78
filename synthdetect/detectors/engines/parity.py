"""How near an engine comes to torch on the same images, and whether that is near enough."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from synthdetect.detectors.card import Card
from synthdetect.evaluation.metrics import metrics
from synthdetect.system.arrays import FloatArray

FP32_TOLERANCE = 1e-3
"""Greatest change of a logit in fp32, as a share of the greatest logit or of 1."""


class NotTheSame(Exception):
    """An engine's answers are too far from torch's."""


@dataclass(frozen=True)
class Parity:
    """Torch and an engine compared.

    Attributes:
        images: how many were compared.
        logit_max: greatest absolute logit by torch.
        logit_change_max, logit_change_mean: of the absolute differences of an image's two logits.
        same_answer: share of the images that are called the same at the detector's threshold.
        auc_torch, auc_engine: area under the ROC curve of each.
        auc_change: the second less the first.
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
    """Compare the logits, before calibration, of the same images.

    Args:
        card: the detector's.
        labels: shape (images,), 0 and 1, both present.
        by_torch: shape (images,).
        by_engine: likewise.

    Raises:
        NotTheSame: the engine gave a logit that is not finite.
    """
    if not np.isfinite(by_engine).all():
        raise NotTheSame(f"{card.engine} gives logits that are not finite numbers.")
    change = np.abs(by_engine - by_torch)
    called = [
        expit(card.decision.calibration(x)) >= card.decision.threshold
        for x in (by_torch, by_engine)
    ]
    auc_torch, auc_engine = (
        metrics(labels, x, card.decision.threshold)["auc"] for x in (by_torch, by_engine)
    )
    return Parity(
        images=len(change),
        logit_max=float(np.abs(by_torch).max()),
        logit_change_max=float(change.max()),
        logit_change_mean=float(change.mean()),
        same_answer=float(np.mean(called[0] == called[1])),
        auc_torch=auc_torch,
        auc_engine=auc_engine,
        auc_change=auc_engine - auc_torch,
    )


def require_parity(card: Card, parity: Parity, tolerance: float) -> None:
    """See that what an engine answers may stand for what torch does.

    Args:
        card: of the exported detector.
        parity: as measured.
        tolerance: greatest change of the AUC, either way.

    Raises:
        NotTheSame: it may not.
    """
    if abs(parity.auc_change) > tolerance:
        raise NotTheSame(
            f"the AUC of {card.engine} in {card.precision} is {parity.auc_engine:.4f} and torch's "
            f"{parity.auc_torch:.4f}; more than {tolerance:g} apart. Nothing is exported. Give "
            "more images to calibrate on, another --precision, or allow it by --tolerance."
        )
    limit = FP32_TOLERANCE * max(1.0, parity.logit_max)
    if card.precision == "fp32" and parity.logit_change_max > limit:
        raise NotTheSame(
            f"a logit of {card.engine} differs from torch's by {parity.logit_change_max:.2g}; more "
            f"than {limit:.2g} is no rounding. Nothing is exported. Use another --engine."
        )
