"""What it takes to build a network: the model specification, which travels with the weights."""

from dataclasses import dataclass

from synthdetect.config.registry import Entry
from synthdetect.models.architectures import ARCHITECTURES, Architecture
from synthdetect.models.timm_models import TIMM, described

FRONT_ENDS: dict[str, Entry] = {
    "rgb": Entry("synthdetect.models.front_ends:Rgb", "The normalised RGB image."),
    "npr": Entry(
        "synthdetect.models.front_ends:Npr",
        "The residual of neighbouring pixels (Tan et al. 2024), without the image's content.",
    ),
    "rgb+npr": Entry(
        "synthdetect.models.front_ends:RgbNpr",
        "The channels of rgb and of npr, joined before the backbone.",
    ),
    "highpass": Entry(
        "synthdetect.models.front_ends:HighPass",
        "Three high-pass residuals of each colour channel (Fridrich and Kodovsky 2012).",
    ),
    "wavelet": Entry(
        "synthdetect.models.front_ends:Wavelet",
        "The detail bands of the undecimated Haar transform of each colour channel.",
    ),
    "dct": Entry(
        "synthdetect.models.front_ends:Dct",
        "Log-magnitudes of the DCT of blocks of 8 by 8 pixels, at a quarter of the resolution.",
    ),
    "fft": Entry(
        "synthdetect.models.front_ends:Fft",
        "The log-magnitude spectrum of the whole square.",
    ),
}
"""What the backbone sees of an image, by name."""

WHOLE_NETWORK = "none"
"""The value of the option `probe` under which the whole network learns."""

PROBES: dict[str, Entry] = {
    "linear": Entry(
        "synthdetect.models.probes:LinearProbe", "Logistic regression on standardised features."
    ),
    "knn": Entry(
        "synthdetect.models.probes:NeighbourProbe",
        "Weighted votes of the nearest training images by cosine similarity (Wu et al. 2018).",
    ),
    "mlp": Entry(
        "synthdetect.models.probes:MlpProbe",
        "One hidden layer with ReLU and dropout on standardised features.",
    ),
}
"""What is trained on the features of a frozen backbone, in place of its last layer, by name."""


def is_architecture(name: str) -> bool:
    """Return whether a name is in `ARCHITECTURES`, or is `timm:NAME` of a model of timm.

    Raises:
        UserError: If it begins with `timm:`, and timm has no such model or is not installed.
    """
    return name in ARCHITECTURES or (name.startswith(TIMM) and bool(described(name)))


def architecture(name: str) -> Architecture:
    """Return an architecture by a name for which `is_architecture` is true."""
    return described(name) if name.startswith(TIMM) else ARCHITECTURES[name]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that a network is built from.

    It is part of a detector's card and of every checkpoint, so that training, export, serving and
    reproduction build the same network.

    Attributes:
        arch: A name of `ARCHITECTURES`, or `timm:NAME`.
        image_size: Side of the square that the network sees, in pixels.
        front_end: A name of `FRONT_ENDS`.
        mean: Mean of each RGB channel, from 0 to 1, that the normalisation subtracts.
        std: Standard deviation of each channel that it divides by.
        generators: The generators, by name, to which the network attributes images; none for a
            network that only tells synthetic images from real ones.
        probe: What takes the place of the last layer of a frozen backbone: a name of `PROBES`, or
            `WHOLE_NETWORK`.
        neighbours: Nearest training images that vote in the probe knn.
        hidden: Hidden units of the probe mlp.
    """

    arch: str
    image_size: int
    front_end: str = "rgb"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    generators: tuple[str, ...] = ()
    probe: str = WHOLE_NETWORK
    neighbours: int = 20
    hidden: int = 256

    @property
    def frozen(self) -> bool:
        """Whether the backbone is frozen, and a probe learns alone."""
        return self.probe != WHOLE_NETWORK

    @classmethod
    def of(cls, arch: str, image_size: int, front_end: str = "rgb") -> "ModelSpec":
        """Return the specification of an architecture with its own normalisation."""
        entry = architecture(arch)
        return cls(
            arch=arch,
            image_size=image_size,
            front_end=front_end,
            mean=entry.mean,
            std=entry.std,
        )
