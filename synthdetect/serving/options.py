"""The options of `synthdetect serve`: the address and the limits on a request."""

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Affects, Options, option


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ServeOptions(Options):
    """Serve a detector by MLflow's protocol, with limits on every request."""

    model: str = option("", "A models:/ URI, a run id, or the file of a detector.", value="MODEL")
    host: str = option("127.0.0.1", "Address to listen on.", Affects.RECORD, value="ADDRESS")
    port: int = option(5000, "Port to listen on.", Affects.RECORD, ge=1, le=65535, value="PORT")
    max_mib: int = option(32, "Largest file of one image in MiB.", ge=1, le=1024, value="MIB")
    max_pixels: int = option(
        50_000_000, "Most pixels of one image.", ge=1, le=100_000_000, value="PIXELS"
    )
    max_total_pixels: int = option(
        1_000_000_000, "Most pixels of one request.", ge=1, value="PIXELS"
    )
    max_images: int = option(256, "Most images of one request.", ge=1, value="IMAGES")
    timeout: float = option(
        30.0, "Seconds within which a request must arrive.", gt=0, le=3600, value="SECONDS"
    )
    processes: int = option(
        1, "Processes that serve, each with the detector in its memory. They share the cores.",
        ge=1, le=64, value="PROCESSES",
    )  # fmt: skip
    batch_wait: float = option(
        4.0, "Milliseconds that a forward pass waits at most for the next image of clients that "
        "are asking, to score it together with those that are there.", ge=0, le=1000, value="MS",
    )  # fmt: skip
