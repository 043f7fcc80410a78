"""The options of a sweep: those of the baseline's training, and those of the study."""

from typing import Annotated, ClassVar, Literal

from pydantic.dataclasses import dataclass

from sweeps.strategies import STRATEGIES
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


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class StudyOptions(Options):
    """How strategies are tuned and compared."""

    section: ClassVar = "sweep"

    strategies: Annotated[Names, each_of(STRATEGIES)] = option(
        (),
        "Strategies to compare, separated by commas; an empty value selects all: "
        f"{', '.join(STRATEGIES)}.",
    )
    trials: int = option(
        10, "Tuning trials of the baseline and of each strategy.", Affects.BUDGET, ge=1
    )
    folds: int = option(5, "Folds of the final fits. A side is trained once on each.", ge=1, le=100)
    seeds: int = option(1, "Final fits of a side on each fold.", ge=1, le=100)
    tuning_share: OpenShare = option(
        0.4, "Share of the labelled photographs that are used for tuning only."
    )
    tuning_folds: int = option(
        1, "Folds of a tuning trial, which trains once on each.", ge=1, le=20
    )
    target_share: OpenShare = option(
        0.25,
        "Share of the test photographs that domain adaptation may use without their labels. No "
        "side is tested on them.",
    )
    study: str = option(
        "strategies",
        "Name of the study. The name of an existing study continues it.",
        pattern=r"^[A-Za-z0-9][\w.\-]*$",  # it names a folder and is part of queries
    )
    storage: str = option(
        "sqlite:///optuna.db",
        "Database of Optuna, such as sqlite:///FILE or postgresql://HOST/NAME.",
        Affects.RECORD,
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
    )
    worker: bool = option(
        False, "Work on a study that another process leads, until nothing is left.", Affects.RECORD
    )
    takeover: bool = option(
        False, "Lead a study whose leader ran on a machine that is gone for good.", Affects.RECORD
    )
    dry_run: bool = option(
        False, "Print the plan with an estimate of its time, and do nothing else.", Affects.RECORD
    )
    output: str = option("runs", "Folder for the checkpoints of unfinished runs.", Affects.RECORD)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SweepOptions(RecipeOptions, ResplitOptions):
    """Compare training strategies with a baseline, which the other options describe."""

    study: StudyOptions = nested(StudyOptions)

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the strategies that are compared with the baseline."""
        return self.study.strategies or tuple(STRATEGIES)
