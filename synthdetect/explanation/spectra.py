"""Mean power spectra of real and synthetic images, whose difference shows a generator's traces.

The centre of each image is cropped at native resolution, since resizing would erase the traces. Its
luminance is multiplied by a Hann window, which limits leakage from the borders, and the decibels of
its power spectrum are averaged over images (Corvi et al., "Intriguing properties of synthetic
images", CVPRW 2023) and over directions (Durall et al., "Watch your up-convolution", CVPR 2020).
Unlike Corvi et al., no denoising residual is taken: a linear filter would cancel in a difference of
decibels, and a median filter would add low frequencies of its own.

Power is in squared grey levels (0 to 255): white noise of variance v has power v at all
frequencies, and 2.5 dB less in the mean of decibels. Frequencies are in cycles per pixel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import median_filter
from scipy.sparse import csr_array

from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.metrics import bootstrap_weights
from synthdetect.images.batches import Batches, ImageFiles, Order
from synthdetect.images.geometry import Preprocess
from synthdetect.system.arrays import FloatArray
from synthdetect.system.errors import UserError

LARGEST, SMALLEST = 256, 16
"""Largest and smallest side of the cropped centre, in pixels."""
_STEP = 8
"""Divisor of the side, so that patterns with periods of 2, 4 and 8 pixels have one frequency."""
_LARGE_ENOUGH = 0.95
"""Share of each group's images that are at least as large as the centre; others are left out."""

CLEAR_PEAK = 6.0
"""Smallest height of a peak that is not due to chance, in deviations; a map has 30,000 pixels."""
_NEIGHBOURHOOD = 9  # side of the window of the median filter that estimates a map's background

_FLOOR = 1e-3  # added power, far below rounding noise: keeps the decibels of flat images finite
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_BATCH = 32
_REPLICATES = 1000


@dataclass(frozen=True)
class Spectra:
    """Mean spectra by group of images.

    Attributes:
        size: side of the cropped centre in pixels.
        groups: `real`, `all synthetic` and each generator, without empty groups.
        images: number of images per group, shape (groups,).
        maps: mean decibels, shape (groups, size, size); frequency zero is at
            [size // 2, size // 2].
        radial: mean decibels over directions, shape (groups, radii).
        low: lower bound of the 95 % bootstrap interval, over sources, of the difference of `radial`
            to that of real images, shape (groups, radii); nan without real images.
        high: upper bound, of the same shape.
        left_out: `path`, `width` and `height` of images that are smaller than `size`.
    """

    size: int
    groups: tuple[str, ...]
    images: npt.NDArray[np.int64]
    maps: FloatArray
    radial: FloatArray
    low: FloatArray
    high: FloatArray
    left_out: pd.DataFrame

    @property
    def frequencies(self) -> FloatArray:
        """Frequencies of `radial`, from 0 to 0.5, and on the diagonals up to 0.71."""
        return np.arange(self.radial.shape[1]) / self.size

    @property
    def compared(self) -> range:
        """Indices of the groups other than real images, which are group 0; empty without them."""
        return range(1, len(self.groups) if self.groups[0] == "real" else 0)


def mean_spectra(
    files: Sequence[str],
    table: pd.DataFrame,
    *,
    seed: int,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Spectra:
    """Compute the mean spectra of the images of a table; the order of its rows makes no difference.

    Args:
        files: image files, in the order of the table.
        table: predictions table or indexed manifest.
        seed: seed of the bootstrap.
        workers: number of worker processes that read images.
        progress: function called with the number of images done and their total.

    Raises:
        UserError: If more than 5 % of a group's images are smaller than `SMALLEST`, or an image
            cannot be read.
    """
    order = np.argsort(table["path"].to_numpy())
    table, files = table.iloc[order].reset_index(drop=True), [files[i] for i in order]
    sizes = table[["width", "height"]].to_numpy(np.int64)
    size = _common_size(table, sizes)
    large = sizes.min(axis=1) >= size
    left_out = table.loc[~large, ["path", "width", "height"]].reset_index(drop=True)
    table = table[large].reset_index(drop=True)
    groups, members = _groups(table)
    ring = _ring(size)
    sums, curves = np.zeros((len(groups), size * size)), np.empty((len(table), ring.shape[0]))
    centres = ImageFiles(
        [file for file, is_large in zip(files, large, strict=True) if is_large],
        Preprocess(size, "center_crop"),
    )
    for batch in Batches(centres, Order(len(table), _BATCH), workers).strict_epoch(0):
        rows = batch.rows.numpy()
        power = _decibels(batch.images.permute(0, 2, 3, 1).numpy()).reshape(len(rows), -1)
        sums += members[:, rows] @ power
        curves[rows] = (ring @ power.T).T
        progress(int(rows[-1]) + 1, len(table))
    images = members.sum(axis=1)
    low, high = _bands(members, curves, group_codes(table), seed, groups[0] == "real")
    return Spectra(
        size=size,
        groups=groups,
        images=images,
        maps=(sums / images[:, None]).reshape(-1, size, size),
        radial=members @ curves / images[:, None],
        low=low,
        high=high,
        left_out=left_out,
    )


def radial_table(spectra: Spectra) -> pd.DataFrame:
    """Return the radial curves.

    Returns:
        One row per group and frequency: `group`, `images`, `frequency`, `power_db`, and
        `difference_db` (to real images) with `low` and `high` (95 % interval).
    """
    radii = len(spectra.frequencies)
    real = spectra.radial[0] if spectra.compared else np.nan
    return pd.DataFrame(
        {
            "group": np.repeat(spectra.groups, radii),
            "images": np.repeat(spectra.images, radii),
            "frequency": np.tile(spectra.frequencies, len(spectra.groups)),
            "power_db": spectra.radial.ravel(),
            "difference_db": (spectra.radial - real).ravel(),
            "low": spectra.low.ravel(),
            "high": spectra.high.ravel(),
        }
    )


def fingerprints(spectra: Spectra) -> pd.DataFrame:
    """Find where the spectrum of each group differs most from that of real images.

    Returns:
        One row per group: `group`, `images`; `frequency`, `difference_db`, `low` and `high` at the
        largest difference of the radial curves; `peak_x`, `peak_y` and `peak_db` of the sharpest
        peak in the map of differences, which belongs to a pattern with a period of 1/x by 1/y
        pixels; and `peak_deviations`, the peak's height in robust standard deviations of the map. A
        height of at least `CLEAR_PEAK` shows a pattern, a lower one may be due to chance. Empty
        without real images.
    """
    rows = []
    for group in spectra.compared:
        difference = spectra.radial[group] - spectra.radial[0]
        most = int(np.abs(difference).argmax())
        x, y, height, deviations = _peak(spectra.maps[group] - spectra.maps[0])
        rows.append(
            {
                "group": spectra.groups[group],
                "images": spectra.images[group],
                "frequency": spectra.frequencies[most],
                "difference_db": difference[most],
                "low": spectra.low[group, most],
                "high": spectra.high[group, most],
                "peak_x": x,
                "peak_y": y,
                "peak_db": height,
                "peak_deviations": deviations,
            }
        )
    return pd.DataFrame(rows)


def _common_size(table: pd.DataFrame, sizes: npt.NDArray[np.int64]) -> int:
    """Largest side of the centre for which most images of each group are large enough."""
    sides = table[["label", "generator"]].assign(side=sizes.min(axis=1))
    common = sides.groupby(["label", "generator"])["side"].quantile(
        1 - _LARGE_ENOUGH, interpolation="lower"
    )
    size: int = min(LARGEST, common.min()) // _STEP * _STEP
    if size < SMALLEST:
        label, generator = common.idxmin()
        raise UserError(
            f"--spectra: images of {generator or CLASSES[label]} are smaller than "
            f"{SMALLEST} pixels. Leave them out of the data, or give --spectra false."
        )
    return size


def _groups(table: pd.DataFrame) -> tuple[tuple[str, ...], npt.NDArray[np.bool_]]:
    """Names of the groups, and masks of their images, shape (groups, images)."""
    label, generator = table["label"].to_numpy(), table["generator"].to_numpy()
    synthetic = label == SYNTHETIC
    groups = [("real", label == REAL), ("all synthetic", synthetic)]
    groups += [
        (name or "(unnamed)", synthetic & (generator == name))
        for name in sorted(set(generator[synthetic]))
    ]
    names, members = zip(*[(name, member) for name, member in groups if member.any()], strict=True)
    return names, np.stack(members)


def _decibels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Power spectra, shape (images, size, size), with frequency zero in the centre."""
    size = images.shape[1]
    window = np.hanning(size + 1)[:size].astype(np.float32)  # the periodic window
    grey = images @ _LUMINANCE
    grey = (grey - grey.mean(axis=(1, 2), keepdims=True)) * window * window[:, None]
    power = np.abs(np.fft.fft2(grey)) ** 2 / (window**2).sum() ** 2
    decibels: npt.NDArray[np.float32] = 10 * np.log10(power + np.float32(_FLOOR))
    return np.fft.fftshift(decibels, axes=(1, 2))


def _ring(size: int) -> csr_array:
    """Matrix that averages a map over directions, shape (radii, size * size)."""
    axis = np.arange(size) - size // 2
    radius = np.rint(np.hypot(axis[:, None], axis)).astype(np.int64).ravel()
    shares = 1 / np.bincount(radius)[radius]
    return csr_array((shares, (radius, np.arange(size * size))))


def _bands(
    members: npt.NDArray[np.bool_],
    curves: FloatArray,
    sources: npt.NDArray[np.int64],
    seed: int,
    has_real: bool,
) -> tuple[FloatArray, FloatArray]:
    """Bootstrap intervals, over sources, of each group's difference to the real images' curve."""
    shape = (len(members), curves.shape[1])
    if not has_real:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    parts = []
    for weights in bootstrap_weights(sources, _REPLICATES, seed):
        with np.errstate(invalid="ignore"):  # a small group may have no image in a replicate
            means = np.stack(
                [
                    weights[:, m] @ curves[m] / weights[:, m].sum(axis=1, keepdims=True)
                    for m in members
                ]
            )
        parts.append(means - means[0])
    low, high = np.nanpercentile(np.concatenate(parts, axis=1), [2.5, 97.5], axis=1)
    return low, high


def _peak(difference: FloatArray) -> tuple[float, float, float, float]:
    """Sharpest peak of a map: x and y frequency, height, and height in robust deviations."""
    size = len(difference)
    relief = difference - median_filter(difference, _NEIGHBOURHOOD, mode="wrap")
    y, x = np.unravel_index(relief.argmax(), relief.shape)
    deviation = 1.4826 * float(np.median(np.abs(relief)))
    height = float(relief[y, x])
    down, right = int(y) - size // 2, int(x) - size // 2
    sign = -1 if (down, right) < (0, 0) else 1  # the map is symmetric about its centre
    peak = sign * right / size, sign * down / size
    return *peak, height, height / max(deviation, np.finfo(float).tiny)
