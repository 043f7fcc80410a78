"""Logs detectors as MLflow models, registers and promotes them."""

import base64
import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import LoggedModel as LoggedModel
from mlflow.exceptions import MlflowException
from PIL import Image

import synthdetect
from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.models.spec import architecture
from synthdetect.serving import SERVED_ARTIFACT
from synthdetect.serving.signature import signature_of
from synthdetect.system.errors import UserError
from synthdetect.system.redaction import without_secrets
from synthdetect.tracking.availability import is_absent, waiting_client
from synthdetect.tracking.run import Run

_SERVING = ("mlflow", "numpy", "pandas", "pillow", "pydantic", "pyarrow", "safetensors", "scipy",
            "torch", "torchvision")  # fmt: skip

CHAMPION = "champion"
"""Alias of the version of a registered model that is in use."""


def log_detector(run: Run, detector: Detector) -> LoggedModel:
    """Log a detector as the run's only model. What an earlier attempt left is deleted.

    The model is code (a copy of this package without its sample data) and one safetensors file.

    Returns:
        The logged model; `models:/<its id>` is its URI.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "detector.safetensors"
        card = detector.save(file)
        return run.retry(partial(_log, run, file, card, _SERVING))


def log_exported(run: Run, file: Path, card: Card) -> LoggedModel:
    """Log the file of an exported detector as the run's only model, which its engine serves."""
    return run.retry(partial(_log, run, file, card, (*_SERVING, "onnx", card.engine)))


def _log(run: Run, file: Path, card: Card, packages: Iterable[str]) -> LoggedModel:
    if architecture(card.model.arch).library == "timm":
        packages = (*packages, "timm")
    with tempfile.TemporaryDirectory() as folder:
        code = _code_without_sample(Path(folder))
        info = mlflow.pyfunc.log_model(
            name="detector",
            python_model=str(code / "serving" / "model.py"),
            artifacts={SERVED_ARTIFACT: str(file)},
            code_paths=[str(code)],
            signature=signature_of(card),
            input_example=_example(),
            pip_requirements=_requirements(packages),
            metadata=json.loads(json.dumps(asdict(card))),
            params={"arch": card.model.arch, "image_size": str(card.model.image_size)},
        )
    # MLflow repeats a request whose answer it does not get in time, and so may have made two.
    for other in models_of(run.id):
        if other.model_id != info.model_id:
            waiting_client().delete_logged_model(other.model_id)
    run.log_json(asdict(card), "model/card.json")
    return mlflow.get_logged_model(info.model_id)


def log_model_card(model: LoggedModel, text: str, name: str) -> None:
    """Put a model card beside the files of a logged model, and among its run's artifacts.

    Args:
        model: The logged model.
        text: The card, as Markdown. It replaces an earlier one.
        name: Name of the file.
    """
    client = waiting_client()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text(text, encoding="utf-8")
        client.log_model_artifact(model.model_id, str(file))
    if model.source_run_id:
        client.log_text(model.source_run_id, text, f"model/{name}")


def logged_model(model_id: str) -> LoggedModel:
    """Return a logged model by its id."""
    return waiting_client().get_logged_model(model_id)


def runs_that_measured(model_id: str) -> list[str]:
    """Return the ids of the runs that logged metrics of a model, the first one first."""
    model = waiting_client().get_logged_model(model_id)
    points = sorted(model.metrics or (), key=lambda metric: metric.timestamp)
    return list(dict.fromkeys(str(point.run_id) for point in points))


def models_of(run_id: str) -> list[LoggedModel]:
    """Return the models that a run has logged."""
    client = waiting_client()
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models(
        experiment_ids=[experiment], filter_string=f"source_run_id = '{run_id}'"
    )
    return [model for model in found if model.source_run_id == run_id]


def register(model: LoggedModel, name: str) -> str:
    """Register a model unless it is registered. The first version of a name becomes the champion.

    Returns:
        The version.
    """
    client = waiting_client()
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.source in (f"models:/{model.model_id}", model.artifact_location):
            return str(known.version)  # by an earlier attempt
    made = mlflow.register_model(f"models:/{model.model_id}", name)
    if CHAMPION not in client.get_registered_model(name).aliases:
        client.set_registered_model_alias(name, CHAMPION, made.version)
    return str(made.version)


def find_version(name: str, number: str) -> str:
    """Return the run that logged a version of a registered model; empty if it is not recorded.

    Raises:
        UserError: If there is no such version.
    """
    try:
        return str(waiting_client().get_model_version(name, number).run_id or "")
    except MlflowException as error:
        if not is_absent(error):
            raise
        raise UserError(
            f"no version {number!r} of a registered model {name!r} in {mlflow.get_registry_uri()}."
        ) from error


def champion_of(name: str) -> str:
    """Return the version of a registered model that is the champion; empty if none is."""
    return str(waiting_client().get_registered_model(name).aliases.get(CHAMPION, ""))


def promote(name: str, number: str) -> None:
    """Make a version of a registered model, which exists, the champion."""
    waiting_client().set_registered_model_alias(name, CHAMPION, number)


def describe_version(name: str, number: str, tags: Mapping[str, str], text: str = "") -> None:
    """Set tags of a version of a registered model, and its description unless that is empty."""
    client = waiting_client()
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, without_secrets(value))
    if text:
        client.update_model_version(name, number, without_secrets(text))


def _requirements(packages: Iterable[str]) -> list[str]:
    """Pin the installed versions, without local labels such as `+cpu` that no index has."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in packages]


def _example() -> pd.DataFrame:
    """Return a request with one image, as a client sends it."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "grey").save(file, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})


def _code_without_sample(folder: Path) -> Path:
    package = Path(synthdetect.__file__).parent
    target = folder / "synthdetect"
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("sample", "__pycache__"))
    return target
