"""The options of the commands that make tracked runs, composed of the packages' sections."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic.dataclasses import dataclass

from synthdetect.config.options import (
    CHECKED,
    Affects,
    Names,
    Options,
    Share,
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
from synthdetect.images.options import VIEWS, EqualiseOptions, SquareOptions
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.options import BackboneOptions
from synthdetect.robustness.options import RobustnessOptions
from synthdetect.runs.recipes import FACTORS, RECIPES
from synthdetect.runs.shard import Shard
from synthdetect.tracking.options import TrackingOptions
from synthdetect.training.options import (
    DeviceOptions,
    OptimOptions,
    ProcessOptions,
    TrainingDeviceOptions,
    TrainingOptions,
)

_MODEL_HELP = (
    "One detector: a file (.safetensors, .onnx), a folder of export --to hub, a models:/ URI or a "
    "run id."
)
_OUTPUT_HELP = "Folder for the checkpoints of unfinished runs."
_VIEWS_HELP = (
    "Views of an image over which its logits are averaged, as `synthdetect list views` explains "
    "them, or card (those under which the detector's threshold was chosen)."
)
_PRIOR_HELP = (
    "Share of synthetic images expected among the images; probabilities are shifted to it from the "
    "share among the validation images (0: not shifted)."
)
_SEED_HELP = "Seed of everything random."


OWN_VIEWS = "card"
"""The name that stands for the views in a detector's card."""


def _registered_name(name: str) -> str:
    if name and (not name.strip() or "/" in name or ":" in name):
        raise ValueError("the name of a registered model has no / and no :, and is not blank")
    return name


RegisteredName = Annotated[str, AfterValidator(_registered_name)]


def _license(name: str) -> str:
    if name and not re.fullmatch(r"[a-z0-9][a-z0-9.+\-]*", name):
        raise ValueError("give an identifier of the Hugging Face Hub, such as apache-2.0 or other")
    return name


License = Annotated[str, AfterValidator(_license)]

_LICENSE_HELP = (
    "Licence of the model for its model card: an identifier of the Hugging Face Hub, such as "
    "apache-2.0 (default: none is named)."
)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RunOptions(Options):
    """How a run is kept."""

    section: ClassVar = "run"

    register: RegisteredName = option(
        "",
        "Name under which the model is registered (default: not registered).",
        Affects.RECORD,
        value="NAME",
        common=True,
    )
    license: License = option("", _LICENSE_HELP, Affects.RECORD, value="LICENSE")
    resume: str = option("", "Id of a run to resume.", Affects.RECORD, value="RUN_ID", common=True)
    output: str = option("runs", _OUTPUT_HELP, Affects.RECORD, value="FOLDER", common=True)
    keep_last: bool = option(
        True, "Keep the last checkpoint of a finished run among its artifacts.", Affects.RECORD
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RecipeOptions(TrainingOptions):
    """Everything that the results of a training depend on."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    shown_first: ClassVar[tuple[str, ...]] = ("data",)

    recipe: Annotated[str, one_of(RECIPES)] = option(
        "baseline",
        "Named set of differences from the defaults; see `synthdetect list recipes`.",
        common=True,
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
    tracking: TrackingOptions = nested(TrackingOptions)
    parallel: ProcessOptions = nested(ProcessOptions)

    @model_validator(mode="after")
    def _processes_have_parts(self) -> Self:
        processes, shards = self.parallel.processes, self.optim.shards
        if processes == 1:
            return self
        self.require_divisible(f"--processes {processes}")
        if self.device.device == "mps":
            raise ValueError(f"--processes {processes}: there is one MPS device; leave it out.")
        if (shards or processes) % processes:
            raise ValueError(
                f"--processes {processes}: does not divide --shards {shards}. Give a number that "
                "does."
            )
        if self.optim.batch_size < 2 * processes:
            raise ValueError(
                f"--processes {processes}: a batch of {self.optim.batch_size} images has fewer "
                "than two for each. Raise --batch-size."
            )
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CvOptions(TrainOptions, ResplitOptions):
    """Cross-validate: train a detector for each fold, in child runs under one parent run."""

    folds: FoldOptions = nested(FoldOptions)

    @model_validator(mode="after")
    def _in_one_process(self) -> Self:
        if self.parallel.processes > 1:
            raise ValueError(
                f"--processes {self.parallel.processes}: folds are trained one after another in "
                "one process; leave it out. --shards divides their batches."
            )
        return self

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
    """Train the paper's two regimes, or cross the factors that set them apart.

    Every other option is the same for all trainings.
    """

    section: ClassVar = "regimes"

    source: SourceOptions = nested(SourceOptions)
    optim: OptimOptions = nested(OptimOptions)
    decision: DecisionOptions = nested(DecisionOptions)
    device: TrainingDeviceOptions = nested(TrainingDeviceOptions)
    tracking: TrackingOptions = nested(TrackingOptions)
    image_size: int = option(
        224, "Side of the square in pixels.", ge=16, le=4096, value="PIXELS", common=True
    )
    weights: str = option(
        "auto_v1",
        "Initial weights of every training: auto_v1, imagenet_v1, auto, imagenet or none, as for "
        "train. Those in _v1 are of one training recipe for all ResNets.",
        value="NAME|FILE",
        common=True,
    )
    narrow: Names = option(
        (),
        "Generators of the narrow data (default: the one with most training images).",
        value="GENERATOR,...",
    )
    narrow_categories: Names = option(
        (),
        "Categories of the narrow data (default: the more frequent half of those there are).",
        value="CATEGORY,...",
    )
    narrow_per_category: int = option(
        35_000, "Most images of a category in the narrow data (0: no limit).", ge=0, value="IMAGES"
    )
    supplement: str = option(
        "", "A manifest or folder that the diverse data include too.", Affects.PLACE, value="PATH"
    )
    finetune: float = option(
        0.2,
        "Validation images that the open regime trains on, and that validate neither regime: a "
        "number, or a share below 1.",
        ge=0,
        value="IMAGES|SHARE",
    )
    refit: bool = option(
        True,
        "Whether the regimes that are tested are trained again on all labelled images, once "
        "epochs, calibration and threshold are chosen by validation, as in the paper.",
    )
    factorial: bool = option(
        False,
        "Cross the factors, and estimate the effect of each difference by itself.",
        common=True,
    )
    factors: Annotated[Names, each_of(FACTORS)] = option(
        tuple(FACTORS),
        "Factors that factorial crosses: architecture, data, augmentation and geometry. The others "
        "stay at the first of --archs, the diverse data, light augmentation and resize.",
    )
    archs: Annotated[Names, each_of(ARCHITECTURES)] = option(
        ("resnet18", "resnet50", "vit_b_16"), "Architectures that factorial crosses.", common=True
    )
    seeds: int = option(
        1,
        "Trainings of each, whose seeds are derived from seed and are those of all.",
        ge=1,
        le=100,
        common=True,
    )
    resume: str = option("", "Id of a run to resume.", Affects.RECORD, value="RUN_ID", common=True)
    output: str = option("runs", _OUTPUT_HELP, Affects.RECORD, value="FOLDER", common=True)

    @model_validator(mode="after")
    def _all_are_read(self) -> Self:
        unread, remedy = self.changed("factors", "archs"), "only used with --factorial true"
        if self.factorial:
            unread, remedy = self.changed("finetune", "refit"), "not used with --factorial true"
        if unread:
            raise ValueError(f"{unread}: {remedy}; leave it out.")
        if not self.factorial:
            return self
        for name in ("factors", "archs"):
            if not self.value(name):
                raise ValueError(f"--{name}: name at least one.")
        if self.factors == ("architecture",) and len(self.archs) < 2:
            raise ValueError(
                "--factors: nothing is crossed; give a further factor, or several --archs."
            )
        unread = self.changed("narrow", "narrow_categories", "narrow_per_category")
        if "data" not in self.factors and unread:
            raise ValueError(
                f"{unread}: only used if data are among --factors; leave it out, or add data."
            )
        if "architecture" not in self.factors and len(self.archs) > 1 and self.changed("archs"):
            raise ValueError(
                "--archs: give one, or add architecture to --factors, which crosses several."
            )
        return self


def _shard(text: str) -> str:
    return str(Shard.parse(text)) if text else text


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PredictOptions(Options):
    """Score images without labels, with one detector or several."""

    section: ClassVar = "predict"

    device: DeviceOptions = nested(DeviceOptions)
    tracking: TrackingOptions = nested(TrackingOptions)
    model: Names = option(
        (),
        "Detectors, separated by commas: files (.safetensors, .onnx), models:/ URIs or run ids.",
        value="MODEL,...",
        common=True,
    )
    data: str = option(
        "",
        "A folder, an archive (.zip, .tar, .tar.gz, .tgz), a manifest, or 'sample'.",
        Affects.PLACE,
        value="PATH",
        common=True,
    )
    output: str = option(
        "predictions", "Folder for the results.", Affects.RECORD, value="FOLDER", common=True
    )
    ensemble: Annotated[str, one_of(ENSEMBLES)] = option(
        "mean_logit",
        "How the scores of several detectors are combined: mean_logit, mean_probability, median "
        "or vote.",
        common=True,
    )
    views: Annotated[str, one_of(OWN_VIEWS, VIEWS)] = option(OWN_VIEWS, _VIEWS_HELP)
    frames: int = option(
        16,
        "Frames of a video that are scored, evenly spaced over its length.",
        ge=1,
        le=1000,
        value="FRAMES",
        common=True,
    )
    metadata: bool = option(
        True,
        "Whether columns say what the metadata of each file say about its origin. Scores and "
        "labels do not depend on it.",
        Affects.RECORD,
    )
    threshold: float = option(
        -1.0,
        "Probability from which on every detector answers synthetic (negative: each one's own).",
        ge=-1,
        le=1,
        value="PROBABILITY",
        common=True,
    )
    prior: float = option(0.0, _PRIOR_HELP, ge=0, lt=1, value="SHARE")
    batch_size: int = option(64, "Images per batch.", ge=1, value="IMAGES")
    shard: Annotated[str, AfterValidator(_shard)] = option(
        "",
        "Score one part of the images only: 3/16 is the third of sixteen. `synthdetect "
        "merge-predictions` puts the parts together.",
        value="PART/PARTS",
        common=True,
    )
    engine: Literal["local", "ray"] = option(
        "local",
        "What computes: local (this process), or ray (actors of Ray on CPU cores, --workers of "
        "them).",
        Affects.SPEED,
        common=True,
    )
    submission: Literal["", "constrained", "open"] = option(
        "", "Also write a MediaEval run file of this type: constrained or open.", common=True
    )
    team: str = option("", "Name of the team that submits.", value="NAME", common=True)
    edition: Literal["2025", "2026"] = option(
        "2025", "Edition of MediaEval: 2025 takes a zip file, 2026 a plain CSV.", common=True
    )
    unreadable_as: Literal["", "real", "synthetic"] = option(
        "", "Answer of a submission for images that cannot be read: real or synthetic."
    )

    @model_validator(mode="after")
    def _for_a_submission(self) -> Self:
        given = self.changed("team", "edition", "unreadable_as")
        if given and not self.submission:
            raise ValueError(f"{given}: only used with --submission; leave it out.")
        if self.shard and self.submission:
            raise ValueError("--submission: has an answer for every image; leave out --shard.")
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class MergeOptions(Options):
    """Merge the parts that predict --shard has written, if they are all of one prediction.

    Exit status 0: every image is in the result exactly once; 2: something is missing or differs.
    """

    files: Names = option(
        (),
        "The parts: folders that predict has written, or the files predictions.parquet in them.",
        value="PART",
    )
    data: str = option(
        "", "The images that were predicted, as for predict.", Affects.PLACE, value="PATH"
    )
    output: str = option("predictions", "Folder for the results.", Affects.RECORD, value="FOLDER")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class EvaluateOptions(Options):
    """Evaluate a detector on labelled images, or a table of predictions."""

    section: ClassVar = "evaluate"

    decision: DecisionOptions = nested(DecisionOptions)
    device: DeviceOptions = nested(DeviceOptions)
    perturbed: RobustnessOptions = nested(RobustnessOptions)
    tracking: TrackingOptions = nested(TrackingOptions)
    model: Names = option((), _MODEL_HELP, value="MODEL", common=True)
    data: str = option(
        "", "Labelled images to score: as for train.", Affects.PLACE, value="PATH", common=True
    )
    predictions: str = option(
        "",
        "Evaluate this table instead: a CSV or Parquet file with path, label and a score.",
        Affects.PLACE,
        value="FILE",
        common=True,
    )
    columns: Names = option(
        (),
        "How the columns of the table map to the expected ones: label=target,logit=score.",
        value="COLUMN=NAME,...",
        common=True,
    )
    splits: Names = option(
        (), "Splits to evaluate (default: all but train).", value="SPLIT,...", common=True
    )
    on_bad_image: Literal["stop", "exclude"] = option(
        "stop", "What to do about unreadable images: stop, or exclude and list them."
    )
    decide: Literal["auto", "given", "val"] = option(
        "auto",
        "Threshold and calibration: given by the detector or table, or chosen on the val rows; "
        "auto uses the given ones, and for a table without a threshold val rows or 0.5.",
        common=True,
    )
    views: Annotated[str, one_of(OWN_VIEWS, VIEWS)] = option(OWN_VIEWS, _VIEWS_HELP)
    prior: float = option(0.0, _PRIOR_HELP, ge=0, lt=1, value="SHARE")
    log_model: bool = option(
        False,
        "Log the detector with its views and the decision that --decide val makes as a new model.",
    )
    slices: Names = option(
        (),
        "Columns to slice the images by (default: known columns in which they differ).",
        value="COLUMN,...",
    )
    real_by: str = option(
        "",
        "Column that divides the real images into groups, each of which every generator is set "
        "against (default: the first of platform, category and format in which they differ).",
        value="COLUMN",
    )
    explain: int = option(
        12,
        "Worst mistakes of a detector, and as many hits, to explain by Grad-CAM.",
        ge=0,
        value="IMAGES",
    )
    spectra: bool = option(True, "Whether to draw the mean spectra of a detector's images.")
    output: str = option(
        "evaluation",
        "Folder for the results; each run has its own folder in it.",
        Affects.RECORD,
        value="FOLDER",
        common=True,
    )
    batch_size: int = option(64, "Images per batch.", ge=1, value="IMAGES")
    seed: int = option(42, _SEED_HELP, ge=0, lt=2**31)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ExportDataOptions(SourceOptions):
    """The images that an export is calibrated and compared on."""

    data: str = option(
        "",
        "Labelled images, as for train (default: those of the detector's own training, as its run "
        "recorded them).",
        Affects.PLACE,
        value="PATH",
        common=True,
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ExportOptions(Options):
    """Export a detector as one file for a faster inference engine, or as a folder for the Hub.

    The answers of an engine are compared with those of torch on validation images; the differences
    are written beside the file. The folder is in the form of the Hugging Face Hub, with a model
    card; commands read it as a model.
    """

    section: ClassVar = "export"

    source: ExportDataOptions = nested(ExportDataOptions)
    tracking: TrackingOptions = nested(TrackingOptions)
    model: Names = option((), _MODEL_HELP, value="MODEL", common=True)
    to: Literal["engine", "hub"] = option(
        "engine",
        "What to export to: engine, or hub (a folder for the Hugging Face Hub).",
        common=True,
    )
    license: License = option("", _LICENSE_HELP, Affects.RECORD, value="LICENSE")
    engine: Annotated[str, one_of(ENGINES)] = option(
        "openvino", "Inference engine: onnxruntime or openvino.", common=True
    )
    precision: Literal["fp32", "bf16", "int8"] = option(
        "int8", "Precision: fp32, bf16 (openvino only) or int8 (fastest).", common=True
    )
    calibration_images: int = option(
        128, "Training images from which int8 takes its value ranges.", ge=1, value="IMAGES"
    )
    parity_images: int = option(
        1000,
        "Most validation images on which the engine is compared with torch.",
        ge=2,
        value="IMAGES",
    )
    max_auc_change: float = option(
        0.005, "Largest change of the AUC; nothing is exported beyond this limit or the next.",
        ge=0, le=1, value="AUC",
    )  # fmt: skip
    max_label_changes: Share = option(
        0.05,
        "Largest share of images whose label changes at the detector's threshold.",
        value="SHARE",
    )
    max_logit_shift: float = option(
        0.1,
        "Largest mean change of the calibrated logit, as an absolute value.",
        ge=0,
        value="LOGITS",
    )
    max_logit_change: float = option(
        0.5,
        "Largest 95th percentile of the absolute change of the calibrated logit.",
        ge=0,
        value="LOGITS",
    )
    decide: Literal["auto", "given"] = option(
        "auto",
        "Threshold and calibration of a bf16 or int8 export: given by the detector, or with auto "
        "chosen by the engine's scores of the validation images that they were chosen on, if those "
        "are all in the data.",
    )
    register: RegisteredName = option(
        "",
        "Name under which the exported model is registered.",
        Affects.RECORD,
        value="NAME",
        common=True,
    )
    output: str = option(
        "exports",
        "Folder for the file and the comparison.",
        Affects.RECORD,
        value="FOLDER",
        common=True,
    )
    seed: int = option(42, "Seed of splits that are made and of the chosen images.", ge=0, lt=2**31)

    @model_validator(mode="after")
    def _of_one_form(self) -> Self:
        if self.to == "hub":
            for_both = {"to", "license", "model", "output", "experiment", "run_name"}
            given = self.changed(*(name for name in self.fields() if name not in for_both))
            if given:
                raise ValueError(f"{given}: not used with --to hub; leave it out.")
        elif self.license:
            raise ValueError("--license: only used with --to hub; leave it out.")
        return self

    @model_validator(mode="after")
    def _nothing_to_split(self) -> Self:
        given = self.changed("val_share", "test_share")
        if given and not self.source.data:
            raise ValueError(f"{given}: splits --data, which is not given; leave it out.")
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FeaturesOptions(Options):
    """Compute the features of images that a network makes, and cache them for probes."""

    section: ClassVar = "features"

    image: SquareOptions = nested(SquareOptions)
    model: BackboneOptions = nested(BackboneOptions)
    device: DeviceOptions = nested(DeviceOptions)
    tracking: TrackingOptions = nested(TrackingOptions)
    data: str = option("sample", DATA_HELP, Affects.PLACE, value="PATH", common=True)
    on_bad_image: Literal["stop", "exclude"] = option(
        "stop", "What to do about unreadable images: stop, or exclude and list them."
    )
    output: str = option(
        "",
        "A file (.safetensors) for the features; the manifest is written beside it as .csv "
        "(default: they are cached only).",
        Affects.RECORD,
        value="FILE",
        common=True,
    )
    seed: int = option(42, "Seed of random weights.", ge=0, lt=2**31)

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        if self.output and not self.output.endswith(".safetensors"):
            raise ValueError(f"--output {self.output}: give a name that ends in .safetensors.")
        return self


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AuditOptions(Options):
    """Audit data: what gives the labels away, and what is wrong with the data.

    Exit status 0: done, with or without warnings; 2: there are warnings, and --strict is given.
    """

    section: ClassVar = "audit"

    image: EqualiseOptions = nested(EqualiseOptions)
    tracking: TrackingOptions = nested(TrackingOptions)
    data: str = option("sample", DATA_HELP, Affects.PLACE, value="PATH")
    supplement: str = option(
        "",
        "A further manifest or folder, all of whose images would train.",
        Affects.PLACE,
        value="PATH",
    )
    near_duplicates: bool = option(
        True, "Also look for near-duplicate images, which opens every image."
    )
    strict: bool = option(False, "End with an error if there are warnings.")
    seed: int = option(42, _SEED_HELP, ge=0, lt=2**31)
