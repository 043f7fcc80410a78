"""What the paper says of each strategy, in its own words.

*Real Versus Synthetic Classification using ResNet*, MediaEval 2025. It speaks of most strategies
together and gives no number for any: what it says of all is not a claim about each.
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
class Claim:
    """What the paper says of one strategy.

    Attributes:
        quotes: section and words; empty if it is not mentioned.
        criteria: of the verdict's criteria, those the quotes name; “or” joins them in the paper.
        no_improvement: whether the paper says that it brought none.
    """

    quotes: tuple[str, ...]
    criteria: tuple[str, ...]
    no_improvement: bool = False

    @property
    def text(self) -> str:
        """The quotes, for a table."""
        return " ".join(f"{quote}." for quote in self.quotes) or "Not mentioned."

    def against(self, better: bool, worse: bool) -> str:
        """How the claim stands beside a verdict."""
        if not self.no_improvement:
            return "the paper does not say"
        if better:
            return "contradicts the paper"
        return "agrees with the paper" if worse else "does not contradict the paper"


_RESPECTS = ("overfits", "unstable", "costly")
_UNSUCCESSFUL = Claim((TOGETHER,), _RESPECTS, True)
_MIXING = Claim((TOGETHER, AGGRESSIVE, DISCARDED), (*_RESPECTS, "miscalibrated"), True)

CLAIMS: dict[str, Claim] = {
    "efficientnet": _UNSUCCESSFUL,
    "densenet": _UNSUCCESSFUL,
    "mobilenet": _UNSUCCESSFUL,
    "vit": Claim((QUALITATIVE,), ()),
    "mixup": _MIXING,
    "cutmix": _MIXING,
    "random_erasing": Claim((TOGETHER, AGGRESSIVE), (*_RESPECTS, "miscalibrated"), True),
    "focal": _UNSUCCESSFUL,
    "label_smoothing": _UNSUCCESSFUL,
    "sgd": _UNSUCCESSFUL,
    "lookahead": _UNSUCCESSFUL,
    "ranger": _UNSUCCESSFUL,
    "domain_adaptation": _UNSUCCESSFUL,
    "adversarial": _UNSUCCESSFUL,
}
"""Claims by the strategies' names."""
