"""Which names mean real and which mean synthetic: explicit, never by sorted order.

`ImageFolder` sorts folder names, so `0_real/1_fake` gives fake = 1, but GenImage's `ai/nature`
gives ai = 0. Here synthetic is 1 whatever the folders are called, and an unknown name fails.
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
    """Return 0 (real) or 1 (synthetic) for a label's name.

    Raises:
        UserError: the name is not one of `LABELS`; `where` says what was being read.
    """
    try:
        return LABELS[str(name).strip().lower()]
    except KeyError:
        raise UserError(
            f"{where}: the label {str(name)[:60]!r} is unknown. "
            f"Known names: {', '.join(sorted(LABELS))} (any case)."
        ) from None
