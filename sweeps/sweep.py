"""A sweep: its setting, the Optuna studies of its trials, and its parent run."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps import tuning
from sweeps.setting import Setting
from synthdetect.tracking.run import Run


@dataclass(frozen=True)
class Sweep(Setting):
    """A setting with the stores of its trials and runs.

    Attributes:
        storage: Optuna's storage of the studies.
        parent: Run that all other runs of the sweep are children of.
    """

    storage: RDBStorage
    parent: Run | None = None

    def study(self, side: str) -> optuna.Study:
        """Open the study that tunes one side."""
        options = self.options
        return tuning.open_study(
            self.storage, f"{options.study.study}/{side}", sampler=options.study.sampler,
            seed=options.optim.seed, prune=options.study.prune,
        )  # fmt: skip

    def final_fits(self) -> optuna.Study:
        """Open the study whose trials are the final fits of all sides."""
        return tuning.open_study(self.storage, f"{self.options.study.study}/finals")

    def tuning_trials(self, side: str) -> list[FrozenTrial]:
        """Return the first ended trials of one side, and no more than every side has."""
        count = min(len(tuning.settled(self.study(name))) for name in self.sides)
        return tuning.settled(self.study(side))[:count]

    def best_values(self, side: str) -> dict[str, Any] | None:
        """Return the values of the side's first best trial; None if no trial was completed."""
        trials = [t for t in self.tuning_trials(side) if t.state == TrialState.COMPLETE]
        if not trials:
            return None
        return dict(max(trials, key=lambda trial: trial.value or 0.0).params)
