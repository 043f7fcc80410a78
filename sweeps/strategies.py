"""Training strategies as data: named differences from the baseline, each with a search space.

A strategy is an entry of `STRATEGIES`; to add one, add an entry. A *side* of a sweep is the
baseline or a strategy, and is referred to by its name. The command line imports this module for its
help, so it does not import Optuna.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synthdetect.runs.options import TrainOptions

BASELINE = "baseline"
"""Name of the side that strategies are compared with."""


@dataclass(frozen=True)
class FloatRange:
    """Real numbers from `low` to `high`, searched on a linear or a logarithmic scale."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class IntRange:
    """Integers from `low` to `high`, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class SearchParameter:
    """An option that is tuned.

    Attributes:
        range: Values that are searched.
        first: Value of the first trial.
    """

    range: FloatRange | IntRange | Choice
    first: Any


@dataclass(frozen=True)
class Strategy:
    """A training method that differs from the baseline.

    Attributes:
        help: What the strategy is.
        differences: Fixed values of options, by option name.
        space: Search parameters by option name. The learning rate is tuned on every side and needs
            an entry only where the baseline's range does not suit the strategy.
        needs_target: Whether the strategy adapts to unlabelled images, which the sweep takes from
            the test split.
    """

    help: str
    differences: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, SearchParameter] = field(default_factory=dict)
    needs_target: bool = False


def _float(low: float, high: float, first: float, *, log: bool = False) -> SearchParameter:
    return SearchParameter(FloatRange(low, high, log), first)


def _choice(*values: Any) -> SearchParameter:
    return SearchParameter(Choice(values), values[0])


STRATEGIES: dict[str, Strategy] = {
    "efficientnet": Strategy(
        "EfficientNet instead of the baseline's architecture",
        space={"arch": _choice("efficientnet_b0", "efficientnet_v2_s")},
    ),
    "densenet": Strategy("DenseNet-121", {"arch": "densenet121"}),
    "mobilenet": Strategy("MobileNetV3-Large", {"arch": "mobilenet_v3_large"}),
    "vit": Strategy("Vision Transformer B/16", {"arch": "vit_b_16"}),
    "mixup": Strategy("Mixup of pairs of images", space={"mixup": _float(0.1, 1.0, 0.2)}),
    "cutmix": Strategy(
        "CutMix: boxes pasted from other images", space={"cutmix": _float(0.1, 1.0, 1.0)}
    ),
    "random_erasing": Strategy(
        "erasing of random rectangles", space={"random_erasing": _float(0.1, 0.5, 0.25)}
    ),
    "focal": Strategy("focal loss", {"loss": "focal"}, {"focal_gamma": _float(1.0, 5.0, 2.0)}),
    "label_smoothing": Strategy(
        "label smoothing", space={"label_smoothing": _float(0.02, 0.3, 0.1)}
    ),
    "sgd": Strategy(
        "SGD with Nesterov momentum",
        {"optimizer": "sgd"},
        {"lr": _float(1e-4, 0.3, 1e-2, log=True), "momentum": _float(0.8, 0.98, 0.9)},
    ),
    "lookahead": Strategy(
        "Lookahead around AdamW",
        {"optimizer": "lookahead"},
        {
            "lookahead_steps": SearchParameter(IntRange(2, 10), 5),
            "lookahead_alpha": _float(0.3, 0.8, 0.5),
        },
    ),
    "ranger": Strategy("Ranger", {"optimizer": "ranger"}),
    "domain_adaptation": Strategy(
        "domain adaptation to unlabelled images like those of the test split",
        space={
            "adaptation": _choice("dann", "coral"),
            "adaptation_weight": _float(0.03, 1.0, 0.3, log=True),
        },
        needs_target=True,
    ),
    "adversarial": Strategy(
        "fine-tuning on adversarial examples",
        space={
            "adversarial": _choice("fgsm", "pgd"),
            "adversarial_epsilon": _float(0.5, 8.0, 2.0, log=True),
        },
    ),
}
"""Every strategy of section 4.4 of the paper, and the ViT of its section 3.1."""

_LR_RANGE = (1e-5, 1e-2)


def space(side: str, lr: float) -> dict[str, SearchParameter]:
    """Return the search space of one side, the learning rate first.

    Args:
        side: `BASELINE` or the name of a strategy.
        lr: Learning rate of the baseline. Its first trial has it, and its range is widened to
            include it.
    """
    own = STRATEGIES[side].space if side != BASELINE else {}
    low, high = _LR_RANGE
    return {"lr": _float(min(low, lr), max(high, lr), lr, log=True), **own}


def first_values(parameters: Mapping[str, SearchParameter]) -> dict[str, Any]:
    """Return the values of the first trial in a search space."""
    return {name: parameter.first for name, parameter in parameters.items()}


def options_of(
    side: str, base: Mapping[str, Any], tuned: Mapping[str, Any], target: str = ""
) -> TrainOptions:
    """Return the options of one training.

    Args:
        side: `BASELINE` or the name of a strategy.
        base: Options of the baseline, as `TrainOptions.resolve` takes them.
        tuned: Values of the search parameters.
        target: File that lists the images to adapt to, for a strategy that needs one.

    Raises:
        UserError: If the options do not go together.
    """
    strategy = STRATEGIES[side] if side != BASELINE else Strategy("")
    needed = {"target": target} if strategy.needs_target else {}
    return TrainOptions.resolve({**base, **strategy.differences, **needed, **tuned})
