"""In what settings differ: what changes numbers is listed, the rest is not."""

import pytest
from synthdetect.reproduction.settings import MAY_CHANGE, compare_settings

from synthdetect.runs.options import CvOptions

SETTINGS = {"version.torch": "2.14.1", "hardware.threads": "2", "optim.seed": "42",
            "git.commit": "abc", "git.dirty": "false", "run.output": "runs",
            "hardware.cores": "2"}  # fmt: skip


def listed(recorded: dict[str, str], today: dict[str, str]) -> list[list[str]]:
    return list(compare_settings(recorded, today).to_numpy().tolist())


def test_equal_settings_are_none_to_list() -> None:
    assert listed(SETTINGS, SETTINGS) == []


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("version.torch", "every number"),
        ("version.mlflow", "nothing but the record"),
        ("hardware.threads", "the last bits of sums, and with them every number"),
        ("optim.seed", "every number"),
        ("git.commit", "every number, by other code"),
        ("data.data", "nothing if the images are the same"),
    ],
)
def test_a_difference_is_listed_with_what_it_may_change(name: str, effect: str) -> None:
    recorded, today = SETTINGS | {name: "old"}, SETTINGS | {name: "new"}
    assert listed(recorded, today) == [[name, "old", "new", effect]]


@pytest.mark.parametrize("name", ["run.output", "hardware.cores", "device.workers"])
def test_what_changes_no_number_is_not_listed(name: str) -> None:
    assert listed(SETTINGS, SETTINGS | {name: "other"}) == []


def test_an_option_of_a_later_version_is_listed() -> None:
    assert listed(SETTINGS, SETTINGS | {"loss.new": "1"}) == [
        ["loss.new", "not recorded", "1", "every number"]
    ]


def test_code_that_no_commit_has_is_listed_even_if_it_was_so_then() -> None:
    dirty = SETTINGS | {"git.dirty": "true"}
    assert listed(dirty, dirty) == [["git.dirty", "true", "true", "every number, by other code"]]


def test_what_is_said_of_options_is_said_of_options_there_are() -> None:
    known = {*CvOptions.resolve({}).to_flat()}
    sections = {name.partition(".")[0] for name in known}
    said = {name for name in MAY_CHANGE if name.partition(".")[0] in sections}
    assert {name for name in said if not name.endswith(".")} <= known
