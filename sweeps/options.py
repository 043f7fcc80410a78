"""The options of a sweep: those of the baseline's training, and those of the study."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from sweeps.strategies import STRATEGIES
from synthdetect.config import CHECKED, DealtOptions, Names, Options, RecipeOptions


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class StudyOptions(Options):
    """How strategies are tuned and compared."""

    section: ClassVar = "sweep"

    strategies: Names = Field(
        (),
        description="Strategies to compare, separated by commas; an empty value selects all: "
        f"{', '.join(STRATEGIES)}.",
    )
    trials: int = Field(10, ge=1, description="Tuning trials of the baseline and of each strategy.")
    folds: int = Field(
        5, ge=1, le=100, description="Folds of the final fits. A side is trained once on each."
    )
    seeds: int = Field(1, ge=1, le=100, description="Final fits of a side on each fold.")
    tuning_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.4, description="Share of the labelled photographs that are used for tuning only."
    )
    tuning_folds: int = Field(
        1, ge=1, le=20, description="Folds of a tuning trial, which trains once on each."
    )
    target_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25,
        description="Share of the test photographs that domain adaptation may use without their "
        "labels. No side is tested on them.",
    )
    study: str = Field(
        "strategies",
        pattern=r"^[A-Za-z0-9][\w.\-]*$",  # it names a folder and is part of queries
        description="Name of the study. The name of an existing study continues it.",
    )
    storage: str = Field(
        "sqlite:///optuna.db",
        description="Database of Optuna, such as sqlite:///FILE or postgresql://HOST/NAME.",
    )
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="Sampler of the trials' values: tpe or random."
    )
    prune: bool = Field(
        True,
        description="Stop a trial after 3, 9, 27, ... epochs if it is not in the best third so "
        "far.",
    )
    timeout: float = Field(
        0.0, ge=0, description="Seconds after which no new round of trials starts (0: no limit)."
    )
    worker: bool = Field(
        False, description="Work on a study that another process leads, until nothing is left."
    )
    takeover: bool = Field(
        False, description="Lead a study whose leader ran on a machine that is gone for good."
    )
    dry_run: bool = Field(
        False, description="Print the plan with an estimate of its time, and do nothing else."
    )
    output: str = Field("runs", description="Folder for the checkpoints of unfinished runs.")

    @field_validator("strategies")
    @classmethod
    def _check_strategies(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in STRATEGIES]
        if unknown or len(set(names)) < len(names):
            raise ValueError(f"name each strategy once; known are: {', '.join(STRATEGIES)}")
        return names


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SweepOptions(RecipeOptions, StudyOptions, DealtOptions):
    """Compare training strategies with a baseline, which the other options describe."""

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the strategies that are compared with the baseline."""
        return self.strategies or tuple(STRATEGIES)
