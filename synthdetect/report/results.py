"""Report sections of results: the main metrics, all metrics, and tables and figures by split."""

from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from synthdetect.datasets.schema import HELD_OUT
from synthdetect.evaluation.attribution import METRICS as ATTRIBUTION_METRICS
from synthdetect.evaluation.metrics import METRICS
from synthdetect.evaluation.predictions import CONTROL, sampling_unit
from synthdetect.report.page import Section, Table
from synthdetect.report.parts import excerpt, figures
from synthdetect.report.record import Artifacts
from synthdetect.report.text import (
    UNDEFINED,
    format_interval,
    format_metric,
    format_number,
    format_table,
    is_number,
    label,
)
from synthdetect.tracking.records import RunRecord

ORACLE = "metrics at the oracle threshold, which is chosen on these same images (not a result)"

Splits = dict[str, pd.DataFrame]
"""By split, a table indexed by metric with the columns value, low and high as text."""

_GLANCE = ("auc", "balanced_accuracy", "f1", "ece")
_DETAILS = (
    "_oracle", "_generators", "_slices", "_matrix", "_attribution", "_attribution_metrics",
)  # fmt: skip
"""Suffixes of the tables that hold details of a split."""

_FIRST, _LAST = ("oof", HELD_OUT, "test"), ("val",)
_SUMMARIES = ("(mean)", "(worst)")
"""Rows of the generators' table that summarise all generators."""

_DEFINITIONS = {
    **METRICS,
    CONTROL: "AUC of this split's images, all real, against the real test images; 0.5 is ideal",
}

_IN_TABLES = (
    "generator/", "generators/", "oracle/", CONTROL, "robustness/", "equalised/", "matrix/",
    "attribution/",
)  # fmt: skip
"""Prefixes of a split's metrics that are shown in its tables."""


def read_splits(artifacts: Artifacts) -> Splits:
    """Read the metrics of the evaluated splits.

    Splits that were only tested on come first; val, on which choices were made, comes last.
    """
    found: Splits = {}
    for path in artifacts.find("evaluation/*.csv"):
        name = PurePosixPath(path).stem
        table = artifacts.table(path)
        if table is not None and not name.endswith(_DETAILS) and _is_overall(table):
            columns = ["value", "low", "high"]
            by_metric = table.drop_duplicates("metric").set_index("metric")
            found[name] = by_metric.reindex(columns=columns, fill_value="")
    order = [*_FIRST, *(name for name in found if name not in _FIRST + _LAST), *_LAST]
    return {name: found[name] for name in order if name in found}


def _is_overall(table: pd.DataFrame) -> bool:
    columns = [column for column in ("value", "low", "high") if column in table]
    return {"metric", "value"} <= set(table) and all(
        is_number(cell) for cell in table[columns].to_numpy().flat if cell != ""
    )


def glance(record: RunRecord, artifacts: Artifacts, splits: Splits) -> Section:
    """Section of the main metrics, with one row per split."""
    rows = {
        split: {
            "images": _count(artifacts.rows(f"predictions/{split}.csv")),
            **{label(name): _value(overall, name) for name in _GLANCE},
            label(CONTROL): _control(record, split, overall),
        }
        for split, overall in splits.items()
    }
    if not rows:
        return Section("")
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("split").reset_index()
    notes = [f"In brackets: 95 % confidence intervals by {_unit(artifacts, splits)}."]
    if "oof" in splits:
        notes.append("oof: each image is scored by the fold model that was not trained on it.")
    if "val" in splits and "best/val/auc" in record.metrics:
        notes.append("The epoch, the temperature and the threshold are chosen on val.")
    if (table[label(CONTROL)] == "").all():
        table = table.drop(columns=label(CONTROL))
    else:
        notes.append(f"{label(CONTROL)}: {_DEFINITIONS[CONTROL]}.")
    return Section("At a glance", tables=(Table("Main metrics", table, " ".join(notes)),))


def _unit(artifacts: Artifacts, splits: Splits) -> str:
    """Return what the intervals are computed over: see `predictions.sampling_unit`."""
    tables = (artifacts.table(f"predictions/{split}.csv", ("source_id",)) for split in splits)
    units = {sampling_unit(table) for table in tables if table is not None}
    return units.pop() if len(units) == 1 else "source"


def _control(record: RunRecord, split: str, overall: pd.DataFrame) -> str:
    """AUC of a real-only split, which older runs recorded as a metric without an interval."""
    name = f"{split}/{CONTROL}"
    if CONTROL in overall.index or name not in record.metrics:
        return _value(overall, CONTROL)
    return format_metric(record.metrics[name])


def _count(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"


def _value(overall: pd.DataFrame, name: str) -> str:
    if name not in overall.index:
        return ""
    value, low, high = overall.loc[name, ["value", "low", "high"]]
    return format_metric(value) if low == high == "" else format_interval(value, low, high)


def results(
    record: RunRecord, artifacts: Artifacts, splits: Splits, trained_on: set[str] | None
) -> Section:
    """Section of all metrics of all splits, then each split's generators, slices and figures.

    Args:
        record: The run.
        artifacts: Artifacts of the run.
        splits: Metrics, from `read_splits`.
        trained_on: Generators that the model was trained on; None if they are unknown.
    """
    tables = (_all_metrics(artifacts, splits),) if splits else ()
    parts = tuple(_split(record, artifacts, splits, name, trained_on) for name in splits)
    return Section("Results", tables=tables, sections=parts)


def _all_metrics(artifacts: Artifacts, splits: Splits) -> Table:
    known = [name for name in METRICS if any(name in table.index for table in splits.values())]
    found = [name for table in splits.values() for name in table.index]
    names = list(dict.fromkeys(known + found))
    rows = pd.DataFrame({"metric": [label(name) for name in names]})
    for split, table in splits.items():
        artifacts.take_table(f"evaluation/{split}.csv")
        rows[split] = [_value(table, name) for name in names]
    rows["definition"] = [_DEFINITIONS.get(name, "") for name in names]
    return Table("All metrics with 95 % confidence intervals", rows)


def _split(
    record: RunRecord, artifacts: Artifacts, splits: Splits, name: str, trained_on: set[str] | None
) -> Section:
    numbers = {label(row): _value(splits[name], row) for row in splits[name].index}
    if "decision/threshold" in record.metrics:
        numbers["threshold"] = format_metric(record.metrics["decision/threshold"])
    tables = []
    generators = artifacts.take_table(f"evaluation/{name}_generators.csv")
    if generators is not None:
        numbers |= _extremes(generators)
        tables.append(_generators(generators, name, trained_on))
    path = f"evaluation/{name}_slices.csv"
    slices = artifacts.take_table(path)
    if slices is not None:
        tables.append(excerpt(slices, f"{name}: metrics by slice", path))
    path = f"evaluation/{name}_matrix.csv"
    matrix = artifacts.take_table(path)
    if matrix is not None:
        caption = f"{name}: each generator against each group of real images"
        tables.append(excerpt(matrix, caption, path))
    tables += _attribution(artifacts, name)
    path = f"spectra/{name}_fingerprints.csv"
    spectra = artifacts.take_table(path)
    if spectra is not None:
        caption = (
            f"{name}: greatest difference of each mean spectrum from that of the real images "
            "(frequency in cycles per pixel)"
        )
        tables.append(excerpt(spectra, caption, path))
    others = _others(record, name)
    oracle = artifacts.take_table(f"evaluation/{name}_oracle.csv")
    if oracle is not None:
        shown = format_table(oracle)
        shown.iloc[:, 0] = [label(row) for row in shown.iloc[:, 0]]
        threshold = others.pop("oracle/threshold", "")
        note = f"The oracle threshold is {threshold}." if threshold else ""
        tables.append(Table(f"{name}: {ORACLE}", shown, note))
    if others:
        rows = [(label(row), value) for row, value in others.items()]
        caption = f"{name}: other metrics"
        tables.append(Table(caption, pd.DataFrame(rows, columns=["metric", "value"])))
    drawn = figures(artifacts, artifacts.find(f"figures/{_literal(name)}/*.png"), name, numbers)
    return Section(f"Split: {name}", tables=tuple(tables), figures=drawn)


def _generators(table: pd.DataFrame, split: str, trained_on: set[str] | None) -> Table:
    """Table of the generators, with whether each was trained on, if that is known."""
    is_summary = pd.Series(False, index=table.index)
    if "generator" in table:
        is_summary = table["generator"].isin(_SUMMARIES)
    if trained_on is not None and "generator" in table:
        seen = table["generator"].isin(trained_on).map({True: "yes", False: "no"})
        table.insert(1, "in_training", seen.mask(is_summary, ""))
    path = f"evaluation/{split}_generators.csv"
    shown = excerpt(table, f"{split}: each generator against all real images", path)
    # Only the AUC is summarised over generators. The other cells stay empty: not "undefined".
    rows = shown.rows.mask(is_summary.head(len(shown.rows)), shown.rows.replace(UNDEFINED, ""))
    return replace(shown, rows=rows)


def _attribution(artifacts: Artifacts, split: str) -> list[Table]:
    """Tables of the answers to the images of each generator, and of the metrics of attribution."""
    tables = []
    path = f"evaluation/{split}_attribution.csv"
    answers = artifacts.take_table(path)
    if answers is not None:
        caption = f"{split}: number of each answer to the images of each generator"
        note = "Real: not called synthetic. Unknown: no known generator is probable enough."
        tables.append(excerpt(answers, caption, path, note))
    path = f"evaluation/{split}_attribution_metrics.csv"
    metrics = artifacts.take_table(path)
    if metrics is not None:
        if "metric" in metrics:
            known = metrics["metric"].map(ATTRIBUTION_METRICS)
            metrics = metrics.assign(metric=known.fillna(metrics["metric"]))
        tables.append(excerpt(metrics, f"{split}: attribution to generators", path))
    return tables


def _others(record: RunRecord, split: str) -> dict[str, str]:
    """Metrics of a split that none of its tables shows, by name."""
    trained = any(name.startswith("best/val/") for name in record.metrics)
    prefix = "best/val/" if split == "val" and trained else f"{split}/"
    names = [name.removeprefix(prefix) for name in record.metrics if name.startswith(prefix)]
    kept = [n for n in names if n not in METRICS and not n.startswith(_IN_TABLES)]
    kept += [n for n in names if n == "oracle/threshold"]
    return {name: format_number(record.metrics[prefix + name]) for name in kept}


def _extremes(generators: pd.DataFrame) -> dict[str, str]:
    """The generators with the lowest and the highest AUC, as text."""
    if not {"generator", "auc"} <= set(generators):
        return {}
    table = generators[~generators["generator"].isin(_SUMMARIES)]
    auc = pd.to_numeric(table["auc"], errors="coerce").dropna()
    if auc.empty:
        return {}
    names = {"lowest generator": auc.idxmin(), "highest generator": auc.idxmax()}
    return {
        which: f"{table.loc[row, 'generator']} {format_metric(auc[row])}"
        for which, row in names.items()
    }


def _literal(name: str) -> str:
    """Escape the wildcards of a name for use in a pattern of paths."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
