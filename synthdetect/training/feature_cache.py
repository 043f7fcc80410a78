"""Cache of features on disk, so that they are computed once per image.

A cache belongs to one backbone with its weights, one preprocessing, and the versions and the kind
of device that compute, so what is read is what would be computed, bit for bit. Each pass over
images adds files to it, and no file changes later, so several processes can share a cache.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import PIL
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from synthdetect.images.geometry import SQUARE_VERSION, Preprocess
from synthdetect.models.networks import Network
from synthdetect.models.spec import architecture
from synthdetect.models.tensors import digest_of, tensors_of
from synthdetect.system.files import cache_folder, write_to_cache

_VERSION = 1  # of the files of a cache


def backbone_sha256(network: Network) -> str:
    """Return a hash of what the features depend on: the weights but for the last layer."""
    head = f"backbone.{architecture(network.spec.arch).head}."
    tensors = {k: v for k, v in tensors_of(network).items() if not k.startswith(head)}
    return digest_of(tensors)


class FeatureCache:
    """Cache of features by the SHA-256 of the image files.

    If the folder cannot be written, nothing is cached.

    Args:
        network: The network whose features these are.
        preprocess: Preprocessing of its images.
        device: Kind of the device that computes.
    """

    def __init__(self, network: Network, preprocess: Preprocess, device: str) -> None:
        spec = network.spec
        seen = (spec.arch, spec.image_size, spec.front_end, spec.mean, spec.std, preprocess)
        versions = (_VERSION, SQUARE_VERSION, PIL.__version__, torch.__version__, device)
        key = f"{backbone_sha256(network)} {seen} {versions}"
        self._folder = cache_folder() / "features" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def read(self, hashes: Iterable[str]) -> dict[str, Tensor]:
        """Return the features of those images that are cached, of shape (features,), by hash."""
        wanted, found = set(hashes), {}
        for file in sorted(self._folder.glob("*.safetensors")):
            try:
                part = load_file(file)
                names, features = part["sha256"], part["features"]
            except (OSError, SafetensorError, KeyError):
                continue
            if digest_of(part) != file.stem:  # damaged
                continue
            for name, values in zip(names.numpy(), features, strict=True):
                if (text := name.tobytes().hex()) in wanted:
                    found[text] = values
        return found

    def write(self, hashes: Sequence[str], features: Tensor) -> None:
        """Add the features of images, of shape (images, features)."""
        names = np.array([list(bytes.fromhex(text)) for text in hashes], np.uint8)
        part = {"sha256": torch.from_numpy(names), "features": features.contiguous()}
        target = self._folder / f"{digest_of(part)}.safetensors"
        write_to_cache(target, lambda path: save_file(part, path))
