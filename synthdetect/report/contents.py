"""Which section shows what of a run, whatever command made it.

Everything is found by where it lies among the artifacts. What no section knows is shown or named at
the end, so that nothing a run has is missing from its report without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from synthdetect import __version__
from synthdetect.report.held_out import CARD, held_out, in_order, trained_on
from synthdetect.report.page import Report, Section, Table
from synthdetect.report.parts import MAIN, excerpt, figures
from synthdetect.report.record import Artifacts, RunRecord
from synthdetect.report.results import glance, read_splits, results
from synthdetect.report.text import label, metric, number

REPORT = "report.html"
"""The artifact that a report is."""

KINDS = {
    "train": "Training run",
    "cv": "Cross-validation",
    "fold": "One fold of a cross-validation",
    "refit": "Final training on train and val together",
    "evaluate": "Evaluation",
    "regimes": "Comparison of regimes",
    "regime": "One training of a comparison",
    "audit": "Audit of the data",
    "predict": "Predictions",
    "sweep": "Sweep",
    "reproduce": "Reproduction of a run",
}
"""What a run is called by its tag `synthdetect.kind`; others are called by the tag."""


@dataclass(frozen=True)
class Group:
    """Artifacts that make one section.

    Attributes:
        title: of the section.
        tables: patterns of their paths.
        figures: likewise.
        of_splits: names of figures that each split has in its folder.
        numbers: prefix of the metrics that are listed too; those in the tables need none.
        covers: prefixes of metrics that need not be listed anywhere else.
        text: how to read it.
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
        text="The recorded run was done again from its own options, seed and data, and everything "
        "that both came to was compared. Equal means equal in every bit; how long things took is "
        "no result.",
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
        ("evaluation/conditions.csv", "evaluation/robustness.csv", "evaluation/*_robustness.csv"),
        of_splits=("robustness", "robustness_generators"),
        text="The same images after changes such as sharing makes, and equalised: all shrunk a "
        "little and encoded alike. Threshold and calibration are those of the images as they are; "
        "the change of AUC is paired, the same sources drawn for both.",
    ),
    Group(
        "Data audit",
        ("audit/findings.csv", "audit/*.csv"),
        ("figures/audit/*.png", "audit/*.png"),
        numbers="audit/",
        covers=("audit/",),
        text="What besides generation tells the classes or splits apart, and what is wrong with "
        "the files.",
    ),
)
_CAPTIONS = {
    "regimes/tables.csv": "The paper's tables, and ours",
    "regimes/effects.csv": "What each change does by itself",
    "regimes/cells.csv": "Each training",
    "sweep/comparison.csv": "Each variant",
    "sweep/verdicts.csv": "Verdicts",
    "predictions/agreement.csv": "How far the models agree",
    "predictions/unreadable.csv": "Images that cannot be read",
    "evaluation/conditions.csv": "Images as they are (raw) and equalised",
    "reproduction/summary.csv": "What was compared, and how much of it differs",
    "reproduction/compared.csv": "Each tensor, metric and prediction, the largest difference first",
    "reproduction/settings.csv": "What is otherwise than in the recorded run, and may be why",
    "reproduction/data.csv": "What has changed in the data",
    "audit/findings.csv": "Findings",
    "data/excluded.csv": "Unreadable images that were left out",
}
_FOLDS = {"best/val/": "Images that each fold held out", "test/": "Test images"}
"""Captions by the prefix of the metrics in `cv/folds.csv`."""

_TRAINING = {
    "best/epoch": "chosen epoch",
    "refit/epochs": "epochs of the final training",
    "decision/threshold": "threshold",
    "decision/temperature": "temperature",
    "train/loss": "training loss of the last epoch",
    "val/loss": "validation loss of the last epoch",
    "images_per_second": "images a second in the last epoch",
}
_NOT_OPTIONS = ("hardware.", "version.", "model.start", "data.digest")
_KNOWN_METRICS = ("system/", "data/", "train/", "val/", "best/", "decision/", "lr", *_TRAINING)
_INLINE_BYTES, _INLINE_ROWS = 20_000, 50
_NAMED_ONLY = ("explain/",)
"""Folders of single pictures that a figure shows together."""

_MOST_NAMED = 4  # files of a folder that are named one by one


def build(record: RunRecord) -> Report:
    """The report of a run."""
    artifacts = Artifacts(record)
    kind = record.tags.get("synthdetect.kind", "")
    splits = read_splits(artifacts)
    comparisons = [_group(record, artifacts, group) for group in _COMPARISONS]
    # Before the results, which take all figures of a split that are left.
    details = [_group(record, artifacts, group, tuple(splits)) for group in _DETAILS]
    sections = [
        glance(record, artifacts, splits),
        *comparisons,
        _children(record),
        held_out(record, artifacts, kind),
        results(record, artifacts, splits, trained_on(artifacts)),
        *details,
        _data(artifacts),
        _training(record, artifacts),
        _options(record),
        _further(record, artifacts, tuple(splits)),
    ]
    return Report(
        title=KINDS.get(kind) or kind or "Run",
        subtitle=record.name,
        facts=_facts(record),
        warnings=_warnings(record),
        sections=tuple(section for section in sections if not section.is_empty),
    )


def _facts(record: RunRecord) -> dict[str, str]:
    tags = record.tags
    # A cross-validation leaves device and versions to its folds.
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
        "Reproduces run": tags.get("synthdetect.reproduces", ""),
        "Status": record.status,
        "Started": record.started,
        "Took": _duration(record.seconds),
        "Data": tags.get("synthdetect.data", params.get("data.data", "")),
        "Device": ", ".join(part for part in hardware if part),
        "Report by": f"synthdetect {__version__}",
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
        found.append(f"This run is {record.status}; what it logged until then follows. {error}")
    unfinished = [child.name for child in record.children if child.status != "FINISHED"]
    if unfinished:
        found.append(f"Runs inside it that did not finish: {', '.join(unfinished)}.")
    if record.tags.get("git.dirty") == "true":
        found.append("The code had uncommitted changes: the commit alone does not do this again.")
    if record.params.get("model.start") == "random":
        found.append("Training started from random weights.")
    return tuple(found)


def _group(
    record: RunRecord, artifacts: Artifacts, group: Group, splits: tuple[str, ...] = ()
) -> Section:
    tables, warnings = [], []
    numbers = {
        label(name.removeprefix(group.numbers)): number(value)
        for name, value in record.metrics.items()
        if group.numbers and name.startswith(group.numbers)
    }
    if numbers:
        tables.append(Table("Numbers", pd.DataFrame(numbers.items(), columns=["what", "value"])))
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
        known["AUC of the folds"] = f"{metric(mean)} ± {metric(deviation)}"
    drawn = figures(artifacts, artifacts.find(*group.figures), "", known)
    for split in splits:
        paths = [f"figures/{split}/{name}.png" for name in group.of_splits]
        drawn += figures(artifacts, [p for p in paths if p in artifacts.left()], split, known)
    text = (group.text,) if group.text and (tables or drawn) else ()
    return Section(group.title, tuple(warnings), text, tuple(tables), drawn)


def _perturbed(table: pd.DataFrame, path: str) -> Table:
    """A row a perturbation; what all rows have in common stands above them."""
    split, images = table["split"].iloc[0], table["images"].iloc[0]
    caption = f"{split}: each change and its strength, {images} images"
    return excerpt(table.drop(columns=["split", "images"]), caption, path)


def _caption(path: str) -> str:
    return label(PurePosixPath(path).stem).capitalize()


def _children(record: RunRecord) -> Section:
    """The runs inside a run, by the names and ids that the UI finds them by."""
    metrics = {"best/epoch": "chosen epoch", "best/val/auc": "val AUC", "test/auc": "test AUC"}
    rows = [
        [child.name, child.status, *(_number(child.metrics, name) for name in metrics), child.id]
        for child in record.children
    ]
    columns = ["run", "status", *metrics.values(), "run id"]
    table = Table("Each run", pd.DataFrame(rows, columns=columns))
    return Section("Runs inside this one", tables=(table,) if rows else ())


def _number(metrics: Mapping[str, float], name: str) -> str:
    return (
        number(metrics[name], whole=name.endswith(("epoch", "epochs"))) if name in metrics else ""
    )


def _folds(folds: pd.DataFrame, path: str) -> list[Table]:
    """A metric a row and a fold a column, with their mean and standard deviation."""
    numbers = folds.set_index(folds.columns[0]).apply(pd.to_numeric, errors="coerce")
    columns = ["metric", *(f"fold {fold}" for fold in numbers.index), "mean ± std"]
    note = (
        f"Further metrics are in {path}. The deviation is no interval: folds share most of their "
        "training images."
    )
    tables = []
    for prefix, caption in _FOLDS.items():
        rows = [
            [title, *map(metric, values), f"{metric(values.mean())} ± {metric(values.std(ddof=1))}"]
            for name, values in numbers.items()
            if str(name).startswith(prefix) and (title := _row(str(name).removeprefix(prefix)))
        ]
        if rows:
            tables.append(Table(caption, pd.DataFrame(rows, columns=columns), note))
    return tables


def _row(name: str) -> str:
    """The title of a metric's row; empty for one of those that are left to the artifact."""
    *generator, last = name.removeprefix("generator/").split("/")
    if generator:
        return f"{'/'.join(generator)}: {label(last)}" if last == "auc" else ""
    return label(last) if last in MAIN else ""


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
    """Images by label and generator, a split a column."""
    if not {"split", "label", "generator", "images"} <= set(counts):
        return excerpt(counts, "Images", "data/counts.csv")
    numbers = counts.assign(images=pd.to_numeric(counts["images"], errors="coerce"))
    wide = numbers.pivot_table(
        index=["label", "generator"], columns="split", values="images", aggfunc="sum", sort=False
    )
    wide = wide[in_order(wide.columns)]
    wide.loc[("all", ""), :] = wide.sum()
    rows = wide.map(lambda n: "" if n != n else f"{n:,.0f}").reset_index()
    rows.columns = [str(column) for column in rows.columns]
    return Table("Images by label and generator, in each split", rows)


def _training(record: RunRecord, artifacts: Artifacts) -> Section:
    facts = {
        shown: _number(record.metrics, name)
        for name, shown in _TRAINING.items()
        if name in record.metrics
    }
    if not any(name.startswith("train/") for name in record.metrics):
        facts = {}  # nothing was trained here; the decision stands with what was held out
    known = {"chosen epoch": facts["chosen epoch"]} if "chosen epoch" in facts else {}
    if "best/val/auc" in record.metrics:
        known["validation AUC"] = metric(record.metrics["best/val/auc"])
    drawn = figures(artifacts, artifacts.find("figures/learning_curves.png"), "", known)
    table = Table("Training and decision", pd.DataFrame(facts.items(), columns=["what", "value"]))
    return Section("Training", tables=(table,) if facts else (), figures=drawn)


def _options(record: RunRecord) -> Section:
    rows = [
        [name, value or "none"]
        for name, value in record.params.items()
        if "." in name and not name.startswith(_NOT_OPTIONS)
    ]
    if not rows:
        return Section("Options")
    caption = "Every option of the command, as it was understood"
    return Section(
        "Options", tables=(Table(caption, pd.DataFrame(rows, columns=["option", "value"])),)
    )


def _further(record: RunRecord, artifacts: Artifacts, splits: tuple[str, ...]) -> Section:
    """What no other section knows: shown if it is small, else named."""
    tables = []
    groups = (*_COMPARISONS, *_DETAILS)
    covered = (*_KNOWN_METRICS, *(f"{split}/" for split in splits))
    covered += tuple(prefix for group in groups for prefix in group.covers)
    numbers = [
        [name, number(value)]
        for name, value in record.metrics.items()
        if not name.startswith(covered)
    ]
    if numbers:
        tables.append(Table("Further numbers", pd.DataFrame(numbers, columns=["metric", "value"])))
    for path in artifacts.find("*.csv"):
        table = artifacts.table(path) if artifacts.size(path) <= _INLINE_BYTES else None
        # A table of images is for programs; so is a long one.
        if table is not None and "path" not in table and 0 < len(table) <= _INLINE_ROWS:
            artifacts.take_table(path)
            tables.append(excerpt(table, path, path))
    loose = [path for path in artifacts.find("*.png") if not path.startswith(_NAMED_ONLY)]
    drawn = figures(artifacts, loose, "", {})
    left = [path for path in artifacts.left() if path not in (REPORT, CARD, "config.json")]
    folders = {str(PurePosixPath(path).parent): None for path in left}
    named = []
    for folder in folders:
        paths = [path for path in left if str(PurePosixPath(path).parent) == folder]
        if len(paths) > _MOST_NAMED or folder.startswith(_NAMED_ONLY):
            size = sum(map(artifacts.size, paths))
            named.append([f"{folder}/ ({len(paths):,} files)", _bytes(size), ""])
        else:
            named += [[p, _bytes(artifacts.size(p)), _rows(artifacts, p)] for p in paths]
    if named:
        columns = ["artifact", "size", "rows"]
        caption = "Artifacts that are not shown here"
        tables.append(Table(caption, pd.DataFrame(named, columns=columns)))
    return Section("Further", tables=tuple(tables), figures=drawn)


def _rows(artifacts: Artifacts, path: str) -> str:
    rows = artifacts.rows(path) if path.endswith(".csv") else None
    return "" if rows is None else f"{rows:,}"


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{-(-size // 1024):,} KiB"
