"""How long a whole command still takes, from what its parts have taken so far.

A command plans its parts, such as the trainings of a cross-validation, and the progress bars report
what they do to the part that is under way. A part of a kind takes as long, for each unit of work,
as earlier parts of this kind did on average; one of a kind that has not been seen yet, as all
parts did. Without a plan, every function here does nothing.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of a command's work.

    Attributes:
        name: Its name, unique in the command.
        work: How much it is at most, in a unit that all parts of the command share.
        kind: What parts that take equally long for a unit of work have in common.
    """

    name: str
    work: float
    kind: str = ""


class Timetable:
    """The parts that are left, the one under way, and the time that the done ones took."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._took: dict[str, tuple[float, float]] = {}  # seconds and work of ended parts, by kind
        self._under_way: Part | None = None
        self._began = self._done = self._skipped = 0.0
        self.plan(parts)

    def plan(self, parts: Iterable[Part], processes: int = 1) -> None:
        """Replace the parts that are left, on which so many processes work."""
        self._left = {part.name: part for part in parts}
        self._processes = max(processes, 1)

    @contextmanager
    def part(self, name: str, *, ended_by: type[Exception] | None = None) -> Iterator[None]:
        """Do a part. The time of one that fails counts only if the error is one that ends it."""
        self._under_way = self._left.pop(name, None)
        self._began, self._done, self._skipped = time.monotonic(), 0.0, 0.0
        try:
            yield
            self._note()
        except Exception as error:
            if ended_by and isinstance(error, ended_by):
                self._note()
            raise
        finally:
            self._under_way = None

    def _note(self) -> None:
        if part := self._under_way:
            seconds, work = self._took.get(part.kind, (0.0, 0.0))
            seconds += time.monotonic() - self._began
            self._took[part.kind] = (seconds, work + max(part.work - self._skipped, 0.0))

    def drop(self, name: str) -> None:
        """Take a part out that is done already."""
        self._left.pop(name, None)

    def advance(self, work: float) -> None:
        """Record that work of the part under way is done."""
        self._done += work

    def skip(self, work: float) -> None:
        """Record that work of the part under way was done by an earlier process."""
        self._done += work
        self._skipped += work

    @property
    def remaining(self) -> int:
        """Number of parts that have not begun."""
        return len(self._left)

    @property
    def seconds(self) -> float | None:
        """Seconds until everything is done, at most; None until anything was measured."""
        now, current = time.monotonic(), self._under_way
        took, own = dict(self._took), None
        if current and self._done > self._skipped:
            own = (now - self._began) / (self._done - self._skipped)
            seconds, work = took.get(current.kind, (0.0, 0.0))
            done = self._done - self._skipped
            took[current.kind] = (seconds + now - self._began, work + done)
        spent = sum(seconds for seconds, _ in took.values())
        done = sum(work for _, work in took.values())
        if not done:
            return None

        def rate(kind: str) -> float:
            seconds, work = took.get(kind, (0.0, 0.0))
            return seconds / work if work else spent / done

        total = sum(part.work * rate(part.kind) for part in self._left.values())
        if current:
            rest = max(current.work - self._done, 0.0)
            total += rest * (rate(current.kind) if own is None else own)
        return total / self._processes


_current: Timetable | None = None


@contextmanager
def timetable(parts: Iterable[Part]) -> Iterator[None]:
    """Plan the parts of a command. Inside another plan, that one stays in force."""
    global _current
    if _current:
        yield
        return
    _current = Timetable(parts)
    try:
        yield
    finally:
        _current = None


def current() -> Timetable:
    """Return the plan of the command, or an empty one if it has none."""
    return _current or Timetable(())


def in_all() -> str:
    """Return how long the command still takes, in words after a comma; empty if unknown."""
    plan = current()
    seconds = plan.seconds
    if seconds is None or seconds < 0.5:
        return ""
    parts = f" in all ({plan.remaining} more to come)" if plan.remaining else ""
    return f", {duration(seconds)} left{parts}"


def duration(seconds: float) -> str:
    """Return a duration in words, rounded."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} days {hours % 24} h"
