"""The kinds of tracked runs: one table that training and reproduction read."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RunKind:
    """A kind of run; its name is the tag `synthdetect.kind` of the run.

    Attributes:
        rerun: The function that prepares running it again, as "module:name"; empty if it cannot be
            reproduced.
        figures: Whether its training draws figures.
    """

    rerun: str = ""
    figures: bool = True


_RERUN = "synthdetect.reproduction.rerun"

RUN_KINDS: Mapping[str, RunKind] = {
    "train": RunKind(rerun=f"{_RERUN}:rerun_training"),
    # A cross-validation is the parent of its folds and of the refit on all labelled images.
    "cv": RunKind(rerun=f"{_RERUN}:rerun_cross_validation"),
    "fold": RunKind(rerun=f"{_RERUN}:rerun_fold"),
    "refit": RunKind(rerun=f"{_RERUN}:rerun_refit"),
    # The paper's regimes are the parent of the training of each regime and of its refit.
    "regimes": RunKind(),
    "regime": RunKind(rerun=f"{_RERUN}:rerun_regime"),
    "regime_refit": RunKind(rerun=f"{_RERUN}:rerun_regime"),
    "evaluate": RunKind(),
    "predict": RunKind(),
    "export": RunKind(),
    "audit": RunKind(),
    "features": RunKind(),
    "reproduce": RunKind(),
    "compare": RunKind(),
    "promote": RunKind(),
}
"""The kinds of this package's runs by name; extensions may add to them."""
