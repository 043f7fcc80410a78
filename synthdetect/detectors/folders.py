"""Folders in the form of the Hugging Face Hub: a detector as a safetensors file, and its card.

A folder from elsewhere is untrusted. Only the safetensors file is used, which cannot execute
anything; `card.json` is compared with the card inside it.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthdetect.detectors.card import Card
from synthdetect.detectors.detector import Detector
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically

WEIGHTS, CARD, CONFIG = "model.safetensors", "card.json", "config.json"
"""Files of a folder: the detector, its card for programs, and what the Hub reads of a model."""

_MOST_BYTES = 2**20  # of card.json


def save_folder(folder: Path, detector: Detector) -> Card:
    """Write a detector and its card as files of a folder, and return the card as written.

    Raises:
        UserError: If the folder has files of something else.
    """
    require_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    card = detector.save(folder / WEIGHTS)
    config = {
        "model_type": "synthdetect",
        "architectures": [card.model.arch],
        "image_size": card.model.image_size,
        "id2label": dict(enumerate(card.classes)),
        "label2id": {name: number for number, name in enumerate(card.classes)},
        "synthdetect_version": card.synthdetect,
    }
    for name, value in ((CARD, asdict(card)), (CONFIG, config)):
        with replace_atomically(folder / name) as temporary:
            temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return card


def require_own(folder: Path) -> None:
    """Check that a folder is new, empty, or one that `save_folder` wrote.

    Raises:
        UserError: If it is a file, or has other files.
    """
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / CARD).is_file()):
        return
    if folder.exists():
        raise UserError(f"{folder} exists and is no model of synthdetect. Give another --output.")


def load_folder(folder: Path) -> Detector:
    """Read the detector of a folder.

    Raises:
        UserError: If it has no `model.safetensors`, this is no detector, or `card.json` is not its
            card.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise UserError(f"--model: {folder} is no model of synthdetect: it has no {WEIGHTS}.")
    detector = Detector.load(file)
    beside = folder / CARD
    if beside.is_file():
        found, own = _read(beside), json.loads(json.dumps(asdict(detector.card)))
        other = [name for name in own if found.get(name, own[name]) != own[name]]
        if other:
            raise UserError(
                f"{beside}: has another {', '.join(other)} than the card in {WEIGHTS}, which is "
                "used. Restore the file, or delete it."
            )
    return detector


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too long")
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    return found
