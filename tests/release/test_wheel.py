"""The sdist has the checkout's files, and the wheel made from it works in an empty environment.

`.ci/release` does more, and takes the dependencies from the package index. Here they are those of
the running environment, whose own installation of synthdetect is not seen.
"""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import BytesParser
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow.tracking import MlflowClient

from synthdetect import __version__
from tests.conftest import ROOT

LARGEST = 60e6
"""Bytes of a wheel that holds the sample; a larger sample would have to be fetched."""


class Installed(NamedTuple):
    """An environment with the wheel."""

    wheel: Path
    sdist: Path
    bin: Path
    folder: Path

    def run(self, *command: str) -> str:
        """Run a program of the environment in an empty folder, and return what it printed."""
        done = subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=self.folder,
            env=_clean(SYNTHDETECT_CACHE=str(self.folder.parent / "cache")),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _clean(**more: str) -> dict[str, str]:
    """The environment without what would lead to the checkout or to another store."""
    hidden = ("PYTHONPATH", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID")
    return {name: value for name, value in os.environ.items() if name not in hidden} | more


@pytest.fixture(scope="module")
def installed(module_path: Path) -> Installed:
    python = [sys.executable, "-m"]
    build = [*python, "build", "--no-isolation", "--outdir", str(module_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, env=_clean())
    (wheel,), (sdist,) = module_path.glob("*.whl"), module_path.glob("*.tar.gz")
    venv.create(module_path / "venv")
    programs = module_path / "venv" / "bin"
    paths = sysconfig.get_paths(vars={"base": str(module_path / "venv")})
    # A folder that a .pth file names is searched last, and its own .pth files, such as that of an
    # editable installation, are not read.
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    pip = [*python, "pip", "--python", str(programs / "python"), "install", "-q", "--no-compile"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, env=_clean())
    (module_path / "empty").mkdir()
    return Installed(wheel, sdist, programs, module_path / "empty")


def files(*folders: str) -> set[str]:
    """The files of the checkout below these folders, but for what Python leaves there."""
    found = (file for name in folders for file in (ROOT / name).rglob("*") if file.is_file())
    return {f.relative_to(ROOT).as_posix() for f in found if f.parent.name != "__pycache__"}


def test_the_wheel_has_both_packages_whole_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == files("synthdetect", "sweeps")
    assert {"synthdetect/py.typed", "sweeps/py.typed"} <= names
    assert "synthdetect/sample/manifest.csv" in names
    assert installed.wheel.stat().st_size < LARGEST


def test_the_sdist_has_what_tests_and_documentation_need(installed: Installed) -> None:
    with tarfile.open(installed.sdist) as sdist:
        names = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    papers = {
        "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "MLproject", "README.md",
        "conda.yaml", "pyproject.toml", "requirements.lock",
    }  # fmt: skip
    kept = files("synthdetect", "sweeps", "benchmarks", "tests", ".ci")
    assert names >= papers | kept | {"docs/conf.py", "docs/index.md"}


def test_the_metadata_describe_the_package(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        (file,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(wheel.read(file))
    assert metadata["Version"] == __version__
    assert metadata.get_all("License-File") == ["LICENSE", "synthdetect/sample/ATTRIBUTION.tsv"]
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])
    assert str(metadata.get_payload()).startswith("# synthdetect\n")


def test_the_installed_code_is_used_and_says_its_version(installed: Installed) -> None:
    found = installed.run("python", "-c", "import synthdetect as s, sweeps; print(s, sweeps)")
    assert str(ROOT) not in found
    assert found.count(str(installed.folder.parent)) == 2
    assert installed.run("synthdetect", "--version").strip() == __version__


def test_names_are_listed_and_sweeps_are_among_the_commands(installed: Installed) -> None:
    assert "forensic" in installed.run("synthdetect", "list", "recipes")
    assert "--strategies" in installed.run("synthdetect", "sweep", "--help")


def test_a_detector_is_trained_and_reported_on_in_an_empty_folder(installed: Installed) -> None:
    installed.run(
        "synthdetect", "train", "--arch=resnet18_layer2", "--weights=none", "--image-size=32",
        "--epochs=1", "--max-images=40",
    )  # fmt: skip
    client = MlflowClient(f"sqlite:///{installed.folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    assert run.info.status == "FINISHED"
    assert run.data.params["version.synthdetect"] == __version__
    assert "git.commit" not in run.data.tags
    assert any(name.startswith("test/") for name in run.data.metrics)
    installed.run("synthdetect", "report", run.info.run_id, "--output=page.html")
    page = (installed.folder / "page.html").read_text(encoding="utf-8")
    style = (ROOT / "synthdetect" / "report" / "report.css").read_text(encoding="utf-8")
    assert style.splitlines()[0] in page
    assert run.info.run_id in page
