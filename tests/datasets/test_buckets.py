"""Shards in a bucket: a server of S3's protocol on this machine."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from synthdetect.commands.manifest import write_manifest
from synthdetect.commands.options import ManifestOptions
from synthdetect.datasets import packing
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.packing import pack
from synthdetect.images import batches, buckets
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.contents import read_content
from synthdetect.images.geometry import Preprocess
from synthdetect.system.errors import UserError
from tests.datasets.test_shards import IMAGES, contents, open_fake

SIZE = Preprocess(16, "resize")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    started = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    started.start()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of an empty folder, in a bucket that is there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fs, _ = buckets.filesystem("s3://data")
    if not fs.exists("data"):
        fs.mkdir("data")
    return f"s3://data/{tmp_path.name}"


@pytest.fixture
def given(small_manifest: Path) -> Manifest:
    """A few images of each split."""
    manifest = load(str(small_manifest))
    return index(manifest.with_table(manifest.table.groupby("split").head(18)))


def epochs(manifest: Manifest, workers: int) -> list[bytes]:
    """Return the batches of two epochs."""
    part = manifest.split("train")
    images = ImageFiles(part.files(), SIZE, targets=part.table["label"], seed=1)
    read = Batches(images, Order(len(images), 8, seed=3), workers)
    return [batch.images.numpy().tobytes() for n in range(2) for batch in read.strict_epoch(n)]


def test_batches_from_a_bucket_are_those_of_files(
    bucket: str, given: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(given, bucket, shard_bytes=100_000)
    stored = index(load(bucket), progress=lambda *_: pytest.fail("an image was read again"))
    assert stored.digest() == given.digest()
    of_files = epochs(given, 0)
    assert epochs(stored, 2) == of_files
    asked: list[int] = []

    def counted(paths: list[str]) -> object:
        asked.append(len(paths))
        return read_contents(paths)

    read_contents = batches.read_contents
    monkeypatch.setattr(batches, "read_contents", counted)
    monkeypatch.setattr(batches, "read_content", None)
    assert epochs(stored, 0) == of_files
    assert sum(asked) == 2 * len(given.split("train"))
    assert max(asked) == 8, "the images of a batch are read at the same time"


def test_the_manifest_of_a_bucket_is_a_local_file(
    bucket: str, given: Manifest, tmp_path: Path
) -> None:
    pack(given, bucket, shard_bytes=100_000)
    buckets.filesystem(bucket)[0].rm(f"{bucket}/manifest.parquet")
    write_manifest(ManifestOptions(folder=bucket, output=str(tmp_path / "data.csv")))
    stored = load(str(tmp_path / "data.csv"))
    assert stored.table["path"].str.startswith(f"{bucket}/").all()
    assert index(stored).digest() == given.digest()
    assert load(f"{bucket}/train-{{000000..000001}}.tar").splits == ["train"]


def test_parquet_and_lists_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    fs, _ = buckets.filesystem(bucket)
    fs.put(str(open_fake(tmp_path / "train-0.parquet")), f"{bucket}/train-0.parquet")
    (tmp_path / "1.png").write_bytes(IMAGES[3])
    pd.DataFrame({"path": ["1.png"], "label": 1}).to_csv(tmp_path / "list.csv", index=False)
    for name in ("1.png", "list.csv"):
        fs.put(str(tmp_path / name), f"{bucket}/lists/{name}")
    manifest = load(bucket)
    assert contents(manifest) == IMAGES
    order = np.random.default_rng(0).permutation(6)
    assert [read_content(manifest.files()[row]) for row in order] == [IMAGES[r] for r in order]
    assert contents(load(f"{bucket}/lists/list.csv")) == IMAGES[3:4]
    assert set(index(manifest).table["error"]) == {""}


def test_a_changed_object_is_read_again(bucket: str, tmp_path: Path) -> None:
    fs, _ = buckets.filesystem(bucket)
    for number in (0, 1):
        file = tmp_path / "1.png"
        file.write_bytes(IMAGES[number])
        fs.put(str(file), f"{bucket}/1.png")
        pd.DataFrame({"path": [f"{bucket}/1.png"], "label": 1}).to_csv(tmp_path / "l.csv")
        first = index(load(str(tmp_path / "l.csv")))
        again = index(
            load(str(tmp_path / "l.csv")), progress=lambda *_: pytest.fail("was read again")
        )
        assert first.digest() == again.digest()
        assert list(first.table["bytes"]) == [len(IMAGES[number])]


def test_what_cannot_be_reached_is_named(bucket: str, tmp_path: Path) -> None:
    for url, message in (
        (f"{bucket}/none", "Check the address"),
        (f"{bucket}/none.csv", "Check the address"),
        ("s3://other/x.tar", "x.tar"),
        ("ftp://host/x.tar", "give a URL that begins with one of: s3"),
        ("simplecache::s3://data/x.tar", "give a URL that begins with"),
    ):
        with pytest.raises(UserError, match=message):
            load(url)
    pd.DataFrame({"path": [f"{bucket}/a.tar#0+9/1.png"], "label": 1}).to_csv(tmp_path / "l.csv")
    assert index(load(str(tmp_path / "l.csv"))).table["error"].iloc[0]


def test_a_server_that_is_away_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    buckets.fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UserError, match=r"s3://data/x"):
        load("s3://data/x")
    buckets.fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize("scheme", ["s3a", "memory"])
def test_what_is_packed_is_loaded_by_the_same_url(
    bucket: str, given: Manifest, scheme: str
) -> None:
    url = f"{scheme}://{bucket.partition('://')[2]}"
    pack(given, url, shard_bytes=100_000)
    assert contents(load(url)) == contents(given)


def test_what_fails_in_the_middle_leaves_no_object(
    bucket: str, given: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, left = packing.read_content, [5]

    def failing(path: str) -> bytes:
        left[0] -= 1
        if not left[0]:
            raise OSError("gone")
        return read(path)

    monkeypatch.setattr(packing, "read_content", failing)
    with pytest.raises(UserError, match="gone"):
        pack(given, bucket, shard_bytes=100_000)
    with pytest.raises(FileNotFoundError):
        buckets.find(bucket)
