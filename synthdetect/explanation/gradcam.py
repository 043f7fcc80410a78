"""Grad-CAM explanations of a network's predictions, for every architecture.

Selvaraju et al., "Grad-CAM" (ICCV 2017), as implemented by captum: the feature maps of a late layer
are weighted by the mean gradient of the logit with respect to each map and summed, and negative
values are set to zero. The map shows where the evidence lies, at the resolution of the layer, but
not why it is evidence.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from synthdetect.images.contents import read_content
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import VIEWS
from synthdetect.models.networks import Network
from synthdetect.models.spec import architecture

_BATCH = 16
"""Images per batch; small, since the forward pass keeps activations for the gradients."""


@dataclass(frozen=True)
class Explanation:
    """Explained predictions.

    Attributes:
        rows: rows of the predictions table, shape (images, columns).
        squares: preprocessed images, shape (images, size, size, 3), uint8.
        maps: Grad-CAM maps toward the predicted label, shape (images, size, size), 0 to 1.
    """

    rows: pd.DataFrame
    squares: npt.NDArray[np.uint8]
    maps: npt.NDArray[np.float32]


def explain(
    network: Network,
    arch: str,
    table: pd.DataFrame,
    positions: Sequence[int] | npt.NDArray[np.int64],
    files: Sequence[str],
    preprocess: Preprocess,
    *,
    views: str = "single",
) -> Explanation:
    """Explain predictions toward the predicted label, whether it is correct or not.

    Args:
        network: network that made the predictions.
        arch: name of its architecture.
        table: predictions table.
        positions: positions of the rows to explain.
        files: image files, in the order of the table.
        preprocess: preprocessing of the network's input.
        views: views of an image over which its logits were averaged; a name of `VIEWS`.

    Raises:
        BadImage: If an image cannot be read.
    """
    rows = table.iloc[positions].reset_index(drop=True)
    size = preprocess.image_size
    squares = np.empty((len(rows), size, size, 3), np.uint8)
    for square, position in zip(squares, positions, strict=True):
        square[:] = preprocess(read_content(files[position]))
    maps = grad_cam(network, arch, squares, toward=rows["predicted"], views=views)
    return Explanation(rows, squares, maps)


def grad_cam(
    network: Network, arch: str, squares: npt.NDArray[np.uint8], *, toward: npt.ArrayLike,
    views: str = "single",
) -> npt.NDArray[np.float32]:  # fmt: skip
    """Compute Grad-CAM maps in fp32 on the network's device.

    The network's mode, gradients and weights are left unchanged.

    Args:
        network: network with one logit, whose negative is explained toward "real".
        arch: name of its architecture, which determines the layer.
        squares: preprocessed images, shape (images, height, width, 3), uint8.
        toward: label to explain, 0 (real) or 1 (synthetic), for each image or for all.
        views: views of an image over which its logits are averaged; a name of `VIEWS`. The map is
            the mean of the maps of the views that show a pixel, each laid back onto the image.

    Returns:
        Maps of shape (images, height, width), each divided by its maximum, so values of different
        images cannot be compared. A map without positive values is all 0.
    """
    from captum.attr import LayerAttribution, LayerGradCam  # slow to import

    signs = torch.from_numpy(np.broadcast_to(toward, len(squares)) * 2.0 - 1).float()
    result = np.zeros(squares.shape[:3], np.float32)
    with _evaluation_mode(network), _maps(network, arch) as maps:
        for begin in range(0, len(squares), _BATCH):
            part = slice(begin, begin + _BATCH)
            sign = signs[part].to(next(network.parameters()).device)
            images = torch.from_numpy(squares[part]).permute(0, 3, 1, 2).to(sign.device)
            cam = LayerGradCam(lambda images, sign=sign: sign * network(images), maps)
            total, shown = torch.zeros(2, len(images), *squares.shape[1:3])
            for view in VIEWS[views].load()(images):
                coarse = cam.attribute(view.images, relu_attributions=True).detach().cpu()
                fine = LayerAttribution.interpolate(coarse, view.images.shape[-2:], "bilinear")
                total += view.undo(fine)[:, 0]
                shown += view.undo(torch.ones_like(fine))[:, 0]
            result[part] = (total / shown.clamp(min=1)).numpy()
    highest = result.max(axis=(1, 2), keepdims=True, initial=0)
    np.divide(result, highest, out=result, where=highest > 0)
    return result


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _maps(network: Network, arch: str) -> Iterator[nn.Module]:
    """Insert a module after the explained layer, through which its output passes as maps."""
    entry = architecture(arch)
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
    side = isqrt(tokens.shape[1])  # those before the patches are too few for a larger square
    return tokens[:, -(side**2) :].transpose(1, 2).reshape(len(tokens), -1, side, side)


def _maps_to_tokens(maps: Tensor, tokens: Tensor) -> Tensor:
    patches = maps.flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, : -patches.shape[1]], patches], dim=1)


_LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "maps": (lambda output: output, lambda maps, output: maps),
    # Rectified to a value above 0, so that the following ReLU passes the gradient everywhere.
    "maps_to_rectify": (lambda output: output.clamp_min(1e-30), lambda maps, output: maps),
    "maps_channels_last": (
        lambda output: output.permute(0, 3, 1, 2),
        lambda maps, output: maps.permute(0, 2, 3, 1),
    ),
    "tokens": (_tokens_to_maps, _maps_to_tokens),
}
"""Conversion to maps of shape (batch, channels, height, width) and back, by `cam_layout`."""
