"""A correct run of ten images."""

from synthdetect.submission.format import COLUMNS

IDS = [f"image_{i}.jpg" for i in range(10)]
PROBS = [0.05 + i / 10 for i in range(10)]
HEADER = ",".join(COLUMNS)


def run_text(probs: list[float] = PROBS, threshold: float = 0.5) -> str:
    """Return the CSV of a run of `IDS`."""
    rows = [
        f"{name},{prob!r},{int(prob >= threshold)},{threshold!r}\n"
        for name, prob in zip(IDS, probs, strict=True)
    ]
    return f"{HEADER}\n{''.join(rows)}"


CORRECT = run_text()
