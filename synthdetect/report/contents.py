"""Build the report of a run of any command: assign its artifacts and metrics to sections.

Artifacts are found by their paths. The last section shows or lists everything that no other section
shows, so that the report omits nothing silently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from synthdetect import __version__
from synthdetect.report.answer import answer_of
from synthdetect.report.held_out import CARD, held_out, in_order, trained_on
from synthdetect.report.page import Report, Section, Table
from synthdetect.report.parts import MAIN_METRICS, excerpt, figures
from synthdetect.report.record import Artifacts
from synthdetect.report.results import glance, read_splits, results
from synthdetect.report.text import format_metric, format_number, label
from synthdetect.tracking.records import RunRecord

REPORT = "report.html"
"""Artifact path of the report."""

KINDS = {
    "train": "Training run",
    "cv": "Cross-validation",
    "fold": "One fold of a cross-validation",
    "refit": "Final fit on train and val",
    "evaluate": "Evaluation",
    "regimes": "Comparison of regimes",
    "regime": "One training run of a comparison",
    "regime_refit": "Final fit of a regime on all labelled images",
    "audit": "Audit of the data",
    "predict": "Predictions",
    "sweep": "Sweep",
    "reproduce": "Reproduction of a run",
    "compare": "Comparison of runs",
    "promote": "Comparison of a model with the champion",
}
"""Titles by the run's tag `synthdetect.kind`; for any other kind the title is the tag itself."""


@dataclass(frozen=True)
class Group:
    """Artifacts and metrics that make up one section.

    Attributes:
        title: Heading of the section.
        tables: Patterns of the paths of tables.
        figures: Patterns of the paths of figures.
        of_splits: Names of figures in the folder of each split.
        numbers: Prefix of metrics to list in a table of their own; empty for none.
        covers: Prefixes of metrics that the section shows, so that no other section lists them.
        text: Explanation above the tables.
    """

    title: str
    tables: tuple[str, ...]
    figures: tuple[str, ...] = ()
    of_splits: tuple[str, ...] = ()
    numbers: str = ""
    covers: tuple[str, ...] = ()
    text: str = ""


_COMPARISONS = (
    Group(
        "Reproduction",
        ("reproduction/summary.csv", "reproduction/compared.csv", "reproduction/*.csv"),
        covers=("reproduced/",),
        text="The recorded run was repeated with its own options, seed and data, and all results "
        "of both runs were compared, except durations. Equal means equal bit for bit.",
    ),
    Group("Folds", ("cv/*.csv",), ("figures/folds.png", "figures/cv/*.png"), covers=("cv/",)),
    Group(
        "Regimes",
        ("regimes/tables.csv", "regimes/effects.csv", "regimes/*.csv"),
        ("figures/effects.png", "figures/regimes/*.png"),
        covers=("regimes/", "effects/"),
    ),
    Group(
        "Sweep",
        ("sweep/comparison.csv", "sweep/verdicts.csv", "sweep/*.csv"),
        ("figures/sweep/*.png",),
        covers=("sweep/",),
    ),
    Group(
        "Predictions",
        ("predictions/agreement.csv", "predictions/unreadable.csv"),
        ("figures/predictions/*.png",),
        numbers="predict/",
        covers=("predict/",),
    ),
)
_DETAILS = (
    Group(
        "Robustness",
        (
            "evaluation/conditions.csv",
            "evaluation/robustness.csv",
            "evaluation/*_robustness.csv",
            "evaluation/robustness_flips.csv",
            "evaluation/*_robustness_flips.csv",
        ),
        of_splits=("robustness", "robustness_generators"),
        text="The same images under perturbations as they occur when images are shared, and "
        "equalised: all shrunk slightly and encoded with the same settings. Threshold and "
        "calibration are those of the unperturbed images. The change of the AUC is paired: both "
        "are computed on the same images. Flip rate: share of images whose answer differs from "
        "that to the unperturbed image.",
    ),
    Group(
        "Data audit",
        ("audit/findings.csv", "audit/*.csv"),
        ("figures/audit/*.png", "audit/*.png"),
        numbers="audit/",
        covers=("audit/",),
        text="Properties other than generation that separate the classes or splits, and "
        "defects of the files.",
    ),
)
_CAPTIONS = {
    "regimes/tables.csv": "The paper's tables and the measured values",
    "regimes/effects.csv": "Effect of each factor",
    "regimes/cells.csv": "Training runs",
    "sweep/comparison.csv": "Comparison of the strategies",
    "sweep/verdicts.csv": "Verdicts",
    "predictions/agreement.csv": "Agreement of the models",
    "predictions/unreadable.csv": "Unreadable images",
    "evaluation/conditions.csv": "Unchanged (raw) and equalised images",
    "reproduction/summary.csv": "Compared results and the number of differences",
    "reproduction/compared.csv": "All tensors, metrics and predictions, largest difference first",
    "reproduction/settings.csv": "Settings that differ from those of the recorded run",
    "reproduction/data.csv": "Differences of the data",
    "audit/findings.csv": "Findings",
    "data/excluded.csv": "Unreadable images that were left out",
}
_FOLDS = {
    "held_out/": "Images of the generator that each fold held out, and real images",
    "best/val/": "Validation images of each fold, on which its epoch and threshold were chosen",
    "test/": "Test images",
}
"""Captions by prefix of the metrics in `cv/folds.csv`."""

_TRAINING = {
    "best/epoch": "chosen epoch",
    "refit/epochs": "epochs of the final fit",
    "decision/threshold": "threshold",
    "decision/threshold_low": "threshold: 2.5 % quantile over bootstrap samples of its images",
    "decision/threshold_high": "threshold: 97.5 % quantile",
    "decision/threshold_loss": "mean loss by choosing the threshold on so few photographs",
    "decision/temperature": "temperature",
    "decision/attribution_temperature": "temperature of attribution",
    "decision/attribution_threshold": "threshold of attribution, below which it is unknown",
    "train/loss": "training loss of the last epoch",
    "val/loss": "validation loss of the last epoch",
    "train/images_per_second": "images per second in the last epoch",
    "images_per_second": "images per second in the last epoch",  # of older versions
}
_NOT_OPTIONS = ("hardware.", "version.", "model.start", "data.digest")
_MAIN = ("balanced_accuracy", "ece", "worst_generator_auc")  # which the answer and results show
_KNOWN_METRICS = (
    "system/",
    "data/",
    "train/",
    "val/",
    "best/",
    "decision/",
    "lr",
    "auc",
    *_MAIN,
    *_TRAINING,
)
_INLINE_BYTES, _INLINE_ROWS = 20_000, 50  # greatest size of other tables that are shown
_LISTED_ONLY = ("explain/",)
"""Folders of single images that a figure shows together."""

_LISTED_SINGLY = 4  # greatest number of files of a folder that are listed one by one


def build(record: RunRecord) -> Report:
    """Build the report of a run."""
    artifacts = Artifacts(record)
    kind = record.tags.get("synthdetect.kind", "")
    splits = read_splits(artifacts)
    answered = answer_of(record, artifacts, splits, trained_on(artifacts))
    comparisons = [_group(record, artifacts, group) for group in _COMPARISONS]
    # Built before the results, which take all remaining figures of a split.
    details = [_group(record, artifacts, group, tuple(splits)) for group in _DETAILS]
    sections = [
        glance(record, artifacts, splits),
        *comparisons,
        _child_runs(record),
        held_out(record, artifacts, kind),
        results(record, artifacts, splits, trained_on(artifacts)),
        *details,
        _data(artifacts),
        _training(record, artifacts),
        _options(record),
        _others(record, artifacts, tuple(splits)),
    ]
    return Report(
        title=KINDS.get(kind) or kind or "Run",
        subtitle=record.name,
        answer=answered,
        facts=_facts(record),
        warnings=_warnings(record),
        sections=tuple(section for section in sections if not section.is_empty),
    )


def _facts(record: RunRecord) -> dict[str, str]:
    tags = record.tags
    # A cross-validation itself records no device and versions, but its folds do.
    params = {k: v for child in record.children[:1] for k, v in child.params.items()}
    params |= record.params
    commit = tags.get("git.commit", "")
    dirty = {"true": " with uncommitted changes", "false": " (clean)"}
    versions = {
        k.removeprefix("version."): v for k, v in params.items() if k.startswith("version.")
    }
    hardware = [params.get(f"hardware.{name}", "") for name in ("name", "kind", "precision")]
    facts = {
        "Verdict": tags.get("synthdetect.reproduced", ""),
        "Rerun of": tags.get("synthdetect.reproduces", ""),
        "Status": record.status,
        "Started": record.started,
        "Duration": _duration(record.seconds),
        "Data": tags.get("synthdetect.data", params.get("data.data", "")),
        "Device": ", ".join(part for part in hardware if part),
        "Report made by": f"synthdetect {__version__}",
        "Run id": record.id,
        "Command": tags.get("synthdetect.command", ""),
        "Git commit": commit + dirty.get(tags.get("git.dirty", ""), "") if commit else "unknown",
        "Data digest": params.get("data.digest", ""),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: value for name, value in facts.items() if value}


def _duration(seconds: float) -> str:
    if seconds != seconds:  # nan
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _warnings(record: RunRecord) -> tuple[str, ...]:
    found = []
    if record.status != "FINISHED":
        error = record.tags.get("synthdetect.error", "")
        found.append(
            f"This run is {record.status}. The report shows what it logged. {error}".strip()
        )
    unfinished = [child.name for child in record.children if child.status != "FINISHED"]
    if unfinished:
        found.append(f"Child runs that did not finish: {', '.join(unfinished)}.")
    if record.tags.get("git.dirty") == "true":
        found.append(
            "The code had uncommitted changes, so the commit alone does not reproduce this run."
        )
    if record.params.get("model.start") == "random":
        found.append("Training started from random weights.")
    return tuple(found)


def _group(
    record: RunRecord, artifacts: Artifacts, group: Group, splits: tuple[str, ...] = ()
) -> Section:
    tables, warnings = [], []
    numbers = {
        label(name.removeprefix(group.numbers)): format_number(value)
        for name, value in record.metrics.items()
        if group.numbers and name.startswith(group.numbers)
    }
    if numbers:
        tables.append(Table("Metrics", pd.DataFrame(numbers.items(), columns=["metric", "value"])))
    for path in artifacts.find(*group.tables):
        table = artifacts.take_table(path)
        if table is None:
            continue
        if path == "audit/findings.csv" and {"severity", "name"} <= set(table):
            warned = table.loc[table["severity"] == "warning", "name"]
            warnings += [f"The audit warns of {', '.join(warned)}."] if len(warned) else []
        if path == "cv/folds.csv":
            tables += _folds(table, path)
        elif path.endswith("robustness.csv") and {"split", "images"} <= set(table):
            tables.append(_perturbed(table, path))
        else:
            tables.append(excerpt(table, _CAPTIONS.get(path, _caption(path)), path))
    known = {}
    if "cv/auc/mean" in record.metrics:
        mean, deviation = (record.metrics[f"cv/auc/{name}"] for name in ("mean", "std"))
        known["AUC of the folds"] = f"{format_metric(mean)} ± {format_metric(deviation)}"
    drawn = figures(artifacts, artifacts.find(*group.figures), "", known)
    for split in splits:
        paths = [f"figures/{split}/{name}.png" for name in group.of_splits]
        drawn += figures(artifacts, [p for p in paths if p in artifacts.remaining()], split, known)
    text = (group.text,) if group.text and (tables or drawn) else ()
    return Section(group.title, tuple(warnings), text, tuple(tables), drawn)


def _perturbed(table: pd.DataFrame, path: str) -> Table:
    """Table of the perturbations. The caption names the split and the number of images."""
    split, images = table["split"].iloc[0], table["images"].iloc[0]
    caption = f"{split}: metrics by perturbation and level, {images} images"
    return excerpt(table.drop(columns=["split", "images"]), caption, path)


def _caption(path: str) -> str:
    return label(PurePosixPath(path).stem).capitalize()


def _child_runs(record: RunRecord) -> Section:
    """Section of the child runs, with the names and ids by which MLflow's UI finds them."""
    shown = {
        "best/epoch": "chosen epoch",
        "best/val/auc": "val AUC",
        "held_out/auc": "held_out AUC",
        "test/auc": "test AUC",
    }
    recorded = {name for child in record.children for name in child.metrics}
    metrics = {n: text for n, text in shown.items() if n != "held_out/auc" or n in recorded}
    rows = [
        [child.name, child.status, *(_value(child.metrics, name) for name in metrics), child.id]
        for child in record.children
    ]
    columns = ["run", "status", *metrics.values(), "run id"]
    table = Table("Name, status and main metrics", pd.DataFrame(rows, columns=columns))
    return Section("Child runs", tables=(table,) if rows else ())


def _value(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    return format_number(metrics[name], whole=name.endswith(("epoch", "epochs")))


def _folds(folds: pd.DataFrame, path: str) -> list[Table]:
    """Tables with a row per metric and a column per fold, their mean and standard deviation."""
    numbers = folds.set_index(folds.columns[0]).apply(pd.to_numeric, errors="coerce")
    columns = ["metric", *(f"fold {fold}" for fold in numbers.index), "mean ± std"]
    note = (
        f"Other metrics are in {path}. The standard deviation is not a confidence interval, since "
        "the folds share most of their training images."
    )
    tables = []
    for prefix, caption in _FOLDS.items():
        rows = [
            [
                title,
                *map(format_metric, values),
                f"{format_metric(values.mean())} ± {format_metric(values.std(ddof=1))}",
            ]
            for name, values in numbers.items()
            if str(name).startswith(prefix)
            and (title := _row_title(str(name).removeprefix(prefix)))
        ]
        if rows:
            tables.append(Table(caption, pd.DataFrame(rows, columns=columns), note))
    return tables


def _row_title(name: str) -> str:
    """Title of a metric's row; empty for a metric that the table does not show."""
    *generator, last = name.removeprefix("generator/").split("/")
    if generator:
        return f"{'/'.join(generator)}: {label(last)}" if last == "auc" else ""
    return label(last) if last in MAIN_METRICS else ""


def _data(artifacts: Artifacts) -> Section:
    tables = []
    counts = artifacts.take_table("data/counts.csv")
    if counts is not None:
        tables.append(_counts(counts))
    for path in artifacts.find("data/excluded.csv"):
        excluded = artifacts.take_table(path)
        if excluded is not None:
            tables.append(excerpt(excluded, _CAPTIONS[path], path))
    return Section("Data", tables=tuple(tables))


def _counts(counts: pd.DataFrame) -> Table:
    """Table of the number of images by label and generator, with a column per split."""
    if not {"split", "label", "generator", "images"} <= set(counts):
        return excerpt(counts, "Number of images", "data/counts.csv")
    numbers = counts.assign(images=pd.to_numeric(counts["images"], errors="coerce"))
    wide = numbers.pivot_table(
        index=["label", "generator"], columns="split", values="images", aggfunc="sum", sort=False
    )
    wide = wide[in_order(wide.columns)]
    wide.loc[("all", ""), :] = wide.sum()
    rows = wide.map(lambda n: "" if n != n else f"{n:,.0f}").reset_index()
    rows.columns = [str(column) for column in rows.columns]
    return Table("Number of images by label, generator and split", rows)


def _training(record: RunRecord, artifacts: Artifacts) -> Section:
    facts = {
        shown: _value(record.metrics, name)
        for name, shown in _TRAINING.items()
        if name in record.metrics
    }
    if not any(name.startswith("train/") for name in record.metrics):
        facts = {}  # nothing was trained; the section of held-out images shows the decision
    known = {"chosen epoch": facts["chosen epoch"]} if "chosen epoch" in facts else {}
    if "best/val/auc" in record.metrics:
        known["validation AUC"] = format_metric(record.metrics["best/val/auc"])
    drawn = figures(artifacts, artifacts.find("figures/learning_curves.png"), "", known)
    table = Table("Training and decision", pd.DataFrame(facts.items(), columns=["fact", "value"]))
    return Section("Training", tables=(table,) if facts else (), figures=drawn)


def _options(record: RunRecord) -> Section:
    rows = [
        [name, value or "none"]
        for name, value in record.params.items()
        if "." in name and not name.startswith(_NOT_OPTIONS)
    ]
    if not rows:
        return Section("Options")
    caption = "All options of the command, with defaults"
    return Section(
        "Options", tables=(Table(caption, pd.DataFrame(rows, columns=["option", "value"])),)
    )


def _others(record: RunRecord, artifacts: Artifacts, splits: tuple[str, ...]) -> Section:
    """Section of everything that no other section shows: small tables in full, files by name."""
    tables = []
    groups = (*_COMPARISONS, *_DETAILS)
    covered = (*_KNOWN_METRICS, *(f"{split}/" for split in splits))
    covered += tuple(prefix for group in groups for prefix in group.covers)
    numbers = [
        [name, format_number(value)]
        for name, value in record.metrics.items()
        if not name.startswith(covered)
    ]
    if numbers:
        tables.append(Table("Other metrics", pd.DataFrame(numbers, columns=["metric", "value"])))
    for path in artifacts.find("*.csv"):
        table = artifacts.table(path) if artifacts.size(path) <= _INLINE_BYTES else None
        # Tables of images and long tables are for programs.
        if table is not None and "path" not in table and 0 < len(table) <= _INLINE_ROWS:
            artifacts.take_table(path)
            tables.append(excerpt(table, path, path))
    loose = [path for path in artifacts.find("*.png") if not path.startswith(_LISTED_ONLY)]
    drawn = figures(artifacts, loose, "", {})
    hidden = (REPORT, CARD, "config.json")
    remaining = [path for path in artifacts.remaining() if path not in hidden]
    folders = {str(PurePosixPath(path).parent): None for path in remaining}
    listed = []
    for folder in folders:
        paths = [path for path in remaining if str(PurePosixPath(path).parent) == folder]
        if len(paths) > _LISTED_SINGLY or folder.startswith(_LISTED_ONLY):
            size = sum(map(artifacts.size, paths))
            listed.append([f"{folder}/ ({len(paths):,} files)", _bytes(size), ""])
        else:
            listed += [[p, _bytes(artifacts.size(p)), _rows(artifacts, p)] for p in paths]
    if listed:
        columns = ["artifact", "size", "rows"]
        caption = "Artifacts that are not shown here"
        tables.append(Table(caption, pd.DataFrame(listed, columns=columns)))
    return Section("Other metrics and artifacts", tables=tuple(tables), figures=drawn)


def _rows(artifacts: Artifacts, path: str) -> str:
    rows = artifacts.rows(path) if path.endswith(".csv") else None
    return "" if rows is None else f"{rows:,}"


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{-(-size // 1024):,} KiB"
