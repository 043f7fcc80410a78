"""Grad-CAM finds the decisive region for every architecture and leaves the network unchanged."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from synthdetect.explanation.gradcam import explain, grad_cam
from synthdetect.images.geometry import Preprocess
from synthdetect.images.options import VIEWS
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.networks import Network, build
from synthdetect.models.spec import ModelSpec

MADE = "mobilenet_v3_large"  # its explained layer is named `features`
RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (124, 116, 104)  # grey: the mean of ImageNet


class RedAgainstBlue(nn.Module):
    """A network with evidence for synthetic in red and for real in blue patches of 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        colours = nn.Conv2d(3, 2, 8, stride=8)
        weight = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]]) / 64
        colours.weight = nn.Parameter(weight[:, :, None, None].expand(2, 3, 8, 8).clone())
        colours.bias = nn.Parameter(torch.tensor([-0.1, -0.1]))
        self.features = nn.Sequential(colours, nn.ReLU())
        last = nn.Linear(2, 1, bias=False)
        last.weight = nn.Parameter(torch.tensor([[1.0, -1.0]]))
        self.classifier = nn.Sequential(*[nn.Identity()] * 3, last)  # at the name of the real one

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits


@pytest.fixture(scope="module")
def made() -> Network:
    """A network whose backbone is `RedAgainstBlue`."""
    network = build(ModelSpec.of(MADE, 64))
    network.backbone = RedAgainstBlue()
    return network


def patched(patches: dict[tuple[int, int], tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    """A grey image with patches of 8 x 8 pixels, given by colour at (row, column) cells."""
    image = np.full((64, 64, 3), GREY, np.uint8)
    for (row, column), colour in patches.items():
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = colour
    return image


def cell_of_peak(cam: npt.NDArray[np.float32]) -> tuple[int, int]:
    row, column = np.unravel_index(cam.argmax(), cam.shape)
    return int(row) // 8, int(column) // 8


def test_the_peak_is_on_the_decisive_patch(made: Network) -> None:
    squares = np.stack([patched({(1, 6): RED, (5, 2): BLUE}), patched({(4, 4): BLUE, (7, 0): RED})])
    synthetic = grad_cam(made, MADE, squares, toward=1)
    assert [cell_of_peak(cam) for cam in synthetic] == [(1, 6), (7, 0)]
    real = grad_cam(made, MADE, squares, toward=0)
    assert [cell_of_peak(cam) for cam in real] == [(5, 2), (4, 4)]
    assert (real[0, 8:16, 48:56] == 0).all()  # evidence for the other label is left out


def test_the_map_of_the_mirror_image_is_laid_back_onto_the_image(made: Network) -> None:
    squares = np.stack([patched({(1, 6): RED}), patched({(5, 2): RED})])
    single, flip = (
        grad_cam(made, MADE, squares, toward=1, views=views) for views in ("single", "flip")
    )
    np.testing.assert_allclose(flip, single, atol=1e-6)  # the network is symmetric
    assert [cell_of_peak(cam) for cam in flip] == [(1, 6), (5, 2)]


@pytest.mark.parametrize("views", [name for name, entry in VIEWS.items() if entry.cropped])
def test_the_maps_of_crops_are_laid_back_onto_the_image(made: Network, views: str) -> None:
    squares = np.stack([patched({(1, 6): RED}), patched({(6, 1): RED})])
    maps = grad_cam(made, MADE, squares, toward=1, views=views)
    assert [cell_of_peak(cam) for cam in maps] == [(1, 6), (6, 1)]


def test_each_image_can_be_explained_toward_its_own_label(made: Network) -> None:
    squares = np.stack([patched({(1, 6): RED, (5, 2): BLUE})] * 2)
    cams = grad_cam(made, MADE, squares, toward=pd.Series([1, 0], index=[7, 3]))
    assert [cell_of_peak(cam) for cam in cams] == [(1, 6), (5, 2)]


def test_the_map_is_zero_without_evidence_for_the_label(made: Network) -> None:
    squares = np.stack([patched({(1, 6): RED}), patched({(2, 2): BLUE})])
    cams = grad_cam(made, MADE, squares, toward=0)
    assert (cams[0] == 0).all()
    assert cams[1].max() == 1


def test_a_batch_gives_the_maps_of_single_images(made: Network) -> None:
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (35, 64, 64, 3), dtype=np.uint8)
    answers = rng.integers(0, 2, 35)
    together = grad_cam(made, MADE, squares, toward=answers)
    alone = [
        grad_cam(made, MADE, square[None], toward=answer)[0]
        for square, answer in zip(squares, answers, strict=True)
    ]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert grad_cam(made, MADE, squares[:0], toward=1).shape == (0, 64, 64)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest) -> tuple[str, Network]:
    torch.manual_seed(0)
    network = build(ModelSpec.of(request.param, 64))
    nn.init.normal_(network.head.weight, std=0.05)  # some start at zero
    return request.param, network


@pytest.fixture(scope="module")
def squares() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def by_hand(
    arch: str, network: Network, squares: npt.NDArray[np.uint8], answer: int
) -> npt.NDArray[np.float32]:
    """Equations 1 and 2 of Selvaraju et al., without captum."""
    kept: list[Tensor] = []
    layer = network.backbone.get_submodule(ARCHITECTURES[arch].cam)

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output.relu() if arch == "densenet121" else output)  # an in-place ReLU follows
        return kept[0]

    hook = layer.register_forward_hook(keep)
    logits = network.eval()(torch.from_numpy(squares).permute(0, 3, 1, 2))
    hook.remove()
    score = (logits if answer else -logits).sum()
    (gradient,) = torch.autograd.grad(score, kept[0])
    values = kept[0].detach()
    if arch == "vit_b_16":
        weights = gradient[:, 1:].mean(dim=1, keepdim=True)
        coarse = (weights * values[:, 1:]).sum(dim=2).reshape(len(squares), 4, 4)
    else:
        coarse = (gradient.mean(dim=(2, 3), keepdim=True) * values).sum(dim=1)
    fine = nn.functional.interpolate(coarse.relu()[:, None], 64, mode="bilinear")[:, 0].numpy()
    highest = fine.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.where(highest > 0, fine / np.where(highest > 0, highest, 1), 0))


def test_the_maps_equal_the_equations_and_the_network_is_left_unchanged(
    built: tuple[str, Network], squares: npt.NDArray[np.uint8]
) -> None:
    arch, network = built
    network.train()
    frozen = next(m for m in network.modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d))
    frozen.eval()
    parameter = next(network.parameters())
    parameter.grad = torch.ones_like(parameter)
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}

    cams = [grad_cam(network, arch, squares, toward=answer) for answer in (0, 1, 1)]

    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[n]) for n, value in network.state_dict().items())
    assert (parameter.grad == 1).all()
    assert [n for n, p in network.named_parameters() if p.grad is not None] == [
        next(n for n, _ in network.named_parameters())
    ]
    assert not any(m._forward_hooks for m in network.modules())
    assert np.array_equal(cams[1], cams[2])
    assert any(cam.any() for cam in cams)
    for answer, cam in enumerate(cams[:2]):
        assert cam.shape == (2, 64, 64)
        assert cam.dtype == np.float32
        assert np.isfinite(cam).all()
        assert cam.min() >= 0
        assert set(cam.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
        np.testing.assert_allclose(cam, by_hand(arch, network, squares, answer), atol=2e-4)


def test_predictions_are_explained_toward_the_predicted_label(
    made: Network, tmp_path: Path
) -> None:
    image = patched({(1, 6): RED, (5, 2): BLUE})
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        Image.fromarray(image).save(file)
    table = pd.DataFrame({"path": ["0.png", "1.png", "2.png"], "predicted": [1, 0, 0]})
    explanation = explain(
        made, MADE, table, [2, 0], [str(file) for file in files], Preprocess(64, "resize")
    )
    assert explanation.rows["path"].tolist() == ["2.png", "0.png"]
    assert (explanation.squares == image).all()
    assert [cell_of_peak(cam) for cam in explanation.maps] == [(5, 2), (1, 6)]
