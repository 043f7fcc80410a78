"""Every strategy learns where it should, so that a sweep does not compare with a broken method.

The images are 32 pixels of noise. Two patterns tell the images of `train` and `alike` apart: a
chessboard that every synthetic image has, and bars whose sign is the label. In the shifted domain
of `shifted` and `unlabelled` the bars have a random sign and strength, so a detector that relies on
them fails there. No images validate, so that the last epoch is judged: the first epoch can be
perfect, and would be kept. The split `val` is called `alike` when it is scored.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from sweeps.strategies import BASELINE, STRATEGIES, Choice, first_values, options_of, space
from synthdetect.datasets.prepare import prepare
from synthdetect.datasets.target import load_target
from synthdetect.models.networks import Network
from synthdetect.runs.options import TrainOptions
from synthdetect.training.adversarial import attacked
from synthdetect.training.devices import deterministic
from synthdetect.training.loop import Hooks
from synthdetect.training.options import ATTACKS, AdversarialOptions
from synthdetect.training.session import Session
from tests.training.conftest import CPU, UNCHANGED

pytestmark = [pytest.mark.long, pytest.mark.thorough]

BASE: dict[str, Any] = {
    **UNCHANGED, "arch": "resnet18", "image_size": 32, "geometry": "center_crop", "weights": "none",
    "lr": 1e-3, "batch_size": 16, "epochs": 6, "patience": 6,
}  # fmt: skip
MORE = {"mobilenet": {"epochs": 24}, "crop": {"crop": 24}, "front_end": {"image_size": 30}}
"""The normalisation of MobileNet v3 averages its statistics with a momentum of 0.01. Crops must fit
into the images. The front-end npr compares the pixels of blocks of 2 by 2 and is blind to patterns
that lie on this grid, as the planted ones do; a centre crop of 30 pixels moves them off it."""

SIZES = {"train": 192, "val": 64, "shifted": 128, "unlabelled": 128}
TARGET = "split:unlabelled"


class Trained(NamedTuple):
    """A network, and its AUC by split."""

    network: Network
    auc: dict[str, float]


Train = Callable[..., Trained]


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every strategy with its first values, once for each combination of its choices."""
    for name in STRATEGIES:
        parameters = space(name, BASE["lr"], BASE["epochs"])
        choices = {k: p.range.values for k, p in parameters.items() if isinstance(p.range, Choice)}
        for values in product(*choices.values()):
            yield name, dict(zip(choices, values, strict=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    sign = np.where(np.arange(32) // 2 % 2, 1.0, -1.0)
    board = 12 * np.multiply.outer(sign, sign)[..., None]
    bars = np.repeat([-1.0, 1.0] * 4, 4)[:, None, None]
    rows = []
    for split, size in SIZES.items():
        for i in range(size):
            name, label = f"{split}{i}.png", i % 2
            strength = (
                rng.uniform(-25, 25) if split in ("shifted", "unlabelled") else 7 * (2 * label - 1)
            )
            pixels = rng.normal(128, 20, (32, 32, 3)) + label * board + strength * bars
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            rows.append((name, label, split, "planted" if label else "", f"{split}{i // 2}"))
    columns = ["path", "label", "split", "generator", "source_id"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "data.csv", index=False)
    return folder / "data.csv"


@pytest.fixture(scope="module")
def train(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Train a side with its first values and the given ones; the same side is trained once."""
    known: dict[tuple[Any, ...], Trained] = {}

    def trained(side: str, **given: Any) -> Trained:
        key = (side, *sorted(given.items()))
        if key not in known:
            first = first_values(space(side, BASE["lr"], BASE["epochs"]))
            base = {**BASE, "data": str(data)}
            known[key] = _train(
                options_of(side, base, {**first, **given}, TARGET), tmp_path_factory.mktemp("run")
            )
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHDETECT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield trained


def _train(options: TrainOptions, folder: Path) -> Trained:
    prepared = prepare(options.data, seed=0)
    table = prepared.manifest.table.replace({"split": {"val": "alike"}})
    manifest = prepared.manifest.with_table(table)
    prepared = replace(prepared, manifest=manifest)
    if options.adaptation.target:
        prepared = prepared.with_target(load_target(TARGET, manifest, on_bad_image="stop"))
    with deterministic(0):
        session = Session(options, prepared, CPU, folder)
        session.fit(Hooks())
    logits = session.outputs(["alike", "shifted"])
    labels = {split: manifest.split(split).table["label"] for split in logits}
    auc = {split: float(roc_auc_score(labels[split], logits[split][:, 0])) for split in logits}
    return Trained(session.network, auc)


@pytest.mark.parametrize(("name", "choices"), list(cases()), ids=str)
def test_a_strategy_learns(train: Train, name: str, choices: dict[str, Any]) -> None:
    assert train(name, **{**choices, **MORE.get(name, {})}).auc["alike"] > 0.9


@pytest.mark.parametrize(
    "name", [n for n, s in STRATEGIES.items() if "adaptation" in s.differences]
)
def test_an_adaptation_helps_where_images_are_shifted(train: Train, name: str) -> None:
    gain = 0.02 if name == "adabn" else 0.05  # AdaBN trains nothing
    assert train(name).auc["shifted"] > train(BASELINE).auc["shifted"] + gain


@pytest.mark.parametrize("name", ATTACKS)
def test_adversarial_training_raises_the_accuracy_under_attack(
    train: Train, data: Path, name: str
) -> None:
    table = pd.read_csv(data).query("split == 'val'")
    pixels = [np.asarray(Image.open(data.parent / path)) for path in table["path"]]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    labels = torch.tensor(table["label"].to_numpy()).float()
    given = {"adversarial": "pgd", "adversarial_epsilon": 4, "adversarial_share": 1}
    attack = AdversarialOptions.resolve(given)

    def accuracy(network: Network) -> float:
        torch.manual_seed(0)
        changed = attacked(network.eval(), images, labels, attack)
        with torch.no_grad():
            return float(((network(changed) > 0) == (labels > 0.5)).float().mean())

    robust = train("adversarial", adversarial=name)
    assert accuracy(robust.network) > accuracy(train(BASELINE).network) + 0.1
