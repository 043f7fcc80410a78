"""Evaluation of a detector on perturbed and equalised images: scores, logs and prints results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.datasets.manifest import Manifest
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.predictions import Evaluation
from synthdetect.evaluation.summary import with_interval
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import EqualiseOptions
from synthdetect.images.perturbations import UNPERTURBED, PerturbationLevel, select_perturbations
from synthdetect.robustness.log import log_equalised, log_robustness
from synthdetect.robustness.options import RobustnessOptions
from synthdetect.robustness.scoring import score_perturbations
from synthdetect.robustness.tables import equalised_table
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.system.timetable import current
from synthdetect.tracking.run import Dataset, Run
from synthdetect.training.devices import Device, deterministic

RAW, EQUALISED = "raw", "equalised"
"""Versions of the images: as they are, and all re-encoded in the same way before preprocessing."""

QUALITY = int(EqualiseOptions.fields()["equalise_quality"].default)
"""JPEG quality of equalised images."""

_Score = Callable[[Preprocess, Sequence[PerturbationLevel], str], FloatArray]


@dataclass(frozen=True)
class EvaluatedSplit:
    """An evaluated split, with what is needed to score its images again.

    Attributes:
        evaluation: evaluation of the unperturbed images.
        files: image files, in the order of the predictions.
        dataset: dataset that the metrics are linked to.
    """

    evaluation: Evaluation
    files: Sequence[str]
    dataset: Dataset


def requested(options: RobustnessOptions) -> list[str]:
    """Return the given options that request further scoring: --robustness, --equalised."""
    return [f"--{name}" for name in ("robustness", "equalised") if getattr(options, name)]


def check_perturbations(options: RobustnessOptions, manifest: Manifest) -> None:
    """Check that the requested perturbations are known and can be evaluated.

    Raises:
        UserError: If a perturbation is unknown, or no split has both classes.
    """
    select_perturbations(options.robustness)
    if requested(options) and (manifest.table.groupby("split")["label"].nunique() < 2).all():
        raise UserError(
            f"{' and '.join(requested(options))}: no split here has both classes "
            f"({', '.join(manifest.splits)}). Evaluate a split with both, or leave the option out."
        )


def evaluate_perturbations(
    run: Run,
    options: RobustnessOptions,
    detector: Detector,
    decision: Decision,
    splits: Sequence[EvaluatedSplit],
    device: Device,
    model_id: str | None,
    *,
    seed: int,
    batch_size: int,
) -> None:
    """Evaluate each split that has both classes under the requested perturbations.

    Args:
        run: run to log to.
        options: options that select the perturbations.
        detector: detector that scores the images.
        decision: decision in force, which is the same for all perturbations.
        splits: evaluated splits.
        device: device that scores.
        model_id: logged model that the metrics are linked to.
        seed: seed of `intervals` and of random perturbations.
        batch_size: images per batch.
    """
    if not requested(options):
        return
    scored = [split for split in splits if split.evaluation.predictions["label"].nunique() == 2]
    names = {x.evaluation.split for x in splits} - {x.evaluation.split for x in scored}
    if names:
        given = " and ".join(requested(options))
        console.print(f"{given}: without {', '.join(sorted(names))} (one class only)")
    compared = []
    for split in scored:
        limit = int(options.cache_gib * 2**30)
        score = _scorer(detector, decision, split, device, limit, seed=seed, batch_size=batch_size)
        bound: dict[str, Any] = {"dataset": split.dataset, "model_id": model_id}
        plain = split.evaluation.predictions["logit"].to_numpy()
        _, *perturbed = select_perturbations(options.robustness)
        if perturbed:
            logits = np.vstack([plain, score(detector.preprocess, perturbed, "perturbed")])
            name = "robustness" if len(scored) == 1 else f"{split.evaluation.split}_robustness"
            found, flips = log_robustness(
                run, split.evaluation, logits, [UNPERTURBED, *perturbed], decision.threshold,
                seed=seed, name=name, **bound,
            )  # fmt: skip
            shown = found["perturbation"] + found["level"].map(" {:g}".format)
            _show(
                f"Robustness on {split.evaluation.split}",
                shown.replace("none 0", "unperturbed"),
                found,
            )
            rows = [
                [row["perturbation"], str(row["levels"]), _rate(row)]
                for row in flips.to_dict(orient="records")
            ]
            table(
                f"Images of {split.evaluation.split} whose answer changes",
                ["perturbation", "levels", "at any of them [95 %]"],
                rows,
            )
        if options.equalised:
            preprocess = replace(detector.preprocess, equalise_quality=QUALITY)
            (logits,) = score(preprocess, [UNPERTURBED], "equalised")
            found = equalised_table(
                split.evaluation.predictions, {RAW: plain, EQUALISED: logits},
                decision.threshold, seed=seed,
            )  # fmt: skip
            log_equalised(run, found, **bound)
            compared.append(found)
    if compared:
        equalised = pd.concat(compared, ignore_index=True)
        run.log_table(equalised, "evaluation/conditions.csv")
        _show("Equalised", equalised["split"] + " " + equalised["condition"], equalised)


def scoring_work(options: RobustnessOptions, split: str, images: int) -> dict[str, int]:
    """Return the number of images that `evaluate_perturbations` scores, by name of the task."""
    perturbed = len(select_perturbations(options.robustness)) - 1
    work = {f"{split} perturbed": perturbed * images, f"{split} equalised": images}
    return {
        name: count
        for name, count in work.items()
        if count and (options.equalised or not name.endswith("equalised"))
    }


def _scorer(
    detector: Detector,
    decision: Decision,
    split: EvaluatedSplit,
    device: Device,
    cache_limit: int,
    *,
    seed: int,
    batch_size: int,
) -> _Score:
    """Return a function that computes calibrated logits of shape (perturbations, images)."""
    predictions = split.evaluation.predictions

    def score(preprocess: Preprocess, levels: Sequence[PerturbationLevel], what: str) -> FloatArray:
        name = f"{split.evaluation.split} {what}"
        with current().part(name), deterministic(0), counting(name, planned=True) as count:
            raw = score_perturbations(
                detector.scorer, split.files, predictions["sha256"], preprocess, levels, device,
                seed=seed, batch_size=batch_size, cache_limit=cache_limit, progress=count,
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
        rows.append([name, with_interval(*auc), changed, *accuracies, _rate(row)])
    shown = ["images", "AUC [95 %]", "change [95 %]", "real accuracy", "fake accuracy",
             "flip rate [95 %]"]  # fmt: skip
    table(title, shown, rows)


def _rate(row: dict[str, Any]) -> str:
    return with_interval(row["flip_rate"], row["flip_rate_low"], row["flip_rate_high"])
