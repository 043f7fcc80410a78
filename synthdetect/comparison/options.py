"""The options of `synthdetect compare` and `synthdetect promote`."""

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from synthdetect.config.options import (
    CHECKED,
    Affects,
    Names,
    Options,
    nested,
    option,
)
from synthdetect.tracking.options import TrackingOptions
from synthdetect.training.options import DeviceOptions


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CompareOptions(Options):
    """Compare runs: what differs, their metrics on the same images, and where they disagree.

    Every other run is compared with the first one.
    """

    section: ClassVar = "compare"

    tracking: TrackingOptions = nested(TrackingOptions)
    runs: Names = option(
        (),
        "Two or more runs, each by its id, by the beginning of its id, or by the models:/ URI of a "
        "model that it logged.",
    )
    splits: Names = option(
        (), "Splits to compare on (default: all that every run has scored, but train and val)."
    )
    images: int = option(
        8, "Most images to show on which the runs disagree, beside what each looked at.", ge=0,
        le=64,
    )  # fmt: skip
    data: str = option(
        "", "Where their images are now (default: where they were).", Affects.PLACE, value="PATH"
    )
    seed: int = option(42, "Seed of the bootstrap.", ge=0, lt=2**31)
    output: str = option("", "File to write the page to as well.", Affects.RECORD, value="FILE")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PromoteOptions(Options):
    """Give the alias `champion` to a version of a model that is shown to be no worse.

    Version and champion score the same labelled images. Exit status 0: promoted, or the champion
    already; 1: refused; 2: it could not be compared.
    """

    section: ClassVar = "promote"

    device: DeviceOptions = nested(DeviceOptions)
    tracking: TrackingOptions = nested(TrackingOptions)
    name: str = option("", "The registered model.", value="NAME")
    version: str = option("", "The version to promote.", value="VERSION")
    data: str = option(
        "", "Labelled images to compare the version with the champion on: as for evaluate.",
        Affects.PLACE, value="PATH", common=True,
    )  # fmt: skip
    split: str = option(
        "test", "Split of these images; images without a split are test.", common=True
    )
    metric: Literal[
        "auc", "average_precision", "balanced_accuracy", "accuracy", "f1", "eer", "nll", "brier"
    ] = option("auc", "Metric that decides; `synthdetect list metrics` explains them.", common=True)
    margin: float = option(
        0.01,
        "How much worse the version may be: the one-sided 95 % confidence bound of the paired "
        "difference must lie within it (0: it must be shown to be better, or be equal).",
        ge=0,
        common=True,
    )
    force: bool = option(
        False,
        "Promote it whatever the comparison says, or without one; the version records it.",
        common=True,
    )
    images: int = option(
        8, "Most images to show to which both answer differently, beside what each looked at.",
        ge=0, le=64,
    )  # fmt: skip
    batch_size: int = option(64, "Images per batch.", ge=1)
    seed: int = option(42, "Seed of the bootstrap.", ge=0, lt=2**31)
