"""Reads `docs/deploy/compose.yaml` as `docker compose` does."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "docs" / "deploy"

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def services(values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services by name.

    Args:
        values: Values of the variables.

    Raises:
        KeyError: If a variable that must have a value has none.
    """

    def value(match: "re.Match[str]") -> str:
        name, kind, default = match.groups()
        if values.get(name):
            return values[name]
        if kind == "-":
            return str(default)
        raise KeyError(name)

    text = (DEPLOY / "compose.yaml").read_text()
    found: dict[str, dict[str, Any]] = yaml.safe_load(_VARIABLE.sub(value, text))["services"]
    return found
