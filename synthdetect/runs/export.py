"""Export of a detector to a faster inference engine, as one file."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.prepare import index_readable
from synthdetect.datasets.splits import make_missing_splits
from synthdetect.detectors.card import TORCH, Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.convert import quantise, to_graph
from synthdetect.detectors.engines.exported import SUFFIX, load_exported, save_exported
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.detectors.engines.parity import (
    FP32_TOLERANCE,
    Limits,
    Parity,
    compare,
    label_changes,
    require_parity,
)
from synthdetect.detectors.engines.runtimes import Squares, require
from synthdetect.evaluation.decision import decide
from synthdetect.evaluation.options import DecisionOptions
from synthdetect.evaluation.overlap import ADAPTED_TO
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.options import VIEWS
from synthdetect.runs.hub import export_to_hub
from synthdetect.runs.messages import command_tags
from synthdetect.runs.model_cards import measured_of, rewrite_card
from synthdetect.runs.options import ExportOptions
from synthdetect.runs.resume import read_config
from synthdetect.runs.setting import log_setting
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically, require_folder
from synthdetect.tracking.detectors import Found, find_detector, training_rows
from synthdetect.tracking.models import log_exported, register
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.provenance import environment
from synthdetect.tracking.queries import read_table
from synthdetect.tracking.results import run_result
from synthdetect.tracking.run import Run
from synthdetect.tracking.store import tracking_uri
from synthdetect.tracking.tags import MANIFEST
from synthdetect.training.devices import Device, deterministic, resolve
from synthdetect.training.loop import predict

if TYPE_CHECKING:
    import onnx

_BATCH = 32
_CONVERTERS = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Images:
    """The images of an export.

    Attributes:
        train: Images that int8 is calibrated on.
        val: Images that the engine is compared with torch on.
        judged: The split of the latter.
        deciding: The validation images on which the detector's decision was made; none if it is
            kept.
        rule: How the decision was made.
        kept: Why it is kept; empty if it is made anew.
        excluded: `path` and `error` of the unreadable images.
        doubts: Warnings about images that are not those of the detector's training.
    """

    train: Manifest
    val: Manifest
    judged: str
    deciding: Manifest
    rule: DecisionOptions
    kept: str
    excluded: pd.DataFrame
    doubts: list[str]


def export_detector(options: ExportOptions) -> dict[str, Any]:
    """Export a detector in one tracked run, and compare it with torch on validation images.

    Raises:
        UserError: If options, the model or the images do not fit, or packages are missing.
        ParityError: If the engine's scores differ too much from torch's; no file is written then.
    """
    if options.to == "hub":
        return export_to_hub(options)
    packages = _check(options)
    folder = Path(options.output)
    require_folder(folder, "--output")
    device = resolve("cpu", "fp32", "auto")
    found = _model(options)
    images = _images(options, found.detector.card)
    folder.mkdir(parents=True, exist_ok=True)
    arch = found.detector.card.model.arch
    file = folder / f"{arch.replace(':', '-')}-{options.engine}-{options.precision}{SUFFIX}"
    name = f"export {arch} {options.engine} {options.precision}"
    labels = {**command_tags("export", options), "synthdetect.data": images.val.name}
    with open_run(name, kind="export", tags=labels, tracking=options.tracking) as run:
        console.print(f"run {run.id}  {found.name} to {options.engine} in {options.precision}")
        versions = {f"version.{package}": version(package) for package in packages}
        log_setting(run, options, device=device)
        run.log_params(versions)
        if found.model_id:
            run.log_model_input(found.model_id)
        if len(images.excluded):
            run.log_table(images.excluded, "data/excluded.csv")
            left_out = f"{len(images.excluded)} unreadable image(s) excluded"
            console.print(left_out, style="bold yellow")
        console.print(
            f"data {images.val.name}{'' if options.source.data else ', split as in training'}"
        )
        if found.detector.card.attribution:
            console.print("the attribution to generators is not exported", style="bold yellow")
        for doubt in images.doubts:
            console.print(f"--data: {doubt}.", style="bold yellow")
        limits = Limits(
            options.max_auc_change, options.max_label_changes, options.max_logit_shift,
            options.max_logit_change,
        )  # fmt: skip
        with replace_atomically(file) as temporary:
            graph, card = _convert(options, found.detector, images.train, device)
            save_exported(temporary, graph, card)
            exported = load_exported(temporary)
            by_torch, by_engine = (
                _logits(one, images.val, device) for one in (found.detector, exported)
            )
            parity = compare(exported.card, images.val.table["label"], by_torch, by_engine)
            card = _decided(card, exported, images, device)
            save_exported(temporary, graph, card)
            exported = load_exported(temporary)
            changes = label_changes(
                found.detector.card.decision, by_torch, card.decision, by_engine
            )
            facts = _facts(found, exported.card, parity, changes, limits, images, versions)
            run.log_json(facts, "parity.json")
            run.log_metrics({f"parity/{name}": float(v) for name, v in asdict(parity).items()})
            _log_decision(run, found.detector.card, exported.card, images, changes)
            _show(exported.card, parity, images.judged)
            require_parity(exported.card, parity, limits)
        beside = file.with_suffix(".parity.json")
        with replace_atomically(beside) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n")
        model = log_exported(run, file, exported.card)
        rewrite_card(model.model_id, exported.card, measured_of(found.model_id))
        register_it = partial(register, model, options.register)
        number = run.retry(register_it) if options.register else ""
    console.print(f"wrote {file}\nwrote {beside}")
    console.print(f"model        models:/{model.model_id}")
    if number:
        console.print(f"registered   models:/{options.register}/{number}")
    run.print_pages()
    return run_result(
        run.id,
        model=f"models:/{model.model_id}",
        version=number or None,
        files=[file, beside],
        parity=asdict(parity),
    )


def _check(options: ExportOptions) -> tuple[str, ...]:
    """Check the options, and return the packages that the export needs."""
    known = ENGINES[options.engine].precisions
    if options.precision not in known:
        raise UserError(
            f"--precision: {options.engine} has {', '.join(known)} (got {options.precision!r})."
        )
    packages = tuple(dict.fromkeys((*_CONVERTERS, options.engine)))
    require(*packages)
    return packages


def _model(options: ExportOptions) -> Found:
    found = find_detector(options.model)
    if found.detector.card.engine != TORCH:
        raise UserError(
            f"--model: {found.name} is exported already; give the detector it was made from."
        )
    return found


def _images(options: ExportOptions, card: Card) -> Images:
    """Return the images of the detector's training, as its run recorded them, or given ones."""
    trained = training_rows(card)
    if trained is None and not options.source.data:
        raise UserError(
            "--data: the training images of the detector are not known, because its run "
            f"({card.provenance.get('run_id', 'unnamed')}) has no record in {tracking_uri()}. "
            "Give labelled images, or set MLFLOW_TRACKING_URI to the store that has the run."
        )
    data = options.source.data or str(card.provenance.get("data", ""))
    with counting("reading the data") as count:
        manifest, excluded = index_readable(load(data), options.source.on_bad_image, count)
    if trained is not None:
        trained = trained[trained["split"] != ADAPTED_TO]
    deciding, rule, kept = _deciding(options, card, manifest)
    judged = "val"
    if options.source.data or trained is None:
        manifest = make_missing_splits(
            manifest,
            seed=options.seed,
            val_share=options.source.val_share,
            test_share=options.source.test_share,
        )
    else:
        manifest = _as_trained(manifest, trained)
        if judged not in set(trained["split"]):  # it was a refit on all labelled images
            judged = "test"
    val = _some(manifest.split(judged), options.parity_images, options.seed)
    train = _some(manifest.split("train"), options.calibration_images, options.seed)
    if val.table["label"].nunique() < 2:
        raise UserError(
            f"--data: {data}: torch and the engine are compared on {judged} images of both "
            "classes, but there are none. Give data that have them."
        )
    if options.precision != "int8":
        train = train.with_table(train.table.head(0))  # nothing is calibrated
    elif not len(train):
        raise UserError(
            f"--data: {data}: int8 is calibrated on train images, but there are none. Give data "
            "that have them, or another --precision."
        )
    same = manifest.digest() == card.provenance.get("data_digest")
    doubts = [] if same else _doubts(trained, train, val)
    return Images(train, val, judged, deciding, rule, kept, excluded, doubts)


def _deciding(
    options: ExportOptions, card: Card, manifest: Manifest
) -> tuple[Manifest, DecisionOptions, str]:
    """Return by what the decision is made anew, or without images why it is kept.

    Returns:
        The validation images on which it was made, the options by which it was made, and an empty
        text; or no images, and the reason.
    """
    none = manifest.with_table(manifest.table.head(0)), DecisionOptions()
    if options.decide == "given":
        return *none, "--decide given asks for it"
    if options.precision == "fp32":
        return *none, "fp32 gives the scores by which it was made"
    made_in = str(card.provenance.get("decided_in") or card.provenance.get("run_id", ""))
    rows = read_table(made_in, MANIFEST)
    if rows is None:
        return *none, f"the run that made it ({made_in or 'unnamed'}) is not in {tracking_uri()}"
    wanted = set(rows.loc[rows["split"] == "val", "sha256"])
    if not wanted:
        return *none, "the detector was trained on all labelled images"
    found = manifest.table[manifest.table["sha256"].isin(wanted)]
    missing = len(wanted - set(found["sha256"]))
    if missing:
        return *none, (
            f"{missing} of the {len(wanted)} validation images on which it was made are not in "
            f"{manifest.name}; give data that have them by --data"
        )
    try:
        recorded = read_config(made_in)["options"]
    except UserError as error:
        return *none, f"how it was made is not known: {error}"
    known = {name: recorded[name] for name in DecisionOptions.fields() if name in recorded}
    return manifest.with_table(found), DecisionOptions.resolve(known), ""


def _as_trained(manifest: Manifest, trained: pd.DataFrame) -> Manifest:
    """Return the images of a training, in its splits."""
    parts = manifest.table["sha256"].map(dict(trained[["sha256", "split"]].to_numpy()))
    return manifest.with_table(manifest.table.assign(split=parts)[parts.notna()])


def _doubts(trained: pd.DataFrame | None, train: Manifest, val: Manifest) -> list[str]:
    """Return how the images differ from those of the detector's training."""
    if trained is None:
        return [
            "whether the detector was trained on these images is not known, because its run has no "
            f"record in {tracking_uri()}"
        ]
    is_train = trained["split"] == "train"
    learned, apart = set(trained.loc[is_train, "sha256"]), set(trained.loc[~is_train, "sha256"])
    calibrates, compares = train.table["sha256"], val.table["sha256"]
    counted = {
        f"of {len(train)} calibration images are not training images of the detector": (
            ~calibrates.isin(learned)
        ),
        f"of {len(train)} calibration images validate or test the detector": (
            calibrates.isin(apart)
        ),
        f"of {len(val)} images to compare on are training images of the detector": (
            compares.isin(learned)
        ),
    }
    return [f"{int(found.sum())} {what}" for what, found in counted.items() if found.any()]


def _some(manifest: Manifest, most: int, seed: int) -> Manifest:
    rows = manifest.table.sample(min(most, len(manifest)), random_state=seed)
    return manifest.with_table(rows.sort_index())


def _batches(detector: Detector, manifest: Manifest, device: Device) -> Batches:
    images = ImageFiles(manifest.files(), detector.preprocess)
    return Batches(images, Order(len(images), _BATCH), device.workers)


def _convert(
    options: ExportOptions, detector: Detector, train: Manifest, device: Device
) -> tuple["onnx.ModelProto", Card]:
    """Return the graph of the engine, and the card of the exported detector."""
    graph = to_graph(detector)
    card = replace(
        detector.card,
        model=replace(detector.card.model, generators=()),
        attribution=None,  # the graph has the logit alone
        engine=options.engine,
        precision=options.precision,
    )
    if options.precision == "int8":
        graph = quantise(graph, options.engine, _seen(detector, _batches(detector, train, device)))
        seen = {"calibrated_on": train.name, "calibrated_on_digest": train.digest()}
        card = replace(card, provenance={**card.provenance, **seen})
    return graph, card


def _decided(card: Card, exported: Detector, images: Images, device: Device) -> Card:
    """Return the card with the decision that the engine's scores of validation images make.

    Whether it is made anew or kept is recorded in the provenance.
    """
    before = card.decision
    if images.kept:
        known = {"decision_kept": images.kept}
        return replace(card, provenance={**card.provenance, **known})
    rows = images.deciding
    decision = decide(images.rule, rows.table["label"], _logits(exported, rows, device))
    if before.prior is not None:  # another than that of the images, if it was shifted
        decision = decision.with_prior(before.prior)
    made = {
        "decided_by": f"{card.engine} {card.precision}",
        "decided_on": rows.name,
        "decided_on_digest": rows.digest(),
        "decision_of_torch": asdict(before),
    }
    return replace(
        card,
        decision=replace(decision, unsure=before.unsure),
        provenance={**card.provenance, **made},
    )


def _seen(detector: Detector, batches: Batches) -> Iterator[Squares]:
    """Yield what the network sees of the images: their views."""
    make = VIEWS[detector.card.views].load()
    for batch in batches.strict_epoch(0):
        for view in make(batch.images):
            yield view.images.permute(0, 2, 3, 1).contiguous().numpy()


def _logits(detector: Detector, manifest: Manifest, device: Device) -> FloatArray:
    """Return the uncalibrated logits of images under the detector's views, of shape (images,)."""
    batches = _batches(detector, manifest, device).strict_epoch(0)
    with deterministic(0):
        return predict(detector.scorer, batches, device, len(manifest))


def _facts(
    found: Found, card: Card, parity: Parity, changes: float, limits: Limits, images: Images,
    versions: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Return what is written beside the file."""
    used = {"compared_on": (images.judged, images.val)}
    if len(images.train):
        used["calibrated_on"] = ("train", images.train)
    if len(images.deciding):
        used["decided_on"] = ("val", images.deciding)
    return {
        "model": found.name,
        "weights_sha256": found.detector.card.weights_sha256,
        "graph_sha256": card.weights_sha256,
        "engine": card.engine,
        "precision": card.precision,
        **asdict(parity),
        "limits": {**asdict(limits), "fp32_logit_change": FP32_TOLERANCE},
        "decision": {
            "torch": asdict(found.detector.card.decision),
            "engine": asdict(card.decision),
            "kept": images.kept,
            "label_changes": changes,
        },
        **{
            name: {
                "data": rows.name, "split": part, "images": len(rows), "digest": rows.digest()
            }
            for name, (part, rows) in used.items()
        },
        "doubts": images.doubts,
        **environment(),
        **versions,
    }  # fmt: skip


def _log_decision(run: Run, before: Card, card: Card, images: Images, changes: float) -> None:
    """Log the decision of the exported detector, and print how it was made.

    Args:
        run: The run to log to.
        before: The card of the detector that is exported.
        card: The card of the exported detector.
        images: The images of the export.
        changes: Share of the compared images whose label changes from the one to the other.
    """
    if images.kept:
        how = f"kept, because {images.kept}"
    else:
        scores = f"{card.engine} {card.precision}"
        how = f"chosen by the scores of {scores} of {len(images.deciding)} validation images"
    run.log_params({"decision.from": how})
    measured = {f"decision/{name}": value for name, value in card.decision.describe().items()}
    run.log_metrics({**measured, "decision/label_changes": changes})
    thresholds = f"{before.decision.threshold:.4f} before, {card.decision.threshold:.4f} now"
    doubtful = images.kept and card.precision != "fp32"
    console.print(
        f"decision {how}; threshold {thresholds}; {changes:.1%} of the labels change",
        style="bold yellow" if doubtful else "",
    )


def _show(card: Card, parity: Parity, judged: str) -> None:
    table(
        f"{card.engine} {card.precision} against torch fp32, {parity.images:,} {judged} images",
        ["", "torch", "engine", "change"],
        [
            ["AUC", f"{parity.auc_torch:.4f}", f"{parity.auc_engine:.4f}",
             f"{parity.auc_change:+.4f}"],
            ["logit, mean absolute", "", "", f"{parity.logit_change_mean:.2g}"],
            ["logit, greatest", f"{parity.logit_max:.2f}", "", f"{parity.logit_change_max:.2g}"],
            ["calibrated logit, mean", "", "", f"{parity.logit_shift:+.2g}"],
            ["calibrated logit, 95 % of absolute", "", "", f"{parity.logit_change_p95:.2g}"],
            ["labels at the threshold", "", "", f"{parity.label_changes:.1%}"],
        ],
    )  # fmt: skip
