"""The gradient of each adaptation's loss against that of the labels' loss, at the features.

    python -m benchmarks.adaptation [--arch resnet18] [--rounds 3]

Each round trains from other random weights on the built-in sample and adapts to its test split, by
the strategy's first weight. At every step the norms of both gradients are measured. Their ratio is
proportional to the weight, so it is shown for the lowest, the first and the highest weight that a
sweep tries. A range that spans no effect to too much has a ratio far below 1 at its low end, and
one of at least 1 at its high end.
"""

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import parser, report
from sweeps.strategies import STRATEGIES, FloatRange, SearchParameter
from synthdetect.datasets.prepare import prepare
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.models.networks import build
from synthdetect.runs.options import TrainOptions
from synthdetect.system.arrays import FloatArray
from synthdetect.training.devices import Device, deterministic, resolve
from synthdetect.training.loop import (
    Hooks,
    TrainingData,
    TrainingState,
    start_training,
    steps_of,
    train_epoch,
)
from synthdetect.training.losses import loss_of
from synthdetect.training.objective import Step
from synthdetect.training.session import model_spec, preprocessing


def gradient_ratio(training: TrainingState, step: Step) -> float:
    """Return the norm of the adaptation's gradient by that of the labels', at the features.

    The adaptation's loss has the weight 1. Only running statistics of the network change.
    """
    options, adaptation = training.options, training.objective.adaptation
    assert step.unlabelled is not None
    assert adaptation is not None
    training.network.train()
    outputs, features = training.network.with_features(torch.cat([step.images, step.unlabelled]))
    n = len(step.images)
    progress = step.epochs / options.optim.epochs
    labels = loss_of(outputs[:n, 0], step.targets, options.loss)
    distance = adaptation(features[:n], features[n:], progress)

    def norm(loss: Tensor) -> float:
        (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
        return float(gradient.norm())

    return norm(distance) / norm(labels)


def measure(options: TrainOptions, device: Device) -> FloatArray:
    """Return the ratios of all steps after the first epoch of a training on the sample."""
    seed, size = options.optim.seed, options.optim.batch_size
    manifest = prepare(options.data, seed=seed).manifest

    def batches(split: str) -> Batches:
        part = manifest.split(split)
        images = ImageFiles(
            part.files(), preprocessing(options.image), targets=part.table["label"], seed=seed
        )
        return Batches(images, Order(len(images), size, seed=seed), 0)

    data = TrainingData(batches("train"), unlabelled=batches("test"))
    ratios: list[float] = []
    with deterministic(seed):
        training = start_training(build(model_spec(options)), device, options)
        for epoch in range(1, options.optim.epochs + 1):
            for step in steps_of(training, data, epoch):
                if epoch > 1 or options.optim.epochs == 1:
                    ratios.append(gradient_ratio(training, step))
                train_epoch(training, [step], Hooks())
            training.schedule.step()
    return np.array(ratios)


def weights_of(name: str) -> dict[str, float]:
    """Return the lowest, the first and the highest weight of a strategy's range."""
    weight = STRATEGIES[name].space["adaptation_weight"]
    assert isinstance(weight, SearchParameter)
    assert isinstance(weight.range, FloatRange)
    return {"lowest": weight.range.low, "first": weight.first, "highest": weight.range.high}


def main() -> None:
    arguments = parser("Measure the gradients of adaptations.", rounds=3)
    arguments.add_argument("--arch", default="resnet18")
    arguments.add_argument("--image-size", type=int, default=64)
    arguments.add_argument("--epochs", type=int, default=5)
    given = arguments.parse_args()
    if given.smoke:
        given.image_size, given.epochs, given.rounds = 32, 1, 1

    device = resolve("auto", "fp32", "0")
    rows = []
    for name, strategy in STRATEGIES.items():
        if "adaptation_weight" not in strategy.space:
            continue
        values = {"arch": given.arch, "image_size": given.image_size, "epochs": given.epochs,
                  "geometry": "center_crop", "weights": "none", "lr": 1e-3,
                  **strategy.differences, "target": "split:test",
                  "adaptation_weight": weights_of(name)["first"]}  # fmt: skip
        options = TrainOptions.resolve(values)
        ratios = np.concatenate(
            [measure(options.replace(seed=seed), device) for seed in range(given.rounds)]
        )
        low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95))
        rows += [
            {
                "key": f"{name}_{place}",
                "what": f"gradient of {name}, weight {weight:g} ({place})",
                "against": "gradient of the labels' loss",
                "wanted": 1.0 if place == "highest" else 0.0,
                "ratio": weight * middle,
                "low": weight * low,
                "high": weight * high,
            }
            for place, weight in weights_of(name).items()
        ]
    notes = (
        f"{given.arch} at {given.image_size} pixels from random weights, {given.rounds} trainings "
        f"of {given.epochs} epochs on the sample; norms at the input of the last layer, their "
        "median over the steps after the first epoch, and the range of nine steps in ten"
    )
    report("adaptation", "adaptation", rows, device, given.output, notes)


if __name__ == "__main__":
    main()
