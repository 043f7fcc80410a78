"""The initial weights of a network: ImageNet's, random ones, or a file's."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.networks import Network
from synthdetect.models.spec import ModelSpec
from synthdetect.system.errors import UserError
from synthdetect.system.files import file_sha256

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")

NAMES = ("auto", "imagenet", "none")
"""Values of the option `weights` that are not files."""


@dataclass(frozen=True)
class Start:
    """Where the initial weights of a network came from.

    Attributes:
        source: `imagenet`, `random` or `file`.
        detail: Name of the weights or SHA-256 of the file; for random weights, the reason.
    """

    source: str
    detail: str


def require_weights(weights: str) -> None:
    """Check that initial weights are a known name or an existing file.

    Raises:
        UserError: If they are neither.
    """
    if weights not in NAMES and not Path(weights).expanduser().is_file():
        raise UserError(f"--weights: {weights!r} is no file; known names: {', '.join(NAMES)}.")


def initialise(network: Network, weights: str) -> Start:
    """Set the initial weights of a network, in place; the last layer always stays random.

    Args:
        network: As `build` made it.
        weights: `auto` (ImageNet weights if they are cached or can be downloaded, else random),
            `imagenet` (required), `none`, or the path of a `.safetensors`, `.pt` or `.pth` file.

    Raises:
        UserError: If required weights cannot be loaded, or those of a file do not fit.
    """
    if weights == "none":
        return Start("random", "asked for")
    entry = ARCHITECTURES[network.spec.arch]
    if weights in ("auto", "imagenet"):
        chosen = torchvision.models.get_weight(entry.weights)
        try:
            state = _download(chosen)
        except Exception as error:  # no network, a web page for a file, a cut or forged download
            if weights == "auto":
                return Start("random", f"{entry.weights} cannot be loaded: {error}")
            raise UserError(
                f"--weights imagenet: {entry.weights} cannot be loaded: {error}. Put "
                f"{Path(chosen.url).name} into {torch.hub.get_dir()}/checkpoints, or use "
                "--weights auto or none."
            ) from error
        start = Start("imagenet", entry.weights)
    else:
        require_weights(weights)
        state = _read_weights(Path(weights).expanduser())
        start = Start("file", file_sha256(Path(weights).expanduser()))
    _fill(network.backbone, _plain(state), network.spec, weights)
    return start


def _download(weights: torchvision.models.WeightsEnum) -> dict[str, Tensor]:
    """Return the weights that torchvision publishes, from its cache if they are there.

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
    """Undo the renaming by wrappers (DataParallel, `Network`) and in old files of densenet."""
    state = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    for prefix in ("module.", "backbone."):
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _fill(backbone: nn.Module, state: dict[str, Tensor], spec: ModelSpec, weights: str) -> None:
    arch, entry = spec.arch, ARCHITECTURES[spec.arch]
    wanted = backbone.state_dict()
    if entry.patch and "encoder.pos_embedding" in state:
        state = torchvision.models.vision_transformer.interpolate_embeddings(
            spec.image_size, entry.patch, dict(state)
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
