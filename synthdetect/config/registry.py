"""Registries: tables of named choices whose implementations are imported when they are used."""

import importlib
from collections.abc import Mapping
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
    return AfterValidator(_OneOf(tuple(known)))


def each_of(names: Mapping[str, Any]) -> AfterValidator:
    """Return a validator of tuples that accepts every name of a registry at most once."""
    return AfterValidator(_EachOf(tuple(names)))


@dataclass(frozen=True)
class _OneOf:
    names: tuple[str, ...]

    def __call__(self, value: str) -> str:
        if value not in self.names:
            raise ValueError(f"unknown name; known names: {', '.join(filter(None, self.names))}")
        return value


@dataclass(frozen=True)
class _EachOf:
    names: tuple[str, ...]

    def __call__(self, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            _OneOf(self.names)(value)
        repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is given more than once; give each name once")
        return values


def known_names(validator: object) -> tuple[str, ...]:
    """Return the names that a validator of `one_of` or `each_of` accepts; none for another."""
    check = validator.func if isinstance(validator, AfterValidator) else None
    return check.names if isinstance(check, _OneOf | _EachOf) else ()
