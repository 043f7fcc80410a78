"""A trained detector: weights and card in one safetensors file."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.special import expit
from torch import nn

from synthdetect.detectors.card import TORCH, Card, read_card
from synthdetect.images.views import MeanOverViews
from synthdetect.models.networks import AllOutputs, Network, build
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.system.arrays import FloatArray
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically


class Detector:
    """A network in evaluation mode with its card."""

    def __init__(self, network: nn.Module, card: Card) -> None:
        self.network = network.eval().to(memory_format=torch.channels_last)
        self.card = card
        self.preprocess = card.preprocess

    @property
    def scorer(self) -> nn.Module:
        """The network under the views of the card; its logits are those that the card decides on.

        It shares the network's weights.
        """
        return MeanOverViews(self.network, self.card.views)

    @property
    def full_scorer(self) -> nn.Module:
        """As `scorer`, but it returns the logits of generators, if there are any, behind the logit.

        Its outputs have the shape (images, 1 + generators), or (images,) without attribution.
        """
        if self.card.attribution is None:
            return self.scorer
        assert isinstance(self.network, Network)
        return MeanOverViews(AllOutputs(self.network), self.card.views)

    def with_card(self, **changes: Any) -> "Detector":
        """Return the detector with other values of some fields of its card."""
        return Detector(self.network, replace(self.card, **changes))

    def calibrated(self, logits: npt.ArrayLike) -> FloatArray:
        """Return calibrated logits for those of the scorer."""
        return self.card.decision.calibration(logits)

    def score(self, squares: npt.NDArray[np.uint8]) -> FloatArray:
        """Return the probability that each preprocessed image is synthetic.

        Args:
            squares: As for `outputs`.

        Returns:
            The probabilities, of shape (images,).
        """
        return np.asarray(expit(self.calibrated(self.outputs(squares)[:, 0])))

    def outputs(self, squares: npt.NDArray[np.uint8]) -> FloatArray:
        """Return the uncalibrated logit of each preprocessed image, and the logits of generators.

        Args:
            squares: Images as `preprocess` makes them, of shape (images, image_size, image_size,
                3).

        Returns:
            The outputs, of shape (images, 1 + generators).
        """
        # torch warns of an array that cannot be written to, as Pillow makes it; no other is copied.
        writable = np.require(squares, requirements="W")
        with torch.inference_mode():
            outputs = self.full_scorer(torch.from_numpy(writable).permute(0, 3, 1, 2))
        found: FloatArray = outputs.double().numpy()
        return found.reshape(len(squares), self.width)

    @property
    def width(self) -> int:
        """Number of outputs of an image: the logit, and those of the generators."""
        return 1 + len(self.card.model.generators)

    def save(self, path: Path) -> Card:
        """Write the detector to one `.safetensors` file and return the card as written."""
        tensors = tensors_of(self.network)
        card = replace(self.card, weights_sha256=digest_of(tensors))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(path) as temporary:
            save_file(tensors, temporary, metadata={"card": json.dumps(asdict(card))})
        return card

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a detector. Nothing in the file can execute, and its hash is checked.

        Raises:
            UserError: If the file is absent, damaged, changed since it was written, of another
                format, or no detector.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["card"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: not a detector, or a damaged one: {error}") from error
        card = read_card(header, path)
        if card.engine != TORCH:
            raise UserError(f"{path}: its card is of a detector exported to {card.engine}.")
        if digest_of(tensors) != card.weights_sha256:
            raise UserError(f"{path}: the weights are not those the card was written for.")
        network = build(card.model)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            reason = shorten(str(error), 300)
            raise UserError(f"{path}: the weights do not fit {card.model}: {reason}") from error
        return cls(network, card)
