"""The scales of the front-ends, and what they cost.

    python -m benchmarks.front_ends

It prints the mean and standard deviation of what each front-end returns for centre crops of the
sample's real training photographs, and measures the speed of a ResNet-18 with each against that
with the front-end `rgb`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import parser, ratio, report, take_turns
from synthdetect.datasets.labels import REAL
from synthdetect.datasets.manifest import load
from synthdetect.images.geometry import Preprocess
from synthdetect.models.front_ends import FrontEnd
from synthdetect.models.networks import Network, build
from synthdetect.models.spec import FRONT_ENDS, ModelSpec
from synthdetect.system.console import table
from synthdetect.training.devices import resolve

_BATCH = 32


def main() -> None:
    arguments = parser("Measure the front-ends.", rounds=5)
    arguments.add_argument("--image-size", type=int, default=128)
    given = arguments.parse_args()
    if given.smoke:
        given.rounds, given.image_size = 1, 32

    train = load("sample").split("train")
    real = train.with_table(train.table[train.table["label"] == REAL])
    paths = real.table["path"][: _BATCH if given.smoke else len(real)]
    preprocess = Preprocess(given.image_size, "center_crop")
    squares = np.stack([preprocess(Path(real.file(path)).read_bytes()) for path in paths])
    images = torch.from_numpy(squares).permute(0, 3, 1, 2)
    networks = {
        name: build(ModelSpec.of("resnet18", given.image_size, name)).eval() for name in FRONT_ENDS
    }
    table("Front-ends", ["name", "channels", "mean", "std", "std of the first filters"],
          [[name, *_scale(network, images)] for name, network in networks.items()])  # fmt: skip
    batch = images[:_BATCH].contiguous(memory_format=torch.channels_last)

    def scoring(network: Network) -> Callable[[], int]:
        return lambda: len(network(batch))

    with torch.inference_mode():
        speeds = take_turns({name: scoring(n) for name, n in networks.items()}, given.rounds)
    rows = [
        {
            "key": f"speed_{name.replace('+', '_')}",
            "what": f"scoring by resnet18 with the front-end {name}",
            "against": "rgb",
            "wanted": 0.0,
            **ratio(speeds, name, "rgb"),
        }
        for name in networks
        if name != "rgb"
    ]
    notes = f"squares of {given.image_size}, batches of {_BATCH}, {given.rounds} rounds"
    report("front_ends", "front_ends", rows, resolve("cpu", "fp32", "0"), given.output, notes)


def _scale(network: Network, images: torch.Tensor) -> list[str]:
    """Return channels, mean, standard deviation, and that of each of the first filters."""
    front_end = network.front_end
    assert isinstance(front_end, FrontEnd)
    with torch.inference_mode():
        seen = front_end(images)
    filters = seen.unflatten(1, (3, -1)).std(dim=(0, 1, 3, 4))[:6]
    listed = " ".join(f"{value:.3f}" for value in filters.tolist())
    return [str(front_end.channels), f"{seen.mean():.3f}", f"{seen.std():.3f}", listed]


if __name__ == "__main__":
    main()
