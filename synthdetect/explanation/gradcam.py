"""Where in an image a network finds what it decides by: Grad-CAM, for every architecture.

Selvaraju et al., "Grad-CAM" (ICCV 2017), as captum computes it: the maps of a late layer, weighted
by the mean gradient of the answer with respect to each, summed, and what speaks against left out.
It shows where, as coarsely as the layer sees, and never why.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from synthdetect.images.geometry import Preprocess
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.networks import Network

_BATCH = 16
"""Images at a time: the pass keeps what gradients need, as training does."""


@dataclass(frozen=True)
class Explanation:
    """Some images, as a network saw them, and what in them spoke for its answer.

    Attributes:
        rows: of the predictions table, shape (images, columns).
        squares: shape (images, size, size, 3), uint8.
        maps: shape (images, size, size), 0 to 1; see `grad_cam`.
    """

    rows: pd.DataFrame
    squares: npt.NDArray[np.uint8]
    maps: npt.NDArray[np.float32]


def explain(
    network: Network,
    arch: str,
    table: pd.DataFrame,
    positions: Sequence[int] | npt.NDArray[np.int64],
    files: Sequence[Path],
    preprocess: Preprocess,
) -> Explanation:
    """Explain some predictions, each toward what the image was called, be it right or wrong.

    Args:
        network: that made them.
        arch: its name.
        table: of predictions.
        positions: which of its rows.
        files: the image files, in the table's order.
        preprocess: how the network saw them.

    Raises:
        BadImage: an image cannot be read any more.
    """
    rows = table.iloc[positions].reset_index(drop=True)
    size = preprocess.image_size
    squares = np.empty((len(rows), size, size, 3), np.uint8)
    for square, position in zip(squares, positions, strict=True):
        square[:] = preprocess(files[position].read_bytes())
    return Explanation(rows, squares, grad_cam(network, arch, squares, toward=rows["predicted"]))


def grad_cam(
    network: Network, arch: str, squares: npt.NDArray[np.uint8], *, toward: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """What in each image speaks for an answer, in fp32 on the network's device.

    The network is left as it was: its mode, its gradients, its weights.

    Args:
        network: with one logit; toward "real" its negative is explained.
        arch: its name in `ARCHITECTURES`, which says by which layer.
        squares: preprocessed images, shape (images, height, width, 3).
        toward: the answer, 0 (real) or 1 (synthetic), of each image or of all.

    Returns:
        Shape (images, height, width), each map divided by its maximum, so that 1 is the place that
        speaks most for the answer and images cannot be compared by strength. All 0 where nothing
        speaks for it.
    """
    from captum.attr import LayerAttribution, LayerGradCam  # takes a second to import

    signs = torch.from_numpy(np.broadcast_to(toward, len(squares)) * 2.0 - 1).float()
    result = np.zeros(squares.shape[:3], np.float32)
    with _evaluating(network), _maps(network, arch) as maps:
        for begin in range(0, len(squares), _BATCH):
            part = slice(begin, begin + _BATCH)
            sign = signs[part].to(network.head.weight.device)
            images = torch.from_numpy(squares[part]).permute(0, 3, 1, 2).to(sign.device)
            cam = LayerGradCam(lambda images, sign=sign: sign * network(images), maps)
            coarse = cam.attribute(images, relu_attributions=True).detach().cpu()
            fine = LayerAttribution.interpolate(coarse, squares.shape[1:3], "bilinear")
            result[part] = fine[:, 0].numpy()
    highest = result.max(axis=(1, 2), keepdims=True, initial=0)
    np.divide(result, highest, out=result, where=highest > 0)
    return result


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _maps(network: Network, arch: str) -> Iterator[nn.Module]:
    """A module through which the layer's output passes as maps, whatever the layer's layout."""
    entry = ARCHITECTURES[arch]
    to_maps, from_maps = _LAYOUTS[entry.cam_layout]
    maps = nn.Identity()
    hook = network.backbone.get_submodule(entry.cam).register_forward_hook(
        lambda layer, inputs, output: from_maps(maps(to_maps(output)), output)
    )
    try:
        yield maps
    finally:
        hook.remove()


def _tokens_to_maps(tokens: Tensor) -> Tensor:
    side = isqrt(tokens.shape[1] - 1)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def _maps_to_tokens(maps: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, :1], maps.flatten(2).transpose(1, 2)], dim=1)


_LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "maps": (lambda output: output, lambda maps, output: maps),
    # Rectified, yet above 0, where the ReLU behind lets the gradient through to every place.
    "maps_to_rectify": (lambda output: output.clamp_min(1e-30), lambda maps, output: maps),
    "tokens": (_tokens_to_maps, _maps_to_tokens),
}
"""By `Architecture.cam_layout`: to maps (batch, channels, height, width), and back."""
