"""`synthdetect list`: the names that options accept."""

from collections.abc import Callable, Mapping
from typing import Any

from synthdetect.commands.options import ListOptions
from synthdetect.config.registry import Entry
from synthdetect.evaluation.options import CALIBRATIONS, ENSEMBLES, THRESHOLD_RULES
from synthdetect.images.options import GEOMETRIES, VIEWS
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.spec import FRONT_ENDS, PROBES
from synthdetect.runs.recipes import RECIPES
from synthdetect.system.console import table
from synthdetect.training.options import (
    ADAPTATIONS,
    ATTACKS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    SEMI_SUPERVISED,
)

Table = tuple[list[str], list[list[str]]]
"""Column names and rows."""


def show(options: ListOptions) -> dict[str, Any]:
    """Print one table of names."""
    columns, rows = _TABLES[options.what]()
    table(options.what, columns, rows)
    return {options.what: [dict(zip(columns, row, strict=True)) for row in rows]}


def _entries(entries: Mapping[str, Entry]) -> Callable[[], Table]:
    return lambda: (["name", "what it is"], [[name, entry.help] for name, entry in entries.items()])


def _texts(texts: Mapping[str, str]) -> Table:
    return ["name", "what it is"], [[name, text] for name, text in texts.items()]


def _architectures() -> Table:
    rows = [[name, f"{entry.parameters:,}", entry.weights] for name, entry in ARCHITECTURES.items()]
    return ["name", "parameters", "ImageNet weights"], rows


def _recipes() -> Table:
    rows = [
        [name, "\n".join(f"{k}={v}" for k, v in differences.items()) or "the defaults"]
        for name, differences in RECIPES.items()
    ]
    return ["name", "differences from the defaults"], rows


def _layouts() -> Table:
    from synthdetect.datasets.dialects import DIALECTS
    from synthdetect.datasets.layouts import LAYOUTS

    rows = [[layout.name, "folder"] for layout in LAYOUTS]
    return ["name", "kind"], rows + [[dialect.name, "CSV"] for dialect in DIALECTS]


def _perturbations() -> Table:
    from synthdetect.images.perturbations import PERTURBATIONS

    return _texts({name: entry.help for name, entry in PERTURBATIONS.items()})


def _metrics() -> Table:
    from synthdetect.evaluation.metrics import METRICS

    return _texts(METRICS)


def _mixing() -> Table:
    from synthdetect.images.mixing import MIXINGS

    return _texts({name: entry.help for name, entry in MIXINGS.items()})


_TABLES: dict[str, Callable[[], Table]] = {
    "architectures": _architectures,
    "front_ends": _entries(FRONT_ENDS),
    "probes": _entries(PROBES),
    "recipes": _recipes,
    "geometries": _entries(GEOMETRIES),
    "views": _entries(VIEWS),
    "layouts": _layouts,
    "perturbations": _perturbations,
    "metrics": _metrics,
    "losses": _entries(LOSSES),
    "optimizers": _entries(OPTIMIZERS),
    "schedules": _entries(SCHEDULES),
    "mixing": _mixing,
    "adaptations": _entries(ADAPTATIONS),
    "semi_supervised": _entries(SEMI_SUPERVISED),
    "attacks": _entries(ATTACKS),
    "calibrations": _entries(CALIBRATIONS),
    "threshold_rules": lambda: _texts(THRESHOLD_RULES),
    "ensembles": _entries(ENSEMBLES),
}
