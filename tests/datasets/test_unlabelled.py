"""Images without labels: their names and order, from folders, archives and lists."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from synthdetect.datasets.parquet_list import ParquetList
from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.images.batches import Batches, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.images.reading import MAX_BYTES
from synthdetect.system.errors import UserError
from tests.datasets.conftest import CONTENT, NAMES, contents_of, names_of, pack, refusal_of


def test_a_folder_is_sorted_by_path_with_forward_slashes(folder: Path) -> None:
    images = unlabelled(str(folder))
    assert names_of(images) == sorted(NAMES)
    assert contents_of(images) == [CONTENT[name] for name in sorted(NAMES)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_list_keeps_its_order_and_names(folder: Path, suffix: str, labelled: bool) -> None:
    absolute = str(folder / "a.webp")
    table = pd.DataFrame({"path": ["c/d/e.jpeg", absolute, "b/2.PNG"], "note": ["", "x,y", ""]})
    if labelled:
        table["label"] = ["real", "synthetic", "real"]
    path = folder / f"list{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    images = unlabelled(str(path))
    assert names_of(images) == table["path"].tolist()
    assert contents_of(images) == [CONTENT[n] for n in ("c/d/e.jpeg", "a.webp", "b/2.PNG")]


def test_a_parquet_list_is_read_by_its_groups_of_rows(folder: Path) -> None:
    names = [f"{number}.png" for number in range(7)]
    path = folder / "list.parquet"
    pd.DataFrame({"path": names}).to_parquet(path, row_group_size=3)
    images = unlabelled(str(path))
    assert isinstance(images, ParquetList)
    assert names_of(images) == names
    assert [images.name(row) for row in (6, 0, 3)] == ["6.png", "0.png", "3.png"]
    assert names_of(pickle.loads(pickle.dumps(images))) == names
    pd.DataFrame({"path": [*names, "1.png"]}).to_parquet(path, row_group_size=3)
    with pytest.raises(UserError, match=r"'1.png' is listed twice"):
        unlabelled(str(path))
    pd.DataFrame({"path": [*names, ""]}).to_parquet(path, row_group_size=3)
    with pytest.raises(UserError, match=r"row 8 \(''\) has no path"):
        unlabelled(str(path))


def test_the_sample() -> None:
    images = unlabelled("sample")
    assert len(images) == 1066
    assert images.name(0) == "train/real/p000_0.jpg"
    assert images.read(0)[:2] == b"\xff\xd8"


@pytest.mark.parametrize("name", ["images", "i.zip", "i.tar.gz"])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_read_by_any_number_of_processes(folder: Path, name: str, workers: int) -> None:
    if name != "images":
        pack(folder.parent / name, {n: CONTENT[n] for n in sorted(NAMES)})
    preprocess = Preprocess(16, "resize")
    images = unlabelled(str(folder.parent / name)).seen_by(preprocess)
    batches = list(Batches(images, Order(4, 2), workers).epoch(0))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1], [2, 3]]
    expected = np.stack([preprocess(CONTENT[n]) for n in sorted(NAMES)])
    found = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found, expected)


def test_images_can_be_preprocessed_in_several_ways(folder: Path) -> None:
    images = unlabelled(str(folder))
    small, large = (
        images.seen_by(Preprocess(16, "resize")),
        images.seen_by(Preprocess(32, "resize")),
    )
    assert [np.shape(i[0, 0][1]) for i in (small, large)] == [(16, 16, 3), (32, 32, 3)]


def test_special_and_too_large_files_are_not_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "huge.png").touch()
    os.truncate(folder / "huge.png", MAX_BYTES + 1)
    images = unlabelled(str(folder))
    reasons = {images.name(row): refusal_of(images, row) for row in range(len(images))
               if "/" not in images.name(row) and images.name(row) != "a.webp"}  # fmt: skip
    assert reasons["pipe.png"] == "not a regular file"
    assert "limit" in reasons["huge.png"]


def test_data_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = [tmp_path / "empty", pack(tmp_path / "i.zip", {"a.txt": b""}), tmp_path / "list.csv"]
    (tmp_path / "list.csv").write_text("path\n")
    for path in cases:
        with pytest.raises(UserError, match=f"{re.escape(str(path))}: .*no images"):
            unlabelled(str(path))


def test_other_data_are_refused_with_what_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "i.rar").touch()
    with pytest.raises(UserError, match=r"--data: .*i\.rar: .*\.zip, \.tar"):
        unlabelled(str(tmp_path / "i.rar"))
    with pytest.raises(UserError, match="nowhere"):
        unlabelled(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.png\n", "no column 'path'; it has file"),
        ("path,label\na.png,real\n,real\n", "row 2 .* has no path"),
        ("path\na.png\n../b.png\n", "row 2 .* climbs out"),
        ("path\na.png\nb.png\na.png\n", "row 3 .* is listed twice"),
        ("path\na.png,b.png\n", "line 2"),
    ],
)
def test_a_bad_list_is_refused_with_the_row(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=f"list.csv.*{message}"):
        unlabelled(str(tmp_path / "list.csv"))


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(UserError, match=r"list\.parquet"):
        unlabelled(str(tmp_path / "list.parquet"))
