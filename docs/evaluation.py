"""`docs/evaluation.md`, from what runs recorded; only the frame is written by hand.

    python docs/evaluation.py STORE --evaluations RUN,RUN --audits RUN,RUN --regimes RUN,RUN

The first of each is on the built-in sample, the second on a larger set of the same kind. A regimes
run may also be a factorial one.
"""

import argparse
import shlex
import shutil
import tempfile
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from synthdetect.evaluation.summary import markdown, with_interval

DOCS = Path(__file__).parent
_SETS = ("the sample", "a larger set of the same kind, which is not shipped")
_LEVELS = {"jpeg": (75, 30), "webp": (50,), "avif": (50,), "blur": (1, 2), "downscale": (0.5, 0.25),
           "crop": (0.5,), "noise": (10, 20), "social": (480,)}  # fmt: skip
"""Levels of perturbations that the page shows."""

_HEAD = """\
# Evaluations, audits and regimes

Written by `python docs/evaluation.py` from the runs of the commands below. **The images are neural
upscalings of real photographs, not text-to-image output**, and everything was trained from random
weights. Intervals (95 %) of an evaluation are over photographs, so they say nothing of other seeds.
`realcugan_se` and `realsr_df2k` (of the larger set: `realsr_df2k` and `waifu2x_photo`, where it is
trained on) were in no training image. `control` are real photographs shrunk and enlarged without
any network: against the other real images an AUC of 0.5 is wanted of them, and how far it is above
says how much of the rest is blur and not generation. `docs/larger_set.py` makes the manifests of
the larger set: the detector is evaluated on photographs that it was not trained on.
"""
_TRAINED = "\nThe detector that is evaluated on both sets came from\n\n"


class Page:
    """The page as it grows, and where runs are."""

    def __init__(self, store: str) -> None:
        self.client = MlflowClient(store)
        self.text = ""

    def table(self, run: Run, path: str) -> pd.DataFrame:
        """One of a run's tables."""
        with tempfile.TemporaryDirectory() as folder:
            file = self.client.download_artifacts(run.info.run_id, path, folder)
            return pd.read_csv(file, keep_default_na=False)

    def picture(self, run: Run, path: str, name: str, title: str) -> None:
        """One of a run's figures, copied beside the page."""
        with tempfile.TemporaryDirectory() as folder:
            file = self.client.download_artifacts(run.info.run_id, path, folder)
            shutil.copy(file, DOCS / "images" / name)
        self.text += f"\n![{title}](images/{name})\n"

    def command(self, run: Run) -> None:
        """The command that made a run, as `mlflow run` takes it."""
        words = shlex.split(run.data.tags["synthdetect.command"])[1:]
        given = [word.removeprefix("--") for word in words[1:] if not word.startswith("--output")]
        parts = ["mlflow", "run", ".", "-e", words[0]]
        for name, _, value in (one.partition("=") for one in given):
            local = name == "data" and value != "sample"
            parts += ["-P", f"{name.replace('-', '_')}={'FILE.csv' if local else value}"]
        self.text += f"```sh\n{shlex.join(parts)}\n```\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    for name in ("evaluations", "audits", "regimes"):
        parser.add_argument(f"--{name}", default="", type=lambda text: text.split(","))
    given = parser.parse_args()
    page = Page(given.store)
    evaluations, audits, regimes = (
        [page.client.get_run(run_id) for run_id in ids]
        for ids in (given.evaluations, given.audits, given.regimes)
    )
    trained = page.client.get_run(evaluations[0].data.params["evaluate.model"])
    page.text = _HEAD + _TRAINED
    page.command(trained)
    for where, run in zip(_SETS, evaluations, strict=True):
        _evaluation(page, run, where)
    pictures = ("robustness.png", "robustness_larger.png")
    for where, run, picture in zip(_SETS, evaluations, pictures, strict=True):
        _robustness(page, run, where, picture)
    for run in regimes:
        _regimes(page, run)
    for where, run in zip(_SETS, audits, strict=True):
        page.text += f"\n## Audit of {where}\n\n"
        page.command(run)
        findings = page.table(run, "audit/findings.csv")
        page.text += "\n" + markdown(findings[["severity", "finding", "advice"]]) + "\n"
    (DOCS / "evaluation.md").write_text(page.text)


def _evaluation(page: Page, run: Run, where: str) -> None:
    page.text += f"\n## By generator: {where}\n\n"
    page.command(run)
    page.text += f"\n{run.data.tags['mlflow.note.content']}\n"
    oracle = page.table(run, "evaluation/test_oracle.csv").set_index("metric")
    chosen = page.table(run, "evaluation/test.csv").set_index("metric")
    shared = page.table(run, "evaluation/held_out.csv")
    train = shared[(shared["split"] == "test") & (shared["fact"] == "sources shared with train")]
    balanced = with_interval(*chosen.loc["balanced_accuracy"].astype(float))
    best = float(oracle.loc["balanced_accuracy", "value"])
    page.text += (
        f"\nTest: balanced accuracy {balanced} at the threshold from validation, {best:.3f} at\n"
        f"the oracle's. Photographs shared with training: {', '.join(train['value'])}.\n"
    )


def _robustness(page: Page, run: Run, where: str, picture: str) -> None:
    page.text += (
        f"\n## Robustness: {where}\n\nFrom the same evaluation. Each perturbation meets real and "
        "synthetic images alike, at\ntheir own size; changes are paired by photograph.\n\n"
    )
    items = page.client.list_artifacts(run.info.run_id, "evaluation")
    several = any(item.path.endswith("test_robustness.csv") for item in items)  # splits
    found = page.table(run, f"evaluation/{'test_' if several else ''}robustness.csv")
    found["level"] = found["level"].astype(float)
    rows = []
    for name, levels in {"none": (0,), **_LEVELS}.items():
        for level in levels:
            title = "as it is" if name == "none" else f"{name} {level}"
            there = found[(found["perturbation"] == name) & (found["level"] == level)]
            rows += [_measured(title, row) for _, row in there.iterrows()]
    equal = page.table(run, "evaluation/conditions.csv")
    equal = equal[(equal["condition"] == "equalised") & (equal["split"] == "test")]
    rows += [_measured("equalised", row) for _, row in equal.iterrows()]
    columns = ["images", "AUC [95 %]", "change [95 %]", "real accuracy", "fake accuracy"]
    page.text += markdown(pd.DataFrame(rows, columns=columns)) + "\n"
    page.picture(run, "figures/test/robustness.png", picture, "AUC under perturbations")


def _measured(title: str, row: "pd.Series[float]") -> list[str]:
    auc = with_interval(row["auc"], row["auc_low"], row["auc_high"])
    bounds = f"[{row['auc_change_low']:+.3f}, {row['auc_change_high']:+.3f}]"
    shares = [f"{row[name]:.2f}" for name in ("real_accuracy", "fake_accuracy")]
    return [title, auc, f"{row['auc_change']:+.3f} {bounds}", *shares]


def _regimes(page: Page, run: Run) -> None:
    factorial = run.data.params["regimes.factorial"] == "True"
    on = "the sample" if run.data.tags["synthdetect.data"] == "sample" else "the larger set"
    page.text += f"\n## {'Each change by itself' if factorial else 'The two regimes'}: {on}\n\n"
    page.command(run)
    compared = run.data.params["regimes.compared_data"]
    page.text += f"\n{compared}\n\n{run.data.tags['mlflow.note.content']}\n"
    if factorial:
        page.picture(run, "figures/effects.png", "effects.png", "Effects with their intervals")


if __name__ == "__main__":
    main()
