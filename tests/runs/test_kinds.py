"""Tests of the table of run kinds: it has every kind that the source opens runs of."""

import ast
import importlib
import inspect
from collections.abc import Iterator

import pytest

from sweeps.extension import EXTENSION
from synthdetect.runs.kinds import RUN_KINDS
from tests.conftest import ROOT

KINDS = {**RUN_KINDS, **EXTENSION.run_kinds}

OPENS = {"open_run": -1, "ChildTraining": 2, "_trial_run": 3}
"""What opens runs, and the position of its argument `kind` unless it is given by name."""

PASSES_ON = {"synthdetect/runs/children.py", "sweeps/study.py"}
"""Modules that open runs of the kind that their callers give, who are in `OPENS`."""


def opened() -> Iterator[tuple[str, ast.expr]]:
    """Yield the module and the kind of every call that opens a run."""
    for package in ("synthdetect", "sweeps"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                name = getattr(getattr(node, "func", None), "id", "")
                if isinstance(node, ast.Call) and name in OPENS:
                    named = [word.value for word in node.keywords if word.arg == "kind"]
                    kind = named[0] if named else node.args[OPENS[name]]
                    yield str(file.relative_to(ROOT)), kind


def test_every_kind_that_is_opened_is_in_the_table_and_every_kind_of_the_table_is_opened() -> None:
    literal = {kind.value for _, kind in opened() if isinstance(kind, ast.Constant)}
    assert literal == set(KINDS)
    passed_on = {module for module, kind in opened() if not isinstance(kind, ast.Constant)}
    assert passed_on == PASSES_ON


def test_the_kinds_of_an_extension_are_its_own() -> None:
    assert not set(RUN_KINDS) & set(EXTENSION.run_kinds)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.rerun])
def test_the_function_that_reruns_a_kind_exists(name: str) -> None:
    module, _, function = KINDS[name].rerun.partition(":")
    found = getattr(importlib.import_module(module), function)
    assert list(inspect.signature(found).parameters) == ["recorded", "device"]
