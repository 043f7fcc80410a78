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
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from synthdetect.errors import UserError
from synthdetect.models.architectures import ARCHITECTURES

AS_RECIPE = "recipe"
"""The value that stands for "what the recipe says"."""


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
"""Several names, separated by commas; nothing means all."""

Share = Annotated[float, Field(ge=0, le=1)]
RecipeName = Literal["baseline", "constrained", "open"]
ThresholdRule = Literal["balanced_accuracy", "f1", "half"]


_CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class Options:
    """A frozen set of options that refuses names it does not know."""

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
        explicit = {k: v for k, v in given.items() if k in known and v != AS_RECIPE}
        differences: Mapping[str, Any] = {}
        if "recipe" in known:
            name = explicit.get("recipe", known["recipe"].default)
            differences = RECIPES.get(name, {})  # an unknown recipe is reported with the rest
        try:
            made = TypeAdapter(cls).validate_python({**differences, **explicit})
        except ValidationError as error:
            problems += [
                f"{option_name(str(e['loc'][0]))}: {e['msg'].removeprefix('Value error, ')}"
                f" (got {e['input']!r})"
                for e in error.errors()
            ]
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


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    hint = f" Did you mean {option_name(close[0])}?" if close else ""
    return f"unknown option --{name}.{hint}"


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class DataOptions(Options):
    """Which images."""

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


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class ImageOptions(Options):
    """What the network sees of an image."""

    section: ClassVar = "image"

    image_size: int = Field(224, ge=16, le=4096, description="side of the square in pixels")
    geometry: Literal["resize", "center_crop", "random_crop", "resize_crop"] = Field(
        "resize", description="how an image becomes a square"
    )


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class AugmentOptions(Options):
    """Random changes of training images."""

    section: ClassVar = "augment"

    hflip: Share = Field(0.5, description="probability of a horizontal flip")
    jitter: Share = Field(0.1, description="strength of brightness, contrast, saturation jitter")
    blur: Share = Field(0.2, description="probability of a Gaussian blur")
    blur_sigma: float = Field(1.0, gt=0.1, le=10, description="strongest blur in pixels")
    rotation: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees")


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
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


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class OptimOptions(Options):
    """How it is trained."""

    section: ClassVar = "optim"

    epochs: int = Field(25, ge=1, description="most epochs; also the period of the cosine")
    patience: int = Field(7, ge=1, description="epochs without a better validation AUC to stop at")
    batch_size: int = Field(32, ge=2, description="images a step")
    lr: float = Field(1e-4, gt=0, description="learning rate at the start (AdamW)")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay (AdamW)")
    seed: int = Field(42, ge=0, lt=2**31, description="of everything random")


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class DecisionOptions(Options):
    """From a score to an answer; chosen on validation."""

    section: ClassVar = "decision"

    threshold: ThresholdRule = Field(
        "balanced_accuracy", description="what the threshold maximises on validation (half: 0.5)"
    )
    calibration: Literal["temperature", "none"] = Field(
        "temperature", description="how probabilities are calibrated on validation"
    )


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
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


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class TrainingDeviceOptions(DeviceOptions):
    """Where and in which numbers it trains."""

    section: ClassVar = "device"

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of training steps; evaluation is always fp32"
    )
    cache_gib: float = Field(
        4.0, ge=0, description="disk for decoded images, in GiB; 0 decodes them every epoch"
    )


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class RunOptions(Options):
    """How the run is kept."""

    section: ClassVar = "run"

    recipe: RecipeName = Field("baseline", description="named set of differences from the defaults")
    register: str = Field("", description="name under which the model is registered")
    resume: str = Field("", description="id of a run to go on with")
    output: str = Field("runs", description="folder for checkpoints of unfinished runs")
    keep_last: bool = Field(
        True, description="keep the last checkpoint (to train on from) of a finished run"
    )


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class TrainOptions(
    DataOptions,
    ImageOptions,
    AugmentOptions,
    ModelOptions,
    OptimOptions,
    DecisionOptions,
    TrainingDeviceOptions,
    RunOptions,
):
    """`synthdetect train`: one tracked training run."""


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
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
    refit: bool = Field(False, description="train one final model on all labelled images")


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class CvOptions(TrainOptions, FoldOptions):
    """`synthdetect cv`: cross-validation, a tracked run a fold under one parent run."""


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class PredictOptions(DeviceOptions):
    """`synthdetect predict`: score images without labels, with one detector or several together."""

    section: ClassVar = "predict"

    model: Names = Field(
        (), description="detectors, separated by commas: .safetensors files, models:/ URIs, run ids"
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


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class ReportOptions(Options):
    """Make a run's report, a page that needs nothing else, and put it among the run's artifacts."""

    run_id: str = Field(description="the run")
    output: str = Field("", description="file to write the page to as well")


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
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


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class ManifestOptions(Options):
    """Write the table of a folder's images: label, split, generator, hash, size, format."""

    folder: str = Field(description="a folder in a known layout, a manifest, or 'sample'")
    output: str = Field(description="the manifest to write: .csv or .parquet")


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class ListOptions(Options):
    """Show what can be asked for by name."""

    what: Literal["architectures", "recipes", "geometries", "layouts", "metrics"] = Field(
        description="architectures, recipes, geometries, layouts or metrics"
    )


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class PromoteOptions(Options):
    """Give the alias `champion` to another version of a registered model."""

    name: str = Field(description="the registered model")
    version: str = Field(description="the version to promote")


RECIPES: dict[str, Mapping[str, Any]] = {
    # The paper's common recipe is what the defaults say.
    "baseline": {},
    # Configuration 1: narrow data (700,000 images of 20 categories, balanced), light augmentation.
    "constrained": {"arch": "resnet18", "per_category": 35_000},
    # Configuration 2: diverse data, extensive augmentation, and a part of the validation set
    # (2,000 of its 10,000 images) for fine-tuning.
    "open": {
        "arch": "resnet50",
        "geometry": "resize_crop",
        "rotation": 10.0,
        "jitter": 0.2,
        "finetune": 0.2,
    },
}
assert set(RECIPES) == set(get_args(RecipeName))
