"""The kinds of tracked runs: one table that training, resuming and reproduction read."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RunKind:
    """A kind of run; its name is the tag `synthdetect.kind` of the run.

    Attributes:
        help: What the run is.
        parent: The kind of the run that it is inside of; empty for a run of its own.
        rerun: The function that prepares running it again, as "module:name"; empty if it cannot be
            reproduced.
        resumes: Whether `--resume` accepts it.
        figures: Whether its training draws figures.
    """

    help: str
    parent: str = ""
    rerun: str = ""
    resumes: bool = False
    figures: bool = True


_RERUN = "synthdetect.reproduction.rerun"

RUN_KINDS: Mapping[str, RunKind] = {
    "train": RunKind("One training.", rerun=f"{_RERUN}:rerun_training", resumes=True),
    "cv": RunKind(
        "A cross-validation, the parent of its folds.",
        rerun=f"{_RERUN}:rerun_cross_validation",
        resumes=True,
    ),
    "fold": RunKind("The training of one fold.", parent="cv", rerun=f"{_RERUN}:rerun_fold"),
    "refit": RunKind(
        "The training on all labelled images after a cross-validation.",
        parent="cv",
        rerun=f"{_RERUN}:rerun_refit",
    ),
    "regimes": RunKind("The paper's regimes, the parent of their trainings.", resumes=True),
    "regime": RunKind(
        "The training of one regime.", parent="regimes", rerun=f"{_RERUN}:rerun_regime"
    ),
    "evaluate": RunKind("An evaluation of a detector or of a table of predictions."),
    "predict": RunKind("Predictions for images without labels."),
    "export": RunKind("An export to an inference engine."),
    "audit": RunKind("An audit of data."),
    "reproduce": RunKind("A rerun of a recorded run."),
}
"""The kinds of this package's runs by name; extensions may add to them."""
