"""Options of every command that are of the wrong type, negative, infinite, unknown, or no text."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.__main__ import COMMANDS as SWEEPS
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.config.options import MAX_NAME, Options, option_name
from tests.faults.conftest import TINY, Refused, refusal

ALL = {**COMMANDS, **SWEEPS}

ODD = {
    "nan": "nan",
    "infinite": "inf",
    "minus infinite": "-inf",
    "too large for a float": "1e400",
    "negative": "-7",
    "a fraction": "0.37",
    "hexadecimal": "0x10",
    "another script's digit": "٣",
    "a power": "²",
    "a list": "[1, 2]",
    "an object": "{}",
    "nothing": "",
    "blank": "   ",
    "a sentence": "as many as you like",
    "markup": "[/bold]",
    "hundreds of digits": "9" * 300,
}
"""Texts that some options take and others do not."""

NEVER = {
    "a NUL": "a\0b",
    "no UTF-8": "a\udcff",
    "longer than any name": "x" * (MAX_NAME + 1),
    "longer than any path": "x/" * 5000,
}
"""Texts that no option takes."""


def required(options: type[Options]) -> dict[str, Any]:
    """Values for the options that have no default."""
    given = {name: "sample" for name, info in options.fields().items() if info.is_required()}
    return given | ({"what": "recipes"} if "what" in given else {})


def resolved(options: type[Options], name: str, value: str) -> Any:
    """The option's value, or None if it was refused by name."""
    made = []
    message = refusal(lambda: made.append(options.resolve({**required(options), name: value})))
    if message:
        assert option_name(name) in message
        assert len(message) < 1500
        return None
    assert options.resolve(made[0].to_json()) == made[0]
    return made[0].value(name)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("command", ALL)
def test_every_option_takes_an_odd_text_or_refuses_it_by_name(command: str, odd: str) -> None:
    """Each option of the command, given an odd text."""
    for name in ALL[command].options.fields():
        value = resolved(ALL[command].options, name, ODD[odd])
        if isinstance(value, float):
            assert math.isfinite(value)


@pytest.mark.parametrize("never", NEVER)
@pytest.mark.parametrize("command", ALL)
def test_no_option_takes_a_text_that_no_file_or_record_can_hold(command: str, never: str) -> None:
    """Each option of the command, given a text that no file system or database takes."""
    for name in ALL[command].options.fields():
        assert resolved(ALL[command].options, name, NEVER[never]) is None


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(st.sampled_from([name for name in sorted(ALL) if ALL[name].options.fields()]), st.data())
def test_any_text_gives_a_value_or_is_refused_by_name(command: str, data: st.DataObject) -> None:
    """Any text at all for any option: 300 made up by hypothesis."""
    options = ALL[command].options
    name = data.draw(st.sampled_from(sorted(options.fields())))
    texts = st.one_of(st.text(max_size=30), st.integers().map(str), st.floats().map(str))
    resolved(options, name, data.draw(texts))


# --- on the command line

UNKNOWN = ["--nosuch=1", "--no-such", "--lr2=1", "--=1", "--data.x=1", "--Data=x"]


@pytest.mark.parametrize("option", UNKNOWN)
@pytest.mark.parametrize("command", ["train", "cv", "predict", "evaluate", "regimes", "sweep"])
def test_an_unknown_option_is_named(refused: Refused, command: str, option: str) -> None:
    """An option that the command does not have."""
    refused(command, option, named=("unknown option", option.partition("=")[0]))


@pytest.mark.parametrize("argument", ["extra", "", "../..", "-x", "\x1b[2J"])
@pytest.mark.parametrize("command", ["train", "predict"])
def test_an_argument_too_many_is_named(refused: Refused, command: str, argument: str) -> None:
    """An argument that belongs to no option."""
    refused(command, argument, named=("unexpected argument", "--help"))


@pytest.mark.parametrize("name", ["a/b", "a:b", "  ", "models:/a/1", "/"])
def test_a_name_that_no_registry_takes_is_refused_before_training(
    refused: Refused, name: str
) -> None:
    """A name to register the model under, which MLflow would refuse after the training."""
    refused("train", *TINY, f"--register={name}", named=("--register", "no / and no :"))


@pytest.mark.parametrize("output", ["taken", "taken/deeper", "/dev/null", "/dev/null/x"])
@pytest.mark.parametrize("command", ["train", "cv", "regimes", "sweep", "predict", "evaluate"])
def test_an_output_that_can_be_no_folder_is_refused_first(
    refused: Refused, detector_file: Path, command: str, output: str
) -> None:
    """A folder for results that is a file, or lies in one."""
    (refused.folder / "taken").write_text("a file")
    given = {
        "predict": ["--data=sample", f"--model={detector_file}"],
        "evaluate": ["--data=sample", f"--model={detector_file}"],
        "regimes": ["--image-size=32", "--weights=none", "--device=cpu"],
    }.get(command, list(TINY))
    refused(command, *given, f"--output={output}", named=("--output", output, "Give another"))


@pytest.mark.parametrize(
    "output", ["folder.csv", "taken/x.csv", "/dev/null/x.csv", "x.txt", "x", "."]
)
def test_a_manifest_that_cannot_be_written_is_refused_first(refused: Refused, output: str) -> None:
    """A manifest to write where none can be."""
    (refused.folder / "taken").write_text("a file")
    (refused.folder / "folder.csv").mkdir()
    refused("manifest", "sample", f"--output={output}", named=(output,))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "nowhere",
        "/dev/null",
        "/dev/zero",
        "~nobody/x",
        "s3://bucket/x.csv",
        "\x1b[2J",
        "x" * 200,
    ],
)
@pytest.mark.parametrize(
    ("command", "option", "place"),
    [
        ("train", "--data", "data: "),
        ("train", "--supplement", "supplement: "),
        ("train", "--target", "--target"),
        ("audit", "--data", "data: "),
        ("audit", "--supplement", "supplement: "),
        ("predict", "--data", "--data: "),
        ("evaluate", "--data", "data: "),
        ("evaluate", "--predictions", "--predictions: "),
    ],
)
def test_data_that_are_not_there_are_named_by_their_option(
    refused: Refused,
    detector_file: Path,
    pictures: Path,
    command: str,
    option: str,
    place: str,
    data: str,
) -> None:
    """Data that are not there, or are no file and no folder."""
    if not data and option != "--data":
        data = " "  # nothing at all is the default
    given = {"train": [*TINY, f"--data={pictures}"], "audit": [f"--data={pictures}"],
             "predict": [f"--model={detector_file}"],
             "evaluate": [f"--model={detector_file}"]}  # fmt: skip
    arguments = [*given[command], f"{option}={data}"]
    if option == "--target":
        arguments.append("--adaptation=dann")
    if option == "--predictions":
        arguments = [f"{option}={data}"]
    refused(command, *arguments, named=(place,))
