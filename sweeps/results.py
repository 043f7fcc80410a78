"""The results of a sweep: comparisons, verdicts, tables and figures in the parent run."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import optuna
import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as visualization

from sweeps import tuning
from sweeps.seeds import final_seed
from sweeps.splits import CONTROL
from sweeps.statistics.comparison import (
    OUTCOMES,
    TABLES,
    Comparison,
    Difference,
    compare,
    comparison_table,
    outcome_table,
)
from sweeps.statistics.figures import forest
from sweeps.statistics.final_fits import FinalFit, FitKey, Side
from sweeps.statistics.verdicts import (
    RULES,
    WORDS,
    Verdict,
    rules_table,
    verdict,
    verdict_table,
)
from sweeps.strategies import BASELINE
from sweeps.sweep import Sweep
from synthdetect.evaluation.metrics import metrics
from synthdetect.evaluation.summary import markdown
from synthdetect.system.console import console, table
from synthdetect.tracking.queries import existing, read_table
from synthdetect.tracking.run import Run


def conclude(sweep: Sweep, run: Run) -> None:
    """Compare every strategy with the baseline, judge it, and log everything to the parent run.

    Raises:
        ValueError: If the baseline has no final fit to compare with.
    """
    sides = {name: _read_side(sweep, name) for name in sweep.sides}
    baseline = sides.pop(BASELINE)
    rules = replace(RULES, smallest_effect=sweep.options.study.smallest_effect)
    found = compare(
        baseline,
        list(sides.values()),
        level=1 - rules.error,
        smallest_effect=rules.smallest_effect,
        seed=sweep.options.optim.seed,
    )
    verdicts = {name: verdict(comparison, rules) for name, comparison in found.items()}
    trials = pd.concat([_trial_table(sweep.study(name), name) for name in sweep.sides])
    tables = {
        "comparison": comparison_table(found),
        "outcomes": outcome_table(found),
        "verdicts": verdict_table(found, rules),
        "rules": rules_table(rules),
        "trials": trials,
        "trainings": _final_fit_table([baseline, *sides.values()]),
    }
    for name, rows in tables.items():
        run.log_table(rows, f"sweep/{name}.csv")
    run.log_rows(tables["comparison"], "sweep/comparison.json")
    run.log_metrics(_logged_metrics(found, verdicts))
    run.log_figure(forest(found, verdicts), "figures/forest.png")
    for name in sweep.sides:
        for figure_name, figure in _study_figures(sweep.study(name)):
            run.log_figure(figure, f"figures/{name}/{figure_name}.png")
    summary = _summary(found, verdicts)
    table(f"{sweep.options.study.study}: strategies against the baseline", list(summary.columns),
          summary.to_numpy().tolist())  # fmt: skip
    primary = OUTCOMES[next(iter(found.values())).primary].label
    note = f"Primary outcome, on which the verdicts rest: the change of {primary}."
    console.print(note)
    run.describe_results("", f"{markdown(summary)}\n\n{note}", "figures/forest.png")


def _read_side(sweep: Sweep, name: str) -> Side:
    """One side, with its final fits read from their runs."""
    fits: list[FinalFit] = []
    lost: list[FitKey] = []
    for trial in tuning.settled(sweep.final_fits()):
        keys = ("side", "division", "fold")
        side, division, fold = (trial.user_attrs.get(key) for key in keys)
        if side != name or division is None or fold is None:
            continue
        seed = final_seed(sweep.options.optim.seed, division, fold)
        if trial.state == TrialState.COMPLETE:
            fits.append(_read_final_fit(sweep, trial, fold, seed))
        else:
            lost.append((fold, seed))
    trials = sweep.tuning_trials(name)
    failed = sum(trial.state == TrialState.FAIL for trial in trials)
    return Side(name, tuple(fits), tuple(lost), len(trials), failed)


def _read_final_fit(sweep: Sweep, trial: FrozenTrial, fold: int, seed: int) -> FinalFit:
    run_id = trial.user_attrs[tuning.RUN]
    tables: dict[str, pd.DataFrame] = {}
    for split in ("train", "val", "test"):
        rows = read_table(run_id, f"predictions/{split}.csv")
        if rows is None:
            raise RuntimeError(f"run {run_id} has no predictions/{split}.csv any more")
        tables[split] = rows
    control = read_table(run_id, f"predictions/{CONTROL}.csv")
    parts = sweep.splits.test_parts(
        tables["test"], tables["test"][:0] if control is None else control
    )
    measured = existing(run_id).metrics
    return FinalFit(
        fold=fold,
        seed=seed,
        seen=parts["seen"],
        unseen=parts["unseen"],
        control=parts["control"],
        threshold=measured["decision/threshold"],
        train_auc=_auc(tables["train"]),
        val_auc=_auc(tables["val"]),
        seconds_per_image=measured["final/seconds_per_image"],
        peak_mib=measured["final/peak_mib"],
    )


def _auc(predictions: pd.DataFrame) -> float:
    return metrics(predictions["label"], predictions["logit"], 0.5)["auc"]


def _trial_table(study: optuna.Study, side: str) -> pd.DataFrame:
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


def _final_fit_table(sides: list[Side]) -> pd.DataFrame:
    rows = [
        {
            "side": side.name,
            "fold": fit.fold,
            "seed": fit.seed,
            **{f"auc_{part}": _auc(getattr(fit, part)) for part in TABLES},
            "train_auc": fit.train_auc,
            "val_auc": fit.val_auc,
            "seconds_per_image": fit.seconds_per_image,
            "peak_mib": fit.peak_mib,
        }
        for side in sides
        for fit in side.fits
    ]
    return pd.DataFrame(rows)


def _logged_metrics(found: dict[str, Comparison], verdicts: dict[str, Verdict]) -> dict[str, float]:
    values = {
        f"sweep/{name}/{outcome}": float(difference.value)
        for name, comparison in found.items()
        for outcome, difference in comparison.differences.items()
        if not math.isnan(difference.value)
    }
    for word in WORDS:
        count = sum(judged.word == word for judged in verdicts.values())
        values[f"sweep/{word.replace(' ', '_')}"] = float(count)
    return values


def _summary(found: dict[str, Comparison], verdicts: dict[str, Verdict]) -> pd.DataFrame:
    """The table that the console and the parent run's description show."""
    shown = {"auc_seen": "AUC in-distribution", "auc_unseen": "AUC unseen"}
    if any(c.sources["control"] for c in found.values()):
        shown["auc_control"] = "AUC of controls"
    rows = []
    for name, comparison in found.items():
        aucs = [_interval(comparison.differences[outcome]) for outcome in shown]
        judged = verdicts[name]
        rows.append([name, *aucs, judged.word, ", ".join(judged.criteria)])
    columns = ["strategy", *shown.values(), "verdict", "criteria"]
    return pd.DataFrame(rows, columns=columns)


def _interval(d: Difference) -> str:
    if math.isnan(d.value):
        return "undefined"
    return f"{d.value:+.3f} [{d.wide_low:+.3f}, {d.wide_high:+.3f}]"


def _study_figures(study: optuna.Study) -> Iterator[tuple[str, Figure]]:
    """Optuna's figures for which the study has enough trials, by name."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return
    plots: dict[str, Callable[[optuna.Study], object]] = {
        "history": visualization.plot_optimization_history
    }
    if len({trial.value for trial in complete}) > 1:
        plots |= {
            "importance": visualization.plot_param_importances,
            "parallel": visualization.plot_parallel_coordinate,
        }
    for name, plot in plots.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            plot(study)
        figure = plt.gcf()
        yield name, figure
        plt.close(figure)
