"""What the final trainings of one side of a comparison gave: the statistics' only input."""

from dataclasses import dataclass

import pandas as pd

Place = tuple[int, int]
"""Fold and seed of a training."""


@dataclass(frozen=True)
class FinalFit:
    """One final training, and what it says of the test that tuning never saw.

    Attributes:
        fold: which part of the data it was validated on.
        seed: of its weights and of the order of its data.
        seen: predictions table of the test's real images and of those of the generators that were
            in training, with logits calibrated (`logit`) and not (`raw_logit`).
        unseen: the same real images, and those of the generators held out from training.
        threshold: of the probability, from validation.
        train_auc: of the chosen epoch.
        val_auc: of the chosen epoch.
        seconds_per_image: of training.
        peak_mib: most memory in use, in MiB; nan where it cannot be known.
    """

    fold: int
    seed: int
    seen: pd.DataFrame
    unseen: pd.DataFrame
    threshold: float
    train_auc: float
    val_auc: float
    seconds_per_image: float
    peak_mib: float

    @property
    def place(self) -> Place:
        """Its fold and seed, by which it is paired."""
        return self.fold, self.seed


@dataclass(frozen=True)
class Side:
    """The baseline or a strategy, tuned and then trained on several folds and seeds.

    Attributes:
        name: of the strategy.
        trainings: the final ones that came to their end.
        lost: fold and seed of those that diverged or failed.
        trials: made in tuning.
        failed_trials: of these, the ones that diverged or failed.
    """

    name: str
    trainings: tuple[FinalFit, ...]
    lost: tuple[Place, ...] = ()
    trials: int = 0
    failed_trials: int = 0

    def __post_init__(self) -> None:
        places = self.places
        if len(set(places)) != len(places):
            raise ValueError(f"{self.name}: a fold and seed occurs twice among {sorted(places)}")
        if not 0 <= self.failed_trials <= self.trials:
            raise ValueError(f"{self.name}: {self.failed_trials} of {self.trials} trials failed")

    @property
    def places(self) -> list[Place]:
        """Fold and seed of every final training that was begun."""
        return [*(training.place for training in self.trainings), *self.lost]
