"""The options of an evaluation on perturbed and equalised images."""

from typing import ClassVar

from pydantic.dataclasses import dataclass

from synthdetect.config.options import CHECKED, Affects, Options, option


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RobustnessOptions(Options):
    """Which further versions of the images a detector is evaluated on."""

    section: ClassVar = "evaluate"

    robustness: str = option(
        "",
        "Also score perturbed images: all, some (jpeg), or some levels (jpeg:50).",
        value="NAME:LEVEL,...",
        common=True,
    )
    equalised: bool = option(
        False, "Also score the images after equalise, which gives all the same encoding."
    )
    cache_gib: float = option(
        4.0,
        "Disk space for preprocessed images of robustness and equalised, in GiB.",
        Affects.SPEED,
        ge=0,
        le=1e6,
        value="GIB",
    )
