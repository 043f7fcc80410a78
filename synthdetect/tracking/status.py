"""A process that waits for `mlflow run` to call a run FAILED, and says again what it truly is.

See `synthdetect.tracking.run.keep_status`.
"""

import sys
import time
from contextlib import suppress

from mlflow.tracking import MlflowClient

_SECONDS = 60


def main(run_id: str, status: str) -> None:
    """Wait for the status to become FAILED, up to a minute, and set it back.

    Any third status is somebody else's: the run goes on, say.
    """
    client = MlflowClient()
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        with suppress(Exception):  # a store that is away may be back in time
            found = client.get_run(run_id).info.status
            if found == "FAILED" != status:
                client.set_terminated(run_id, status)
            if found != status:
                return
        time.sleep(0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
