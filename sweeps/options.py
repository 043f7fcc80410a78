"""The options of a sweep: those of the baseline's training, and those of the study."""

from typing import Annotated, ClassVar, Literal

from pydantic.dataclasses import dataclass

from sweeps.strategies import FURTHER_STRATEGIES, PAPER_STRATEGIES, STRATEGIES
from synthdetect.config.options import (
    CHECKED,
    Affects,
    Names,
    OpenShare,
    Options,
    nested,
    option,
)
from synthdetect.config.registry import each_of
from synthdetect.runs.options import RecipeOptions, ResplitOptions
from synthdetect.tracking.options import TrackingOptions


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class StudyOptions(Options):
    """How strategies are tuned and compared."""

    section: ClassVar = "sweep"

    strategies: Annotated[Names, each_of(STRATEGIES)] = option(
        (),
        "Strategies to compare, separated by commas; an empty value selects those of the paper: "
        f"{', '.join(PAPER_STRATEGIES)}. Further ones: {', '.join(FURTHER_STRATEGIES)}.",
        common=True,
    )
    trials: int = option(
        10, "Tuning trials of the baseline and of each strategy.", Affects.BUDGET, ge=1, common=True
    )
    folds: int = option(
        5, "Folds of the final fits. A side is trained once on each, for each of --seeds.", ge=1,
        le=100, common=True,
    )  # fmt: skip
    seeds: int = option(
        2,
        "How often the images of the final fits are divided into folds, each time differently and "
        "with other seeds of the trainings. A side has --folds times --seeds final fits.",
        ge=1,
        le=100,
        common=True,
    )
    smallest_effect: float = option(
        0.02,
        "Smallest change of AUC that is of interest. A strategy that is shown to change less is "
        "equivalent to the baseline.",
        gt=0,
        lt=0.5,
        value="AUC",
    )
    tuning_share: OpenShare = option(
        0.4, "Share of the labelled photographs that are used for tuning only.", value="SHARE"
    )
    tuning_folds: int = option(
        1, "Folds of a tuning trial, which trains once on each.", ge=1, le=20
    )
    target_share: OpenShare = option(
        0.25,
        "Share of the test photographs that domain adaptation may use without their labels. No "
        "side is tested on them.",
        value="SHARE",
    )
    study: str = option(
        "strategies",
        "Name of the study. The name of an existing study continues it.",
        pattern=r"^[A-Za-z0-9][\w.\-]*$",  # it names a folder and is part of queries
        value="NAME",
        common=True,
    )
    storage: str = option(
        "sqlite:///optuna.db",
        "Database of Optuna, such as sqlite:///FILE or postgresql://HOST/NAME.",
        Affects.RECORD,
        value="URL",
        common=True,
    )
    sampler: Literal["tpe", "random"] = option(
        "tpe", "Sampler of the trials' values: tpe or random."
    )
    prune: bool = option(
        True, "Stop a trial after 3, 9, 27, ... epochs if it is not in the best third so far."
    )
    timeout: float = option(
        0.0,
        "Seconds after which no new round of trials starts (0: no limit).",
        Affects.BUDGET,
        ge=0,
        value="SECONDS",
    )
    worker: bool = option(
        False,
        "Work on a study that another process leads, until nothing is left.",
        Affects.RECORD,
        common=True,
    )
    takeover: bool = option(
        False, "Lead a study whose leader ran on a machine that is gone for good.", Affects.RECORD
    )
    dry_run: bool = option(
        False,
        "Print the plan with an estimate of its time and of the changes that it can find, and do "
        "nothing else.",
        Affects.RECORD,
        common=True,
    )
    output: str = option(
        "runs", "Folder for the checkpoints of unfinished runs.", Affects.RECORD, value="FOLDER"
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SweepOptions(RecipeOptions, ResplitOptions):
    """Compare training strategies with a baseline, which the other options describe."""

    study: StudyOptions = nested(StudyOptions)
    tracking: TrackingOptions = nested(TrackingOptions)

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the strategies that are compared with the baseline."""
        return self.study.strategies or tuple(PAPER_STRATEGIES)
