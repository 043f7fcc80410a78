"""The changelog, the citation and the package agree on the version."""

import re
from datetime import date

import yaml

from synthdetect import __version__
from tests.conftest import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_of_the_version() -> None:
    """`.ci/release` checks the file against the schema of its format."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (released,) = re.findall(rf"^## \[{re.escape(__version__)}\] - (\S+)$", CHANGELOG, re.MULTILINE)
    assert citation["version"] == __version__
    assert citation["date-released"] == released
    assert date.fromisoformat(released)


def test_the_changelog_has_what_is_unreleased_first_and_groups_of_its_form() -> None:
    titles = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.MULTILINE)
    assert titles[:2] == ["Unreleased", __version__]
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= GROUPS
