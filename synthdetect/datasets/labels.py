"""Names of the labels: real is 0 and synthetic is 1.

The order of the names never decides. `ImageFolder` sorts folder names, so that `0_real/1_fake`
gives fake = 1, but GenImage's `ai/nature` gives ai = 0. Here, an unknown name is an error.
"""

from synthdetect.system.errors import UserError

REAL, SYNTHETIC = 0, 1
CLASSES = ("real", "synthetic")
"""The name of each label, by its number."""

LABELS: dict[str, int] = {
    **dict.fromkeys(
        ("0", "0.0", "0_real", "real", "reals", "nature", "natural", "authentic", "photo",
         "photos", "genuine", "human", "false"),
        REAL,
    ),
    **dict.fromkeys(
        ("1", "1.0", "1_fake", "fake", "fakes", "ai", "synthetic", "generated", "ai_generated",
         "ai-generated", "aigc", "syn", "true"),
        SYNTHETIC,
    ),
}  # fmt: skip
"""Every accepted spelling, in lower case."""


def label_of(name: object, *, where: str) -> int:
    """Return 0 (real) or 1 (synthetic) for the name of a label.

    Args:
        name: The name, in any case.
        where: The file that is being read, for messages.

    Raises:
        UserError: If the name is not in `LABELS`.
    """
    try:
        return LABELS[str(name).strip().lower()]
    except KeyError:
        raise UserError(
            f"{where}: the label {str(name)[:60]!r} is unknown. "
            f"Known names: {', '.join(sorted(LABELS))} (any case)."
        ) from None
