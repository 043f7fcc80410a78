"""Images in shards: how they are listed, read and refused."""

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load, write
from synthdetect.datasets.packing import pack
from synthdetect.datasets.unlabelled import unlabelled
from synthdetect.images import row_groups
from synthdetect.images.contents import located, member_of, read_content
from synthdetect.images.reading import MAX_BYTES, BadImage
from synthdetect.system.errors import UserError
from tests.datasets.conftest import noise_image, tar_info
from tests.datasets.conftest import pack as pack_files

IMAGES = [noise_image(number) for number in range(6)]


def contents(manifest: Manifest) -> list[bytes]:
    return [read_content(path) for path in manifest.files()]


def sample_members(rows: list[dict[str, Any]], suffix: str = "json") -> dict[str, bytes]:
    """Return the members of a shard in WebDataset's layout."""
    members = {}
    for number, row in enumerate(rows):
        members[f"{number:04}.png"] = IMAGES[number]
        text = json.dumps(row) if suffix == "json" else str(row["label"])
        members[f"{number:04}.{suffix}"] = text.encode()
    return members


def open_fake(path: Path, *, label: Any = None, rows: int = 6, **options: Any) -> Path:
    """Write a Parquet file as OpenFake's: bytes and path of an image, prompt, label and model."""
    labels = ["real" if n % 2 else "fake" for n in range(rows)]
    table = pa.table(
        {
            "image": [{"bytes": IMAGES[n % 6], "path": f"{n}.png"} for n in range(rows)],
            "prompt": ["a cat"] * rows,
            "label": labels if label is None else label,
            "model": ["real" if n % 2 else "flux" for n in range(rows)],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2, **options)
    return path


# --- WebDataset's layout


def test_a_shard_with_json_gives_all_columns(tmp_path: Path) -> None:
    rows = [
        {"label": "real", "generator": "camera", "source_id": "a", "split": "val"},
        {"label": 1, "model": "flux", "category": "cat"},
    ]
    pack_files(tmp_path / "train-000000.tar", sample_members(rows))
    manifest = load(str(tmp_path))
    assert manifest.table.iloc[:, 1:].to_numpy().tolist() == [
        [0, "val", "", "", "a"],
        [1, "train", "flux", "cat", ""],
    ]
    assert contents(manifest) == IMAGES[:2]
    assert [path.rpartition("/")[2] for path in manifest.table["path"]] == ["0000.png", "0001.png"]


def test_a_shard_with_cls(tmp_path: Path) -> None:
    pack_files(tmp_path / "a.tar", sample_members([{"label": 0}, {"label": 1}], "cls"))
    manifest = load(str(tmp_path / "a.tar"))
    assert list(manifest.table["label"]) == [0, 1]
    assert contents(manifest) == IMAGES[:2]


def test_folders_in_shards_tell_labels_and_equal_names_are_kept_apart(tmp_path: Path) -> None:
    for number, generator in enumerate(["ADM", "BigGAN"]):
        (tmp_path / "x").mkdir(exist_ok=True)
        members = {"train/0_real/1.png": IMAGES[number], "train/1_fake/1.png": IMAGES[number + 2]}
        pack_files(tmp_path / "x" / f"{generator}.tar", members)
    manifest = load(str(tmp_path / "x"))
    found = dict(zip(contents(manifest), manifest.table["label"], strict=True))
    assert found == {IMAGES[0]: 0, IMAGES[1]: 0, IMAGES[2]: 1, IMAGES[3]: 1}
    assert set(manifest.table["split"]) == {"train"}


def test_a_range_of_numbers_names_shards(tmp_path: Path) -> None:
    for number in range(12):
        members = {"0_real/a.png": IMAGES[0]} if number else {"1_fake/b.png": IMAGES[1]}
        pack_files(tmp_path / f"t-{number:03}.tar", members)
    manifest = load(f"{tmp_path}/t-{{000..010}}.tar")
    assert len(manifest) == 11
    assert len(unlabelled(f"{tmp_path}/t-{{000..010}}.tar")) == 11
    with pytest.raises(UserError, match="names no shards"):
        load(f"{tmp_path}/t-{{000..010}}.jpg")
    with pytest.raises(UserError, match=r"t-000\.tar\.gz: is compressed"):
        load(f"{tmp_path}/t-{{000..010}}.tar.gz")
    with pytest.raises(UserError, match=r"t-012\.tar: the archive cannot be read"):
        load(f"{tmp_path}/t-{{000..012}}.tar")


def test_no_decoder_runs_and_other_members_are_not_looked_at(tmp_path: Path) -> None:
    members = {
        "0.png": IMAGES[0], "0.json": b'{"label": 1}', "0.pickle": b"cos\nsystem\n", "0.pyd": b"x",
    }  # fmt: skip
    pack_files(tmp_path / "a.tar", members)
    assert contents(load(str(tmp_path))) == IMAGES[:1]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.png": b"", "0.json": b"[1]"}, r"a.tar: 0.json: cannot be read: must be a JSON object"),
        ({"0.png": b"", "0.json": b"{"}, r"a.tar: 0.json: cannot be read"),
        ({"0.png": b"", "0.json": b"x" * (2**20 + 1)}, r"a.tar: 0.json: 1,048,577 bytes"),
        ({"0.png": b"", "0.cls": b"cat"}, r"a.tar#512\+0/0.png: the label 'cat' is unknown"),
        ({"0.png": b"", "0.cls": b"1", "1.png": b""}, r"a.tar#\d+\+0/1.png: has no label"),
        ({"0.png": b"", "0.mask.png": b"", "0.cls": b"1"}, r"a.tar: 0.png: is not the only image"),
        ({"../0_real/0.png": b""}, r"a.tar: the member '../0_real/0.png' climbs"),
        ({"notes.txt": b""}, r"a.tar: holds no images"),
    ],
)
def test_errors_name_the_shard_and_the_member(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    pack_files(tmp_path / "a.tar", members)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path))


def test_links_and_compressed_shards_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tar_info("1_fake/a.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
    with pytest.raises(UserError, match=r"a\.tar: 1_fake/a\.png: a link"):
        load(str(tmp_path))
    os.remove(tmp_path / "a.tar")
    pack_files(tmp_path / "a.tar.gz", {"1_fake/a.png": IMAGES[0]})
    with pytest.raises(UserError, match=r"a\.tar\.gz: is compressed"):
        load(str(tmp_path))


def test_a_damaged_shard_is_refused_and_a_damaged_image_named(tmp_path: Path) -> None:
    shard = pack_files(tmp_path / "a.tar", {f"1_fake/{n}.png": IMAGES[n] for n in range(6)})
    whole = shard.read_bytes()
    manifest = load(str(shard))
    first, third = (member_of(manifest.table["path"].iloc[row]) for row in (0, 2))
    assert first is not None
    assert third is not None
    shard.write_bytes(whole[: third.start - 512] + b"\xff" * 512 + whole[third.start :])
    with pytest.raises(UserError, match=r"a\.tar: the archive cannot be read"):
        load(str(shard))
    shard.write_bytes(whole[: first.start] + bytes(100) + whole[first.start + 100 :])
    errors = index(load(str(shard))).table["error"].tolist()
    assert [bool(error) for error in errors] == [True] + [False] * 5
    shard.write_bytes(whole[: third.start + 5])
    assert index(manifest).table["error"].tolist()[2:] == ["the shard ends within it"] * 4


def test_a_changed_shard_is_read_again(tmp_path: Path) -> None:
    shard = pack_files(tmp_path / "a.tar", {"1_fake/0.png": IMAGES[0]})
    before = index(load(str(shard))).table["sha256"].iloc[0]
    pack_files(shard, {"1_fake/0.png": IMAGES[1][: len(IMAGES[0])].ljust(len(IMAGES[0]), b"\0")})
    os.utime(shard, ns=(1, 1))
    assert index(load(str(shard))).table["sha256"].iloc[0] != before


def test_members_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    for size, reason in ((MAX_BYTES + 1, "more than the limit"), (10, "ends within it")):
        with pytest.raises(BadImage, match=reason):
            read_content(f"{tmp_path}/a.tar#0+{size}/a.png")


def test_a_file_that_looks_almost_like_a_member_is_a_file() -> None:
    for path in ("a.tar#1/x.png", "a.tgz#1+2/x.png", "a#1+2/x.png", "a.tar#1+2"):
        assert member_of(path) is None
    assert member_of("s3://b/a.b.tar#1+2/c.tar#3+4/x.png") == ("s3://b/a.b.tar", 1, 2)
    assert located("/root", "s3://b/x.png") == "s3://b/x.png"


# --- Parquet


@pytest.mark.parametrize("compression", ["snappy", "none", "zstd"])
def test_parquet_as_openfake_has_it(tmp_path: Path, compression: str) -> None:
    open_fake(tmp_path / "d" / "train-00000-of-00002.parquet", compression=compression)
    open_fake(tmp_path / "d" / "test-00000-of-00001.parquet")
    manifest = load(str(tmp_path / "d"))
    assert contents(manifest) == IMAGES * 2
    assert contents(manifest)[::-1] == (IMAGES * 2)[::-1]
    assert list(manifest.table["split"]) == ["test"] * 6 + ["train"] * 6
    assert list(manifest.table["label"]) == [1, 0] * 6
    assert list(manifest.table["generator"]) == ["flux", ""] * 6
    assert manifest.table["path"].iloc[3] == "test-00000-of-00001.parquet#1+1/3.png"
    indexed = index(manifest)
    assert list(indexed.table["bytes"]) == [len(image) for image in IMAGES * 2]
    assert set(indexed.table["error"]) == {""}


def test_parquet_as_community_forensics_has_it(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image_name": [f"{n}.png" for n in range(4)],
            "image_data": IMAGES[:4],
            "model_name": ["sd", "sd", "", None],
            "label": [1, 1, 0, 0],
        }
    )
    pq.write_table(table, tmp_path / "Systematic.parquet")
    manifest = load(str(tmp_path / "Systematic.parquet"))
    assert contents(manifest) == IMAGES[:4]
    assert list(manifest.table["generator"]) == ["sd", "sd", "", ""]
    assert list(manifest.table["label"]) == [1, 1, 0, 0]


def test_the_file_name_in_a_struct_may_be_a_large_string(tmp_path: Path) -> None:
    path = open_fake(tmp_path / "a.parquet")
    table = pq.read_table(path)
    names = pa.array([f"{n}.png" for n in range(6)], pa.large_string())
    image = pc.make_struct(
        pc.struct_field(table["image"], "bytes"), names, field_names=["bytes", "path"]
    )
    at = table.schema.get_field_index("image")
    pq.write_table(table.set_column(at, "image", image), path)
    assert [p.rpartition("/")[2] for p in load(str(path)).table["path"]] == names.to_pylist()


def test_the_names_of_class_labels_count_and_not_their_numbers(tmp_path: Path) -> None:
    path = open_fake(tmp_path / "a.parquet", label=[0, 1, 0, 1, 0, 1])
    table = pq.read_table(path)
    features = {"label": {"names": ["fake", "real"], "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(meta), path)
    assert list(load(str(path)).table["label"]) == [1, 0] * 3


def test_a_parquet_manifest_is_no_shard(tmp_path: Path) -> None:
    sample = load("sample")
    write(sample, tmp_path / "m.parquet")
    assert load(str(tmp_path / "m.parquet")).table["path"].equals(sample.table["path"])


def test_a_row_without_an_image_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"image": [{"bytes": None, "path": "x.png"}], "label": ["fake"]})
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
    pq.write_table(table.set_column(0, "image", table["image"].cast(schema.field(0).type)), path)
    assert list(index(load(str(path))).table["error"]) == ["the row holds no bytes of an image"]
    open_fake(path, compression="none", use_dictionary=False)
    manifest = load(str(path))
    assert contents(manifest) == IMAGES, "the file has changed"
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 20 + data[24:])  # the header of the first page
    os.utime(path, ns=(5, 5))
    assert all(index(manifest).table["error"].iloc[:2])
    path.write_bytes(data[:-40])
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read as a manifest: .*corrupted"):
        load(str(path))


def test_row_groups_beyond_the_room_are_removed_and_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load(str(open_fake(tmp_path / "a.parquet", rows=12)))
    room = 3 * sum(map(len, IMAGES[:2]))

    def small_disk(folder: object) -> os.statvfs_result:
        taken = sum(file.stat().st_size for file in Path(str(folder)).iterdir())
        return os.statvfs_result((1, 1, 0, 0, 2 * room - taken, 0, 0, 0, 0, 255))

    monkeypatch.setattr(row_groups.os, "statvfs", small_disk)
    order = np.random.default_rng(0).permutation(12)
    files = manifest.files()
    for row in order:
        assert read_content(files[row]) == IMAGES[row % 6]
        kept = [f.stat().st_size for f in (tmp_path / "cache/row_groups").iterdir()]
        assert sum(kept) <= room


def test_room_is_made_beside_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has removed a row group meanwhile, and another one is writing one."""
    removed, writing = tmp_path / "a-0", tmp_path / ".b-0.123.tmp"
    removed.write_bytes(b"a")
    writing.write_bytes(b"b")
    entries = list(os.scandir(tmp_path))
    removed.unlink()
    monkeypatch.setattr(row_groups.os, "scandir", lambda folder: entries)
    full = os.statvfs_result((1, 1, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(row_groups.os, "statvfs", lambda folder: full)
    row_groups._make_room(tmp_path, 100)
    assert writing.read_bytes() == b"b"


def test_row_groups_of_too_many_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load(str(open_fake(tmp_path / "a.parquet")))
    monkeypatch.setattr(row_groups, "MAX_GROUP_BYTES", 1000)
    assert "at most 1,000" in index(manifest).table["error"].iloc[0]


# --- packing


def test_packed_images_are_those_of_the_manifest(tmp_path: Path, small_manifest: Path) -> None:
    given = index(load(str(small_manifest)))
    packed = pack(given, str(tmp_path / "out"), shard_bytes=200_000)
    names = sorted(os.listdir(tmp_path / "out"))
    assert names[-1] == "val-000002.tar"
    assert len(names) > 5
    again = load(str(tmp_path / "out"))
    assert again.digest() == given.digest()
    assert contents(again) == contents(packed)
    for split in given.splits:
        before, after = given.split(split).table, again.split(split).table
        assert list(before["sha256"]) == list(after["sha256"])
        stems = [[os.path.basename(path) for path in t["path"]] for t in (before, after)]
        assert stems[0] == stems[1]
    known = index(again, progress=lambda *_: pytest.fail("an image was read again"))
    assert known.digest() == given.digest()
    os.remove(tmp_path / "out" / "manifest.parquet")
    assert index(load(str(tmp_path / "out"))).digest() == given.digest()


def test_packing_twice_gives_the_same_bytes(tmp_path: Path, small_manifest: Path) -> None:
    given = index(load(str(small_manifest)))
    for name in ("a", "b"):
        pack(given, str(tmp_path / name), shard_bytes=10**6)
    for shard in tmp_path.glob("a/*.tar"):
        assert shard.read_bytes() == (tmp_path / "b" / shard.name).read_bytes()


def test_a_folder_that_is_in_use_or_lists_not_all_is_refused(tmp_path: Path) -> None:
    given = index(load(str(pack_files(tmp_path / "a.tar", {"1_fake/0.png": IMAGES[0]}))))
    pack(given, str(tmp_path / "out"), shard_bytes=1)
    with pytest.raises(UserError, match="is not empty"):
        pack(given, str(tmp_path / "out"), shard_bytes=1)
    pack_files(tmp_path / "out" / "more.tar", {"1_fake/1.png": IMAGES[1]})
    with pytest.raises(UserError, match=r"manifest\.parquet: does not list .*more\.tar"):
        load(str(tmp_path / "out"))


def test_the_manifest_of_shards_can_be_anywhere(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    pack_files(tmp_path / "s" / "a.tar", {"1_fake/0.png": IMAGES[0]})
    manifest = load(str(tmp_path / "s"))
    paths = pd.DataFrame({"path": manifest.files(), "label": 1})
    paths.to_csv(tmp_path / "m.csv", index=False)
    assert contents(load(str(tmp_path / "m.csv"))) == IMAGES[:1]
    images = unlabelled(str(tmp_path / "m.csv"))
    assert images.read(0) == IMAGES[0]


def test_shards_without_labels_can_be_scored(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    pack_files(tmp_path / "t" / "a.tar", {"x/1.png": IMAGES[0], "x/2.png": IMAGES[1]})
    images = unlabelled(str(tmp_path / "t"))
    assert [images.read(row) for row in range(len(images))] == IMAGES[:2]
    assert images.name(1).endswith("/x/2.png")
    parquet = open_fake(tmp_path / "p.parquet")
    images = unlabelled(str(parquet))
    assert [images.read(row) for row in range(6)] == IMAGES
