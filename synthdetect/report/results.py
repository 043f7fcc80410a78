"""What a run measured: at a glance, every metric, and each split's tables and figures."""

from pathlib import PurePosixPath

import pandas as pd

from synthdetect.evaluation.metrics import METRICS
from synthdetect.report.page import Section, Table
from synthdetect.report.parts import excerpt, figures
from synthdetect.report.record import Artifacts, Record
from synthdetect.report.text import interval, label, number, readable

ORACLE = "oracle threshold, chosen on these very images: not a result"

Splits = dict[str, pd.DataFrame]
"""By split: metric, value, low and high as text, indexed by metric."""

_GLANCE = ("auc", "balanced_accuracy", "real_accuracy", "fake_accuracy", "f1", "ece")
_PARTS = ("_oracle", "_generators", "_slices")
_FIRST, _LAST = ("oof", "test"), ("val",)


def read_splits(artifacts: Artifacts) -> Splits:
    """The splits that were evaluated: what reports first, what was chosen on last."""
    found: Splits = {}
    for path in artifacts.find("evaluation/*.csv"):
        name = PurePosixPath(path).stem
        table = artifacts.table(path)
        if table is not None and {"metric", "value"} <= set(table) and not name.endswith(_PARTS):
            found[name] = _by_metric(table)
    order = [*_FIRST, *(name for name in found if name not in _FIRST + _LAST), *_LAST]
    return {name: found[name] for name in order if name in found}


def _by_metric(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop_duplicates("metric").set_index("metric").reindex(
        columns=["value", "low", "high"], fill_value=""
    )  # fmt: skip


def glance(record: Record, artifacts: Artifacts, splits: Splits) -> Section:
    """The numbers one looks at first, a row a split."""
    rows = []
    for split, overall in splits.items():
        against_real = record.metrics.get(f"{split}/auc_against_real")
        cells = [_value(overall, metric) for metric in _GLANCE]
        if against_real is not None:
            cells[0] = f"{number(against_real)} against real (0.5 is wanted)"
        count = artifacts.rows(f"predictions/{split}.csv")
        rows.append([split, "" if count is None else f"{count:,}", *cells])
    if not rows:
        return Section("")
    columns = ["images of", "images", *(f"{label(metric)} [95 %]" for metric in _GLANCE)]
    notes = ["Brackets are 95 % intervals by bootstrap over whole sources, never over files."]
    if "val" in splits:
        notes.append("val is what epoch, temperature and threshold are chosen on.")
    table = Table("Results at a glance", pd.DataFrame(rows, columns=columns), " ".join(notes))
    return Section("At a glance", tables=(table,))


def _value(overall: pd.DataFrame, metric: str) -> str:
    if metric not in overall.index:
        return ""
    value, low, high = overall.loc[metric, ["value", "low", "high"]]
    return number(value) if low == high == "" else interval(value, low, high)


def results(
    record: Record, artifacts: Artifacts, splits: Splits, trained_on: set[str] | None
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
    further = {metric: None for table in splits.values() for metric in table.index}
    names = list(dict.fromkeys([*known, *further]))
    rows = pd.DataFrame({"metric": [label(name) for name in names]})
    for split, table in splits.items():
        artifacts.take_table(f"evaluation/{split}.csv")
        rows[f"{split} [95 %]"] = [_value(table, name) for name in names]
    rows["what it is"] = [METRICS.get(name, "") for name in names]
    return Table("All metrics, at the threshold from validation", rows)


def _split(
    record: Record, artifacts: Artifacts, splits: Splits, name: str, trained_on: set[str] | None
) -> Section:
    numbers = {label(metric): _value(splits[name], metric) for metric in splits[name].index}
    if "decision/threshold" in record.metrics:
        numbers["threshold"] = number(record.metrics["decision/threshold"])
    tables = []
    path = f"evaluation/{name}_generators.csv"
    generators = artifacts.take_table(path)
    if generators is not None:
        numbers |= _extremes(generators)
        if trained_on is not None and "generator" in generators:
            seen = ["yes" if g in trained_on else "no" for g in generators["generator"]]
            summary = generators["generator"].isin(["mean", "worst"])
            generators.insert(1, "in_training", seen)
            generators.loc[summary, "in_training"] = ""
        caption = f"{name}: each generator against all real images"
        tables.append(excerpt(generators, caption, path))
    path = f"evaluation/{name}_slices.csv"
    slices = artifacts.take_table(path)
    if slices is not None:
        tables.append(excerpt(slices, f"{name}: parts of it", path))
    path = f"evaluation/{name}_oracle.csv"
    oracle = artifacts.take_table(path)
    if oracle is not None:
        shown = readable(oracle).assign(metric=[label(m) for m in oracle.iloc[:, 0]])
        tables.append(Table(f"{name}: {ORACLE}", shown))
    drawn = figures(artifacts, artifacts.find(f"figures/{_literal(name)}/*.png"), name, numbers)
    return Section(f"Images of {name}", tables=tuple(tables), figures=drawn)


def _extremes(generators: pd.DataFrame) -> dict[str, str]:
    """The generators with the lowest and the highest AUC, in words."""
    if not {"generator", "auc"} <= set(generators):
        return {}
    table = generators[~generators["generator"].isin(["mean", "worst"])]
    auc = pd.to_numeric(table["auc"], errors="coerce").dropna()
    if auc.empty:
        return {}
    names = {"lowest generator": auc.idxmin(), "highest generator": auc.idxmax()}
    return {
        which: f"{table.loc[row, 'generator']} {number(float(auc[row]))}"
        for which, row in names.items()
    }


def _literal(name: str) -> str:
    """A name within a pattern of paths, in which its brackets and stars mean themselves."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
