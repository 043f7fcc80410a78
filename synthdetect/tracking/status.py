"""A process that sets a run's status back after `mlflow run` has set it to FAILED.

See `synthdetect.tracking.opening.keep_status`.
"""

import sys
import time
from contextlib import suppress

from mlflow.tracking import MlflowClient

_SECONDS = 60


def main(run_id: str, status: str) -> None:
    """Wait up to a minute for the status to become FAILED, and set it back.

    Args:
        run_id: Id of the run.
        status: Its true status. Any status but this one and FAILED is left alone, since it means
            that another process resumed the run.
    """
    client = MlflowClient()
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        with suppress(Exception):  # a store that is away may come back in time
            found = client.get_run(run_id).info.status
            if found == "FAILED" != status:
                client.set_terminated(run_id, status)
            if found != status:
                return
        time.sleep(0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
