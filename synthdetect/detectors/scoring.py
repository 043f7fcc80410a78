"""Scoring many images with detectors, resumable after every batch.

Each finished batch is appended to a journal. After a kill, scoring resumes after the last whole
batch, so that every batch holds the same images as without the kill and the scores are the same to
the last bit.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from torch import nn

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.evaluation.decision import Decision
from synthdetect.evaluation.ensemble import combine, log_odds, spread
from synthdetect.images.batches import Batch, Batches, Images, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.system.arrays import FloatArray
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically
from synthdetect.training.devices import Device
from synthdetect.training.loop import predict

STATE, _RUN = "state.json", ".run"
"""The files that say which scoring the journals beside them belong to, and its run."""


class Scored(NamedTuple):
    """The outputs of detectors for a batch.

    Attributes:
        rows: The rows of the readable images.
        outputs: The outputs of all detectors, one after another, of shape (readable images,
            outputs).
        unreadable: (row, reason) of the other images.
    """

    rows: list[int]
    outputs: FloatArray
    unreadable: list[tuple[int, str]]


class Engine(Protocol):
    """What computes the outputs of detectors: this process, or others."""

    def __call__(
        self, numbers: Sequence[int], images: Images, batch_size: int, first: int
    ) -> Iterator[Scored]:
        """Yield batch after batch, in the order of the images.

        Args:
            numbers: Which of the detectors of a scoring compute, counted from 0.
            images: The images, preprocessed as these detectors need it.
            batch_size: Images per batch.
            first: The row of the first image of the first batch.
        """


class Local:
    """The engine that is this process, with worker processes that read images.

    Args:
        detectors: The detectors of the scoring.
        device: The device that computes.
    """

    def __init__(self, detectors: Sequence[Detector], device: Device) -> None:
        self._detectors, self._device = detectors, device

    def __call__(
        self, numbers: Sequence[int], images: Images, batch_size: int, first: int
    ) -> Iterator[Scored]:
        """Yield batch after batch, as `Engine` says."""
        device = self._device
        scorers = [self._detectors[number].full_scorer.to(device.torch) for number in numbers]
        widths = [self._detectors[number].width for number in numbers]
        order = Order(len(images), batch_size, first=first)
        for batch in Batches(images, order, device.workers, pin_memory=device.pin_memory).epoch(0):
            yield scored(batch, scorers, widths, device)


def scored(
    batch: Batch, scorers: Sequence[nn.Module], widths: Sequence[int], device: Device
) -> Scored:
    """Compute the outputs of a batch.

    Args:
        batch: The batch.
        scorers: The `full_scorer` of each detector, on the device.
        widths: Their numbers of outputs.
        device: The device that computes.
    """
    outputs = [
        _outputs(scorer, batch, device, width)
        for scorer, width in zip(scorers, widths, strict=True)
    ]
    return Scored(batch.rows.tolist(), np.concatenate(outputs, axis=1), batch.unreadable)


@dataclass(frozen=True)
class Scores:
    """The scores of images by detectors.

    Attributes:
        logits: Calibrated logits of shape (detectors, images); nan where an image is unreadable.
        unreadable: The reason why an image cannot be read, by row.
        raw: Uncalibrated logits, likewise.
        generators: Of each detector, the logits of its generators, of shape (images, generators);
            nan where an image is unreadable.
    """

    logits: FloatArray
    unreadable: dict[int, str]
    raw: FloatArray
    generators: list[FloatArray]


class Scoring:
    """The scoring of images by detectors, with one pass for each preprocessing that they use.

    Each detector scores under the views of its card.

    Args:
        folder: Folder of the journals; it is created if necessary.
        detectors: At least one detector.
        images: The images to score.
        data: Where they come from, to tell them from other images with the same names.
        batch_size: Images per batch.
        strict: Whether an unreadable image stops the scoring, and is read again after a restart.

    Raises:
        UserError: If the folder holds an unfinished scoring of something else, or cannot be
            created.
    """

    def __init__(
        self,
        folder: Path,
        detectors: Sequence[Detector],
        images: Images,
        *,
        data: str,
        batch_size: int,
        strict: bool = False,
    ) -> None:
        self._folder, self._detectors, self._images = folder, detectors, images
        self._batch_size, self._strict = batch_size, strict
        self._members: dict[Preprocess, list[int]] = {}
        for number, detector in enumerate(detectors):
            self._members.setdefault(detector.preprocess, []).append(number)
        self._claim(
            {
                "models": [asdict(detector.card) for detector in detectors],
                "images": names_sha256(images),
                "data": data,
                "batch_size": batch_size,
            }
        )
        self._journals = [
            _Journal(folder / f".partial-{k}.csv", len(images), batch_size, strict)
            for k in range(1, len(self._members) + 1)
        ]

    @property
    def passes(self) -> int:
        """Number of passes over the images, one for each preprocessing."""
        return len(self._members)

    @property
    def total(self) -> int:
        """Number of images to score times number of passes."""
        return len(self._images) * self.passes

    @property
    def done(self) -> int:
        """How many of `total` are scored and on disk."""
        return sum(journal.rows for journal in self._journals)

    def run(
        self, device: Device, progress: Callable[[int, int], None], engine: Engine | None = None
    ) -> None:
        """Score what is not done yet.

        Args:
            device: The device that computes.
            progress: Called after each batch with `done` and `total`.
            engine: What computes; None for `Local`.

        Raises:
            UserError: If a logit is not finite, or, if strict, an image is unreadable.
        """
        engine = engine or Local(self._detectors, device)
        for (preprocess, members), journal in zip(
            self._members.items(), self._journals, strict=True
        ):
            images = self._images.seen_by(preprocess)
            for batch in engine(members, images, self._batch_size, journal.rows):
                for row, reason in batch.unreadable if self._strict else ():
                    raise UserError(
                        f"{self._images.name(row)}: was readable before and is not any more: "
                        f"{reason}. Restore it and run the command again, which resumes."
                    )
                ends = accumulate(self._detectors[number].width for number in members)
                for number, end in zip(members, ends, strict=True):
                    if not np.isfinite(batch.outputs[:, :end]).all():
                        raise UserError(
                            f"--model: detector number {number + 1} gives logits that are not "
                            "finite; its training has diverged. Leave it out."
                        )
                journal.append(batch)
                progress(self.done, self.total)

    def scores(self) -> Scores:
        """Return the scores, once everything is done."""
        widths = [detector.width for detector in self._detectors]
        outputs = [np.full((len(self._images), width), np.nan) for width in widths]
        unreadable: dict[int, str] = {}
        for members, journal in zip(self._members.values(), self._journals, strict=True):
            for row, texts, reason in journal.read():
                if reason:
                    unreadable[row] = reason
                else:
                    values = iter(map(float, texts))
                    for number in members:
                        outputs[number][row] = list(islice(values, widths[number]))
        for own in outputs:
            own[list(unreadable)] = np.nan
        logits = np.stack([own[:, 0] for own in outputs])
        calibrated = [d.calibrated(x) for d, x in zip(self._detectors, logits, strict=True)]
        generators = [own[:, 1:] for own in outputs]
        return Scores(np.stack(calibrated), unreadable, logits, generators)

    @property
    def run_id(self) -> str:
        """The run of the process that began the scoring; empty if this process is the first."""
        file = self._folder / _RUN
        return file.read_text() if file.is_file() else ""

    @run_id.setter
    def run_id(self, run_id: str) -> None:
        with replace_atomically(self._folder / _RUN) as temporary:
            temporary.write_text(run_id)

    def discard(self) -> None:
        """Remove the journals, once the results are stored elsewhere."""
        for name in (STATE, _RUN):
            (self._folder / name).unlink(missing_ok=True)
        for journal in self._journals:
            journal.path.unlink(missing_ok=True)

    def _claim(self, wanted: dict[str, Any]) -> None:
        file, wanted = self._folder / STATE, json.loads(json.dumps(wanted))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            found = json.loads(file.read_text()) if file.is_file() else None
        except OSError as error:
            raise UserError(f"--output: {self._folder}: {error.strerror}.") from error
        except (ValueError, RecursionError):
            found = {}
        if found is None:
            for leftover in (*self._folder.glob(".partial-*.csv"), self._folder / _RUN):
                leftover.unlink(missing_ok=True)
            with replace_atomically(file) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1))
        elif found != wanted:
            known = found if isinstance(found, dict) else {}
            other = ", ".join(name for name in wanted if known.get(name) != wanted[name])
            raise UserError(
                f"{self._folder}: holds an unfinished prediction with another {other}. Give the "
                f"same options to resume it, another --output, or delete {file} to discard it."
            )


class _Journal:
    """Lines `row,output,...,reason`: the outputs of all detectors, or why there are none."""

    def __init__(self, path: Path, rows: int, batch_size: int, strict: bool) -> None:
        self.path = path
        self.rows = self._cut(rows, batch_size, strict)

    def append(self, batch: Scored) -> None:
        """Append the outputs of a batch to the file."""
        lines: dict[int, list[Any]] = {
            row: [*values, ""]
            for row, values in zip(batch.rows, batch.outputs.tolist(), strict=True)
        }
        for row, reason in batch.unreadable:
            lines[row] = [*[""] * batch.outputs.shape[1], " ".join(reason.split())]
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")  # floats by repr, which reads back
            writer.writerows([row, *lines[row]] for row in sorted(lines))
            file.flush()
            os.fsync(file.fileno())
        self.rows += len(lines)

    def read(self) -> Iterator[tuple[int, list[str], str]]:
        """Yield row, outputs as text and reason of each line."""
        with self.path.open(encoding="utf-8", newline="") as file:
            for row, *outputs, reason in csv.reader(file):
                yield int(row), outputs, reason

    def _cut(self, rows: int, batch_size: int, strict: bool) -> int:
        """Cut off an incomplete batch, and return the number of rows that are left.

        If strict, everything from the first unreadable image on is cut off too.
        """
        if not self.path.exists():
            return 0
        lines = self.path.read_bytes().split(b"\n")[:-1]  # a line without its end is incomplete
        good = [
            line.startswith(b"%d," % row) and (line.endswith(b",") or not strict)
            for row, line in enumerate(lines)
        ]
        whole = good.index(False) if False in good else len(lines)
        if whole < rows:
            whole -= whole % batch_size
        os.truncate(self.path, sum(len(line) + 1 for line in lines[:whole]))
        return whole


def names_sha256(images: Images) -> str:
    """Return a hash of the names of images in their order."""
    digest = hashlib.sha256()
    for row in range(len(images)):
        digest.update(images.name(row).encode() + b"\0")
    return digest.hexdigest()


def answer_table(
    names: Sequence[str], scores: Scores, decisions: Sequence[Decision], ensemble: str
) -> tuple[pd.DataFrame, Decision]:
    """Make the table of answers for images without labels.

    Args:
        names: The names of the images.
        scores: The scores of the detectors.
        decisions: The decision of each detector.
        ensemble: How several detectors are combined; a name of `ENSEMBLES`.

    Returns:
        The table and the decision of all detectors together, for calibrated scores. The table has
        a row for each image, with the columns `image`; of several detectors `logit_1`,
        `probability_1` and `label_1` (0 real, 1 synthetic) and so on; `logit`, `probability` and
        `label` of all together; of several detectors `logit_std` and `probability_std` between
        them; with a band of doubt `unsure` (0 or 1); and `error`, the reason why an image cannot be
        read, in which case it has no numbers.
    """
    rows = [row for row in range(len(names)) if row not in scores.unreadable]
    logits = scores.logits[:, rows]
    thresholds = np.array([decision.threshold for decision in decisions])
    probability, threshold = combine(ensemble, logits, thresholds)
    band = float(np.mean([decision.unsure for decision in decisions]))
    together = Decision(threshold=threshold, unsure=band)
    columns: dict[str, Any] = {}
    if len(logits) > 1:
        for number, (values, own) in enumerate(zip(logits, decisions, strict=True), 1):
            columns |= _answers(f"_{number}", values, expit(values), own)
    columns |= _answers("", log_odds(ensemble, logits, probability), probability, together)
    if band:
        columns["unsure"] = pd.array(together.answer(probability).unsure.astype(int), "Int8")
    if len(logits) > 1:
        columns["logit_std"], columns["probability_std"] = spread(logits)
    table = pd.DataFrame(columns, index=rows).reindex(range(len(names)))
    table.insert(0, "image", list(names))
    table["error"] = [scores.unreadable.get(row, "") for row in range(len(names))]
    return table, together


def add_attribution(table: pd.DataFrame, scores: Scores, cards: Sequence[Card]) -> None:
    """Add what each detector that attributes images answers to the table of `answer_table`.

    The column is `attributed` for one detector; of several, `attributed_1` is that of the first,
    and there is no common answer, since they may know different generators.
    """
    readable = [row for row in range(len(table)) if row not in scores.unreadable]
    for number, (card, logits) in enumerate(zip(cards, scores.generators, strict=True), 1):
        if card.attribution:
            suffix = f"_{number}" if len(cards) > 1 else ""
            labels = table.loc[readable, f"label{suffix}"].to_numpy(np.int8)
            answers = pd.Series(card.attributed(labels, logits[readable]), index=readable)
            place = table.columns.get_loc("error")
            table.insert(place, f"attributed{suffix}", answers.reindex(table.index))


def _answers(
    suffix: str, logits: FloatArray, probability: FloatArray, decision: Decision
) -> dict[str, Any]:
    return {
        f"logit{suffix}": logits,
        f"probability{suffix}": probability,
        f"label{suffix}": pd.array(decision.answer(probability).label, dtype="Int8"),
    }


def _outputs(scorer: nn.Module, batch: Batch, device: Device, width: int) -> FloatArray:
    """Return the outputs of the readable images of a batch, of shape (images, width)."""
    count = len(batch.rows)
    alone = batch._replace(rows=torch.arange(count))
    return predict(scorer, [alone], device, count).reshape(count, width)
