"""The result of a tracked command, as `--json` prints it."""

from typing import Any

from synthdetect.tracking.queries import child_runs, existing
from synthdetect.tracking.store import tracking_uri
from synthdetect.tracking.tags import FOLD


def run_result(run_id: str, **further: Any) -> dict[str, Any]:
    """Return a run as a result: `run_id`, `run_name`, `status`, `tracking_uri`, `metrics`.

    `children` has the ids of the runs inside it, by the name of the fold or training where they
    have one, else by their own. A run that is listed twice is there under its last id.

    Args:
        run_id: The run.
        further: What else the command has to say.
    """
    run = existing(run_id)
    result: dict[str, Any] = {
        "run_id": run.id,
        "run_name": run.name,
        "status": run.status,
        "tracking_uri": tracking_uri(),
        "metrics": dict(sorted(run.metrics.items())),
    }
    children = {child.tags.get(FOLD) or child.name: child.id for child in child_runs(run_id)}
    return result | ({"children": children} if children else {}) | further
