"""Features are computed once per image, and a probe that trains on them resumes bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.prepare import Prepared, prepare
from synthdetect.images.batches import ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.models.networks import Network, build
from synthdetect.models.spec import ModelSpec
from synthdetect.system.errors import UserError
from synthdetect.training.features import FeatureBatches, features_of
from synthdetect.training.loop import Hooks
from synthdetect.training.options import TrainingOptions
from synthdetect.training.session import Session
from tests.training.conftest import CPU, options_of

ARCH, SIZE = "timm:test_efficientnet", 32
GIVEN: dict[str, Any] = {
    "arch": ARCH, "image_size": SIZE, "weights": "none", "precision": "fp32", "epochs": 4,
    "batch_size": 8, "probe": "linear",
}  # fmt: skip
PREPROCESS = Preprocess(SIZE, "center_crop")


@pytest.fixture(autouse=True)
def _private_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def prepared(small_manifest: Path) -> Prepared:
    return prepare(options_of(data=str(small_manifest)).data, seed=1)


def network_of(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build(ModelSpec.of(ARCH, SIZE))


def test_each_image_is_computed_once(prepared: Prepared) -> None:
    manifest = prepared.manifest
    first = features_of(network_of(), manifest, PREPROCESS, CPU)
    again = features_of(network_of(), manifest, PREPROCESS, CPU)
    assert first.computed == manifest.table["sha256"].nunique()
    assert again.computed == 0
    assert torch.equal(first.values, again.values)
    assert first.values.shape == (len(manifest), network_of().features)
    squares = [PREPROCESS(Path(file).read_bytes()) for file in manifest.files()[:3]]
    images = torch.stack([torch.tensor(square) for square in squares]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        _, wanted = network_of().eval().with_features(images)
    torch.testing.assert_close(first.values[:3], wanted)
    # Other weights, another preprocessing: another cache.
    assert features_of(network_of(1), manifest, PREPROCESS, CPU).computed > 0
    assert features_of(network_of(), manifest, Preprocess(SIZE, "resize"), CPU).computed > 0


def test_neither_the_order_nor_an_interruption_changes_a_bit(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = prepared.manifest
    whole = features_of(network_of(), manifest, PREPROCESS, CPU).values
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "other"))
    some = manifest.with_table(manifest.table.iloc[5:18][::-1])
    features_of(network_of(), some, PREPROCESS, CPU)
    assert torch.equal(features_of(network_of(), manifest, PREPROCESS, CPU).values, whole)


def test_a_damaged_file_of_the_cache_is_computed_again(prepared: Prepared, tmp_path: Path) -> None:
    manifest = prepared.manifest
    first = features_of(network_of(), manifest, PREPROCESS, CPU)
    (file,) = (tmp_path / "cache").rglob("features/*/*.safetensors")
    content = file.read_bytes()
    for damaged in (content[:-10], content[:-1] + bytes([content[-1] ^ 1])):
        file.write_bytes(damaged)
        again = features_of(network_of(), manifest, PREPROCESS, CPU)
        assert again.computed == first.computed
        assert torch.equal(again.values, first.values)


def test_a_folder_that_cannot_be_written_only_costs_time(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "file"))
    manifest = prepared.manifest.split("val")
    assert features_of(network_of(), manifest, PREPROCESS, CPU).computed
    assert features_of(network_of(), manifest, PREPROCESS, CPU).computed


def test_an_image_that_is_gone_is_named(prepared: Prepared, tmp_path: Path) -> None:
    table = prepared.manifest.table.assign(path=str(tmp_path / "gone.png"))
    gone: Manifest = prepared.manifest.with_table(table)
    with pytest.raises(UserError, match=r"gone\.png: was readable"):
        features_of(network_of(), gone, PREPROCESS, CPU)


def test_batches_of_features_have_the_order_of_batches_of_images() -> None:
    order = Order(20, 6, seed=3)
    batches = FeatureBatches(torch.arange(20.0).unsqueeze(1), torch.arange(20) % 2, order)
    found = [batch for epoch in (1, 2) for batch in batches.strict_epoch(epoch)]
    wanted = []
    for epoch in (1, 2):
        order.epoch = epoch
        wanted += [row for keys in order for _, row in keys]
    assert torch.cat([batch.rows for batch in found]).tolist() == wanted
    assert torch.cat([batch.images for batch in found])[:, 0].tolist() == wanted
    assert torch.cat([b.targets for b in found]).tolist() == [row % 2 for row in wanted]


@pytest.mark.parametrize(
    "given",
    [
        {"probe": "linear", "average": "ema"},
        {"probe": "mlp", "optimizer": "lookahead"},
        {"probe": "knn", "epochs": 1},
    ],
    ids=str,
)
def test_only_the_probe_changes_and_a_killed_training_resumes_bit_for_bit(
    prepared: Prepared, tmp_path: Path, given: dict[str, Any]
) -> None:
    options = options_of(**{**GIVEN, **given})

    def made(folder: str) -> Session:
        torch.manual_seed(0)
        return Session(options, prepared, CPU, tmp_path / folder)

    whole = made("whole")
    before = {k: v.clone() for k, v in whole.network.state_dict().items()}
    whole.fit(Hooks())
    after = whole.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.startswith("backbone.classifier.layers.") for name in changed)
    assert bool(changed) == (given["probe"] != "knn")

    made("parts").fit(Hooks(), epochs=2)
    part = made("parts")
    part.fit(Hooks())
    assert part.training.progress.best_auc == whole.training.progress.best_auc
    for name, value in part.network.state_dict().items():
        assert torch.equal(value, after[name])
    logits, again = whole.outputs(["val", "test"]), part.outputs(["val", "test"])
    assert all((logits[split] == again[split]).all() for split in logits)


def test_scores_of_features_are_those_of_the_images(prepared: Prepared, tmp_path: Path) -> None:
    torch.manual_seed(0)
    session = Session(options_of(**GIVEN), prepared, CPU, tmp_path)
    session.fit(Hooks())
    test = prepared.manifest.split("test")
    images = ImageFiles(test.files(), Preprocess(SIZE, "resize"))
    squares = torch.stack([torch.tensor(images[0, row].pixels) for row in range(len(test))])
    with torch.inference_mode():
        wanted = session.network.eval()(squares.permute(0, 3, 1, 2))
    found = torch.from_numpy(session.outputs(["test"])["test"][:, 0]).float()
    assert found.std() > 1e-3
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"hflip": 0.5}, ["--hflip 0.5", "Give --hflip 0.0"]),
        ({"mixup": 0.2, "crop": 16}, ["--crop 16, --mixup 0.2", "Give --crop 0 --mixup 0.0"]),
        ({"recompress": 1.0}, ["--recompress 1.0"]),
        ({"adversarial": "fgsm"}, ["--adversarial fgsm", "--adversarial none"]),
        ({"precision": "bf16"}, ["--precision bf16", "--precision fp32"]),
        ({"geometry": "random_crop"}, ["--geometry random_crop", "center_crop"]),
        ({"probe": "knn"}, ["--epochs 4", "--epochs 1"]),
        ({"probe": "knn", "epochs": 1, "pos_weight": "auto"}, ["--pos-weight auto"]),
    ],
)
def test_what_cannot_act_on_fixed_features_is_refused(
    given: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        options_of(**{**GIVEN, **given})
    assert all(text in str(caught.value) for text in named)


def test_defaults_that_cannot_act_are_refused_and_the_recipe_leaves_them_out() -> None:
    with pytest.raises(UserError, match=r"--hflip 0\.5, --jitter 0\.1, --blur 0\.2.*recipe probe"):
        TrainingOptions.resolve({"probe": "linear", "precision": "fp32"})
    for probe, epochs in (("linear", 25), ("mlp", 25), ("knn", 1)):
        made = type(options_of()).resolve({"recipe": "probe", "probe": probe, "epochs": epochs})
        assert made.model.probe == probe
