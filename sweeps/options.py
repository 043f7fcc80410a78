"""The options of a sweep: those of its baseline's training, and those of the study."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from sweeps.strategies import STRATEGIES
from synthdetect.config.options import CHECKED, Names, Options
from synthdetect.runs.options import RecipeOptions, ResplitOptions


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class StudyOptions(Options):
    """How strategies are tuned and compared."""

    section: ClassVar = "sweep"

    strategies: Names = Field(
        (), description=f"separated by commas (default: all): {', '.join(STRATEGIES)}"
    )
    trials: int = Field(10, ge=1, description="of tuning, for the baseline and for each strategy")
    folds: int = Field(5, ge=1, le=100, description="final trainings a side, each on other folds")
    seeds: int = Field(1, ge=1, le=100, description="of each final training")
    tuning_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.4, description="share of the labelled photographs that only tuning sees"
    )
    tuning_folds: int = Field(1, ge=1, le=20, description="trainings a trial, each on other folds")
    target_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25,
        description="share of the test's photographs that adaptation may see without labels; no "
        "side is tested on them",
    )
    study: str = Field(
        "strategies",
        pattern=r"^[A-Za-z0-9][\w.\-]*$",  # a folder's name, and part of queries
        description="its name; the same name goes on with it",
    )
    storage: str = Field(
        "sqlite:///optuna.db", description="Optuna's database: sqlite:///FILE, postgresql://..."
    )
    sampler: Literal["tpe", "random"] = Field("tpe", description="how trials choose: tpe or random")
    prune: bool = Field(
        True,
        description="stop trials after 3, 9, 27, ... epochs that are not in the best third so far",
    )
    timeout: float = Field(
        0.0, ge=0, description="seconds after which no further round of trials begins (0: none)"
    )
    worker: bool = Field(
        False, description="help a study that another process leads, until nothing is left to do"
    )
    takeover: bool = Field(
        False, description="lead a study whose leader's machine is gone, and will not come back"
    )
    dry_run: bool = Field(False, description="only print the plan and an estimate of the time")
    output: str = Field("runs", description="folder for checkpoints of unfinished runs")

    @field_validator("strategies")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in STRATEGIES]
        if unknown or len(set(names)) < len(names):
            raise ValueError(f"give each once, of: {', '.join(STRATEGIES)}")
        return names


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class SweepOptions(RecipeOptions, StudyOptions, ResplitOptions):
    """Compare training strategies with a baseline, which the other options describe."""

    @property
    def sides(self) -> tuple[str, ...]:
        """The strategies that are compared."""
        return self.strategies or tuple(STRATEGIES)
