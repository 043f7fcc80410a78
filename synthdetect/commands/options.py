"""The options of small commands that no other package owns."""

from typing import Annotated

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Options, required
from synthdetect.config.registry import one_of

LISTS = (
    "architectures",
    "front_ends",
    "recipes",
    "geometries",
    "layouts",
    "perturbations",
    "metrics",
    "losses",
    "optimizers",
    "schedules",
    "mixing",
    "adaptations",
    "attacks",
    "calibrations",
    "threshold_rules",
    "ensembles",
)
"""What `synthdetect list` can show."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ManifestOptions(Options):
    """Write the manifest of a folder: label, split, generator, hash and format of each image."""

    folder: str = required("A folder in a known layout, a manifest, or 'sample'.")
    output: str = required("The manifest to write: .csv or .parquet.")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ListOptions(Options):
    """List the names that options accept."""

    what: Annotated[str, one_of(*LISTS)] = required(f"One of: {', '.join(LISTS)}.")


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class PromoteOptions(Options):
    """Give the alias `champion` to a version of a registered model."""

    name: str = required("The registered model.")
    version: str = required("The version to promote.")
