"""The tables of a prediction as CSV and Parquet, and the description inside the Parquet file.

Rows are written in groups of a fixed size, so that the files are the same to the last byte whether
a table is written at once or part by part.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from synthdetect import __version__
from synthdetect.detectors.card import Card
from synthdetect.evaluation.decision import Decision
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically

CSV, PARQUET = "predictions.csv", "predictions.parquet"
"""Names of the files."""

GROUP = 2**18
"""Rows of a group of the Parquet file; a reader and a writer hold about one group in memory."""

_KEY = b"synthdetect.prediction"
_WHOLE_NUMBERS = ("label", "unsure")
_NUMBERS = ("logit", "probability")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a table of predictions was made from.

    Parts of one prediction differ in `shard` and `images` only.

    Attributes:
        shard: Which part it is, such as 3/16; 1/1 is all of it.
        images: Number of images of the part.
        images_of_all: Number of images of all parts together.
        names_sha256: Hash of the names of the images of all parts in their order.
        models: Of each model the hash of its card, the views and the decision that were used.
        ensemble: How several models are combined; `none` for one.
        threshold: The threshold of all models together.
        batch_size: Images per batch.
        frames: Frames of a video that are images; 0 for no videos.
        metadata: Whether there are columns of metadata.
        synthdetect: The version that wrote it.
    """

    shard: str
    images: int
    images_of_all: int
    names_sha256: str
    models: Sequence[Mapping[str, Any]]
    ensemble: str
    threshold: float
    batch_size: int
    frames: int
    metadata: bool
    synthdetect: str = __version__

    def to_bytes(self) -> bytes:
        """Return it as it stands in a file."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def read(cls, file: pq.ParquetFile, path: Path) -> Self:
        """Read the description in an open file.

        Raises:
            UserError: If there is none.
        """
        try:
            return cls(**json.loads((file.schema_arrow.metadata or {})[_KEY]))
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"{path}: does not say what it was predicted from, so it was not written by the "
                "command predict of this version. Predict it again."
            ) from error


def description_of_model(card: Card, used: Card) -> dict[str, Any]:
    """Return the entry of a model, which does not depend on where it is kept.

    Args:
        card: Its card.
        used: The card with the views and the decision that were asked for.
    """
    return {
        "card_sha256": hashlib.sha256(
            json.dumps(asdict(card), sort_keys=True).encode()
        ).hexdigest(),
        "weights_sha256": card.weights_sha256,
        "views": used.views,
        "decision": json.loads(json.dumps(asdict(used.decision))),
    }


def decision_of(description: Description) -> Decision:
    """Return the decision of all models together, without a band of doubt."""
    return Decision(threshold=description.threshold)


class TableWriter:
    """Writes a table part by part; see `writing_tables`."""

    def __init__(self, csv: IO[str], parquet: Path, description: Description) -> None:
        self._csv, self._parquet, self._description = csv, parquet, description
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def add(self, rows: pd.DataFrame) -> None:
        """Append rows."""
        typed = rows.astype({name: _type_in_pandas(name) for name in rows})
        typed.to_csv(self._csv, index=False, lineterminator="\n", header=self._writer is None)
        schema = pa.schema([(name, _type_in_arrow(name)) for name in typed])
        table = pa.Table.from_pandas(typed, schema=schema, preserve_index=False)
        if self._writer is None:
            table = table.replace_schema_metadata(
                {**table.schema.metadata, _KEY: self._description.to_bytes()}
            )
            self._writer = pq.ParquetWriter(self._parquet, table.schema)
        self._waiting.append(table.cast(self._writer.schema))
        while sum(map(len, self._waiting)) >= GROUP:
            self._write(GROUP)

    def close(self) -> None:
        """Write the last rows, and end the Parquet file."""
        assert self._writer is not None, "a prediction has at least one image"
        if rows := sum(map(len, self._waiting)):
            self._write(rows)
        self._writer.close()

    def _write(self, rows: int) -> None:
        assert self._writer is not None
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._writer.write_table(table.slice(0, rows), row_group_size=rows)
        self._waiting = [table.slice(rows)]


@contextmanager
def writing_tables(folder: Path, description: Description) -> Iterator[TableWriter]:
    """Write `predictions.csv` and `predictions.parquet`, which appear once they are complete."""
    with (
        replace_atomically(folder / CSV) as csv,
        replace_atomically(folder / PARQUET) as parquet,
        csv.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = TableWriter(stream, parquet, description)
        yield writer
        writer.close()


def read_tables(file: pq.ParquetFile) -> Iterator[pd.DataFrame]:
    """Yield the rows of an open file, a part at a time."""
    nullable = {pa.int8(): pd.Int8Dtype()}
    for batch in file.iter_batches(batch_size=2**16):
        yield batch.to_pandas(types_mapper=nullable.get)


def _type_in_pandas(column: str) -> Any:
    if column.startswith(_WHOLE_NUMBERS):
        return pd.Int8Dtype()
    return "float64" if column.startswith(_NUMBERS) else "str"


def _type_in_arrow(column: str) -> pa.DataType:
    if column.startswith(_WHOLE_NUMBERS):
        return pa.int8()
    return pa.float64() if column.startswith(_NUMBERS) else pa.large_string()
