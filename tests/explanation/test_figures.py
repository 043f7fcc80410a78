"""Figures of explanations and spectra: content, and names for any generator and path."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from synthdetect.explanation.figures import (
    explanation_images,
    explanation_sheet,
    spectra_figures,
)
from synthdetect.explanation.gradcam import Explanation
from synthdetect.explanation.spectra import Spectra

SIZE = 32
GENERATORS = ["sd_1.4", "", "../../etc/x", "a $x^$ \n生成", "x" * 300, "sd_1.4"]


def explanation_of(generators: list[str]) -> Explanation:
    rng = np.random.default_rng(0)
    count = len(generators)
    rows = pd.DataFrame(
        {
            "path": [f"some/folder/{'long' * 20}$_{i}.jpg" for i in range(count)],
            "label": [int(name != "") for name in generators],
            "generator": generators,
            "predicted": [0] * count,
            "probability": np.linspace(0.1, 0.4, count),
        }
    )
    maps = np.zeros((count, SIZE, SIZE), np.float32)
    maps[:, 8:16, 8:16] = 1
    squares = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return Explanation(rows, squares, maps)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


def test_images_have_unique_safe_file_names_that_sort_by_rank() -> None:
    names = [name for name, _ in explanation_images(explanation_of(GENERATORS * 20))]
    assert len(set(names)) == len(names) == 120
    assert names == sorted(names)
    assert all(re.fullmatch(r"\d{3}_p0\.\d\d_[A-Za-z0-9_-]{1,40}\.png", name) for name in names)
    assert [name for name, _ in explanation_images(explanation_of(GENERATORS[:2]))] == [
        "01_p0.10_sd_1_4.png", "02_p0.40_real.png"
    ]  # fmt: skip


def test_an_image_is_the_original_beside_its_overlay() -> None:
    explanation = explanation_of(["sd"])
    ((_, image),) = explanation_images(explanation)
    assert (image.mode, image.size) == ("RGB", (2 * SIZE, SIZE))
    left, right = np.split(np.asarray(image), 2, axis=1)
    assert (left == explanation.squares[0]).all()
    grey = np.asarray(Image.fromarray(explanation.squares[0]).convert("L"))
    outside = explanation.maps[0] == 0
    assert (right[outside] == grey[outside][:, None]).all()
    red, _, blue = right[~outside].mean(axis=0)
    assert red > blue + 50


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_sheet_names_origin_and_prediction_of_each_image() -> None:
    figure = explanation_sheet("test: mistakes", explanation_of(GENERATORS))
    assert len(png(figure)) > 1000
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == len(GENERATORS)
    assert titles[0] == "sd_1.4: predicted real, p = 0.100\nlonglonglonglon…onglong\\$_0.jpg"
    assert titles[1].startswith("real: predicted real, p = 0.160\n")
    assert titles[3].startswith(r"a \$x^\$ ?生成: predicted real")


def test_a_sheet_without_images_has_only_a_title() -> None:
    figure = explanation_sheet("val: mistakes", explanation_of([]))
    assert figure.get_suptitle().startswith("val: mistakes")
    assert not figure.axes[0].axison
    assert len(png(figure)) > 1000
    assert list(explanation_images(explanation_of([]))) == []


def spectra_of(*groups: str) -> Spectra:
    rng = np.random.default_rng(0)
    count = len(groups)
    maps = rng.normal(size=(count, 32, 32))
    maps[-1, 8, 24] += 40
    radial = rng.normal(size=(count, 23))
    return Spectra(
        32, groups, np.arange(1, count + 1), maps, radial, radial - 1, radial + 1, pd.DataFrame()
    )


@pytest.mark.parametrize(
    ("groups", "panels"),
    [
        (("real",), (1, 1)),
        (("all synthetic", "a"), (2, 1)),
        (("real", "all synthetic", "a $x^$", "b", "c"), (5, 2)),
        (("real", "all synthetic", *(f"g{i}" for i in range(10))), (12, 2)),
    ],
)
def test_spectra_are_drawn_for_every_set_of_groups(
    groups: tuple[str, ...], panels: tuple[int, int]
) -> None:
    figures = dict(spectra_figures(spectra_of(*groups)))
    assert list(figures) == ["spectra_maps", "spectra_radial"]
    for figure in figures.values():
        assert len(png(figure)) > 1000
    maps, radial = figures.values()
    assert len([axes for axes in maps.axes if axes.get_title()]) == panels[0]
    assert len(radial.axes) == panels[1]
    assert len(radial.axes[0].lines) == len(groups) + 1  # and the line at 0.5


def test_a_map_shows_the_difference_to_real_with_its_peak_at_its_frequency() -> None:
    spectra = spectra_of("real", "all synthetic", "grid")
    axes = dict(spectra_figures(spectra))["spectra_maps"].axes[2]
    (image,) = axes.images
    shown = np.asarray(image.get_array())
    np.testing.assert_array_equal(shown, spectra.maps[2] - spectra.maps[0])
    left, right, bottom, top = image.get_extent()
    x = left + (24 + 0.5) * (right - left) / 32
    y = top + (8 + 0.5) * (bottom - top) / 32
    assert (x, y) == pytest.approx((0.25, -0.25))
    (ring,) = axes.lines
    points = set(map(tuple, np.asarray(ring.get_xydata()).tolist()))
    assert points == {(0.25, -0.25), (-0.25, 0.25)}
