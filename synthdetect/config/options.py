"""How options are declared, resolved and recorded.

An option is a field of a section; a section stands in the package whose behaviour it configures. A
command's options are a class that nests sections. The command line, the parameters of `MLproject`,
the recorded parameters of a run and the variants of a sweep all derive from these classes. Nothing
here imports torch, so that `--help` is fast.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from synthdetect.system.errors import UserError

AS_RECIPE = "recipe"
"""The text that stands for "the value that the recipe sets"."""

MAX_NAME, MAX_TEXT = 255, 4000
"""The longest file name in bytes and the longest option value in characters.

File systems and MLflow accept no more.
"""

CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""The pydantic configuration of every class of options."""


class Affects(StrEnum):
    """What changes if an option changes and everything else stays as it is."""

    NUMBERS = "numbers"
    """Weights, predictions or metrics."""
    PLACE = "place"
    """Where the images are read from; the numbers stay if the images are the same."""
    SPEED = "speed"
    """How long it takes and what is kept on disk meanwhile."""
    RECORD = "record"
    """How the run is kept: folders, names, what is stored beside the results."""
    BUDGET = "budget"
    """How much is done before it ends; what is done already stays valid."""


def option(
    default: Any,
    description: str,
    affects: Affects = Affects.NUMBERS,
    *,
    value: str = "",
    common: bool = False,
    **limits: Any,
) -> Any:
    """Declare an option.

    Args:
        default: Default value.
        description: Help text: whole sentences.
        affects: What changes if the option changes.
        value: What stands for the value in the help, such as its unit (default: by its type).
        common: Whether `--help` shows the option of a command that has many.
        limits: Bounds of the value, as of `pydantic.Field` (`ge`, `gt`, `le`, `lt`, `pattern`).
    """
    extra: dict[str, Any] = {"affects": affects.value, "value": value, "common": common}
    return Field(default, description=description, json_schema_extra=extra, **limits)


def required(description: str, affects: Affects = Affects.RECORD, *, value: str = "") -> Any:
    """Declare an option without a default, which must be given; otherwise as `option`."""
    extra: dict[str, Any] = {"affects": affects.value, "value": value, "common": True}
    return Field(description=description, json_schema_extra=extra)


def nested(section: type["Options"]) -> Any:
    """Declare a section of a command's options, with the section's own defaults."""
    return Field(default_factory=section)


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
"""Several names; as text they are separated by commas."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""

OpenShare = Annotated[float, Field(gt=0, lt=1)]
"""A number between 0 and 1."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Options:
    """Frozen options that refuse unknown names.

    A class has plain options, nested sections (fields whose type is another subclass), or both.
    The name of an option is unique within a class, whichever section it is in.
    """

    section: ClassVar[str] = "run"
    """The heading of the class's own plain options, and their prefix in the record."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named differences from the defaults, by the value of the option `recipe`."""

    not_of_recipe: ClassVar[tuple[str, ...]] = ()
    """Options that a recipe does not set in this class."""

    shown_first: ClassVar[tuple[str, ...]] = ()
    """Nested sections that are listed before the others; plain options come before all sections."""

    @classmethod
    def nested_sections(cls) -> dict[str, type["Options"]]:
        """Return the nested sections by field name."""
        own: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
        return {
            name: info.annotation
            for name, info in own.items()
            if isinstance(info.annotation, type) and issubclass(info.annotation, Options)
        }

    @classmethod
    def _walk(cls) -> Iterator[tuple[str, FieldInfo, str, str]]:
        """Yield name, field, heading and name of the nested section of every option."""
        inside = cls.nested_sections()
        own: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
        for name in sorted(own, key=lambda name: (name in inside, name not in cls.shown_first)):
            info = own[name]
            if name in inside:
                for inner, field, heading, _ in inside[name]._walk():
                    yield inner, field, heading, name
            else:
                yield name, info, cls.section, ""

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Return default, description and limits of every option by name."""
        return {name: info for name, info, _, _ in cls._walk()}

    @classmethod
    def sections(cls) -> dict[str, str]:
        """Return the heading of every option, in the order in which options are shown."""
        return {name: heading for name, _, heading, _ in cls._walk()}

    @classmethod
    def places(cls) -> dict[str, str]:
        """Return the field name of the nested section of every option; empty for a plain one."""
        return {name: place for name, _, _, place in cls._walk()}

    @classmethod
    def affecting(cls, *effects: Affects) -> set[str]:
        """Return the names of the options that affect one of `effects`."""
        return {name for name, info in cls.fields().items() if affects(info) in effects}

    @classmethod
    def resolve(cls, given: Mapping[str, Any]) -> Self:
        """Build the options: defaults, then the recipe's differences, then the given values.

        Args:
            given: Values or their text by option name; the text `recipe` counts as not given.

        Raises:
            UserError: If names are unknown or values do not fit; the message lists all of them.
        """
        known = cls.fields()
        problems = [_unknown(name, list(known)) for name in given if name not in known]
        unfit = {name: p for name in known if (p := _unfit(name, given.get(name)))}
        problems += unfit.values()
        explicit = {
            k: v for k, v in given.items() if k in known and k not in unfit and v != AS_RECIPE
        }
        differences: Mapping[str, Any] = {}
        if "recipe" in known:
            name = explicit.get("recipe", known["recipe"].default)
            recipe = cls.recipes.get(name, {})  # an unknown recipe is reported with the rest
            differences = {k: v for k, v in recipe.items() if k not in cls.not_of_recipe}
        try:
            values = cls._nest({**differences, **explicit})
            made = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            problems += [cls._problem(e["loc"], e["msg"], e["input"]) for e in error.errors()]
        if problems:
            raise UserError("\n".join(problems))
        return made

    @classmethod
    def _nest(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Put the values of options into dictionaries by nested section."""
        result: dict[str, Any] = {name: {} for name in cls.nested_sections()}
        places = cls.places()
        for name, value in values.items():
            (result[places[name]] if places[name] else result)[name] = value
        return result

    @classmethod
    def _problem(cls, place: tuple[int | str, ...], message: str, value: Any) -> str:
        message = message.removeprefix("Value error, ")
        path = place[1:] if place and place[0] in cls.nested_sections() else place
        if not path:  # several options that do not go together; the message names them
            return message
        return f"{option_name(str(path[0]))}: {message} (got {value!r})"

    def replace(self, **values: Any) -> Self:
        """Return the options with other values of some options, given by option name.

        Raises:
            UserError: If an option is unknown or its value does not fit.
        """
        known = self.fields()
        unknown = [_unknown(name, list(known)) for name in values if name not in known]
        if unknown:
            raise UserError("\n".join(unknown))
        inside = self.nested_sections()
        changes = {
            name: getattr(self, name).replace(**part) if name in inside else part
            for name, part in self._nest(values).items()
            if part != {} or name not in inside
        }
        try:
            return dataclasses.replace(self, **changes)
        except ValidationError as error:
            found = [self._problem(e["loc"], e["msg"], e["input"]) for e in error.errors()]
            raise UserError("\n".join(found)) from error

    def value(self, name: str) -> Any:
        """Return the value of an option by its name."""
        place = self.places()[name]
        return getattr(getattr(self, place) if place else self, name)

    def changed(self, *names: str) -> str:
        """Return those of some options that differ from their defaults, as they are spelled."""
        known = self.fields()
        return ", ".join(option_name(n) for n in names if self.value(n) != known[n].default)

    def to_json(self) -> dict[str, Any]:
        """Return the options by name, as `resolve` accepts them; several names are joined."""
        values = {name: self.value(name) for name in self.fields()}
        return {k: ",".join(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def to_flat(self) -> dict[str, Any]:
        """Return the options by `section.name`, as a run records them as parameters."""
        values = self.to_json()
        return {f"{section}.{name}": values[name] for name, section in self.sections().items()}


def affects(field: FieldInfo) -> Affects:
    """Return what an option affects."""
    return Affects(declared(field, "affects", Affects.NUMBERS.value))


def declared(field: FieldInfo, what: str, otherwise: Any) -> Any:
    """Return what `option` was given for an option: `affects`, `value` or `common`."""
    extra = field.json_schema_extra
    return extra.get(what, otherwise) if isinstance(extra, dict) else otherwise


def option_name(field: str) -> str:
    """Return how an option is spelled on the command line."""
    return "--" + field.replace("_", "-")


def _unfit(name: str, value: Any) -> str:
    """Return what is wrong with a text that no file system and no record could hold."""
    if not isinstance(value, str):
        return ""
    parts = [part for text in value.split(",") if "://" not in text for part in text.split("/")]
    what = ""
    if "\0" in value:
        what = "holds a NUL character"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        what = "is not UTF-8; rename the file or folder it names"
    elif any(len(part.encode()) > MAX_NAME for part in parts) or len(value) > MAX_TEXT:
        what = f"no name may have more than {MAX_NAME} bytes, and no value more than {MAX_TEXT}"
    return f"{option_name(name)}: {what} (got {value[:40]!r})" if what else ""


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    hint = f" Did you mean {option_name(close[0])}?" if close else ""
    return f"unknown option --{name}.{hint}"
