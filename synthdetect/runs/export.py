"""Export of a detector to a faster inference engine, as one file."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.prepare import index_readable
from synthdetect.datasets.splits import make_missing_splits
from synthdetect.detectors.card import TORCH, Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.convert import quantise, to_graph
from synthdetect.detectors.engines.exported import SUFFIX, load_exported, save_exported
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.detectors.engines.parity import FP32_TOLERANCE, Parity, compare, require_parity
from synthdetect.detectors.engines.runtimes import Squares, require
from synthdetect.evaluation.overlap import ADAPTED_TO
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.runs.messages import command_tags
from synthdetect.runs.options import ExportOptions
from synthdetect.runs.setting import log_setting
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically, require_folder
from synthdetect.tracking.detectors import Found, find_detector, training_rows
from synthdetect.tracking.models import log_exported, register
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.provenance import environment
from synthdetect.tracking.store import tracking_uri
from synthdetect.training.devices import Device, deterministic, resolve
from synthdetect.training.loop import predict

_BATCH = 32
_CONVERTERS = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Images:
    """The images of an export.

    Attributes:
        train: Images that int8 is calibrated on.
        val: Images that the engine is compared with torch on.
        judged: The split of the latter.
        excluded: `path` and `error` of the unreadable images.
        doubts: Warnings about images that are not those of the detector's training.
    """

    train: Manifest
    val: Manifest
    judged: str
    excluded: pd.DataFrame
    doubts: list[str]


def export_detector(options: ExportOptions) -> None:
    """Export a detector in one tracked run, and compare it with torch on validation images.

    Raises:
        UserError: If options, the model or the images do not fit, or packages are missing.
        ParityError: If the engine's scores differ too much from torch's; no file is written then.
    """
    packages = _check(options)
    folder = Path(options.output)
    require_folder(folder, "--output")
    device = resolve("cpu", "fp32", "auto")
    found = _model(options)
    images = _images(options, found.detector.card)
    folder.mkdir(parents=True, exist_ok=True)
    arch = found.detector.card.model.arch
    file = folder / f"{arch}-{options.engine}-{options.precision}{SUFFIX}"
    name = f"export {arch} {options.engine} {options.precision}"
    labels = {**command_tags("export", options), "synthdetect.data": images.val.name}
    with open_run(name, kind="export", tags=labels) as run:
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
        for doubt in images.doubts:
            console.print(f"--data: {doubt}.", style="bold yellow")
        with replace_atomically(file) as temporary:
            _write(temporary, options, found.detector, images.train, device)
            exported = load_exported(temporary)
            parity = _compare(found.detector, exported, images.val, device)
            facts = _facts(options, found, exported.card, parity, images, versions)
            run.log_json(facts, "parity.json")
            run.log_metrics({f"parity/{name}": float(v) for name, v in asdict(parity).items()})
            _show(exported.card, parity, images.judged)
            require_parity(exported.card, parity, options.tolerance)
        beside = file.with_suffix(".parity.json")
        with replace_atomically(beside) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n")
        model = log_exported(run, file, exported.card)
        register_it = partial(register, model, options.register)
        number = run.retry(register_it) if options.register else ""
    console.print(f"wrote {file}\nwrote {beside}")
    console.print(f"model        models:/{model.model_id}")
    if number:
        console.print(f"registered   models:/{options.register}/{number}")


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
    return Images(train, val, judged, excluded, [] if same else _doubts(trained, train, val))


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


def _write(
    path: Path, options: ExportOptions, detector: Detector, train: Manifest, device: Device
) -> None:
    graph = to_graph(detector)
    card = replace(detector.card, engine=options.engine, precision=options.precision)
    if options.precision == "int8":
        graph = quantise(graph, options.engine, _squares(_batches(detector, train, device)))
        seen = {"calibrated_on": train.name, "calibrated_on_digest": train.digest()}
        card = replace(card, provenance={**card.provenance, **seen})
    save_exported(path, graph, card)


def _squares(batches: Batches) -> Iterator[Squares]:
    for batch in batches.strict_epoch(0):
        yield batch.images.permute(0, 2, 3, 1).numpy()


def _compare(detector: Detector, exported: Detector, val: Manifest, device: Device) -> Parity:
    with deterministic(0):
        by_torch, by_engine = (
            predict(d.network, _batches(d, val, device).strict_epoch(0), device, len(val))
            for d in (detector, exported)
        )
    return compare(exported.card, val.table["label"], by_torch, by_engine)


def _facts(
    options: ExportOptions, found: Found, card: Card, parity: Parity, images: Images,
    versions: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Return what is written beside the file."""
    used = {"compared_on": (images.judged, images.val)}
    if options.precision == "int8":
        used["calibrated_on"] = ("train", images.train)
    return {
        "model": found.name,
        "weights_sha256": found.detector.card.weights_sha256,
        "graph_sha256": card.weights_sha256,
        "engine": card.engine,
        "precision": card.precision,
        **asdict(parity),
        "tolerance": {"auc_change": options.tolerance, "fp32_logit_change": FP32_TOLERANCE},
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


def _show(card: Card, parity: Parity, judged: str) -> None:
    table(
        f"{card.engine} {card.precision} against torch fp32, {parity.images:,} {judged} images",
        ["", "torch", "engine", "change"],
        [
            ["AUC", f"{parity.auc_torch:.4f}", f"{parity.auc_engine:.4f}",
             f"{parity.auc_change:+.4f}"],
            ["logit, mean absolute", "", "", f"{parity.logit_change_mean:.2g}"],
            ["logit, greatest", f"{parity.logit_max:.2f}", "", f"{parity.logit_change_max:.2g}"],
            ["same answer", "", "", f"{parity.same_answer:.1%}"],
        ],
    )  # fmt: skip
