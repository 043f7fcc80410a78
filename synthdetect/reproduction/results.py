"""The results of a run, read from its record: weights, metrics by step, predictions."""

import tempfile

import pandas as pd

from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.reproduction.comparison import LOGITS, RunResults
from synthdetect.tracking.detectors import logged_by
from synthdetect.tracking.models import models_of
from synthdetect.tracking.queries import artifact_paths, download, existing, metric_history
from synthdetect.tracking.run import epoch_metric
from synthdetect.tracking.tags import WEIGHTS

_PREDICTIONS = "predictions"


def results_of(run_id: str) -> RunResults:
    """Read the results of a run, exactly as they were logged.

    Raises:
        UserError: If its model cannot be loaded.
    """
    run = existing(run_id)
    tensors = tensors_of(logged_by(run_id, run_id).detector.network) if models_of(run_id) else {}
    return RunResults(
        weights={name: tensor.numpy() for name, tensor in tensors.items()},
        digest=run.tags.get(WEIGHTS) or (digest_of(tensors) if tensors else ""),
        metrics={_renamed(name): metric_history(run_id, name) for name in run.metrics},
        predictions=_predictions(run_id),
    )


def _renamed(name: str) -> str:
    """Return the present name of a metric that older versions logged without a group."""
    return epoch_metric(name) if name in ("lr", "images_per_second") else name


def has_weights(run_id: str) -> bool:
    """Return whether the weights of a training, or their hash, are still recorded."""
    return bool(existing(run_id).tags.get(WEIGHTS) or models_of(run_id))


def _predictions(run_id: str) -> dict[str, pd.DataFrame]:
    tables = {}
    for path in artifact_paths(run_id, _PREDICTIONS):
        if path.endswith(".csv"):
            with tempfile.TemporaryDirectory() as folder:
                file = download(run_id, path, folder)
                table = pd.read_csv(
                    file, usecols=lambda name: name in ("path", *LOGITS), dtype=str,
                    keep_default_na=False,
                )  # fmt: skip
            # The parser of pandas can be off by the last bit.
            logits = {name: table[name].map(float) for name in LOGITS if name in table}
            tables[path] = table.assign(**logits)
    return tables
