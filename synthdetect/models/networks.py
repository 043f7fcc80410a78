"""Building a network from its specification."""

from collections.abc import Callable

import torchvision
from torch import Tensor, nn

from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.spec import FRONT_ENDS, ModelSpec
from synthdetect.system.errors import UserError


class Network(nn.Module):
    """A front-end and a backbone; the normalisation inside cannot be forgotten or repeated.

    It takes RGB images of shape (batch, 3, height, width), uint8 or float from 0 to 255, and
    returns logits of shape (batch,); a positive logit means synthetic.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        entry = ARCHITECTURES[spec.arch]
        options: dict[str, int] = {"num_classes": 1}
        if entry.patch:
            options["image_size"] = spec.image_size
        make_front_end: Callable[[ModelSpec], nn.Module] = FRONT_ENDS[spec.front_end].load()
        self.spec = spec
        self.front_end = make_front_end(spec)
        self.backbone = torchvision.models.get_model(entry.builder, weights=None, **options)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.backbone(self.front_end(images))
        return logits.squeeze(1)

    @property
    def head(self) -> nn.Linear:
        """The last linear layer."""
        layer = self.backbone.get_submodule(ARCHITECTURES[self.spec.arch].head)
        assert isinstance(layer, nn.Linear)
        return layer

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the features that the last layer maps to them, in one pass.

        Returns:
            Tensors of shapes (batch,) and (batch, features).
        """
        kept: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda layer, given: kept.append(given[0]))
        try:
            logits = self(images)
        finally:
            hook.remove()
        return logits, kept[0]


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
        UserError: If the architecture does not support the image size.
    """
    patch = ARCHITECTURES[spec.arch].patch
    if patch and spec.image_size % patch:
        raise UserError(
            f"--image-size: {spec.arch} needs a multiple of {patch} (got {spec.image_size})."
        )
