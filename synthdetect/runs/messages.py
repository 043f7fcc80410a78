"""What a training prints when it begins and ends, and the tags that describe its command."""

import shlex

from synthdetect.audit.integrity import QUICK_SEARCH
from synthdetect.audit.log import audit_quickly
from synthdetect.config.options import Options, option_name
from synthdetect.datasets.labels import SYNTHETIC
from synthdetect.datasets.pairs import photographs
from synthdetect.datasets.prepare import Prepared
from synthdetect.datasets.selection import merge_supplement_into_train
from synthdetect.evaluation.summary import interval_note, summary_rows
from synthdetect.runs.options import RecipeOptions
from synthdetect.runs.training import TrainingResult
from synthdetect.system.console import console, table
from synthdetect.tracking.run import Run
from synthdetect.tracking.tags import LEFT_OUT
from synthdetect.training.session import preprocessing


def command_tags(command: str, options: Options) -> dict[str, str]:
    """Return tags to filter runs by in the UI, and the command that repeats the run."""
    values, kind = options.to_json(), type(options)
    # An option given against the recipe must be repeated, though it has its default elsewhere.
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


def announce(run: Run, options: RecipeOptions, prepared: Prepared) -> None:
    """Print the run id, the size of the data and the warnings of a quick audit; log the audit."""
    sizes = prepared.manifest.counts().groupby("split")["images"].sum()
    shown = ", ".join(f"{name} {sizes[name]:,}" for name in prepared.manifest.splits)
    console.print(f"run {run.id}  data {prepared.manifest.name} ({shown})")
    if len(prepared.excluded):
        console.print(
            f"{len(prepared.excluded)} unreadable image(s) excluded: see data/excluded.csv among "
            "the artifacts of the run.",
            style="bold yellow",
        )
    warn_of_selection(run, prepared)
    manifest = prepared.manifest
    if options.pair.needed:
        train = manifest.split("train").table
        console.print(
            f"{(photographs(train) >= 0).sum():,} of {(train['label'] == SYNTHETIC).sum():,} "
            "synthetic training images have their photograph; the others are left as they are."
        )
    audit_quickly(
        run,
        merge_supplement_into_train(manifest) if options.data.supplement else manifest,
        prepared.excluded,
        seed=options.optim.seed,
        equalise_quality=preprocessing(options.image).equalise_quality,
        near_duplicates=QUICK_SEARCH,
    )


def warn_of_selection(run: Run, prepared: Prepared) -> None:
    """Print and record what --per-category leaves out that its name does not suggest."""
    warnings = selection_warnings(prepared)
    for warning in warnings:
        console.print(warning, style="bold yellow")
    if warnings:
        run.set_tags({LEFT_OUT: " ".join(warnings)})


def selection_warnings(prepared: Prepared) -> list[str]:
    """Return what --per-category leaves out that its name does not suggest."""
    found = []
    if prepared.one_class_categories:
        names = ", ".join(name or "no category" for name in prepared.one_class_categories)
        found.append(
            f"--per-category leaves no image of the categories with one class only: {names}."
        )
    kept, images = prepared.without_category
    if kept < images:
        found.append(
            f"--per-category takes the {images:,} training images without a category for one "
            f"category, so that at most {kept:,} of them train. Give --per-category 0 to train on "
            "all of them, or name the categories in the manifest's column category."
        )
    return found


def conclude(run: Run, result: TrainingResult, name: str, version: str) -> None:
    """Print the results of a training, where they are, and how to use the model.

    Args:
        run: The run.
        result: The result of its training.
        name: The registered model; empty if the model was not registered.
        version: The registered version.
    """
    rows = summary_rows(result.evaluations)
    table("Results", list(rows.columns), [list(map(str, row)) for row in rows.to_numpy()])
    console.print(interval_note(result.evaluations))
    decision = result.detector.card.decision
    uri = f"models:/{result.model.model_id}"
    numbers = [f"{k} {value:.3f}" for k, value in decision.calibration.describe().items()]
    console.print(f"threshold    {decision.threshold:.4f}, {', '.join(numbers)}")
    if result.chosen:
        console.print(f"             {result.chosen.words}")
    console.print(f"model        {uri}")
    if name:
        console.print(f"registered   models:/{name}/{version}")
    console.print(f"serve it     mlflow models serve -m {uri} --env-manager local")
    run.print_pages()
