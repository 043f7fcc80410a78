"""Summary of an evaluation as text."""

from collections.abc import Mapping

import pandas as pd

from synthdetect.evaluation.predictions import CONTROL, Evaluation


def summary_rows(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Return one row per split, and per generator of all splits except val."""
    rows = []
    for split, evaluation in evaluations.items():
        m = evaluation.overall.set_index("metric")
        auc = with_interval(*m.loc["auc"])
        if CONTROL in m.index:
            auc = f"{with_interval(*m.loc[CONTROL])} against real"
        cells = [_text(m.loc[name, "value"]) for name in ("accuracy", "f1", "ece")]
        rows.append((split, len(evaluation.predictions), auc, *cells))
        for g in evaluation.generators.to_dict(orient="records") if split != "val" else ():
            auc = with_interval(g["auc"], g["auc_low"], g["auc_high"])
            rows.append((f"  {split} / {g['generator']}", g["images"], auc, "", "", ""))
    return pd.DataFrame(rows, columns=["images of", "n", "AUC [95 %]", "accuracy", "F1", "ECE"])


def summary_markdown(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the table of `summary_rows` as Markdown."""
    return markdown(summary_rows(evaluations))


def markdown(table: pd.DataFrame) -> str:
    """Format a table as Markdown without escaping its cells."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.to_numpy()]
    return "\n".join(lines)


def with_interval(value: float, low: float, high: float) -> str:
    """Format a value with the bounds of its interval; nan becomes `undefined`."""
    return "undefined" if value != value else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _text(value: float) -> str:
    return "undefined" if value != value else f"{value:.3f}"
