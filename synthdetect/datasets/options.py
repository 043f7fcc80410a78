"""The options of data: where the images are, which of them train, and how folds are assigned."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator
from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Affects, Names, OpenShare, Options, option

DATA_HELP = (
    "'sample', a manifest (CSV, Parquet), a folder in a known layout, or shards, also s3://."
)


def _both_classes_fit(images: int) -> int:
    if images == 1:
        raise ValueError("give 0 (no limit), or at least 2: one real and one synthetic image")
    return images


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SourceOptions(Options):
    """Where the images come from, and how missing splits are made."""

    section: ClassVar = "data"

    data: str = option("sample", DATA_HELP, Affects.PLACE, value="PATH", common=True)
    on_bad_image: Literal["stop", "exclude"] = option(
        "stop", "What to do about unreadable images: stop, or exclude and list them."
    )
    val_share: OpenShare = option(
        0.15,
        "Share of the images that validate, where the data have no val split or cv holds a "
        "generator out.",
        value="SHARE",
    )
    test_share: OpenShare = option(
        0.15, "Share of the images that test, where the data have no splits.", value="SHARE"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DataOptions(SourceOptions):
    """Which images train."""

    section: ClassVar = "data"

    generators: Names = option(
        (), "Train on these generators only (default: all).", value="GENERATOR,..."
    )
    categories: Names = option(
        (), "Train on these categories only (default: all).", value="CATEGORY,..."
    )
    per_category: Annotated[int, AfterValidator(_both_classes_fit)] = option(
        0,
        "Most training images of a category, half of them synthetic (0: no limit).",
        ge=0,
        value="IMAGES",
    )
    max_images: int = option(0, "Most training images (0: no limit).", ge=0, value="IMAGES")
    supplement: str = option(
        "", "A further manifest or folder, all of whose images train.", Affects.PLACE, value="PATH"
    )
    finetune: float = option(
        0.0,
        "Validation images moved to training: a number, or a share below 1.",
        ge=0,
        value="IMAGES|SHARE",
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class FoldOptions(Options):
    """How images are assigned to folds."""

    section: ClassVar = "cv"

    folds: int = option(5, "Number of folds.", ge=2, le=100, common=True)
    group_by: Literal["source", "generator"] = option(
        "source",
        "source: k folds of photographs; generator: hold one generator out in each fold.",
        common=True,
    )
    stratify: Literal["label", "category"] = option(
        "label", "What is spread evenly over the folds: labels, or labels and categories."
    )
    folds_from: str = option(
        "",
        "Reuse the folds of this cross-validation: its run id, or a folds.csv.",
        value="RUN_ID|FILE",
    )
    refit: bool = option(False, "Train one final model on train and val together.", common=True)

    @model_validator(mode="after")
    def _either_assigned_or_reused(self) -> Self:
        given = self.changed("folds", "group_by", "stratify")
        if self.folds_from and given:
            raise ValueError(
                f"{given}: the folds are those of --folds-from {self.folds_from}; leave it out."
            )
        return self
