"""Images to which runs answer differently, beside what each detector looked at."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthdetect.comparison.compare import Comparison, SplitComparison
from synthdetect.comparison.contenders import Contender
from synthdetect.datasets.manifest import Manifest, load
from synthdetect.detectors.detector import Detector
from synthdetect.explanation.figures import overlay
from synthdetect.explanation.gradcam import Explanation, explain
from synthdetect.images.contents import read_content
from synthdetect.images.reading import BadImage
from synthdetect.models.networks import Network
from synthdetect.models.spec import architecture
from synthdetect.system.errors import UserError
from synthdetect.tracking.detectors import find_detector

_SIDE, _GAP = 224, 6  # pixels


@dataclass(frozen=True)
class Look:
    """An image and the maps of the detectors.

    Attributes:
        split: The split of the image.
        position: Its position among the shared images of the split.
        letters: The runs whose maps are shown, in their order.
        png: The image as the first of these runs sees it, then the map of each, side by side.
    """

    split: str
    position: int
    letters: tuple[str, ...]
    png: bytes


def looks(
    comparison: Comparison, *, most: int, data: str = "", detectors: dict[str, Detector]
) -> tuple[list[Look], list[str]]:
    """Explain the answers to images on which the runs disagree.

    Args:
        comparison: The comparison.
        most: Most images, divided evenly among the splits.
        data: Where the images are now; by default where each run has read them.
        detectors: Detectors by letter that are loaded already; those of the other runs are loaded.

    Returns:
        The looks, and in sentences why some are missing.
    """
    chosen = {split.split: list(split.disagreements) for split in comparison.splits}
    chosen = {name: rows for name, rows in chosen.items() if rows}
    if not chosen or not most:
        return [], []
    share = -(-most // len(chosen))
    found: list[Look] = []
    notes: list[str] = []
    sides, missing = _explainable(comparison.contenders, detectors)
    notes += missing
    if not sides:
        return [], notes
    manifests, missing = _manifests(comparison.contenders, data)
    notes += missing
    for split in comparison.splits:
        rows = chosen.get(split.split, [])[: min(share, most - len(found))]
        files = {row: _file(split, row, comparison.contenders, manifests) for row in rows}
        lost = sum(file is None for file in files.values())
        if lost:
            notes.append(
                f"{split.split}: {lost} of {len(rows)} images to show are not where they were, or "
                "have changed. Say with --data where they are now."
            )
        there = {row: file for row, file in files.items() if file is not None}
        if there:
            try:
                found += _explained(split, there, comparison.contenders, sides)
            except BadImage as error:
                notes.append(f"{split.split}: an image to show cannot be read: {error}")
    return found, notes


def _explainable(
    contenders: Sequence[Contender], detectors: dict[str, Detector]
) -> tuple[dict[str, Detector], list[str]]:
    """Return the detectors whose layers can be explained, by letter, and why others cannot."""
    sides, notes = {}, []
    for one in contenders:
        try:
            if one.letter not in detectors and not one.model:
                raise UserError("it has logged no model")
            detector = detectors.get(one.letter) or find_detector((one.model,)).detector
        except UserError as error:
            notes.append(f"{one.letter}: what it looked at is not shown: {error}")
            continue
        if isinstance(detector.network, Network) and architecture(detector.card.model.arch).cam:
            sides[one.letter] = detector
        else:
            notes.append(f"{one.letter}: what it looked at cannot be seen in its network.")
    return sides, notes


def _manifests(contenders: Sequence[Contender], data: str) -> tuple[dict[str, Manifest], list[str]]:
    """Return where the images of each run are, by letter, and what cannot be read."""
    found: dict[str, Manifest] = {}
    notes = []
    read: dict[str, Manifest | UserError] = {}
    for one in contenders:
        place = data or one.images
        if not place:
            continue
        if place not in read:
            try:
                read[place] = load(place)
            except UserError as error:
                if data:
                    raise
                read[place] = error
        manifest = read[place]
        if isinstance(manifest, Manifest):
            found[one.letter] = manifest
        else:
            notes.append(f"{one.letter}: its images cannot be found: {manifest}")
    return found, notes


def _file(
    split: SplitComparison, position: int, contenders: Sequence[Contender],
    manifests: dict[str, Manifest],
) -> str | None:  # fmt: skip
    """Return the file of an image, if some run's data still have it with the same content."""
    for one, table in zip(contenders, split.shared.tables, strict=True):
        row = table.iloc[position]
        if one.letter in manifests:
            file = manifests[one.letter].file(str(row["path"]))
            try:
                content = read_content(file)
            except (BadImage, OSError):
                continue
            if row.get("sha256", "") in ("", hashlib.sha256(content).hexdigest()):
                return file
    return None


def _explained(
    split: SplitComparison, files: dict[int, str], contenders: Sequence[Contender],
    sides: dict[str, Detector],
) -> list[Look]:  # fmt: skip
    seen: dict[str, Explanation] = {}
    for one, table in zip(contenders, split.shared.tables, strict=True):
        if one.letter in sides:
            detector = sides[one.letter]
            assert isinstance(detector.network, Network)
            rows = table.iloc[list(files)].reset_index(drop=True)
            seen[one.letter] = explain(
                detector.network, detector.card.model.arch, rows, range(len(rows)),
                list(files.values()), detector.preprocess, views=detector.card.views,
            )  # fmt: skip
    found = []
    for number, position in enumerate(files):
        first = next(iter(seen.values()))
        panels = [first.squares[number]]
        panels += [overlay(one.squares[number], one.maps[number]) for one in seen.values()]
        found.append(Look(split.split, position, tuple(seen), _strip(panels)))
    return found


def _strip(panels: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """Return images side by side, each scaled to the same square, as PNG."""
    width = len(panels) * (_SIDE + _GAP) - _GAP
    strip = Image.new("RGB", (width, _SIDE), "white")
    for number, panel in enumerate(panels):
        square = Image.fromarray(panel).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        strip.paste(square, (number * (_SIDE + _GAP), 0))
    file = io.BytesIO()
    strip.save(file, "PNG")
    return file.getvalue()
