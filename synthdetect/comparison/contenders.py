"""What a comparison knows of a run: its record, and of an evaluation that of the training."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase

import pandas as pd

from synthdetect.reproduction.manifest_diff import CHANGES
from synthdetect.system.errors import UserError
from synthdetect.tracking.models import models_of
from synthdetect.tracking.queries import (
    StoredRun,
    artifact_paths,
    existing,
    fetch,
    input_models,
    is_there,
    logged_datasets,
    metric_history,
    read_predictions,
    read_table,
)
from synthdetect.tracking.tags import KIND, MANIFEST

MOST = len(ascii_uppercase)
"""The largest number of runs, each of which gets a letter."""

CURVES = ("train/loss", "val/loss", "train/auc", "val/auc")
"""Metrics of the epochs whose curves are compared."""

_FACTS = ("version.", "hardware.")
_NOT_OPTIONS = (*_FACTS, "data.digest", "data.target_digest", "decision.from")
_NEEDED = ("path", "label", "logit", "predicted")
_COUNTS = ("split", "label", "generator", "images")
_CARD = "model/card.json"


@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Attributes:
        letter: Its letter in tables and figures.
        name: Its name in words.
        run_id: Id of the run; of a registered model, of the run that logged it.
        kind: The kind of the run, its tag `synthdetect.kind`.
        status: The status of the run.
        options: Its options by `section.name`; of an evaluation, also those of the training.
        environment: Versions, hardware and code by name.
        datasets: Digest of the data of each split.
        counts: `split`, `label`, `generator`, `images`; empty if they are not recorded.
        manifest: The images of a training; empty if they are not recorded.
        curves: Metrics of the epochs, by name and epoch.
        chosen_epoch: The epoch whose weights were kept; 0 if none was trained.
        predictions: Predictions table by split.
        model: `models:/` URI of its detector; empty if it has none.
        images: Where its images were read from; empty if that is not recorded.
        problems: What is missing, in sentences.
    """

    letter: str
    name: str
    run_id: str
    kind: str
    status: str
    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)
    counts: pd.DataFrame = field(default_factory=pd.DataFrame)
    manifest: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    chosen_epoch: int = 0
    predictions: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    model: str = ""
    images: str = ""
    problems: tuple[str, ...] = ()

    def with_predictions(self, predictions: Mapping[str, pd.DataFrame], images: str) -> "Contender":
        """Return it with other predictions than those that its run has, of images elsewhere."""
        return replace(self, predictions=predictions, images=images, problems=())


def read_contender(letter: str, run_id: str, *, name: str = "") -> Contender:
    """Read what a comparison needs from the record of a run.

    Args:
        letter: Its letter.
        run_id: The run.
        name: Its name in words; the name of the run by default.

    Raises:
        UserError: If there is no such run.
    """
    run = existing(run_id)
    trained = _training_of(run)
    counts = _with_columns(read_table(run_id, "data/counts.csv"), _COUNTS)
    manifest = _with_columns(read_table(trained.id, MANIFEST), ("path", *CHANGES))
    predictions, problems = _predictions(run)
    problems += _overlaps(run_id)
    recorded = {**(trained.params if trained.id != run.id else {}), **run.params}
    images = run.params.get("evaluate.data") or run.params.get("data.data", "")
    logged = [model.model_id for model in models_of(run_id)] or input_models(run_id)
    return Contender(
        letter=letter,
        name=name or run.name,
        run_id=run_id,
        kind=run.tags.get(KIND, ""),
        status=run.status,
        options={k: v for k, v in recorded.items() if "." in k and not k.startswith(_NOT_OPTIONS)},
        environment=_environment(run),
        datasets=_digests(logged_datasets(run_id), counts),
        counts=counts,
        manifest=manifest,
        curves={n: metric_history(trained.id, n) for n in CURVES if n in trained.metrics},
        chosen_epoch=int(trained.metrics.get("best/epoch", 0)),
        predictions=predictions,
        model=f"models:/{logged[0]}" if logged else "",
        images="" if run.params.get("evaluate.predictions") else images,
        problems=problems,
    )


def _training_of(run: StoredRun) -> StoredRun:
    """Return the run that trained the detector of an evaluation, or else the run itself."""
    if run.tags.get(KIND) != "evaluate":
        return run
    with tempfile.TemporaryDirectory() as folder:
        file = fetch(run.id, _CARD, folder)
        try:
            card = json.loads(file.read_text(encoding="utf-8")) if file else {}
            run_id = str(card.get("provenance", {}).get("run_id", ""))
        except (ValueError, AttributeError):
            return run
    return existing(run_id) if is_there(run_id) else run


def _overlaps(run_id: str) -> tuple[str, ...]:
    """Return what an evaluation has found of its images in the training of the detector."""
    facts = read_table(run_id, "evaluation/held_out.csv")
    if facts is None or not {"split", "fact", "value", "warning"} <= set(facts):
        return ()
    doubtful = facts[facts["warning"].astype(str) == "True"]
    return tuple(
        f"{split or 'overlap'}: {fact}: {value}."
        for split, fact, value in doubtful[["split", "fact", "value"]].itertuples(index=False)
    )


def _environment(run: StoredRun) -> dict[str, str]:
    found = {name: value for name, value in run.params.items() if name.startswith(_FACTS)}
    return found | {
        name: run.tags[name] for name in ("git.commit", "git.dirty") if name in run.tags
    }


def _with_columns(table: pd.DataFrame | None, columns: Sequence[str]) -> pd.DataFrame:
    """Return a table if it has these columns, or else an empty one."""
    if table is None or not set(columns) <= set(table):
        return pd.DataFrame(columns=list(columns))
    return table


def _digests(datasets: Mapping[str, str], counts: pd.DataFrame) -> dict[str, str]:
    """Return the digests of datasets, whose names end in the split, by split."""
    return {
        split: digest
        for split in counts["split"].unique()
        for name, digest in datasets.items()
        if name.endswith(f"-{split}")
    }


def _predictions(run: StoredRun) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Read the predictions of labelled images, and say what is wrong with others."""
    tables: dict[str, pd.DataFrame] = {}
    problems = []
    if run.tags.get(KIND) == "predict":
        return tables, ("It scored images without labels, so there is nothing to measure.",)
    for path in artifact_paths(run.id, "predictions"):
        if not path.endswith(".csv"):
            continue
        split = path.removeprefix("predictions/").removesuffix(".csv")
        try:
            table = read_predictions(run.id, path)
        except UserError as error:
            problems.append(str(error))
            continue
        missing = [column for column in _NEEDED if column not in table]
        if not missing and len(table):
            tables[split] = table
        else:
            what = f"no column {', '.join(missing)}" if missing else "no rows"
            problems.append(f"{path} has {what}, so another version or program has made it.")
    if not tables:
        if run.status == "RUNNING":
            problems.append("It is RUNNING and has no predictions yet: compare again when it ends.")
        elif run.status != "FINISHED":
            problems.append(f"It is {run.status} and ended before it had predictions.")
        elif not problems:
            problems.append(
                "It has no predictions of labelled images. Score some with: synthdetect evaluate "
                f"--model {run.id} --data ..., and compare that run."
            )
    elif run.status != "FINISHED":
        problems.append(f"It is {run.status}: its record may not be complete.")
    return tables, tuple(problems)
