"""Training on shards: the numbers are those of training on files, and the order is as random."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from synthdetect.datasets.labels import CLASSES
from synthdetect.datasets.packing import pack
from synthdetect.datasets.prepare import Prepared, prepare
from synthdetect.images.batches import Order
from synthdetect.images.contents import read_content
from synthdetect.models.spec import ModelSpec
from synthdetect.training import session
from synthdetect.training.loop import Hooks
from synthdetect.training.session import Session
from tests.training.conftest import CPU, Tiny, options_of

GIVEN: dict[str, Any] = {
    "image_size": 32, "batch_size": 8, "epochs": 3, "weights": "none", "geometry": "random_crop",
    "balance": "generator",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build(spec: ModelSpec) -> Tiny:
        torch.manual_seed(0)
        return Tiny(dropout=0.5, spec=spec)

    monkeypatch.setattr(session, "build", build)
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(small_table: pd.DataFrame, tmp_path: Path) -> Prepared:
    table = small_table.groupby(["split", "generator"]).head(7)
    table.to_csv(tmp_path / "data.csv", index=False)
    return prepare(options_of(data=str(tmp_path / "data.csv")).data, seed=1)


def as_tar(files: Prepared, folder: Path) -> None:
    pack(files.manifest, str(folder), shard_bytes=50_000)


def as_parquet(files: Prepared, folder: Path) -> None:
    folder.mkdir()
    for split in files.manifest.splits:
        part = files.manifest.split(split)
        rows = part.table[["label", "generator", "category", "source_id", "split"]]
        rows = rows.assign(label=rows["label"].map(dict(enumerate(CLASSES))))
        images = [{"bytes": read_content(f), "path": Path(f).name} for f in part.files()]
        table = pa.Table.from_pandas(rows, preserve_index=False)
        pq.write_table(
            table.append_column("image", [images]), folder / f"{split}.parquet", row_group_size=5
        )


@pytest.mark.parametrize("write", [as_tar, as_parquet])
def test_training_on_shards_gives_the_weights_of_training_on_files(
    files: Prepared, tmp_path: Path, write: Any
) -> None:
    write(files, tmp_path / "shards")
    shards = prepare(options_of(data=str(tmp_path / "shards")).data, seed=1)
    assert shards.digest() == files.digest()
    # Without a cache: each image is read where it is in each epoch.
    given = {**GIVEN, "cache_gib": 0}
    of_files, of_shards, killed = (
        Session(options_of(**given), prepared, CPU, tmp_path / name)
        for name, prepared in (("files", files), ("shards", shards), ("killed", shards))
    )
    of_files.fit(Hooks())
    of_shards.fit(Hooks())
    weights = {name: value.clone() for name, value in of_files.network.state_dict().items()}
    assert all(
        torch.equal(value, weights[name]) for name, value in of_shards.network.state_dict().items()
    )
    for split, logits in of_files.outputs(["val", "test"]).items():
        assert np.array_equal(of_shards.outputs([split])[split], logits)

    class Killed(Hooks):
        def on_batch(self, images: int, loss: float) -> None:
            if killed.training.progress.epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.fit(Killed())
    resumed = Session(options_of(**given), shards, CPU, tmp_path / "killed")
    resumed.fit(Hooks())
    assert all(
        torch.equal(value, weights[name]) for name, value in resumed.network.state_dict().items()
    )


# --- how well an epoch is mixed


def mixing(order: npt.NDArray[np.int64], shard: npt.NDArray[np.int64], batch: int) -> list[float]:
    """Return how far an order is from chance: three statistics, near 0 for a random permutation.

    These are the correlation of the place in the data and the place in the epoch, in standard
    errors; and, as a share of what chance gives, how many shards a batch lacks, and the excess of
    the variance between batches of the share of one class (whose images follow each other in the
    data).
    """
    n, shards = len(order), int(shard.max()) + 1
    correlation = np.corrcoef(order, np.arange(n))[0, 1] * np.sqrt(n)
    rows = order[: n // batch * batch].reshape(-1, batch)
    distinct = np.mean([len(np.unique(shard[row])) for row in rows])
    expected = shards * (1 - (1 - 1 / shards) ** batch)
    synthetic = (rows < n // 2).mean(axis=1)
    variance = synthetic.var() / (0.25 / batch)
    return [float(correlation), float(1 - distinct / expected), float(variance - 1)]


def test_an_epoch_over_shards_is_a_random_permutation() -> None:
    n, per_shard, batch = 20_000, 500, 32
    shard = np.arange(n) // per_shard
    sampler = Order(n, batch, seed=7)
    epochs = []
    for sampler.epoch in (0, 1):
        epochs.append(np.array([row for rows in sampler for _, row in rows]))
        assert np.array_equal(np.sort(epochs[-1]), np.arange(n))
        correlation, shards, classes = mixing(epochs[-1], shard, batch)
        assert abs(correlation) < 4
        assert abs(shards) < 0.02
        assert abs(classes) < 0.25
    assert abs(np.corrcoef(*epochs)[0, 1]) * np.sqrt(n) < 4
    # What a buffer of 2,000 images over shards in a fixed order would give is told from it.
    rng = np.random.default_rng(0)
    buffered = np.argsort(np.arange(n) + rng.uniform(0, 2_000, n))
    correlation, shards, classes = mixing(buffered, shard, batch)
    assert correlation > 100
    assert shards > 0.5
    assert classes > 5
