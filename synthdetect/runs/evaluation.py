"""Evaluation of a detector or of a table: predictions first, then every number from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthdetect.audit.log import audit_quickly
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.prepare import index_readable
from synthdetect.detectors.card import TORCH
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.scoring import Scores, Scoring
from synthdetect.evaluation.attribution import ATTRIBUTED, choose_attribution
from synthdetect.evaluation.decision import Decision, decide
from synthdetect.evaluation.direction import direction_words
from synthdetect.evaluation.external import keep_threshold_side, read_predictions
from synthdetect.evaluation.matrix import default_real_by
from synthdetect.evaluation.overlap import overlap
from synthdetect.evaluation.predictions import Evaluation, evaluate, prediction_table
from synthdetect.evaluation.slices import slice_values
from synthdetect.evaluation.summary import (
    answer_words,
    attribution_rows,
    attribution_words,
    described_split,
    interval_note,
    main_metrics,
    matrix_rows,
    summary_markdown,
    summary_rows,
    worst_cell,
)
from synthdetect.evaluation.threshold import threshold_uncertainty
from synthdetect.explanation.log import log_explanations, log_spectra
from synthdetect.images.batches import ImageFiles
from synthdetect.report.held_out import CARD
from synthdetect.report.writing import write_report
from synthdetect.robustness.evaluation import (
    EvaluatedSplit,
    check_perturbations,
    evaluate_perturbations,
    requested,
    scoring_work,
)
from synthdetect.runs.messages import command_tags
from synthdetect.runs.model_cards import rewrite_card
from synthdetect.runs.options import OWN_VIEWS, EvaluateOptions
from synthdetect.runs.setting import log_setting
from synthdetect.system.allocation import keep_freed_memory
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.system.files import require_folder
from synthdetect.system.timetable import Part, current, timetable
from synthdetect.tracking.detectors import find_detector, training_rows
from synthdetect.tracking.evaluation import log_evaluation
from synthdetect.tracking.models import log_detector
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import download
from synthdetect.tracking.results import run_result
from synthdetect.tracking.run import Dataset, Run
from synthdetect.tracking.tags import DIRECTION, MANIFEST, RECOGNISED
from synthdetect.training.devices import Device, deterministic, resolve

SCORING = "scoring"
"""The name of the task, and of the part of the command, that scores the images."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        manifest: Labelled images, with a column `raw_logit` once they are scored.
        given: The decision that comes with the detector or the table.
        has_threshold: Whether its threshold was chosen by anybody, or is only the default.
        detector: The detector; None for a table.
        model_id: The id of its model in MLflow.
        excluded: `path` and `error` of the unreadable images.
        generators: Logits of the generators that the detector knows, of shape (images, generators),
            once the images are scored.
        recognised: Which columns of a table were recognised by their names, in words.
    """

    manifest: Manifest
    given: Decision
    has_threshold: bool
    detector: Detector | None = None
    model_id: str | None = None
    excluded: pd.DataFrame = field(default_factory=pd.DataFrame)
    generators: FloatArray | None = None
    recognised: str = ""

    def files(self, evaluation: Evaluation) -> list[str]:
        """Return the image files of one split, in the order of its predictions."""
        return [self.manifest.file(path) for path in evaluation.predictions["path"]]


def evaluate_detector(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluate a detector on labelled images, or a table of predictions, in one tracked run.

    Raises:
        UserError: If options, images or the table do not fit.
    """
    _check(options)
    device = resolve(options.device.device, "fp32", options.device.workers)
    if options.predictions:
        subject = _external(options)
        _splits(options, subject.manifest.splits)
    else:
        subject = _ours(options)
        check_perturbations(options.perturbed, subject.manifest)
    _check_decision(options, subject)
    for name in options.slices:
        slice_values(subject.manifest.table, name)
    if options.real_by:
        slice_values(subject.manifest.table, options.real_by, option="--real-by")
    scoring = _scoring(options, subject) if subject.detector else None
    tags = command_tags("evaluate", options)
    with (
        open_run(_name(subject), kind="evaluate", tags=tags, tracking=options.tracking) as run,
        timetable(_parts(options, subject) if scoring else ()),
    ):
        console.print(f"run {run.id}")
        datasets = _log_setting(run, options, subject, device)
        if scoring:
            scores = _score(scoring, device)
            scored = subject.manifest.with_table(
                subject.manifest.table.assign(raw_logit=scores.raw[0])
            )
            subject = replace(subject, manifest=scored, generators=scores.generators[0])
        decision, where = _decide(options, subject)
        subject = _attributing(options, subject)
        if options.log_model:
            subject = _log_model(run, subject, decision)
        evaluations = _evaluate(run, options, subject, datasets, decision, where)
        _explain(run, options, subject, evaluations, decision.threshold, device)
        if subject.detector:
            evaluated = [
                EvaluatedSplit(e, subject.files(e), datasets[s]) for s, e in evaluations.items()
            ]
            evaluate_perturbations(
                run, options.perturbed, subject.detector, decision, evaluated, device,
                subject.model_id, seed=options.seed, batch_size=options.batch_size,
            )  # fmt: skip
        if scoring:
            scoring.discard()
        wrong_way = direction_words(evaluations)
        for words in wrong_way:
            console.print(words, style="bold red")
        run.set_tags({DIRECTION: " ".join(wrong_way)} if wrong_way else {})
        if subject.detector and subject.model_id:
            rewrite_card(subject.model_id, subject.detector.card)
        run.log_metrics(main_metrics(evaluations), model_id=subject.model_id)
        card = subject.detector.card if subject.detector else None
        answer = answer_words(
            evaluations, card.provenance.get("training_generators") if card else None
        )
        described = described_split(evaluations)
        run.describe_results(
            "\n\n".join([*wrong_way, answer]),
            summary_markdown(evaluations),
            f"figures/{described}/scores.png" if described else "",
        )
    write_report(run.id)
    # Each run has its own folder, so that the results of an earlier one cannot be mixed in.
    results = Path(options.output) / run.id
    results.mkdir(parents=True)
    download(run.id, "", results)
    shown = summary_rows(evaluations)
    table("Results", list(shown.columns), [list(map(str, row)) for row in shown.to_numpy()])
    console.print(interval_note(evaluations))
    for split, evaluation in evaluations.items():
        cells = matrix_rows(evaluation.matrix)
        if len(cells):
            title = f"AUC on {split} against groups of real images"
            table(title, list(cells.columns), cells.to_numpy().tolist())
        if worst := worst_cell(evaluation.matrix, split):
            console.print(worst)
        answers = attribution_rows(evaluation.attribution)
        if len(answers):
            title = f"Attribution on {split}: number of each answer"
            table(title, list(answers.columns), answers.to_numpy().tolist())
            console.print(attribution_words(evaluation.attribution_metrics))
    console.print(f"wrote {results}")
    run.print_pages()
    return run_result(run.id, folder=results, summary=shown, warnings=wrong_way)


def _name(subject: Subject) -> str:
    """Return the name of the run: what is evaluated, and on what."""
    data = Path(subject.manifest.name).name
    if subject.detector is None:
        return f"evaluate {data}"
    return f"evaluate {subject.detector.card.model.arch} on {data}"


def _check(options: EvaluateOptions) -> None:
    if options.predictions and (options.model or options.data):
        raise UserError(
            "--predictions: a table has its scores already; leave out --model and --data."
        )
    if not options.predictions and len(options.model) != 1:
        raise UserError(
            "--model: give one .safetensors or .onnx file, models:/ URI or run id"
            f" (got {len(options.model)}), or a table by --predictions."
        )
    if options.model and not options.data:
        raise UserError("--data: give labelled images: a manifest, a folder, or 'sample'.")
    if options.columns and not options.predictions:
        raise UserError("--columns: names the columns of --predictions, which is not given.")
    if options.predictions and requested(options.perturbed):
        raise UserError(
            f"{' and '.join(requested(options.perturbed))}: a table of --predictions has no "
            "images to score again. Give --model and --data, or leave it out."
        )
    if options.predictions and options.views != OWN_VIEWS:
        raise UserError(
            "--views: a table of --predictions has no images to score; leave the option out."
        )
    if options.log_model and (options.predictions or options.decide != "val"):
        raise UserError(
            "--log-model: logs a detector as --decide val decides it on the val rows of --data. "
            "Give --model, --data and --decide val, or leave the option out."
        )
    require_folder(Path(options.output), "--output")


def _external(options: EvaluateOptions) -> Subject:
    """Read a table of predictions; a column `threshold` with one value is its threshold."""
    path = Path(options.predictions)
    rows, moved, recognised = read_predictions(path, options.columns)
    if recognised.words:
        console.print(f"{path}: {recognised.words}")
    if rows["path"].iloc[0] == "row 1":
        console.print(
            f"{path}: no column names the images, so each row is taken for an image of its own",
            style="bold yellow",
        )
    if moved:
        console.print(
            f"{moved} probabilities are 0 or 1, whose logits are infinite: they were moved to the "
            "nearest value that keeps the order of the scores"
        )
    given_thresholds = rows.get("threshold", pd.Series(dtype=str)).replace("", None).dropna()
    known = pd.to_numeric(given_thresholds, errors="coerce").unique()
    if len(known) > 1 or (len(known) == 1 and not 0 <= known[0] <= 1):
        raise UserError(
            f"--predictions: the column 'threshold' holds {len(known)} values, first "
            f"{given_thresholds.iloc[0]}; one number from 0 to 1 is a threshold. Leave the column "
            "out."
        )
    given = Decision(threshold=float(known[0])) if len(known) else Decision()
    manifest = Manifest(rows, path.resolve().parent, str(path))
    return Subject(manifest, given, len(known) == 1, recognised=recognised.words)


def _ours(options: EvaluateOptions) -> Subject:
    """Load a detector and the images of the requested splits; without splits all are `test`."""
    found = find_detector(options.model)
    with counting("reading the data") as count:
        manifest, excluded = index_readable(load(options.data), options.on_bad_image, count)
    split = manifest.table["split"].replace("", "test")
    manifest = manifest.with_table(manifest.table.assign(split=split))
    wanted = {*_splits(options, manifest.splits), *(["val"] if options.decide == "val" else [])}
    card = found.detector.card
    if options.explain and card.engine != TORCH:
        raise UserError(
            f"--explain: {found.name} is exported, so its layers cannot be seen; give --explain 0."
        )
    if options.log_model and card.engine != TORCH:
        raise UserError(
            f"--log-model: {found.name} is exported. Decide the detector that it was exported from "
            "anew, and export that; its decision is then made by the engine's scores."
        )
    views = card.views if options.views == OWN_VIEWS else options.views
    card.require_views(views)
    if views != card.views and options.decide == "auto":
        raise UserError(
            f"--views {views}: the calibration and threshold of {found.name} were chosen under "
            f"{card.views}. Give --decide val to choose them anew on val rows, or --decide given "
            "to use them all the same."
        )
    return Subject(
        manifest.with_table(manifest.table[manifest.table["split"].isin(wanted)]),
        card.decision,
        True,
        found.detector.with_card(views=views),
        found.model_id,
        excluded,
    )


def _splits(options: EvaluateOptions, found: list[str]) -> list[str]:
    unknown = sorted(set(options.splits) - set(found))
    if unknown:
        raise UserError(f"--splits: no {', '.join(unknown)} here. Found: {', '.join(found)}.")
    wanted = list(options.splits) or [split for split in found if split != "train"]
    if not wanted:
        raise UserError("--splits: there is only a train split; ask for it by --splits train.")
    return wanted


def _scoring(options: EvaluateOptions, subject: Subject) -> Scoring:
    manifest, detector = subject.manifest, subject.detector
    assert detector
    files = manifest.files()
    images = ImageFiles(files, detector.preprocess)
    return Scoring(
        Path(options.output), [detector], images,
        data=manifest.digest(), batch_size=options.batch_size, strict=True,
    )  # fmt: skip


def _log_setting(
    run: Run, options: EvaluateOptions, subject: Subject, device: Device
) -> dict[str, Dataset]:
    """Log the setting, and for images a quick audit.

    Returns:
        The logged datasets by split.
    """
    digest = subject.manifest.digest()
    log_setting(run, options, digest=digest, device=device)
    if subject.recognised:
        run.set_tags({RECOGNISED: subject.recognised})
    if subject.model_id:
        run.log_model_input(subject.model_id)
    if len(subject.excluded):
        run.log_table(subject.excluded, "data/excluded.csv")
        console.print(f"{len(subject.excluded)} unreadable image(s) excluded", style="bold yellow")
    if subject.detector:
        card = subject.detector.card
        run.log_json(asdict(card), CARD)
        audit_quickly(
            run, subject.manifest, subject.excluded, seed=options.seed,
            equalise_quality=card.equalise_quality,
        )  # fmt: skip
    return run.log_manifest(subject.manifest)


def _score(scoring: Scoring, device: Device) -> Scores:
    keep_freed_memory()
    with (
        current().part(SCORING),
        deterministic(0),
        counting(SCORING, planned=True) as count,
    ):
        scoring.run(device, count)
    return scoring.scores()


def _parts(options: EvaluateOptions, subject: Subject) -> list[Part]:
    """Return the scoring of all images, and of their perturbed versions by split."""
    splits = _splits(options, subject.manifest.splits)
    sizes = {split: len(subject.manifest.split(split)) for split in splits}
    return [
        Part(SCORING, len(subject.manifest)),
        *(
            Part(name, count, "perturbed")
            for split, images in sizes.items()
            for name, count in scoring_work(options.perturbed, split, images).items()
        ),
    ]


def _attributing(options: EvaluateOptions, subject: Subject) -> Subject:
    """Return the subject with a detector whose attribution is chosen anew if its decision is.

    It is kept if no val row is of a generator that the detector knows.
    """
    detector = subject.detector
    if detector is None or not detector.card.attribution or not _on_val(options, subject):
        return subject
    rows = subject.manifest.table
    is_val = (rows["split"] == "val").to_numpy()
    assert subject.generators is not None
    chosen = choose_attribution(
        detector.card.model.generators, rows[is_val], subject.generators[is_val]
    )
    return replace(subject, detector=detector.with_card(attribution=chosen)) if chosen else subject


def _log_model(run: Run, subject: Subject, decision: Decision) -> Subject:
    """Log the detector with the decision that was made anew, and return it as the subject.

    The validation images and the options of the decision are recorded as a training records them,
    for those who make the decision again.
    """
    assert subject.detector
    val = subject.manifest.split("val")
    made = {"decided_in": run.id, "decided_on": val.name, "decided_on_digest": val.digest()}
    provenance = {**subject.detector.card.provenance, **made}
    detector = subject.detector.with_card(decision=decision, provenance=provenance)
    run.log_table(subject.manifest.table.drop(columns="raw_logit"), MANIFEST)
    model = log_detector(run, detector)
    console.print(f"model        models:/{model.model_id}")
    return replace(subject, detector=detector, model_id=model.model_id)


def _evaluate(
    run: Run, options: EvaluateOptions, subject: Subject, datasets: Mapping[str, Dataset],
    decision: Decision, where: str,
) -> dict[str, Evaluation]:  # fmt: skip
    """Return the evaluation of each split under a decision, which `where` describes."""
    rows = subject.manifest.table
    splits = _splits(options, subject.manifest.splits)
    raw = rows["raw_logit"].to_numpy()
    logits, own = decision.calibration(raw), _own_probabilities(options, subject)
    if own is not None:
        logits = keep_threshold_side(logits, own, decision.threshold)
    scored = prediction_table(rows, logits, decision, raw, own)
    card = subject.detector.card if subject.detector else None
    attribution = card.attribution if card else None
    if card and attribution:
        assert subject.generators is not None
        scored[ATTRIBUTED] = card.attributed(scored["predicted"], subject.generators)
    tables = {s: scored[scored["split"] == s].reset_index(drop=True) for s in splits}
    run.log_params({"decision.from": where})
    run.log_metrics(
        {
            f"decision/{name}": value
            for made in (decision, attribution)
            if made
            for name, value in made.describe().items()
        },
        model_id=subject.model_id,
    )
    console.print(f"threshold {decision.threshold:.4f}, {where}")
    if _on_val(options, subject):
        val = scored[scored["split"] == "val"]
        chosen = threshold_uncertainty(options.decision, val, seed=options.seed)
        if chosen:
            run.log_metrics(chosen.describe(), model_id=subject.model_id)
            console.print(chosen.words)
    _overlap(run, subject, tables)
    evaluations = evaluate(
        tables, decision, seed=options.seed,
        slices=options.slices or None, real_by=options.real_by or default_real_by(rows),
        generators=card.model.generators if card else (),
    )  # fmt: skip
    for split, evaluation in evaluations.items():
        images = None
        if subject.detector:
            images = (subject.files(evaluation), subject.detector.preprocess)
        log_evaluation(
            run, evaluation, split, decision.threshold, dataset=datasets[split],
            model_id=subject.model_id, images=images,
        )  # fmt: skip
    return evaluations


def _explain(
    run: Run, options: EvaluateOptions, subject: Subject, evaluations: Mapping[str, Evaluation],
    threshold: float, device: Device,
) -> None:  # fmt: skip
    """Log Grad-CAM maps and mean spectra of each split."""
    if not subject.detector:
        return
    for evaluation in evaluations.values():
        files = subject.files(evaluation)
        if options.explain:
            log_explanations(
                run, evaluation, subject.detector, files, threshold, options.explain,
                seed=options.seed,
            )  # fmt: skip
        if options.spectra:
            log_spectra(run, evaluation, files, device.workers, seed=options.seed)


def _decide(options: EvaluateOptions, subject: Subject) -> tuple[Decision, str]:
    """Return the decision, and in words where it comes from."""
    decision = subject.given
    if _on_val(options, subject):
        val = subject.manifest.split("val").table
        decision = decide(options.decision, val["label"], val["raw_logit"])
        where = "chosen on the val rows of these data"
    elif subject.detector:
        where = "given by the model's card, chosen on its own validation images"
        if options.views != OWN_VIEWS:
            where += f", and applied under --views {options.views}"
    elif subject.has_threshold:
        where = "given by the table"
    else:
        where = "0.5, because the table has none; probabilities are not calibrated"
    if options.prior:
        decision = decision.with_prior(options.prior)
        where += f"; probabilities are shifted to a prior of {options.prior:g}"
    return replace(decision, unsure=options.decision.unsure or subject.given.unsure), where


def _on_val(options: EvaluateOptions, subject: Subject) -> bool:
    """Return whether the decision is chosen on val rows, and not the given one."""
    if options.decide != "auto" or subject.has_threshold:
        return options.decide == "val"
    return bool(subject.manifest.split("val").table["label"].nunique() == 2)


def _check_decision(options: EvaluateOptions, subject: Subject) -> None:
    """Check that the decision can be made as requested, and that no given option is ignored."""
    if _on_val(options, subject):
        if subject.manifest.split("val").table["label"].nunique() < 2:
            raise UserError("--decide val: there are no val rows of both classes to choose on.")
        return
    if options.prior and subject.given.prior is None:
        raise UserError(
            "--prior: the share of synthetic images among the validation images is unknown, since "
            "the model's card is older, or a table does not say it. Give --decide val to take the "
            "share of the val rows, or leave the option out."
        )
    asked_for = options.changed("threshold_rule", "max_fpr", "calibration")
    if asked_for:
        _, where = _decide(options, subject)
        raise UserError(
            f"{asked_for}: not used, because the threshold is {where}. Give --decide val to choose "
            "it on val rows, or leave it out."
        )


def _own_probabilities(options: EvaluateOptions, subject: Subject) -> np.ndarray | None:
    """Return the probabilities of a table, if no calibration changes them."""
    rows = subject.manifest.table
    if subject.detector or _on_val(options, subject) or "probability" not in rows:
        return None
    return np.asarray(rows["probability"])


def _overlap(run: Run, subject: Subject, tables: Mapping[str, pd.DataFrame]) -> None:
    """Log, and print as warnings, which of the images the detector was trained on."""
    trained = training_rows(subject.detector.card) if subject.detector else None
    facts = overlap(tables, trained)
    run.log_table(facts, "evaluation/held_out.csv")
    for split, fact, value, warning in facts.to_numpy():
        if warning:
            console.print(f"{split or 'overlap'}: {fact}: {value}", style="bold yellow")
