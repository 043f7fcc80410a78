"""Target images: from folders, archives or splits, readable, and not in train or val."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.datasets.prepare import Prepared
from synthdetect.datasets.target import Target, load_target
from synthdetect.images.geometry import Preprocess
from synthdetect.system.errors import UserError


@pytest.fixture
def manifest(small_manifest: Path) -> Manifest:
    return index(load(str(small_manifest)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of four images of noise."""
    folder = tmp_path / "field"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def zipped(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for image in sorted(folder.iterdir()):
            file.write(image, image.name)
    return archive


def copy(manifest: Manifest, split: str, folder: Path) -> None:
    path = manifest.split(split).table["path"].iloc[0]
    shutil.copy(manifest.file(path), folder / f"{split}.jpg")


def load_images(target: Path | str, manifest: Manifest, on_bad_image: str = "stop") -> Target:
    return load_target(str(target), manifest, on_bad_image=on_bad_image)


def refusal(target: Path | str, manifest: Manifest, on_bad_image: str = "stop") -> str:
    with pytest.raises(UserError) as caught:
        load_images(target, manifest, on_bad_image)
    assert "--target" in str(caught.value)
    return str(caught.value)


def test_a_folder_and_an_archive_of_it_are_the_same_target(
    folder: Path, manifest: Manifest
) -> None:
    calls: list[tuple[int, int]] = []
    found = load_target(str(folder), manifest, on_bad_image="stop",
                        progress=lambda done, total: calls.append((done, total)))  # fmt: skip
    packed = load_images(zipped(folder), manifest)
    assert [found.images.name(row) for row in range(4)] == ["0.png", "1.png", "2.png", "3.png"]
    assert (found.digest(), found.hashes) == (packed.digest(), packed.hashes)
    assert (found.splits, len(found.excluded)) == ((), 0)
    assert calls[-1] == (4, 4)


def test_a_split_of_the_data_can_be_a_target(manifest: Manifest) -> None:
    found = load_images("split:test", manifest)
    table = manifest.split("test").table
    assert found.hashes == tuple(table["sha256"])
    assert found.splits == ("test",)
    images = found.images.seen_by(Preprocess(32, "resize"))
    row, square, _ = images[0, len(table) - 1]
    assert (row, np.shape(square)) == (len(table) - 1, (32, 32, 3))


def test_copies_of_test_images_are_recognised_by_their_content(
    folder: Path, manifest: Manifest
) -> None:
    copy(manifest, "test", folder)
    copy(manifest, "control", folder)
    assert load_images(folder, manifest).splits == ("test", "control")


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_of_train_and_val_are_refused(split: str, folder: Path, manifest: Manifest) -> None:
    assert f"images of {split}" in refusal(f"split:{split}", manifest)
    copy(manifest, split, folder)
    assert f"images of {split}" in refusal(folder, manifest)
    assert "images of train and val" in refusal("sample", index(load("sample")))


def test_an_unreadable_image_is_refused_or_excluded_and_listed(
    folder: Path, manifest: Manifest
) -> None:
    whole = load_images(folder, manifest)
    (folder / "1a.png").write_bytes(b"no image")
    (folder / "1b.jpg").symlink_to(folder / "absent.jpg")
    message = refusal(folder, manifest)
    assert "2 of 6 images" in message
    assert "'1a.png'" in message
    assert "--on-bad-image exclude" in message
    found = load_images(folder, manifest, "exclude")
    assert found.hashes == whole.hashes
    assert found.excluded["path"].tolist() == ["1a.png", "1b.jpg"]
    assert (found.excluded["error"] != "").all()
    images, alone = (t.images.seen_by(Preprocess(16, "resize")) for t in (found, whole))
    for row in range(4):
        assert images.name(row) == alone.name(row)
        assert np.array_equal(np.asarray(images[0, row][1]), np.asarray(alone[0, row][1]))


def test_the_digest_depends_on_contents_and_order(folder: Path, manifest: Manifest) -> None:
    before = load_images(folder, manifest).digest()
    (folder / "3.png").rename(folder / "a.png")
    assert load_images(folder, manifest).digest() == before
    (folder / "a.png").rename(folder / "00.png")
    assert load_images(folder, manifest).digest() != before
    shutil.copy(folder / "0.png", folder / "1.png")
    assert load_images(folder, manifest).digest() != before


def test_other_targets_are_refused(folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    assert "has test, control" in refusal("split:tests", manifest)
    assert "neither" in refusal(tmp_path / "nowhere", manifest)
    for image in sorted(folder.iterdir())[1:]:
        image.unlink()
    assert "fewer than two" in refusal(folder, manifest)


def test_a_target_changes_the_digest_of_prepared_data(folder: Path, manifest: Manifest) -> None:
    plain = Prepared(manifest, pd.DataFrame({"path": ["x"], "error": ["bad"]}), frozenset(), ())
    (folder / "bad.png").write_bytes(b"")
    adapted = plain.with_target(load_images(folder, manifest, "exclude"))
    assert plain.digest() == manifest.digest()
    assert adapted.digest() != plain.digest()
    assert adapted.excluded["path"].tolist() == ["x", "bad.png"]
