"""Mean spectra of real and synthetic images, whose difference shows a generator's fingerprint.

Of each image the centre is cut out at native resolution, since resizing would erase the traces; its
luminance is weighted by a Hann window, and the decibels of its power spectrum are averaged over
images (Corvi et al., "Intriguing properties of synthetic images", CVPRW 2023) and over all
directions (Durall et al., "Watch your up-convolution", CVPR 2020). Corvi et al. average a denoising
residual instead. In a difference of decibels a linear filter would leave nothing, and a median
filter adds low frequencies of its own, so there is none here; the window alone keeps the borders of
the picture from leaking over what is faint.

Power is in squared grey levels (0 to 255): white noise of variance v lies at v everywhere, 2.5 dB
lower in the mean of decibels. Frequencies are in cycles a pixel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
"""Sides of the centre that is looked at, in pixels."""
_STEP = 8
"""Its side is a multiple of this, so that what repeats every 2, 4 or 8 pixels is one frequency."""
_HAVE_IT = 0.95
"""Share of the images of every group that are large enough; the others are left out."""

CLEAR = 6.0
"""Deviations from which on a peak is no chance: a map has some 30,000 places."""
_AROUND = 9  # places a side that say what is usual around a peak

_FLOOR = 1e-3  # squared grey levels, far below rounding to whole ones: keeps flat images finite
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_BATCH = 32
_REPLICATES = 1000


@dataclass(frozen=True)
class Spectra:
    """Mean spectra by group of images.

    Attributes:
        size: side in pixels of the centre that was looked at.
        groups: `real`, `all synthetic`, then each generator, as far as there are such images.
        images: how many of each, shape (groups,).
        maps: mean decibels, shape (groups, size, size); frequency zero is in the middle, at
            [size // 2, size // 2].
        radial: the same averaged over directions, shape (groups, radii).
        low: of the 95 % interval of the difference of `radial` to the real images', by bootstrap
            over sources, shape (groups, radii); nan where there are no real images.
        high: likewise.
        left_out: `path`, `width` and `height` of the images that are smaller than `size`.
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
        """Of `radial`: from 0 to 0.5, and beyond it on the diagonals up to 0.71."""
        return np.arange(self.radial.shape[1]) / self.size

    @property
    def compared(self) -> range:
        """The groups that can be compared to the real one, which is group 0."""
        return range(1, len(self.groups) if self.groups[0] == "real" else 0)


def mean_spectra(
    files: Sequence[Path],
    table: pd.DataFrame,
    *,
    seed: int,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Spectra:
    """Measure the images of one table, a batch at a time; the order of the rows is of no account.

    Args:
        files: the image files, in the table's order.
        table: of predictions or of an indexed manifest.
        seed: of the bootstrap.
        workers: processes that read.
        progress: called with (images done, images to do).

    Raises:
        UserError: most images of a group are smaller than `SMALLEST`, or one cannot be read.
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
    """The curves: `group`, `images`, `frequency`, `power_db`, `difference_db`, `low`, `high`."""
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
    """Where each group differs most from the real images.

    Returns:
        A row a group: `group` and `images`; `frequency`, `difference_db`, `low` and `high` where
        the radial curves lie furthest apart; `peak_x`, `peak_y` and `peak_db` of the place that
        rises most above its surroundings in the map of differences (a pattern repeated every 1/x by
        1/y pixels), and `peak_deviations`, its height in robust standard deviations of all places:
        at least `CLEAR` is a pattern, less may be chance. Empty without real images.
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
    """The largest side that most images of every group have."""
    sides = table[["label", "generator"]].assign(side=sizes.min(axis=1))
    common = sides.groupby(["label", "generator"])["side"].quantile(
        1 - _HAVE_IT, interpolation="lower"
    )
    size: int = min(LARGEST, common.min()) // _STEP * _STEP
    if size < SMALLEST:
        label, generator = common.idxmin()
        raise UserError(
            f"spectra: images of {generator or CLASSES[label]} are smaller than "
            f"{SMALLEST} pixels. Leave them out of the data."
        )
    return size


def _groups(table: pd.DataFrame) -> tuple[tuple[str, ...], npt.NDArray[np.bool_]]:
    """Names of the groups, and which images belong to each, shape (groups, images)."""
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
    """Power spectra of images of shape (images, size, size, 3), zero frequency in the middle."""
    size = images.shape[1]
    window = np.hanning(size + 1)[:size].astype(np.float32)  # periodic
    grey = images @ _LUMINANCE
    grey = (grey - grey.mean(axis=(1, 2), keepdims=True)) * window * window[:, None]
    power = np.abs(np.fft.fft2(grey)) ** 2 / (window**2).sum() ** 2
    decibels: npt.NDArray[np.float32] = 10 * np.log10(power + np.float32(_FLOOR))
    return np.fft.fftshift(decibels, axes=(1, 2))


def _ring(size: int) -> csr_array:
    """The matrix that averages a map over directions, shape (radii, size * size)."""
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
    """Intervals of each group's mean curve less the real images', drawing whole sources."""
    shape = (len(members), curves.shape[1])
    if not has_real:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    parts = []
    for weights in bootstrap_weights(sources, _REPLICATES, seed):
        with np.errstate(invalid="ignore"):  # of a group of few sources none may be drawn
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
    """The sharpest rise of a map: its frequencies, its height, and that in deviations."""
    size = len(difference)
    rise = difference - median_filter(difference, _AROUND, mode="wrap")
    y, x = np.unravel_index(rise.argmax(), rise.shape)
    deviation = 1.4826 * float(np.median(np.abs(rise)))
    height = float(rise[y, x])
    down, right = int(y) - size // 2, int(x) - size // 2
    side = -1 if (down, right) < (0, 0) else 1  # both sides of the middle are the same
    place = side * right / size, side * down / size
    return *place, height, height / max(deviation, np.finfo(float).tiny)
