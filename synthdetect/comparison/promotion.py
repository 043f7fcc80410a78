"""`synthdetect promote`: a version that is shown to be no worse becomes the champion."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.comparison.compare import Comparison, compare
from synthdetect.comparison.contenders import Contender, read_contender
from synthdetect.comparison.looks import looks
from synthdetect.comparison.options import PromoteOptions
from synthdetect.comparison.page import PAGE, render_page
from synthdetect.comparison.record import log_comparison
from synthdetect.comparison.runs import known_effects
from synthdetect.comparison.text import show
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.prepare import index_readable
from synthdetect.datasets.splits import group_codes
from synthdetect.detectors.card import Card
from synthdetect.detectors.scoring import Scoring
from synthdetect.evaluation.overlap import overlap
from synthdetect.evaluation.paired import NonInferiority, paired_metrics
from synthdetect.evaluation.predictions import prediction_table, sampling_unit
from synthdetect.evaluation.summary import inert
from synthdetect.images.batches import ImageFiles
from synthdetect.report.text import format_metric, label
from synthdetect.runs.messages import command_tags
from synthdetect.runs.setting import log_setting
from synthdetect.system.console import console, counting
from synthdetect.system.errors import NegativeAnswer, UserError
from synthdetect.tracking.detectors import Found, find_detector, training_rows
from synthdetect.tracking.models import (
    CHAMPION,
    champion_of,
    describe_version,
    find_version,
    promote,
)
from synthdetect.tracking.opening import keep_status, open_run
from synthdetect.tracking.queries import is_there
from synthdetect.tracking.records import log_page
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device, deterministic, resolve

CARD, COMPARISON, VERDICT = (f"synthdetect.{name}" for name in ("card", "comparison", "verdict"))
"""Tags of a model version: its card and the comparison as JSON, and what that says in words."""

FIRST, UNCOMPARED = "first champion", "not compared"
NO_WORSE, WORSE, NOT_SHOWN = "no worse", "worse", "not shown to be no worse"
"""Outcomes in the comparison of a version."""

_LONGEST_TAG = 100_000  # characters that MLflow accepts
_DETECTORS = ("A", "B")  # the champion, then the version


class NotPromoted(NegativeAnswer):
    """A version is worse than the champion, or not shown to be no worse."""


@dataclass(frozen=True)
class Evidence:
    """What the comparison of a version with the champion has found; a tag of the version.

    Attributes:
        outcome: One of the outcomes above.
        accepted: Whether the version is to become the champion, which the alias alone says it is.
        forced: Whether it is although it was not shown to be no worse.
        against: The version that was the champion; empty if there was none.
        data: The images, as the user named them.
        data_digest: Digest of them.
        split: Their split.
        images: Their number.
        sources: The number of their photographs, or of images if none are named.
        unit: What `sources` counts.
        test: The test; None without a comparison.
        warnings: What makes the comparison doubtful, in sentences.
        run_id: The run that has the comparison.
    """

    outcome: str
    accepted: bool
    forced: bool = False
    against: str = ""
    data: str = ""
    data_digest: str = ""
    split: str = ""
    images: int = 0
    sources: int = 0
    unit: str = ""
    test: NonInferiority | None = None
    warnings: tuple[str, ...] = ()
    run_id: str = ""

    def to_json(self) -> str:
        """Return it as JSON, with null for bounds that are undefined."""
        values = asdict(self)
        if self.test:
            values["test"] = {
                name: None if isinstance(value, float) and math.isnan(value) else value
                for name, value in values["test"].items()
            }
        return json.dumps(values)

    @property
    def words(self) -> str:
        """What it says in a sentence, without its final stop."""
        if self.outcome == FIRST:
            return "first champion, compared with nothing"
        if not self.test:
            return f"not compared with version {self.against}"
        test = self.test
        gain = "gain" if test.gain >= 0 else "loss"
        return (
            f"{self.outcome} than version {self.against} within a margin of {test.margin:g}: "
            f"{label(test.metric)} {format_metric(test.value)} against "
            f"{format_metric(test.reference)} on {self.images:,} images of {self.sources:,} "
            f"{self.unit}s, a {gain} of {format_metric(abs(test.gain))}; difference "
            f"{_signed(test.gain)} [{_signed(test.low)}, {_signed(test.high)}] (95 %), one-sided "
            f"95 % bound {_signed(test.bound)}"
        )


def _signed(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:+.3f}"


def promote_version(options: PromoteOptions) -> dict[str, Any]:
    """Promote a version of a registered model if it is shown to be no worse than the champion.

    Returns:
        The model, the alias, the version that has it, and the evidence if there was a promotion.

    Raises:
        UserError: If there is no such version, or it cannot be compared with the champion.
        NotPromoted: If it is worse, or not shown to be no worse, and is not forced.
    """
    name, number = options.name, options.version
    if not (name and number):
        raise UserError("--name, --version: name a registered model and the version to promote.")
    find_version(name, number)
    against = champion_of(name)
    if against == number:
        console.print(f"models:/{name}@{CHAMPION} is version {number} already")
        return _champion(options)
    candidate = _detector(name, number)
    if not against:
        console.print(f"{name} has no champion, so version {number} is compared with nothing.")
        return _conclude(options, candidate, Evidence(FIRST, accepted=True))
    if options.data:
        return _compare(options, candidate, _detector(name, against), against)
    if options.force:
        return _conclude(
            options, candidate, Evidence(UNCOMPARED, accepted=True, forced=True, against=against)
        )
    raise UserError(
        f"--data: name labelled images on which version {number} is compared with the "
        f"champion, version {against}; or give --force to promote it without."
    )


def _champion(options: PromoteOptions, **further: Any) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {"model": options.name, "alias": CHAMPION, "version": options.version, **further}


def _detector(name: str, number: str) -> Found:
    return find_detector((f"models:/{name}/{number}",))


def _compare(
    options: PromoteOptions, candidate: Found, champion: Found, against: str
) -> dict[str, Any]:
    """Compare two versions in a run, record the evidence, and promote the one or refuse it."""
    device = resolve(options.device.device, "fp32", options.device.workers)
    images = _images(options)
    found = [champion, candidate]
    sides = [
        _contender(letter, options, number)
        for letter, number in zip(_DETECTORS, (against, options.version), strict=True)
    ]
    title = f"promote {options.name} {options.version}"
    tags = command_tags("promote", options)
    with open_run(title, kind="promote", tags=tags, tracking=options.tracking) as run:
        console.print(f"run {run.id}")
        log_setting(run, options, device=device)
        run.log_manifest(images)
        for one in found:
            if one.model_id:
                run.log_model_input(one.model_id)
        tables = _predictions(found, images, options, device)
        for side, table in zip(("champion", "candidate"), tables, strict=True):
            run.log_table(table, f"predictions/{side}_{options.split}.csv")
        comparison = compare(
            [
                side.with_predictions({options.split: table}, options.data)
                for side, table in zip(sides, tables, strict=True)
            ],
            splits=[options.split], effects=known_effects(), seed=options.seed,
        )  # fmt: skip
        evidence = _evidence(options, tables, images, found, against, run)
        run.set_tags({VERDICT: evidence.words, COMPARISON: evidence.to_json()})
        _log(run, options, comparison, evidence, found)
    show(comparison)
    for warning in evidence.warnings:
        console.print(warning, style="bold yellow")
    console.print()
    run.print_pages()
    try:
        return _conclude(options, candidate, evidence)
    except NotPromoted:
        keep_status(run.id)
        raise


def _images(options: PromoteOptions) -> Manifest:
    with counting("reading the data") as count:
        manifest, _ = index_readable(load(options.data), "stop", count)
    split = manifest.table["split"].replace("", "test")
    manifest = manifest.with_table(manifest.table.assign(split=split))
    if options.split not in manifest.splits:
        raise UserError(
            f"--split: no {options.split} in {options.data}. Found: {', '.join(manifest.splits)}."
        )
    images = manifest.split(options.split)
    if images.table["label"].nunique() < 2:
        raise UserError(
            f"--split: the images of {options.split} are all real or all synthetic; a comparison "
            "needs both."
        )
    return images


def _contender(letter: str, options: PromoteOptions, number: str) -> Contender:
    """Return what is recorded of a version: of its training, or nothing if that is lost."""
    name, run_id = f"{options.name} version {number}", find_version(options.name, number)
    if is_there(run_id):
        return read_contender(letter, run_id, name=name)
    return Contender(letter, name, run_id or "not recorded", "", "not recorded")


def _predictions(
    found: Sequence[Found], images: Manifest, options: PromoteOptions, device: Device
) -> list[pd.DataFrame]:
    """Score the images with the detectors, each under its own decision and views."""
    detectors = [one.detector for one in found]
    with tempfile.TemporaryDirectory() as folder:
        files = ImageFiles(images.files(), detectors[0].preprocess)
        scoring = Scoring(
            Path(folder), detectors, files,
            data=images.digest(), batch_size=options.batch_size, strict=True,
        )  # fmt: skip
        with deterministic(0), counting("scoring") as count:
            scoring.run(device, count)
        scores = scoring.scores()
    return [
        prediction_table(images.table, logits, detector.card.decision, raw)
        for detector, logits, raw in zip(detectors, scores.logits, scores.raw, strict=True)
    ]


def _evidence(
    options: PromoteOptions, tables: Sequence[pd.DataFrame], images: Manifest,
    found: Sequence[Found], against: str, run: Run,
) -> Evidence:  # fmt: skip
    pair = paired_metrics(tables, seed=options.seed)[options.metric][0]
    test = NonInferiority.of(options.metric, pair, options.margin)
    outcome = NO_WORSE if test.is_shown else WORSE if test.is_worse else NOT_SHOWN
    warnings = [
        f"Version {number}: {fact}: {value}."
        for number, one in zip((against, options.version), found, strict=True)
        for _, fact, value, warned in overlap(
            {options.split: images.table}, training_rows(one.detector.card)
        ).itertuples(index=False)
        if warned
    ]
    return Evidence(
        outcome=outcome,
        accepted=test.is_shown or options.force,
        forced=options.force and not test.is_shown,
        against=against,
        data=options.data,
        data_digest=images.digest(),
        split=options.split,
        images=len(images),
        sources=len(np.unique(group_codes(images.table))),
        unit=sampling_unit(images.table),
        test=test,
        warnings=tuple(warnings),
        run_id=run.id,
    )


def _log(
    run: Run, options: PromoteOptions, comparison: Comparison, evidence: Evidence,
    found: Sequence[Found],
) -> None:  # fmt: skip
    detectors = {letter: one.detector for letter, one in zip(_DETECTORS, found, strict=True)}
    seen, notes = looks(comparison, most=options.images, data=options.data, detectors=detectors)
    verdict = f"Version {options.version} is {evidence.words}."
    facts = {
        "Verdict": verdict,
        "Decision": "promote, by --force"
        if evidence.forced
        else "promote"
        if evidence.accepted
        else "refuse",
        "Data": f"{options.data}, {options.split}",
        "Run id": run.id,
    }
    title = f"{options.name}: version {options.version} against the champion"
    html = render_page(comparison, seen, facts, title, [*evidence.warnings, *notes])
    log_comparison(run, comparison)
    log_page(run.id, html, PAGE)
    run.describe(inert(verdict))


def _conclude(options: PromoteOptions, candidate: Found, evidence: Evidence) -> dict[str, Any]:
    """Record the evidence in the version, and promote it unless the evidence is against it.

    The alias is moved last, so that whoever hears of it finds everything else.
    """
    tags = {COMPARISON: evidence.to_json(), VERDICT: evidence.words}
    if not evidence.accepted:
        describe_version(options.name, options.version, tags)
        raise NotPromoted(
            f"version {options.version} of {options.name} is not promoted: it is "
            f"{evidence.words}. {_advice(evidence)}",
            {"model": options.name, **_shown(evidence)},
        )
    if champion_of(options.name) != evidence.against:
        raise UserError(
            f"{options.name}: the champion has changed since the comparison began. Run it again."
        )
    card = candidate.detector.card
    described = describe(card, evidence)
    describe_version(options.name, options.version, {CARD: _card(card), **tags}, described)
    promote(options.name, options.version)
    console.print(f"models:/{options.name}@{CHAMPION} is now version {options.version}")
    forced = ", promoted by --force" if evidence.forced else ""
    console.print(f"version {options.version} is {evidence.words}{forced}")
    return _champion(options, **_shown(evidence))


def _shown(evidence: Evidence) -> dict[str, Any]:
    """Return the evidence for `--json`, with the run that has the comparison."""
    return {"run_id": evidence.run_id or None, "evidence": json.loads(evidence.to_json())}


def _advice(evidence: Evidence) -> str:
    if evidence.outcome == WORSE:
        return "Keep the champion, or give --force."
    return (
        "More photographs make the interval narrower; --margin says how much worse is acceptable; "
        "--force promotes it all the same."
    )


def _card(card: Card) -> str:
    text = json.dumps(asdict(card))
    return text if len(text) <= _LONGEST_TAG else "too long for a tag; see model/card.json"


def describe(card: Card, evidence: Evidence) -> str:
    """Return the description of a version, in Markdown.

    Args:
        card: The card of its detector.
        evidence: What the comparison has found.
    """
    known: Mapping[str, Any] = card.provenance
    engine = f", {card.engine} {card.precision}" if card.engine != "torch" else ""
    generators = ", ".join(map(str, known.get("training_generators", []))) or "not recorded"
    lines = [
        f"Detector of AI-generated images: {card.model.arch} on squares of "
        f"{card.model.image_size} pixels{engine}.",
        "",
        f"- Trained on {known.get('data', 'unknown data')} "
        f"({known.get('training_images', '?')} images), generators: {generators}. It says nothing "
        "of other generators.",
        f"- Threshold {card.decision.threshold:.4f}, chosen on validation images.",
        f"- Training run: `{known.get('run_id', 'not recorded')}`.",
        f"- Promoted{' by --force' if evidence.forced else ''}: {evidence.words}.",
    ]
    if evidence.run_id:
        lines.append(
            f"- Compared on {evidence.data}, {evidence.split}, in run `{evidence.run_id}`."
        )
    lines += [f"- Warning: {warning}" for warning in evidence.warnings]
    return inert("\n".join(lines))
