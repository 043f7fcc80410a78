"""The strategies: named differences from the baseline, each with a small space of its own.

A strategy is an entry of `STRATEGIES`. Adding one is adding an entry, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from synthdetect.runs.options import TrainOptions


@dataclass(frozen=True)
class SearchParameter:
    """An option that is tuned.

    Attributes:
        range: where it is looked for.
        first: the value of the first trial.
    """

    range: BaseDistribution
    first: Any


@dataclass(frozen=True)
class Strategy:
    """One way to train that differs from the baseline.

    Attributes:
        help: what it is.
        differences: options that are always so, by name.
        space: options that are tuned, by name; the learning rate is tuned on both sides, and needs
            an entry only where the baseline's range does not fit.
        needs_target: whether it adapts to unlabelled images, which the sweep then deals out.
    """

    help: str
    differences: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, SearchParameter] = field(default_factory=dict)
    needs_target: bool = False


BASELINE = "baseline"
"""The name of the side that the strategies are compared with."""


def _float(low: float, high: float, first: float, *, log: bool = False) -> SearchParameter:
    return SearchParameter(FloatDistribution(low, high, log=log), first)


def _choice(*values: Any) -> SearchParameter:
    return SearchParameter(CategoricalDistribution(values), values[0])


STRATEGIES: dict[str, Strategy] = {
    "efficientnet": Strategy(
        "EfficientNet in place of the baseline's network",
        space={"arch": _choice("efficientnet_b0", "efficientnet_v2_s")},
    ),
    "densenet": Strategy("DenseNet-121", {"arch": "densenet121"}),
    "mobilenet": Strategy("MobileNet v3 large", {"arch": "mobilenet_v3_large"}),
    "vit": Strategy("Vision Transformer B/16", {"arch": "vit_b_16"}),
    "mixup": Strategy("blended pairs of images", space={"mixup": _float(0.1, 1.0, 0.2)}),
    "cutmix": Strategy("boxes pasted from other images", space={"cutmix": _float(0.1, 1.0, 1.0)}),
    "random_erasing": Strategy(
        "rectangles painted over", space={"random_erasing": _float(0.1, 0.5, 0.25)}
    ),
    "focal": Strategy("the focal loss", {"loss": "focal"}, {"focal_gamma": _float(1.0, 5.0, 2.0)}),
    "label_smoothing": Strategy(
        "labels moved towards even odds", space={"label_smoothing": _float(0.02, 0.3, 0.1)}
    ),
    "sgd": Strategy(
        "SGD with Nesterov momentum",
        {"optimizer": "sgd"},
        {"lr": _float(1e-4, 0.3, 1e-2, log=True), "momentum": _float(0.8, 0.98, 0.9)},
    ),
    "lookahead": Strategy(
        "Lookahead over AdamW",
        {"optimizer": "lookahead"},
        {
            "lookahead_steps": SearchParameter(IntDistribution(2, 10), 5),
            "lookahead_alpha": _float(0.3, 0.8, 0.5),
        },
    ),
    "ranger": Strategy("Ranger", {"optimizer": "ranger"}),
    "domain_adaptation": Strategy(
        "adaptation to unlabelled images of the test's kind",
        space={
            "adaptation": _choice("dann", "coral"),
            "adaptation_weight": _float(0.03, 1.0, 0.3, log=True),
        },
        needs_target=True,
    ),
    "adversarial": Strategy(
        "fine-tuning on images changed to mislead",
        space={
            "adversarial": _choice("fgsm", "pgd"),
            "adversarial_epsilon": _float(0.5, 8.0, 2.0, log=True),
        },
    ),
}
"""Every strategy of the paper's section 4.4, and the ViT of its section 3.1."""

_LR = (1e-5, 1e-2)


def space(name: str, lr: float) -> dict[str, SearchParameter]:
    """What is tuned on one side, the baseline's learning rate first.

    Args:
        name: of a strategy, or `BASELINE`.
        lr: the baseline's, which its first trial has and its range includes.
    """
    own = STRATEGIES[name].space if name != BASELINE else {}
    low, high = _LR
    return {"lr": _float(min(low, lr), max(high, lr), lr, log=True), **own}


def options_of(
    name: str, base: Mapping[str, Any], tuned: Mapping[str, Any], target: str = ""
) -> TrainOptions:
    """The options of one training.

    Args:
        name: of a strategy, or `BASELINE`.
        base: the baseline's options, as `TrainOptions.resolve` takes them.
        tuned: values of the strategy's parameters.
        target: the file that lists the images to adapt to, for a strategy that needs one.

    Raises:
        UserError: they do not go together.
    """
    strategy = STRATEGIES[name] if name != BASELINE else Strategy("")
    needed = {"target": target} if strategy.needs_target else {}
    return TrainOptions.resolve({**base, **strategy.differences, **needed, **tuned})
