"""`synthdetect train`."""

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import mlflow

from synthdetect.audit.log import audit_quickly
from synthdetect.config import Options, TrainOptions, option_name
from synthdetect.datasets.prepare import Prepared, prepare
from synthdetect.datasets.selection import merge_supplement_into_train
from synthdetect.datasets.target import load_target
from synthdetect.evaluation.summary import summary_rows
from synthdetect.models.networks import check
from synthdetect.runs.resume import (
    computing_as_begun,
    fetch_checkpoint,
    recorded,
    require_same_data,
)
from synthdetect.runs.training import Outcome, run_training
from synthdetect.system.console import console, counting, table
from synthdetect.system.files import require_folder
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.models import register
from synthdetect.tracking.run import Run, open_run
from synthdetect.training.devices import Device, resolve
from synthdetect.training.session import preprocessing

Trainable = TypeVar("Trainable", bound=TrainOptions)


def train(options: TrainOptions) -> None:
    """Train one detector in one run and print what came of it."""
    options, device, prepared = begin(options)
    name = f"{options.arch} {options.recipe}"
    with open_run(name, kind="train", tags=tags("train", options), resume=options.resume) as run:
        announce(run, options, prepared)
        begun: Mapping[str, str] = {}
        if options.resume:
            fetch_checkpoint(run, options.output)
            begun = run.client.get_run(run.id).data.params
        with computing_as_begun(run, begun, device) as device:
            outcome = run_training(run, options, prepared, device)
        register_it = partial(register, outcome.model, options.register)
        version = run.outbox.insist(register_it) if options.register else ""
    conclude(run, outcome, options.register, version)


def begin(
    options: Trainable, how: Callable[..., Prepared] = prepare
) -> tuple[Trainable, Device, Prepared]:
    """Check everything that can be checked before a run is opened.

    Args:
        options: of the training, or trainings.
        how: the data are prepared: `prepare` or `prepare_whole`.

    Returns:
        The options (of a resumed run, those it recorded), the device and the data.

    Raises:
        UserError: whatever is wrong with them.
    """
    digest = ""
    if options.resume:
        options, digest = recorded(options)
    # A run that goes on needs its first weights no more.
    check(options.arch, options.image_size, "none" if options.resume else options.weights)
    require_folder(Path(options.output), "--output")
    device = resolve(options.device, options.precision, options.workers, options.arch)
    with counting("reading the data") as count:
        prepared = how(options, seed=options.seed, progress=count)
    prepared = adapting(options, prepared)
    if digest:
        require_same_data(prepared, digest, options.resume)
    return options, device, prepared


def adapting(options: TrainOptions, prepared: Prepared) -> Prepared:
    """The same data, with the images to adapt to if the options name some.

    Raises:
        UserError: they are not there, or do not fit.
    """
    if not options.target:
        return prepared
    with counting("reading the target") as count:
        target = load_target(
            options.target, prepared.manifest, on_bad_image=options.on_bad_image, progress=count
        )
    return prepared.with_target(target)


def tags(command: str, options: Options) -> dict[str, str]:
    """What one filters runs by in the UI, and the command that does the same again."""
    values, kind = options.to_json(), type(options)
    # What was given against the recipe must be given again, though it is the default elsewhere.
    recipe = {name: values[name] for name in ("recipe",) if name in values}
    defaults = kind.resolve(recipe).to_json()
    defaults |= {name: kind.fields()[name].default for name in recipe}
    arguments = [
        f"{option_name(name)}={values[name]}"
        for name in options.sections()
        if values[name] != defaults[name] and name != "resume"
    ]
    filters = [name for name in ("arch", "recipe", "data") if name in values]
    return {
        "synthdetect.command": shlex.join(["synthdetect", command, *arguments]),
        **{f"synthdetect.{name}": values[name] for name in filters},
    }


def announce(run: Run, options: TrainOptions, prepared: Prepared) -> None:
    """Print the run's id, the data's size and what a quick audit warns of; log the audit."""
    sizes = prepared.manifest.counts().groupby("split")["images"].sum()
    shown = ", ".join(f"{name} {sizes[name]:,}" for name in prepared.manifest.splits)
    console.print(f"run {run.id}  data {prepared.manifest.name} ({shown})")
    if len(prepared.excluded):
        console.print(
            f"{len(prepared.excluded)} unreadable image(s) left out: see data/excluded.csv in the "
            "run's artifacts.",
            style="bold yellow",
        )
    if prepared.one_class_categories:
        console.print(
            "--per-category leaves nothing of what has one class only: "
            f"{', '.join(name or 'no category' for name in prepared.one_class_categories)}.",
            style="bold yellow",
        )
    manifest = prepared.manifest
    audit_quickly(
        run,
        merge_supplement_into_train(manifest) if options.supplement else manifest,
        prepared.excluded,
        seed=options.seed,
        equalise_quality=preprocessing(options).equalise_quality,
    )


def conclude(run: Run, outcome: Outcome, name: str, version: str) -> None:
    """Print the results, where they are, and what to do with the model."""
    rows = summary_rows(outcome.evaluations)
    table("Results", list(rows.columns), [list(map(str, row)) for row in rows.to_numpy()])
    card = outcome.detector.card
    uri = f"models:/{outcome.model.model_id}"
    numbers = [f"{name} {value:.3f}" for name, value in card.calibration.describe().items()]
    console.print(f"threshold    {card.threshold:.4f}, {', '.join(numbers)}")
    console.print(f"run          {run.id}")
    console.print(f"model        {uri}")
    if name:
        console.print(f"registered   models:/{name}/{version}")
    store = without_secrets(mlflow.get_tracking_uri())
    console.print(f"look at it   mlflow ui --backend-store-uri {store}")
    console.print(f"serve it     mlflow models serve -m {uri} --env-manager local")
