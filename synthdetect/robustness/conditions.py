"""Perturbed and equalised images in an evaluation: scored, logged and shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.data.dataset import Dataset

from synthdetect.datasets.manifest import Manifest
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.predictions import Evaluation
from synthdetect.evaluation.summary import with_interval
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import EqualiseOptions
from synthdetect.images.perturbations import UNPERTURBED, Condition, select_conditions
from synthdetect.robustness.log import log_condition, log_robustness
from synthdetect.robustness.scoring import score_conditions
from synthdetect.robustness.tables import conditions_table
from synthdetect.runs.options import EvaluateOptions
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device, deterministic

RAW, EQUALISED = "raw", "equalised"
"""Conditions: images as the detector sees them anyway, and encoded alike before that."""

QUALITY = int(EqualiseOptions.fields()["equalise_quality"].default)
"""Of the JPEG that equalised images are."""

Score = Callable[[Preprocess, Sequence[Condition], str], FloatArray]


@dataclass(frozen=True)
class Judged:
    """A split that was evaluated, and what it takes to score it again.

    Attributes:
        evaluation: of the images as they are.
        files: the images, in the order of the predictions.
        dataset: to bind the metrics to.
    """

    evaluation: Evaluation
    files: Sequence[Path]
    dataset: Dataset


def asked(options: EvaluateOptions) -> list[str]:
    """The options that ask for other conditions."""
    return [f"--{name}" for name in ("robustness", "equalised") if getattr(options, name)]


def check_conditions(options: EvaluateOptions, manifest: Manifest) -> None:
    """See that what is asked for can be done.

    Raises:
        UserError: an unknown perturbation, or no split with both classes.
    """
    select_conditions(options.robustness)
    if asked(options) and (manifest.table.groupby("split")["label"].nunique() < 2).all():
        raise UserError(
            f"{' and '.join(asked(options))}: no split here has both classes "
            f"({', '.join(manifest.splits)}). Evaluate images of both, or leave it out."
        )


def judge_conditions(
    run: Run,
    options: EvaluateOptions,
    detector: Detector,
    decision: Decision,
    splits: Sequence[Judged],
    device: Device,
    model_id: str | None,
) -> None:
    """Score and judge the images under the conditions asked for, each split with both classes.

    Args:
        run: to log to.
        options: which conditions.
        detector: what scores them.
        decision: in force for the images as they are, and so for all conditions.
        splits: what was evaluated.
        device: what computes.
        model_id: to bind the metrics to.
    """
    if not asked(options):
        return
    judged = [one for one in splits if one.evaluation.predictions["label"].nunique() == 2]
    left_out = {one.evaluation.split for one in splits} - {one.evaluation.split for one in judged}
    if left_out:
        names = ", ".join(sorted(left_out))
        console.print(f"{' and '.join(asked(options))}: without {names}, of one class only")
    compared = []
    for one in judged:
        score = _scorer(options, detector, decision, one, device)
        bound: dict[str, Any] = {"dataset": one.dataset, "model_id": model_id}
        plain = one.evaluation.predictions["logit"].to_numpy()
        _, *perturbed = select_conditions(options.robustness)
        if perturbed:
            logits = np.vstack([plain, score(detector.preprocess, perturbed, "perturbed")])
            name = "robustness" if len(judged) == 1 else f"{one.evaluation.split}_robustness"
            found = log_robustness(
                run, one.evaluation, logits, [UNPERTURBED, *perturbed], decision.threshold,
                seed=options.seed, name=name, **bound,
            )  # fmt: skip
            shown = found["perturbation"] + found["level"].map(" {:g}".format)
            _show(
                f"Robustness on {one.evaluation.split}", shown.replace("none 0", "as it is"), found
            )
        if options.equalised:
            preprocess = replace(detector.preprocess, equalise_quality=QUALITY)
            (logits,) = score(preprocess, [UNPERTURBED], "equalised")
            found = conditions_table(
                one.evaluation.predictions, {RAW: plain, EQUALISED: logits},
                decision.threshold, seed=options.seed,
            )  # fmt: skip
            log_condition(run, found, **bound)
            compared.append(found)
    if compared:
        conditions = pd.concat(compared, ignore_index=True)
        run.log_table(conditions, "evaluation/conditions.csv")
        _show("Equalised", conditions["split"] + " " + conditions["condition"], conditions)


def _scorer(
    options: EvaluateOptions, detector: Detector, decision: Decision, one: Judged, device: Device
) -> Score:
    """Calibrated logits of a split's images, shape (conditions, images), however they are seen."""
    predictions = one.evaluation.predictions

    def score(preprocess: Preprocess, conditions: Sequence[Condition], what: str) -> FloatArray:
        with deterministic(0), counting(f"{one.evaluation.split} {what}", "squares") as count:
            raw = score_conditions(
                detector.network, one.files, predictions["sha256"], preprocess, conditions, device,
                seed=options.seed, batch_size=options.batch_size,
                cache_limit=int(options.cache_gib * 2**30), progress=count,
            )  # fmt: skip
        return decision.calibration(raw)

    return score


def _show(title: str, names: "pd.Series[str]", measured: pd.DataFrame) -> None:
    rows = []
    for name, row in zip(names, measured.to_dict(orient="records"), strict=True):
        auc, change = (
            [row[column], row[f"{column}_low"], row[f"{column}_high"]]
            for column in ("auc", "auc_change")
        )
        accuracies = [f"{row[column]:.3f}" for column in ("real_accuracy", "fake_accuracy")]
        changed = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*change)
        rows.append([name, with_interval(*auc), changed, *accuracies])
    shown = ["images", "AUC [95 %]", "change [95 %]", "real accuracy", "fake accuracy"]
    table(title, shown, rows)
