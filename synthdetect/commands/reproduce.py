"""`synthdetect reproduce`: a recorded run once more, and whether it comes to the same.

What has changed since is listed first, then it trains in a new run, and then both are compared.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd

from synthdetect.commands.extensions import Extension, installed_extensions
from synthdetect.commands.report import write_report
from synthdetect.commands.train import tags
from synthdetect.config import ReproduceOptions
from synthdetect.evaluation.summary import markdown
from synthdetect.reproduction.comparison import (
    NOT_REPRODUCED,
    Outcome,
    compare,
    largest_first,
    summary,
    verdict,
)
from synthdetect.reproduction.rerun import KINDS, Again, Kind, Recorded, read_recorded, trainings_of
from synthdetect.reproduction.results import outcome_of
from synthdetect.reproduction.settings import compare_settings
from synthdetect.system.console import console, table
from synthdetect.system.errors import UserError
from synthdetect.system.files import file_sha256
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.run import (
    Run,
    code_tags,
    environment,
    existing,
    keep_status,
    open_run,
)
from synthdetect.training.devices import Device, computing_with

REPRODUCES, REPRODUCED = "synthdetect.reproduces", "synthdetect.reproduced"
"""Tags of the new run: which run it repeats, and what came of it."""

_SHOWN = 15  # changed images
_SHOWN_OF_PART = 4  # differences


class NotReproduced(RuntimeError):
    """A run was done again and came to something else."""


def kinds_with(extensions: Iterable[Extension]) -> dict[str, Kind]:
    """Return how to rerun each kind of run, of this package and of extensions.

    An extension's function is imported only when a run of its kind is rerun.
    """
    added = {
        kind: partial(_rerun, function)
        for extension in extensions
        for kind, function in extension.run_kinds.items()
        if kind not in KINDS
    }
    return {**KINDS, **added}


def _rerun(function: str, recorded: Recorded, device: Device) -> Again:
    rerun: Kind = resolve_name(function)
    return rerun(recorded, device)


def reproduce(options: ReproduceOptions, kinds: Mapping[str, Kind] | None = None) -> None:
    """Do a recorded run again in a new run, compare both, and say what came of it.

    Args:
        options: which run, and how.
        kinds: how the runs of each kind are done again; None selects the kinds of this package and
            of the installed extensions.

    Raises:
        UserError: the run cannot be done again, or the data have changed.
        NotReproduced: it came to something else.
    """
    kinds = kinds_with(installed_extensions()) if kinds is None else kinds
    recorded = read_recorded(options, kinds)
    with computing_with(int(recorded.params["hardware.threads"])):
        device = recorded.device()
        again = kinds[recorded.tags["synthdetect.kind"]](recorded, device)
        settings = _settings(recorded, again, device)
        console.print(f"run {recorded.run.id} ({recorded.name}) is to be done again")
        _show_before(settings, again.changes)
        if len(again.changes) and options.on_changed_data == "stop":
            raise UserError(
                f"--run-id: the data of run {recorded.run.id} have changed: "
                f"{_counted(again.changes)}. Restore them, say by --data where they are as they "
                "were, or train on these by --on-changed-data train."
            )
        command = tags("reproduce", options)["synthdetect.command"]
        labels = {**tags("train", again.options), "synthdetect.command": command}
        labels[REPRODUCES] = recorded.run.id
        with open_run(f"{recorded.name} again", kind="reproduce", tags=labels) as run:
            run.log_params(options.to_flat())
            for name, found in (("settings", settings), ("data", again.changes)):
                if len(found):
                    run.log_table(found, f"reproduction/{name}.csv")
            again.train(run)
            compared = _compare(recorded, run, again.moved)
            said = verdict(compared, options.tolerance)
            suspects = _suspects(settings, again.changes) if compared["differing"].any() else ""
            _log(run, recorded, compared, said, suspects)
    _show_after(compared, suspects)
    console.print(said, style="bold")
    console.print(f"run          {run.id}")
    write_report(run.id)
    if said == NOT_REPRODUCED:
        keep_status(run.id)
        raise NotReproduced(
            f"run {recorded.run.id} came to something else: {int(compared['differing'].sum()):,} "
            f"of {int(compared['values'].sum()):,} numbers differ (run {run.id}). {suspects}"
        )


def _settings(recorded: Recorded, again: Again, device: Device) -> pd.DataFrame:
    """What each training recorded of options, device and versions, and is otherwise now."""
    options = again.options
    now = {
        **options.to_flat(),
        **{f"hardware.{name}": value for name, value in device.describe().items()},
        **environment(),
        **code_tags(),
    }
    if recorded.params.get("model.start") == "file":
        now["model.start_detail"] = file_sha256(Path(options.weights).expanduser())
    shown = {name: without_secrets(str(value)) for name, value in now.items()}
    found = []
    for run_id in recorded.trainings.values():
        before = existing(run_id).data
        found.append(compare_settings({**before.tags, **before.params}, shown))
    return pd.concat(found).drop_duplicates(ignore_index=True)


def _compare(recorded: Recorded, run: Run, moved: Mapping[str, str]) -> pd.DataFrame:
    """Compare the run, and each training inside it; the largest difference first."""
    pairs = {"": (recorded.run.id, run.id)}
    now = trainings_of(run)
    for part in {**recorded.trainings, **now}:
        pairs[part] = recorded.trainings.get(part, ""), now.get(part, "")
    found = []
    for part, (before, after) in pairs.items():
        then = outcome_of(before) if before else Outcome()
        tables = {
            name: rows.assign(path=[moved.get(path, path) for path in rows["path"]])
            for name, rows in then.predictions.items()
        }
        again = outcome_of(after) if after else Outcome()
        compared = compare(replace(then, predictions=tables), again)
        found.append(compared.assign(training=part))
    return pd.concat(found, ignore_index=True)


def _log(run: Run, recorded: Recorded, compared: pd.DataFrame, said: str, suspects: str) -> None:
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
    run.set_tags({REPRODUCED: said})
    text = [f"**Run {recorded.run.id}: {said}**", markdown(_summary_rows(compared)), suspects]
    differing = _difference_rows(compared)
    if len(differing):
        text.append(markdown(differing))
    run.describe("\n\n".join(filter(None, text)))


def _show_before(settings: pd.DataFrame, changes: pd.DataFrame) -> None:
    if len(changes):
        console.print(f"The data have changed: {_counted(changes)}", style="bold yellow")
        for change, path, before, now in changes.head(_SHOWN).to_numpy():
            details = f" ({before} then, {now or 'nothing'} now)" if before or now else ""
            console.print(f"  {change}: {path}{details}")
    else:
        console.print("data         as recorded, image by image")
    if settings.empty:
        console.print("settings     as recorded")
    for setting, before, now, effect in settings.to_numpy():
        console.print(f"{setting}: {before} then, {now} now; may change {effect}")


def _show_after(compared: pd.DataFrame, suspects: str) -> None:
    for title, found in (
        ("Compared with the recorded run", _summary_rows(compared)),
        ("The largest differences", _difference_rows(compared)),
    ):
        if len(found):
            table(title, list(found.columns), found.to_numpy().tolist())
    if suspects:
        console.print(suspects)


def _summary_rows(compared: pd.DataFrame) -> pd.DataFrame:
    rows = [
        [row["part"], f"{row['values']:,}", f"{row['differing']:,}", _amount(row["greatest"])]
        for row in summary(compared).to_dict(orient="records")
    ]
    return pd.DataFrame(rows, columns=["", "numbers", "differ", "at most by"])


def _difference_rows(compared: pd.DataFrame) -> pd.DataFrame:
    """The largest differences of each part."""
    shown = largest_first(compared).groupby("part").head(_SHOWN_OF_PART)
    rows = [
        [
            " ".join(filter(None, (row["part"], row["training"], row["name"]))),
            f"{row['differing']:,} of {row['values']:,}", _amount(row["greatest"]),
            str(row["at"]), f"{row['recorded']:.6g}", f"{row['again']:.6g}",
        ]
        for row in shown.to_dict(orient="records")
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["", "differ", "at most by", "at", "then", "again"])


def _amount(greatest: float) -> str:
    if math.isinf(greatest):
        return "not in both"
    return "unknown" if math.isnan(greatest) else f"{greatest:.3g}"


def _counted(changes: pd.DataFrame) -> str:
    counts = changes["change"].value_counts()
    return ", ".join(f"{count:,} {change}" for change, count in counts.items())


def _suspects(settings: pd.DataFrame, changes: pd.DataFrame) -> str:
    """What may be why."""
    found = [f"the data ({_counted(changes)})"] if len(changes) else []
    matters = ~settings["may_change"].str.startswith("nothing")
    for name, before, now, _ in settings[matters].to_numpy():
        found.append(f"{name} ({before}, now {now})")
    if not found:
        return "Nothing that is recorded differs; suspect what is not, such as other libraries."
    return f"To suspect: {'; '.join(found)}."
