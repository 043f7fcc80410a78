"""One suite for every kind of views, and the mean over them."""

import pytest
import torch
from torch import Tensor, nn

from synthdetect.images.options import VIEWS, misfit_of_views
from synthdetect.images.views import MeanOverViews, View

CROPPED = [name for name, entry in VIEWS.items() if entry.cropped]


class FirstPixel(nn.Module):
    """A network whose logit is the upper left value of the first channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, 0].float()


@pytest.fixture
def images() -> Tensor:
    return torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)


def views_of(name: str, images: Tensor) -> list[View]:
    views: list[View] = VIEWS[name].load()(images)
    return views


@pytest.mark.parametrize("side", [4, 5])
@pytest.mark.parametrize("name", VIEWS)
def test_a_map_over_a_view_is_laid_back_onto_the_image(name: str, side: int) -> None:
    images = torch.arange(1, 2 * 3 * side**2 + 1).reshape(2, 3, side, side)
    size = -(-side // 2) if VIEWS[name].cropped else side
    for view in views_of(name, images):
        assert view.images.shape == (2, 3, size, size)
        shown = view.undo(torch.ones_like(view.images))
        assert torch.equal(view.undo(view.images), images * shown)
        assert (shown.sum((1, 2, 3)) == 3 * size**2).all()


def test_the_logit_is_the_mean_over_the_views(images: Tensor) -> None:
    single, flip = (MeanOverViews(FirstPixel(), name)(images) for name in ("single", "flip"))
    assert single.tolist() == [0, 48]
    assert flip.tolist() == [1.5, 49.5]  # the upper right values are 3 and 51


def test_five_crops_are_the_corners_and_the_centre(images: Tensor) -> None:
    first = [view.images[0, 0, 0, 0].item() for view in views_of("five", images)]
    assert first == [0, 2, 8, 10, 5]
    assert MeanOverViews(FirstPixel(), "five")(images).tolist() == [5, 53]


def test_the_mean_over_the_grid_leaves_out_the_greatest_and_the_least(images: Tensor) -> None:
    images[:, :, 2, 2] = 250  # the first pixel of the last crop
    first = [view.images[0, 0, 0, 0].item() for view in views_of("grid", images)]
    assert first == [0, 1, 2, 4, 5, 6, 8, 9, 250]
    mean = MeanOverViews(FirstPixel(), "grid")(images[:1])
    assert mean.item() == pytest.approx(sum([1, 2, 4, 5, 6, 8, 9]) / 7)


def test_each_image_is_seen_where_it_has_texture() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    noise = torch.randint(0, 256, (3, 4, 4), generator=torch.Generator().manual_seed(0))
    images[0, :, :4, :4], images[1, :, 4:, 4:] = noise, noise
    most = views_of("texture", images)[0]
    assert torch.equal(most.images[0].long(), noise)
    assert torch.equal(most.images[1].long(), noise)
    assert torch.equal(most.undo(most.images), images)
    alone = [MeanOverViews(FirstPixel(), "texture")(image[None]).item() for image in images]
    assert MeanOverViews(FirstPixel(), "texture")(images).tolist() == alone


@pytest.mark.parametrize("name", VIEWS)
def test_crops_need_a_network_that_takes_half_the_side(name: str) -> None:
    fits = name not in CROPPED
    assert not misfit_of_views(name, 32, fixed_size=False)
    assert (not misfit_of_views(name, 31, fixed_size=False)) == fits
    assert (not misfit_of_views(name, 224, fixed_size=True)) == fits
