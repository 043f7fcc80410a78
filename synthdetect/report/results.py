"""What a run measured: at a glance, every metric, and each split's tables and figures."""

from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from synthdetect.evaluation.metrics import METRICS
from synthdetect.evaluation.predictions import CONTROL
from synthdetect.report.page import Section, Table
from synthdetect.report.parts import excerpt, figures
from synthdetect.report.record import Artifacts, RunRecord
from synthdetect.report.text import (
    UNDEFINED,
    interval,
    is_number,
    label,
    metric,
    number,
    readable,
)

ORACLE = "oracle threshold, chosen on these very images: not a result"

Splits = dict[str, pd.DataFrame]
"""By split: metric, value, low and high as text, indexed by metric."""

_GLANCE = ("auc", "balanced_accuracy", "f1", "ece")
_PARTS = ("_oracle", "_generators", "_slices")
_FIRST, _LAST = ("oof", "test"), ("val",)
_TOGETHER = ("(mean)", "(worst)")
"""Rows of the generators' table that stand for all of them."""

_DEFINITIONS = {
    **METRICS,
    CONTROL: "how far images that are all real are told from the test's real images; 0.5 is wanted",
}

_IN_TABLES = (
    "generator/", "generators/", "oracle/", CONTROL, "robustness/", "equalised/",
)  # fmt: skip
"""What begins the names of a split's metrics that stand in its tables."""


def read_splits(artifacts: Artifacts) -> Splits:
    """The splits that were evaluated: what reports first, what was chosen on last."""
    found: Splits = {}
    for path in artifacts.find("evaluation/*.csv"):
        name = PurePosixPath(path).stem
        table = artifacts.table(path)
        if table is not None and not name.endswith(_PARTS) and _is_overall(table):
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
    """The numbers one looks at first, a row a split."""
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
    notes = ["In brackets: 95 % intervals by bootstrap over whole sources, never over files."]
    if "oof" in splits:
        notes.append("oof: each image scored by the fold's model that had not trained on it.")
    if "val" in splits and "best/val/auc" in record.metrics:
        notes.append("Epoch, temperature and threshold are chosen on val.")
    if (table[label(CONTROL)] == "").all():
        table = table.drop(columns=label(CONTROL))
    else:
        notes.append(f"{label(CONTROL)}: {_DEFINITIONS[CONTROL]}.")
    return Section("At a glance", tables=(Table("Main metrics", table, " ".join(notes)),))


def _control(record: RunRecord, split: str, overall: pd.DataFrame) -> str:
    """A real-only split's AUC; older runs recorded it without an interval, as a metric alone."""
    name = f"{split}/{CONTROL}"
    if CONTROL in overall.index or name not in record.metrics:
        return _value(overall, CONTROL)
    return metric(record.metrics[name])


def _count(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"


def _value(overall: pd.DataFrame, name: str) -> str:
    if name not in overall.index:
        return ""
    value, low, high = overall.loc[name, ["value", "low", "high"]]
    return metric(value) if low == high == "" else interval(value, low, high)


def results(
    record: RunRecord, artifacts: Artifacts, splits: Splits, trained_on: set[str] | None
) -> Section:
    """Every metric of every split, then each split's generators, slices and figures.

    Args:
        record: of the run.
        artifacts: of the run.
        splits: from `read_splits`.
        trained_on: the generators that were trained on, None where that is not known.
    """
    tables = (_all_metrics(artifacts, splits),) if splits else ()
    parts = tuple(_split(record, artifacts, splits, name, trained_on) for name in splits)
    return Section("Results", tables=tables, sections=parts)


def _all_metrics(artifacts: Artifacts, splits: Splits) -> Table:
    known = [
        metric for metric in METRICS if any(metric in table.index for table in splits.values())
    ]
    further = [name for table in splits.values() for name in table.index]
    names = list(dict.fromkeys(known + further))
    rows = pd.DataFrame({"metric": [label(name) for name in names]})
    for split, table in splits.items():
        artifacts.take_table(f"evaluation/{split}.csv")
        rows[split] = [_value(table, name) for name in names]
    rows["what it is"] = [_DEFINITIONS.get(name, "") for name in names]
    return Table("All metrics, with 95 % intervals", rows)


def _split(
    record: RunRecord, artifacts: Artifacts, splits: Splits, name: str, trained_on: set[str] | None
) -> Section:
    numbers = {label(row): _value(splits[name], row) for row in splits[name].index}
    if "decision/threshold" in record.metrics:
        numbers["threshold"] = metric(record.metrics["decision/threshold"])
    tables = []
    generators = artifacts.take_table(f"evaluation/{name}_generators.csv")
    if generators is not None:
        numbers |= _extremes(generators)
        tables.append(_generators(generators, name, trained_on))
    path = f"evaluation/{name}_slices.csv"
    slices = artifacts.take_table(path)
    if slices is not None:
        tables.append(excerpt(slices, f"{name}: parts of it", path))
    path = f"spectra/{name}_fingerprints.csv"
    spectra = artifacts.take_table(path)
    if spectra is not None:
        caption = f"{name}: where spectra differ from the real images' (frequency 1: the finest)"
        tables.append(excerpt(spectra, caption, path))
    further = _further(record, name)
    oracle = artifacts.take_table(f"evaluation/{name}_oracle.csv")
    if oracle is not None:
        shown = readable(oracle)
        shown.iloc[:, 0] = [label(row) for row in shown.iloc[:, 0]]
        threshold = further.pop("oracle/threshold", "")
        note = f"That threshold would be {threshold}." if threshold else ""
        tables.append(Table(f"{name}: {ORACLE}", shown, note))
    if further:
        rows = [(label(row), value) for row, value in further.items()]
        caption = f"{name}: further numbers"
        tables.append(Table(caption, pd.DataFrame(rows, columns=["what", "value"])))
    drawn = figures(artifacts, artifacts.find(f"figures/{_literal(name)}/*.png"), name, numbers)
    return Section(f"Images of {name}", tables=tuple(tables), figures=drawn)


def _generators(table: pd.DataFrame, split: str, trained_on: set[str] | None) -> Table:
    """Each generator, with whether it was trained on where that is known."""
    together = pd.Series(False, index=table.index)
    if "generator" in table:
        together = table["generator"].isin(_TOGETHER)
    if trained_on is not None and "generator" in table:
        seen = table["generator"].isin(trained_on).map({True: "yes", False: "no"})
        table.insert(1, "in_training", seen.mask(together, ""))
    path = f"evaluation/{split}_generators.csv"
    shown = excerpt(table, f"{split}: each generator against all real images", path)
    # Only the AUC is summed up over generators; the other metrics are not undefined there.
    rows = shown.rows.mask(together.head(len(shown.rows)), shown.rows.replace(UNDEFINED, ""))
    return replace(shown, rows=rows)


def _further(record: RunRecord, split: str) -> dict[str, str]:
    """Metrics of a split that stand in none of its tables, by name."""
    trained = any(name.startswith("best/val/") for name in record.metrics)
    prefix = "best/val/" if split == "val" and trained else f"{split}/"
    names = [name.removeprefix(prefix) for name in record.metrics if name.startswith(prefix)]
    kept = [n for n in names if n not in METRICS and not n.startswith(_IN_TABLES)]
    kept += [n for n in names if n == "oracle/threshold"]
    return {name: number(record.metrics[prefix + name]) for name in kept}


def _extremes(generators: pd.DataFrame) -> dict[str, str]:
    """The generators with the lowest and the highest AUC, in words."""
    if not {"generator", "auc"} <= set(generators):
        return {}
    table = generators[~generators["generator"].isin(_TOGETHER)]
    auc = pd.to_numeric(table["auc"], errors="coerce").dropna()
    if auc.empty:
        return {}
    names = {"lowest generator": auc.idxmin(), "highest generator": auc.idxmax()}
    return {
        which: f"{table.loc[row, 'generator']} {metric(auc[row])}" for which, row in names.items()
    }


def _literal(name: str) -> str:
    """A name within a pattern of paths, in which its brackets and stars mean themselves."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
