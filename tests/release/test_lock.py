"""`requirements.lock` has what `pyproject.toml` asks for: nothing is fetched to find that out."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from typing import NamedTuple

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

TEXT = (ROOT / "requirements.lock").read_text(encoding="utf-8")
REMEDY = "write the lock again: .ci/lock"


class Pin(NamedTuple):
    """An exact version of a package, the hashes of its files and who needs it."""

    name: str
    version: Version
    marker: Marker | None
    hashes: list[str]
    needed_by: str


def pins() -> list[Pin]:
    found = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"\A(#.*\n)+", "", TEXT)):
        head, _, rest = block.partition(" \\\n")
        pin, _, marker = head.partition(" ; ")
        name, version = pin.split("==")
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", rest)
        needed_by = rest.partition("# via")[2]
        found.append(
            Pin(name, Version(version), Marker(marker) if marker else None, hashes, needed_by)
        )
    return found


PINS = pins()
HERE = {pin.name: pin for pin in PINS if pin.marker is None or pin.marker.evaluate()}
"""The pins that hold on this machine, by name."""


def asked_for() -> list[Requirement]:
    """What `pyproject.toml`, with all its extras, and `conda.yaml` ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
        *(line for part in conda if isinstance(part, dict) for line in part["pip"]),
    ]
    requirements = {str(Requirement(line)): Requirement(line) for line in lines}
    return [r for r in requirements.values() if canonicalize_name(r.name) != "synthdetect"]


ASKED_FOR = asked_for()


@pytest.mark.parametrize("requirement", ASKED_FOR, ids=str)
def test_a_requirement_is_locked_in_a_version_that_fits(requirement: Requirement) -> None:
    locked = HERE.get(canonicalize_name(requirement.name))
    assert locked, REMEDY
    assert requirement.specifier.contains(locked.version), REMEDY


def test_the_lock_has_nothing_that_is_no_longer_asked_for() -> None:
    """Each package is asked for, or needed by one that is in the lock."""
    names = {pin.name for pin in PINS}
    direct = {pin.name for pin in PINS if "synthdetect" in pin.needed_by}
    assert direct == {canonicalize_name(r.name) for r in ASKED_FOR}, REMEDY
    for pin in PINS:
        needing = set(re.findall(r"[a-z0-9][a-z0-9-]*", pin.needed_by))
        assert pin.name in direct or needing & names, pin.name


def test_what_the_installed_versions_need_is_locked() -> None:
    seen = 0
    for pin in HERE.values():
        try:
            installed = distribution(pin.name)
        except PackageNotFoundError:
            continue
        if Version(installed.version) != pin.version:
            continue
        for line in installed.requires or []:
            needed = Requirement(line)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            locked = HERE.get(canonicalize_name(needed.name))
            assert locked, f"{pin.name} needs {needed}"
            assert needed.specifier.contains(locked.version, prereleases=True), (pin.name, needed)
            seen += 1
    assert seen > 100


def test_every_file_is_known_by_its_hash_and_no_index_is_named() -> None:
    assert [pin.name for pin in PINS if not pin.hashes] == []
    assert not re.search(r"://|^-", TEXT, re.MULTILINE)
