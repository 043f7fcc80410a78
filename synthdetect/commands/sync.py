"""`synthdetect sync`: what the tracking store has missed."""

import mlflow

from synthdetect.commands.resuming import read_config
from synthdetect.commands.train import train
from synthdetect.config import SyncOptions, TrainOptions
from synthdetect.console import console
from synthdetect.errors import UserError
from synthdetect.redact import without_secrets
from synthdetect.tracking.outbox import FOLDER, Outbox, StoreAway, is_away, waiting
from synthdetect.tracking.run import AWAITS_STORE, KIND, existing


def sync(options: SyncOptions) -> None:
    """Deliver what runs had to say while their store was away, and end what waited for it.

    Raises:
        UserError: something is kept for another store than the one in use.
        StoreAway: the store does not answer.
    """
    runs, store = waiting(), without_secrets(mlflow.get_tracking_uri())
    if not runs:
        console.print(f"nothing is kept in {FOLDER.absolute()}")
    for run_id, kept_for in runs.items():
        if kept_for != store:
            raise UserError(
                f"{FOLDER / run_id}: this is kept for {kept_for}, not for {store}. Set "
                "MLFLOW_TRACKING_URI to it."
            )
    for run_id in runs:
        try:
            Outbox(run_id).deliver()
        except Exception as error:
            if not is_away(error):
                raise
            raise StoreAway(
                f"{store} is still away ({error}). Everything is still kept; try again later."
            ) from error
    for run_id in runs:
        found = existing(run_id)
        tags = found.data.tags
        if tags.get(AWAITS_STORE) != "true" or found.info.status == "FINISHED":
            continue
        kind = tags.get(KIND, "")
        if kind == "train":
            train(TrainOptions.resolve({**read_config(run_id)["options"], "resume": run_id}))
        elif "mlflow.parentRunId" not in tags:
            command = tags.get("synthdetect.command", f"synthdetect {kind}")
            further = f" --resume={run_id}" if kind in ("cv", "regimes") else ""
            console.print(f"run {run_id} goes on with: {command}{further}")
