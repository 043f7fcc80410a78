"""The options of a training, and the tables of losses, optimizers, schedules and so on."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Affects, Options, nested, option
from synthdetect.config.registry import Entry, one_of
from synthdetect.images.options import AugmentationOptions, ImageOptions
from synthdetect.models.options import ModelOptions

LOSSES: dict[str, Entry] = {
    "bce": Entry("synthdetect.training.losses:bce", "Binary cross-entropy."),
    "focal": Entry(
        "synthdetect.training.losses:focal",
        "Cross-entropy times (1 - p)^gamma, p the probability of the label (Lin et al. 2017).",
    ),
}
"""Losses over the labels, by name."""

OPTIMIZERS: dict[str, Entry] = {
    "adamw": Entry("synthdetect.training.optimizers:adamw", "AdamW (Loshchilov and Hutter 2019)."),
    "sgd": Entry("synthdetect.training.optimizers:sgd", "SGD with (Nesterov) momentum."),
    "lookahead": Entry(
        "synthdetect.training.optimizers:lookahead", "Lookahead over AdamW (Zhang et al. 2019)."
    ),
    "ranger": Entry(
        "synthdetect.training.optimizers:ranger",
        "Ranger: RAdam, Lookahead and gradient centralisation (Wright 2019).",
    ),
}
"""Optimizers, by name."""

SCHEDULES: dict[str, Entry] = {
    "cosine": Entry(
        "synthdetect.training.schedules:cosine",
        "Cosine annealing to 0 over the epochs (Loshchilov and Hutter 2017).",
    ),
    "constant": Entry("synthdetect.training.schedules:constant", "The same in every epoch."),
}
"""Learning-rate schedules, by name."""

ADAPTATIONS: dict[str, Entry] = {
    "dann": Entry(
        "synthdetect.training.adaptation:Dann",
        "A domain discriminator whose gradient is reversed (Ganin et al. 2016).",
    ),
    "coral": Entry(
        "synthdetect.training.adaptation:Coral",
        "The distance of the features' covariances (Sun and Saenko 2016).",
    ),
}
"""Ways to adapt to unlabelled images, by name."""

ATTACKS: dict[str, Entry] = {
    "fgsm": Entry(
        "synthdetect.training.adversarial:fgsm",
        "One step along the sign of the gradient (Goodfellow et al. 2015).",
    ),
    "pgd": Entry(
        "synthdetect.training.adversarial:pgd",
        "Several steps from a random start (Madry et al. 2018).",
    ),
}
"""Attacks of adversarial training, by name."""


def _finite_gradient(gamma: float) -> float:
    if 0 < gamma < 1:
        raise ValueError("between 0 and 1 the gradient can be infinite; give 0, or 1 to 10")
    return gamma


def _number_or_auto(workers: str) -> str:
    if workers != "auto" and not (workers.isdecimal() and int(workers) <= 256):
        raise ValueError("give auto or a number from 0 to 256")
    return workers


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OptimOptions(Options):
    """How weights are trained."""

    section: ClassVar = "optim"

    epochs: int = option(25, "Most epochs, and the length of the learning-rate schedule.", ge=1)
    patience: int = option(
        7, "Epochs without a better validation AUC after which training stops.", ge=1
    )
    batch_size: int = option(32, "Images per step.", ge=2)
    lr: float = option(1e-4, "Initial learning rate.", gt=0)
    weight_decay: float = option(
        1e-2, "Weight decay, decoupled from the gradient except under sgd.", ge=0
    )
    seed: int = option(42, "Seed of everything random.", ge=0, lt=2**31)
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = option(
        "adamw", "Optimizer: adamw, sgd, lookahead (over AdamW) or ranger."
    )
    momentum: float = option(0.9, "Momentum of sgd.", ge=0, lt=1)
    nesterov: bool = option(True, "Whether the momentum of sgd is Nesterov's.")
    lookahead_steps: int = option(
        5, "lookahead, ranger: fast steps per update of the slow weights.", ge=1
    )
    lookahead_alpha: float = option(
        0.5,
        "lookahead, ranger: share of the way that the slow weights move towards the fast ones.",
        gt=0,
        le=1,
    )
    schedule: Annotated[str, one_of(SCHEDULES)] = option(
        "cosine", "Learning-rate schedule after the warm-up: cosine or constant."
    )
    warmup_epochs: int = option(
        0, "Epochs in which the learning rate rises linearly to its initial value.", ge=0
    )
    decay_norms: bool = option(
        True, "Whether weight decay applies to biases and normalisation weights too."
    )
    clip_norm: float = option(
        0.0, "Largest norm of the gradient; larger ones are scaled down (0: no clipping).", ge=0
    )
    accumulate: int = option(
        1, "Batches before an optimizer step; each gives its gradient divided by this number.", ge=1
    )

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if 0 < self.epochs <= self.warmup_epochs:
            raise ValueError(
                f"--warmup-epochs {self.warmup_epochs}: the warm-up must be shorter than the "
                f"training of {self.epochs} epochs."
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class LossOptions(Options):
    """The loss over the labels."""

    section: ClassVar = "loss"

    loss: Annotated[str, one_of(LOSSES)] = option("bce", "Loss: bce (cross-entropy) or focal.")
    focal_gamma: Annotated[float, AfterValidator(_finite_gradient)] = option(
        2.0, "focal: how strongly confident answers are weighted down (0: as bce).", ge=0, le=10
    )
    label_smoothing: float = option(
        0.0, "Label smoothing: 0.1 turns the labels 0 and 1 into 0.05 and 0.95.", ge=0, lt=1
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AdaptationOptions(Options):
    """Adaptation to unlabelled images of the domain where the detector is to work."""

    section: ClassVar = "adaptation"

    adaptation: Annotated[str, one_of("none", ADAPTATIONS)] = option(
        "none", "Adaptation: none, dann (adversarial) or coral (equal covariances of features)."
    )
    adaptation_weight: float = option(
        1.0, "Weight of the adaptation loss beside the loss over the labels.", gt=0
    )
    target: str = option(
        "",
        "Unlabelled images to adapt to: a folder, an archive, a list, or split:NAME of the data "
        "(its labels are not used; with split:test, results on test are transductive).",
        Affects.PLACE,
    )

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if self.adaptation != "none" and not self.target:
            raise ValueError(
                f"--adaptation {self.adaptation}: give --target, the images to adapt to."
            )
        if self.target and self.adaptation == "none":
            raise ValueError(f"--target {self.target}: give --adaptation, which uses it.")
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AdversarialOptions(Options):
    """Training on images that are changed to mislead the network."""

    section: ClassVar = "adversarial"

    adversarial: Annotated[str, one_of("none", ATTACKS)] = option(
        "none", "Attack: none, fgsm (one step) or pgd (several steps from a random start)."
    )
    adversarial_epsilon: float = option(
        2.0, "Largest change of a pixel, in levels of 255.", gt=0, le=255
    )
    adversarial_steps: int = option(5, "Steps of pgd.", ge=1, le=100)
    adversarial_share: float = option(0.5, "Share of each batch that is attacked.", gt=0, le=1)
    adversarial_from: float = option(
        0.2, "Share of the epochs that are trained on unchanged images first.", ge=0, lt=1
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DeviceOptions(Options):
    """The device that computes."""

    section: ClassVar = "device"

    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto", "Device: auto, cpu, cuda or mps."
    )
    workers: Annotated[str, AfterValidator(_number_or_auto)] = option(
        "auto", "Processes that read images: auto, or a number.", Affects.SPEED
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainingDeviceOptions(DeviceOptions):
    """The device that trains, and the precision of its steps."""

    section: ClassVar = "device"

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        "Precision of training steps (auto: the fastest that the device supports); evaluation "
        "always uses fp32.",
    )
    cache_gib: float = option(
        4.0,
        "Disk space for decoded images in GiB; 0 decodes them in every epoch.",
        Affects.SPEED,
        ge=0,
        le=1e6,
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainingOptions(Options):
    """Everything that the weights of a training depend on, apart from its images."""

    image: ImageOptions = nested(ImageOptions)
    augment: AugmentationOptions = nested(AugmentationOptions)
    model: ModelOptions = nested(ModelOptions)
    optim: OptimOptions = nested(OptimOptions)
    loss: LossOptions = nested(LossOptions)
    adaptation: AdaptationOptions = nested(AdaptationOptions)
    adversarial: AdversarialOptions = nested(AdversarialOptions)
    device: TrainingDeviceOptions = nested(TrainingDeviceOptions)
