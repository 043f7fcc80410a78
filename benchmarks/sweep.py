"""A sweep as it comes against one that trains every trial in full and decodes every epoch anew.

    python -m benchmarks.sweep [--trials 20] [--epochs 8]

Whole processes, tracking included, on the sample, each with a cold cache of its own. Trials are
drawn at random, since both then try the same values and only pruning and the cache set them apart.
The verdicts of both stand in the notes: they must be the same for the saving to be one.
"""

import sys
import tempfile

import mlflow
import pandas as pd

from benchmarks.common import parser, ratio, report, seconds_of
from synthdetect.training.devices import resolve

_IN_FULL = ["--prune=false", "--cache-gib=0"]


def main() -> None:
    arguments = parser("sweep", rounds=1)
    arguments.add_argument("--strategies", default="label_smoothing")
    arguments.add_argument("--arch", default="mobilenet_v3_large")
    arguments.add_argument("--image-size", type=int, default=96)
    arguments.add_argument("--trials", type=int, default=20)
    arguments.add_argument("--folds", type=int, default=2)
    arguments.add_argument("--epochs", type=int, default=8)
    given = arguments.parse_args()
    if given.smoke:
        given.strategies, given.image_size = "label_smoothing", 32
        given.trials, given.folds, given.epochs = 1, 2, 1

    options = [
        f"--strategies={given.strategies}", f"--image-size={given.image_size}",
        f"--trials={given.trials}", f"--folds={given.folds}", f"--epochs={given.epochs}",
        f"--arch={given.arch}", "--weights=none", "--lr=1e-3", "--sampler=random",
    ]  # fmt: skip
    speeds: dict[str, list[float]] = {"sweep": [], "full": []}
    verdicts: dict[str, str] = {}
    for _ in range(given.rounds):
        for name, further in (("sweep", []), ("full", _IN_FULL)):
            seconds, verdicts[name] = _run([*options, *further])
            speeds[name].append(1 / seconds)
    row = {
        "key": "sweep_to_full",
        "what": f"{given.trials} trials a side, pruned, images cached",
        "against": "every trial in full, images decoded each time",
        "wanted": 2.0,
        **ratio(speeds, "sweep", "full"),
        "seconds": {name: [1 / value for value in values] for name, values in speeds.items()},
        "verdicts": verdicts,
    }
    same = "the same" if verdicts["sweep"] == verdicts["full"] else "not the same"
    notes = (
        f"{given.strategies} against the baseline on the sample, {given.arch} at "
        f"{given.image_size}, {given.epochs} epochs, "
        f"{given.folds} folds, {given.rounds} round(s), cold caches; verdicts {same}: "
        f"{verdicts['sweep']} (in full: {verdicts['full']})"
    )
    device = resolve("auto", "auto", "auto", given.arch)
    report("sweep", "sweep", [row], device, given.output, notes)


def _run(options: list[str]) -> tuple[float, str]:
    """Seconds of one sweep, and its verdicts."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = seconds_of([sys.executable, "-m", "sweeps", "sweep", *options], folder)
        client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
        (run,) = client.search_runs(["0"], "tags.`synthdetect.kind` = 'sweep'")
        return seconds, _verdicts(client, run.info.run_id, folder)


def _verdicts(client: mlflow.MlflowClient, run_id: str, folder: str) -> str:
    found = pd.read_csv(client.download_artifacts(run_id, "sweep/verdicts.csv", folder))
    pairs = found[["strategy", "verdict"]].to_numpy()
    return ", ".join(f"{strategy} {word}" for strategy, word in pairs)


if __name__ == "__main__":
    main()
