"""Comparison of an engine's logits with those of torch on the same images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from synthdetect.config.options import option_name
from synthdetect.detectors.card import Card
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.metrics import metrics
from synthdetect.system.arrays import FloatArray
from synthdetect.system.errors import NegativeAnswer

FP32_TOLERANCE = 1e-3
"""Greatest allowed change of a logit in fp32, relative to the greatest absolute logit or to 1,
whichever is greater."""


BOUND = float(logit(0.999))
"""Calibrated logits are compared within plus and minus this bound. Beyond it, int8 cuts off extreme
logits, which changes no answer, and of which a single one would decide a mean."""


class ParityError(NegativeAnswer):
    """The results of an engine differ too much from those of torch."""


@dataclass(frozen=True)
class Parity:
    """Result of a comparison of an engine with torch.

    Attributes:
        images: Number of compared images.
        logit_max: Greatest absolute logit of torch.
        logit_change_max: Greatest absolute change of the uncalibrated logit.
        logit_change_mean: Mean absolute change of the uncalibrated logit.
        logit_shift: Mean change of the calibrated logit, engine minus torch.
        logit_change_p95: 95th percentile of the absolute change of the calibrated logit.
        label_changes: Share of images whose label changes at the detector's threshold.
        auc_torch: Area under the ROC curve by torch.
        auc_engine: Area under the ROC curve by the engine.
        auc_change: `auc_engine` minus `auc_torch`.

    Calibrated logits, which are compared within `BOUND`, are log-odds: a change of 0.1 moves a
    probability of 0.5 by 0.025.
    """

    images: int
    logit_max: float
    logit_change_max: float
    logit_change_mean: float
    logit_shift: float
    logit_change_p95: float
    label_changes: float
    auc_torch: float
    auc_engine: float
    auc_change: float


@dataclass(frozen=True)
class Limits:
    """What a comparison may find at most; the names are those of the options of `export`.

    Attributes:
        max_auc_change: Limit of the absolute change of the AUC.
        max_label_changes: Limit of `Parity.label_changes`.
        max_logit_shift: Limit of the absolute value of `Parity.logit_shift`.
        max_logit_change: Limit of `Parity.logit_change_p95`.
    """

    max_auc_change: float
    max_label_changes: float
    max_logit_shift: float
    max_logit_change: float


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
    calibrated = [np.clip(decision.calibration(x), -BOUND, BOUND) for x in (by_torch, by_engine)]
    shift = calibrated[1] - calibrated[0]
    auc_torch, auc_engine = (
        metrics(labels, x, decision.threshold)["auc"] for x in (by_torch, by_engine)
    )
    return Parity(
        images=len(change),
        logit_max=float(np.abs(by_torch).max()),
        logit_change_max=float(change.max()),
        logit_change_mean=float(change.mean()),
        logit_shift=float(shift.mean()),
        logit_change_p95=float(np.quantile(np.abs(shift), 0.95)),
        label_changes=label_changes(decision, by_torch, decision, by_engine),
        auc_torch=auc_torch,
        auc_engine=auc_engine,
        auc_change=auc_engine - auc_torch,
    )


def label_changes(
    first: Decision, first_logits: FloatArray, second: Decision, second_logits: FloatArray
) -> float:
    """Return the share of images to which two decisions on two uncalibrated logits give two labels.

    Args:
        first: A decision.
        first_logits: The logits that it decides on, shape (images,).
        second: Another decision.
        second_logits: The logits of the same images that this one decides on.
    """
    labels = [
        decision.answer(expit(decision.calibration(logits))).label
        for decision, logits in ((first, first_logits), (second, second_logits))
    ]
    return float(np.mean(labels[0] != labels[1]))


def require_parity(card: Card, parity: Parity, limits: Limits) -> None:
    """Check that the results of an engine are close enough to those of torch.

    Args:
        card: Card of the exported detector.
        parity: Result of `compare`.
        limits: What it may find at most.

    Raises:
        ParityError: If a limit is exceeded, or in fp32 a logit changes too much.
    """
    found = {
        "max_auc_change": ("the AUC changes by", abs(parity.auc_change)),
        "max_label_changes": ("the share of images whose label changes is", parity.label_changes),
        "max_logit_shift": ("the mean change of the logit is", abs(parity.logit_shift)),
        "max_logit_change": ("95 % of the logits change by up to", parity.logit_change_p95),
    }
    exceeded = [
        f"{what} {value:.4g} ({option_name(name)} {limit:g})"
        for name, (what, value) in found.items()
        if value > (limit := getattr(limits, name))
    ]
    if exceeded:
        raise ParityError(
            f"{card.engine} in {card.precision} differs too much from torch: "
            f"{'; '.join(exceeded)}. Nothing is exported. Give more --calibration-images, another "
            "--precision, or larger limits."
        )
    limit = FP32_TOLERANCE * max(1.0, parity.logit_max)
    if card.precision == "fp32" and parity.logit_change_max > limit:
        raise ParityError(
            f"a logit of {card.engine} differs from that of torch by "
            f"{parity.logit_change_max:.2g}, which exceeds the limit of {limit:.2g} for rounding "
            "errors. Nothing is exported. Use another --engine."
        )
