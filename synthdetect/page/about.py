"""What is known of a detector, and what is not: its card and the measurements of its training.

Every statement is derived from the card and the recorded results; nothing is presumed of the kind
of generators, which only their names tell.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from synthdetect.config.registry import Entry
from synthdetect.detectors.card import TORCH, Card
from synthdetect.evaluation.answer import CHOSEN_ON
from synthdetect.evaluation.predictions import CONTROL, MEAN, WORST
from synthdetect.images.options import GEOMETRIES, VIEWS
from synthdetect.models.spec import FRONT_ENDS
from synthdetect.page import DESCRIBED
from synthdetect.serving.options import ServeOptions
from synthdetect.system.visible import visible
from synthdetect.tracking.recorded import Results


@dataclass(frozen=True, config=DESCRIBED)
class Fact:
    """A fact of the card."""

    name: str
    """What it is about."""
    value: str
    """The fact."""


@dataclass(frozen=True, config=DESCRIBED)
class Measured:
    """How well the detector tells the images of a generator from real ones."""

    split: str
    """The images that it was measured on."""
    generator: str
    """The generator."""
    trained_on: bool | None
    """Whether images of the generator were trained on; None if that is not recorded."""
    images: int
    """Number of images of the generator."""
    auc: float
    """Area under the ROC curve against the real images of the split; 0.5 is chance."""
    low: float | None
    """Lower bound of its 95 % interval; None if it is undefined."""
    high: float | None
    """Upper bound."""
    verdict: str
    """The interval in words."""


@dataclass(frozen=True, config=DESCRIBED)
class About:
    """The card of a detector for the people who use it."""

    name: str
    """Name of the detector."""
    threshold: float
    """Probability from which on the answer is synthetic."""
    unsure: float
    """Half width of the band around the threshold in which the answer is unsure."""
    facts: Sequence[Fact]
    """What the detector is."""
    limits: Sequence[str]
    """What it can and cannot tell, in sentences."""
    measured: Sequence[Measured]
    """The measurements by generator."""
    max_mib: int
    """Largest file of one image in MiB."""
    max_pixels: int
    """Most pixels of one image."""


def about(name: str, card: Card, results: Results | None, options: ServeOptions) -> About:
    """Describe a detector.

    Args:
        name: Its name.
        card: Its card.
        results: The evaluations of the run that trained it; None if they are not at hand.
        options: The limits on a request.
    """
    measured = list(_measured(card, results)) if results else []
    return About(
        name=visible(name),
        threshold=card.decision.threshold,
        unsure=card.decision.unsure,
        facts=[Fact(name, visible(value)) for name, value in _facts(card)],
        limits=[visible(text) for text in _limits(card, results, measured)],
        measured=measured,
        max_mib=options.max_mib,
        max_pixels=options.max_pixels,
    )


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    model, known = card.model, card.provenance
    yield "architecture", model.arch
    size = f"{model.image_size} x {model.image_size} pixels"
    yield "sees", f"{size}: {_help(GEOMETRIES[card.geometry])}"
    yield "front-end", f"{model.front_end}: {_help(FRONT_ENDS[model.front_end])}"
    yield "views", f"{card.views}: {_help(VIEWS[card.views])}"
    if images := known.get("training_images"):
        yield "training images", f"{images:,}" if isinstance(images, int) else str(images)
    if recipe := known.get("recipe"):
        yield "recipe", str(recipe)
    if model.generators:
        yield "can name", ", ".join(model.generators)
    if card.engine != TORCH:
        yield "engine", f"{card.engine}, {card.precision}"


def _help(entry: Entry) -> str:
    """Return the help of a registry's entry, to stand behind a colon."""
    return f"{entry.help[0].lower()}{entry.help[1:]}".rstrip(".")


def _generators(card: Card) -> list[str] | None:
    found = card.provenance.get("training_generators")
    return [str(name) for name in found] if isinstance(found, list) else None


def _measured(card: Card, results: Results) -> Iterator[Measured]:
    trained = _generators(card)
    rows = results.generators
    rows = rows[~rows["split"].isin(CHOSEN_ON) & ~rows["generator"].isin([MEAN, WORST])]
    rows = rows[np.isfinite(rows[["images", "auc"]].astype(float)).all(axis=1)]
    for row in rows.to_dict(orient="records"):
        low, high = (_defined(row[name]) for name in ("auc_low", "auc_high"))
        yield Measured(
            split=visible(str(row["split"])),
            generator=visible(str(row["generator"])),
            trained_on=None if trained is None else row["generator"] in trained,
            images=int(row["images"]),
            auc=float(row["auc"]),
            low=low,
            high=high,
            verdict=_against_chance(low, high),
        )


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _against_chance(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "too few images to tell"
    if low > 0.5:
        return "better than chance"
    return "worse than chance" if high < 0.5 else "not shown to be better than chance"


def _limits(card: Card, results: Results | None, measured: list[Measured]) -> Iterator[str]:
    trained = _generators(card)
    if trained:
        yield f"It was trained on real images and on images by {_listed(trained)}, and by no other."
    else:
        yield "Which generators it was trained on is not recorded."
    if results is None or results.metrics.empty:
        yield (
            "No measurements are at hand here, so how often it is wrong is not known. Serve it by "
            "its run or by a models:/ URI to see those of its training."
        )
        return
    yield from _of_generators(measured)
    yield from _errors(results)
    yield from _controls(results)
    yield (
        "How its answers change when an image is compressed again, resized or edited was not "
        "measured with its training; the details of a picture show it for that picture alone."
    )
    if card.engine != TORCH:
        yield "These are measurements of the detector that it was exported from."


def _of_generators(measured: list[Measured]) -> Iterator[str]:
    weak = {m.generator for m in measured if m.verdict != "better than chance"}
    if weak:
        yield f"It was not shown to recognise images by {_listed(sorted(weak))}."
    unseen = {m.generator for m in measured if m.trained_on is False}
    told = sorted(unseen - weak)
    if told:
        yield (
            f"It recognises images by {_listed(told)} better than by chance, although it was not "
            "trained on any."
        )
    if any(m.trained_on is not None for m in measured) and not unseen:
        yield "It was never measured on a generator that it was not trained on."
    yield (
        "Of images by any generator that is not named here, its answer says nothing: none was "
        "measured."
    )


def _errors(results: Results) -> Iterator[str]:
    rows = results.metrics[~results.metrics["split"].isin(CHOSEN_ON)]
    for split, found in rows.set_index("metric").groupby("split", sort=False):
        values = {name: row for name, row in found.iterrows() if math.isfinite(row["value"])}
        if {"real_accuracy", "fake_accuracy"} <= values.keys():
            real, fake = (_wrong(values[name]) for name in ("real_accuracy", "fake_accuracy"))
            yield (
                f"At its threshold it called {real} of the real images of {split} synthetic, and "
                f"{fake} of the synthetic ones real."
            )


def _controls(results: Results) -> Iterator[str]:
    rows = results.metrics[results.metrics["metric"] == CONTROL]
    for row in rows.to_dict(orient="records"):
        low, high = _defined(row["low"]), _defined(row["high"])
        sentence = (
            f"It tells the real images of {row['split']} from other real images with an AUC of "
            f"{_interval(row['value'], low, high)}; 0.5 is wanted."
        )
        if low is not None and low > 0.5:
            sentence += " It takes what sets them apart for a sign of generation."
        yield sentence


def _wrong(row: "pd.Series[float]") -> str:
    """Return a share of errors in percent with its interval, from an accuracy."""
    share = f"{1 - row['value']:.0%}"
    if math.isnan(row["low"]) or math.isnan(row["high"]):
        return share
    return f"{share} [{1 - row['high']:.0%}, {1 - row['low']:.0%}]"


def _interval(value: float, low: float | None, high: float | None) -> str:
    bounds = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{value:.2f}{bounds}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
