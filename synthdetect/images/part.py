"""Some of the images of a list."""

from collections.abc import Mapping
from pathlib import Path

from synthdetect.images.batches import Images


class PartOfImages(Images):
    """Some of the images of a list.

    Args:
        images: All of them.
        rows: The rows of those that are meant.
    """

    def __init__(self, images: Images, rows: range) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def times(self) -> Mapping[int, tuple[str, float]]:
        """The file and the time in seconds of each row that is a frame of a video."""
        times: Mapping[int, tuple[str, float]] = getattr(self.images, "times", {})
        return {k: times[row] for k, row in enumerate(self.rows) if row in times} if times else {}

    def name(self, row: int) -> str:
        """The name in the whole list."""
        return self.images.name(self.rows[row])

    def read(self, row: int) -> bytes:
        """Read it from where the whole list is."""
        return self.images.read(self.rows[row])

    def file(self, row: int) -> tuple[str, bytes | Path]:
        """Return name and file, as the whole list does."""
        return self.images.file(self.rows[row])
