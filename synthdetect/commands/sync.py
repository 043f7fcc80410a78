"""`synthdetect sync`: what the tracking store has missed."""

import mlflow

from synthdetect.commands.train import train
from synthdetect.config import SyncOptions, TrainOptions
from synthdetect.runs.resume import read_config
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.outbox import FOLDER, Outbox, StoreAway, is_away, waiting
from synthdetect.tracking.run import AWAITS_STORE, KIND, existing, is_worked_on


class SyncFailed(RuntimeError):
    """Some runs could not be seen to; what they have to say is still kept."""


def sync(options: SyncOptions) -> None:
    """Deliver what runs had to say while their store was away, and end what waited for it.

    Raises:
        UserError: something is kept for another store than the one in use.
        StoreAway: the store does not answer.
        SyncFailed: some runs could not be seen to, after all others were.
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
    failed: list[str] = []
    for see_to in (_deliver, _go_on):
        for run_id in runs:
            if run_id in failed:
                continue
            try:
                see_to(run_id)
            except StoreAway:
                raise
            except Exception as error:
                if is_away(error):
                    raise StoreAway(
                        f"{store} is still away ({error}). Everything is still kept; try again "
                        "later."
                    ) from error
                failed.append(run_id)
                console.print(f"run {run_id}: {without_secrets(str(error))}", style="bold red")
    if failed:
        raise SyncFailed(
            f"{len(failed)} of {len(runs)} runs could not be seen to: {', '.join(failed)}. Try "
            f"again, or give one up by deleting its folder in {FOLDER.absolute()}."
        )


def _deliver(run_id: str) -> None:
    if is_worked_on(existing(run_id)):
        console.print(f"run {run_id} is left alone: its process is alive, and will say all itself")
    else:
        Outbox(run_id).deliver(forget=False)


def _go_on(run_id: str) -> None:
    """End what waited for the store; it is seen to again, next time, until it has ended."""
    found = existing(run_id)
    if is_worked_on(found):
        return
    tags, kind = found.data.tags, found.data.tags.get(KIND, "")
    if tags.get(AWAITS_STORE) == "true" and found.info.status != "FINISHED":
        if kind == "train":
            train(TrainOptions.resolve({**read_config(run_id)["options"], "resume": run_id}))
        elif "mlflow.parentRunId" not in tags:
            command = tags.get("synthdetect.command", f"synthdetect {kind}")
            resumable = kind in ("cv", "regimes")
            further = f" --resume={run_id}" if resumable else ""
            console.print(f"run {run_id} goes on with: {command}{further}")
            if resumable:
                return
    Outbox(run_id).forget()
