"""Initial weights: which are taken and which are refused."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from synthdetect.models.networks import Network, build, first_convolution
from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import Start, initialise
from synthdetect.system.errors import UserError

ARCH, SIZE = "mobilenet_v3_large", 32
HEAD = ("classifier.3.weight", "classifier.3.bias")
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing cached, and every download is refused: nobody listens on that port."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies of its first use


@pytest.fixture(scope="module")
def source() -> State:
    """A trained network's state, as torchvision publishes them: with a thousand outputs."""
    torch.manual_seed(1)
    return dict(torchvision.models.get_model(ARCH, weights=None).state_dict())


@pytest.fixture
def network() -> Network:
    torch.manual_seed(2)
    return build(ModelSpec.of(ARCH, SIZE))


def refusal(network: Network, weights: Path | str) -> str:
    """The message; the network must be as it was."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError) as caught:
        initialise(network, str(weights))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert "--weights" in str(caught.value)
    assert str(weights) in str(caught.value)
    return str(caught.value)


# --- weights that are taken


def wrapped(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def save_safetensors(state: State, folder: Path) -> Path:
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def save_torch(content: Any, folder: Path, name: str = "weights.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


@pytest.mark.parametrize(
    "save",
    [
        pytest.param(save_safetensors, id="safetensors"),
        pytest.param(save_torch, id="pt"),
        pytest.param(lambda s, f: save_torch(s, f, "weights.pth"), id="pth"),
        pytest.param(lambda s, f: save_torch({"state_dict": s, "epoch": 3}, f), id="state_dict"),
        pytest.param(lambda s, f: save_torch({"model": s, "args": {"lr": 0.1}}, f), id="model"),
        pytest.param(lambda s, f: save_torch(wrapped(s, "module."), f), id="DataParallel"),
        pytest.param(lambda s, f: save_safetensors(wrapped(s, "backbone."), f), id="ours"),
        pytest.param(lambda s, f: save_torch(wrapped(s, "module.backbone."), f), id="ours in DP"),
        pytest.param(
            lambda s, f: save_torch({k: v for k, v in s.items() if k not in HEAD}, f), id="headless"
        ),
    ],
)
def test_a_file_fills_everything_but_the_last_layer(
    network: Network, source: State, tmp_path: Path, save: Callable[[State, Path], Path]
) -> None:
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    path = save(source, tmp_path)
    start = initialise(network, str(path))
    assert start == Start("file", hashlib.sha256(path.read_bytes()).hexdigest())
    after = network.backbone.state_dict()
    body = [name for name in after if name not in HEAD]
    assert [name for name in body if not torch.equal(after[name], source[name])] == []
    assert [name for name in HEAD if not torch.equal(after[name], before[name])] == []


def test_a_file_fills_a_network_with_another_front_end(source: State, tmp_path: Path) -> None:
    network = build(ModelSpec.of(ARCH, SIZE, "npr"))
    assert initialise(network, str(save_safetensors(source, tmp_path))).source == "file"
    state = network.backbone.state_dict()
    assert all(torch.equal(state[name], source[name]) for name in state if name not in HEAD)


@pytest.mark.parametrize("front_end", ["rgb+npr", "dct"])
def test_the_first_convolution_of_a_file_is_repeated_for_more_channels(
    source: State, tmp_path: Path, front_end: str
) -> None:
    network = build(ModelSpec.of(ARCH, SIZE, front_end))
    initialise(network, str(save_safetensors(source, tmp_path)))
    path, convolution = first_convolution(network.backbone)
    given = source[f"{path}.weight"]
    channels = network.front_end.channels
    for channel in (0, 4, channels - 1):
        expected = given[:, channel % 3] * 3 / channels
        torch.testing.assert_close(convolution.weight[:, channel].detach(), expected)
    grey = torch.rand(1, 1, 8, 8)  # the same in all channels: the output is what it was
    torch.testing.assert_close(
        convolution(grey.expand(1, channels, 8, 8)),
        torch.nn.functional.conv2d(
            grey.expand(1, 3, 8, 8), given, stride=convolution.stride, padding=convolution.padding
        ),
    )
    again = build(ModelSpec.of(ARCH, SIZE, front_end))
    wider = {k: v.contiguous() for k, v in network.backbone.state_dict().items()}
    initialise(again, str(save_safetensors(wider, tmp_path)))
    assert torch.equal(first_convolution(again.backbone)[1].weight, convolution.weight)


def test_a_whole_networks_weights_fill_one_without_its_last_stages(tmp_path: Path) -> None:
    whole = dict(torchvision.models.resnet18(weights=None).state_dict())
    network = build(ModelSpec.of("resnet18_layer2", SIZE))
    assert initialise(network, str(save_safetensors(whole, tmp_path))).source == "file"
    state = network.backbone.state_dict()
    head = {"fc.weight", "fc.bias"}
    assert all(torch.equal(state[name], whole[name]) for name in state.keys() - head)
    assert not any(name.startswith(("layer3", "layer4")) for name in state)


def test_none_keeps_the_random_weights(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert initialise(network, "none") == Start("random", "asked for")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_old_names_of_densenets_layers_are_understood(tmp_path: Path) -> None:
    """torchvision's published densenet weights still say `norm.1` for `norm1`."""
    with torch.device("meta"):
        names = torchvision.models.get_model("densenet121", weights=None).state_dict()
    state = {name: torch.full((), 0.5).expand(value.shape) for name, value in names.items()}
    old = {}
    for name, value in state.items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{part}{number}.", f".{part}.{number}.")
        old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    network = build(ModelSpec.of("densenet121", SIZE))
    assert initialise(network, str(save_torch(old, tmp_path))).source == "file"
    weight = network.backbone.get_parameter("features.denseblock1.denselayer1.norm1.weight")
    assert set(weight.tolist()) == {0.5}


def test_a_transformers_positions_are_interpolated_to_the_image_size(tmp_path: Path) -> None:
    """From 48 to 32 pixels: nine patches to four, and the class token's position as it was."""
    network = build(ModelSpec.of("vit_b_16", SIZE))
    state = {  # one number a tensor, so that the file is small
        name: torch.zeros(()).expand(value.shape)
        for name, value in network.backbone.state_dict().items()
    }
    positions = torch.ones(1, 10, 768)
    positions[0, 0] = 7.0
    state["encoder.pos_embedding"] = positions
    initialise(network, str(save_torch(state, tmp_path)))
    found = network.backbone.get_parameter("encoder.pos_embedding")
    assert found.shape == (1, 5, 768)
    assert set(found[0, 0].tolist()) == {7.0}
    torch.testing.assert_close(found[0, 1:], torch.ones(4, 768))


# --- weights that are refused


def test_a_file_that_is_not_there_is_refused_with_what_else_one_can_say(
    network: Network, tmp_path: Path
) -> None:
    message = refusal(network, tmp_path / "absent.pt")
    assert "auto, auto_v1, imagenet, imagenet_v1, none" in message
    refusal(network, "imagenett")
    refusal(network, tmp_path)


def test_a_tensor_of_another_shape_is_refused_by_name(
    network: Network, source: State, tmp_path: Path
) -> None:
    changed = source | {"features.0.0.weight": torch.zeros(16, 1, 3, 3)}
    message = refusal(network, save_torch(changed, tmp_path))
    assert "'features.0.0.weight'" in message
    assert "0 tensors missing, 1 of another shape, 0 unknown" in message


def test_a_missing_tensor_is_refused_by_name(
    network: Network, source: State, tmp_path: Path
) -> None:
    fewer = {k: v for k, v in source.items() if k != "features.0.0.weight"}
    message = refusal(network, save_safetensors(fewer, tmp_path))
    assert "'features.0.0.weight'" in message
    assert "1 tensors missing, 0 of another shape, 0 unknown" in message


def test_a_tensor_too_many_is_refused_by_name(
    network: Network, source: State, tmp_path: Path
) -> None:
    message = refusal(network, save_torch(source | {"extra.bias": torch.zeros(1)}, tmp_path))
    assert "'extra.bias'" in message


def test_another_architectures_weights_are_refused(network: Network, tmp_path: Path) -> None:
    with torch.device("meta"):
        names = torchvision.models.get_model("resnet18", weights=None).state_dict()
    state = {name: torch.zeros(()).expand(value.shape) for name, value in names.items()}
    assert f"does not fit {ARCH}" in refusal(network, save_torch(state, tmp_path))


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 5000, -100])
def test_a_damaged_file_is_refused(
    network: Network, source: State, tmp_path: Path, name: str, kept: int
) -> None:
    path = tmp_path / name
    save = save_torch if name.endswith(".pt") else save_safetensors
    path.write_bytes(save(source, tmp_path).read_bytes()[:kept])
    refusal(network, path)


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(2)], torch.zeros(2), {}, 3, {"state_dict": {}}, {"epoch": 1}, {0: torch.ones(2)}],
    ids=str,
)
def test_a_file_without_a_state_dictionary_is_refused(
    network: Network, tmp_path: Path, content: Any
) -> None:
    refusal(network, save_torch(content, tmp_path))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (open, (str(self.trace), "w"))


@pytest.mark.parametrize("name", ["bomb.pt", "bomb.pth", "bomb.bin", "bomb.safetensors"])
@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
def test_a_file_that_would_execute_something_is_refused_and_does_not(
    network: Network, source: State, tmp_path: Path, name: str, how: str
) -> None:
    path, trace = tmp_path / name, tmp_path / "executed"
    content = {"state_dict": source, "optimizer": Bomb(trace)}
    if how == "torch":
        torch.save(content, path)
    elif how == "old torch":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(Bomb(trace), protocol=2))
    refusal(network, path)
    assert not trace.exists()


# --- ImageNet


def test_auto_starts_at_random_and_says_why_where_weights_are_not_to_be_had(
    network: Network,
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start = initialise(network, "auto")
    assert start.source == "random"
    assert start.detail.startswith("MobileNet_V3_Large_Weights.IMAGENET1K_V2 ")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_imagenet_is_an_error_that_says_where_to_put_the_file(
    network: Network, tmp_path: Path
) -> None:
    message = refusal(network, "imagenet")
    assert "MobileNet_V3_Large_Weights.IMAGENET1K_V2" in message
    assert "mobilenet_v3_large-5c1a4163.pth" in message
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in message


@pytest.mark.parametrize(
    ("weights", "name"),
    [("imagenet", "IMAGENET1K_V2"), ("imagenet_v1", "IMAGENET1K_V1"), ("auto_v1", "IMAGENET1K_V1")],
)
def test_the_first_weights_of_an_architecture_can_be_asked_for(
    network: Network, source: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    weights: str, name: str,
) -> None:  # fmt: skip
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for entry, value in zip(torchvision.models.MobileNet_V3_Large_Weights, (1.0, 2.0), strict=True):
        state = {k: torch.full_like(v, value) for k, v in source.items()}
        digest = hashlib.sha256(save_torch(state, tmp_path).read_bytes()).hexdigest()[:8]
        monkeypatch.setattr(entry.value, "url", f"http://127.0.0.1:9/{entry.name}-{digest}.pth")
        (tmp_path / "weights.pt").rename(checkpoints / f"{entry.name}-{digest}.pth")
    start = initialise(network, weights)
    assert start == Start("imagenet", f"MobileNet_V3_Large_Weights.{name}")
    first = network.backbone.get_parameter("features.0.0.weight")
    assert set(first.flatten().tolist()) == {float(name[-1])}


def test_first_weights_that_are_not_to_be_had_are_named(network: Network) -> None:
    assert "MobileNet_V3_Large_Weights.IMAGENET1K_V1" in refusal(network, "imagenet_v1")
    start = initialise(network, "auto_v1")
    assert start.source == "random"
    assert start.detail.startswith("MobileNet_V3_Large_Weights.IMAGENET1K_V1 ")


@pytest.fixture
def forged(source: State, tmp_path: Path) -> Path:
    """Other weights under the name of the published ones, which ends in their hash."""
    path = tmp_path / "torch" / "hub" / "checkpoints" / "mobilenet_v3_large-5c1a4163.pth"
    path.parent.mkdir(parents=True)
    torch.save(source, path)
    assert not hashlib.sha256(path.read_bytes()).hexdigest().startswith("5c1a4163")
    return path


def test_a_cached_file_with_another_hash_is_refused_as_imagenet(
    network: Network, forged: Path
) -> None:
    refusal(network, "imagenet")


def test_a_cached_file_with_another_hash_is_not_taken_for_imagenet_by_auto(
    network: Network, forged: Path
) -> None:
    start = initialise(network, "auto")
    assert start.source == "random"
    assert start.detail.startswith("MobileNet_V3_Large_Weights.IMAGENET1K_V2 ")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", None], ids=["empty", "HTML", "cut"])
@pytest.mark.parametrize("weights", ["auto", "imagenet"])
def test_a_cached_file_that_is_damaged_is_no_internal_error(
    network: Network, forged: Path, weights: str, content: bytes | None
) -> None:
    forged.write_bytes(forged.read_bytes()[:5000] if content is None else content)
    if weights == "imagenet":
        refusal(network, weights)
    else:
        assert initialise(network, weights).source == "random"
