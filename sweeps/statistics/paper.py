"""Paper claims: what the paper states about each strategy, in its own words.

The paper is *Real Versus Synthetic Classification using ResNet*, MediaEval 2025. It makes most
statements about several strategies together and gives no number for any of them. A statement about
all of them together is not one about each.
"""

from dataclasses import dataclass

TOGETHER = (
    "4.4, of these strategies together: they “often led to overfitting on the available training "
    "data, introduced optimization instability, or significantly increased computational cost "
    "without corresponding improvements in out-of-distribution validation or test performance”"
)
AGGRESSIVE = (
    "4.4, of augmentation: “In some cases, overly aggressive augmentation degraded probability "
    "calibration”"
)
DISCARDED = (
    "3.2: “Aggressive augmentations (Mixup, CutMix) were tested but later discarded due to reduced "
    "calibration stability”"
)
QUALITATIVE = (
    "3.1, of ViT-B/16: a “small-scale experiment”; “results remained qualitative due to compute "
    "constraints”"
)


@dataclass(frozen=True)
class PaperClaim:
    """What the paper states about one strategy.

    Attributes:
        quotes: Section and words of each statement; empty if the strategy is not mentioned.
        criteria: Names of the criteria (`sweeps.statistics.verdicts.CRITERIA`) that the quotes
            name; the paper joins them by “or”.
        no_improvement: Whether the paper states that the strategy brought no improvement.
    """

    quotes: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    no_improvement: bool = False

    @property
    def text(self) -> str:
        """The quotes as one text."""
        return " ".join(f"{quote}." for quote in self.quotes) or "Not mentioned."

    def mark(self, no_better: bool, better: bool) -> str:
        """Return what a verdict does to the paper's statement that there was no improvement.

        Args:
            no_better: Whether the verdict says that the strategy is not better.
            better: Whether it says that the strategy is better.

        Returns:
            `supported`, `contradicted`, `undecided` (if the verdict says neither) or `the paper
            does not say`.
        """
        if not self.no_improvement:
            return "the paper does not say"
        if better:
            return "contradicted"
        return "supported" if no_better else "undecided"


_FAULTS = ("overfits", "unstable", "costly")
_UNSUCCESSFUL = PaperClaim((TOGETHER,), _FAULTS, True)
_MIXING = PaperClaim((TOGETHER, AGGRESSIVE, DISCARDED), (*_FAULTS, "miscalibrated"), True)

PAPER_CLAIMS: dict[str, PaperClaim] = {
    "efficientnet": _UNSUCCESSFUL,
    "densenet": _UNSUCCESSFUL,
    "mobilenet": _UNSUCCESSFUL,
    "vit": PaperClaim((QUALITATIVE,)),
    "mixup": _MIXING,
    "cutmix": _MIXING,
    "random_erasing": PaperClaim((TOGETHER, AGGRESSIVE), (*_FAULTS, "miscalibrated"), True),
    "focal": _UNSUCCESSFUL,
    "label_smoothing": _UNSUCCESSFUL,
    "sgd": _UNSUCCESSFUL,
    "lookahead": _UNSUCCESSFUL,
    "ranger": _UNSUCCESSFUL,
    # The paper writes “domain adaptation” and names no method.
    "dann": _UNSUCCESSFUL,
    "coral": _UNSUCCESSFUL,
    "mmd": _UNSUCCESSFUL,
    "adabn": _UNSUCCESSFUL,
    "adversarial": _UNSUCCESSFUL,
}
"""Paper claims by the name of the strategy."""
