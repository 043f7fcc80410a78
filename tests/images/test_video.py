"""Frames of videos that are made in the test, and what hostile files do."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from synthdetect.images import video as module
from synthdetect.images.reading import BadImage, read_image
from synthdetect.images.video import frame_times, is_video, read_frame
from tests.images.videos import write_video


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_frames_are_evenly_spaced_and_those_asked_for(tmp_path: Path, suffix: str) -> None:
    file = write_video(tmp_path / f"clip{suffix}")  # 24 frames in 3 s
    times = frame_times(file, 4)
    assert times == pytest.approx([0.375, 1.125, 1.875, 2.625], abs=0.1)
    for seconds in times:
        image = read_image(read_frame(file, seconds))
        assert image.size == (64, 48)
        assert np.asarray(image).mean() == pytest.approx(64 * seconds, abs=14)


def test_a_time_after_the_end_gives_the_last_frame(tmp_path: Path) -> None:
    file = write_video(tmp_path / "clip.mp4")
    assert np.asarray(read_image(read_frame(file, 99.0))).mean() > 150


def test_a_clip_as_short_as_a_frame_has_one_time(tmp_path: Path) -> None:
    times = frame_times(write_video(tmp_path / "clip.mp4", frames=1), 300)
    assert len(times) == len(set(times)) <= 126  # an eighth of a second, in thousandths


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\0\0\0\x18ftypmp42" + b"\0" * 100,
        b"\x1a\x45\xdf\xa3" + b"\xff" * 100,
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    with pytest.raises(BadImage):
        frame_times(file, 2)


def test_a_damaged_video_is_refused_or_gives_a_frame(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    file, rng = tmp_path / "clip.mp4", np.random.default_rng(0)
    for length in np.linspace(20, len(whole) - 1, 8, dtype=int):
        damaged = bytearray(whole[:length])
        for place in rng.integers(0, length, 5):
            damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        with suppress(BadImage):
            assert read_image(read_frame(file, 1.0)).size == (64, 48)


def test_limits_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_video(tmp_path / "clip.mp4")
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(BadImage, match="64x48 pixels"):
        read_frame(file, 0.0)
    monkeypatch.setattr(module, "MAX_VIDEO_BYTES", 100)
    with pytest.raises(BadImage, match="larger than the limit"):
        frame_times(file, 1)


def test_few_frames_are_decoded_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_video(tmp_path / "clip.mp4")
    monkeypatch.setattr(module, "MAX_DECODED", 2)
    early = np.asarray(read_image(read_frame(file, 2.9))).mean()
    assert (
        early < 184
    )  # the last frame; decoding ended before it was reached, if no key frame is near


def test_names() -> None:
    assert is_video("a/b.MP4")
    assert is_video("b.webm")
    assert not is_video("a/.b.mp4")
    assert not is_video("mp4")
