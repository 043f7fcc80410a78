"""The command line: what it accepts, what it prints where, and its exit status."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sweeps.extension import EXTENSION
from synthdetect import __version__, cli
from synthdetect.commands.catalogue import COMMANDS
from synthdetect.commands.command import FEW, Command
from synthdetect.commands.options import LISTS, ListOptions
from synthdetect.commands.parser import parse
from synthdetect.config.options import declared, option_name
from synthdetect.datasets.dialects import DIALECTS
from synthdetect.datasets.layouts import LAYOUTS
from synthdetect.evaluation.metrics import METRICS
from synthdetect.evaluation.options import CALIBRATIONS, ENSEMBLES, THRESHOLD_RULES
from synthdetect.images.mixing import MIXINGS
from synthdetect.images.options import GEOMETRIES
from synthdetect.images.perturbations import PERTURBATIONS
from synthdetect.models.architectures import ARCHITECTURES
from synthdetect.models.spec import FRONT_ENDS
from synthdetect.runs.kinds import RUN_KINDS
from synthdetect.runs.recipes import RECIPES
from synthdetect.system.errors import UserError
from synthdetect.system.extras import EXTRAS
from synthdetect.system.plain import to_json
from synthdetect.training.options import (
    ADAPTATIONS,
    ATTACKS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    SEMI_SUPERVISED,
)

REGISTRIES: dict[str, dict[str, Any]] = {
    "mixing": MIXINGS, "losses": LOSSES, "optimizers": OPTIMIZERS, "adaptations": ADAPTATIONS,
    "semi_supervised": SEMI_SUPERVISED,
    "attacks": ATTACKS, "geometries": GEOMETRIES, "schedules": SCHEDULES, "front_ends": FRONT_ENDS,
    "calibrations": CALIBRATIONS, "ensembles": ENSEMBLES, "perturbations": PERTURBATIONS,
}  # fmt: skip


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Run]:
    """Call `main` in this process; what it changes of the process is put back."""
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(cli.TRACEBACK, raising=False)
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        try:
            status = cli.main(arguments)
        except SystemExit as end:  # argparse's own exits
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three real and two synthetic noise images."""
    rng = np.random.default_rng(0)
    for name in ("0_real/a.png", "0_real/b.png", "0_real/c.png", "1_fake/a.png", "1_fake/b.png"):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(file)
    return tmp_path / "images"


def refused(result: Result) -> str:
    """The message of a refusal: status 2, on stderr alone, without a traceback."""
    assert result.status == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    return result.err


# --- help and names


def test_help_names_every_command(run: Run) -> None:
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    indented = [line.strip() for line in out.splitlines() if line.startswith("    ")]
    assert set(COMMANDS) <= {line.partition(" ")[0] for line in indented}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_every_option_with_its_default(run: Run, command: str) -> None:
    status, out, _ = run(command, "--help-all")
    text = " ".join(out.split())
    assert status == 0
    assert "VALUE" not in text
    for name, info in COMMANDS[command].options.fields().items():
        if name not in COMMANDS[command].positional:
            assert option_name(name) in text
            if not info.is_required():
                assert " ".join((info.description or "").split()) in text
    if command == "train":
        assert "--lr NUMBER Initial learning rate. (above 0; default: 0.0001)" in text
        assert "PIXELS Side of the square in pixels. (16 to 4,096; default: 224)" in text
        assert "--device auto|cpu|cuda|mps" in text
        assert "--pairs true|false" in text
        assert "one of: resize, center_crop" not in text  # they stand for the value
        assert "(default: none)" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short_and_leads_to_the_rest(run: Run, command: str) -> None:
    text = " ".join(run(command, "--help").out.split())
    fields = COMMANDS[command].options.fields()
    shown = [name for name in fields if f" {option_name(name)} " in text]
    hidden = [
        name
        for name in fields
        if name not in COMMANDS[command].positional and not declared(fields[name], "common", False)
    ]
    if len(fields) <= FEW:
        assert "--help-all" in text
        assert "further options" not in text
    else:
        assert 5 <= len(shown) <= 25
        assert f"{len(hidden)} further options: synthdetect {command} --help-all" in text
    assert [name for name, info in fields.items() if info.is_required()] == [
        name for name in fields if fields[name].is_required() and (name in text)
    ]


def test_common_options_come_first(run: Run) -> None:
    out = run("train", "--help-all").out
    optim = out[out.index("\noptim:") : out.index("\nloss:")]
    assert optim.index("--optimizer") < optim.index("--patience")


# --- --json and --quiet


def test_json_is_the_only_thing_on_stdout(run: Run) -> None:
    status, out, err = run("list", "recipes", "--json")
    found = json.loads(out)
    assert (status, found["command"], found["exit_status"]) == (0, "list", 0)
    assert [row["name"] for row in found["recipes"]] == list(RECIPES)
    assert "constrained" in err


def test_a_refusal_is_json_too(run: Run, folder: Path, tmp_path: Path) -> None:
    for arguments in (("train", "--epoch=3"), ("manifest", str(tmp_path / "no"), "-o", "m.csv")):
        status, out, err = run(*arguments, "--json")
        found = json.loads(out)
        assert (status, found["exit_status"]) == (2, 2)
        assert found["error"] in err
    status, out, _ = run("manifest", str(folder), "-o", str(tmp_path / "m.csv"), "--json")
    assert (status, json.loads(out)["images"]) == (0, 5)


def test_quiet_prints_nothing_but_warnings(run: Run, folder: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "m.csv")
    assert run("manifest", str(folder), "-o", output, "-q") == (0, "", "")
    (folder / "0_real" / "bad.png").write_bytes(b"no image")
    status, out, err = run("manifest", str(folder), "-o", output, "--quiet")
    assert (status, out) == (0, "")
    assert err.startswith("1 image(s) cannot be read:\n")
    assert err.endswith("0_real/bad.png: not an image of a known format\n")
    assert "6 images" in run("manifest", str(folder), "-o", output).out  # not quiet any more


def test_an_error_of_usage_is_json_too(run: Run) -> None:
    status, out, _ = run("list", "--json")
    assert (status, json.loads(out)["exit_status"]) == (2, 2)
    assert "what" in json.loads(out)["error"]


def test_a_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-m", "synthdetect", "list", "geometries", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--force", "detector", "2"], {"name": "detector", "version": "2", "force": "true"}),
        (["detector", "2", "--force"], {"name": "detector", "version": "2", "force": "true"}),
        (["detector", "2", "--force", "no"], {"name": "detector", "version": "2", "force": "no"}),
        (["detector", "2", "--force=no"], {"name": "detector", "version": "2", "force": "no"}),
    ],
)
def test_an_option_that_is_true_or_false_needs_no_value(
    arguments: list[str], given: dict[str, str]
) -> None:
    assert parse(["promote", *arguments], "synthdetect", COMMANDS).given == given


def test_a_server_has_no_result(run: Run) -> None:
    assert "--json" not in run("serve", "--help").out
    assert "unknown option --json" in refused(run("serve", "--json"))


def test_results_are_json_that_every_parser_reads() -> None:
    value = {"a": float("nan"), "b": np.float32(2), "c": Path("x"), "d": np.arange(2), "e": (True,)}
    table = pd.DataFrame({"n": [1.5, np.inf]})
    assert json.loads(to_json({**value, "t": table})) == {
        "a": None, "b": 2.0, "c": "x", "d": [0, 1], "e": [True], "t": [{"n": 1.5}, {"n": None}],
    }  # fmt: skip


# --- doctor


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file of a tracking store that does not exist yet, which is in force for one test."""
    file = tmp_path / "mlflow.db"
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    mlflow.set_tracking_uri(f"sqlite:///{file}")
    yield file
    mlflow.set_tracking_uri(before)


def test_doctor_says_what_there_is(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert (status, found["problems"]) == (0, [])
    facts = {(fact["part"], fact["name"]): fact["value"] for fact in found["facts"]}
    assert "JPEG" in facts["images", "formats"]
    assert str(store) in facts["tracking", "store"]
    assert "GiB free" in facts["disk", "cache"]
    assert {name for part, name in facts if part == "extras"} == set(EXTRAS)
    assert not store.exists()


def test_doctor_fails_if_something_does_not_work(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.write_text("no database")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "file" / "cache"))
    status, out, err = run("doctor", "--json")
    problems = json.loads(out)["problems"]
    assert status == 2
    assert len(problems) == 2
    assert "cache folder" in err
    assert "does not work: " in err


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("architectures", list(ARCHITECTURES)),
        ("architectures", [f"{entry.parameters:,}" for entry in ARCHITECTURES.values()]),
        ("architectures", [entry.weights for entry in ARCHITECTURES.values()]),
        ("recipes", list(RECIPES)),
        ("recipes", [f"{k}={v}" for d in RECIPES.values() for k, v in d.items()]),
        ("layouts", [layout.name for layout in LAYOUTS]),
        ("layouts", [dialect.name for dialect in DIALECTS]),
        ("metrics", list(METRICS)),
        ("metrics", list(METRICS.values())),
        ("threshold_rules", [*THRESHOLD_RULES, *THRESHOLD_RULES.values()]),
        *[
            (what, [text for name, entry in entries.items() for text in (name, entry.help)])
            for what, entries in REGISTRIES.items()
        ],
    ],
)
def test_list_shows_every_name_and_definition_whole(run: Run, what: str, names: list[str]) -> None:
    status, out, err = run("list", what)
    assert (status, err) == (0, "")
    assert [name for name in names if name not in out] == []


@pytest.mark.parametrize("what", LISTS)
def test_everything_that_can_be_listed_is_listed(run: Run, what: str) -> None:
    status, out, err = run("list", what)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) > 3


@pytest.mark.parametrize(
    "function",
    [
        *(command.function for command in [*COMMANDS.values(), *EXTENSION.commands.values()]),
        *(k.rerun for k in [*RUN_KINDS.values(), *EXTENSION.run_kinds.values()] if k.rerun),
    ],
)
def test_every_function_that_a_table_names_exists(function: str) -> None:
    module, _, name = function.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


# --- refusals


def test_no_command_and_an_unknown_one_are_refused(run: Run) -> None:
    assert "COMMAND" in refused(run())
    message = refused(run("trian"))
    assert "'trian'" in message
    assert "train" in message


def test_an_unknown_option_is_refused_with_the_nearest_one(run: Run) -> None:
    assert refused(run("train", "--epoch=3")) == (
        "synthdetect: unknown option --epoch. Did you mean --epochs?\n"
    )


def test_an_unknown_option_with_its_value_apart_is_named_too(run: Run) -> None:
    message = refused(run("train", "--epoch", "3"))
    assert "unknown option --epoch. Did you mean --epochs?" in message


def test_an_option_is_never_abbreviated(run: Run) -> None:
    assert "--epoch" in refused(run("train", "--epoch=1"))
    assert "unknown option --arc." in refused(run("train", "--arc=resnet50"))


@pytest.mark.parametrize("option", ["--image-size=3", "--image_size=3"])
def test_both_spellings_of_an_option_are_known(run: Run, option: str) -> None:
    message = refused(run("train", option))
    assert message == (
        "synthdetect: --image-size: Input should be greater than or equal to 16 (got '3')\n"
    )


@pytest.mark.parametrize("option", ["--image-size", "--image_size"])
def test_a_value_may_follow_after_a_space(run: Run, option: str) -> None:
    assert "--image-size" in refused(run("train", option, "3"))


def test_a_spelling_with_both_kinds_of_dashes_is_unknown_but_hinted(run: Run) -> None:
    message = refused(run("train", "--on_bad-image=exclude"))
    assert "unknown option" in message
    assert "--on-bad-image?" in message
    assert "None" not in message


def test_the_last_of_several_values_counts(run: Run) -> None:
    assert "'4'" in refused(run("train", "--image-size=64", "--image_size=4"))


@pytest.mark.parametrize("arguments", [("--lr=-1",), ("--lr", "-1")])
def test_a_negative_number_is_a_value_and_out_of_range(
    run: Run, arguments: tuple[str, ...]
) -> None:
    assert refused(run("train", *arguments)) == (
        "synthdetect: --lr: Input should be greater than 0 (got '-1')\n"
    )


def test_all_bad_values_of_a_call_are_reported(run: Run) -> None:
    message = refused(run("train", "--lr=fast", "--arch=vgg", "--seed=1.5", "--blur=nan"))
    for name in ("--lr: ", "--arch: ", "--seed: ", "--blur: "):
        assert name in message


def test_an_unexpected_argument_is_named(run: Run) -> None:
    assert "'sample'" in refused(run("train", "sample"))
    assert "'more'" in refused(run("list", "recipes", "more"))


def test_a_missing_value_and_missing_required_options_are_named(run: Run) -> None:
    assert "--lr" in refused(run("train", "--lr"))
    message = refused(run("manifest"))
    assert "folder" in message
    assert "--output" in message
    assert "--output" in refused(run("manifest", "sample"))


def test_a_table_that_does_not_exist_is_refused_with_those_that_do(run: Run) -> None:
    message = refused(run("list", "weather"))
    assert "'weather'" in message
    assert "architectures" in message


def test_data_that_are_not_there_are_refused_by_name(run: Run, tmp_path: Path) -> None:
    absent = str(tmp_path / "nowhere")
    assert absent in refused(run("manifest", absent, "-o", str(tmp_path / "m.csv")))


# --- exit status, whatever happens inside


def give_up() -> None:
    raise UserError("table.csv: is empty. Give another.")


def break_down() -> None:
    raise RuntimeError("a bug")


def be_interrupted() -> None:
    signal.raise_signal(signal.SIGINT)


def be_terminated() -> None:
    signal.raise_signal(signal.SIGTERM)


def do_nothing() -> None:
    pass


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Adds a command `probe` that calls a function of this module."""

    def add(function: Callable[[], None]) -> None:
        monkeypatch.setattr(sys.modules[__name__], "_probed", lambda options: function(), False)
        command = Command(ListOptions, f"{__name__}:_probed", "", positional=("what",))
        monkeypatch.setitem(COMMANDS, "probe", command)

    return add


@pytest.mark.parametrize(
    ("function", "status", "message"),
    [
        (do_nothing, 0, ""),
        (give_up, 2, "synthdetect: table.csv: is empty. Give another.\n"),
        (break_down, 1,
         "synthdetect: RuntimeError: a bug\n(set SYNTHDETECT_TRACEBACK=1 to see where)\n"),
        (be_interrupted, 130, "synthdetect: interrupted\n"),
        (be_terminated, 143, "synthdetect: terminated\n"),
    ],
)  # fmt: skip
def test_the_exit_status_says_whose_fault_it_was(
    run: Run,
    probe: Callable[[Callable[[], None]], None],
    function: Callable[[], None],
    status: int,
    message: str,
) -> None:
    probe(function)
    assert run("probe", "recipes") == (status, "", message)


@pytest.mark.parametrize("function", [give_up, break_down])
def test_a_traceback_is_shown_when_asked_for(
    run: Run,
    probe: Callable[[Callable[[], None]], None],
    function: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probe(function)
    assert "Traceback" not in run("probe", "recipes").err
    monkeypatch.setenv("SYNTHDETECT_TRACEBACK", "1")
    err = run("probe", "recipes").err
    assert "Traceback (most recent call last)" in err
    assert f"in {function.__name__}" in err


def test_the_status_reaches_the_shell_and_a_closed_pipe_is_no_traceback() -> None:
    command = [sys.executable, "-m", "synthdetect"]
    refusal = subprocess.run([*command, "list", "weather"], capture_output=True, timeout=60)
    assert refusal.returncode == 2
    read, write = os.pipe()
    os.close(read)
    closed = subprocess.run(
        [*command, "list", "recipes"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(write)
    assert (closed.returncode, closed.stderr) == (1, "")


# --- manifest


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_manifest_describes_every_image(run: Run, folder: Path, name: str) -> None:
    output = folder.parent / name
    status, out, err = run("manifest", str(folder), "-o", str(output))
    assert (status, err) == (0, "")
    assert "5 images" in " ".join(out.split())
    table = pd.read_csv(output) if output.suffix == ".csv" else pd.read_parquet(output)
    names = ["0_real/a.png", "0_real/b.png", "0_real/c.png", "1_fake/a.png", "1_fake/b.png"]
    assert table["path"].tolist() == [str(folder / name) for name in names]
    assert table["label"].tolist() == ["real"] * 3 + ["synthetic"] * 2
    assert set(table["format"]) == {"PNG"}
    assert set(zip(table["width"], table["height"], strict=True)) == {(30, 20)}
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert table["sha256"].nunique() == 5


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_of_a_manifest_is_the_same(run: Run, folder: Path, suffix: str) -> None:
    first, second = folder.parent / f"first{suffix}", folder.parent / f"second{suffix}"
    assert run("manifest", str(folder), "--output", str(first)).status == 0
    assert run("manifest", str(first), "--output", str(second)).status == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_manifest_inside_its_folder_has_relative_paths(run: Run, folder: Path) -> None:
    output = folder / "manifest.csv"
    for _ in range(2):  # the second time the folder holds a manifest too
        assert run("manifest", str(folder), "-o", str(output)).status == 0
        assert pd.read_csv(output)["path"].tolist()[:2] == ["0_real/a.png", "0_real/b.png"]
        assert len(pd.read_csv(output)) == 5


def test_a_second_run_reads_only_files_that_have_changed(run: Run, folder: Path) -> None:
    output, image = folder.parent / "table.csv", folder / "1_fake/b.png"
    assert run("manifest", str(folder), "-o", str(output)).status == 0
    first = output.read_text()
    before = image.stat()
    image.write_bytes(bytes(before.st_size))  # no image any more, but size and time say nothing
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run("manifest", str(folder), "-o", str(output)).status == 0
    assert output.read_text() == first
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    status, out, _ = run("manifest", str(folder), "-o", str(output))
    assert status == 0
    assert "1 image(s) cannot be read:" in out
    assert "1_fake/b.png: not an image of a known format" in out
    assert pd.read_csv(output)["error"].dropna().tolist() == ["not an image of a known format"]


def test_a_manifest_of_another_kind_of_file_is_refused(run: Run, folder: Path) -> None:
    output = folder.parent / "table.txt"
    assert str(output) in refused(run("manifest", str(folder), "-o", str(output)))
    assert not output.exists()


def test_a_manifest_into_a_folder_that_is_not_there_is_no_internal_error(
    run: Run, folder: Path
) -> None:
    output = folder.parent / "absent" / "table.csv"
    status, _, err = run("manifest", str(folder), "-o", str(output))
    assert (status == 0 and output.is_file()) or (status == 2 and str(output) in err), err
