"""The options of where a run is kept and what it is called."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Affects, Options, option

PORT = 5000
"""The port at which `synthdetect ui` shows a store that is not a server."""

BY_KIND = "kind"
"""The value of `--experiment` that gives each kind of work an experiment of its own."""


def _experiment(name: str) -> str:
    if name and not name.strip():
        raise ValueError("the name of an experiment is not blank")
    return name


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrackingOptions(Options):
    """Where a run is kept in MLflow, and its name."""

    section: ClassVar = "tracking"

    experiment: Annotated[str, AfterValidator(_experiment)] = option(
        "",
        "MLflow experiment of the run: a name, or kind for one of each kind of work, such as "
        "'synthdetect train' (default: that of MLFLOW_EXPERIMENT_NAME or of mlflow run).",
        Affects.RECORD,
    )
    run_name: str = option(
        "", "Name of the run (default: what it is, such as 'resnet18 constrained').", Affects.RECORD
    )
