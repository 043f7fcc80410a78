"""`synthdetect train`."""

import json
import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from synthdetect.config import TrainOptions, option_name
from synthdetect.console import console, counting, table
from synthdetect.data.prepare import Prepared, prepare
from synthdetect.errors import UserError
from synthdetect.experiment import CHECKPOINTS, LAST, Outcome, run_training, summary_rows
from synthdetect.tracking.model import register
from synthdetect.tracking.run import Run, open_run
from synthdetect.training.devices import resolve

_MAY_CHANGE = ("resume", "register", "output", "workers", "keep_last")
"""Options that a resumed run may be given anew, since they change no number."""


def train(options: TrainOptions) -> None:
    """Train one detector in one run and print what came of it."""
    digest = ""
    if options.resume:
        options, digest = _recorded(options)
    device = resolve(options.device, options.precision, options.workers)
    with counting("reading the data") as count:
        prepared = prepare(options, seed=options.seed, progress=count)
    if digest and digest != prepared.manifest.digest():
        raise UserError(
            f"--resume: the data of run {options.resume} have changed since it began. "
            "Restore them, or start a new run."
        )
    tags = {
        "synthdetect.arch": options.arch,
        "synthdetect.recipe": options.recipe,
        "synthdetect.data": options.data,
    }
    name = f"{options.arch} {options.recipe}"
    with open_run(name, kind="train", tags=tags, resume=options.resume) as run:
        _announce(run, prepared)
        if options.resume:
            _fetch_checkpoint(run, Path(options.output) / run.id / LAST)
        outcome = run_training(run, options, prepared, device)
        version = register(outcome.model, options.register) if options.register else ""
    _conclude(run, outcome, options.register, version)


def _recorded(given: TrainOptions) -> tuple[TrainOptions, str]:
    """The options and data digest of the run to resume; given ones must not contradict them."""
    client = MlflowClient()
    try:
        status = client.get_run(given.resume).info.status
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(given.resume, "config.json", folder)
            recorded = json.loads(Path(path).read_text())
    except (MlflowException, OSError) as error:
        raise UserError(
            f"--resume: no training run {given.resume!r} with a recorded configuration in "
            f"{mlflow.get_tracking_uri()}. Set MLFLOW_TRACKING_URI to the store that has it, or "
            "start a new run."
        ) from error
    if status == "FINISHED":
        raise UserError(
            f"--resume: run {given.resume} is FINISHED; there is nothing to go on with."
        )
    options = recorded["options"]
    defaults = TrainOptions.resolve({"recipe": given.recipe})
    for name in TrainOptions.fields():
        value = getattr(given, name)
        asked = value != getattr(defaults, name)
        if name in _MAY_CHANGE:
            options[name] = value
        elif asked and given.to_json()[name] != options[name]:
            raise UserError(
                f"{option_name(name)}: run {given.resume} was started with {options[name]!r}, not "
                f"{value!r}. Leave the option out, or start a new run."
            )
    return TrainOptions.resolve(options), recorded["digest"]


def _fetch_checkpoint(run: Run, local: Path) -> None:
    """Get the last checkpoint from the run's artifacts if this machine has none."""
    if local.is_file():
        return
    name = f"{CHECKPOINTS}/{LAST}"
    if any(item.path == name for item in run.client.list_artifacts(run.id, CHECKPOINTS)):
        with tempfile.TemporaryDirectory() as folder:
            run.client.download_artifacts(run.id, CHECKPOINTS, folder)
            for file in (Path(folder) / CHECKPOINTS).iterdir():
                local.parent.mkdir(parents=True, exist_ok=True)
                file.replace(local.parent / file.name)


def _announce(run: Run, prepared: Prepared) -> None:
    counts = prepared.manifest.counts()
    sizes = counts.groupby("split")["images"].sum()
    shown = ", ".join(f"{name} {sizes[name]:,}" for name in prepared.manifest.splits)
    console.print(f"run {run.id}  data {prepared.manifest.name} ({shown})")
    if len(prepared.excluded):
        console.print(
            f"[bold yellow]{len(prepared.excluded)} unreadable image(s) left out:[/] "
            "see data/excluded.csv in the run's artifacts."
        )


def _conclude(run: Run, outcome: Outcome, name: str, version: str) -> None:
    rows = summary_rows(outcome)
    table("Results", list(rows.columns), [list(map(str, row)) for row in rows.to_numpy()])
    card = outcome.detector.card
    uri = f"models:/{outcome.model.model_id}"
    console.print(f"threshold    {card.threshold:.4f}, temperature {card.temperature:.3f} (val)")
    console.print(f"run          {run.id}")
    console.print(f"model        {uri}")
    if name:
        console.print(f"registered   models:/{name}/{version}")
    store = mlflow.get_tracking_uri()
    console.print(f"look at it   mlflow ui --backend-store-uri {store}")
    console.print(f"serve it     mlflow models serve -m {uri} --env-manager local")
