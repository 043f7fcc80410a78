"""What a prediction says of files beside the scores of images: clips of video, and metadata."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import expit

from synthdetect.evaluation.decision import Decision
from synthdetect.images.batches import Images
from synthdetect.images.provenance import Provenance, provenance
from synthdetect.images.reading import BadImage
from synthdetect.system.console import counting

CLIP_COLUMNS = (
    "clip", "frames", "unreadable", "logit", "probability", "label", "synthetic_share",
)  # fmt: skip
"""Columns of `clip_table`."""


def clip_table(frames: pd.DataFrame, clips: Sequence[str], decision: Decision) -> pd.DataFrame:
    """Return a verdict for each video, from the mean of its frames' calibrated logits.

    The threshold was chosen for single images. Frames of a clip resemble each other, so that their
    mean is hardly more certain than one of them.

    Args:
        frames: The rows of frames in the table of answers.
        clips: The name of the video of each.
        decision: From probabilities to labels.

    Returns:
        One row per video, in order: `clip` (its name), `frames`, how many of them are
        `unreadable`, `logit`, `probability`, `label` (0 real, 1 synthetic) and `synthetic_share`
        (of the frames, those that are called synthetic by themselves). Without a readable frame
        there are no numbers. Empty without videos.
    """
    frames = frames.assign(clip=list(clips))
    rows = []
    for clip, own in frames.groupby("clip", sort=False):
        readable = own[own["error"] == ""]
        row = {"clip": clip, "frames": len(own), "unreadable": len(own) - len(readable)}
        if len(readable):
            logit = float(readable["logit"].mean())
            probability = float(expit(logit))
            answer = decision.answer(np.array([probability]))
            row |= {
                "logit": logit,
                "probability": probability,
                "label": int(answer.label[0]),
                "synthetic_share": float(readable["label"].mean()),
            }
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(CLIP_COLUMNS))
    return table.astype({"label": "Int8"})


def add_metadata(predictions: pd.DataFrame, images: Images) -> pd.DataFrame:
    """Return the table with what the metadata of each file say, which no score depends on.

    The columns are those of `Provenance.columns`; they are empty for files that cannot be read.
    """
    found: list[dict[str, str]] = []
    last, facts = "", Provenance()
    with counting("reading metadata") as count:
        for row in range(len(images)):
            try:
                name, file = images.file(row)
                if name != last:  # the frames of a video share its file
                    last, facts = name, provenance(file)
            except (BadImage, OSError):
                last, facts = "", Provenance()
            found.append(facts.columns())
            count(row + 1, len(images))
    return pd.concat([predictions, pd.DataFrame(found, index=predictions.index)], axis=1)


def metadata_words(predictions: pd.DataFrame) -> str:
    """Return in a line what the metadata say, and how often the labels say otherwise."""
    says, label = predictions["metadata_says"], predictions["label"]
    synthetic, captured = says == "synthetic", says == "captured"
    kinds = predictions.loc[synthetic, "metadata_generator"].replace("", "an unnamed generator")
    named = ", ".join(f"{kind} {count:,}" for kind, count in kinds.value_counts().items())
    against = int((synthetic & (label == 0)).sum() + (captured & (label == 1)).sum())
    return (
        f"metadata, which scores do not depend on: {synthetic.sum():,} image(s) are said to be "
        f"synthetic{f' ({named})' if named else ''}, {captured.sum():,} to be from a camera; "
        f"{against:,} labels say otherwise"
    )
