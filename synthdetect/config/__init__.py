"""Every option there is, once.

The command line, the parameters in `MLproject`, what a run records and a sweep's variants are all
derived from these classes. An option is a field; its help is the field's description.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.system.errors import UserError

AS_RECIPE = "recipe"
"""The value that stands for "what the recipe says"."""

MAX_NAME, MAX_TEXT = 255, 4000
"""Bytes in a file's name, and characters in an option's value: what file systems and MLflow take.
"""


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
"""Several names, separated by commas; nothing means all."""

Share = Annotated[float, Field(ge=0, le=1)]
RecipeName = Literal["baseline", "constrained", "open"]
ThresholdRule = Literal["balanced_accuracy", "f1", "fpr", "half"]


CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Options:
    """A frozen set of options that refuses names it does not know."""

    not_of_recipe: ClassVar[tuple[str, ...]] = ()
    """Options that a recipe does not set here."""

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Each option's default, description and limits."""
        return dict(cls.__pydantic_fields__)  # type: ignore[attr-defined]

    @classmethod
    def resolve(cls, given: Mapping[str, Any]) -> Self:
        """Build the options from what was given: defaults, then the recipe, then the given values.

        Args:
            given: values or their text, by field name; the text `recipe` counts as not given.

        Raises:
            UserError: unknown names and values that do not fit, all of them in one message.
        """
        known = cls.fields()
        unknown = [name for name in given if name not in known]
        problems = [_unknown(name, list(known)) for name in unknown]
        unfit = {name: p for name in known if (p := _unfit(name, given.get(name)))}
        problems += unfit.values()
        explicit = {
            k: v for k, v in given.items() if k in known and k not in unfit and v != AS_RECIPE
        }
        differences: Mapping[str, Any] = {}
        if "recipe" in known:
            name = explicit.get("recipe", known["recipe"].default)
            recipe = RECIPES.get(name, {})  # an unknown recipe is reported with the rest
            differences = {k: v for k, v in recipe.items() if k not in cls.not_of_recipe}
        try:
            made = TypeAdapter(cls).validate_python({**differences, **explicit})
        except ValidationError as error:
            problems += [_problem(e["loc"], e["msg"], e["input"]) for e in error.errors()]
        if problems:
            raise UserError("\n".join(problems))
        return made

    @classmethod
    def sections(cls) -> dict[str, str]:
        """The section of each field, in the order in which the fields are shown."""
        result: dict[str, str] = {}
        for owner in cls.__mro__:
            for name in getattr(owner, "__annotations__", {}):
                if name in cls.fields():
                    result.setdefault(name, owner.__dict__.get("section", "run"))
        return result

    def changed(self, *names: str) -> str:
        """Those of some options that differ from their defaults, as one gives them."""
        defaults = {name: info.default for name, info in self.fields().items()}
        return ", ".join(option_name(n) for n in names if getattr(self, n) != defaults[n])

    def to_json(self) -> dict[str, Any]:
        """The options by name, as `resolve` takes them back; several names joined by commas."""
        return {
            name: ",".join(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    def to_flat(self) -> dict[str, Any]:
        """The same under `section.name`: what a run records as parameters."""
        values = self.to_json()
        return {f"{section}.{name}": values[name] for name, section in self.sections().items()}


def option_name(field: str) -> str:
    """How a field is spelled on the command line."""
    return "--" + field.replace("_", "-")


def _problem(place: tuple[int | str, ...], message: str, value: Any) -> str:
    message = message.removeprefix("Value error, ")
    if not place:  # several options that do not go together, which the message names
        return message
    return f"{option_name(str(place[0]))}: {message} (got {value!r})"


def _unfit(name: str, value: Any) -> str:
    """What is wrong with a text as such: no file and no record could hold it."""
    if not isinstance(value, str):
        return ""
    parts = [part for text in value.split(",") if "://" not in text for part in text.split("/")]
    what = ""
    if "\0" in value:
        what = "holds a NUL character"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        what = "is not UTF-8; rename what it names"
    elif any(len(part.encode()) > MAX_NAME for part in parts) or len(value) > MAX_TEXT:
        what = f"no name has more than {MAX_NAME} bytes, and no value more than {MAX_TEXT}"
    return f"{option_name(name)}: {what} (got {value[:40]!r})" if what else ""


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    hint = f" Did you mean {option_name(close[0])}?" if close else ""
    return f"unknown option --{name}.{hint}"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SourceOptions(Options):
    """Where the images come from."""

    section: ClassVar = "data"

    data: str = Field(
        "sample", description="'sample', a manifest (CSV, Parquet) or a folder in a known layout"
    )
    on_bad_image: Literal["stop", "exclude"] = Field(
        "stop", description="what to do about unreadable images: stop, or leave out and list them"
    )
    val_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="share of the images that validates, where the data have no val split"
    )
    test_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="share of the images that tests, where the data have no splits"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DataOptions(SourceOptions):
    """Which images."""

    section: ClassVar = "data"

    generators: Names = Field((), description="train on these generators only")
    categories: Names = Field((), description="train on these categories only")
    per_category: int = Field(
        0, ge=0, description="at most this many training images a category, half of them synthetic"
    )
    max_images: int = Field(0, ge=0, description="at most this many training images (0: all)")
    supplement: str = Field("", description="a further manifest or folder, all of it to train on")
    finetune: float = Field(
        0.0, ge=0, description="validation images moved to training: a number, or a share below 1"
    )

    @field_validator("per_category")
    @classmethod
    def _one_of_each(cls, images: int) -> int:
        if images == 1:
            raise ValueError("give 0 (all), or at least 2: one real, one synthetic")
        return images


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EqualiseOptions(Options):
    """Whether all images are encoded alike before anything looks at them."""

    section: ClassVar = "image"

    equalise: bool = Field(
        False, description="shrink every image a little, encode it as JPEG and decode it, all alike"
    )
    equalise_quality: int = Field(
        75, ge=1, le=100, description="JPEG quality that equalise encodes at"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ImageOptions(EqualiseOptions):
    """What the network sees of an image."""

    section: ClassVar = "image"

    image_size: int = Field(224, ge=16, le=4096, description="side of the square in pixels")
    geometry: Literal["resize", "center_crop", "random_crop", "resize_crop"] = Field(
        "resize", description="how an image becomes a square"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AugmentOptions(Options):
    """Random changes of training images."""

    section: ClassVar = "augment"

    hflip: Share = Field(0.5, description="probability of a horizontal flip")
    jitter: Share = Field(0.1, description="strength of brightness, contrast, saturation jitter")
    blur: Share = Field(0.2, description="probability of a Gaussian blur")
    blur_sigma: float = Field(1.0, gt=0.1, le=10, description="strongest blur in pixels")
    rotation: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees")
    random_erasing: Share = Field(
        0.0, description="probability that a rectangle is painted over in ImageNet's mean colour"
    )
    mixup: float = Field(
        0.0, ge=0, le=100, description="blend pairs of images and labels: alpha of Beta (0: off)"
    )
    cutmix: float = Field(
        0.0, ge=0, le=100, description="paste boxes of other images: alpha of Beta (0: off)"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ModelOptions(Options):
    """Which network, starting from which weights."""

    section: ClassVar = "model"

    arch: str = Field("resnet18", description="architecture; see: synthdetect list architectures")
    weights: str = Field(
        "auto", description="auto (ImageNet if to be had), imagenet (required), none, or a file"
    )

    @field_validator("arch")
    @classmethod
    def _known_architecture(cls, arch: str) -> str:
        if arch not in ARCHITECTURES:
            raise ValueError(f"unknown architecture; known: {', '.join(ARCHITECTURES)}")
        return arch


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OptimOptions(Options):
    """How it is trained."""

    section: ClassVar = "optim"

    epochs: int = Field(25, ge=1, description="most epochs; also the period of the cosine")
    patience: int = Field(7, ge=1, description="epochs without a better validation AUC to stop at")
    batch_size: int = Field(32, ge=2, description="images a step")
    lr: float = Field(1e-4, gt=0, description="learning rate at the start")
    weight_decay: float = Field(
        1e-2, ge=0, description="weight decay: decoupled, but for sgd, where the gradient gets it"
    )
    seed: int = Field(42, ge=0, lt=2**31, description="of everything random")
    optimizer: Literal["adamw", "sgd", "lookahead", "ranger"] = Field(
        "adamw", description="adamw, sgd, lookahead (over AdamW) or ranger"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of sgd")
    nesterov: bool = Field(True, description="whether sgd's momentum is Nesterov's")
    lookahead_steps: int = Field(
        5, ge=1, description="lookahead, ranger: steps of the fast weights to one of the slow"
    )
    lookahead_alpha: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="lookahead, ranger: how far the slow weights go towards the fast"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class LossOptions(Options):
    """What is minimised."""

    section: ClassVar = "loss"

    loss: Literal["bce", "focal"] = Field("bce", description="bce (cross-entropy) or focal")
    focal_gamma: float = Field(
        2.0, ge=0, le=10, description="focal: how much less certain answers count (0: as bce)"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="how far labels are moved towards even odds (0.1: to 0.05 and 0.95)"
    )

    @field_validator("focal_gamma")
    @classmethod
    def _finite_gradient(cls, gamma: float) -> float:
        if 0 < gamma < 1:
            raise ValueError("between 0 and 1 its gradient can be infinite; give 0, or 1 to 10")
        return gamma


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AdaptationOptions(Options):
    """Adaptation to unlabelled images from where the detector is to work."""

    section: ClassVar = "adaptation"

    adaptation: Literal["none", "dann", "coral"] = Field(
        "none", description="none, dann (adversarial) or coral (equal covariances of features)"
    )
    adaptation_weight: float = Field(1.0, gt=0, description="of its loss beside the labels'")
    target: str = Field(
        "",
        description="the images to adapt to: a folder, an archive, a list, or split:NAME of the "
        "data (its labels are not used; with split:test, results on test are transductive)",
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
    """Training on images that were changed to mislead the network."""

    section: ClassVar = "adversarial"

    adversarial: Literal["none", "fgsm", "pgd"] = Field(
        "none", description="none, fgsm (one step) or pgd (several, from a random start)"
    )
    adversarial_epsilon: float = Field(
        2.0, gt=0, le=255, description="largest change of a pixel, in levels of 255"
    )
    adversarial_steps: int = Field(5, ge=1, le=100, description="of pgd")
    adversarial_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="share of each batch that is changed"
    )
    adversarial_from: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="share of the epochs that comes before, on unchanged images"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DecisionOptions(Options):
    """From a score to an answer; chosen on validation."""

    section: ClassVar = "decision"

    threshold: ThresholdRule = Field(
        "balanced_accuracy",
        description="chosen on validation: the best balanced_accuracy or f1, most found at max_fpr "
        "(fpr), or 0.5 (half)",
    )
    max_fpr: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="share of real images that threshold=fpr lets be called synthetic"
    )
    calibration: Literal["temperature", "platt", "isotonic", "none"] = Field(
        "temperature", description="how probabilities are calibrated on validation"
    )
    unsure: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0,
        description="answer 'unsure' where the probability is this near to the threshold",
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DeviceOptions(Options):
    """Where it computes."""

    section: ClassVar = "device"

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="what computes")
    workers: str = Field("auto", description="processes that read images (auto, or a number)")

    @field_validator("workers")
    @classmethod
    def _number_or_auto(cls, workers: str) -> str:
        if workers != "auto" and not (workers.isdecimal() and int(workers) <= 256):
            raise ValueError("give auto or a number from 0 to 256")
        return workers


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainingDeviceOptions(DeviceOptions):
    """Where and in which numbers it trains."""

    section: ClassVar = "device"

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of training steps (auto: what is faster); evaluation is always fp32"
    )
    cache_gib: float = Field(
        4.0, ge=0, le=1e6, description="disk for decoded images, in GiB; 0 decodes them every epoch"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RunOptions(Options):
    """How the run is kept."""

    section: ClassVar = "run"

    register: str = Field("", description="name under which the model is registered")
    resume: str = Field("", description="id of a run to go on with")
    output: str = Field("runs", description="folder for checkpoints of unfinished runs")
    keep_last: bool = Field(
        True, description="keep the last checkpoint (to train on from) of a finished run"
    )

    @field_validator("register")
    @classmethod
    def _registers(cls, name: str) -> str:
        if name and (not name.strip() or "/" in name or ":" in name):
            raise ValueError("a registered model's name has no / and no :, and is not blank")
        return name


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RecipeOptions(
    DataOptions,
    ImageOptions,
    AugmentOptions,
    ModelOptions,
    OptimOptions,
    LossOptions,
    AdaptationOptions,
    AdversarialOptions,
    DecisionOptions,
    TrainingDeviceOptions,
):
    """All that a training depends on."""

    section: ClassVar = "run"

    recipe: RecipeName = Field("baseline", description="named set of differences from the defaults")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DealtOptions(Options):
    """Of trainings whose train and val splits are dealt out of those that the data have."""

    not_of_recipe: ClassVar = ("finetune",)

    @model_validator(mode="after")
    def _all_is_dealt(self) -> Self:
        if getattr(self, "finetune", 0):
            raise ValueError(
                "--finetune: here the validation images are dealt out to train and to validate "
                "like the training images; there are none to move. Leave it out."
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainOptions(RecipeOptions, RunOptions):
    """`synthdetect train`: one tracked training run."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FoldOptions(Options):
    """How images are dealt into folds."""

    section: ClassVar = "cv"

    folds: int = Field(5, ge=2, le=100, description="number of folds (of sources)")
    group_by: Literal["source", "generator"] = Field(
        "source", description="source: k folds; generator: leave one generator out, a fold each"
    )
    stratify: Literal["label", "category"] = Field(
        "label", description="what is equally spread over the folds: labels, or categories too"
    )
    folds_from: str = Field(
        "", description="reuse the folds of this cross-validation: its run id, or a folds.csv"
    )
    refit: bool = Field(False, description="train one final model on train and val together")

    @model_validator(mode="after")
    def _either_dealt_or_reused(self) -> Self:
        dealing = self.changed("folds", "group_by", "stratify")
        if self.folds_from and dealing:
            raise ValueError(
                f"{dealing}: the folds are those of --folds-from {self.folds_from}; leave it out."
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CvOptions(TrainOptions, FoldOptions, DealtOptions):
    """`synthdetect cv`: cross-validation, a tracked run a fold under one parent run."""

    @model_validator(mode="after")
    def _something_to_register(self) -> Self:
        # A run that goes on may have a final training though it is not asked for again.
        if self.register and not (self.refit or self.resume):
            raise ValueError(
                f"--register {self.register}: only the final training is registered; give --refit "
                "true, or leave it out."
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RegimesOptions(SourceOptions, OptimOptions, DecisionOptions, TrainingDeviceOptions):
    """`synthdetect regimes`: the paper's two regimes, or all combinations of what sets them apart.

    Whatever else a recipe leaves open is the same for all trainings.
    """

    section: ClassVar = "regimes"

    image_size: int = Field(224, ge=16, le=4096, description="side of the square in pixels")
    weights: str = Field("auto", description="of every training: auto, imagenet or none")
    narrow: Names = Field(
        (), description="generators of the narrow data (default: the one with most training images)"
    )
    narrow_per_category: int = Field(
        35_000, ge=0, description="narrow data have at most this many images a category"
    )
    supplement: str = Field("", description="a manifest or folder that the diverse data have too")
    finetune: float = Field(
        0.2,
        ge=0,
        description="validation images that the open regime trains on: a number, or a share "
        "below 1",
    )
    factorial: bool = Field(
        False, description="cross architectures, data and augmentation, one change at a time"
    )
    archs: Names = Field(
        ("resnet18", "resnet50", "vit_b_16"), description="architectures that factorial crosses"
    )
    seeds: int = Field(1, ge=1, le=100, description="trainings of each, with seeds from seed on")
    resume: str = Field("", description="id of a run to go on with")
    output: str = Field("runs", description="folder for checkpoints of unfinished runs")

    @field_validator("archs")
    @classmethod
    def _known_architectures(cls, archs: tuple[str, ...]) -> tuple[str, ...]:
        for arch in archs:
            if arch not in ARCHITECTURES:
                raise ValueError(f"unknown architecture; known: {', '.join(ARCHITECTURES)}")
        return archs


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PredictOptions(DeviceOptions):
    """`synthdetect predict`: score images without labels, with one detector or several together."""

    section: ClassVar = "predict"

    model: Names = Field(
        (),
        description="detectors, separated by commas: files (.safetensors, .onnx), models:/ URIs, "
        "run ids",
    )
    data: str = Field(
        "", description="a folder, an archive (.zip, .tar, .tar.gz, .tgz), a manifest, or 'sample'"
    )
    output: str = Field("predictions", description="folder for the results")
    ensemble: Literal["mean_logit", "mean_probability", "median", "vote"] = Field(
        "mean_logit",
        description="how several become one: mean_logit, mean_probability, median or vote",
    )
    tta: Literal["none", "flip"] = Field(
        "none", description="flip: mean of the logits of an image and its mirror image"
    )
    batch_size: int = Field(64, ge=1, description="images at a time")
    submission: Literal["", "constrained", "open"] = Field(
        "", description="also write a MediaEval run of this type"
    )
    team: str = Field("", description="the team's name, for a submission")
    edition: Literal["2025", "2026"] = Field(
        "2025", description="of MediaEval: 2025 wants a zip, 2026 a plain CSV"
    )
    unreadable_as: Literal["", "real", "synthetic"] = Field(
        "", description="what a submission answers for images that cannot be read"
    )

    @model_validator(mode="after")
    def _for_a_submission(self) -> Self:
        given = self.changed("team", "edition", "unreadable_as")
        if given and not self.submission:
            raise ValueError(f"{given}: only for a --submission, which is not given; leave it out.")
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EvaluateOptions(DecisionOptions, DeviceOptions):
    """`synthdetect evaluate`: what a detector, or anybody's table of predictions, is worth."""

    section: ClassVar = "evaluate"

    model: Names = Field((), description="one detector: a file, a models:/ URI or a run id")
    data: str = Field("", description="labelled images for it: as for train")
    predictions: str = Field(
        "", description="instead of both: a CSV or Parquet table with path, label and a score"
    )
    columns: Names = Field(
        (), description="the table's names for ours, as label=target,logit=score"
    )
    splits: Names = Field((), description="which splits (default: all but train)")
    on_bad_image: Literal["stop", "exclude"] = Field(
        "stop", description="what to do about unreadable images: stop, or leave out and list them"
    )
    decide: Literal["auto", "given", "val"] = Field(
        "auto",
        description="threshold and calibration as given by the model or table, or anew from the "
        "val rows here; auto: as given, and for a table without a threshold, from val or 0.5",
    )
    slices: Names = Field(
        (), description="columns to cut the images by (default: those of note in which they differ)"
    )
    explain: int = Field(
        12, ge=0, description="a detector's worst mistakes, and as many hits, to show by Grad-CAM"
    )
    spectra: bool = Field(
        True, description="mean spectra of a detector's images, where generators leave traces"
    )
    robustness: str = Field(
        "",
        description="score the images perturbed too: all, or some (jpeg), or some levels (jpeg:50)",
    )
    equalised: bool = Field(
        False, description="score them also after equalise, which gives all the same encoding"
    )
    cache_gib: float = Field(
        4.0,
        ge=0,
        le=1e6,
        description="disk for the squares that robustness and equalised make, in GiB",
    )
    output: str = Field(
        "evaluation", description="folder for the results, which are in one named by the run's id"
    )
    batch_size: int = Field(64, ge=1, description="images at a time")
    seed: int = Field(42, ge=0, lt=2**31, description="of the bootstrap and of what is random")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ExportOptions(SourceOptions):
    """`synthdetect export`: a detector as one file that another engine computes, and faster.

    What it answers is compared with torch on validation images, and is written beside the file.
    """

    section: ClassVar = "export"

    model: Names = Field((), description="one detector: a file, a models:/ URI or a run id")
    data: str = Field(
        "",
        description="labelled images to calibrate on and compare with, as for train "
        "(default: those of the detector's training, as its run recorded them)",
    )
    engine: Literal["onnxruntime", "openvino"] = Field(
        "openvino", description="what is to compute it: onnxruntime or openvino"
    )
    precision: Literal["fp32", "bf16", "int8"] = Field(
        "int8", description="in which numbers: fp32, bf16 (openvino) or int8, which is the fastest"
    )
    calibration_images: int = Field(
        128, ge=1, description="training images from which int8 takes its ranges"
    )
    parity_images: int = Field(
        1000, ge=2, description="most validation images on which it is compared with torch"
    )
    tolerance: Annotated[float, Field(ge=0, le=1)] = Field(
        0.005, description="greatest change of the AUC; beyond it, nothing is exported"
    )
    register: str = Field("", description="name under which the exported model is registered")
    output: str = Field("exports", description="folder for the file and for what was measured")
    seed: int = Field(42, ge=0, lt=2**31, description="of splits that are made, and the images")

    @model_validator(mode="after")
    def _nothing_to_split(self) -> Self:
        given = self.changed("val_share", "test_share")
        if given and not self.data:
            raise ValueError(f"{given}: splits --data, which is not given; leave it out.")
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ReproduceOptions(Options):
    """Do a recorded run again from what it recorded, and say whether it comes to the same.

    Exit status 0: reproduced; 1: not reproduced; 2: it cannot be done again, or the data changed.
    """

    section: ClassVar = "reproduce"

    run_id: str = Field("", description="the run: a training, or a cross-validation")
    data: str = Field("", description="where its images are now (default: where they were)")
    on_changed_data: Literal["stop", "train"] = Field(
        "stop", description="what to do if the data are not what they were: stop, or train on them"
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        description="difference of a metric in the end at which a run still counts as reproduced "
        "(0: every weight, metric and prediction must be equal)",
    )
    output: str = Field("runs", description="folder for checkpoints while it trains")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ReportOptions(Options):
    """Make a run's report, a page that needs nothing else, and put it among the run's artifacts."""

    run_id: str = Field(description="the run")
    output: str = Field("", description="file to write the page to as well")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CheckSubmissionOptions(Options):
    """Find every fault of a MediaEval run file (image_id,prob,label,threshold), whoever wrote it.

    Exit status 0: no errors (perhaps warnings); 2: errors.
    """

    file: str = Field(description="the run file: .zip (2025) or .csv (2026)")
    images: str = Field("", description="the test images: a folder or an archive (listed only)")
    edition: Literal["", "2025", "2026"] = Field(
        "", description="of MediaEval; without it, the file's suffix decides"
    )
    other: str = Field("", description="the team's other run, which must not be the same")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ManifestOptions(Options):
    """Write the table of a folder's images: label, split, generator, hash, size, format."""

    folder: str = Field(description="a folder in a known layout, a manifest, or 'sample'")
    output: str = Field(description="the manifest to write: .csv or .parquet")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AuditOptions(EqualiseOptions):
    """`synthdetect audit`: what in the data gives the labels away, and what is wrong with them.

    Exit status 0: done, with warnings or without; 2: warnings, if --strict asks for it.
    """

    section: ClassVar = "audit"

    data: str = Field(
        "sample", description="'sample', a manifest (CSV, Parquet) or a folder in a known layout"
    )
    supplement: str = Field(
        "", description="a further manifest or folder, all of it meant to train on"
    )
    near_duplicates: bool = Field(
        True, description="also look for pictures that look alike, which opens every image"
    )
    strict: bool = Field(False, description="end in an error if there are warnings")
    seed: int = Field(42, ge=0, lt=2**31, description="of everything random")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ListOptions(Options):
    """Show what can be asked for by name."""

    what: Literal[
        "architectures", "recipes", "geometries", "layouts", "metrics", "losses", "optimizers",
        "mixing", "adaptations", "attacks",
    ] = Field(
        description="architectures, recipes, geometries, layouts, metrics, losses, optimizers, "
        "mixing, adaptations or attacks"
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PromoteOptions(Options):
    """Give the alias `champion` to another version of a registered model."""

    name: str = Field(description="the registered model")
    version: str = Field(description="the version to promote")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ServeOptions(Options):
    """Serve a detector by MLflow's protocol, behind limits."""

    model: str = Field(default="", description="models:/ URI, run id, or detector's file")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=5000, ge=1, le=65535, description="port to listen on")
    max_mib: int = Field(default=32, ge=1, le=1024, description="MiB of one image's file, at most")
    max_pixels: int = Field(
        default=50_000_000, ge=1, le=100_000_000, description="pixels of one image, at most"
    )
    max_total_pixels: int = Field(
        default=1_000_000_000, ge=1, description="pixels of all images of one request, at most"
    )
    max_images: int = Field(default=256, ge=1, description="images of one request, at most")
    timeout: float = Field(
        default=30.0, gt=0, le=3600, description="seconds in which a request must have come"
    )


AUGMENTATIONS: dict[str, Mapping[str, Any]] = {
    "light": {},  # flip, light colour jitter, blur: what the defaults say
    "extensive": {"geometry": "resize_crop", "rotation": 10.0, "jitter": 0.2},
}
"""The augmentation of the paper's two regimes."""

RECIPES: dict[str, Mapping[str, Any]] = {
    # The paper's common recipe is what the defaults say.
    "baseline": {},
    # Configuration 1: narrow data (700,000 images of 20 categories, balanced), light augmentation.
    "constrained": {"arch": "resnet18", "per_category": 35_000},
    # Configuration 2: diverse data, extensive augmentation, and a part of the validation set
    # (2,000 of its 10,000 images) for fine-tuning.
    "open": {"arch": "resnet50", **AUGMENTATIONS["extensive"], "finetune": 0.2},
}
assert set(RECIPES) == set(get_args(RecipeName))
