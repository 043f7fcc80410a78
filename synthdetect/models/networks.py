"""Building a network from its specification."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from synthdetect.models import timm_models
from synthdetect.models.architectures import Architecture
from synthdetect.models.front_ends import FrontEnd
from synthdetect.models.spec import FRONT_ENDS, PROBES, ModelSpec, architecture
from synthdetect.system.errors import UserError


class Network(nn.Module):
    """A front-end and a backbone; the normalisation inside cannot be forgotten or repeated.

    It takes RGB images of shape (batch, 3, height, width), uint8 or float from 0 to 255, and
    returns logits of shape (batch,); a positive logit means synthetic. If the specification names
    generators, the last layer has further outputs, which `outputs` returns. It also takes the
    features of images, of shape (batch, features), which a probe is trained on.

    Attributes:
        spec: What it is built from.
        features: Number of features, from which the last layer makes the logit.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        entry = architecture(spec.arch)
        make_front_end: Callable[[ModelSpec], FrontEnd] = FRONT_ENDS[spec.front_end].load()
        self.spec = spec
        self.front_end = make_front_end(spec)
        self.backbone = _backbone(entry, spec.image_size // self.front_end.stride)
        for path in entry.omitted:
            self.backbone.set_submodule(path, nn.Identity())
        if entry.features:
            self.backbone.set_submodule(entry.head, nn.Linear(entry.features, 1))
        if entry.full_resolution:
            self.backbone.conv1.stride = (1, 1)
        _widen(self.backbone, self.front_end.channels)
        last = self.head
        assert isinstance(last, nn.Linear)
        self.features = last.in_features
        if spec.frozen:
            probe = PROBES[spec.probe].load()(self.features, spec)
            self.backbone.set_submodule(entry.head, probe)
        if spec.generators:
            self.backbone.set_submodule(entry.head, _extended(last, len(spec.generators)))

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.outputs(images)
        return outputs[:, 0] if self.spec.generators else outputs.squeeze(1)

    def outputs(self, images: Tensor) -> Tensor:
        """Return the logit of "synthetic" and a logit for each generator of the specification.

        Returns:
            A tensor of shape (batch, 1 + generators).
        """
        is_features = images.ndim == 2
        outputs: Tensor = self.head(images) if is_features else self.backbone(self._seen(images))
        return outputs

    def _seen(self, images: Tensor) -> Tensor:
        """Return what the backbone sees, in fp32 whatever precision the training has."""
        kind = images.device.type
        if not torch.is_autocast_enabled(kind):
            return self.front_end(images)  # type: ignore[no-any-return]
        with torch.autocast(kind, enabled=False):
            return self.front_end(images)  # type: ignore[no-any-return]

    @property
    def head(self) -> nn.Module:
        """The last linear layer, or the probe in its place."""
        layer: nn.Module = self.backbone.get_submodule(architecture(self.spec.arch).head)
        return layer

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs and the features that the last layer maps to them, in one pass.

        Returns:
            Tensors of shapes (batch, 1 + generators) and (batch, features).
        """
        kept: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda layer, given: kept.append(given[0]))
        try:
            outputs = self.outputs(images)
        finally:
            hook.remove()
        return outputs, kept[0]


class AllOutputs(nn.Module):
    """A network whose forward pass returns all outputs, of shape (batch, 1 + generators)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.outputs(images)


def _backbone(entry: Architecture, image_size: int) -> Any:
    """Return a whole network with one output, for what a front-end makes of an image."""
    if entry.library == "timm":
        return timm_models.create(entry, image_size)
    size = {"image_size": image_size} if entry.patch else {}
    return torchvision.models.get_model(entry.builder, weights=None, num_classes=1, **size)


def first_convolution(backbone: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the convolution that a backbone begins with, and its dotted path."""
    for path, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            return path, module
    raise AssertionError("a backbone begins with a convolution")


def _widen(backbone: nn.Module, channels: int) -> None:
    """Let a backbone take another number of channels than 3.

    The weights of its first convolution are then normal random numbers, with the variance that the
    architecture gives them, times 3 / channels. Its output so has the same variance.
    """
    _, convolution = first_convolution(backbone)
    old = convolution.weight
    if channels == old.shape[1]:
        return
    std = old.detach().std() * (old.shape[1] / channels) ** 0.5
    convolution.in_channels = channels
    convolution.weight = nn.Parameter(torch.randn(len(old), channels, *old.shape[2:]) * std)


def _extended(head: nn.Linear, further: int) -> nn.Linear:
    """Return a layer with further outputs behind the one of a head, whose weights it keeps.

    It is made last, so that a network starts from the same weights with and without it.
    """
    extended = nn.Linear(head.in_features, 1 + further)
    with torch.no_grad():
        extended.weight[:1], extended.bias[:1] = head.weight, head.bias
    return extended


def build(spec: ModelSpec) -> Network:
    """Build a network with random weights from the global generator of torch.

    Raises:
        UserError: If the architecture does not support the image size.
    """
    require_buildable(spec)
    return Network(spec)


def require_buildable(spec: ModelSpec) -> None:
    """Check that a network can be built.

    Raises:
        UserError: If the architecture does not support the image size, or its library is not
            installed.
    """
    entry = architecture(spec.arch)
    if entry.library == "timm":
        timm_models.require_timm(spec.arch)
    patch = entry.patch
    stride = FRONT_ENDS[spec.front_end].load().stride
    if patch and spec.image_size % (patch * stride):
        within = f" with --front-end {spec.front_end}" if stride > 1 else ""
        raise UserError(
            f"--image-size: {spec.arch}{within} needs a multiple of {patch * stride} "
            f"(got {spec.image_size})."
        )
