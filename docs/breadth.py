"""Measure what the breadth of training data is worth, and write `docs/breadth.md`.

    python docs/breadth.py manifests FOLDER OUTPUT
    python docs/breadth.py train OUTPUT [--epochs 24] [--part 1/2]
    python docs/breadth.py page OUTPUT

FOLDER has the larger set of images, which is not shipped. `manifests` writes to OUTPUT one manifest
for each training; `train` trains those that were not trained yet, each in a tracked run of the
store of OUTPUT, and `--part` shares them between processes; `page` writes the page from the runs.

A training takes the photographs of a share of the sources, and one regeneration of each of them by
one of some generators in turn. So the number of images depends on the share alone, and the epochs
are chosen so that all trainings take equally many steps. Each is tested on the same photographs,
which no training has, and on a generator that it has not.
"""

import argparse
import itertools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from scipy import stats

from synthdetect.evaluation.summary import markdown

DOCS = Path(__file__).parent
HELD_OUT = ("realsr_df2k", "realesrgan_x4plus", "waifu2x_photo")
REPEATS = 2
CELLS = ((1, 1.0), (2, 1.0), (4, 1.0), (4, 0.5), (4, 0.25))
"""Number of generators, and share of the training photographs."""
EXPERIMENT = "breadth"
_OUTCOMES = ("known", "unseen", "control")

_HEAD = """\
# What the breadth of training data is worth

Written by `python docs/breadth.py` from {trainings} runs of
`mlflow run . -e train -P recipe=forensic -P epochs={epochs}` on a larger set of images of the
sample's kind, which is not shipped: 486 crops of 214 photographs, and their regenerations by five
neural upscalers. A training takes the photographs of a share of the sources,
and one regeneration of each of them by one of so many generators in turn. All trainings take
equally many steps, and those of a row differ in nothing else than the row says. Each is tested on
the same photographs, which none has, and on the one generator of {held_out} that it has not; with
{repeats} choices of the other generators, this makes {pairs} trainings of a row.

`known` is the AUC on validation images of the generators of the training, `unseen` that on the
held-out generator, and `control` that on photographs which were shrunk and enlarged without any
network, of which 0.5 is wanted. The changes are to the first row of a table, paired by held-out
generator and choice; brackets are 95 % intervals over these {pairs} pairs, by
Student's t. **They cover the choice of the generators that train and are held out, and one seed
each; all generators are upscalers, and the photographs are the same.** The recipe trains for 160
epochs; after these {epochs}, the control is still far above 0.5, so part of what is learnt is
enlargement.

"""


class Training(NamedTuple):
    """One training: its cell of the design, the generator that it is tested on, and a number."""

    generators: int
    share: float
    held_out: str
    repeat: int

    @property
    def name(self) -> str:
        percent = round(100 * self.share)
        return f"{self.held_out}-{self.repeat}-{self.generators}-generators-{percent}-percent"


TRAININGS = [
    Training(*cell, held_out, repeat)
    for repeat, held_out, cell in itertools.product(range(REPEATS), HELD_OUT, CELLS)
]
WIDEST = Training(4, 1.0, HELD_OUT[0], 0)


def write_manifests(folder: Path, output: Path) -> None:
    """Write the manifest of each training."""
    output.mkdir(parents=True, exist_ok=True)
    MlflowClient(_store(output)).search_experiments()  # two processes cannot make it at once
    table = pd.read_csv(folder / "manifest.csv", keep_default_na=False)
    table["path"] = [str((folder / path).resolve()) for path in table["path"]]
    table["name"] = [Path(path).stem for path in table["path"]]
    sources = table["source_id"].drop_duplicates().sample(frac=1, random_state=42).tolist()
    place = table["source_id"].map({source: n / len(sources) for n, source in enumerate(sources)})
    part = np.where(place < 0.45, "train", np.where(place < 0.6, "val", "test"))
    is_control = table["split"] == "control"
    for training in TRAININGS:
        rng = np.random.default_rng([42, training.repeat])
        others = sorted(set(table["generator"]) - {"", training.held_out})
        known = rng.permutation(others)[: training.generators]
        names = table["name"].drop_duplicates().sort_values().tolist()
        maker = pd.Series(dict(zip(names, itertools.cycle(known), strict=False)))
        real = table["label"].eq("real") & ~is_control
        made = table["generator"] == table["name"].map(maker)
        kept = (real | made) & np.where(part == "train", place < 0.45 * training.share, True)
        tested = (part == "test") & (real | is_control | (table["generator"] == training.held_out))
        rows = table[np.where(part == "test", tested, kept & ~is_control)].copy()
        rows["split"] = np.where(is_control[rows.index], "control", part[rows.index])
        rows.drop(columns="name").to_csv(output / f"{training.name}.csv", index=False)


def train(output: Path, epochs: int, part: str) -> None:
    """Train what was not trained yet."""
    number, parts = (int(text) for text in part.split("/"))
    for training in TRAININGS[number - 1 :: parts]:
        done = output / f"{training.name}.done"
        if done.exists():
            continue
        total = str(round(epochs / training.share))
        options = {
            "recipe": "forensic",
            "data": (output / f"{training.name}.csv").resolve(),
            "epochs": total,
            "patience": total,
            "seed": 42 + training.repeat,
            "output": (output / "checkpoints").resolve(),
        }
        words = [word for name, value in options.items() for word in ("-P", f"{name}={value}")]
        subprocess.run(
            ["mlflow", "run", str(DOCS.parent.resolve()), "-e", "train", "--env-manager", "local",
             "--experiment-name", EXPERIMENT, "--run-name", training.name, *words],
            check=True,
            cwd=output,
            env={**os.environ, "MLFLOW_TRACKING_URI": _store(output)},
        )  # fmt: skip
        done.touch()


def write_page(output: Path) -> None:
    """Write the page from the runs."""
    client = MlflowClient(_store(output))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise SystemExit(f"{output} has no runs: train first.")
    runs = client.search_runs(
        [experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=1000
    )
    best = next(run.data.params for run in runs if run.info.run_name == WIDEST.name)
    metrics = {run.info.run_name: run.data.metrics for run in runs}
    rows = []
    for training in TRAININGS:
        found = metrics[training.name]
        rows.append({
            **training._asdict(),
            "images": found["data/train/real"] + found["data/train/synthetic"],
            "known": found["best/val/auc"],
            "unseen": found[f"test/generator/{training.held_out}/auc"],
            "control": found["control/auc_against_real"],
        })  # fmt: skip
    table = pd.DataFrame(rows)
    text = _HEAD.format(
        epochs=int(best["optim.epochs"]),
        repeats=REPEATS,
        trainings=len(TRAININGS),
        pairs=len(HELD_OUT) * REPEATS,
        held_out=", ".join(f"`{name}`" for name in HELD_OUT),
    )
    text += f"## More generators, all photographs\n\n{_changes(table, CELLS[:3])}\n\n"
    text += f"## More photographs, four generators\n\n{_changes(table, CELLS[:1:-1])}\n\n"
    text += "![AUC by breadth](images/breadth.png)\n\n## By held-out generator\n\n"
    means = table.groupby(["held_out", "generators", "share"])[list(_OUTCOMES)].mean()
    text += markdown(means.round(3).reset_index()) + "\n"
    (DOCS / "breadth.md").write_text(text)
    _figure(table)


def _changes(table: pd.DataFrame, cells: Sequence[tuple[int, float]]) -> str:
    """Return the means of cells, and their changes to the first one."""
    keys = ["held_out", "repeat"]
    values = {
        cell: table[(table["generators"] == cell[0]) & (table["share"] == cell[1])].set_index(keys)
        for cell in cells
    }
    first, rows = values[cells[0]], []
    for (generators, share), cell in values.items():
        row = {
            "generators": generators,
            "photographs": f"{share:.0%}",
            "images": f"{cell['images'].mean():.0f}",
        }
        for name in _OUTCOMES:
            row[name] = f"{cell[name].mean():.3f}"
            if cell is not first:
                row[name] += f" ({_interval(cell[name] - first[name])})"
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def _interval(changes: "pd.Series[float]") -> str:
    """Return the mean of paired changes with its 95 % interval by Student's t."""
    mean, number = changes.mean(), len(changes)
    half = stats.t.ppf(0.975, number - 1) * changes.std() / np.sqrt(number)
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def _figure(table: pd.DataFrame) -> None:
    """Draw the AUC on each held-out generator, and of the control, by breadth."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for axis, fixed, varied, label in (
        (axes[0], table["share"] == 1, "generators", "generators, with all photographs"),
        (
            axes[1],
            table["generators"] == WIDEST.generators,
            "share",
            "share of photographs, 4 generators",
        ),
    ):
        part = table[fixed]
        for name in HELD_OUT:
            line = part[part["held_out"] == name].groupby(varied)["unseen"].mean()
            axis.plot(line.index, line.to_numpy(), "o-", label=f"{name}, held out")
        line = part.groupby(varied)["control"].mean()
        axis.plot(line.index, line.to_numpy(), "s--", color="grey", label="control (0.5 is wanted)")
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(part[varied].unique()), sorted(part[varied].unique()))
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("AUC against photographs")
    axes[1].legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 0.12))
    figure.savefig(DOCS / "images" / "breadth.png", dpi=150)


def _store(output: Path) -> str:
    return f"sqlite:///{output.resolve()}/mlflow.db"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = arguments.add_subparsers(dest="step", required=True)
    manifests = steps.add_parser("manifests", help="write the manifest of each training")
    manifests.add_argument("folder", type=Path, help="folder of the larger set")
    training = steps.add_parser("train", help="train what was not trained yet")
    training.add_argument("--epochs", type=int, default=24, help="epochs with all photographs")
    training.add_argument("--part", default="1/1", help="share of the trainings, such as 1/2")
    page = steps.add_parser("page", help="write the page from the runs")
    for step in (manifests, training, page):
        step.add_argument("output", type=Path, help="folder of the manifests and of the store")
    given = arguments.parse_args()
    if given.step == "manifests":
        write_manifests(given.folder, given.output)
    elif given.step == "train":
        train(given.output, given.epochs, given.part)
    else:
        write_page(given.output)


if __name__ == "__main__":
    main()
