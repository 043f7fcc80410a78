"""The options of the commands that make tracked runs, composed of the packages' sections."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic.dataclasses import dataclass

from synthdetect.config.options import (
    CHECKED,
    Affects,
    Names,
    Options,
    nested,
    option,
)
from synthdetect.config.registry import each_of, one_of
from synthdetect.datasets.options import (
    DATA_HELP,
    DataOptions,
    FoldOptions,
    SourceOptions,
)
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.evaluation.options import ENSEMBLES, DecisionOptions
from synthdetect.images.options import EqualiseOptions
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.robustness.options import RobustnessOptions
from synthdetect.runs.recipes import RECIPES
from synthdetect.training.options import (
    DeviceOptions,
    OptimOptions,
    TrainingDeviceOptions,
    TrainingOptions,
)

_MODEL_HELP = "One detector: a file (.safetensors, .onnx), a models:/ URI or a run id."
_OUTPUT_HELP = "Folder for the checkpoints of unfinished runs."
_SEED_HELP = "Seed of everything random."


def _registered_name(name: str) -> str:
    if name and (not name.strip() or "/" in name or ":" in name):
        raise ValueError("the name of a registered model has no / and no :, and is not blank")
    return name


RegisteredName = Annotated[str, AfterValidator(_registered_name)]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RunOptions(Options):
    """How a run is kept."""

    section: ClassVar = "run"

    register: RegisteredName = option(
        "", "Name under which the model is registered (default: not registered).", Affects.RECORD
    )
    resume: str = option("", "Id of a run to resume.", Affects.RECORD)
    output: str = option("runs", _OUTPUT_HELP, Affects.RECORD)
    keep_last: bool = option(
        True, "Keep the last checkpoint of a finished run among its artifacts.", Affects.RECORD
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RecipeOptions(TrainingOptions):
    """Everything that the results of a training depend on."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    shown_first: ClassVar[tuple[str, ...]] = ("data",)

    recipe: Annotated[str, one_of(RECIPES)] = option(
        "baseline", "Named set of differences from the defaults; see `synthdetect list recipes`."
    )
    data: DataOptions = nested(DataOptions)
    decision: DecisionOptions = nested(DecisionOptions)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ResplitOptions(Options):
    """Options of commands that split the train and val images anew."""

    not_of_recipe: ClassVar[tuple[str, ...]] = ("finetune",)

    @model_validator(mode="after")
    def _nothing_to_move(self) -> Self:
        if self.value("finetune"):
            raise ValueError(
                "--finetune: this command splits train and val images anew, so there are no "
                "validation images to move. Leave it out."
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainOptions(RecipeOptions):
    """Train one detector in one tracked run."""

    run: RunOptions = nested(RunOptions)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CvOptions(TrainOptions, ResplitOptions):
    """Cross-validate: train a detector for each fold, in child runs under one parent run."""

    folds: FoldOptions = nested(FoldOptions)

    @model_validator(mode="after")
    def _something_to_register(self) -> Self:
        # A resumed run may have a refit although it is not asked for again.
        if self.run.register and not (self.folds.refit or self.run.resume):
            raise ValueError(
                f"--register {self.run.register}: only the refit is registered; give --refit "
                "true, or leave it out."
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RegimesOptions(Options):
    """Train the paper's two regimes, or all combinations of what sets them apart.

    Every other option is the same for all trainings.
    """

    section: ClassVar = "regimes"

    source: SourceOptions = nested(SourceOptions)
    optim: OptimOptions = nested(OptimOptions)
    decision: DecisionOptions = nested(DecisionOptions)
    device: TrainingDeviceOptions = nested(TrainingDeviceOptions)
    image_size: int = option(224, "Side of the square in pixels.", ge=16, le=4096)
    weights: str = option("auto", "Initial weights of every training: auto, imagenet or none.")
    narrow: Names = option(
        (), "Generators of the narrow data (default: the one with most training images)."
    )
    narrow_per_category: int = option(
        35_000, "Most images of a category in the narrow data (0: no limit).", ge=0
    )
    supplement: str = option(
        "", "A manifest or folder that the diverse data include too.", Affects.PLACE
    )
    finetune: float = option(
        0.2, "Validation images that the open regime trains on: a number, or a share below 1.", ge=0
    )
    factorial: bool = option(
        False, "Cross architectures, data and augmentation, one difference at a time."
    )
    archs: Annotated[Names, each_of(ARCHITECTURES)] = option(
        ("resnet18", "resnet50", "vit_b_16"), "Architectures that factorial crosses."
    )
    seeds: int = option(1, "Trainings of each, with consecutive seeds from seed on.", ge=1, le=100)
    resume: str = option("", "Id of a run to resume.", Affects.RECORD)
    output: str = option("runs", _OUTPUT_HELP, Affects.RECORD)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PredictOptions(Options):
    """Score images without labels, with one detector or several."""

    section: ClassVar = "predict"

    device: DeviceOptions = nested(DeviceOptions)
    model: Names = option(
        (), "Detectors, separated by commas: files (.safetensors, .onnx), models:/ URIs or run ids."
    )
    data: str = option(
        "",
        "A folder, an archive (.zip, .tar, .tar.gz, .tgz), a manifest, or 'sample'.",
        Affects.PLACE,
    )
    output: str = option("predictions", "Folder for the results.", Affects.RECORD)
    ensemble: Annotated[str, one_of(ENSEMBLES)] = option(
        "mean_logit",
        "How the scores of several detectors are combined: mean_logit, mean_probability, median "
        "or vote.",
    )
    tta: Literal["none", "flip"] = option(
        "none", "Test-time augmentation: none, or flip (mean of an image and its mirror image)."
    )
    batch_size: int = option(64, "Images per batch.", ge=1)
    submission: Literal["", "constrained", "open"] = option(
        "", "Also write a MediaEval run file of this type: constrained or open."
    )
    team: str = option("", "Name of the team that submits.")
    edition: Literal["2025", "2026"] = option(
        "2025", "Edition of MediaEval: 2025 takes a zip file, 2026 a plain CSV."
    )
    unreadable_as: Literal["", "real", "synthetic"] = option(
        "", "Answer of a submission for images that cannot be read: real or synthetic."
    )

    @model_validator(mode="after")
    def _for_a_submission(self) -> Self:
        given = self.changed("team", "edition", "unreadable_as")
        if given and not self.submission:
            raise ValueError(f"{given}: only used with --submission; leave it out.")
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EvaluateOptions(Options):
    """Evaluate a detector on labelled images, or a table of predictions."""

    section: ClassVar = "evaluate"

    decision: DecisionOptions = nested(DecisionOptions)
    device: DeviceOptions = nested(DeviceOptions)
    perturbed: RobustnessOptions = nested(RobustnessOptions)
    model: Names = option((), _MODEL_HELP)
    data: str = option("", "Labelled images to score: as for train.", Affects.PLACE)
    predictions: str = option(
        "",
        "Evaluate this table instead: a CSV or Parquet file with path, label and a score.",
        Affects.PLACE,
    )
    columns: Names = option(
        (), "How the columns of the table map to the expected ones: label=target,logit=score."
    )
    splits: Names = option((), "Splits to evaluate (default: all but train).")
    on_bad_image: Literal["stop", "exclude"] = option(
        "stop", "What to do about unreadable images: stop, or exclude and list them."
    )
    decide: Literal["auto", "given", "val"] = option(
        "auto",
        "Threshold and calibration: given by the detector or table, or chosen on the val rows; "
        "auto uses the given ones, and for a table without a threshold val rows or 0.5.",
    )
    slices: Names = option(
        (), "Columns to slice the images by (default: known columns in which they differ)."
    )
    explain: int = option(
        12, "Worst mistakes of a detector, and as many hits, to explain by Grad-CAM.", ge=0
    )
    spectra: bool = option(True, "Whether to draw the mean spectra of a detector's images.")
    output: str = option(
        "evaluation", "Folder for the results; each run has its own folder in it.", Affects.RECORD
    )
    batch_size: int = option(64, "Images per batch.", ge=1)
    seed: int = option(42, _SEED_HELP, ge=0, lt=2**31)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ExportDataOptions(SourceOptions):
    """The images that an export is calibrated and compared on."""

    data: str = option(
        "",
        "Labelled images, as for train (default: those of the detector's own training, as its run "
        "recorded them).",
        Affects.PLACE,
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ExportOptions(Options):
    """Export a detector as one file for a faster inference engine.

    Its answers are compared with those of torch on validation images; the differences are written
    beside the file.
    """

    section: ClassVar = "export"

    source: ExportDataOptions = nested(ExportDataOptions)
    model: Names = option((), _MODEL_HELP)
    engine: Annotated[str, one_of(ENGINES)] = option(
        "openvino", "Inference engine: onnxruntime or openvino."
    )
    precision: Literal["fp32", "bf16", "int8"] = option(
        "int8", "Precision: fp32, bf16 (openvino only) or int8 (fastest)."
    )
    calibration_images: int = option(
        128, "Training images from which int8 takes its value ranges.", ge=1
    )
    parity_images: int = option(
        1000, "Most validation images on which the engine is compared with torch.", ge=2
    )
    tolerance: float = option(
        0.005, "Largest change of the AUC; nothing is exported beyond it.", ge=0, le=1
    )
    register: RegisteredName = option(
        "", "Name under which the exported model is registered.", Affects.RECORD
    )
    output: str = option("exports", "Folder for the file and the comparison.", Affects.RECORD)
    seed: int = option(42, "Seed of splits that are made and of the chosen images.", ge=0, lt=2**31)

    @model_validator(mode="after")
    def _nothing_to_split(self) -> Self:
        given = self.changed("val_share", "test_share")
        if given and not self.source.data:
            raise ValueError(f"{given}: splits --data, which is not given; leave it out.")
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AuditOptions(Options):
    """Audit data: what gives the labels away, and what is wrong with the data.

    Exit status 0: done, with or without warnings; 2: there are warnings, and --strict is given.
    """

    section: ClassVar = "audit"

    image: EqualiseOptions = nested(EqualiseOptions)
    data: str = option("sample", DATA_HELP, Affects.PLACE)
    supplement: str = option(
        "", "A further manifest or folder, all of whose images would train.", Affects.PLACE
    )
    near_duplicates: bool = option(
        True, "Also look for near-duplicate images, which opens every image."
    )
    strict: bool = option(False, "End with an error if there are warnings.")
    seed: int = option(42, _SEED_HELP, ge=0, lt=2**31)
