"""The options of small commands that no other package owns."""

from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Affects, Options, option, required
from synthdetect.config.registry import one_of
from synthdetect.tracking.options import PORT

LISTS = (
    "architectures",
    "front_ends",
    "probes",
    "recipes",
    "geometries",
    "views",
    "layouts",
    "perturbations",
    "metrics",
    "losses",
    "optimizers",
    "schedules",
    "mixing",
    "adaptations",
    "semi_supervised",
    "attacks",
    "calibrations",
    "threshold_rules",
    "ensembles",
)
"""What `synthdetect list` can show."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ManifestOptions(Options):
    """Write the manifest of a folder: label, split, generator, hash and format of each image."""

    folder: str = required(
        "A folder in a known layout, shards, their URL in a bucket, a manifest, or 'sample'.",
        value="PATH",
    )
    output: str = required("The manifest to write: .csv or .parquet.", value="FILE")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ShardOptions(Options):
    """Pack images into tar shards, with their manifest beside them, for data of very many files."""

    data: str = required(
        "What is packed: a folder in a known layout, a manifest, shards, or 'sample'.",
        Affects.PLACE,
        value="PATH",
    )
    output: str = required(
        "A new folder, or its URL in a bucket: s3://BUCKET/FOLDER.", value="PATH"
    )
    shard_mib: int = option(
        256, "Size at which a shard is full.", ge=1, le=2**20, value="MIB", common=True
    )
    on_bad_image: Literal["stop", "exclude"] = option(
        "stop", "What to do about unreadable images: stop, or exclude and list them."
    )


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ListOptions(Options):
    """List the names that options accept."""

    what: Annotated[str, one_of(*LISTS)] = required(f"One of: {', '.join(LISTS)}.")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class DoctorOptions(Options):
    """Say what this machine has, what is missing, and what will be slow.

    Exit status 0: everything that a training needs works; 2: something does not.
    """


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CompletionOptions(Options):
    """Print a script that completes commands, options and their values in a shell."""

    shell: Literal["bash", "zsh", "fish"] = required("The shell: bash, zsh or fish.")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class UiOptions(Options):
    """Open MLflow's UI on the tracking store that the commands use, where its runs are.

    If the store is no server, the UI is started on this machine, for this machine only.
    """

    run_id: str = option("", "The run to open (default: the table of an experiment's runs).")
    experiment: str = option(
        "", "Name of the experiment whose runs are listed (default: that of the newest run)."
    )
    port: int = option(PORT, "Port to listen on.", ge=1, le=65535)
    no_browser: bool = option(False, "Print the address, and open no web browser.")
