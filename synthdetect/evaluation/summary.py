"""Summary of an evaluation as text."""

from collections.abc import Collection, Mapping

import pandas as pd

from synthdetect.evaluation.answer import answer, judged_split, main_results
from synthdetect.evaluation.attribution import METRICS
from synthdetect.evaluation.matrix import LEAST_SOURCES, WORST
from synthdetect.evaluation.predictions import CONTROL, Evaluation

_MOST_GROUPS = 8
_SHOWN = ("balanced_accuracy", "accuracy", "f1", "ece")


def summary_rows(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Return one row per split, and per generator of all splits except val.

    AUC and balanced accuracy come first: unlike the others, they do not depend on the share of real
    images.
    """
    rows = []
    for split, evaluation in evaluations.items():
        m = evaluation.overall.set_index("metric")
        auc = with_interval(*m.loc["auc"])
        if CONTROL in m.index:
            auc = f"{with_interval(*m.loc[CONTROL])} vs. real"
        cells = [_text(m.loc[name, "value"]) for name in _SHOWN]
        rows.append((split, len(evaluation.predictions), auc, *cells))
        for g in evaluation.generators.to_dict(orient="records") if split != "val" else ():
            auc = with_interval(g["auc"], g["auc_low"], g["auc_high"])
            rows.append((f"  {split} / {g['generator']}", g["images"], auc, "", "", "", ""))
    columns = ["images of", "n", "AUC [95 %]", "bal. acc.", "accuracy", "F1", "ECE"]
    return pd.DataFrame(rows, columns=columns)


def main_metrics(evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    """Return the metrics of `answer.main_results` of the split that judges; none without one."""
    split = _judged(evaluations)
    if not split:
        return {}
    return main_results(evaluations[split].overall, evaluations[split].generators)


def answer_words(evaluations: Mapping[str, Evaluation], trained_on: Collection[str] | None) -> str:
    """Return the answer of `answer.answer` on the split that judges, else on val, as a paragraph.

    Args:
        evaluations: Evaluations by split.
        trained_on: Generators that the detector was trained on; None if they are not known.
    """
    split = described_split(evaluations)
    if not split:
        return ""
    evaluation = evaluations[split]
    controls = (e.overall.set_index("metric") for e in evaluations.values())
    control = next((c.loc[CONTROL].tolist() for c in controls if CONTROL in c.index), None)
    table = evaluation.predictions
    return " ".join(
        answer(
            split,
            evaluation.overall,
            evaluation.generators,
            control=control,
            trained_on=trained_on,
            images=len(table),
            sources=table["source_id"].nunique() if evaluation.unit == "photograph" else 0,
        )
    )


def described_split(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the split that describes a run: the one that judges, else val; empty without both."""
    return _judged(evaluations) or ("val" if "val" in evaluations else "")


def _judged(evaluations: Mapping[str, Evaluation]) -> str:
    both = [s for s, e in evaluations.items() if e.predictions["label"].nunique() == 2]
    return judged_split(both)


def interval_note(evaluations: Mapping[str, Evaluation]) -> str:
    """Return in words what the intervals are computed over."""
    if all(evaluation.unit == "photograph" for evaluation in evaluations.values()):
        return "95 % intervals by photograph"
    return "95 % intervals by image: the data do not name the photographs (source_id)"


def summary_markdown(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the table of `summary_rows` and the note on its intervals as Markdown."""
    parts = [f"{markdown(summary_rows(evaluations))}\n\n{interval_note(evaluations)}."]
    for split, evaluation in evaluations.items():
        if len(evaluation.attribution) and split != "val":
            words = attribution_words(evaluation.attribution_metrics)  # none without generators
            rows = markdown(attribution_rows(evaluation.attribution))
            parts.append(f"Attribution on {split}{words and ': '}{words}.\n\n{rows}")
    return "\n\n".join(parts)


def attribution_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return `attribution.attribution_table` as text, with the answers as names of columns."""
    shown = table.rename(columns={"images_of": "images of", "in_training": "in training"})
    return shown.rename(columns=lambda name: name.removeprefix("as_")).astype(str)


def attribution_words(metrics: pd.DataFrame) -> str:
    """Return `attribution.attribution_metrics` as one line."""
    return "; ".join(
        f"{METRICS[row['metric']]}: {with_interval(row['value'], row['low'], row['high'])}"
        for row in metrics.to_dict(orient="records")
    )


def matrix_rows(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `real_groups_matrix` as text, with a column per group of real images.

    Empty with more than eight groups.
    """
    if matrix.empty:
        return pd.DataFrame()
    cells = matrix[matrix["generator"] != WORST]
    groups = list(cells["real_group"].unique())
    if len(groups) > _MOST_GROUPS:
        return pd.DataFrame()
    rows = []
    for generator, part in cells.groupby("generator", sort=False):
        aucs = part.set_index("real_group")["auc"]
        rows.append([generator, *(f"{aucs[group]:.3f}" for group in groups)])
    return pd.DataFrame(rows, columns=["generator", *groups])


def worst_cell(matrix: pd.DataFrame, split: str) -> str:
    """Return the row `WORST` of `real_groups_matrix` as a line; empty if there is none."""
    if matrix.empty or matrix["generator"].iloc[-1] != WORST:
        return ""
    row = matrix.iloc[-1]
    auc = with_interval(row["auc"], row["auc_low"], row["auc_high"])
    return (
        f"worst AUC on {split} of the groups with at least {LEAST_SOURCES} photographs of each "
        f"class: {row['real_group']}, {auc}"
    )


def markdown(table: pd.DataFrame) -> str:
    """Format a table as Markdown, without images, links and HTML that its cells may have."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += [
        "| " + " | ".join(inert(str(cell)) for cell in row) + " |" for row in table.to_numpy()
    ]
    return "\n".join(lines)


def inert(text: str) -> str:
    """Return text that makes no image, link or HTML in Markdown, whatever names are in it."""
    return text.replace("](", "]\\(").replace("<", "&lt;")


def with_interval(value: float, low: float, high: float) -> str:
    """Format a value with the bounds of its interval; nan becomes `undefined`."""
    if value != value:
        return "undefined"
    known = low == low and high == high
    return f"{value:.3f} [{f'{low:.3f}, {high:.3f}' if known else 'undefined'}]"


def _text(value: float) -> str:
    return "undefined" if value != value else f"{value:.3f}"
