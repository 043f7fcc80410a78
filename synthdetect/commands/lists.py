"""`synthdetect list`."""

from collections.abc import Callable

from synthdetect.config import RECIPES, ListOptions
from synthdetect.console import table
from synthdetect.models.architectures import ARCHITECTURES


def show(options: ListOptions) -> None:
    """Print one table of names."""
    columns, rows = _TABLES[options.what]()
    table(options.what, columns, rows)


def _architectures() -> tuple[list[str], list[list[str]]]:
    rows = [[name, f"{entry.parameters:,}", entry.weights] for name, entry in ARCHITECTURES.items()]
    return ["name", "parameters", "ImageNet weights"], rows


def _recipes() -> tuple[list[str], list[list[str]]]:
    rows = [
        [name, ", ".join(f"{k}={v}" for k, v in differences.items()) or "the defaults"]
        for name, differences in RECIPES.items()
    ]
    return ["name", "differences from the defaults"], rows


def _geometries() -> tuple[list[str], list[list[str]]]:
    from synthdetect.data.geometry import GEOMETRIES

    return ["name", "what it does"], [[name, g.help] for name, g in GEOMETRIES.items()]


def _layouts() -> tuple[list[str], list[list[str]]]:
    from synthdetect.data.dialects import DIALECTS
    from synthdetect.data.layouts import LAYOUTS

    rows = [[layout.name, "folder"] for layout in LAYOUTS]
    return ["name", "kind"], rows + [[dialect.name, "CSV"] for dialect in DIALECTS]


def _metrics() -> tuple[list[str], list[list[str]]]:
    from synthdetect.evaluation.metrics import METRICS

    return ["name", "definition"], [[name, text] for name, text in METRICS.items()]


_TABLES: dict[str, Callable[[], tuple[list[str], list[list[str]]]]] = {
    "architectures": _architectures,
    "recipes": _recipes,
    "geometries": _geometries,
    "layouts": _layouts,
    "metrics": _metrics,
}
