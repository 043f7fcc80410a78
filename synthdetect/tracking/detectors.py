"""Loads detectors from files, logged models and runs.

Of a logged model, only the file of the detector is read. Code that a model brings never runs.
"""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from synthdetect.detectors.card import Card, current_header
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.exported import load_detector
from synthdetect.detectors.folders import load_folder
from synthdetect.evaluation.overlap import ADAPTED_TO
from synthdetect.serving import SERVED_ARTIFACT
from synthdetect.system.errors import UserError
from synthdetect.tracking.availability import is_absent, is_away, waiting_client
from synthdetect.tracking.models import models_of
from synthdetect.tracking.queries import child_runs, existing, read_table
from synthdetect.tracking.store import tracking_uri
from synthdetect.tracking.tags import FOLD, KIND, MANIFEST, TARGET

_URI = "models:/"


class Found(NamedTuple):
    """A detector and its name.

    Attributes:
        name: Its name in messages and tables.
        detector: The detector.
        model_id: Id of the logged model, to which metrics can be bound; None for a file, and for a
            model that the tracking store does not have.
    """

    name: str
    detector: Detector
    model_id: str | None = None


def find_detectors(models: tuple[str, ...]) -> list[Found]:
    """Load detectors.

    Args:
        models: For each, the path of a `.safetensors` or exported `.onnx` file, or of a folder as
            `synthdetect export --to hub` writes it; a `models:/` URI with a version, an alias or a
            model id; or a run id, which stands for the model that the run logged. The id of a
            cross-validation stands for the models of its finished folds.

    Returns:
        The detectors in this order, those of a cross-validation in the order of the folds.

    Raises:
        UserError: If there is no such file, model or run, or it is no detector.
    """
    found: list[Found] = []
    for model in models:
        path = Path(model).expanduser()
        if model.startswith(_URI):
            found.append(_from_uri(model, model))
        elif path.is_file():
            found.append(Found(model, load_detector(path)))
        elif path.is_dir():
            found.append(Found(model, load_folder(path)))
        else:
            found += _from_run(model)
    return found


def find_detector(models: tuple[str, ...]) -> Found:
    """Load a single detector, given as for `find_detectors`.

    Raises:
        UserError: As `find_detectors`; or if it is not a single one. A cross-validation never is,
            even if only one fold is finished.
    """
    found = find_detectors(models)
    names = [one.name for one in found]
    if len(models) != 1 or names != list(models):  # a fold is not named as it was given
        raise UserError(
            "--model: give one .safetensors or .onnx file, models:/ URI or id of a run with one "
            f"model (got {', '.join(names) or 'none'}). Each fold of a cross-validation is such a "
            "run, and so is its refit."
        )
    return found[0]


def logged_by(run_id: str, name: str) -> Found:
    """Load the detector that a run has logged, and give it a name.

    Raises:
        UserError: If the run has logged none, or it cannot be loaded.
    """
    models = models_of(run_id)
    if not models:
        status = existing(run_id).status
        raise UserError(
            f"--model: run {run_id} ({status}) has logged no model. Let it finish, or give another."
        )
    return _from_uri(f"{_URI}{models[0].model_id}", name)


def training_rows(card: Card) -> pd.DataFrame | None:
    """Read the manifest of the run that trained a detector.

    Returns:
        The manifest, or None if the tracking store does not have it. Images that the detector was
        adapted to follow as the split `ADAPTED_TO` with their hashes only. A run that did not
        record them has one such row with an empty hash.
    """
    run_id = str(card.provenance.get("run_id", ""))
    rows = read_table(run_id, MANIFEST)
    if rows is None or not card.provenance.get("target"):
        return rows
    target = read_table(run_id, TARGET)
    hashes = [""] if target is None else target["sha256"]
    adapted = pd.DataFrame({"sha256": hashes, "split": ADAPTED_TO})
    return pd.concat([rows, adapted], ignore_index=True)


def _from_run(run_id: str) -> list[Found]:
    try:
        run = waiting_client().get_run(run_id)
    except MlflowException as error:
        if not is_absent(error):
            raise
        raise UserError(
            f"--model: {run_id!r} is neither a file, nor a {_URI} URI, nor a run in "
            f"{tracking_uri()}. Set MLFLOW_TRACKING_URI to the store that has it."
        ) from error
    if run.data.tags.get(KIND) != "cv":
        return [logged_by(run_id, run_id)]
    folds = {
        int(child.tags[FOLD]): child.id
        for child in child_runs(run_id)
        if child.tags.get(KIND) == "fold" and child.status == "FINISHED"
    }
    if not folds:
        raise UserError(f"--model: cross-validation {run_id} has no finished fold.")
    return [logged_by(folds[fold], f"{run_id} fold {fold}") for fold in sorted(folds)]


def _from_uri(uri: str, name: str) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        try:
            repository: Any = get_artifact_repository(uri)
            description = Model.load(repository.download_artifacts("MLmodel", folder))
            artifacts = description.flavors["python_function"]["artifacts"]
            weights = PurePosixPath(artifacts[SERVED_ARTIFACT]["path"])
            if weights.is_absolute() or ".." in weights.parts:
                raise ValueError(f"{weights} is outside of the model")
            file = repository.download_artifacts(str(weights), folder)
        except (MlflowException, OSError) as error:
            if is_away(error):
                raise
            raise UserError(
                f"--model: {uri} cannot be loaded from {mlflow.get_registry_uri()}: "
                f"{str(error).rstrip('.')}. Set MLFLOW_TRACKING_URI to the store that has it."
            ) from error
        except Exception as error:  # MLflow and YAML raise many types for a damaged file
            raise UserError(f"--model: {uri} is no detector of synthdetect: {error}") from error
        try:
            detector = load_detector(Path(file))
        except UserError as error:  # its message names the downloaded copy
            raise UserError(f"--model: {uri}: {str(error).removeprefix(f'{file}: ')}") from error
        logged = current_header(description.metadata, Path(uri))
        _require_logged(detector.card, logged, uri)
        return Found(name, detector, _known(description.model_id))


def _require_logged(card: Card, logged: Any, uri: str) -> None:
    """Check a card against the one that was logged; the hash in a file covers its weights only."""
    found = json.loads(json.dumps(asdict(card)))
    if not isinstance(logged, dict):
        logged = {}
    other = [name for name in found if name in logged and found[name] != logged[name]]
    if other:
        raise UserError(
            f"--model: {uri}: its card has another {', '.join(other)} than the logged one. Restore "
            "the file, or log the model again."
        )


def _known(model_id: str | None) -> str | None:
    """Return the id if the tracking store has the model; else it would refuse metrics of it."""
    try:
        return str(waiting_client().get_logged_model(model_id).model_id) if model_id else None
    except MlflowException as error:
        if not is_absent(error):
            raise
        return None
