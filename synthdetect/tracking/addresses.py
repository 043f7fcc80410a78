"""Addresses of pages in MLflow's UI.

MLflow 3.17 greets with an overview of generative AI, where trainings are hard to find. All these
addresses select its pages for model training.
"""

from urllib.parse import quote

from synthdetect.tracking.options import PORT
from synthdetect.tracking.store import is_server, tracking_uri

_TRAINING = "workflowType=machine_learning"


def server(port: int = PORT) -> str:
    """Return the address of the UI without a slash at its end.

    Args:
        port: Port of `synthdetect ui`, for a store that is not a server.
    """
    return tracking_uri().rstrip("/") if is_server() else f"http://127.0.0.1:{port}"


def run_page(experiment_id: str, run_id: str, at: str = "") -> str:
    """Return the address of the page of a run; `at` is the address of the UI if it is known."""
    return f"{at or server()}/#/experiments/{experiment_id}/runs/{run_id}?{_TRAINING}"


def runs_page(experiment_id: str, view: str, at: str = "") -> str:
    """Return the address of the table of an experiment's runs, as a saved view shows it.

    Args:
        experiment_id: Id of the experiment.
        view: Key of the view; see `synthdetect.tracking.views`.
        at: Address of the UI if it is known.
    """
    key = quote(view, safe="")
    return (
        f"{at or server()}/#/experiments/{experiment_id}/runs?{_TRAINING}&viewStateShareKey={key}"
    )


def artifact(run_id: str, path: str) -> str:
    """Return the address of an artifact relative to the UI, for pictures in a description."""
    return f"get-artifact?path={quote(path)}&run_uuid={run_id}"
