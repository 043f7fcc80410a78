"""The model cards of logged models: written by what logs a model, and anew by what measures it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.predictions import Evaluation
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.report.measured import READ_FOR_CARDS, Measured, measured_in, measured_now
from synthdetect.report.model_card import README, model_card
from synthdetect.runs.options import OWN_VIEWS, TrainOptions
from synthdetect.tracking.models import (
    LoggedModel,
    log_model_card,
    logged_model,
    runs_that_measured,
)
from synthdetect.tracking.queries import StoredRun, existing, is_there
from synthdetect.tracking.records import collected
from synthdetect.tracking.run import Run


def write_card(
    run: Run,
    options: TrainOptions,
    model: LoggedModel,
    detector: Detector,
    evaluations: Mapping[str, Evaluation],
) -> None:
    """Write the card of a model that a training has just logged and evaluated."""
    card = replace(detector.card, weights_sha256=digest_of(tensors_of(detector.network)))
    measured = list(measured_now(evaluations, options.data.data, run.id))
    name = options.run.register or _name(card)
    text = model_card(card, measured, name=name, licence=options.run.license, model=_uri(model))
    run.retry(lambda: log_model_card(model, text, README))


def rewrite_card(model_id: str, card: Card, originals: Sequence[Measured] = ()) -> None:
    """Write the card of a logged model from the records of all runs that have measured it.

    Args:
        model_id: Id of the model.
        card: The card of its detector.
        originals: What was measured of the detector that it was exported from.
    """
    model = logged_model(model_id)
    name, licence = named(card)
    measured = [*originals, *measured_of(model_id)]
    text = model_card(card, measured, name=name, licence=licence, model=_uri(model))
    log_model_card(model, text, README)


def measured_of(model_id: str | None) -> list[Measured]:
    """Return what all runs of the tracking store have measured of a model."""
    found: list[Measured] = []
    for run_id in runs_that_measured(model_id) if model_id else ():
        if is_there(run_id) and _is_as_given(existing(run_id)):
            with collected(run_id, (".csv",), READ_FOR_CARDS) as record:
                found += measured_in(record)
    return found


def _is_as_given(run: StoredRun) -> bool:
    """Whether a run measured a model with the views and the decision of the model's own card."""
    params = run.params
    return (
        params.get("evaluate.views", OWN_VIEWS) == OWN_VIEWS
        and float(params.get("evaluate.prior", 0)) == 0
        and (params.get("evaluate.decide") != "val" or params.get("evaluate.log_model") == "True")
    )


def named(card: Card) -> tuple[str, str]:
    """Return the name and the licence that the training of a detector gave it, as recorded."""
    run_id = str(card.provenance.get("run_id", ""))
    params = existing(run_id).params if is_there(run_id) else {}
    return params.get("run.register") or _name(card), params.get("run.license", "")


def _name(card: Card) -> str:
    return " ".join(filter(None, (card.model.arch, str(card.provenance.get("recipe", "")))))


def _uri(model: LoggedModel) -> str:
    return f"models:/{model.model_id}"
