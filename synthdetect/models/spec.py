"""What it takes to build a network: the model specification, which travels with the weights."""

from dataclasses import dataclass

from synthdetect.config.registry import Entry
from synthdetect.models.architectures import ARCHITECTURES

FRONT_ENDS: dict[str, Entry] = {
    "rgb": Entry("synthdetect.models.front_ends:Rgb", "The normalised RGB image."),
    "npr": Entry(
        "synthdetect.models.front_ends:Npr",
        "The residual of neighbouring pixels (Tan et al. 2024), without the image's content.",
    ),
}
"""What the backbone sees of an image, by name."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that a network is built from.

    It is part of a detector's card and of every checkpoint, so that training, export, serving and
    reproduction build the same network.

    Attributes:
        arch: A name of `ARCHITECTURES`.
        image_size: Side of the square that the network sees, in pixels.
        front_end: A name of `FRONT_ENDS`.
        mean: Mean of each RGB channel, from 0 to 1, that the normalisation subtracts.
        std: Standard deviation of each channel that it divides by.
    """

    arch: str
    image_size: int
    front_end: str = "rgb"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, arch: str, image_size: int, front_end: str = "rgb") -> "ModelSpec":
        """Return the specification of an architecture with its own normalisation."""
        entry = ARCHITECTURES[arch]
        return cls(
            arch=arch,
            image_size=image_size,
            front_end=front_end,
            mean=entry.mean,
            std=entry.std,
        )
