"""The options of decisions, and the tables of calibrations, threshold rules and ensembles."""

from typing import Annotated, ClassVar

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, OpenShare, Options, option
from synthdetect.config.registry import Entry, one_of

CALIBRATIONS: dict[str, Entry] = {
    "temperature": Entry(
        "synthdetect.evaluation.calibration:fit_temperature", "One temperature (Guo et al. 2017)."
    ),
    "platt": Entry(
        "synthdetect.evaluation.calibration:fit_platt", "A slope and an offset (Platt 1999)."
    ),
    "isotonic": Entry(
        "synthdetect.evaluation.calibration:fit_isotonic",
        "Isotonic regression (Zadrozny and Elkan 2002).",
    ),
    "none": Entry(
        "synthdetect.evaluation.calibration:no_calibration", "The logits as the network gives them."
    ),
}
"""How probabilities are calibrated: from validation labels and logits to a `Calibration`."""

THRESHOLD_RULES: dict[str, str] = {
    "balanced_accuracy": "The threshold with the best balanced accuracy.",
    "f1": "The threshold with the best F1.",
    "fpr": "The lowest threshold whose false-positive rate is at most max_fpr.",
    "half": "A probability of 0.5.",
}
"""How the threshold is chosen on validation, by name."""

ENSEMBLES: dict[str, Entry] = {
    name: Entry(f"synthdetect.evaluation.ensemble:{name}", text)
    for name, text in {
        "mean_logit": "The mean of the calibrated logits.",
        "mean_probability": "The mean of the probabilities.",
        "median": "The median of the calibrated logits.",
        "vote": "The share of the detectors that answer synthetic.",
    }.items()
}
"""How the scores of several detectors are combined, by name."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DecisionOptions(Options):
    """How a score becomes an answer; calibration and threshold are chosen on validation."""

    section: ClassVar = "decision"

    threshold_rule: Annotated[str, one_of(THRESHOLD_RULES)] = option(
        "balanced_accuracy",
        "How the threshold is chosen on validation: best balanced_accuracy or f1, fpr (the lowest "
        "threshold with a false-positive rate of at most max_fpr), or half (0.5).",
        common=True,
    )
    max_fpr: OpenShare = option(
        0.05,
        "Largest share of real images called synthetic under threshold_rule=fpr.",
        value="SHARE",
    )
    calibration: Annotated[str, one_of(CALIBRATIONS)] = option(
        "temperature",
        "How probabilities are calibrated on validation: temperature, platt, isotonic or none.",
        common=True,
    )
    unsure: float = option(
        0.0,
        "Half width of the band around the threshold in which the answer is 'unsure'.",
        ge=0,
        le=0.5,
        value="PROBABILITY",
    )
