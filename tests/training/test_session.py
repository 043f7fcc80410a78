"""A session trains from options and data, and keeps its state in a folder."""

from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from synthdetect.datasets.prepare import Prepared, prepare
from synthdetect.datasets.splits import group_codes
from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import Start
from synthdetect.system.errors import UserError
from synthdetect.training import checkpoint, session
from synthdetect.training.loop import Hooks, TrainingData, TrainingState, start_training
from synthdetect.training.session import BEST, LAST, Session, model_spec
from tests.training.conftest import CPU, Tiny, options_of

GIVEN: dict[str, Any] = {"image_size": 32, "batch_size": 8, "epochs": 3, "weights": "none"}


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sessions build tiny networks, the same each time."""

    def build(spec: ModelSpec) -> Tiny:
        torch.manual_seed(0)
        return Tiny(dropout=0.5, spec=spec)

    monkeypatch.setattr(session, "build", build)
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def prepared(small_table: pd.DataFrame, tmp_path: Path) -> Prepared:
    """Eight images of each class in train and val, and four in test."""
    sizes = {"train": 8, "val": 8, "test": 4}
    parts = [
        rows.head(sizes.get(str(split), 0))
        for (split, _), rows in small_table.groupby(["split", "label"])
    ]
    path = tmp_path / "data.csv"
    pd.concat(parts).to_csv(path, index=False)
    return prepare(options_of(data=str(path)).data, seed=1)


@pytest.fixture
def of_generators(small_table: pd.DataFrame, tmp_path: Path) -> Prepared:
    """Eight images of each generator, and of real ones, in train, and four in val and test."""
    parts = [
        rows.head(8 if split == "train" else 4)
        for (split, _), rows in small_table.groupby(["split", "generator"])
    ]
    path = tmp_path / "data.csv"
    pd.concat(parts).to_csv(path, index=False)
    return prepare(options_of(data=str(path)).data, seed=1)


def made(prepared: Prepared, folder: Path, **given: Any) -> Session:
    return Session(options_of(**{**GIVEN, **given}), prepared, CPU, folder)


def tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def read(path: Path, **given: Any) -> TrainingState:
    """The training that a checkpoint holds."""
    options = options_of(**{**GIVEN, **given})
    training = start_training(Tiny(spec=model_spec(options)), CPU, options)
    checkpoint.load(path, training)
    return training


def test_the_specification_is_that_of_the_options() -> None:
    options = options_of(arch="resnet50", image_size=96, front_end="npr")
    assert model_spec(options) == ModelSpec.of("resnet50", 96, "npr")


def test_every_epoch_is_on_disk_before_the_hook_is_called(
    prepared: Prepared, tmp_path: Path
) -> None:
    calls: list[str] = []

    class Checking(Hooks):
        def on_batch(self, images: int, loss: float) -> None:
            calls.append("batch")

        def on_epoch(self, training: TrainingState) -> None:
            calls.append(f"epoch {training.progress.epoch}")
            kept = read(tmp_path / LAST)
            assert kept.progress == training.progress
            assert_equal(tensors(kept.network), tensors(training.network))
            assert (tmp_path / BEST).is_file()

    made(prepared, tmp_path).fit(Checking())
    epoch = ["batch"] * 3  # two of training and one of validation
    assert calls == [*epoch, "epoch 1", *epoch, "epoch 2", *epoch, "epoch 3"]


def test_the_weights_afterwards_are_those_of_the_best_epoch(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is the second, whatever the network learns."""
    weights: list[dict[str, torch.Tensor]] = []
    aucs = iter([0.6, 0.8, 0.7])

    def metrics(name: str, *_: Any) -> dict[str, float]:
        return {f"{name}/auc": next(aucs)} if name == "val" else {}

    class Keeping(Hooks):
        def on_epoch(self, training: TrainingState) -> None:
            weights.append(tensors(training.network))

    monkeypatch.setattr("synthdetect.training.loop.epoch_metrics", metrics)
    trained = made(prepared, tmp_path)
    trained.fit(Keeping())
    assert trained.training.progress.best_epoch == 2
    assert_equal(tensors(trained.network), weights[1])
    assert_equal(tensors(read(tmp_path / LAST).network), weights[2])
    assert not torch.equal(weights[1]["last.weight"], weights[2]["last.weight"])


def test_without_validation_images_the_weights_are_those_of_the_last_epoch(
    prepared: Prepared, tmp_path: Path
) -> None:
    table = prepared.manifest.table
    manifest = prepared.manifest.with_table(table[table["split"] != "val"])
    trained = made(Prepared(manifest, prepared.excluded, frozenset(), ()), tmp_path)
    trained.fit(Hooks())
    assert trained.training.progress.best_epoch == 3
    assert_equal(tensors(trained.network), tensors(read(tmp_path / LAST).network))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"front_end": "npr", "warmup_epochs": 2, "accumulate": 2, "clip_norm": 0.1},
        {"balance": "generator", "geometry": "random_crop", "hflip": 0.5},
        {"pos_weight": "auto"},
    ],
)
def test_a_session_goes_on_where_an_earlier_one_stopped(
    prepared: Prepared, tmp_path: Path, given: dict[str, Any]
) -> None:
    whole = made(prepared, tmp_path / "whole", **given)
    whole.fit(Hooks())
    made(prepared, tmp_path / "parts", **given).fit(Hooks(), epochs=1)
    assert read(tmp_path / "parts" / LAST, **given).progress.epoch == 1
    # It needs no initial weights any more.
    resumed = made(prepared, tmp_path / "parts", **{**given, "weights": "absent.pt"})
    assert resumed.start == whole.start == Start("random", "asked for")
    resumed.fit(Hooks())
    first, second = (read(tmp_path / name / LAST, **given) for name in ("whole", "parts"))
    assert_equal(tensors(first.network), tensors(second.network))
    assert_equal(tensors(whole.network), tensors(resumed.network))
    for split, logits in whole.outputs(["val", "test"]).items():
        assert np.array_equal(resumed.outputs([split])[split], logits)


def test_attribution_goes_on_where_an_earlier_session_stopped(
    of_generators: Prepared, tmp_path: Path
) -> None:
    given = {"attribution": 0.5, "balance": "generator", "views": "flip"}
    whole = made(of_generators, tmp_path / "whole", **given)
    start = whole.network.head.weight.clone()
    whole.fit(Hooks())
    assert (whole.network.head.weight != start).any(dim=1).all()
    made(of_generators, tmp_path / "parts", **given).fit(Hooks(), epochs=1)
    resumed = made(of_generators, tmp_path / "parts", **given)
    resumed.fit(Hooks())
    assert_equal(tensors(whole.network), tensors(resumed.network))
    outputs = whole.outputs(["test"])["test"]
    assert outputs.shape == (len(of_generators.manifest.split("test")), 3)
    assert np.ptp(outputs, axis=0).min() > 0
    assert np.array_equal(resumed.outputs(["test"])["test"], outputs)


def test_a_folder_of_another_network_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    made(prepared, tmp_path).fit(Hooks(), epochs=1)
    with pytest.raises(UserError, match="front_end"):
        made(prepared, tmp_path, front_end="npr")


def test_scores_are_in_the_order_of_the_manifest(prepared: Prepared, tmp_path: Path) -> None:
    trained = made(prepared, tmp_path)
    counted: list[int] = []
    scores = trained.outputs(["test", "val"], lambda images, loss: counted.append(images))
    assert {split: len(logits) for split, logits in scores.items()} == {"test": 8, "val": 16}
    assert sum(counted) == 24
    table = prepared.manifest.table
    backwards = prepared.manifest.with_table(table.iloc[::-1].reset_index(drop=True))
    other = Session(
        options_of(**GIVEN), Prepared(backwards, prepared.excluded, frozenset(), ()), CPU, tmp_path
    )
    reversed_ = other.outputs(["test"])["test"][::-1]
    np.testing.assert_allclose(reversed_, scores["test"], atol=1e-5)
    assert len(np.unique(scores["test"])) == 8


@pytest.fixture
def unbalanced(prepared: Prepared) -> Prepared:
    """Two real training images, six of one generator and two of another."""
    table = prepared.manifest.table
    train = table[table["split"] == "train"]
    real, synthetic = train[train["label"] == 0].head(2), train[train["label"] == 1]
    synthetic = synthetic.assign(generator=["often"] * 6 + ["seldom"] * 2)
    rest = table[table["split"] != "train"]
    return replace(
        prepared, manifest=prepared.manifest.with_table(pd.concat([real, synthetic, rest]))
    )


@pytest.mark.parametrize(
    ("balance", "real", "often"),
    [("none", 2, {6}), ("class", 5, range(9)), ("generator", 5, {2, 3})],
)
def test_an_epoch_is_balanced_as_the_options_say(
    unbalanced: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    balance: str,
    real: int,
    often: Container[int],
) -> None:
    seen: list[list[int]] = []

    def keep(training: TrainingState, data: TrainingData, *_: Any, **__: Any) -> None:
        for epoch in range(1, 4):
            seen.append([int(row) for batch in data.train.epoch(epoch) for row in batch.rows])
        made(unbalanced, tmp_path).save()

    monkeypatch.setattr(session, "fit", keep)
    made(unbalanced, tmp_path, balance=balance).fit(Hooks())
    for rows in seen:
        assert len(rows) == len(set(rows)) == 10
        images = np.array(rows) % 10
        assert (images < 2).sum() == real
        assert ((images >= 2) & (images < 8)).sum() in often


def test_the_images_of_one_source_follow_each_other_if_pairs_are_asked_for(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: dict[bool, list[int]] = {}

    def keep(training: TrainingState, data: TrainingData, *_: Any, **__: Any) -> None:
        pairs = training.options.optim.pairs
        orders[pairs] = [int(row) for batch in data.train.epoch(1) for row in batch.rows]
        made(prepared, tmp_path / str(pairs)).save()

    monkeypatch.setattr(session, "fit", keep)
    for pairs in (False, True):
        made(prepared, tmp_path / str(pairs), pairs=pairs).fit(Hooks())
    sources = group_codes(prepared.manifest.split("train").table)
    runs = {pairs: 1 + int((np.diff(sources[rows]) != 0).sum()) for pairs, rows in orders.items()}
    assert runs[True] == len(set(sources)) < runs[False]


def test_an_automatic_weight_makes_both_classes_count_alike(
    unbalanced: Prepared, tmp_path: Path
) -> None:
    found = made(unbalanced, tmp_path, pos_weight="auto").training.options.loss.pos_weight
    assert float(found) == 2 / 8


PAIRED: dict[str, Any] = {
    "pair_mix_pixels": 0.5, "pair_mix_frequency": 0.5, "align_quality": True,
    "geometry": "center_crop",
}  # fmt: skip


@pytest.fixture
def pairs(tmp_path: Path) -> Prepared:
    """Photographs of JPEG quality 30, and a regeneration of each without loss."""
    rows = []
    for source in range(12):
        split = "train" if source < 8 else "val"
        for label, suffix in (("real", "jpg"), ("synthetic", "png")):
            path = tmp_path / label / f"{source}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            rng = np.random.default_rng([source, len(label)])
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path, **({"quality": 30} if suffix == "jpg" else {}))
            rows.append((path.relative_to(tmp_path), label, split, f"p{source}"))
    columns = ["path", "label", "split", "source_id"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "pairs.csv", index=False)
    return prepare(options_of(data=str(tmp_path / "pairs.csv")).data, seed=1)


def test_a_resumed_training_on_pairs_ends_with_the_same_weights(
    pairs: Prepared, tmp_path: Path
) -> None:
    whole = made(pairs, tmp_path / "whole", **PAIRED)
    whole.fit(Hooks())
    made(pairs, tmp_path / "parts", **PAIRED).fit(Hooks(), epochs=1)
    rest = made(pairs, tmp_path / "parts", **PAIRED)
    rest.fit(Hooks())
    assert_equal(tensors(whole.training.network), tensors(rest.training.network))
    plain = made(pairs, tmp_path / "plain", geometry="center_crop")
    plain.fit(Hooks())
    weights, others = tensors(whole.training.network), tensors(plain.training.network)
    assert not torch.equal(weights["last.weight"], others["last.weight"])


def test_qualities_are_aligned_in_training_only_and_cached_apart(
    pairs: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, bool]] = []

    def keep(training: TrainingState, data: TrainingData, *_: Any, **__: Any) -> None:
        assert data.val is not None
        found = {}
        for split, batches in (("train", data.train), ("val", data.val)):
            files = pairs.manifest.split(split).files()
            unchanged = {
                np.array_equal(image.permute(1, 2, 0), Image.open(files[row])): target
                for batch in batches.epoch(1)
                for row, image, target in zip(batch.rows, batch.images, batch.targets, strict=True)
                if target == 1
            }
            found[split] = unchanged == {True: 1}
            assert len(unchanged) == 1
        seen.append(found)
        made(pairs, tmp_path).save()

    monkeypatch.setattr(session, "fit", keep)
    for align in (True, True, False):  # the second time from the cache
        made(pairs, tmp_path, geometry="center_crop", align_quality=align).fit(Hooks())
    assert seen == [{"train": False, "val": True}] * 2 + [{"train": True, "val": True}]


def test_pairs_are_refused_where_no_image_has_its_photograph(
    pairs: Prepared, tmp_path: Path
) -> None:
    table = pairs.manifest.table
    table = table.assign(source_id=table["path"])
    alone = replace(pairs, manifest=pairs.manifest.with_table(table))
    with pytest.raises(UserError, match="no synthetic training image has its photograph"):
        made(alone, tmp_path, align_quality=True)
