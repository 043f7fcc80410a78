"""What a sweep came to: comparisons, verdicts, tables and figures in the parent run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import optuna
import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as drawn

from sweeps import tuning
from sweeps.statistics.comparison import Comparison, compare, comparison_table, outcome_table
from sweeps.statistics.figures import forest
from sweeps.statistics.final_fits import FinalFit, Side
from sweeps.statistics.verdicts import (
    BETTER,
    NO_EVIDENCE,
    RULES,
    WORSE,
    Verdict,
    rules_table,
    verdict,
    verdict_table,
)
from sweeps.strategies import BASELINE
from synthdetect.datasets.labels import REAL
from synthdetect.evaluation.metrics import metrics
from synthdetect.evaluation.summary import markdown
from synthdetect.system.console import table
from synthdetect.tracking.run import Run

if TYPE_CHECKING:
    from sweeps.study import Sweep

_PLACE = ("side", "fold", "seed")


def conclude(sweep: Sweep, run: Run) -> None:
    """Compare every strategy with the baseline, judge it, and log all of it.

    Raises:
        ValueError: the baseline has no final training to compare with.
    """
    sides = {name: _side(sweep, run, name) for name in sweep.names}
    baseline = sides.pop(BASELINE)
    found = compare(baseline, list(sides.values()), level=1 - RULES.error, seed=sweep.options.optim.seed)
    verdicts = {name: verdict(comparison) for name, comparison in found.items()}
    trials = pd.concat([_trials(sweep.study(name), name) for name in sweep.names])
    tables = {
        "comparison": comparison_table(found),
        "outcomes": outcome_table(found),
        "verdicts": verdict_table(found),
        "rules": rules_table(),
        "trials": trials,
        "trainings": _trainings([baseline, *sides.values()]),
    }
    for name, rows in tables.items():
        run.log_table(rows, f"sweep/{name}.csv")
    run.log_rows(tables["comparison"], "sweep/comparison.json")
    run.log_metrics(_numbers(found, verdicts))
    run.log_figure(forest(found, verdicts), "figures/forest.png")
    for name in sweep.names:
        for what, figure in _study_figures(sweep.study(name)):
            run.log_figure(figure, f"figures/{name}/{what}.png")
    shown = _shown(found, verdicts)
    table(f"{sweep.options.study}: strategies against the baseline", list(shown.columns),
          shown.to_numpy().tolist())  # fmt: skip
    run.describe(markdown(shown))


def _side(sweep: Sweep, run: Run, name: str) -> Side:
    """What the final trainings of one side left in their runs."""
    trainings: list[FinalFit] = []
    lost: list[tuple[int, int]] = []
    for trial in tuning.settled(sweep.finals()):
        side, fold, seed = (trial.user_attrs.get(key) for key in _PLACE)
        if side != name or fold is None or seed is None:
            continue
        if trial.state == TrialState.COMPLETE:
            trainings.append(_training(sweep, run, trial, fold, seed))
        else:
            lost.append((fold, seed))
    counts = [len(tuning.settled(sweep.study(one))) for one in sweep.names]
    trials = tuning.settled(sweep.study(name))[: min(counts)]
    failed = sum(trial.state == TrialState.FAIL for trial in trials)
    return Side(name, tuple(trainings), tuple(lost), len(trials), failed)


def _training(sweep: Sweep, run: Run, trial: FrozenTrial, fold: int, seed: int) -> FinalFit:
    run_id = trial.user_attrs[tuning.RUN]
    tables: dict[str, pd.DataFrame] = {}
    for split in ("train", "val", "test"):
        rows = run.read_table(run_id, f"predictions/{split}.csv")
        if rows is None:
            raise RuntimeError(f"run {run_id} has lost its predictions of {split}")
        tables[split] = rows
    test = tables["test"]
    known = (test["label"] == REAL) | test["generator"].isin(sweep.splits.seen)
    own = (test["label"] == REAL) | ~test["generator"].isin(sweep.splits.seen)
    aucs = {
        split: metrics(tables[split]["label"], tables[split]["logit"], 0.5)["auc"]
        for split in ("train", "val")
    }
    return FinalFit(
        fold=fold,
        seed=seed,
        seen=test[known].reset_index(drop=True),
        unseen=test[own].reset_index(drop=True),
        threshold=run.metric(run_id, "decision/threshold"),
        train_auc=aucs["train"],
        val_auc=aucs["val"],
        seconds_per_image=run.metric(run_id, "final/seconds_per_image"),
        peak_mib=run.metric(run_id, "final/peak_mib"),
    )


def _trials(study: optuna.Study, side: str) -> pd.DataFrame:
    rows = [
        {
            "side": side,
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value,
            "parameters": ", ".join(f"{name}={value}" for name, value in trial.params.items()),
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            "run": trial.user_attrs.get(tuning.RUN, ""),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    return pd.DataFrame(rows)


def _trainings(sides: list[Side]) -> pd.DataFrame:
    rows = [
        {
            "side": side.name,
            "fold": one.fold,
            "seed": one.seed,
            **{
                f"auc_{part}": metrics(rows["label"], rows["logit"], one.threshold)["auc"]
                for part, rows in (("seen", one.seen), ("unseen", one.unseen))
            },
            "train_auc": one.train_auc,
            "val_auc": one.val_auc,
            "seconds_per_image": one.seconds_per_image,
            "peak_mib": one.peak_mib,
        }
        for side in sides
        for one in side.trainings
    ]
    return pd.DataFrame(rows)


def _numbers(found: dict[str, Comparison], verdicts: dict[str, Verdict]) -> dict[str, float]:
    numbers = {}
    for name, comparison in found.items():
        for outcome, difference in comparison.differences.items():
            if difference.value == difference.value:
                numbers[f"sweep/{name}/{outcome}"] = float(difference.value)
    for word in (BETTER, NO_EVIDENCE, WORSE):
        count = sum(one.word == word for one in verdicts.values())
        numbers[f"sweep/{word.replace(' ', '_')}"] = float(count)
    return numbers


def _shown(found: dict[str, Comparison], verdicts: dict[str, Verdict]) -> pd.DataFrame:
    rows = []
    for name, comparison in found.items():
        cells = []
        for outcome in ("auc_seen", "auc_unseen"):
            d = comparison.differences[outcome]
            cells.append(f"{d.value:+.3f} [{d.wide_low:+.3f}, {d.wide_high:+.3f}]"
                         if d.value == d.value else "undefined")  # fmt: skip
        judged = verdicts[name]
        rows.append([name, *cells, judged.word, ", ".join(judged.criteria)])
    columns = ["strategy", "AUC in-distribution", "AUC unseen", "verdict", "in which criteria"]
    return pd.DataFrame(rows, columns=columns)


def _study_figures(study: optuna.Study) -> Iterator[tuple[str, Figure]]:
    """Optuna's own figures, as far as the study has enough trials for them."""
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not whole:
        return
    plots: dict[str, Callable[[optuna.Study], object]] = {
        "history": drawn.plot_optimization_history
    }
    if len({trial.value for trial in whole}) > 1:
        plots |= {
            "importance": drawn.plot_param_importances,
            "parallel": drawn.plot_parallel_coordinate,
        }
    for name, plot in plots.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            plot(study)
        figure = plt.gcf()
        yield name, figure
        plt.close(figure)
