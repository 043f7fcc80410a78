"""Parts of a prediction and their merge, and scoring by Ray: the same rows, to the last byte."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthdetect import cli
from synthdetect.runs import prediction_tables
from synthdetect.runs.shard import Shard
from synthdetect.system.errors import UserError
from tests.conftest import ROOT
from tests.images.videos import write_video
from tests.runs.test_prediction import Saved, picture, save

PARTS = 3
IMAGES = 13


@pytest.fixture(scope="module")
def workspace(module_path: Path) -> Iterator[Path]:
    """A folder with a store, two detectors, and thirteen images, one of which is unreadable."""
    before, here = mlflow.get_tracking_uri(), Path.cwd()
    mlflow.set_tracking_uri(f"sqlite:///{module_path}/mlflow.db")
    os.chdir(module_path)
    (module_path / "images").mkdir()
    for number in range(IMAGES):
        (module_path / "images" / f"{number}.png").write_bytes(picture(number))
    (module_path / "images" / "4.png").write_text("no image")
    yield module_path
    os.chdir(here)
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def models(workspace: Path) -> list[Saved]:
    """Two that see images differently, so that there are two passes."""
    return [
        save(workspace / f"{n}.safetensors", n, geometry=geometry, unsure=0.02)
        for n, geometry in enumerate(("resize", "center_crop"))
    ]


def arguments(models: list[Saved], data: Path, output: Path, **options: str) -> list[str]:
    given = {"model": ",".join(model.path for model in models), "data": str(data),
             "output": str(output), "workers": "0", "batch_size": "2", **options}  # fmt: skip
    return ["predict", *(f"--{name}={value}" for name, value in given.items())]


def predict(*given: Any, **options: str) -> int:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return cli.main(arguments(*given, **options))
    finally:
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def whole(workspace: Path, models: list[Saved]) -> Path:
    """The prediction without parts."""
    assert predict(models, workspace / "images", workspace / "whole") == 0
    return workspace / "whole"


@pytest.fixture(scope="module")
def parts(workspace: Path, models: list[Saved]) -> list[Path]:
    folders = [workspace / f"part{n}" for n in range(1, PARTS + 1)]
    for number, folder in enumerate(folders, 1):
        assert predict(models, workspace / "images", folder, shard=f"{number}/{PARTS}") == 0
    return folders


Merge = Callable[..., tuple[int, str]]


@pytest.fixture
def merge(workspace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Merge:
    def call(*files: Path, data: Path = workspace / "images") -> tuple[int, str]:
        names = [str(file) for file in files]
        capfd.readouterr()
        status = cli.main(["merge-predictions", *names, "--data", str(data),
                           "-o", str(tmp_path / "merged")])  # fmt: skip
        out, err = capfd.readouterr()
        return status, out + err

    return call


def same_tables(one: Path, other: Path) -> bool:
    names = ("predictions.csv", "predictions.parquet", "unreadable.csv")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


# --- the rule


@pytest.mark.parametrize(("images", "batch", "of"), [(13, 2, 3), (7, 7, 1), (100, 1, 7), (9, 2, 5)])
def test_the_parts_are_whole_batches_and_every_image_once(images: int, batch: int, of: int) -> None:
    parts = [Shard(number, of).rows(images, batch) for number in range(1, of + 1)]
    assert [row for part in parts for row in part] == list(range(images))
    assert all(part.start % batch == 0 and len(part) for part in parts)
    sizes = [-(-len(part) // batch) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "3/", "a/b", "-1/3", "1/0", "01/3", "1/3/5"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no part such as 3/16"):
        Shard.parse(text)


def test_more_parts_than_batches_are_refused() -> None:
    with pytest.raises(UserError, match=r"--shard 1/8: 13 images make 7 batches of 2.*at most 7"):
        Shard(1, 8).rows(13, 2)


# --- the merge


def test_the_merged_parts_are_the_prediction_to_the_last_byte(
    merge: Merge, whole: Path, parts: list[Path], tmp_path: Path
) -> None:
    assert [len(pd.read_csv(part / "predictions.csv")) for part in parts] == [4, 4, 5]
    status, text = merge(parts[2], parts[0] / "predictions.parquet", parts[1])
    assert status == 0, text
    assert "3 part(s): 13 images, each exactly once" in text
    assert "1 unreadable" in text
    assert same_tables(tmp_path / "merged", whole)
    assert merge(whole)[0] == 0
    assert same_tables(tmp_path / "merged", whole)


def test_groups_of_rows_do_not_depend_on_the_parts(
    merge: Merge, workspace: Path, models: list[Saved], parts: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also where the end of a group is within a part."""
    monkeypatch.setattr(prediction_tables, "GROUP", 5)
    assert predict(models, workspace / "images", tmp_path / "whole") == 0
    assert merge(*parts)[0] == 0
    assert pq.ParquetFile(tmp_path / "merged" / "predictions.parquet").num_row_groups == 3
    assert same_tables(tmp_path / "merged", tmp_path / "whole")


def test_missing_and_repeated_parts_are_named(
    merge: Merge, parts: list[Path], tmp_path: Path
) -> None:
    status, text = merge(parts[1])
    assert status == 2
    assert "of 3 parts, these are missing: 1, 3" in text
    status, text = merge(parts[0], parts[1], parts[1])
    assert status == 2
    assert "part 2/3 is given 2 times" in text
    assert "these are missing: 3" in text
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "0.3"}, "another models"),
        ({"ensemble": "vote"}, "another ensemble"),
        ({"batch_size": "3"}, "another batch_size"),
        ({"metadata": "false"}, "another metadata"),
        ({"views": "flip", "threshold": "0.5"}, "views 'flip' instead of 'single'"),
        ({"shard": "2/4"}, "different divisions"),
    ],
)
def test_parts_of_different_predictions_are_refused(
    merge: Merge, workspace: Path, models: list[Saved], parts: list[Path], tmp_path: Path,
    options: dict[str, str], message: str,
) -> None:  # fmt: skip
    given = {"shard": "2/3", **options}
    assert predict(models, workspace / "images", tmp_path / "other", **given) == 0
    status, text = merge(parts[0], tmp_path / "other", parts[2])
    assert status == 2
    assert message in text
    assert str(tmp_path / "other") in text


def test_another_detector_and_other_images_are_refused(
    merge: Merge, workspace: Path, models: list[Saved], parts: list[Path], tmp_path: Path
) -> None:
    other = save(tmp_path / "other.safetensors", 7, geometry="center_crop", unsure=0.02)
    assert predict([models[0], other], workspace / "images", tmp_path / "p", shard="2/3") == 0
    assert "model 2 has card_sha256" in merge(parts[0], tmp_path / "p", parts[2])[1]
    shutil.copytree(workspace / "images", tmp_path / "more")
    (tmp_path / "more" / "0.png").rename(tmp_path / "more" / "00.png")
    status, text = merge(*parts, data=tmp_path / "more")
    assert status == 2
    assert "has other names of images" in text
    (tmp_path / "more" / "extra.png").write_bytes(picture(1))
    assert "has 14 images, and 13 were predicted" in merge(*parts, data=tmp_path / "more")[1]


def test_damaged_parts_are_refused(merge: Merge, parts: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "part.parquet"
    content = (parts[1] / "predictions.parquet").read_bytes()
    table = pq.read_table(parts[1] / "predictions.parquet")
    renamed = table.set_column(0, "image", pa.array(["x"] * len(table), pa.large_string()))
    for damage, message in (
        (lambda: file.write_bytes(content[:-20]), "cannot be read as a part"),
        (lambda: pq.write_table(table.replace_schema_metadata({}), file), "does not say"),
        (lambda: pq.write_table(table.slice(1), file), "has 4 images, and the file 3 rows"),
        (lambda: pq.write_table(renamed, file), "has 'x' where the images have"),
        (file.unlink, "cannot be read as a part"),
    ):
        damage()
        status, text = merge(parts[0], file, parts[2])
        assert status == 2
        assert message in text
        assert str(file) in text
        assert not (tmp_path / "merged" / "predictions.csv").exists()


def test_a_video_that_two_parts_share_gets_its_verdict_in_the_merge(
    merge: Merge, models: list[Saved], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(picture(0))
    write_video(data / "b.mp4", frames=24)
    given = {"frames": "5"}
    assert predict(models, data, tmp_path / "whole", **given) == 0
    for number in (1, 2):
        folder = tmp_path / str(number)
        assert predict(models, data, folder, shard=f"{number}/2", **given) == 0
        assert not (folder / "clips.csv").exists()
    assert merge(tmp_path / "1", tmp_path / "2", data=data)[0] == 0
    clips = [(tmp_path / name / "clips.csv").read_text() for name in ("whole", "merged")]
    assert clips[0] == clips[1]


def test_a_submission_cannot_be_of_a_part(
    workspace: Path, models: list[Saved], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = {"shard": "1/2", "submission": "open", "team": "me"}
    assert predict(models, workspace / "images", tmp_path / "out", **given) == 2
    assert "leave out --shard" in capfd.readouterr().err


# --- Ray


def kept(folder: Path) -> int:
    """Return the bytes of what is scored and not yet written as tables."""
    return sum(journal.stat().st_size for journal in folder.glob(".partial-*.csv"))


@pytest.mark.long
def test_ray_gives_the_same_rows_and_goes_on_after_a_kill(
    workspace: Path, models: list[Saved], whole: Path, tmp_path: Path
) -> None:
    """A process is killed once it has scored something, and the same command does the rest.

    An interrupted one stops Ray before it ends.
    """
    out = tmp_path / "out"
    given = arguments(models, workspace / "images", out, engine="ray", workers="1")
    command = [sys.executable, "-m", "synthdetect", *given]
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:  # a short path, for Ray's sockets
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                       "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
                       "TMPDIR": temporary}  # fmt: skip
        for number, status in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            before = kept(out)
            while process.poll() is None and kept(out) == before:
                time.sleep(0.01)
            process.send_signal(number)
            _, error = process.communicate()
            assert process.returncode == status, error
            if number == signal.SIGTERM:
                assert not list(Path(temporary).glob("ray-*"))
        again = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300
        )
    assert again.returncode == 0, again.stderr
    assert "resuming after" in again.stdout
    assert same_tables(out, whole)
    assert not list(out.glob(".*"))


def test_ray_refuses_other_devices_than_cores(
    workspace: Path, models: list[Saved], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = {"engine": "ray", "device": "cuda"}
    assert predict(models, workspace / "images", tmp_path / "out", **given) == 2
    assert "--engine ray: scores on CPU cores" in capfd.readouterr().err


def test_a_cluster_of_ray_that_is_not_there_is_named(
    workspace: Path, models: list[Saved], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert predict(models, workspace / "images", tmp_path / "out", engine="ray") == 2
    assert f"RAY_ADDRESS {address}: [Errno 111] Connection refused. Give" in capfd.readouterr().err


def test_ray_is_an_extra(
    workspace: Path, models: list[Saved], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("synthdetect.system.extras.find_spec", lambda name: None)
    assert predict(models, workspace / "images", tmp_path / "out", engine="ray") == 2
    assert 'pip install "synthdetect[scale]"' in capfd.readouterr().err
