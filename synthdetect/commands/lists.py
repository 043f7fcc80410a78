"""`synthdetect list`."""

from collections.abc import Callable

from synthdetect.config import RECIPES, ListOptions
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.system.console import table


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
    from synthdetect.images.geometry import GEOMETRIES

    return ["name", "what it does"], [[name, g.help] for name, g in GEOMETRIES.items()]


def _layouts() -> tuple[list[str], list[list[str]]]:
    from synthdetect.datasets.dialects import DIALECTS
    from synthdetect.datasets.layouts import LAYOUTS

    rows = [[layout.name, "folder"] for layout in LAYOUTS]
    return ["name", "kind"], rows + [[dialect.name, "CSV"] for dialect in DIALECTS]


def _metrics() -> tuple[list[str], list[list[str]]]:
    from synthdetect.evaluation.metrics import METRICS

    return ["name", "definition"], [[name, text] for name, text in METRICS.items()]


def _mixing() -> tuple[list[str], list[list[str]]]:
    from synthdetect.images.mixing import MIXINGS

    return ["name", "what it does"], [[name, entry.help] for name, entry in MIXINGS.items()]


def _losses() -> tuple[list[str], list[list[str]]]:
    from synthdetect.training.losses import LOSSES

    return ["name", "what it is"], [[name, entry.help] for name, entry in LOSSES.items()]


def _optimizers() -> tuple[list[str], list[list[str]]]:
    from synthdetect.training.optimizers import OPTIMIZERS

    return ["name", "what it is"], [[name, entry.help] for name, entry in OPTIMIZERS.items()]


def _adaptations() -> tuple[list[str], list[list[str]]]:
    from synthdetect.training.adaptation import ADAPTATIONS

    return ["name", "what it does"], [[name, entry.help] for name, entry in ADAPTATIONS.items()]


def _attacks() -> tuple[list[str], list[list[str]]]:
    from synthdetect.training.adversarial import ATTACKS

    return ["name", "what it does"], [[name, entry.help] for name, entry in ATTACKS.items()]


_TABLES: dict[str, Callable[[], tuple[list[str], list[list[str]]]]] = {
    "architectures": _architectures,
    "recipes": _recipes,
    "geometries": _geometries,
    "layouts": _layouts,
    "metrics": _metrics,
    "mixing": _mixing,
    "losses": _losses,
    "optimizers": _optimizers,
    "adaptations": _adaptations,
    "attacks": _attacks,
}
