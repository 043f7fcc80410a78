"""`synthdetect export`: a detector as one file that another engine computes, and faster."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from synthdetect.commands.train import tags
from synthdetect.config import ExportOptions
from synthdetect.console import console, counting, table
from synthdetect.data.batches import Batches, ImageFiles, Order
from synthdetect.data.manifest import Manifest, load
from synthdetect.data.prepare import readable
from synthdetect.data.splits import split
from synthdetect.detector import TORCH, Card, Detector
from synthdetect.engines.convert import quantised, to_graph
from synthdetect.engines.exported import SUFFIX, load_exported, save_exported
from synthdetect.engines.parity import FP32_TOLERANCE, Parity, compare, require_parity
from synthdetect.engines.runtimes import ENGINES, Squares, require
from synthdetect.errors import UserError
from synthdetect.files import replace_atomically, require_folder
from synthdetect.tracking.find import Found, find_detectors
from synthdetect.tracking.model import log_exported, register
from synthdetect.tracking.run import environment, open_run
from synthdetect.training.devices import Device, deterministic, resolve
from synthdetect.training.loop import predict

_BATCH = 32
_CONVERTERS = ("onnx", "onnxscript", "onnxruntime")


def export_detector(options: ExportOptions) -> None:
    """Export a detector in one tracked run, and compare it with torch on validation images.

    Raises:
        UserError: options, a model or images that do not fit, or packages that are not there.
        NotTheSame: the engine's answers are too far from torch's; no file is written then.
    """
    packages = _check(options)
    folder = Path(options.output)
    require_folder(folder, "--output")
    device = resolve("cpu", "fp32", "auto")
    found = _model(options)
    val, train, excluded = _images(options)
    folder.mkdir(parents=True, exist_ok=True)
    arch = found.detector.card.arch
    file = folder / f"{arch}-{options.engine}-{options.precision}{SUFFIX}"
    name = f"export {arch} {options.engine} {options.precision}"
    with open_run(name, kind="export", tags=tags("export", options)) as run:
        console.print(f"run {run.id}  {found.name} to {options.engine} in {options.precision}")
        versions = {f"version.{package}": version(package) for package in packages}
        run.log_params({**options.to_flat(), **environment(), **versions})
        if found.model_id:
            run.log_model_input(found.model_id)
        if len(excluded):
            run.log_table(excluded, "data/excluded.csv")
            console.print(f"{len(excluded)} unreadable image(s) left out", style="bold yellow")
        with replace_atomically(file) as temporary:
            _write(temporary, options, found.detector, train, device)
            exported = load_exported(temporary)
            parity = _compare(found.detector, exported, val, device)
            facts = _facts(options, found, exported.card, parity, val, train, versions)
            run.log_json(facts, "parity.json")
            run.log_metrics({f"parity/{name}": float(v) for name, v in asdict(parity).items()})
            _show(exported.card, parity)
            require_parity(exported.card, parity, options.tolerance)
        beside = file.with_suffix(".parity.json")
        with replace_atomically(beside) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n")
        model = log_exported(run, file, exported.card)
        number = register(model, options.register) if options.register else ""
    console.print(f"wrote {file}\nwrote {beside}")
    console.print(f"model        models:/{model.model_id}")
    if number:
        console.print(f"registered   models:/{options.register}/{number}")


def _check(options: ExportOptions) -> tuple[str, ...]:
    """Check the options; returns the packages that export takes."""
    known = ENGINES[options.engine].precisions
    if options.precision not in known:
        raise UserError(
            f"--precision: {options.engine} has {', '.join(known)} (got {options.precision!r})."
        )
    packages = tuple(dict.fromkeys((*_CONVERTERS, options.engine)))
    require(*packages)
    return packages


def _model(options: ExportOptions) -> Found:
    found = find_detectors(options.model)
    if len(found) != 1:
        raise UserError(
            "--model: give one .safetensors file, models:/ URI or id of a run with one model "
            f"(got {len(found)})."
        )
    if found[0].detector.card.engine != TORCH:
        raise UserError(f"--model: {found[0].name} is exported already; give what it was made of.")
    return found[0]


def _images(options: ExportOptions) -> tuple[Manifest, Manifest, Any]:
    """Images of val to compare on, images of train to calibrate on, and those left out."""
    with counting("reading the data") as count:
        manifest, excluded = readable(load(options.data), options.on_bad_image, count)
    manifest = split(
        manifest, seed=options.seed, val_share=options.val_share, test_share=options.test_share
    )
    val = _some(manifest.split("val"), options.parity_images, options.seed)
    if val.table["label"].nunique() < 2:
        raise UserError(
            f"--data: {manifest.name}: torch and the engine are compared on val images of both "
            "classes, which are not there."
        )
    return val, _some(manifest.split("train"), options.calibration_images, options.seed), excluded


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
        graph = quantised(graph, options.engine, _squares(_batches(detector, train, device)))
        seen = {"calibrated_on": options.data, "calibrated_on_digest": train.digest()}
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
    options: ExportOptions, found: Found, card: Card, parity: Parity,
    val: Manifest, train: Manifest, versions: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    """What stands beside the file."""
    used = {"compared_on": ("val", val)}
    if options.precision == "int8":
        used["calibrated_on"] = ("train", train)
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
                "data": options.data, "split": part, "images": len(rows), "digest": rows.digest()
            }
            for name, (part, rows) in used.items()
        },
        **environment(),
        **versions,
    }  # fmt: skip


def _show(card: Card, parity: Parity) -> None:
    table(
        f"{card.engine} {card.precision} against torch fp32, {parity.images:,} val images",
        ["", "torch", "engine", "change"],
        [
            ["AUC", f"{parity.auc_torch:.4f}", f"{parity.auc_engine:.4f}",
             f"{parity.auc_change:+.4f}"],
            ["logit, mean absolute", "", "", f"{parity.logit_change_mean:.2g}"],
            ["logit, greatest", f"{parity.logit_max:.2f}", "", f"{parity.logit_change_max:.2g}"],
            ["same answer", "", "", f"{parity.same_answer:.1%}"],
        ],
    )  # fmt: skip
