"""The options of a training, and the tables of losses, optimizers, schedules and so on."""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic.dataclasses import dataclass

from synthdetect.config.options import (
    CHECKED,
    Affects,
    Options,
    nested,
    option,
    option_name,
)
from synthdetect.config.registry import Entry, one_of
from synthdetect.images.options import (
    SMALLEST_SQUARE,
    AugmentationOptions,
    ImageOptions,
    LaunderingOptions,
    PairOptions,
    misfit_of_views,
)
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.options import ModelOptions
from synthdetect.models.spec import WHOLE_NETWORK, architecture

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
    "mmd": Entry(
        "synthdetect.training.adaptation:Mmd",
        "The maximum mean discrepancy of the features under Gaussian kernels (Long et al. 2015).",
    ),
    "adabn": Entry(
        "synthdetect.training.adaptation:adabn",
        "Batch normalisation by the statistics of the unlabelled images (Li et al. 2016).",
    ),
}
"""Ways to adapt to unlabelled images, by name."""

SEMI_SUPERVISED: dict[str, Entry] = {
    "mean_teacher": Entry(
        "synthdetect.training.semi_supervised:MeanTeacher",
        "The probabilities of an exponential moving average of the network (Tarvainen and Valpola "
        "2017).",
    ),
    "fixmatch": Entry(
        "synthdetect.training.semi_supervised:FixMatch",
        "The network's own confident answers to weakly changed images (Sohn et al. 2020).",
    ),
}
"""Ways to learn from unlabelled images by a network's own answers, by name."""

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


def _weight_or_auto(weight: str) -> str:
    try:
        fits = weight == "auto" or 0 < float(weight) < math.inf
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("give auto or a number above 0")
    return weight


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OptimOptions(Options):
    """How weights are trained."""

    section: ClassVar = "optim"

    epochs: int = option(
        25,
        "Most epochs, and the length of the learning-rate schedule.",
        ge=1,
        value="EPOCHS",
        common=True,
    )
    patience: int = option(
        7,
        "Epochs without a better validation AUC after which training stops.",
        ge=1,
        value="EPOCHS",
    )
    batch_size: int = option(32, "Images per step.", ge=2, value="IMAGES", common=True)
    balance: Literal["none", "class", "generator"] = option(
        "none",
        "What an epoch has equally often: none (every image once), class (real and synthetic "
        "images), generator (likewise, and each generator among the synthetic ones).",
    )
    pairs: bool = option(
        False,
        "Whether the images of one source follow each other in random order, so that a batch has a "
        "photograph beside its own regenerations.",
    )
    lr: float = option(1e-4, "Initial learning rate.", gt=0, common=True)
    weight_decay: float = option(
        1e-2, "Weight decay, decoupled from the gradient except under sgd.", ge=0
    )
    seed: int = option(42, "Seed of everything random.", ge=0, lt=2**31, common=True)
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = option(
        "adamw", "Optimizer: adamw, sgd, lookahead (over AdamW) or ranger.", common=True
    )
    momentum: float = option(0.9, "Momentum of sgd.", ge=0, lt=1)
    nesterov: bool = option(True, "Whether the momentum of sgd is Nesterov's.")
    lookahead_steps: int = option(
        5, "lookahead, ranger: fast steps per update of the slow weights.", ge=1, value="STEPS"
    )
    lookahead_alpha: float = option(
        0.5,
        "lookahead, ranger: share of the way that the slow weights move towards the fast ones.",
        gt=0,
        le=1,
        value="SHARE",
    )
    schedule: Annotated[str, one_of(SCHEDULES)] = option(
        "cosine", "Learning-rate schedule after the warm-up: cosine or constant."
    )
    warmup_epochs: int = option(
        0,
        "Epochs in which the learning rate rises linearly to its initial value.",
        ge=0,
        value="EPOCHS",
    )
    decay_norms: bool = option(
        True, "Whether weight decay applies to biases and normalisation weights too."
    )
    clip_norm: float = option(
        0.0,
        "Largest norm of the gradient; larger ones are scaled down (0: no clipping).",
        ge=0,
        value="NORM",
    )
    average: Literal["none", "ema", "swa"] = option(
        "none",
        "Average of the weights that is evaluated and kept: none, ema (exponential, over all "
        "steps) or swa (plain, over the last epochs).",
    )
    ema_decay: float = option(
        0.99,
        "ema, mean_teacher: share of the average that a step keeps.",
        gt=0,
        lt=1,
        value="SHARE",
    )
    swa_from: float = option(
        0.75,
        "swa: share of the epochs after which averaging begins; nothing is averaged in a "
        "training that stops before.",
        ge=0,
        lt=1,
        value="SHARE",
    )
    accumulate: int = option(
        1,
        "Batches before an optimizer step; each gives its gradient divided by this number.",
        ge=1,
        value="BATCHES",
    )

    shards: int = option(
        0,
        "Parts of each batch that go through the network by themselves; their gradients are summed "
        "in a fixed order, and batch normalisation sees a part as its batch. The weights depend on "
        "it, but not on --processes, which must divide it (0: as many as --processes).",
        ge=0,
        le=1024,
        value="PARTS",
    )

    @property
    def parts(self) -> int:
        """The parts of each batch."""
        return max(1, self.shards)

    @model_validator(mode="after")
    def _parts_have_images(self) -> Self:
        if self.batch_size < 2 * self.parts:
            raise ValueError(
                f"--shards {self.shards}: a part needs two images or more, and a batch has "
                f"{self.batch_size}. Give fewer, or raise --batch-size."
            )
        return self

    @model_validator(mode="after")
    def _averaged_once(self) -> Self:
        if self.average != "none" and self.optimizer in ("lookahead", "ranger"):
            raise ValueError(
                f"--average {self.average}: {self.optimizer} averages weights itself. Leave it "
                "out, or give another --optimizer."
            )
        return self

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

    loss: Annotated[str, one_of(LOSSES)] = option(
        "bce", "Loss: bce (cross-entropy) or focal.", common=True
    )
    focal_gamma: Annotated[float, AfterValidator(_finite_gradient)] = option(
        2.0, "focal: how strongly confident answers are weighted down (0: as bce).", ge=0, le=10
    )
    label_smoothing: float = option(
        0.0, "Label smoothing: 0.1 turns the labels 0 and 1 into 0.05 and 0.95.", ge=0, lt=1
    )
    pos_weight: Annotated[str, AfterValidator(_weight_or_auto)] = option(
        "1",
        "Weight of the loss of synthetic images: a number, or auto (the number of real training "
        "images divided by that of synthetic ones). It shifts probabilities, which the calibration "
        "on validation images undoes.",
        value="auto|NUMBER",
    )
    attribution: float = option(
        0.0,
        "Weight of the attribution loss, by which the network also learns which generator made a "
        "synthetic image (0: it does not).",
        ge=0,
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AdaptationOptions(Options):
    """Adaptation to unlabelled images of the domain where the detector is to work."""

    section: ClassVar = "adaptation"

    adaptation: Annotated[str, one_of("none", ADAPTATIONS)] = option(
        "none",
        "Adaptation: none, dann (adversarial), coral (equal covariances of features), mmd (equal "
        "distributions of features) or adabn (statistics of batch normalisation).",
        common=True,
    )
    adaptation_weight: float = option(
        1.0,
        "dann, coral, mmd: weight of the adaptation loss beside the loss over the labels.",
        gt=0,
    )
    target: str = option(
        "",
        "Unlabelled images to adapt to or to learn from: a folder, an archive, a list, or "
        "split:NAME of the data (its labels are not used; with split:test, results on test are "
        "transductive).",
        Affects.PLACE,
        value="PATH",
        common=True,
    )

    @model_validator(mode="after")
    def _target_given(self) -> Self:
        if self.adaptation != "none" and not self.target:
            raise ValueError(
                f"--adaptation {self.adaptation}: give --target, the images to adapt to."
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SemiSupervisedOptions(Options):
    """Learning from the unlabelled images of `target` by the network's own answers."""

    section: ClassVar = "semi_supervised"

    semi_supervised: Annotated[str, one_of("none", SEMI_SUPERVISED)] = option(
        "none",
        "Semi-supervised learning: none, mean_teacher (probabilities of the average of the "
        "weights, which is kept) or fixmatch (pseudo-labels).",
    )
    unlabelled_weight: float = option(
        1.0,
        "mean_teacher, fixmatch: weight of the loss over unlabelled images beside the loss over "
        "the labels.",
        gt=0,
    )
    consistency_ramp: float = option(
        0.3,
        "mean_teacher: share of the epochs in which this weight rises.",
        ge=0,
        le=1,
        value="SHARE",
    )
    pseudo_label_confidence: float = option(
        0.95,
        "fixmatch: least probability of a pseudo-label that is learnt.",
        ge=0.5,
        lt=1,
        value="PROBABILITY",
    )
    align_pseudo_labels: bool = option(
        True,
        "fixmatch: whether pseudo-labels are aligned to the class shares of the labelled images.",
    )
    guard_precision: float = option(
        0.9,
        "mean_teacher, fixmatch: least precision of such answers on validation images; an epoch "
        "after a lesser one uses no unlabelled images (0: no guard after the first epoch).",
        ge=0,
        le=1,
        value="SHARE",
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AdversarialOptions(Options):
    """Training on images that are changed to mislead the network."""

    section: ClassVar = "adversarial"

    adversarial: Annotated[str, one_of("none", ATTACKS)] = option(
        "none", "Attack: none, fgsm (one step) or pgd (several steps from a random start)."
    )
    adversarial_epsilon: float = option(
        2.0, "Largest change of a pixel, in levels of 255.", gt=0, le=255, value="LEVELS"
    )
    adversarial_steps: int = option(5, "Steps of pgd.", ge=1, le=100, value="STEPS")
    adversarial_share: float = option(
        0.5, "Share of each batch that is attacked.", gt=0, le=1, value="SHARE"
    )
    adversarial_from: float = option(
        0.2,
        "Share of the epochs that are trained on unchanged images first.",
        ge=0,
        lt=1,
        value="SHARE",
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DeviceOptions(Options):
    """The device that computes."""

    section: ClassVar = "device"

    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto", "Device: auto, cpu, cuda or mps.", common=True
    )
    workers: Annotated[str, AfterValidator(_number_or_auto)] = option(
        "auto",
        "Processes that read images: auto, or a number.",
        Affects.SPEED,
        value="auto|PROCESSES",
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainingDeviceOptions(DeviceOptions):
    """The device that trains, and the precision of its steps."""

    section: ClassVar = "device"

    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = option(
        "auto",
        "Precision of training steps: auto (bf16 where it pays, else fp32), fp32, tf32 (fp32 with "
        "products of 10 bits, on CUDA), bf16 or fp16; evaluation always uses fp32.",
    )
    compile: bool = option(
        False,
        "Whether torch.compile makes the code of training steps, which takes a minute and pays on "
        "CUDA; evaluation is not compiled.",
    )
    cache_gib: float = option(
        4.0,
        "Disk space for decoded images in GiB; 0 decodes them in every epoch.",
        Affects.SPEED,
        ge=0,
        le=1e6,
        value="GIB",
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ProcessOptions(Options):
    """The processes that train together."""

    section: ClassVar = "device"

    processes: int = option(
        1,
        "Processes that train one network together, each on a device of its own or a share of the "
        "cores; torchrun may start them instead. Not with --probe, --adaptation, "
        "--semi-supervised, --optimizer lookahead or ranger, or --average swa.",
        Affects.SPEED,
        ge=1,
        le=1024,
        value="PROCESSES",
        common=True,
    )


_UNDIVIDED: dict[str, tuple[str, ...]] = {
    "probe": (WHOLE_NETWORK,),
    "adaptation": ("none",),
    "semi_supervised": ("none",),
    "optimizer": ("adamw", "sgd"),
    "average": ("none", "ema"),
}
"""What options must be where batches are divided: the others read further images, or whole batches
at the end of an epoch."""

_OF_PROBES: dict[str, Any] = {
    "hflip": 0.0,
    "jitter": 0.0,
    "blur": 0.0,
    "rotation": 0.0,
    "random_erasing": 0.0,
    "crop": 0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "pair_mix_pixels": 0.0,
    "pair_mix_frequency": 0.0,
    "align_quality": False,
    "resample_real": 0.0,
    "resample_synthetic": 0.0,
    "rescale": 0.0,
    "degrade": 0.0,
    "recompress": 0.0,
    "attribution": 0.0,
    "adaptation": "none",
    "semi_supervised": "none",
    "adversarial": "none",
    "precision": "fp32",
    "compile": False,
}
"""What options must be for a probe, which sees the features of unchanged images, in fp32."""

_OF_NEIGHBOURS: dict[str, Any] = {
    "epochs": 1,
    "balance": "none",
    "pairs": False,
    "average": "none",
    "pos_weight": "1",
}
"""What options must further be for the probe knn, which learns nothing by steps."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainingOptions(Options):
    """Everything that the weights of a training depend on, apart from its images."""

    image: ImageOptions = nested(ImageOptions)
    augment: AugmentationOptions = nested(AugmentationOptions)
    pair: PairOptions = nested(PairOptions)
    launder: LaunderingOptions = nested(LaunderingOptions)
    model: ModelOptions = nested(ModelOptions)
    optim: OptimOptions = nested(OptimOptions)
    loss: LossOptions = nested(LossOptions)
    adaptation: AdaptationOptions = nested(AdaptationOptions)
    semi_supervised: SemiSupervisedOptions = nested(SemiSupervisedOptions)
    adversarial: AdversarialOptions = nested(AdversarialOptions)
    device: TrainingDeviceOptions = nested(TrainingDeviceOptions)

    @model_validator(mode="after")
    def _target_used_once(self) -> Self:
        target, adaptation = self.adaptation.target, self.adaptation.adaptation
        method = self.semi_supervised.semi_supervised
        if method == "none":
            if target and adaptation == "none":
                raise ValueError(
                    f"--target {target}: give --adaptation or --semi-supervised, which use it."
                )
            return self
        if not target:
            raise ValueError(
                f"--semi-supervised {method}: give --target, the unlabelled images to learn from."
            )
        if adaptation != "none":
            raise ValueError(
                f"--semi-supervised {method} and --adaptation {adaptation} both use the images of "
                "--target; leave one of them out."
            )
        return self

    @model_validator(mode="after")
    def _guard_measures_the_teacher(self) -> Self:
        method, optimizer = self.semi_supervised.semi_supervised, self.optim.optimizer
        if method == "none":
            return self
        if self.optim.average != "none":
            raise ValueError(
                f"--average {self.optim.average}: {method} has one teacher, whose answers on "
                "validation images are checked: mean_teacher averages weights itself, by "
                "--ema-decay, and fixmatch does not. Leave it out."
            )
        if optimizer in ("lookahead", "ranger"):
            raise ValueError(
                f"--optimizer {optimizer}: it averages weights, and {method} has one teacher, "
                "whose answers on validation images are checked. Give another --optimizer."
            )
        return self

    @model_validator(mode="after")
    def _confidence_can_be_reached(self) -> Self:
        method, smoothing = self.semi_supervised.semi_supervised, self.loss.label_smoothing
        confidence = self.semi_supervised.pseudo_label_confidence
        if method == "fixmatch" and confidence >= 1 - smoothing / 2:
            raise ValueError(
                f"--pseudo-label-confidence {confidence}: with --label-smoothing {smoothing} "
                f"probabilities end at {1 - smoothing / 2}. Lower one of them."
            )
        return self

    @model_validator(mode="after")
    def _statistics_exist(self) -> Self:
        arch = self.model.arch
        if self.adaptation.adaptation == "adabn" and not architecture(arch).batch_norm:
            able = ", ".join(name for name, entry in ARCHITECTURES.items() if entry.batch_norm)
            raise ValueError(
                f"--adaptation adabn: {arch} has no batch normalisation. Give another "
                f"--adaptation, or an --arch with it: {able}."
            )
        return self

    @model_validator(mode="after")
    def _compiled(self) -> Self:
        adaptation = self.adaptation.adaptation
        if self.device.compile and adaptation not in ("none", "adabn"):
            raise ValueError(
                f"--compile true: the steps of --adaptation {adaptation} are not compiled. Leave "
                "one of them out."
            )
        return self

    @model_validator(mode="after")
    def _probe_fits(self) -> Self:
        probe = self.model.probe
        if probe == WHOLE_NETWORK:
            return self
        reasons = {"trains on features that are computed once, of unchanged images": _OF_PROBES}
        if probe == "knn":
            reasons["learns nothing by steps"] = _OF_NEIGHBOURS
        for reason, needed in reasons.items():
            others = {name: value for name, value in needed.items() if self.value(name) != value}
            if others:
                given = ", ".join(f"{option_name(name)} {self.value(name)}" for name in others)
                remedy = " ".join(f"{option_name(name)} {value}" for name, value in others.items())
                raise ValueError(
                    f"{given}: cannot act under --probe {probe}, which {reason}. Give {remedy}, or "
                    "begin with --recipe probe."
                )
        if self.image.geometry == "random_crop":
            raise ValueError(
                f"--geometry random_crop: --probe {probe} sees one crop of an image, at its "
                "centre. Give --geometry center_crop."
            )
        return self

    @model_validator(mode="after")
    def _divided(self) -> Self:
        if self.optim.parts > 1:
            self.require_divisible(f"--shards {self.optim.shards}")
        return self

    def require_divisible(self, asked: str) -> None:
        """Check that batches can be divided.

        Args:
            asked: The option that divides them.

        Raises:
            ValueError: If another option needs them whole.
        """
        others = [name for name, fit in _UNDIVIDED.items() if self.value(name) not in fit]
        if others:
            given = ", ".join(f"{option_name(name)} {self.value(name)}" for name in others)
            raise ValueError(
                f"{given}: needs whole batches in one process; leave out {asked}, or give "
                + " ".join(f"{option_name(name)} {_UNDIVIDED[name][0]}" for name in others)
                + "."
            )

    @model_validator(mode="after")
    def _balanced_once(self) -> Self:
        if self.optim.balance != "none" and self.loss.pos_weight == "auto":
            raise ValueError(
                f"--balance {self.optim.balance} and --pos-weight auto both make up for classes of "
                "different size; leave one of them out."
            )
        return self

    @model_validator(mode="after")
    def _of_one_generator(self) -> Self:
        mixing = [name for name in ("mixup", "cutmix") if getattr(self.augment, name)]
        if self.loss.attribution and mixing:
            raise ValueError(
                f"--attribution {self.loss.attribution:g}: --{mixing[0]} mixes the images of "
                "several generators, to none of which they can be attributed; leave one of them "
                "out."
            )
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        crop, size = self.augment.crop, self.image.image_size
        if crop and not SMALLEST_SQUARE <= crop <= size:
            raise ValueError(
                f"--crop {crop}: give {SMALLEST_SQUARE} to {size} (--image-size), or 0 to train "
                "on the whole square."
            )
        if crop and architecture(self.model.arch).patch:
            raise ValueError(
                f"--crop {crop}: {self.model.arch} sees squares of --image-size only. Leave it out."
            )
        return self

    @model_validator(mode="after")
    def _views_fit(self) -> Self:
        fixed = bool(architecture(self.model.arch).patch)
        misfit = misfit_of_views(self.image.views, self.image.image_size, fixed_size=fixed)
        if misfit:
            raise ValueError(f"--views {self.image.views}: {misfit}.")
        return self
