"""Frames of untrusted video files, as images; PyAV is imported when the first video is opened.

Only MP4 and WebM (Matroska) are opened, and FFmpeg is told which of both it is: it could otherwise
take the content for a playlist, and open the files and addresses that this names.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from synthdetect.images.reading import MAX_PIXELS, BadImage

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv")
"""Suffixes of video files in lower case."""

MAX_VIDEO_BYTES = 4 * 2**30
"""Greatest size of a video file."""

MAX_DECODED = 1200
"""Most frames that are decoded to reach one: those since the key frame before it."""

MAX_PACKETS = 2_000_000
"""Most packets that are looked at to find the length of a video that does not say it."""

_FORMATS = ((b"\x1a\x45\xdf\xa3", 0, "matroska"), (b"ftyp", 4, "mp4"))


def is_video(path: str) -> bool:
    """Return whether a path has the suffix of a video and is not hidden."""
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    return name.endswith(VIDEO_SUFFIXES) and not name.startswith(".")


def frame_times(file: Path, frames: int) -> list[float]:
    """Return the times of evenly spaced frames: the middles of equal parts of a video.

    Args:
        file: The video.
        frames: How many; at least 1.

    Returns:
        Seconds from the beginning, in ascending order; fewer where a clip is as short as that.

    Raises:
        BadImage: If it is no video that can be read; the message is the reason.
    """
    with _opened(file) as (container, stream):
        seconds = _seconds(container, stream)
    return sorted({round(seconds * (number + 0.5) / frames, 3) for number in range(frames)})


def read_frame(file: Path, seconds: float) -> bytes:
    """Return the first frame at or after a time, or the last one before it, upright, as a PNG file.

    Raises:
        BadImage: If it cannot be decoded; the message is the reason.
    """
    with _opened(file) as (container, stream):
        start = stream.start_time or 0
        wanted = start + int(seconds / stream.time_base)
        container.seek(wanted, stream=stream)
        found = None
        for count, frame in enumerate(container.decode(stream)):
            found = frame
            if (frame.pts is not None and frame.pts >= wanted) or count >= MAX_DECODED:
                break
        if found is None:
            raise BadImage(f"the video has no frame at {seconds:g} s")
        if found.width * found.height > MAX_PIXELS:
            raise BadImage(f"{found.width}x{found.height} pixels are more than {MAX_PIXELS:,}")
        image: Image.Image = found.to_image()
        if rotation := getattr(found, "rotation", 0):
            image = image.rotate(rotation, expand=True)
    data = io.BytesIO()
    image.convert("RGB").save(data, "PNG", compress_level=1)
    return data.getvalue()


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and its first video stream, whose frames are not too large."""
    import av

    try:
        with file.open("rb") as content:
            if file.stat().st_size > MAX_VIDEO_BYTES:
                raise BadImage(f"the video is larger than the limit of {MAX_VIDEO_BYTES:,} bytes")
            head = content.read(12)
            known = [name for mark, at, name in _FORMATS if head[at:].startswith(mark)]
            if not known:
                raise BadImage("neither an MP4 nor a WebM video")
            content.seek(0)
            with av.open(content, format=known[0], metadata_errors="replace") as container:
                if not container.streams.video:
                    raise BadImage("the video has no pictures")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                if stream.width * stream.height > MAX_PIXELS:
                    raise BadImage(
                        f"{stream.width}x{stream.height} pixels are more than {MAX_PIXELS:,}"
                    )
                yield container, stream
    except BadImage:
        raise
    except OSError as error:  # FFmpeg's errors of damaged content are OSErrors too
        raise BadImage(error.strerror or str(error)) from error
    except Exception as error:  # PyAV raises an open set of errors
        raise BadImage(str(error) or type(error).__name__) from error


def _seconds(container: Any, stream: Any) -> float:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration) / 1_000_000  # AV_TIME_BASE
    last = 0
    for count, packet in enumerate(container.demux(stream)):
        last = max(last, packet.pts or 0)
        if count >= MAX_PACKETS:
            break
    seconds = float((last - (stream.start_time or 0)) * stream.time_base)
    if not math.isfinite(seconds) or seconds < 0:
        raise BadImage("the length of the video is not known")
    return seconds
