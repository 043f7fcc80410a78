"""Videos for tests, made here: a brightness that rises with the time."""

from pathlib import Path

import numpy as np


def write_video(
    file: Path, *, frames: int = 24, size: tuple[int, int] = (64, 48), rate: int = 8
) -> Path:
    """Write a video whose frame `n` has the grey value `8 * n`; `.webm` is encoded as VP9."""
    import av

    codec = "libvpx-vp9" if file.suffix == ".webm" else "mpeg4"
    with av.open(str(file), "w") as container:
        options = {} if codec.startswith("lib") else {"sc_threshold": "1000000000"}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = size
        stream.codec_context.gop_size = frames  # one key frame
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 8 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file
