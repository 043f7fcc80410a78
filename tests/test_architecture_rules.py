"""Which part may know which: MLflow at the edge, sweeps outside, and no pickle anywhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "synthdetect"
FILES = [str(file.relative_to(ROOT)) for file in sorted(PACKAGE.rglob("*.py"))]
ALL_FILES = FILES + [str(file.relative_to(ROOT)) for file in sorted(ROOT.glob("sweeps/**/*.py"))]

CORE = ("training", "data", "models", "evaluation", "engines")
MAY_KNOW_MLFLOW = ("tracking/", "serving/", "commands/", "experiment.py")
EXECUTE_WHAT_THEY_READ = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")


def imports(tree: ast.Module, file: str) -> Iterator[str]:
    """Dotted names of everything imported, at the top and inside functions."""
    package = list(Path(file).with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def imported(file: str) -> set[str]:
    return set(imports(ast.parse((ROOT / file).read_text()), file))


def roots(file: str) -> set[str]:
    return {name.partition(".")[0] for name in imported(file)}


def test_the_rules_are_about_files_that_are_there() -> None:
    for part in (*CORE, "tracking", "serving", "commands"):
        assert any(file.startswith(f"synthdetect/{part}/") for file in FILES)
    assert "synthdetect/experiment.py" in FILES
    assert "mlflow" in roots("synthdetect/tracking/run.py")


def test_imports_are_found_wherever_they_stand() -> None:
    text = """
import a.b as c
from d.e import f
from . import g
from ..h import i
def j():
    import k
    __import__("l.m")
"""
    found = set(imports(ast.parse(text), "synthdetect/data/x.py"))
    assert {"a.b", "d.e", "d.e.f", "synthdetect.data.g", "synthdetect.h", "k", "l.m"} <= found


@pytest.mark.parametrize("file", [f for f in FILES if f.split("/")[1] in CORE])
def test_the_core_knows_neither_mlflow_nor_optuna_nor_what_is_around_it(file: str) -> None:
    assert roots(file) & {"mlflow", "optuna", "sweeps"} == set()
    around = tuple(f"synthdetect.{name}" for name in
                   ("tracking", "serving", "commands", "experiment", "cli", "console"))  # fmt: skip
    assert [name for name in imported(file) if name.startswith(around)] == []


@pytest.mark.parametrize("file", FILES)
def test_mlflow_is_known_at_the_edge_only(file: str) -> None:
    if not file.removeprefix("synthdetect/").startswith(MAY_KNOW_MLFLOW):
        assert "mlflow" not in roots(file)


@pytest.mark.parametrize("file", FILES)
def test_the_package_never_knows_the_sweeps(file: str) -> None:
    assert roots(file) & {"sweeps"} == set()


@pytest.mark.parametrize("file", ALL_FILES)
def test_nothing_reads_a_format_that_can_execute(file: str) -> None:
    assert roots(file) & set(EXECUTE_WHAT_THEY_READ) == set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if function in ("torch.load", "load_state_dict_from_url") or function.endswith(
            (".get_state_dict", ".load_state_dict_from_url")
        ):
            assert arguments.get("weights_only") == "True", f"{file}:{node.lineno}"
        if function in ("np.load", "numpy.load"):
            assert arguments.get("allow_pickle", "False") == "False", f"{file}:{node.lineno}"
        assert function not in ("eval", "exec", "torch.jit.load", "pd.read_pickle"), (
            f"{file}:{node.lineno}"
        )
