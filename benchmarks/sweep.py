"""A sweep against one without pruning and without the decoded-image cache.

    python -m benchmarks.sweep [--trials 20] [--epochs 25]

Both are whole processes with tracking, on the sample, with the recipe's epochs and early stopping,
and each starts with an empty cache. There are ten final fits a side, with which verdicts can
differ; neither pruning nor much of the cache saves time in these. Trials are sampled at random, so
that both have the same values and differ only by pruning and the cache. The notes give the verdicts
of both, which must be the same if the saved time is to count.

The trials without pruning are then replayed to several pruners in many orders, always beginning
with the first values of the search space. For each pruner the result is how many epochs of tuning
it would have saved, and how much lower the validation AUC of the best completed trial would be than
that of the best of all trials.
"""

import sys
import tempfile
from collections.abc import Callable
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import FrozenTrial, TrialState

from benchmarks.common import parser, ratio, report, row_of, seconds_of
from sweeps.strategies import BASELINE
from sweeps.tuning import make_pruner, settled
from synthdetect.training.devices import resolve

_IN_FULL = ["--prune=false", "--cache-gib=0"]
_ORDERS = 50
_PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "the sweep's own": make_pruner,
    "halving to a half": lambda: SuccessiveHalvingPruner(min_resource=3, reduction_factor=2),
    "halving to a quarter": lambda: SuccessiveHalvingPruner(min_resource=3, reduction_factor=4),
    "hyperband": lambda: HyperbandPruner(min_resource=3, reduction_factor=3),
    "better half of those that ended": lambda: MedianPruner(2, n_warmup_steps=3),
    "best third of those that ended": lambda: PercentilePruner(100 / 3, 2, n_warmup_steps=3),
}


def main() -> None:
    arguments = parser("Measure what pruning and the cache save in a sweep.", rounds=1)
    arguments.add_argument("--strategies", default="sgd")
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=64)
    arguments.add_argument("--trials", type=int, default=20)
    arguments.add_argument("--folds", type=int, default=2)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--epochs", type=int, default=25)
    given = arguments.parse_args()
    if given.smoke:
        given.strategies, given.image_size = "label_smoothing", 32
        given.trials, given.folds, given.seeds, given.epochs = 1, 2, 1, 1

    options = [
        f"--strategies={given.strategies}", f"--image-size={given.image_size}",
        f"--trials={given.trials}", f"--folds={given.folds}", f"--seeds={given.seeds}",
        f"--epochs={given.epochs}", f"--arch={given.arch}",
        "--geometry=center_crop", "--weights=none", "--lr=1e-3", "--sampler=random",
    ]  # fmt: skip
    speeds: dict[str, list[float]] = {"sweep": [], "full": []}
    verdicts: dict[str, str] = {}
    sides: list[list[FrozenTrial]] = []
    for _ in range(given.rounds):
        for name, further in (("sweep", []), ("full", _IN_FULL)):
            seconds, verdicts[name], sides = _run([*options, *further])
            speeds[name].append(1 / seconds)
    row = {
        "key": "sweep_to_full",
        "what": f"{given.trials} trials a side, pruned, images cached",
        "against": "every trial in full, images decoded in every epoch",
        "wanted": 2.0,
        **ratio(speeds, "sweep", "full"),
        "seconds": {name: [1 / value for value in values] for name, values in speeds.items()},
        "verdicts": verdicts,
    }
    same = "the same" if verdicts["sweep"] == verdicts["full"] else "not the same"
    notes = (
        f"{given.strategies} against the baseline on the sample, {given.arch} at "
        f"{given.image_size}, {given.epochs} epochs, "
        f"{given.folds} folds x {given.seeds} seeds, {given.rounds} round(s), cold caches; "
        f"verdicts {same}: {verdicts['sweep']} (in full: {verdicts['full']}); the pruners are "
        f"compared on the trials in full, replayed in {_ORDERS} orders"
    )
    device = resolve("auto", "auto", "auto", given.arch)
    rows = [row, *(_replayed(name, make, sides) for name, make in _PRUNERS.items())]
    report("sweep", "sweep", rows, device, given.output, notes)


def _run(options: list[str]) -> tuple[float, str, list[list[FrozenTrial]]]:
    """Run a sweep; return its seconds, its verdicts, and the trials of each side."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = seconds_of([sys.executable, "-m", "sweeps", "sweep", *options], folder)
        client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
        (run,) = client.search_runs(["0"], "tags.`synthdetect.kind` = 'sweep'")
        found = _verdicts(client, run.info.run_id, folder)
        storage = f"sqlite:///{folder}/optuna.db"
        studies = [f"strategies/{side}" for side in (BASELINE, *found["strategy"])]
        sides = [settled(optuna.load_study(study_name=s, storage=storage)) for s in studies]
        pairs = found[["strategy", "verdict"]].to_numpy()
        return seconds, ", ".join(f"{strategy} {word}" for strategy, word in pairs), sides


def _verdicts(client: mlflow.MlflowClient, run_id: str, folder: str) -> pd.DataFrame:
    return pd.read_csv(client.download_artifacts(run_id, "sweep/verdicts.csv", folder))


def _replayed(
    name: str, make: Callable[[], BasePruner], sides: list[list[FrozenTrial]]
) -> dict[str, Any]:
    """Return the row of one pruner."""
    outcomes = []
    for trials in sides:
        for turn in range(_ORDERS):
            order = 1 + np.random.default_rng(turn).permutation(len(trials) - 1)
            outcomes.append(replay(make(), [trials[0], *(trials[i] for i in order)]))
    ratios, lost = (list(column) for column in zip(*outcomes, strict=True))
    mean, most = 0 - np.mean(lost), 0 - max(lost)
    against = f"all of them; chosen trial's AUC {mean:+.4f}, at worst {most:+.4f}"
    key = "epochs_" + "_".join(name.replace("'", "").split())
    return row_of(key, f"epochs of tuning, {name}", against, 0, ratios)


def replay(pruner: BasePruner, trials: list[FrozenTrial]) -> tuple[float, float]:
    """Replay trials to a pruner, one after another.

    Args:
        pruner: The pruner.
        trials: Trials with a value after every step and in the end.

    Returns:
        The ratio of all steps to those before pruning, and the difference of the best value of all
        trials to that of the completed ones.
    """
    study = optuna.create_study(direction="maximize", pruner=pruner)
    steps, values = 0, []
    for known in trials:
        trial = study.ask()
        pruned = False
        for step, value in sorted(known.intermediate_values.items()):
            steps += 1
            trial.report(value, step)
            pruned = trial.should_prune()
            if pruned:
                break
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        study.tell(trial, None if pruned else known.value, state=state)
        if not pruned:
            values.append(known.value or 0.0)
    full = sum(len(known.intermediate_values) for known in trials)
    return full / steps, max(known.value or 0.0 for known in trials) - max(values)


if __name__ == "__main__":
    main()
