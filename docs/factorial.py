"""`docs/factorial.md`: what each difference of the paper's regimes is worth, from a run.

    python docs/factorial.py STORE RUN_ID

STORE is the URI of a tracking store, and RUN_ID a run of
`mlflow run . -e regimes -P factorial=true` on the larger set, whose manifest `docs/larger_set.py`
makes.
"""

import sys

import pandas as pd
from evaluation import DOCS, Page

from synthdetect.evaluation.summary import markdown

_ON = {"test": "all of the test", "unseen": "generators that no training had"}

_PAGE = """\
# What each difference of the regimes is worth

Written by `python docs/factorial.py STORE RUN_ID` from the run of the command below, on a larger
set of images like the sample's, which is not shipped. **The images are neural upscalings of real
photographs, not text-to-image output.** The trainings start from ImageNet weights, as the paper's
do: those of `{arch}`, which pip brings. {epochs} epochs each, seed {seed}.

"""
_CELLS = """
## Every combination

The mean AUC of {seeds} trainings; in parentheses the lowest and the highest of them.

{table}

"""


def main(store: str, run_id: str) -> None:
    page = Page(store)
    run = page.client.get_run(run_id)
    params = run.data.params
    page.text = _PAGE.format(
        arch=params["regimes.archs"], epochs=params["optim.epochs"], seed=params["optim.seed"]
    )
    page.command(run)
    compared = params["regimes.compared_data"]
    page.text += f"\n{compared}\n\n{run.data.tags['mlflow.note.content']}\n"
    page.picture(run, "figures/effects.png", "factorial.png", "Effects with their intervals")
    cells = page.table(run, "regimes/cells.csv")
    factors = params["regimes.factors"].split(",")
    aucs = cells.groupby([*factors, "on"], sort=False)["auc"]
    shown = aucs.agg(lambda auc: f"{auc.mean():.3f} ({auc.min():.3f} to {auc.max():.3f})")
    wide = shown.unstack("on").rename(columns=_ON).reset_index()
    page.text += _CELLS.format(seeds=cells["seed"].nunique(), table=markdown(pd.DataFrame(wide)))
    page.text = page.text.rstrip() + "\n"
    (DOCS / "factorial.md").write_text(page.text)


if __name__ == "__main__":
    main(*sys.argv[1:])
