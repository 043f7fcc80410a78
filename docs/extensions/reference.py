"""Sphinx extension that writes the reference from the code at each build.

`docs/reference/packages` gets a page for each package, with its docstrings, and
`docs/reference/commands` a page for each command, with its options. Neither folder is committed;
pages of packages and commands that no longer exist are removed.
"""

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from pydantic.dataclasses import is_pydantic_dataclass
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

from sweeps.__main__ import COMMANDS as SWEEP_COMMANDS
from synthdetect import api
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.command import Command
from synthdetect.config.values import placeholder, remarks

PACKAGES = ("synthdetect", "sweeps")

_ARRAY_LIKE = stringify_annotation(ArrayLike, "smart")
_SHORT_ARRAY = r"~numpy.typing.NDArray[\1]"
_ARRAY = re.compile(
    r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[(~?[\w.]+)\]\]"
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    # Sphinx looks for the defaults of a signature in the source, and the commands' pages have them.
    for function in (api.train, api.cross_validate, api.evaluate):
        vars(function).pop("__signature__")
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", _write_pages)
    app.connect("autodoc-process-signature", _shorten_signature)
    app.connect("autodoc-process-docstring", _prepare_docstring, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", _skip_member)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_pages(app: Sphinx) -> None:
    pages = {
        "packages": {name: text for package in PACKAGES for name, text in _packages(package)},
        "commands": {
            name: _command_page(name, command)
            for name, command in {**COMMANDS, "sweep": SWEEP_COMMANDS["sweep"]}.items()
        },
    }
    for name, texts in pages.items():
        folder = Path(app.srcdir) / "reference" / name
        folder.mkdir(parents=True, exist_ok=True)
        for page in folder.glob("*.rst"):
            if page.stem not in texts:
                page.unlink()
        for stem, text in texts.items():
            page = folder / f"{stem}.rst"
            if not page.is_file() or page.read_text(encoding="utf-8") != text:
                page.write_text(text, encoding="utf-8")


def _packages(package: str) -> Iterator[tuple[str, str]]:
    """The page of a package, and those of the packages inside it."""
    spec = find_spec(package)
    assert spec is not None
    inside = list(pkgutil.iter_modules(spec.submodule_search_locations, f"{package}."))
    modules = [m.name for m in inside if not m.ispkg and not m.name.endswith(".__main__")]
    parts = [_heading(package, "="), _automodule(package)]
    for module in modules:
        parts += [_heading(module, "-"), _automodule(module)]
    yield package, "\n".join(parts)
    for found in inside:
        if found.ispkg:
            yield from _packages(found.name)


def _automodule(name: str) -> str:
    return f".. automodule:: {name}\n   :members:\n"


def _command_page(name: str, command: Command) -> str:
    """Every option of a command, in the sections in which `--help` shows them."""
    fields, sections = command.options.fields(), command.options.sections()
    parts = [
        _heading(name, "="),
        f".. program:: synthdetect {name}\n",
        f"{command.options.__doc__}\n",
    ]
    for section in ("", *dict.fromkeys(sections.values())):
        names = [
            option
            for option in fields
            if section == ("" if option in command.positional else sections[option])
        ]
        parts += [_heading(section, "-")] if section and names else []
        parts += [_option(option, command) for option in names]
    return "\n".join(parts)


def _option(name: str, command: Command) -> str:
    field = command.options.fields()[name]
    value = placeholder(field)
    spelling = name if name in command.positional else f"--{name.replace('_', '-')} {value}"
    spellings = [f"{command.short[name]} {value}"] if name in command.short else []
    text = (field.description or "").removesuffix(".") + "."
    text += "".join(f" {note[0].upper()}{note[1:]}." for note in remarks(field))
    return f".. option:: {', '.join([*spellings, spelling])}\n\n   {text}\n"


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _shorten_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None] | None:
    """Leave out an options class's signature, and spell arrays as the code does."""
    if what == "class" and is_pydantic_dataclass(obj):
        return "", None
    return _shorten(signature), _shorten(returns)


def _shorten(text: str | None) -> str | None:
    return text and _ARRAY.sub(_SHORT_ARRAY, text.replace(_ARRAY_LIKE, "~numpy.typing.ArrayLike"))


def _prepare_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Give an options class its options, and keep napoleon from misreading an attribute's text."""
    if what == "class" and is_pydantic_dataclass(obj):
        fields = obj.__pydantic_fields__
        texts = {n: fields[n].description for n in inspect.get_annotations(obj) if n in fields}
        lines += [f":ivar {name}: {text}" for name, text in texts.items() if text]
        lines.append("")
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\")  # shows nothing; else what precedes a colon becomes the type


def _skip_member(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the docstrings that Python gives to the fields of a named tuple."""
    return True if str(obj.__doc__).startswith("Alias for field number") else None
