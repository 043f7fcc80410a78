"""`MLproject` and `conda.yaml` say what the command line and `pyproject.toml` say."""

import shlex
import tomllib
from typing import Any

import pytest
import yaml
from mlflow.projects._project_spec import load_project
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sweeps.__main__ import COMMANDS as SWEEPS
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.parser import parse
from synthdetect.commands.project import render
from synthdetect.runs.recipes import RECIPES
from tests.conftest import ROOT

ALL = {**COMMANDS, **SWEEPS}
ENTRIES = {"main": "train"} | {name: name for name, c in ALL.items() if c.project}
WITH_RECIPE = [e for e, name in ENTRIES.items() if "recipe" in ALL[name].options.fields()]
ASKED = {
    "train": {"lr": "1e-3", "recipe": "open", "data": "my data/table 1.csv", "generators": "a,b c"},
    "evaluate": {"model": "models:/a b@champion", "data": "my data/table 1.csv"},
    "regimes": {"lr": "1e-3", "narrow": "a,b c", "data": "my data/table 1.csv"},
    "export": {
        "model": "models:/a b@champion",
        "data": "my data/table 1.csv",
        "engine": "openvino",
    },
    "audit": {"data": "my data/table 1.csv", "strict": "true"},
    "features": {"data": "my data/table 1.csv", "arch": "resnet50"},
    "reproduce": {"run_id": "0123abcd", "data": "my data/table 1.csv", "tolerance": "0.01"},
    "compare": {"runs": "models:/a b@champion,0123abcd", "splits": "test,control"},
    "promote": {"name": "a b", "version": "2", "data": "my data/table 1.csv", "force": "true"},
    "predict": {"model": "models:/a b@champion,x.safetensors", "data": "my data/images 1.zip"},
}
"""Some parameters by command; what is said of train holds for cv."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())
    return loaded


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def conda() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "conda.yaml").read_text())
    return loaded


def test_git_ignores_what_commands_leave_behind() -> None:
    """Else it looks as if somebody had been at work in the project."""
    folders = {
        info.default
        for command in ALL.values()
        for name, info in command.options.fields().items()
        if name == "output" and isinstance(info.default, str) and info.default
    }
    assert folders >= {"runs", "predictions", "evaluation", "exports"}
    assert {f"/{folder}/" for folder in folders} <= set((ROOT / ".gitignore").read_text().split())


def test_the_file_is_what_the_commands_say() -> None:
    assert (ROOT / "MLproject").read_text() == render({"sweeps": SWEEPS}), (
        "write it again: python -m sweeps.project > MLproject"
    )


def test_the_entry_points_are_the_commands_for_projects_and_main(project: dict[str, Any]) -> None:
    assert list(project["entry_points"]) == list(ENTRIES)
    assert "train" in ENTRIES


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_parameters_are_the_commands_options(project: dict[str, Any], entry: str) -> None:
    parameters = project["entry_points"][entry]["parameters"]
    assert set(parameters) == set(ALL[ENTRIES[entry]].options.fields())
    assert {p["type"] for p in parameters.values()} == {"string"}


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry not in WITH_RECIPE])
def test_all_defaults_together_are_as_good_as_giving_nothing(
    project: dict[str, Any], entry: str
) -> None:
    parameters = project["entry_points"][entry]["parameters"]
    given = {name: parameter["default"] for name, parameter in parameters.items()}
    options = ALL[ENTRIES[entry]].options
    assert options.resolve(given) == options.resolve({})


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("entry", WITH_RECIPE)
def test_all_defaults_together_are_as_good_as_giving_nothing_but_the_recipe(
    project: dict[str, Any], entry: str, recipe: str
) -> None:
    options = ALL[ENTRIES[entry]].options
    parameters = project["entry_points"][entry]["parameters"]
    given = {name: parameter["default"] for name, parameter in parameters.items()}
    assert options.resolve({**given, "recipe": recipe}) == options.resolve({"recipe": recipe})
    assert given["recipe"] == "baseline"


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_command_that_mlflow_runs_parses_to_the_options_asked_for(entry: str) -> None:
    point = load_project(str(ROOT)).get_entry_point(entry)  # type: ignore[no-untyped-call]
    asked = ASKED.get(ENTRIES[entry], ASKED["train"])
    command = shlex.split(point.compute_command(asked, storage_dir=None))
    assert command[:2] == ["python", "-m"]
    assert command[2] == ("sweeps" if ENTRIES[entry] in SWEEPS else "synthdetect")
    name, given, *_ = parse(command[3:], command[2], ALL)
    options = ALL[name].options
    assert name == ENTRIES[entry]
    assert options.resolve(given) == options.resolve(asked)


def test_the_projects_environment_holds_what_the_package_and_its_extras_depend_on(
    conda: dict[str, Any], pyproject: dict[str, Any]
) -> None:
    pip = next(part["pip"] for part in conda["dependencies"] if isinstance(part, dict))
    extras = pyproject["optional-dependencies"]
    wanted = ("export", "pretrained", "postgresql")
    assert pip == pyproject["dependencies"] + [line for name in wanted for line in extras[name]]
    assert all(Requirement(line).specifier for line in pip)


def test_the_environments_python_is_one_the_package_supports(
    conda: dict[str, Any], pyproject: dict[str, Any]
) -> None:
    python = [p for p in conda["dependencies"] if str(p).startswith("python=")]
    assert len(python) == 1
    version = python[0].removeprefix("python=")
    assert SpecifierSet(pyproject["requires-python"]).contains(f"{version}.0")


def test_everything_but_python_and_pip_stands_under_pip(conda: dict[str, Any]) -> None:
    """MLflow's uv and virtualenv managers read only that part."""
    plain = [p.partition("=")[0] for p in conda["dependencies"] if isinstance(p, str)]
    assert plain == ["python", "pip"]
