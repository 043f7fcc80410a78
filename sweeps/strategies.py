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
class EpochShare:
    """A number of epochs that is tuned, from 0 to a share of all epochs of a training.

    Attributes:
        high: Share of the epochs that is the largest value.
        first: Share of the epochs that is the value of the first trial.
    """

    high: float
    first: float

    def of(self, epochs: int) -> SearchParameter:
        """Return the search parameter of trainings of so many epochs; shares are rounded down."""
        return SearchParameter(IntRange(0, int(self.high * epochs)), int(self.first * epochs))


@dataclass(frozen=True)
class Strategy:
    """A training method that differs from the baseline.

    Attributes:
        help: What the strategy is.
        differences: Fixed values of options, by option name.
        space: Search parameters by option name. The learning rate is tuned on every side and needs
            an entry only where the baseline's range does not suit the strategy.
        needs_target: Whether the strategy adapts to unlabelled images or learns from them; the
            sweep takes them from the test split.
    """

    help: str
    differences: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, SearchParameter | EpochShare] = field(default_factory=dict)
    needs_target: bool = False


def _float(low: float, high: float, first: float, *, log: bool = False) -> SearchParameter:
    return SearchParameter(FloatRange(low, high, log), first)


def _choice(*values: Any) -> SearchParameter:
    return SearchParameter(Choice(values), values[0])


def _adaptation(help: str, name: str, weight: SearchParameter | None = None) -> Strategy:
    """Return the strategy of an adaptation, with the range of its loss's weight if it has one."""
    space = {"adaptation_weight": weight} if weight else {}
    return Strategy(
        f"adaptation to unlabelled images of the test's kind: {help}",
        {"adaptation": name},
        space,
        needs_target=True,
    )


PAPER_STRATEGIES: dict[str, Strategy] = {
    "efficientnet": Strategy(
        "EfficientNet instead of the baseline's architecture",
        space={"arch": _choice("efficientnet_b0", "efficientnet_v2_s")},
    ),
    "densenet": Strategy("DenseNet-121", {"arch": "densenet121"}),
    "mobilenet": Strategy("MobileNetV3-Large", {"arch": "mobilenet_v3_large"}),
    "vit": Strategy(
        "Vision Transformer B/16, with warm-up, clipping, and no decay of norms and biases",
        {"arch": "vit_b_16", "decay_norms": False},
        {
            "lr": _float(3e-6, 1e-3, 1e-4, log=True),
            "warmup_epochs": EpochShare(high=0.4, first=0.2),
            "clip_norm": _float(0.1, 10.0, 1.0, log=True),
        },
    ),
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
        {
            "lr": _float(1e-4, 0.3, 1e-2, log=True),
            # SGD adds the decay to the gradient, and its momentum multiplies both by up to 50, so
            # the decay that suits AdamW would take the weights away.
            "weight_decay": _float(1e-5, 1e-3, 1e-4, log=True),
            "momentum": _float(0.8, 0.98, 0.9),
        },
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
    "dann": _adaptation("domain-adversarial training", "dann", _float(0.03, 10.0, 0.3, log=True)),
    "coral": _adaptation("equal covariances", "coral", _float(0.1, 30.0, 3.0, log=True)),
    "mmd": _adaptation("equal distributions", "mmd", _float(0.1, 30.0, 3.0, log=True)),
    "adabn": _adaptation("statistics of the target in batch normalisation", "adabn"),
    "adversarial": Strategy(
        "fine-tuning on adversarial examples",
        space={
            "adversarial": _choice("fgsm", "pgd"),
            "adversarial_epsilon": _float(0.5, 8.0, 2.0, log=True),
        },
    ),
}
"""Every strategy of section 4.4 of the paper, and the ViT of its section 3.1.

The paper names no method of domain adaptation, so each is a strategy of its own. The ranges of
their weights go from no effect on the features to one above that of the labels, which
`python -m benchmarks.adaptation` measures.
"""

FURTHER_STRATEGIES: dict[str, Strategy] = {
    "pairs": Strategy("photographs beside their own regenerations in a batch", {"pairs": True}),
    "pair_mixing": Strategy(
        "synthetic images mixed with their own photographs, in pixels and in frequencies",
        space={
            "pair_mix_pixels": _float(0.05, 0.5, 0.2),
            "pair_mix_frequency": _float(0.05, 0.5, 0.2),
        },
    ),
    "align_quality": Strategy(
        "synthetic images encoded as their own photographs are", {"align_quality": True}
    ),
    "resample_real": Strategy(
        "real images shrunk and enlarged, and all images re-encoded so that this does not show",
        {"recompress": 1.0},
        {"resample_real": _float(0.1, 0.6, 0.33)},
    ),
    "front_end": Strategy(
        "residuals or frequencies instead of colours",
        space={"front_end": _choice("npr", "highpass", "wavelet", "dct", "fft", "rgb+npr")},
    ),
    "ema": Strategy(
        "exponential moving average of the weights",
        {"average": "ema"},
        {"ema_decay": _float(0.9, 0.999, 0.99)},
    ),
    "swa": Strategy(
        "plain mean of the weights of the last epochs",
        {"average": "swa"},
        {"swa_from": _float(0.5, 0.9, 0.75)},
    ),
    "crop": Strategy("random crops of the square", space={"crop": _choice(96, 64, 128)}),
    "adversarial_throughout": Strategy(
        "adversarial examples from the first epoch",
        {"adversarial_from": 0.0},
        PAPER_STRATEGIES["adversarial"].space,
    ),
    "mean_teacher": Strategy(
        "consistency with an average of the network on unlabelled images of the test's kind",
        {"semi_supervised": "mean_teacher"},
        {"unlabelled_weight": _float(0.1, 30.0, 1.0, log=True)},
        needs_target=True,
    ),
    "fixmatch": Strategy(
        "confident pseudo-labels of unlabelled images of the test's kind",
        {"semi_supervised": "fixmatch"},
        {
            "unlabelled_weight": _float(0.1, 10.0, 1.0, log=True),
            "pseudo_label_confidence": _float(0.7, 0.97, 0.95),
        },
        needs_target=True,
    ),
}
"""Strategies that the paper did not try."""

STRATEGIES = {**PAPER_STRATEGIES, **FURTHER_STRATEGIES}
"""All strategies by name."""

_LR_RANGE = (1e-5, 1e-2)


def space(side: str, lr: float, epochs: int) -> dict[str, SearchParameter]:
    """Return the search space of one side, the learning rate first.

    Args:
        side: `BASELINE` or the name of a strategy.
        lr: Learning rate of the baseline. Its first trial has it, and its range is widened to
            include it.
        epochs: Epochs of a training.
    """
    low, high = _LR_RANGE
    result = {"lr": _float(min(low, lr), max(high, lr), lr, log=True)}
    for name, own in STRATEGIES[side].space.items() if side != BASELINE else ():
        result[name] = own.of(epochs) if isinstance(own, EpochShare) else own
    return result


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
