"""Every place that images are read from can be the source of a dataset."""

import uuid
from pathlib import Path

import pandas as pd
import pytest

from synthdetect.datasets.manifest import Manifest
from synthdetect.images.buckets import PROTOCOLS, filesystem
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.sources import BucketSource, source_of


@pytest.mark.parametrize("root", ["synthdetect/sample", *(f"{p}://place/x" for p in PROTOCOLS)])
def test_the_data_of_a_run_name_where_they_came_from(
    workspace: Path, small_table: pd.DataFrame, root: str
) -> None:
    table = small_table.assign(label=small_table["label"].eq("synthetic").astype("int8"))
    with open_run("run", kind="train", tags={}) as run:
        datasets = run.log_manifest(Manifest(table, root, root))
        (found, *_) = run.client.get_run(run.id).inputs.dataset_inputs
    assert root in found.dataset.source
    assert set(datasets) == set(table["split"])


def test_mlflow_knows_most_places_by_itself() -> None:
    kinds = {place: source_of(f"{place}://place/x")._get_source_type() for place in PROTOCOLS}
    assert kinds["s3"] == "s3"
    assert kinds["gs"] == "gs"
    assert kinds["https"] == "http"
    assert {place for place, kind in kinds.items() if kind == "bucket"} == {
        "s3a", "gcs", "az", "abfs", "memory"
    }  # fmt: skip


def test_a_bucket_is_loaded_into_a_folder() -> None:
    uri = f"memory://{uuid.uuid4()}/data"
    fs, path = filesystem(uri)
    fs.pipe(f"{path}/images/0.png", b"pixels")
    source = BucketSource.from_dict(BucketSource(uri).to_dict())
    (file,) = (one for one in Path(source.load()).rglob("*") if one.is_file())
    assert file.read_bytes() == b"pixels"
