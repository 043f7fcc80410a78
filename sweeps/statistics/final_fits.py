"""The final fits of each side of a comparison: the only input of the statistics."""

from dataclasses import dataclass

import pandas as pd

FitKey = tuple[int, int]
"""Fold and seed of a final fit, by which the fits of two sides are paired."""


@dataclass(frozen=True)
class FinalFit:
    """One final fit, with its scores of the test split, which tuning never used.

    Attributes:
        fold: Fold of the data that it was validated on.
        seed: Seed of its weights and of the order of its data.
        seen: Predictions table of the test's real images and of the images of generators that were
            in training, with calibrated logits (`logit`) and uncalibrated ones (`raw_logit`).
        unseen: The same for the real images and the generators that were not in training.
        control: The same for the real images of the test (label 0) and the controls (label 1).
            These are real too, so an AUC above 0.5 is a bias against them. Without controls it
            has the former alone.
        threshold: Threshold of the probability, chosen on validation.
        train_auc: AUC on the training images at the chosen epoch.
        val_auc: AUC on the validation images at the chosen epoch.
        seconds_per_image: Training time per image.
        peak_mib: Peak of the memory in use, in MiB; nan if it is not known.
    """

    fold: int
    seed: int
    seen: pd.DataFrame
    unseen: pd.DataFrame
    control: pd.DataFrame
    threshold: float
    train_auc: float
    val_auc: float
    seconds_per_image: float
    peak_mib: float

    @property
    def key(self) -> FitKey:
        """Fold and seed."""
        return self.fold, self.seed


@dataclass(frozen=True)
class Side:
    """The baseline or a strategy, after tuning and its final fits.

    Attributes:
        name: Name of the side.
        fits: Final fits that were completed.
        lost: Fold and seed of the final fits that diverged or failed.
        trials: Number of tuning trials.
        failed_trials: Number of these that diverged or failed.

    Raises:
        ValueError: If two final fits have the same fold and seed, or if more trials failed than
            were made.
    """

    name: str
    fits: tuple[FinalFit, ...]
    lost: tuple[FitKey, ...] = ()
    trials: int = 0
    failed_trials: int = 0

    def __post_init__(self) -> None:
        keys = self.keys
        if len(set(keys)) != len(keys):
            raise ValueError(f"{self.name}: a fold and seed occurs twice among {sorted(keys)}")
        if not 0 <= self.failed_trials <= self.trials:
            raise ValueError(f"{self.name}: {self.failed_trials} of {self.trials} trials failed")

    @property
    def keys(self) -> list[FitKey]:
        """Fold and seed of every final fit that was started."""
        return [*(fit.key for fit in self.fits), *self.lost]
