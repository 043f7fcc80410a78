"""The results of a run, read from its record: weights, metrics by step, predictions."""

import tempfile

import pandas as pd
from mlflow.tracking import MlflowClient

from synthdetect.models.tensors import tensors_of
from synthdetect.reproduction.comparison import LOGITS, RunResults
from synthdetect.tracking.detectors import logged_by
from synthdetect.tracking.models import models_of
from synthdetect.tracking.run import WEIGHTS

_PREDICTIONS = "predictions"


def results_of(run_id: str) -> RunResults:
    """Read the results of a run, exactly as they were logged.

    Raises:
        UserError: If its model cannot be loaded.
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    tensors = tensors_of(logged_by(run_id, run_id).detector.network) if models_of(run_id) else {}
    return RunResults(
        weights={name: tensor.numpy() for name, tensor in tensors.items()},
        digest=run.data.tags.get(WEIGHTS, ""),
        metrics={name: _history(client, run_id, name) for name in run.data.metrics},
        predictions=_predictions(client, run_id),
    )


def has_weights(run_id: str) -> bool:
    """Return whether the weights of a training, or their hash, are still recorded."""
    tags = MlflowClient().get_run(run_id).data.tags
    return bool(tags.get(WEIGHTS) or models_of(run_id))


def _history(client: MlflowClient, run_id: str, name: str) -> dict[int, float]:
    points = client.get_metric_history(run_id, name)
    return {point.step: point.value for point in sorted(points, key=lambda point: point.step)}


def _predictions(client: MlflowClient, run_id: str) -> dict[str, pd.DataFrame]:
    tables = {}
    for item in client.list_artifacts(run_id, _PREDICTIONS):
        if item.path.endswith(".csv"):
            with tempfile.TemporaryDirectory() as folder:
                file = client.download_artifacts(run_id, item.path, folder)
                table = pd.read_csv(
                    file, usecols=lambda name: name in ("path", *LOGITS), dtype=str,
                    keep_default_na=False,
                )  # fmt: skip
            # The parser of pandas can be off by the last bit.
            logits = {name: table[name].map(float) for name in LOGITS if name in table}
            tables[item.path] = table.assign(**logits)
    return tables
