"""Prediction: images without labels in, predictions and perhaps a submission out."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthdetect import __version__
from synthdetect.datasets.labels import CLASSES
from synthdetect.datasets.manifest import SAMPLE
from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.detectors.card import TORCH, Card
from synthdetect.detectors.detector import Detector
from synthdetect.detectors.ray_engine import DetectorFile, ray_engine
from synthdetect.detectors.scoring import (
    Scores,
    Scoring,
    add_attribution,
    answer_table,
    names_sha256,
)
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.ensemble import agreement
from synthdetect.images.batches import Images
from synthdetect.images.buckets import is_url
from synthdetect.images.part import PartOfImages
from synthdetect.runs.messages import command_tags
from synthdetect.runs.options import OWN_VIEWS, PredictOptions
from synthdetect.runs.prediction_files import add_metadata, clip_table, metadata_words
from synthdetect.runs.prediction_tables import (
    CSV,
    PARQUET,
    Description,
    description_of_model,
    writing_tables,
)
from synthdetect.runs.setting import log_setting
from synthdetect.runs.shard import Shard
from synthdetect.submission.checking import check_submission
from synthdetect.submission.format import TEAM_NAME
from synthdetect.submission.image_ids import base_name
from synthdetect.submission.printing import print_findings
from synthdetect.submission.writing import write_submission
from synthdetect.system.allocation import keep_freed_memory
from synthdetect.system.arrays import FloatArray
from synthdetect.system.console import console, counting, table
from synthdetect.system.errors import UserError
from synthdetect.system.extras import require_extra
from synthdetect.system.files import file_sha256, replace_atomically, require_folder
from synthdetect.system.timetable import Part, current, timetable
from synthdetect.tracking.detectors import Found, find_detectors
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import is_there
from synthdetect.tracking.results import run_result
from synthdetect.tracking.run import Run
from synthdetect.training.devices import Device, deterministic, noting_operators, resolve

_ALLOWED_WEIGHTS = ("imagenet", "random")
_SHOWN = 10  # unreadable images on the console; unreadable.csv has them all

_LABEL_WORDS: dict[object, str] = dict(enumerate(CLASSES))

Models = Sequence[Found]


def predict_images(options: PredictOptions) -> dict[str, Any]:
    """Score images in one tracked run; the same command resumes it after a kill.

    Raises:
        UserError: If options, models or images do not fit, before anything is scored; or if a
            submission needs an answer for unreadable images, after all others are scored and
            written.
    """
    _check(options)
    require_folder(Path(options.output), "--output")
    wanted = "cpu" if options.engine == "ray" else options.device.device
    device = resolve(wanted, "fp32", options.device.workers)
    models = find_detectors(options.model)
    if options.submission == "constrained":
        for name, detector, _ in models:
            _require_constrained(name, detector.card)
    # A submission has one answer for each image file.
    frames = 0 if options.submission else options.frames
    listed = unlabelled(options.data, frames=frames)
    shard = Shard.parse(options.shard or "1/1")
    images = PartOfImages(listed, shard.rows(len(listed), options.batch_size))
    names = [images.name(row) for row in range(len(images))]
    if options.submission:
        _require_ids(names)
    folder = Path(options.output)
    detectors = [_as_asked(options, model) for model in models]
    where = (
        options.data
        if options.data == SAMPLE or is_url(options.data)
        else str(Path(options.data).expanduser().resolve())
    )
    scoring = Scoring(folder, detectors, images, data=where, batch_size=options.batch_size)
    labels = command_tags("predict", options)
    earlier = scoring.run_id if is_there(scoring.run_id) else ""
    name = f"predict {Path(options.data).name}"
    with open_run(
        name, kind="predict", tags=labels, resume=earlier, tracking=options.tracking
    ) as run:
        scoring.run_id = run.id
        console.print(f"run {run.id}  {len(names):,} images, {len(models)} model(s)")
        speed = _score(run, options, scoring, device, models, detectors)
        scores = scoring.scores()
        decisions = [detector.card.decision for detector in detectors]
        predictions, decision = answer_table(names, scores, decisions, options.ensemble)
        add_attribution(predictions, scores, [detector.card for detector in detectors])
        if options.metadata:
            predictions = add_metadata(predictions, images)
        description = Description(
            shard=str(shard),
            images=len(images),
            images_of_all=len(listed),
            names_sha256=names_sha256(listed),
            models=[
                description_of_model(model.detector.card, detector.card)
                for model, detector in zip(models, detectors, strict=True)
            ],
            ensemble=_ensemble(options, models),
            threshold=decision.threshold,
            batch_size=options.batch_size,
            frames=frames,
            metadata=options.metadata,
        )
        files = _write(folder, options, models, detectors, predictions, description)
        clips = pd.DataFrame()
        if not options.shard:  # which may end within a video
            of_frames = predictions.iloc[list(images.times)]
            clips = clip_table(of_frames, [name for name, _ in images.times.values()], decision)
        files += _write_clips(folder, clips)
        thresholds = np.array([decision.threshold for decision in decisions])
        files += _write_agreement(folder, models, scores, thresholds)
        files += _write_unreadable(folder, predictions)
        for file in files:
            run.log_file(file, "predictions")
        _summarise(run, predictions, speed)
        if options.submission:
            submitted = _submit(options, folder, models, images, predictions, decision)
            for file in submitted:
                run.log_file(file, "submission")
            files += submitted
    for copy in folder.glob(".detector-*.safetensors"):
        copy.unlink()
    scoring.discard()  # only now: a process that is killed earlier resumes the same run
    for file in files:
        console.print(f"wrote {file}")
    run.print_pages()
    further = {"clips": clips} if len(clips) else {}
    return run_result(run.id, files=files, predictions=predictions, **further)


def _check(options: PredictOptions) -> None:
    if options.engine == "ray":
        require_extra("scale", "--engine ray", "ray")
        if options.device.device not in ("auto", "cpu"):
            raise UserError(
                "--engine ray: scores on CPU cores. Leave out --device, or score a --shard on each "
                "device with --engine local."
            )
    if not options.model:
        raise UserError("--model: give a .safetensors or .onnx file, a models:/ URI or a run id.")
    if not options.data:
        raise UserError("--data: give a folder, an archive or a manifest of images, or 'sample'.")
    if options.submission and not TEAM_NAME.fullmatch(options.team):
        raise UserError(
            "--team: a submission needs a team's name, of 1 to 64 letters, digits and hyphens "
            f"(got {options.team!r})."
        )


def _as_asked(options: PredictOptions, model: Found) -> Detector:
    """Return the detector of a model with the views and the decision that the options ask for."""
    card = model.detector.card
    decision, views = card.decision, card.views if options.views == OWN_VIEWS else options.views
    card.require_views(views)
    anew = f"synthdetect evaluate --model {model.name} --data DATA --decide val --log-model true"
    if views != card.views and options.threshold < 0:
        raise UserError(
            f"--views {views}: the calibration and threshold of {model.name} were chosen under "
            f"{card.views}. Choose them anew on validation images by `{anew} --views {views}` and "
            "give the model that this logs, or set an explicit --threshold."
        )
    if options.prior:
        if decision.prior is None:
            raise UserError(
                f"--prior: the share of synthetic images among the validation images of "
                f"{model.name} is unknown, since its card is older. Choose its decision anew by "
                f"`{anew}` and give the model that this logs, or leave the option out."
            )
        decision = decision.with_prior(options.prior)
    if options.threshold >= 0:
        decision = replace(decision, threshold=options.threshold)
    return model.detector.with_card(views=views, decision=decision)


def _require_constrained(name: str, card: Card) -> None:
    """Check that a model was trained as a constrained run permits."""
    known = card.provenance
    reasons = []
    if known.get("weights") not in _ALLOWED_WEIGHTS:
        reasons.append(f"its starting weights are {known.get('weights', 'unknown')!r}")
    if known.get("supplement"):
        reasons.append(f"it was trained on further data ({known['supplement']})")
    moved = known.get("validation_images", "an unknown number")
    if moved != 0:
        reasons.append(f"it was trained on validation images ({moved} of the data's own)")
    if known.get("target"):
        reasons.append(f"it was adapted to further images ({known['target']})")
    if reasons:
        raise UserError(
            f"--submission constrained: {name} may not be used: {', and '.join(reasons)}. "
            "Give another --model, or submit an open run."
        )


def _require_ids(names: Sequence[str]) -> None:
    """Check that file names without folders, which a submission uses, are unique."""
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(base_name(name), name)
        if other is not name:
            raise UserError(
                f"--submission: {other} and {name} have the same file name, by which a "
                "submission names them; keep one of them."
            )


def _score(
    run: Run, options: PredictOptions, scoring: Scoring, device: Device, models: Models,
    detectors: Sequence[Detector],
) -> float:  # fmt: skip
    """Score what is not done, and return images per second (nan if everything was done)."""
    log_setting(run, options, device=device)
    keep_freed_memory()
    by_ray = options.engine == "ray" and scoring.done < scoring.total
    files = _files_for_ray(options, models, detectors) if by_ray else []
    actors = 0 if options.device.workers == "auto" else max(1, int(options.device.workers))
    before, began = scoring.done, time.perf_counter()
    if before:
        passes = f" in {scoring.passes} passes" if scoring.passes > 1 else ""
        console.print(f"resuming after {before:,} of {scoring.total:,} images{passes}")
    whole = Part("scoring", scoring.total)
    with (
        timetable([whole]),
        current().part(whole.name),
        deterministic(0),
        noting_operators() as operators,
        counting(whole.name, planned=True) as count,
        ray_engine(files, actors) if by_ray else nullcontext() as engine,
    ):
        scoring.run(device, count, engine)
    run.log_params({f"hardware.{name}": names for name, names in operators.describe().items()})
    scored = (scoring.done - before) / scoring.passes
    return scored / (time.perf_counter() - began) if scored else float("nan")


def _files_for_ray(
    options: PredictOptions, models: Models, detectors: Sequence[Detector]
) -> list[DetectorFile]:
    """Return the files from which actors load the detectors; those of runs are written first."""
    files = []
    for number, (model, detector) in enumerate(zip(models, detectors, strict=True), 1):
        path = Path(model.name).expanduser()
        if not path.is_file():
            if detector.card.engine != TORCH:
                raise UserError(
                    f"--engine ray: {model.name} is an exported detector; give its .onnx file."
                )
            path = Path(options.output) / f".detector-{number}.safetensors"
            detector.save(path)
        files.append(DetectorFile(path.resolve(), detector.card.views))
    return files


def _write(
    folder: Path,
    options: PredictOptions,
    models: Models,
    detectors: Sequence[Detector],
    predictions: pd.DataFrame,
    description: Description,
) -> list[Path]:
    with writing_tables(folder, description) as writer:
        writer.add(predictions)
    cards = folder / "models.json"
    _write_json(
        {
            "ensemble": description.ensemble,
            "threshold": description.threshold,
            "prior": options.prior or None,
            "models": [
                {**listed, "views": used.card.views, "decision": asdict(used.card.decision)}
                for listed, used in zip(_listed(models), detectors, strict=True)
            ],
        },
        cards,
    )
    return [folder / CSV, folder / PARQUET, cards]


def _ensemble(options: PredictOptions, models: Models) -> str:
    return options.ensemble if len(models) > 1 else "none"


def _write_clips(folder: Path, clips: pd.DataFrame) -> list[Path]:
    file = folder / "clips.csv"
    if clips.empty:
        file.unlink(missing_ok=True)  # of an earlier prediction
        return []
    _write_csv(clips, file)
    shown = clips.head(_SHOWN).astype(object).where(clips.head(_SHOWN).notna(), "")
    rows = [
        [row["clip"], str(row["frames"]), str(row["unreadable"]), _number(row["probability"]),
         _number(row["synthetic_share"]), _LABEL_WORDS.get(row["label"], "unknown")]
        for row in shown.to_dict(orient="records")
    ]  # fmt: skip
    more = f", the first {_SHOWN}" if len(clips) > _SHOWN else ""
    columns = ["clip", "frames", "unreadable", "probability", "frames called synthetic", "verdict"]
    table(f"Videos ({len(clips):,}{more})", columns, rows)
    return [file]


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"


def _write_agreement(
    folder: Path, models: Models, scores: Scores, thresholds: FloatArray
) -> list[Path]:
    file = folder / "agreement.csv"
    logits = np.delete(scores.logits, list(scores.unreadable), axis=1)
    if len(models) == 1 or not logits.size:
        file.unlink(missing_ok=True)  # of an earlier prediction
        return []
    pairs = agreement(logits, thresholds, [model.name for model in models])
    _write_csv(pairs, file)
    numbers = combinations(range(1, len(models) + 1), 2)
    shares = pairs[["same_label", "spearman"]].to_numpy()
    table(
        "Agreement",
        ["models", "same label", "Spearman"],
        [
            [f"{a} and {b}", f"{same:.1%}", f"{rho:.3f}"]
            for (a, b), (same, rho) in zip(numbers, shares, strict=True)
        ],
    )
    return [file]


def _write_unreadable(folder: Path, predictions: pd.DataFrame) -> list[Path]:
    file = folder / "unreadable.csv"
    bad = _unreadable(predictions)
    if bad.empty:
        file.unlink(missing_ok=True)
        return []
    _write_csv(bad, file)
    console.print(f"{len(bad):,} image(s) cannot be read:", style="bold yellow")
    console.print(_first(bad))
    return [file]


def _summarise(run: Run, predictions: pd.DataFrame, speed: float) -> None:
    called = int(predictions["label"].sum())
    unreadable = len(_unreadable(predictions))
    counts = {"images": len(predictions), "synthetic": called, "unreadable": unreadable}
    if "unsure" in predictions:
        counts["unsure"] = int(predictions["unsure"].sum())
    metrics = {f"predict/{name}": float(count) for name, count in counts.items()}
    for name in ("logit_std", "probability_std"):
        if name in predictions and unreadable < len(predictions):
            metrics[f"predict/{name}"] = float(predictions[name].mean())
    if speed == speed:  # not nan
        metrics["predict/images_per_second"] = speed
    if "metadata_says" in predictions:
        says = predictions["metadata_says"]
        metrics |= {
            f"predict/metadata_{w}": float((says == w).sum()) for w in ("synthetic", "captured")
        }
        if (says != "").any():
            console.print(metadata_words(predictions))
    run.log_metrics(metrics)
    table(
        "Predictions",
        [*counts, "images/s"],
        [[*(f"{count:,}" for count in counts.values()), f"{speed:.1f}" if speed == speed else "-"]],
    )


def _submit(
    options: PredictOptions,
    folder: Path,
    models: Models,
    images: Images,
    predictions: pd.DataFrame,
    decision: Decision,
) -> list[Path]:
    """Write the run file, and its provenance beside it."""
    bad = _unreadable(predictions)
    if len(bad) and not options.unreadable_as:
        raise UserError(
            f"--submission: {len(bad)} image(s) cannot be read, but a submission needs an answer "
            f"for every image:\n{_first(bad)}\nGive it by --unreadable-as real or synthetic; "
            f"nothing is scored again. Or repair the images and delete {folder / 'state.json'}."
        )
    answer = {"real": 0.0, "synthetic": 1.0}.get(options.unreadable_as, float("nan"))
    ids = [base_name(name) for name in predictions["image"]]
    rows = pd.DataFrame({"image_id": ids, "prob": predictions["probability"].fillna(answer)})
    file = write_submission(
        rows,
        folder,
        team=options.team,
        run=options.submission,
        edition=options.edition,
        threshold=decision.threshold,
    )
    print_findings(check_submission(file, image_ids=ids, edition=options.edition))
    provenance = folder / "provenance.json"
    _write_json(
        {
            "submission": {
                "file": file.name,
                "sha256": file_sha256(file),
                "threshold": decision.threshold,
            },
            "models": _listed(models),
            "images": {
                "data": options.data,
                "count": len(images),
                "names_sha256": names_sha256(images),
                "unreadable": bad["image"].tolist(),
            },
            "options": options.to_json(),
            "synthdetect": __version__,
        },
        provenance,
    )
    return [file, provenance]


def _listed(models: Models) -> list[dict[str, Any]]:
    """Return the models with the numbers that the names of the columns have."""
    return [
        {"number": number, "model": name, "card": asdict(detector.card)}
        for number, (name, detector, _) in enumerate(models, 1)
    ]


def _unreadable(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions.loc[predictions["error"] != "", ["image", "error"]]


def _first(bad: pd.DataFrame) -> str:
    # By repr, so that a name from an archive cannot control the terminal.
    lines = [f"  {image!r}: {error}" for image, error in bad.head(_SHOWN).to_numpy()]
    more = [f"  and {len(bad) - _SHOWN:,} more, see unreadable.csv"] if len(bad) > _SHOWN else []
    return "\n".join([*lines, *more])


def _write_csv(rows: pd.DataFrame, path: Path) -> None:
    with replace_atomically(path) as temporary:
        rows.to_csv(temporary, index=False, lineterminator="\n")


def _write_json(value: Mapping[str, Any], path: Path) -> None:
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
