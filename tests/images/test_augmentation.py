"""Tests of the augmentation of training images."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from synthdetect.images.augmentation import augment, draws, erase_, gaussian_blur, jitter_, rotate
from synthdetect.images.options import AugmentationOptions

ONE = torch.ones(1)


def strength(**given: float) -> AugmentationOptions:
    """Options of the augmentation; those that are not given are off."""
    off = {"hflip": 0.0, "jitter": 0.0, "blur": 0.0}
    return AugmentationOptions(**{**off, **given})


ALL = strength(hflip=0.5, jitter=0.3, blur=0.5, blur_sigma=3.0, rotation=30.0, random_erasing=0.5)


def noise(batch: int = 1, height: int = 20, width: int = 20, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 3, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def mid_grey(batch: int = 1) -> Tensor:
    """Values from 90 to 165, which factors near 1 keep in range."""
    return 90 + noise(batch).float() * 75 / 255


def fixed(*values: float, batch: int = 1) -> npt.NDArray[np.float32]:
    """Given random numbers: flip, angle, 3 for colour, blur, sigma, 5 for erasing."""
    return np.tile(np.array(values, dtype=np.float32), (batch, 1))


def test_nothing_in_it_waits_for_an_accelerator() -> None:
    """Tensors on `meta` have no values, so that whatever would fetch one fails."""
    random = draws(0, 1, range(16))
    changed = augment(noise(16).to("meta"), ALL, random)
    assert changed.device.type == "meta"
    assert changed.shape == (16, 3, 20, 20)
    assert (random[:, 5] < ALL.blur).any()
    assert (random[:, 7] < ALL.random_erasing).any()


class TestDraws:
    def test_they_are_the_same_for_the_same_image(self) -> None:
        together = draws(1, 2, [5, 6, 7])
        assert together.shape == (3, 12)
        assert together.dtype == np.float32
        np.testing.assert_array_equal(draws(1, 2, [7, 5]), together[[2, 0]])
        np.testing.assert_array_equal(draws(1, 2, [6]), together[[1]])

    def test_seed_epoch_and_row_each_change_them(self) -> None:
        keys = ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0))
        found = [draws(seed, epoch, [row]) for seed, epoch, row in keys]
        assert len({values.tobytes() for values in found}) == 4
        assert draws(1, 2, [3]).tobytes() != draws(3, 2, [1]).tobytes()

    def test_they_are_uniform_from_0_to_below_1(self) -> None:
        values = draws(42, 0, range(4000))
        assert values.min() >= 0
        assert values.max() < 1
        np.testing.assert_allclose(values.mean(axis=0), 0.5, atol=0.02)
        np.testing.assert_allclose(values.var(axis=0), 1 / 12, atol=0.005)
        correlation = np.corrcoef(values.T) - np.eye(12)
        assert np.abs(correlation).max() < 0.06


class TestAugment:
    def test_without_options_images_are_unchanged(self) -> None:
        images = noise(4)
        changed = augment(images, strength(), draws(1, 0, range(4)))
        assert changed.dtype == torch.float32
        assert torch.equal(changed, images.float())

    def test_the_input_is_not_modified(self) -> None:
        for images in (noise(6), noise(6).contiguous(memory_format=torch.channels_last)):
            before = images.clone()
            augment(images, ALL, draws(1, 0, range(6)))
            assert torch.equal(images, before)

    @pytest.mark.parametrize("name", ["hflip", "blur"])
    def test_probability_0_is_never_and_1_always(self, name: str) -> None:
        images = noise(1).expand(200, -1, -1, -1)
        random = draws(1, 0, range(200))
        for probability, expected in ((0.0, 0), (1.0, 200)):
            changed = augment(images, strength(**{name: probability}), random)
            assert (changed != images).flatten(1).any(dim=1).sum() == expected

    @pytest.mark.parametrize("name", ["hflip", "blur"])
    def test_a_probability_is_that_share_of_the_images(self, name: str) -> None:
        images = noise(1, 6, 6).expand(2000, -1, -1, -1)
        changed = augment(images, strength(**{name: 0.3}), draws(1, 0, range(2000)))
        share = (changed != images).flatten(1).any(dim=1).float().mean()
        assert share == pytest.approx(0.3, abs=0.03)

    def test_extremes_of_probability_hold_for_extreme_draws(self) -> None:
        images = noise(1)
        for values in (fixed(*[0.0] * 12), fixed(*[1 - 2**-24] * 12)):
            assert torch.equal(augment(images, strength(), values), images.float())
            flipped = augment(images, strength(hflip=1.0), values)
            assert torch.equal(flipped, images.flip(3).float())

    def test_a_flip_is_exact_and_horizontal(self) -> None:
        images = noise(3, 4, 6)
        random = np.concatenate(
            [fixed(u, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5) for u in (0.1, 0.9, 0.2)]
        )
        changed = augment(images, strength(hflip=0.5), random)
        mirrored = images.float().numpy()[..., ::-1]
        np.testing.assert_array_equal(changed[0].numpy(), mirrored[0])
        np.testing.assert_array_equal(changed[1].numpy(), images[1].float().numpy())
        np.testing.assert_array_equal(changed[2].numpy(), mirrored[2])

    def test_the_memory_layout_has_no_effect(self) -> None:
        images, random = noise(5), draws(1, 0, range(5))
        last = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(augment(images, ALL, random), augment(last, ALL, random))

    @pytest.mark.parametrize(
        "options", [strength(hflip=0.5), strength(rotation=30.0), strength(hflip=0.5, rotation=9.0)]
    )
    def test_an_image_alone_is_augmented_as_in_a_batch(self, options: AugmentationOptions) -> None:
        images, random = noise(8), draws(1, 0, range(8))
        together = augment(images, options, random)
        for row in range(8):
            alone = augment(images[[row]], options, random[[row]])
            assert torch.equal(alone[0], together[row])

    @pytest.mark.parametrize(
        "options",
        [
            strength(jitter=0.3),
            strength(blur=1.0),
            strength(blur=0.5, blur_sigma=3.0),
            strength(blur=1.0, blur_sigma=10.0),
            ALL,
        ],
    )
    def test_jitter_and_blur_too_do_not_depend_on_the_batch(
        self, options: AugmentationOptions
    ) -> None:
        images, random = noise(8, 64, 64), draws(1, 0, range(8))
        random[:, 5] = [0.1, 0.9] * 4  # with a probability of 0.5, every second image is blurred
        random[:, 6] = np.linspace(0, 0.99, 8)  # from the weakest blur to the strongest
        together = augment(images, options, random)
        for row in range(8):
            alone = augment(images[[row]], options, random[[row]])
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-3)

    @pytest.mark.parametrize("u", [0.0, 0.25, 0.5, 0.75])
    def test_values_stay_in_range(self, u: float) -> None:
        images = torch.cat([noise(2), torch.zeros_like(noise(1)), torch.full_like(noise(1), 255)])
        options = strength(hflip=1.0, jitter=1.0, blur=1.0, blur_sigma=5.0, rotation=180.0)
        changed = augment(images, options, fixed(*[u] * 8, batch=4))
        assert changed.min() >= 0
        assert changed.max() <= 255
        assert changed.isfinite().all()

    @pytest.mark.parametrize(
        ("column", "options", "expected"),
        [
            (1, strength(rotation=20.0), lambda x: rotate(x, torch.tensor([20.0]))),
            (2, strength(jitter=0.1), lambda x: x * 1.1),
            (3, strength(jitter=0.1), lambda x: tv.adjust_contrast(x / 255, 1.1) * 255),
            (4, strength(jitter=0.1), lambda x: tv.adjust_saturation(x / 255, 1.1) * 255),
            (6, strength(blur=1.0), lambda x: gaussian_blur(x, torch.tensor([1.0]))),
        ],
    )
    def test_each_strength_is_reached_at_the_end_of_the_range(
        self, column: int, options: AugmentationOptions, expected: object
    ) -> None:
        images = mid_grey().round().to(torch.uint8)
        values = [0.5] * 8
        values[column] = 1 - 2**-24
        changed = augment(images, options, fixed(*values))
        wanted = expected(images.float())  # type: ignore[operator]
        torch.testing.assert_close(changed, wanted, rtol=0, atol=0.1)
        assert (changed - images).abs().max() > 1

    def test_the_weakest_blur_is_negligible(self) -> None:
        images = noise(1)
        values = fixed(0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.5)
        changed = augment(images, strength(blur=1.0, blur_sigma=5.0), values)
        torch.testing.assert_close(changed, images.float(), rtol=0, atol=1e-3)


class TestJitter:
    def test_factors_of_one_change_nothing(self) -> None:
        images = noise(3).float()
        changed = images.clone()
        jitter_(changed, torch.ones(3), torch.ones(3), torch.ones(3))
        torch.testing.assert_close(changed, images, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("factor", [0.7, 0.9, 1.0, 1.1, 1.3])
    @pytest.mark.parametrize(
        ("position", "reference"),
        [(0, tv.adjust_brightness), (1, tv.adjust_contrast), (2, tv.adjust_saturation)],
    )
    def test_each_is_torchvisions(self, position: int, reference: object, factor: float) -> None:
        images = mid_grey(2)
        factors = [torch.ones(2)] * 3
        factors[position] = torch.full((2,), factor)
        expected = reference(images / 255, factor)  # type: ignore[operator]
        assert 0 < expected.min() < expected.max() < 1  # so that torchvision clamps nothing
        changed = images.clone()
        jitter_(changed, *factors)
        torch.testing.assert_close(changed / 255, expected, rtol=0, atol=1e-3)

    def test_the_three_together_are_torchvisions_in_any_order(self) -> None:
        images = mid_grey(1)
        changed = images.clone()
        jitter_(changed, 0.9 * ONE, 1.2 * ONE, 0.8 * ONE)
        steps = [
            (tv.adjust_brightness, 0.9),
            (tv.adjust_contrast, 1.2),
            (tv.adjust_saturation, 0.8),
        ]
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            expected = images / 255
            for step in order:
                expected = steps[step][0](expected, steps[step][1])
            torch.testing.assert_close(changed / 255, expected, rtol=0, atol=1e-3)

    def test_each_image_has_its_own_factors(self) -> None:
        images = mid_grey(3)
        factors = torch.tensor([[0.8, 1.0, 1.2], [1.1, 0.9, 1.0], [0.7, 1.0, 1.3]])
        together = images.clone()
        jitter_(together, *factors)
        for row in range(3):
            alone = images[[row]].clone()
            jitter_(alone, *factors[:, [row]])
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-3)

    def test_extremes_are_black_the_mean_and_grey(self) -> None:
        images = mid_grey(1)
        zero = torch.zeros(1)
        black, flat, grey = (images.clone() for _ in range(3))
        jitter_(black, zero, ONE, ONE)
        jitter_(flat, ONE, zero, ONE)
        jitter_(grey, ONE, ONE, zero)
        luma = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
        assert black.abs().max() == 0
        torch.testing.assert_close(flat, luma.mean().expand_as(flat), rtol=0, atol=1e-2)
        torch.testing.assert_close(grey, luma[:, None].expand_as(grey), rtol=0, atol=1e-2)


class TestBlur:
    @pytest.mark.parametrize("sigma", [0.3, 0.5, 0.8, 1.0, 1.7, 3.0])
    @pytest.mark.parametrize(("height", "width"), [(20, 20), (17, 31)])
    def test_it_is_torchvisions(self, sigma: float, height: int, width: int) -> None:
        images = noise(2, height, width).float()
        side = 2 * int(np.ceil(2 * sigma)) + 1
        expected = tv.gaussian_blur(images, [side, side], [sigma, sigma])
        changed = gaussian_blur(images, torch.tensor([sigma, sigma]))
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-3)

    def test_each_image_has_its_own_sigma_and_radius(self) -> None:
        images = noise(6, 50, 50).float()
        sigmas = torch.tensor([0.1, 0.5, 0.8, 1.0, 3.0, 10.0])
        together = gaussian_blur(images, sigmas)
        for row in range(6):
            alone = gaussian_blur(images[[row]], sigmas[[row]])
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-3)

    @pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
    def test_a_constant_image_is_unchanged(self, sigma: float) -> None:
        images = torch.full((1, 3, 50, 50), 77.0)
        torch.testing.assert_close(
            gaussian_blur(images, torch.tensor([sigma])), images, rtol=0, atol=1e-3
        )

    @pytest.mark.parametrize("sigma", [0.1, 1.0, 4.0])
    def test_the_kernel_sums_to_one_and_is_symmetric(self, sigma: float) -> None:
        point = torch.zeros(1, 3, 41, 41)
        point[0, :, 20, 20] = 1
        kernel = gaussian_blur(point, torch.tensor([sigma]))
        torch.testing.assert_close(kernel.sum(dim=(2, 3)), torch.ones(1, 3), rtol=0, atol=1e-5)
        for other in (kernel.flip(2), kernel.flip(3), kernel.transpose(2, 3)):
            torch.testing.assert_close(kernel, other, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (3, 2), (16, 5)])
    def test_images_smaller_than_the_kernel_are_blurred(self, height: int, width: int) -> None:
        images = noise(1, height, width).float()
        changed = gaussian_blur(images, torch.tensor([10.0]))
        assert changed.shape == images.shape
        assert images.min() - 1e-3 <= changed.min()
        assert changed.max() <= images.max() + 1e-3

    def test_the_input_is_not_modified(self) -> None:
        images = noise(1).float()
        before = images.clone()
        gaussian_blur(images, ONE)
        assert torch.equal(images, before)


class TestRotation:
    @pytest.mark.parametrize(("height", "width"), [(20, 20), (12, 30)])
    def test_an_angle_of_0_has_no_effect(self, height: int, width: int) -> None:
        images = noise(2, height, width).float()
        torch.testing.assert_close(rotate(images, torch.zeros(2)), images, rtol=0, atol=1e-2)

    @pytest.mark.parametrize(("degrees", "turns"), [(90.0, 1), (180.0, 2), (-90.0, 3), (-180.0, 2)])
    def test_right_angles_are_exact_and_counter_clockwise(self, degrees: float, turns: int) -> None:
        images = noise(1).float()
        changed = rotate(images, torch.tensor([degrees]))
        expected = torch.rot90(images, turns, (2, 3))
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-2)

    def test_180_degrees_turn_an_oblong_image_upside_down(self) -> None:
        images = noise(1, 12, 30).float()
        changed = rotate(images, torch.tensor([180.0]))
        torch.testing.assert_close(changed, images.flip(2, 3), rtol=0, atol=1e-2)

    @pytest.mark.parametrize("degrees", [7.0, -30.0, 45.0, 90.0])
    @pytest.mark.parametrize(("height", "width"), [(24, 24), (16, 40), (40, 16)])
    def test_it_is_torchvisions(self, degrees: float, height: int, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand((1, 3, 4, 4), generator=generator) * 255
        images = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
        changed = rotate(images, torch.tensor([degrees]))
        expected = tv.rotate(images, degrees, tv.InterpolationMode.BILINEAR)
        # torchvision has a sharp border; grid_sample fades to black over half a pixel.
        inside = rotate(torch.ones_like(images), torch.tensor([degrees])) > 0.999
        assert inside.float().mean() > 0.35
        torch.testing.assert_close(changed[inside], expected[inside], rtol=0, atol=0.5)

    def test_corners_are_black(self) -> None:
        images = torch.full((1, 3, 40, 40), 200.0)
        changed = rotate(images, torch.tensor([45.0]))
        for y, x in ((0, 0), (0, 39), (39, 0), (39, 39)):
            assert changed[0, :, y, x].abs().max() == 0
        torch.testing.assert_close(
            changed[..., 12:28, 12:28], torch.full((1, 3, 16, 16), 200.0), rtol=0, atol=1e-2
        )

    def test_each_image_has_its_own_angle(self) -> None:
        images = noise(3).float()
        changed = rotate(images, torch.tensor([0.0, 90.0, 180.0]))
        for row, turns in enumerate((0, 1, 2)):
            expected = torch.rot90(images[row], turns, (1, 2))
            torch.testing.assert_close(changed[row], expected, rtol=0, atol=1e-2)


class TestErasing:
    def painted(self, random: list[float], height: int = 40, width: int = 60) -> Tensor:
        """Mask of the erased pixels of an image of zeros, shape (height, width)."""
        image = torch.zeros(3, height, width)
        erase_(image, random)
        inside = image[0] != 0
        for plane, value in zip(image, (123.675, 116.28, 103.53), strict=True):
            assert torch.equal(plane != 0, inside)
            assert plane[inside].unique().tolist() == pytest.approx([value])
        return inside

    @pytest.mark.parametrize("proportion", [0.0, 0.5, 0.99])
    @pytest.mark.parametrize(("area", "share"), [(0.0, 0.02), (0.5, 0.175), (1 - 2**-24, 0.33)])
    def test_its_area_is_2_to_33_percent(
        self, area: float, share: float, proportion: float
    ) -> None:
        inside = self.painted([area, proportion, 0.5, 0.5], 200, 200)
        expected = min(share, share / (share * 3.3) ** 0.5)  # a side longer than the image is cut
        assert inside.float().mean().item() == pytest.approx(expected, rel=0.05)

    @pytest.mark.parametrize(("draw", "proportion"), [(0.0, 0.3), (0.5, 0.995), (1.0, 3.3)])
    def test_its_proportions(self, draw: float, proportion: float) -> None:
        inside = self.painted([0.2, draw, 0.5, 0.5], 200, 200)
        rows, columns = inside.any(dim=1).sum().item(), inside.any(dim=0).sum().item()
        assert inside.sum() == rows * columns  # a rectangle
        assert rows / columns == pytest.approx(proportion, rel=0.05)

    @pytest.mark.parametrize("end", [0, -1])
    def test_it_reaches_every_edge(self, end: int) -> None:
        place = 1 - 2**-24 if end else 0.0
        inside = self.painted([0.3, 0.5, place, place])
        assert inside[end].any()
        assert inside[:, end].any()
        assert not inside[-1 - end].any()

    def test_the_given_share_of_the_images_is_erased(self) -> None:
        images = noise(2000, 8, 8)
        changed = augment(images, strength(random_erasing=0.3), draws(1, 0, range(2000)))
        differs = (changed != images).flatten(1).any(dim=1)
        assert differs.float().mean().item() == pytest.approx(0.3, abs=0.03)
