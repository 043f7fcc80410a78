"""Show where the calibration error of a detector comes from, and write `docs/calibration.md`.

    python docs/calibration.py STORE RUN_ID

STORE is the URI of a tracking store, and RUN_ID a training of `recipe=forensic` in it.
"""

import sys
from pathlib import Path

import mlflow
import pandas as pd
from scipy.special import logit

from synthdetect.evaluation.calibration import fit_platt
from synthdetect.evaluation.intervals import metric_intervals
from synthdetect.evaluation.metrics import metrics
from synthdetect.evaluation.summary import markdown, with_interval

DOCS = Path(__file__).parent
UNSEEN = ("realcugan_se", "realsr_df2k")

_PAGE = """\
# Where the calibration error of `forensic` comes from

Written by `python docs/calibration.py STORE RUN_ID` from the predictions of
`mlflow run . -e train -P recipe=forensic` on the built-in sample, with seed {seed}, in {precision}
(threads: {threads}). A row has the real images of its split, and the synthetic ones that it names.
Brackets are 95 % intervals over photographs.

- **ECE** is the expected calibration error of the probabilities that the detector gives, after the
  temperature that validation chose.
- **with known share** is the same after every logit was shifted from the share of synthetic images
  in validation to that of the row. Nobody knows this share of images without labels.
- **fitted to the row** is the error after Platt scaling on the row's own images and labels, again
  with its share of synthetic images. It shows what a calibration by slope and offset could
  reach if it knew the row, and favours small rows.

{table}

{words}
"""


def main(store: str, run_id: str) -> None:
    mlflow.set_tracking_uri(store)
    run = mlflow.get_run(run_id).data
    threshold = run.metrics["decision/threshold"]
    tables = {
        split: pd.read_csv(
            mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=f"predictions/{split}.csv"
            )
        )
        for split in ("val", "test")
    }
    seen = ~tables["test"]["generator"].isin(UNSEEN)
    parts = {"val": tables["val"], "test / generators of the training": tables["test"][seen]}
    for name in UNSEEN:
        made_by = tables["test"]["generator"] == name
        parts[f"test / {name} (unseen)"] = tables["test"][(tables["test"]["label"] == 0) | made_by]
    parts["test, all"] = tables["test"]
    presumed = logit(tables["val"]["label"].mean())
    rows = [_row(name, part, threshold, presumed) for name, part in parts.items()]
    table = pd.DataFrame(rows)
    page = _PAGE.format(
        table=markdown(table), words=_words(parts), seed=run.params["optim.seed"],
        precision=run.params["hardware.precision"], threads=run.params["hardware.threads"],
    )  # fmt: skip
    (DOCS / "calibration.md").write_text(page, encoding="utf-8")


def _row(name: str, part: pd.DataFrame, threshold: float, presumed: float) -> dict[str, str]:
    label, x = part["label"].to_numpy(), part["logit"].to_numpy()
    measured = metric_intervals(label, x, threshold, part["source_id"]).set_index("metric")
    prior = logit(label.mean()) - presumed
    fitted = fit_platt(label, part["raw_logit"])(part["raw_logit"])
    cells = {key: with_interval(*measured.loc[key]) for key in ("auc", "ece")}
    return {
        "images of": name,
        "n": str(len(part)),
        "synthetic": f"{label.mean():.0%}",
        "AUC": cells["auc"],
        "ECE": cells["ece"],
        "with known share": f"{metrics(label, x + prior, threshold)['ece']:.3f}",
        "fitted to the row": f"{metrics(label, fitted, threshold)['ece']:.3f}",
        "mean probability of real, synthetic": " and ".join(
            f"{part.loc[part['label'] == value, 'probability'].mean():.2f}" for value in (0, 1)
        ),
    }


def _words(parts: dict[str, pd.DataFrame]) -> str:
    test = parts["test, all"]
    missing = {
        name: float((1 - part["probability"])[part["label"] == 1].sum())
        for name, part in parts.items()
        if name.startswith("test /")
    }
    share = missing[f"test / {UNSEEN[1]} (unseen)"] / sum(missing.values())
    made = (test["generator"] == UNSEEN[1]).sum()
    return (
        "If each synthetic image of the test had the probability 1, they would sum up to their "
        f"number. {share:.0%} of what is missing lies with `{UNSEEN[1]}`, which made {made} of the "
        f"{(test['label'] == 1).sum()}. A temperature, or any calibration by validation images, "
        "knows the generators of the training only. The detector separates those well, so its "
        "probabilities are sharp, also where it misses the images of another generator. What would "
        "help is not another calibration but a detector that recognises more generators: "
        "[what the breadth of training data is worth](breadth.md)."
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
