"""What help and completion say of an option's value: its type or unit, choices and limits."""

import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from synthdetect.config.options import declared
from synthdetect.config.registry import known_names

_LONGEST = 60  # characters of choices that stand for a value; longer ones follow the description
_TYPES: dict[Any, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", tuple: "NAME,..."}
_LIMITS = (("ge", "at least {}"), ("gt", "above {}"), ("le", "at most {}"), ("lt", "below {}"))


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the values that an option accepts, apart from the empty one; none if it is open."""
    if field.annotation is bool:
        return ("true", "false")
    if get_origin(field.annotation) is Literal:
        return tuple(str(name) for name in get_args(field.annotation) if name != "")
    return next(filter(None, map(_names, field.metadata)), ())


def placeholder(field: FieldInfo) -> str:
    """Return what stands for the value of an option: its choices, its unit or its type."""
    listed = "|".join(choices(field))
    given = str(declared(field, "value", ""))
    if listed and len(listed) <= _LONGEST:
        return listed + (",..." if is_several(field) else "")
    return given or ("NAME,..." if is_several(field) else "NAME" if listed else _type_of(field))


def remarks(field: FieldInfo) -> list[str]:
    """Return choices that `placeholder` has no room for, limits, and the default, in words."""
    found, listed = [], choices(field)
    if len("|".join(listed)) > _LONGEST:
        found.append(f"one of: {', '.join(listed)}")
    limits = {name: value for name, _ in _LIMITS if (value := _limit(field, name)) is not None}
    if {"ge", "le"} <= set(limits):
        found.append(f"{_number(limits.pop('ge'))} to {_number(limits.pop('le'))}")
    found += [words.format(_number(limits[name])) for name, words in _LIMITS if name in limits]
    if not field.is_required() and "(default:" not in (field.description or ""):
        default = field.default
        shown = ",".join(default) if isinstance(default, tuple) else str(default)
        found.append(f"default: {shown.lower() if isinstance(default, bool) else shown or 'none'}")
    return found


def _names(validator: object) -> tuple[str, ...]:
    return tuple(filter(None, known_names(validator)))


def is_several(field: FieldInfo) -> bool:
    """Whether the value of an option is several ones, separated by commas."""
    return get_origin(field.annotation) is tuple


def _type_of(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        kind = get_args(kind)[0]
    return _TYPES.get(get_origin(kind) or kind, "TEXT")


def _limit(field: FieldInfo, name: str) -> float | None:
    return next((getattr(part, name) for part in field.metadata if hasattr(part, name)), None)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
