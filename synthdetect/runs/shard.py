"""Parts of the images of a prediction, by a rule that does not depend on the machine.

Images are listed in the same order everywhere, and a part is a run of whole batches of this list.
Batches thus hold the same images in a part as without parts, and their scores are the same to the
last bit.
"""

import re
from dataclasses import dataclass
from typing import Self

from synthdetect.system.errors import UserError

_SHARD = re.compile(r"([1-9]\d{0,8})/([1-9]\d{0,8})")


@dataclass(frozen=True)
class Shard:
    """One of several parts.

    Attributes:
        number: Which one, counted from 1.
        of: The number of parts.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3/16`, the third of sixteen parts.

        Raises:
            ValueError: If it is none.
        """
        found = _SHARD.fullmatch(text)
        if not found or int(found[1]) > int(found[2]):
            raise ValueError(f"{text!r} is no part such as 3/16, the third of sixteen")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def rows(self, images: int, batch_size: int) -> range:
        """Return the rows of the part, whose number of batches differs by one from that of others.

        Args:
            images: Number of images of all parts together.
            batch_size: Images per batch.

        Raises:
            UserError: If there are fewer batches than parts.
        """
        batches = -(-images // batch_size)
        if batches < self.of:
            raise UserError(
                f"--shard {self}: {images:,} images make {batches:,} batches of {batch_size}, "
                f"which cannot be divided into {self.of} parts. Give at most {batches:,} parts, or "
                "another --batch-size to all of them."
            )
        first, last = (
            (n * batches // self.of) * batch_size for n in (self.number - 1, self.number)
        )
        return range(first, min(last, images))
