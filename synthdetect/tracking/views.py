"""Saved views of MLflow's UI: which runs of an experiment a link shows, sorted by what, and how.

MLflow 3.17 keeps a view in a tag of the experiment, and lists it in the menu "Views". The format is
that of its browser code: JSON with a name, two times in milliseconds, and the state as JSON text.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mlflow.tracking import MlflowClient

from synthdetect.tracking.tags import KIND, PARENT

ALL = "synthdetect"
"""Key of the view of all runs of an experiment."""

_TAG = "mlflow.sharedViewState."
_NEWEST = "attributes.start_time"
RESULTS = (
    "metrics.auc", "metrics.auc_low", "metrics.auc_high", "metrics.worst_generator_auc",
    "metrics.balanced_accuracy", "metrics.ece",
)  # fmt: skip
"""Columns of the main results, which are metrics without a group; see `evaluation.summary`."""


@dataclass(frozen=True)
class View:
    """A table of runs.

    Attributes:
        columns: Its columns as `metrics.NAME`, `params.NAME` or `tags.NAME`.
        order_by: The column by which it is sorted, the highest first.
    """

    columns: Sequence[str] = RESULTS
    order_by: str = "metrics.auc"


def save_view_of_all(client: MlflowClient, experiment_id: str) -> None:
    """Save the view of an experiment's runs, newest first, unless it is there."""
    if _TAG + ALL not in client.get_experiment(experiment_id).tags:
        view = View((f"tags.{KIND}", *RESULTS, "params.model.arch"), _NEWEST)
        _save(client, experiment_id, ALL, "synthdetect", "", view)


def save_view_of_children(
    client: MlflowClient, experiment_id: str, run_id: str, name: str, view: View
) -> None:
    """Save the view of the child runs of a run; its key is the id of the run."""
    _save(client, experiment_id, run_id, name, f"tags.`{PARENT}` = '{run_id}'", view)


def _save(
    client: MlflowClient, experiment_id: str, key: str, name: str, where: str, view: View
) -> None:
    state = {
        "searchFilter": where,
        "orderByKey": _quoted(view.order_by),
        "orderByAsc": False,
        "selectedColumns": [_quoted(column) for column in view.columns],
    }
    now = int(time.time() * 1000)
    saved = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    client.set_experiment_tag(experiment_id, _TAG + key, json.dumps(saved))


def _quoted(column: str) -> str:
    """Return a column's name as the UI spells it."""
    kind, _, name = column.partition(".")
    return column if column == _NEWEST else f"{kind}.`{name}`"
