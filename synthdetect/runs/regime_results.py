"""Conclusions of a comparison of regimes: the paper's tables, and the effects of the factors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.schema import DEVELOPMENT_SPLITS
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.effects import PHOTOGRAPHS, Cell, Change, effects, replicates
from synthdetect.evaluation.figures import effects_figure
from synthdetect.evaluation.intervals import effective_sources, interval, jackknife_metrics
from synthdetect.evaluation.summary import markdown, with_interval
from synthdetect.system.console import console, table
from synthdetect.system.errors import UserError
from synthdetect.tracking.queries import existing, read_table
from synthdetect.tracking.run import Run

PAPER: dict[tuple[str, str], tuple[float, float, float]] = {
    ("val", "constrained"): (0.56, 0.52, 0.45),
    ("val", "open"): (0.91, 0.97, 0.91),
    ("test", "constrained"): (0.46, 0.44, 0.41),
    ("test", "open"): (0.81, 0.90, 0.80),
}
"""Accuracy, ROC-AUC and F1 of the paper's tables 1 (val) and 2 (test)."""

_SHOWN = ("accuracy", "auc", "f1")
_TITLES = {"val": "Table 1: validation set", "test": "Table 2: test set"}
_OUTCOMES = {"test": "all of the test", "unseen": "generators that no training had"}
_OPENING = Change("difference", "regime", "constrained", "open")


@dataclass(frozen=True)
class Trained:
    """A finished training of a comparison.

    Attributes:
        levels: Its level by factor.
        number: Number of its seed, which it shares with one training of every other combination.
        chosen: The run that was chosen by validation.
        tested: The run whose test results count: the same, or the refit of it.
    """

    levels: Mapping[str, str]
    number: int
    chosen: str
    tested: str

    def cell(self, split: str) -> Cell | None:
        """Return its evaluation on a split, sorted by path; None if the data have no such split.

        Raises:
            UserError: If its predictions are lost.
        """
        run = existing(self.chosen if split == "val" else self.tested)
        predictions = read_table(run.id, f"predictions/{split}.csv")
        if predictions is None:
            return None
        predictions = predictions.sort_values("path", ignore_index=True)
        return Cell(self.levels, self.number, predictions, run.metrics["decision/threshold"])


def conclude_tables(run: Run, trained: Sequence[Trained], *, seed: int) -> None:
    """Log and print both tables of the paper, with its numbers, the measured ones and differences.

    The interval of a level covers the photographs, and that of a difference what `effects` says.
    """
    archs = {one.levels["regime"]: existing(one.chosen).params["model.arch"] for one in trained}
    parts = []
    for split in _TITLES:
        cells = [cell for one in trained if (cell := one.cell(split))]
        if len(cells) == len(trained):
            parts.append(_compared(split, cells, archs, seed))
    long = pd.concat(parts, ignore_index=True)
    run.log_table(long, "regimes/tables.csv")
    measured = long[np.isfinite(long["ours"])]  # a test of one class has no AUC
    run.log_metrics(
        {
            f"regimes/{row['regime'].partition(' (')[0]}/{row['table']}/{row['metric']}": row[
                "ours"
            ]
            for row in measured.to_dict(orient="records")
        }
    )
    texts = []
    for split, title in _TITLES.items():
        wide = _wide(long[long["table"] == split])
        if len(wide):
            table(title, list(wide.columns), wide.to_numpy().tolist())
            texts.append(f"**{title}**\n\n{markdown(wide)}")
    texts.append(_explained(long.loc[long["regime"] == _OPENING.name, "covers"]))
    console.print(texts[-1])
    run.describe("\n\n".join(texts))


def conclude_factorial(run: Run, trained: Sequence[Trained], *, seed: int) -> None:
    """Log and print every cell, and the effect of each factor on test and unseen generators."""
    made = []
    for one in trained:
        tested = one.cell("test")
        if tested is None:
            raise UserError(f"run {one.tested} has no predictions/test.csv any more; restore it.")
        made.append(tested)
    changes, seen = _changes(trained), _seen(trained)
    found, listed = [], []
    for outcome in _OUTCOMES:
        judged = [_on(cell, outcome, seen) for cell in made]
        if judged[0].predictions["label"].nunique() < 2:
            continue  # no generator of the test split is known to be unseen
        measured = replicates(judged, ["auc"], seed=seed)
        found.append(effects(judged, changes, measured).assign(on=outcome))
        for cell, auc in zip(judged, measured["auc"][:, 0], strict=True):
            listed.append({**cell.levels, "seed": cell.seed + 1, "on": outcome, "auc": auc})
    estimated = pd.concat(found, ignore_index=True)
    run.log_table(estimated, "regimes/effects.csv")
    run.log_table(pd.DataFrame(listed), "regimes/cells.csv")
    run.log_figure(effects_figure(estimated), "figures/effects.png")
    shown = []
    for row in estimated.to_dict(orient="records"):
        what = f"{row['change']}: {row['level']} instead of {row['against']}"
        change = _signed(row["effect"], row["low"], row["high"])
        shown.append([what, _OUTCOMES[row["on"]], change, str(row["pairs"])])
        key = f"effects/{row['change']}/{row['level']}/{row['on']}/auc"
        run.log_metrics({key: row["effect"]})
    columns = ["change", "judged on", "change of AUC [95 %]", "pairs"]
    table("The effect of each difference", columns, shown)
    explained = _explained(estimated["covers"])
    console.print(explained)
    rows = markdown(pd.DataFrame(shown, columns=columns))
    run.describe_results("", f"{rows}\n\n{explained}", "figures/effects.png")


def _compared(
    split: str, cells: Sequence[Cell], archs: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """Return one row for each regime and metric, then the differences of the regimes."""
    rows = []
    for regime, arch in archs.items():
        found = _mean([cell for cell in cells if cell.levels["regime"] == regime], seed)
        for metric, paper in zip(_SHOWN, PAPER[split, regime], strict=True):
            rows.append((split, f"{regime} ({arch})", metric, paper, *found[metric], PHOTOGRAPHS))
    published = np.subtract(PAPER[split, _OPENING.level], PAPER[split, _OPENING.against])
    changed = effects(cells, [_OPENING], replicates(cells, _SHOWN, seed=seed))
    for paper, row in zip(published, changed.to_dict(orient="records"), strict=True):
        rows.append((split, row["change"], row["metric"], round(float(paper), 2), row["effect"],
                     row["low"], row["high"], row["covers"]))  # fmt: skip
    columns = ["table", "regime", "metric", "paper", "ours", "low", "high", "covers"]
    return pd.DataFrame(rows, columns=columns)


def _mean(cells: Sequence[Cell], seed: int) -> dict[str, tuple[float, float, float]]:
    """Return the mean of each metric over trainings, with its 95 % interval over sources only."""
    groups = group_codes(cells[0].predictions)
    everything = {"": np.ones(len(groups), dtype=bool)}
    found = []
    for cell in cells:
        args = (cell.predictions["label"], cell.predictions["logit"], cell.threshold)
        found.append(jackknife_metrics(*args, groups, everything, seed=seed)[""])
    sources = effective_sources(cells[0].predictions["label"], groups)
    means = {name: np.mean([values[name] for values in found], axis=0) for name in _SHOWN}
    return {name: (float(mean[0]), *interval(mean, sources)) for name, mean in means.items()}


def _wide(long: pd.DataFrame) -> pd.DataFrame:
    """Return a table in the form of the paper: for each run its numbers and the measured ones."""
    rows = []
    for regime, part in long.groupby("regime", sort=False):
        measured = part[["ours", "low", "high"]].to_numpy()
        text: Callable[..., str] = with_interval
        sign, name = "", regime
        if regime == _OPENING.name:
            text, sign, name = _signed, "+", f"{_OPENING.level} minus {_OPENING.against}"
        rows.append([f"{name}, paper", *(f"{value:{sign}.2f}" for value in part["paper"])])
        rows.append([f"{name}, here", *(text(*numbers) for numbers in measured)])
    return pd.DataFrame(rows, columns=["Run / Model", "Accuracy", "ROC-AUC", "F1"])


def _signed(value: float, low: float, high: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _explained(covers: "pd.Series[str]") -> str:
    """Say what the intervals of differences cover, and what they leave out."""
    covered = covers.iloc[0]
    left_out = "" if covered.endswith("trainings") else (
        " They leave out what other seeds would change, which several --seeds include."
    )  # fmt: skip
    return f"Intervals of differences are paired by image and cover {covered}.{left_out}"


def _changes(trained: Sequence[Trained]) -> list[Change]:
    """Return the changes that a factorial estimates.

    The matched data separate the breadth of the data from their size. Of any other factor each
    further level is compared with the first.
    """
    changes = []
    for factor in trained[0].levels:
        first, *others = dict.fromkeys(one.levels[factor] for one in trained)
        if factor == "data" and others:
            changes += [
                Change("breadth", factor, "narrow", "matched"),
                Change("size", factor, "matched", "diverse"),
            ]
        else:
            changes += [Change(factor, factor, first, level) for level in others]
    return changes


def _seen(trained: Sequence[Trained]) -> set[str]:
    """Return the generators that any training knew, and the empty name, which may stand for any."""
    seen = {""}
    for one in trained:
        counts = read_table(one.chosen, "data/counts.csv")
        if counts is not None:
            known = counts["split"].isin(DEVELOPMENT_SPLITS)
            known &= counts["label"] == CLASSES[SYNTHETIC]
            seen |= set(counts.loc[known, "generator"])
    return seen


def _on(cell: Cell, outcome: str, seen: set[str]) -> Cell:
    rows = cell.predictions
    if outcome == "unseen":
        rows = rows[(rows["label"] == REAL) | ~rows["generator"].isin(seen)]
    return replace(cell, predictions=rows.reset_index(drop=True))
