"""Merging the parts of a prediction into the prediction, with a proof that nothing is missing."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.detectors.scoring import names_sha256
from synthdetect.images.batches import Images
from synthdetect.runs.options import MergeOptions
from synthdetect.runs.prediction_files import clip_table
from synthdetect.runs.prediction_tables import (
    CSV,
    PARQUET,
    Description,
    decision_of,
    read_tables,
    writing_tables,
)
from synthdetect.runs.shard import Shard
from synthdetect.system.console import console, counting
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically, require_folder

_OF_A_PART = ("shard", "images")  # in which the parts of a prediction differ
_SHOWN = 20  # missing parts in a message


class _Part(NamedTuple):
    path: Path
    file: pq.ParquetFile
    description: Description
    shard: Shard


@dataclass
class _Counts:
    images: int = 0
    synthetic: int = 0
    unreadable: int = 0


def merge_predictions(options: MergeOptions) -> dict[str, Any]:
    """Merge the parts of a prediction, if they are all of it.

    The rows are read and written part by part. In memory are the names of the images, the rows of
    unreadable ones and those of frames of videos.

    Raises:
        UserError: If a part is missing, given twice, damaged, or of another prediction than the
            first one; or if the images of `--data` are not those of the prediction, each once and
            in order. Nothing is written then.
    """
    output = Path(options.output)
    if not options.files:
        raise UserError("files: give the parts: folders that predict has written, or the files "
                        f"{PARQUET} in them.")  # fmt: skip
    if not options.data:
        raise UserError(
            "--data: give the images that were predicted; the parts are compared to them."
        )
    require_folder(output, "--output")
    with ExitStack() as stack:
        parts = [_opened(_file(name), stack) for name in options.files]
        parts = _in_order(parts)
        one = parts[0].description
        images = unlabelled(options.data, frames=one.frames)
        _require_images(images, one, options.data)
        whole = Description(**{**asdict(one), "shard": "1/1", "images": len(images)})
        output.mkdir(parents=True, exist_ok=True)
        times: Mapping[int, tuple[str, float]] = getattr(images, "times", {})
        counts, bad, frames = _Counts(), [], []
        with writing_tables(output, whole) as writer, counting("merging") as count:
            for rows in _rows(parts, images):
                writer.add(rows)
                counts.images += len(rows)
                counts.synthetic += int(rows["label"].sum())
                bad.append(rows.loc[rows["error"] != "", ["image", "error"]])
                if times:
                    frames.append(rows[[row in times for row in rows.index]])
                count(counts.images, len(images))
    files = [output / CSV, output / PARQUET]
    unreadable = pd.concat(bad)
    counts.unreadable = len(unreadable)
    files += _write("unreadable.csv", unreadable, output)
    clips = pd.DataFrame()
    if times:
        names = [name for name, _ in times.values()]
        clips = clip_table(pd.concat(frames), names, decision_of(whole))
    files += _write("clips.csv", clips, output)
    console.print(
        f"{len(parts)} part(s): {counts.images:,} images, each exactly once; "
        f"{counts.synthetic:,} called synthetic, {counts.unreadable:,} unreadable"
    )
    for file in files:
        console.print(f"wrote {file}")
    return {**asdict(counts), "files": files}


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    return path / PARQUET if path.is_dir() else path


def _opened(path: Path, stack: ExitStack) -> _Part:
    try:
        file = stack.enter_context(pq.ParquetFile(path))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as a part of a prediction: {error}") from error
    description = Description.read(file, path)
    try:
        shard = Shard.parse(description.shard)
        expected = len(shard.rows(description.images_of_all, description.batch_size))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{path}: its description does not fit: {error}") from error
    found = file.metadata.num_rows
    if not found == expected == description.images:
        raise UserError(
            f"{path}: part {shard} has {expected:,} images, and the file {found:,} rows. Predict "
            "this part again."
        )
    return _Part(path, file, description, shard)


def _in_order(parts: Sequence[_Part]) -> list[_Part]:
    """Check that the parts are all of one prediction, and return them in their order."""
    first, *others = parts
    one = asdict(first.description)
    for part in others:
        other = asdict(part.description)
        if part.shard.of != first.shard.of:
            raise UserError(
                f"{part.path} is part {part.shard}, and {first.path} part {first.shard}: they are "
                "of different divisions. Give the parts of one."
            )
        for name in one:
            if name not in _OF_A_PART and other[name] != one[name]:
                raise UserError(
                    f"{part.path} was predicted with another {name} than {first.path}: "
                    f"{_difference(other[name], one[name])}. Predict one of them again, with the "
                    "options of the others."
                )
        if list(part.file.schema_arrow.names) != list(first.file.schema_arrow.names):
            raise UserError(f"{part.path} has other columns than {first.path}.")
    by_number: dict[int, list[_Part]] = defaultdict(list)
    for part in parts:
        by_number[part.shard.number].append(part)
    problems = [
        f"part {number}/{first.shard.of} is given {len(same)} times: "
        f"{', '.join(str(part.path) for part in same)}"
        for number, same in sorted(by_number.items())
        if len(same) > 1
    ]
    missing = [str(n) for n in range(1, first.shard.of + 1) if n not in by_number]
    if missing:
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        names = ", ".join(missing[:_SHOWN]) + more
        problems.append(f"of {first.shard.of} parts, these are missing: {names}")
    if problems:
        raise UserError("; ".join(problems) + ".")
    return [by_number[number][0] for number in sorted(by_number)]


def _difference(other: Any, one: Any) -> str:
    """Show two values, of models only what differs."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        differing = [
            f"model {number} has {name} {a.get(name)!r} instead of {b[name]!r}"
            for number, (a, b) in enumerate(zip(other, one, strict=True), 1)
            for name in (b if isinstance(a, dict) else ())
            if a.get(name) != b[name]
        ]
        if differing:
            return ", ".join(differing)
    return f"{other!r} instead of {one!r}"


def _require_images(images: Images, description: Description, data: str) -> None:
    if len(images) != description.images_of_all:
        raise UserError(
            f"--data: {data} has {len(images):,} images, and {description.images_of_all:,} were "
            "predicted. Give the images of the prediction."
        )
    if names_sha256(images) != description.names_sha256:
        raise UserError(
            f"--data: {data} has other names of images than those that were predicted, or another "
            "order. Give the images of the prediction."
        )


def _rows(parts: Sequence[_Part], images: Images) -> Iterator[pd.DataFrame]:
    """Yield the rows of all parts, numbered from 0, each compared with its image."""
    begin = 0
    for part in parts:
        try:
            for rows in read_tables(part.file):
                rows.index = pd.RangeIndex(begin, begin + len(rows))
                names = np.array([images.name(row) for row in rows.index], dtype=object)
                wrong = np.flatnonzero(rows["image"].to_numpy(object) != names)
                if len(wrong):
                    row = int(wrong[0])
                    raise UserError(
                        f"{part.path}: has {rows['image'].iloc[row]!r} where the images have "
                        f"{names[row]!r}. Predict this part again."
                    )
                yield rows
                begin += len(rows)
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise UserError(f"{part.path}: damaged: {error}. Predict this part again.") from error


def _write(name: str, rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a table beside the predictions, or remove that of an earlier merge if it is empty."""
    file = folder / name
    if rows.empty:
        file.unlink(missing_ok=True)
        return []
    with replace_atomically(file) as temporary:
        rows.to_csv(temporary, index=False, lineterminator="\n")
    return [file]
