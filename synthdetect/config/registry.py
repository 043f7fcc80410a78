"""Registries: tables of named choices whose implementations are imported when they are used."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import AfterValidator


@dataclass(frozen=True)
class Entry:
    """A named choice of an option.

    The tables of entries are read for `--help`, which must not wait for torch, so an entry names
    its implementation instead of holding it.

    Attributes:
        implementation: The implementation as "module:name".
        help: One line for `synthdetect list` and the documentation.
    """

    implementation: str
    help: str

    def load(self) -> Any:
        """Import the implementation and return it."""
        module, _, name = self.implementation.partition(":")
        return getattr(importlib.import_module(module), name)


def one_of(*names: str | Mapping[str, Any]) -> AfterValidator:
    """Return a validator that accepts the names of registries and further single names.

    Args:
        names: Registries, whose keys are accepted, and single names.
    """
    known = [name for group in names for name in ([group] if isinstance(group, str) else group)]

    def validate(value: str) -> str:
        if value not in known:
            raise ValueError(f"unknown name; known names: {', '.join(filter(None, known))}")
        return value

    return AfterValidator(validate)


def each_of(names: Mapping[str, Any]) -> AfterValidator:
    """Return a validator of tuples that accepts every name of a registry at most once."""
    check: Callable[[str], str] = one_of(names).func  # type: ignore[assignment]

    def validate(values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            check(value)
        repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is given more than once; give each name once")
        return values

    return AfterValidator(validate)
