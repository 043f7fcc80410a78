"""The answer at the top of a report: does it work, on what, and how sure is that."""

import math
from collections.abc import Collection

import pandas as pd

from synthdetect.evaluation.answer import answer, judged_split
from synthdetect.evaluation.predictions import CONTROL, sampling_unit
from synthdetect.report.record import Artifacts
from synthdetect.report.results import Splits
from synthdetect.report.text import format_number
from synthdetect.tracking.records import RunRecord


def answer_of(
    record: RunRecord, artifacts: Artifacts, splits: Splits, trained_on: Collection[str] | None
) -> tuple[str, ...]:
    """Return the answer that a run gives, as sentences; none if it has nothing to answer with.

    Args:
        record: The run.
        artifacts: Its artifacts; none is taken.
        splits: Metrics, from `results.read_splits`.
        trained_on: Generators that the model was trained on; None if they are unknown.
    """
    said = [
        *_reproduced(record),
        *_strategies(artifacts),
        *_regimes(artifacts),
        *_audited(record, artifacts),
        *_evaluated(artifacts, splits, trained_on),
    ]
    seed = record.params.get("optim.seed", "")
    if said and seed and not record.children:
        said.append(f"One training with seed {seed}.")
    return tuple(said)


def _evaluated(
    artifacts: Artifacts, splits: Splits, trained_on: Collection[str] | None
) -> list[str]:
    both = [split for split, table in splits.items() if not math.isnan(_number(table, "auc"))]
    split = judged_split(both) or next(iter(both), "")
    if not split:
        return []
    generators = artifacts.table(f"evaluation/{split}_generators.csv")
    if generators is None or not {"generator", "auc", "auc_low"} <= set(generators):
        generators = pd.DataFrame()
    else:
        numbers = generators[["auc", "auc_low"]].apply(pd.to_numeric, errors="coerce")
        generators = generators.assign(**numbers)
    control = next(
        (_row(table, CONTROL) for table in splits.values() if CONTROL in table.index), None
    )
    rows = artifacts.table(f"predictions/{split}.csv", ("source_id",))
    sources = 0
    if rows is not None and sampling_unit(rows) == "photograph":
        sources = rows["source_id"].nunique()
    return answer(
        split,
        splits[split].apply(pd.to_numeric, errors="coerce").reset_index(),
        generators,
        control=control,
        trained_on=trained_on,
        images=0 if rows is None else len(rows),
        sources=sources,
    )


def _row(table: pd.DataFrame, name: str) -> list[float]:
    return [float(v) for v in pd.to_numeric(table.loc[name, ["value", "low", "high"]], "coerce")]


def _number(table: pd.DataFrame, name: str) -> float:
    return _row(table, name)[0] if name in table.index else math.nan


def _reproduced(record: RunRecord) -> list[str]:
    verdict = record.tags.get("synthdetect.reproduced", "")
    return [f"The recorded run was repeated: {verdict}."] if verdict else []


def _strategies(artifacts: Artifacts) -> list[str]:
    table = artifacts.table("sweep/verdicts.csv")
    if table is None or not {"strategy", "verdict"} <= set(table):
        return []
    return [
        f"{verdict[:1].upper()}{verdict[1:]}: {', '.join(rows['strategy'])}."
        for verdict, rows in table.groupby("verdict", sort=False)
    ]


def _regimes(artifacts: Artifacts) -> list[str]:
    effects = artifacts.table("regimes/effects.csv")
    if effects is not None and {"change", "level", "on", "low", "high"} <= set(effects):
        low, high = (pd.to_numeric(effects[name], errors="coerce") for name in ("low", "high"))
        shown = effects[(low > 0) | (high < 0)]
        named = [f"{row['change']} ({row['level']}, on {row['on']})" for _, row in shown.iterrows()]
        return [
            f"Shown to change the AUC: {', '.join(named) or 'no difference'}. "
            f"{len(effects) - len(shown)} of {len(effects)} effects are not shown."
        ]
    table = artifacts.table("regimes/tables.csv")
    if table is None or not {"table", "regime", "metric", "ours"} <= set(table):
        return []
    rows = table[table["metric"].str.lower() == "auc"]
    said = []
    for name, part in rows.groupby("table", sort=False):
        values = [f"{r['regime']} {_shown(r['ours'])}" for _, r in part.iterrows()]
        said.append(f"AUC on {name}: {', '.join(values)}.")
    return said


def _shown(value: str) -> str:
    try:
        return format_number(value)
    except ValueError:
        return value


def _audited(record: RunRecord, artifacts: Artifacts) -> list[str]:
    table = artifacts.table("audit/findings.csv")
    if record.tags.get("synthdetect.kind") != "audit" or table is None:
        return []
    if not {"severity", "name"} <= set(table):
        return []
    warned = table.loc[table["severity"] == "warning", "name"]
    if warned.empty:
        return ["Nothing in the data was found to give the labels away or to be wrong with them."]
    return [f"The audit warns of {', '.join(warned)}: results on these data may not carry over."]
