"""Tests of the architecture: which module may import which, and no format that can execute code."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    "system", "config", "models", "images", "datasets", "evaluation", "training", "detectors",
    "serving", "tracking", "audit", "robustness", "explanation", "page", "report", "submission",
    "runs", "reproduction", "comparison", "commands",
)  # fmt: skip
"""The packages of synthdetect from the lowest to the highest; `cli.py` and `api.py` are above."""

CORE = LAYERS[: LAYERS.index("detectors") + 1]
"""What trains and applies a detector, without any tracking."""

MAY_IMPORT_MLFLOW = ("synthdetect.tracking", "synthdetect.serving")

EXECUTE_WHAT_THEY_READ = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
}  # fmt: skip


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(file): file
    for package in ("synthdetect", "sweeps")
    for file in sorted((ROOT / package).rglob("*.py"))
}
"""The file of every module."""


def parents(module: str) -> list[str]:
    """The packages that are imported before a module."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the dotted names of all imports, also inside functions and under TYPE_CHECKING.

    `from a import b` yields both `a` and `a.b`, since `b` may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = [*(above if node.level else []), *([node.module] if node.module else [])]
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


@cache
def imported(module: str) -> frozenset[str]:
    """The dotted names that a module imports."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(imports(parsed(module), package))


def roots(module: str) -> set[str]:
    """The top-level packages that a module imports."""
    return {name.partition(".")[0] for name in imported(module)}


@cache
def edges(module: str) -> frozenset[str]:
    """The modules of this repository that a module imports, and their parents."""
    found = {name for name in imported(module) if name in FILES}
    above = {parent for name in found for parent in parents(name)}
    return frozenset((found | above) - {module, *parents(module)} | set(parents(module)))


def reachable(module: str) -> set[str]:
    """A module and everything in this repository that it imports, directly or not."""
    found, waiting = {module}, [module]
    while waiting:
        new = edges(waiting.pop()) - found
        found |= new
        waiting += new
    return found


def circles(graph: dict[str, frozenset[str]]) -> list[list[str]]:
    """Return the groups of nodes that can all be reached from each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = lowest[node] = len(index)
        path.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in path:
                lowest[node] = min(lowest[node], index[other])
        if lowest[node] == index[node]:
            group = path[path.index(node) :]
            del path[path.index(node) :]
            if len(group) > 1 or node in graph[node]:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def layer(module: str) -> int:
    """The height of a module of synthdetect; the package itself holds only the version."""
    if module == "synthdetect":
        return -1
    name = module.split(".")[1]
    return LAYERS.index(name) if name in LAYERS else len(LAYERS)


OF_SYNTHDETECT = [module for module in FILES if module.split(".")[0] == "synthdetect"]
OF_SWEEPS = [module for module in FILES if module.split(".")[0] == "sweeps"]


# --- the tests' own tools


def test_imports_are_found_wherever_they_stand() -> None:
    text = """
from typing import TYPE_CHECKING
import a.b as c
from d.e import f
from . import g
from ..h import i
if TYPE_CHECKING:
    import n
def j():
    import k
    __import__("l.m")
"""
    found = set(imports(ast.parse(text), "synthdetect.images"))
    assert {"a.b", "d.e", "d.e.f", "k", "l.m", "n"} <= found
    assert {"synthdetect.images", "synthdetect.images.g", "synthdetect.h.i"} <= found
    assert {"synthdetect.tracking.run", "synthdetect.tracking"} <= edges("synthdetect.cli") | edges(
        "synthdetect.runs.training"
    )


def test_circles_are_found() -> None:
    graph = {"a": "b", "b": "cd", "c": "a", "d": "e", "e": "", "f": "f"}
    assert circles({node: frozenset(others) for node, others in graph.items()}) == [
        ["a", "b", "c"],
        ["f"],
    ]


def test_every_package_has_a_layer() -> None:
    packages = {module.split(".")[1] for module in OF_SYNTHDETECT if module.count(".") > 1}
    assert packages == set(LAYERS)
    assert {m for m in OF_SYNTHDETECT if layer(m) == len(LAYERS)} == {
        "synthdetect.api",
        "synthdetect.cli",
        "synthdetect.__main__",
    }


# --- layers and circles


@pytest.mark.parametrize("package", [*LAYERS, "api", "cli", "__main__"])
def test_a_module_imports_from_its_own_package_and_lower_ones_only(package: str) -> None:
    inside = [m for m in OF_SYNTHDETECT if [*m.split("."), ""][1] == package]
    assert inside
    upward = {
        (module, other)
        for module in inside
        for other in edges(module)
        if other.startswith("synthdetect") and layer(other) > layer(module)
    }
    assert upward == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({module: edges(module) for module in FILES}) == []


def test_synthdetect_never_imports_sweeps() -> None:
    assert [module for module in OF_SYNTHDETECT if "sweeps" in roots(module)] == []


# --- MLflow and Optuna


def test_mlflow_is_imported_by_tracking_and_serving_only() -> None:
    found = {m for m in FILES if "mlflow" in roots(m) and not m.startswith(MAY_IMPORT_MLFLOW)}
    assert found == set()
    assert "mlflow" in roots("synthdetect.tracking.run")


def test_the_core_reaches_neither_mlflow_nor_optuna() -> None:
    core = [m for m in OF_SYNTHDETECT if m.split(".")[1:2] and m.split(".")[1] in CORE]
    reached = {other for module in core for other in reachable(module)}
    assert {m for m in reached if roots(m) & {"mlflow", "optuna"}} == set()


def test_optuna_is_imported_by_sweeps_only() -> None:
    assert [module for module in OF_SYNTHDETECT if "optuna" in roots(module)] == []
    assert any("optuna" in roots(module) for module in OF_SWEEPS)


def test_the_statistics_of_sweeps_reach_neither_mlflow_nor_optuna() -> None:
    inside = [module for module in OF_SWEEPS if module.startswith("sweeps.statistics")]
    assert len(inside) > 1
    reached = {other for module in inside for other in reachable(module)}
    assert {module for module in reached if roots(module) & {"mlflow", "optuna"}} == set()


# --- nothing executes what it reads


@pytest.mark.parametrize("module", FILES)
def test_nothing_reads_a_format_that_can_execute(module: str) -> None:
    assert roots(module) & EXECUTE_WHAT_THEY_READ == set()
    for node in ast.walk(parsed(module)):
        if not isinstance(node, ast.Call):
            continue
        place = f"{FILES[module]}:{node.lineno}"
        function = ast.unparse(node.func)
        arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if function in ("torch.load", "load_state_dict_from_url") or function.endswith(
            (".get_state_dict", ".load_state_dict_from_url")
        ):
            assert arguments.get("weights_only") == "True", place
        if function in ("np.load", "numpy.load"):
            assert arguments.get("allow_pickle", "False") == "False", place
        assert function not in ("eval", "exec", "torch.jit.load", "pd.read_pickle"), place
