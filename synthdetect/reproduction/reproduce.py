"""Reproduction: a recorded run is run again in a new run, and both results are compared."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from synthdetect.evaluation.summary import markdown
from synthdetect.report.writing import write_report
from synthdetect.reproduction.comparison import (
    NOT_REPRODUCED,
    RunResults,
    compare_results,
    largest_first,
    summary,
    verdict,
)
from synthdetect.reproduction.options import ReproduceOptions
from synthdetect.reproduction.rerun import (
    RecordedRun,
    Rerun,
    plan_rerun,
    read_recorded,
    trainings_of,
)
from synthdetect.reproduction.results import results_of
from synthdetect.runs.kinds import RunKind
from synthdetect.runs.messages import command_tags
from synthdetect.runs.settings import compare_settings
from synthdetect.system.console import console, table
from synthdetect.system.errors import NegativeAnswer, UserError
from synthdetect.system.files import file_sha256
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.opening import keep_status, open_run
from synthdetect.tracking.provenance import code_tags, environment
from synthdetect.tracking.queries import existing
from synthdetect.tracking.results import run_result
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device, computing_with

REPRODUCES, REPRODUCED = "synthdetect.reproduces", "synthdetect.reproduced"
"""Tags of the new run: the run that it repeats, and the verdict."""

_SHOWN_IMAGES = 15
_SHOWN_DIFFERENCES = 4  # of each part


class NotReproduced(NegativeAnswer):
    """The rerun has other results than the recorded run."""


def reproduce(options: ReproduceOptions, kinds: Mapping[str, RunKind]) -> dict[str, Any]:
    """Rerun a recorded run in a new run, compare both, and print the verdict.

    Args:
        options: Which run, and how.
        kinds: The known kinds of runs.

    Raises:
        UserError: If the run cannot be rerun, or the data have changed.
        NotReproduced: If the results differ.
    """
    recorded = read_recorded(options, kinds)
    with computing_with(int(recorded.params["hardware.threads"])):
        device = recorded.device()
        rerun = plan_rerun(recorded, kinds, device)
        settings = _settings(recorded, rerun, device)
        console.print(f"rerunning    {recorded.run.id} ({recorded.name})")
        _print_before(settings, rerun.diff)
        if len(rerun.diff) and options.on_changed_data == "stop":
            raise UserError(
                f"--run-id: the data of run {recorded.run.id} have changed: "
                f"{_counted(rerun.diff)}. Restore them, give by --data where the unchanged data "
                "are, or train on the changed data by --on-changed-data train."
            )
        tags = {
            **command_tags("train", rerun.options),
            **command_tags("reproduce", options),
            REPRODUCES: recorded.run.id,
        }
        with open_run(
            f"{recorded.name} rerun", kind="reproduce", tags=tags, tracking=options.tracking
        ) as run:
            run.log_params(options.to_flat())
            for name, found in (("settings", settings), ("data", rerun.diff)):
                if len(found):
                    run.log_table(found, f"reproduction/{name}.csv")
            rerun.train(run)
            compared = _compare(recorded, run, rerun.moved)
            word = verdict(compared, options.tolerance)
            suspects = (
                _suspects(recorded, settings, rerun.diff) if compared["differing"].any() else ""
            )
            _log(run, recorded, compared, word, suspects)
    for title, rows in _tables(compared).items():
        table(title, list(rows.columns), rows.to_numpy().tolist())
    console.print(suspects)
    console.print(word, style="bold")
    run.print_pages()
    write_report(run.id)
    result = run_result(run.id, reproduces=recorded.run.id, verdict=word)
    if word == NOT_REPRODUCED:
        keep_status(run.id)
        raise NotReproduced(
            f"run {recorded.run.id} is not reproduced: {int(compared['differing'].sum()):,} of "
            f"{int(compared['values'].sum()):,} numbers differ (run {run.id}). {suspects}",
            result,
        )
    return result


def _settings(recorded: RecordedRun, rerun: Rerun, device: Device) -> pd.DataFrame:
    """List the differences of options, device and versions from those of each training."""
    options = rerun.options
    now = {
        **options.to_flat(),
        **{f"hardware.{name}": value for name, value in device.describe().items()},
        **environment(),
        **code_tags(),
    }
    if recorded.params.get("model.start") == "file":
        now["model.start_detail"] = file_sha256(Path(options.model.weights).expanduser())
    today = {name: without_secrets(str(value)) for name, value in now.items()}
    # Each training of a cross-validation has a seed of its own, which its rerun takes from it.
    own = existing(recorded.run.id).params
    given = {name: own[name] for name in options.to_flat() if name in own}
    found = []
    for run_id in recorded.trainings.values():
        run = existing(run_id)
        before = {**run.tags, **run.params, **given}
        added = options.to_flat().keys() - before.keys()  # by later versions; off by default
        known = {name: value for name, value in today.items() if name not in added}
        found.append(compare_settings(before, known, type(options)))
    return pd.concat(found).drop_duplicates(ignore_index=True)


def _compare(recorded: RecordedRun, run: Run, moved: Mapping[str, str]) -> pd.DataFrame:
    """Compare the run, and each training inside it."""
    pairs = {"": (recorded.run.id, run.id)}
    now = trainings_of(run)
    for name in {**recorded.trainings, **now}:
        pairs[name] = recorded.trainings.get(name, ""), now.get(name, "")
    found = []
    for name, (before, after) in pairs.items():
        then = results_of(before) if before else RunResults()
        tables = {
            path: rows.assign(path=[moved.get(image, image) for image in rows["path"]])
            for path, rows in then.predictions.items()
        }
        rerun = results_of(after) if after else RunResults()
        compared = compare_results(replace(then, predictions=tables), rerun)
        found.append(compared.assign(training=name))
    return pd.concat(found, ignore_index=True)


def _log(run: Run, recorded: RecordedRun, compared: pd.DataFrame, word: str, suspects: str) -> None:
    parts = summary(compared)
    run.log_table(parts, "reproduction/summary.csv")
    ordered = compared.sort_values("greatest", ascending=False, kind="stable")
    run.log_table(ordered, "reproduction/compared.csv")
    run.log_metrics(
        {
            f"reproduced/{part}/{name}": float(row[name])
            for part, row in parts.set_index("part").iterrows()
            for name in ("values", "differing", "greatest")
            if not math.isnan(row[name])
        }
    )
    run.set_tags({REPRODUCED: word})
    texts = [f"**Run {recorded.run.id}: {word}**", *map(markdown, _tables(compared).values())]
    run.describe("\n\n".join(filter(None, [*texts, suspects])))


def _print_before(settings: pd.DataFrame, diff: pd.DataFrame) -> None:
    if len(diff):
        console.print(f"The data have changed: {_counted(diff)}", style="bold yellow")
        for change, path, before, now in diff.head(_SHOWN_IMAGES).to_numpy():
            details = f" (recorded {before}, now {now or 'nothing'})" if before or now else ""
            console.print(f"  {change}: {path}{details}")
    else:
        console.print("data         as recorded, image by image")
    if settings.empty:
        console.print("settings     as recorded")
    for setting, before, now, effect in settings.to_numpy():
        console.print(f"{setting}: recorded {before}, now {now}; may change {effect}")


def _tables(compared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables to show by title: a row for each part, and the largest differences."""
    parts = [
        [row["part"], f"{row['values']:,}", f"{row['differing']:,}", _amount(row["greatest"])]
        for row in summary(compared).to_dict(orient="records")
    ]
    columns = ["", "numbers", "differ", "at most by"]
    tables = {"Compared with the recorded run": pd.DataFrame(parts, columns=columns)}
    shown = largest_first(compared).groupby("part").head(_SHOWN_DIFFERENCES)
    rows = [
        [
            " ".join(filter(None, (row["part"], row["training"], row["name"]))),
            f"{row['differing']:,} of {row['values']:,}",
            _amount(row["greatest"]),
            str(row["at"]),
            f"{row['recorded']:.6g}",
            f"{row['rerun']:.6g}",
        ]
        for row in shown.to_dict(orient="records")
    ]
    if rows:
        columns = ["", "differ", "at most by", "at", "recorded", "rerun"]
        tables["The largest differences"] = pd.DataFrame(rows, columns=columns)
    return tables


def _amount(greatest: float) -> str:
    if math.isinf(greatest):
        return "not in both"
    return "unknown" if math.isnan(greatest) else f"{greatest:.3g}"


def _counted(diff: pd.DataFrame) -> str:
    counts = diff["change"].value_counts()
    return ", ".join(f"{count:,} {change}" for change, count in counts.items())


def _suspects(recorded: RecordedRun, settings: pd.DataFrame, diff: pd.DataFrame) -> str:
    """Return what may explain differing results."""
    found = [f"the data ({_counted(diff)})"] if len(diff) else []
    matters = ~settings["may_change"].str.startswith("nothing")
    for name, before, now, _ in settings[matters].to_numpy():
        found.append(f"{name} (recorded {before}, now {now})")
    trainings = [existing(run_id).params for run_id in recorded.trainings.values()]
    lists = [params.get("hardware.nondeterministic", "none") for params in trainings]
    if operators := {name for names in lists for name in names.split(", ")} - {"none"}:
        found.append(f"operators without a deterministic form ({', '.join(sorted(operators))})")
    if not found:
        return "No recorded setting differs; suspect unrecorded ones, such as other libraries."
    return f"Possible reasons: {'; '.join(found)}."
