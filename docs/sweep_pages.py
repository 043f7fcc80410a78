"""Write a page on a sweep from its run; only the frame is written by hand.

python docs/sweep_pages.py PAGE STORE RUN_ID [REMARK]

PAGE is a name of `PAGES`: the page is `docs/PAGE.md`, and its figure `docs/images/PAGE.png`.
"""

import json
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from sweeps.strategies import PAPER_STRATEGIES
from synthdetect.evaluation.summary import markdown

DOCS = Path(__file__).parent
PAGES = {
    "sweeps": (
        "A whole sweep",
        "**this shows that the machinery works and how wide honest intervals are, not which "
        "strategy is good.**",
    ),
    "ingredients": (
        "What the ingredients of a forensic detector are worth",
        "**each ingredient is added by itself to a plain detector of colours, with untuned "
        "settings, and what it gains or costs here need not hold for other generators.** The "
        "average of `ema` looks back over 100 steps, of which a training has only 150 here; "
        "`recipe=forensic`, which uses it, takes 3,000.",
    ),
    "residuals": (
        "The paper's strategies around a detector that has learnt",
        "**the baseline sees residuals of neighbouring pixels (`front_end=npr`), so that trainings "
        "of a few seconds learn; what a strategy gains or costs here need not hold for other "
        "generators.** Strategies are not tuned.",
    ),
}
"""Title of each page, and what its results mean."""

_HEAD = """\
# {title}

Written by `python docs/sweep_pages.py {page} STORE RUN_ID` from the run of

```sh
{command}
```

on the built-in sample ({tuning:.0f} images for tuning, {final:.0f} for the final fits,
{test:.0f} for the test, {target:.0f} to adapt to without labels), with {epochs} epochs per
training at {size} pixels from random weights, and {trials} tuning trial{s} and {folds} final fits
of the baseline and of each strategy. The sample is neural upscaling of photographs, not
text-to-image, and it is small: {meaning}
Differences are to the baseline; brackets are simultaneous 95 % confidence intervals over
photographs and final fits, which hold for all strategies together.
{finished} runs ended FINISHED, {killed} KILLED (pruned), {failed} FAILED; their times add up to
{minutes:.0f} minutes on two cores.{remark}

![Differences to the baseline](images/{page}.png)

"""


def main(page: str, store: str, run_id: str, remark: str = "") -> None:
    title, meaning = PAGES[page]
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
            DOCS / "images" / f"{page}.png",
        )
    study = run.data.tags["synthdetect.study"]
    query = f"tags.`synthdetect.study` = '{study}' and tags.`mlflow.parentRunId` = '{run_id}'"
    children = client.search_runs([run.info.experiment_id], query, max_results=5000)
    statuses = [child.info.status for child in children]
    seconds = sum(child.info.end_time - child.info.start_time for child in children) / 1000
    text = _HEAD.format(
        page=page,
        title=title,
        meaning=meaning,
        command=_command(run.data.tags["synthdetect.command"]),
        epochs=options["epochs"],
        size=options["image_size"],
        trials=options["trials"],
        s="" if int(options["trials"]) == 1 else "s",
        folds=int(options["folds"]) * int(options["seeds"]),
        finished=statuses.count("FINISHED"),
        killed=statuses.count("KILLED"),
        failed=statuses.count("FAILED"),
        minutes=seconds / 60,
        remark=f" {remark}" if remark else "",
        **{n: run.data.metrics.get(f"data/{n}", 0) for n in ("tuning", "final", "test", "target")},
    )
    note = run.data.tags["mlflow.note.content"].splitlines()
    # Its pictures are addresses within the MLflow UI.
    text += "\n".join(line for line in note if not line.startswith("![")).strip()
    text += "\n\n## Verdicts and paper claims\n\n"
    verdicts = tables["verdicts"]
    shown = verdicts[["strategy", "verdict", "because", "paper_mark"]]
    text += markdown(shown.rename(columns={"paper_mark": "the paper's “no improvement”"}))
    mentioned = verdicts[verdicts["strategy"].isin(PAPER_STRATEGIES)]
    if len(mentioned):
        text += "\n\nThe paper gives no number for any strategy. It states:\n"
    for words, part in mentioned.groupby("paper", sort=False):
        text += f"\n- {', '.join(part['strategy'])}: {words}"
    text += (
        "\n\n## The rules\n\n" + markdown(tables["rules"]) + "\n\n## Means of the final fits\n\n"
    )
    numbers = tables["trainings"].drop(columns=["fold", "seed"]).groupby("side", sort=False)
    means = numbers.agg(lambda column: pd.to_numeric(column).mean()).round(4).reset_index()
    text += markdown(means) + "\n"
    (DOCS / f"{page}.md").write_text(text)


def _command(recorded: str) -> str:
    """The recorded command in the form of `mlflow run`, without the places of one machine."""
    arguments = [a.removeprefix("--").replace("-", "_", a.partition("=")[0].count("-"))
                 for a in shlex.split(recorded)[2:]
                 if not a.startswith(("--storage=", "--output="))]  # fmt: skip
    return shlex.join(["mlflow", "run", ".", "-e", "sweep",
                       *(part for a in arguments for part in ("-P", a))])  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
