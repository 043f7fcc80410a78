"""Building a network and giving it its starting weights."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.system.errors import UserError
from synthdetect.system.files import file_sha256

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


class Network(nn.Module):
    """A backbone with its normalisation in front, so that nobody can forget or repeat it.

    Takes RGB images of shape (batch, 3, height, width), uint8 0 to 255 or float on the same scale,
    and returns logits of shape (batch,): positive means synthetic.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: nn.Module, head: str = "") -> None:
        """Wrap a backbone whose last linear layer has this dotted path."""
        super().__init__()
        self.backbone = backbone
        self._head = head
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        normalised = torch.addcmul(self.shift, images.float(), self.scale)
        logits: Tensor = self.backbone(normalised)
        return logits.squeeze(1)

    @property
    def head(self) -> nn.Linear:
        """The last linear layer."""
        layer = self.backbone.get_submodule(self._head)
        assert isinstance(layer, nn.Linear)
        return layer

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the features the last layer made them of, in one pass.

        Returns:
            Shapes (batch,) and (batch, features).
        """
        kept: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda layer, given: kept.append(given[0]))
        try:
            logits = self(images)
        finally:
            hook.remove()
        return logits, kept[0]


@dataclass(frozen=True)
class Start:
    """Where a network's first weights came from.

    Attributes:
        source: `imagenet`, `random`, or `file`.
        detail: the weights' name or the file's SHA-256; for random, why.
    """

    source: str
    detail: str


def check(arch: str, image_size: int, weights: str) -> None:
    """See, before anything is begun, whether a network can be built and its weights be there.

    Raises:
        UserError: the architecture cannot work at this image size, or the weights are no file.
    """
    patch = ARCHITECTURES[arch].patch
    if patch and image_size % patch:
        raise UserError(f"--image-size: {arch} needs a multiple of {patch} (got {image_size}).")
    if weights not in ("auto", "imagenet", "none") and not Path(weights).expanduser().is_file():
        raise UserError(f"--weights: {weights!r} is no file; also known: auto, imagenet, none.")


def build(arch: str, image_size: int) -> Network:
    """Build a network with random weights (from torch's global generator).

    Raises:
        UserError: the architecture cannot work at this image size.
    """
    check(arch, image_size, "none")
    entry = ARCHITECTURES[arch]
    options: dict[str, int] = {"num_classes": 1}
    if entry.patch:
        options["image_size"] = image_size
    backbone = torchvision.models.get_model(entry.builder, weights=None, **options)
    return Network(backbone, entry.head)


def initialise(network: Network, arch: str, image_size: int, weights: str) -> Start:
    """Give a network its starting weights, in place; the last layer always starts at random.

    Args:
        network: as `build` made it.
        arch: its name.
        image_size: its image size, to which a transformer's positions are interpolated.
        weights: `auto` (ImageNet if cached or downloadable, else random), `imagenet` (required),
            `none`, or the path of a `.safetensors`, `.pt` or `.pth` file.

    Raises:
        UserError: required weights are not to be had, or a file's do not fit.
    """
    if weights == "none":
        return Start("random", "asked for")
    entry = ARCHITECTURES[arch]
    if weights in ("auto", "imagenet"):
        chosen = torchvision.models.get_weight(entry.weights)
        try:
            state = _download(chosen)
        except Exception as error:  # no network, a web page for a file, a cut or forged download
            if weights == "auto":
                return Start("random", f"{entry.weights} not to be had: {error}")
            raise UserError(
                f"--weights imagenet: {entry.weights} cannot be loaded: {error}. Put "
                f"{Path(chosen.url).name} into {torch.hub.get_dir()}/checkpoints, or use "
                "--weights auto or none."
            ) from error
        start = Start("imagenet", entry.weights)
    else:
        check(arch, image_size, weights)
        state = _read_weights(Path(weights).expanduser())
        start = Start("file", file_sha256(Path(weights).expanduser()))
    _fill(network.backbone, _plain(state), arch, image_size, weights)
    return start


def _download(weights: torchvision.models.WeightsEnum) -> dict[str, Tensor]:
    """Torchvision's published weights, from its cache if they are there.

    torch.hub checks the hash of what it downloads, but not of what it finds in the cache.
    """
    name = Path(weights.url).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if cached.exists() and not file_sha256(cached).startswith(Path(name).stem.rpartition("-")[2]):
        raise OSError(f"{cached} is not the published file; remove it")
    state: dict[str, Tensor] = weights.get_state_dict(
        progress=False, check_hash=True, weights_only=True
    )
    return state


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"--weights: {path} is damaged or no weights file: {error}") from error
    except Exception as error:  # weights_only refuses with pickle.UnpicklingError and others
        raise UserError(f"--weights: {path} holds more than tensors and was not loaded.") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise UserError(f"--weights: {path} holds no state dictionary.")
    return {k: v for k, v in loaded.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo what wrappers (DataParallel, ours) and old files (densenet's) did to the names."""
    state = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    for prefix in ("module.", "backbone."):
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _fill(
    backbone: nn.Module, state: dict[str, Tensor], arch: str, image_size: int, weights: str
) -> None:
    entry = ARCHITECTURES[arch]
    wanted = backbone.state_dict()
    if entry.patch and "encoder.pos_embedding" in state:
        state = torchvision.models.vision_transformer.interpolate_embeddings(
            image_size, entry.patch, dict(state)
        )
    head = {f"{entry.head}.weight", f"{entry.head}.bias"}
    body = {k: v for k, v in state.items() if k not in head}
    missing = [k for k in wanted if k not in body and k not in head and "num_batches" not in k]
    wrong = [k for k, v in body.items() if k in wanted and v.shape != wanted[k].shape]
    extra = [k for k in body if k not in wanted]
    if missing or wrong or extra:
        raise UserError(
            f"--weights {weights}: does not fit {arch}: {len(missing)} tensors missing, "
            f"{len(wrong)} of another shape, {len(extra)} unknown, for example "
            f"{(missing + wrong + extra)[0]!r}. Give weights of this architecture, or another "
            "--arch."
        )
    backbone.load_state_dict(body, strict=False)
