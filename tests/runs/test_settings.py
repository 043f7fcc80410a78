"""Tests of the comparison of settings: only differences that may change numbers are listed."""

import pytest

from synthdetect.config.options import Affects
from synthdetect.runs.options import CvOptions
from synthdetect.runs.settings import FACTS, compare_settings, option_effects

SETTINGS = {"version.torch": "2.14.1", "hardware.threads": "2", "optim.seed": "42",
            "git.commit": "abc", "git.dirty": "false", "run.output": "runs",
            "hardware.cores": "2"}  # fmt: skip


def listed(recorded: dict[str, str], today: dict[str, str]) -> list[list[str]]:
    return list(compare_settings(recorded, today, CvOptions).to_numpy().tolist())


def test_equal_settings_are_not_listed() -> None:
    assert listed(SETTINGS, SETTINGS) == []


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("version.torch", "every number"),
        ("version.mlflow", "nothing but the record"),
        (
            "version.preprocessing",
            "what the network sees of large JPEGs and of images with a profile",
        ),
        ("hardware.threads", "the last bits of sums, and through them every number"),
        ("optim.seed", "every number"),
        ("git.commit", "every number, through other code"),
        ("data.data", "nothing if the images are the same"),
    ],
)
def test_a_difference_is_listed_with_what_it_may_change(name: str, effect: str) -> None:
    recorded, today = SETTINGS | {name: "old"}, SETTINGS | {name: "new"}
    assert listed(recorded, today) == [[name, "old", "new", effect]]


@pytest.mark.parametrize("name", ["run.output", "hardware.cores", "device.workers"])
def test_a_setting_that_changes_no_number_is_not_listed(name: str) -> None:
    assert listed(SETTINGS, SETTINGS | {name: "other"}) == []


def test_an_option_of_a_later_version_is_listed() -> None:
    assert listed(SETTINGS, SETTINGS | {"loss.new": "1"}) == [
        ["loss.new", "not recorded", "1", "every number"]
    ]


def test_uncommitted_code_is_listed_even_if_it_was_so_before() -> None:
    dirty = SETTINGS | {"git.dirty": "true"}
    assert listed(dirty, dirty) == [
        ["git.dirty", "true", "true", "every number, through other code"]
    ]


def test_options_are_listed_if_they_affect_numbers_or_the_place_of_images() -> None:
    names = {name: f"{section}.{name}" for name, section in CvOptions.sections().items()}
    found = listed(dict.fromkeys(names.values(), "old"), dict.fromkeys(names.values(), "new"))
    # Of initial weights, those that were found are compared instead.
    expected = CvOptions.affecting(Affects.NUMBERS, Affects.PLACE) - {"weights"}
    assert {setting for setting, *_ in found} == {names[name] for name in expected}


def test_facts_about_options_name_existing_options() -> None:
    known = CvOptions.resolve({}).to_flat()
    sections = {name.partition(".")[0] for name in known}
    named = {name for name in FACTS if name.partition(".")[0] in sections}
    assert named <= set(known)
    assert option_effects(CvOptions).keys() == known.keys()
