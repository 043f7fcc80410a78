"""Write `docs/sweeps.md` from the run of a sweep; only the frame is written by hand.

python docs/sweeps.py STORE RUN_ID
"""

import json
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from synthdetect.evaluation.summary import markdown

DOCS = Path(__file__).parent
_HEAD = """\
# A whole sweep

Written by `python docs/sweeps.py STORE RUN_ID` from the run of

```sh
{command}
```

on the built-in sample ({tuning:.0f} images for tuning, {final:.0f} for the final fits,
{test:.0f} for the test, {target:.0f} to adapt to without labels), with {epochs} epochs per
training at {size} pixels from random weights, and {trials} tuning trials and {folds} final fits
of the baseline and of each strategy. The sample is neural upscaling of photographs, not
text-to-image, and it is small: **this shows that the machinery works and how wide honest intervals
are, not which strategy is good.** Differences are to the baseline; brackets are simultaneous 95 %
confidence intervals over photographs and final fits, which hold for all strategies together.
{finished} runs ended FINISHED, {killed} KILLED (pruned), {failed} FAILED; their times add up to
{minutes:.0f} minutes on two cores.

![Differences to the baseline](images/sweep.png)

"""


def main(store: str, run_id: str) -> None:
    client = MlflowClient(store)
    run = client.get_run(run_id)
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            name: pd.read_csv(client.download_artifacts(run_id, f"sweep/{name}.csv", folder),
                              keep_default_na=False)
            for name in ("comparison", "verdicts", "rules", "trials", "trainings")
        }  # fmt: skip
        config = client.download_artifacts(run_id, "config.json", folder)
        options = json.loads(Path(config).read_text())["options"]
        shutil.copy(
            client.download_artifacts(run_id, "figures/forest.png", folder),
            DOCS / "images" / "sweep.png",
        )
    study = run.data.tags["synthdetect.study"]
    query = f"tags.`synthdetect.study` = '{study}' and tags.`mlflow.parentRunId` = '{run_id}'"
    children = client.search_runs([run.info.experiment_id], query, max_results=5000)
    statuses = [child.info.status for child in children]
    seconds = sum(child.info.end_time - child.info.start_time for child in children) / 1000
    text = _HEAD.format(
        command=_command(run.data.tags["synthdetect.command"]),
        epochs=options["epochs"],
        size=options["image_size"],
        trials=options["trials"],
        folds=int(options["folds"]) * int(options["seeds"]),
        finished=statuses.count("FINISHED"),
        killed=statuses.count("KILLED"),
        failed=statuses.count("FAILED"),
        minutes=seconds / 60,
        **{n: run.data.metrics[f"data/{n}"] for n in ("tuning", "final", "test", "target")},
    )
    text += run.data.tags["mlflow.note.content"] + "\n\n## Verdicts and paper claims\n\n"
    verdicts = tables["verdicts"]
    shown = verdicts[["strategy", "verdict", "because", "paper_against_verdict"]]
    text += markdown(shown.rename(columns={"paper_against_verdict": "against the paper"}))
    text += "\n\nThe paper gives no number for any strategy. It states:\n\n"
    for words, part in verdicts.groupby("paper", sort=False):
        text += f"- {', '.join(part['strategy'])}: {words}\n"
    text += "\n## The rules\n\n" + markdown(tables["rules"]) + "\n\n## Means of the final fits\n\n"
    numbers = tables["trainings"].drop(columns=["fold", "seed"]).groupby("side", sort=False)
    means = numbers.agg(lambda column: pd.to_numeric(column).mean()).round(4).reset_index()
    text += markdown(means) + "\n"
    (DOCS / "sweeps.md").write_text(text)


def _command(recorded: str) -> str:
    """The recorded command in the form of `mlflow run`."""
    arguments = [a.removeprefix("--").replace("-", "_", a.partition("=")[0].count("-"))
                 for a in shlex.split(recorded)[2:]]  # fmt: skip
    return shlex.join(["mlflow", "run", ".", "-e", "sweep",
                       *(part for a in arguments for part in ("-P", a))])  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
