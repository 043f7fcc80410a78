"""Models of timm, an optional package: how any of them is described and built.

Nothing here imports torch or timm before a model is asked for.
"""

import difflib
import importlib
import importlib.util
import re
import sys
from functools import cache
from math import isqrt
from typing import TYPE_CHECKING, Any

from synthdetect.models.architectures import Architecture
from synthdetect.system.errors import UserError
from synthdetect.system.extras import require_extra

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm:"
"""What the name of an architecture begins with if the rest is the name of a model of timm."""

_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
"""Names of models, with or without the tag of their weights."""

_LAYOUTS = {"NCHW": "maps", "NHWC": "maps_channels_last", "NLC": "tokens"}
"""Layouts of `Architecture.cam_layout` by timm's names."""


def require_timm(arch: str) -> None:
    """Check that timm is installed.

    Raises:
        UserError: If it is not.
    """
    require_extra("pretrained", f"--arch {arch}", "timm")


@cache
def described(arch: str) -> Architecture:
    """Return the description of a model of timm, from its structure without its weights.

    Args:
        arch: `timm:NAME`; NAME is a name of timm, with or without the tag of its weights, which
            chooses the normalisation.

    Raises:
        UserError: If timm is not installed, has no such model, or its model does not end in one
            linear layer.
    """
    require_timm(arch)
    import torch

    timm: Any = importlib.import_module("timm")
    name = arch.removeprefix(TIMM)
    if not (_NAME.fullmatch(name) and timm.is_model(name)):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(TIMM + other for other in near)}?" if near else ""
        raise UserError(f"--arch {arch}: timm has no such model.{hint}")
    try:
        with torch.device("meta"):  # shapes only
            model = timm.create_model(name, num_classes=1)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise UserError(f"--arch {arch}: timm cannot build it: {error}") from error
    settings = model.pretrained_cfg
    head = settings["classifier"]
    if not (isinstance(head, str) and isinstance(model.get_submodule(head), torch.nn.Linear)):
        raise UserError(f"--arch {arch}: does not end in one linear layer. Give another --arch.")
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    side: int = patch if isinstance(patch, int) else patch[0]
    cam, layout = _explained(model, settings["input_size"])
    return Architecture(
        name,
        "",
        head,
        sum(parameter.numel() for parameter in model.parameters()),
        patch=side if settings["fixed_input_size"] else 0,
        cam=cam,
        cam_layout=layout,
        batch_norm=any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        library="timm",
    )


def _explained(model: Any, size: tuple[int, int, int]) -> tuple[str, str]:
    """Return the layer that Grad-CAM explains, and its layout; empty if no such layer is known.

    Args:
        model: A model on the meta device.
        size: Channels, height and width of its images.
    """
    import torch

    last: str = model.feature_info[-1]["module"]
    # The decision may hang on the class token alone, which last looks at the others in norm1.
    tokens = hasattr(model, "num_prefix_tokens")
    cam = f"{last}.norm1" if tokens else last
    layout = "tokens" if tokens else _LAYOUTS[getattr(model, "output_fmt", "NCHW")]
    shapes: list[tuple[int, ...]] = []
    try:
        hook = model.get_submodule(cam).register_forward_hook(
            lambda layer, images, output: shapes.append(tuple(output.shape))
        )
        model.eval()(torch.empty(1, *size, device="meta"))
        hook.remove()
    except Exception:  # models are an open set, and so is what they raise on the meta device
        return "", ""
    return (cam, layout) if [_is_square(s, layout, model) for s in shapes] == [True] else ("", "")


def _is_square(shape: tuple[int, ...], layout: str, model: Any) -> bool:
    """Return whether an output has the layout, and as many rows as columns."""
    if layout == "tokens":
        places = shape[1] - model.num_prefix_tokens if len(shape) == 3 else -1
        return places > 0 and isqrt(places) ** 2 == places
    first = 1 if layout == "maps_channels_last" else 2
    return len(shape) == 4 and shape[first] == shape[first + 1]


def create(entry: Architecture, image_size: int) -> "nn.Module":
    """Return a model of timm with random weights and one output.

    Args:
        entry: The architecture.
        image_size: Side of what the model sees, if it is built for one size.

    Raises:
        UserError: If it cannot be built for this size.
    """
    timm: Any = importlib.import_module("timm")
    options = {"img_size": image_size} if entry.patch else {}
    try:
        model: nn.Module = timm.create_model(entry.builder, num_classes=1, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        own = timm.get_pretrained_cfg(entry.builder).input_size[-1]
        raise UserError(
            f"--image-size {image_size}: timm cannot build {entry.builder} for it: {error}. Its "
            f"own size is {own}."
        ) from error
    return model


def converted(state: dict[str, Any], model: "nn.Module") -> dict[str, Any]:
    """Return weights as timm names them, where timm knows the names of those who published them.

    So files of OpenAI's CLIP and Meta's DINO are taken, and the embeddings of positions are
    resized to the size of the image.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return convert(state, model) if convert else state
