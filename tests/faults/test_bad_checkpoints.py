"""Detectors, checkpoints and weights that are cut, changed, of something else, or hostile."""

import json
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from synthdetect.detectors.detector import Detector
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.models.tensors import digest_of
from synthdetect.models.weights import initialise, require_weights
from synthdetect.training import checkpoint
from synthdetect.training.loop import TrainingState, start_training
from tests.detectors.helpers import card_of, with_fields
from tests.faults.conftest import TINY, Refused, Say, refusal
from tests.training.conftest import CPU, START, Tiny, options_of

# --- cards


def each(what: str, field: str, *values: Any) -> dict[str, dict[str, Any]]:
    """Return a case for each value of a field."""
    return {f"{what} of {value!r}": {field: value} for value in values}


def calibrations(what: str, name: str, *values: Any) -> dict[str, dict[str, Any]]:
    """Return a case for each value of a number of the calibration."""
    sound = {"slope": 1.0, "offset": 0.0, "knots": ()}
    return {
        f"{what} of {value!r}": {"decision.calibration": {**sound, name: value}} for value in values
    }


CARDS: dict[str, dict[str, Any]] = {
    **each("a threshold", "decision.threshold",
           -0.1, 1.1, "0.5", None, math.nan, math.inf, True, [0.5], {}, 10**400),
    **each("a band", "decision.unsure", -0.1, 0.6, "x", None, math.nan),
    **each("a size", "model.image_size", 0, -32, 15, 4097, 10**12, "32", 32.0, None, True, [32]),
    **calibrations("a slope", "slope", 0, -1, "1", None, math.nan, math.inf, 10**400),
    **calibrations("an offset", "offset", "0", None, math.inf),
    **calibrations("knots", "knots", [[1]], [[1, 2, 3]], "ab", 3, [["a", "b"]], [[0, math.nan]],
                   [[0, 3], [1, 2]], [[1, 2], [0, 3]], [[0, 1], [0, 2]]),
    **each("a calibration", "decision.calibration", None, [], 1, {}, "x"),
    **each("an architecture", "model.arch",
           "vgg16", "", None, [], {}, "resnet18", "vit_b_16", "../../x", "\x1b[2J"),
    **each("a front-end", "model.front_end", "hsv", "", None, [], {}, 1),
    **each("a mean", "model.mean", [0.5, 0.5], [0.5] * 4, [0.5, 0.5, -0.1], [0.5, 0.5, 1.1],
           [0, 0, math.nan], [0, 0, True], ["0", "0", "0"], 0.5, None, {}, "abc"),
    **each("a deviation", "model.std", [0, 0, 0], [1, 1, 1e-9], [1, 1, 2], [1, 1, math.inf],
           [math.nan, 1, 1], None),
    **each("a model", "model", None, [], {}, "resnet18", 1),
    **each("a decision", "decision", None, [], {}, "x", 1),
    **each("a geometry", "geometry", "stretch", None, [], {}),
    **each("an origin", "provenance", None, [], "x", 1),
    **each("a quality", "equalise_quality", -1, 101, 50.5, "75", None, True),
    **each("a format", "format", 0, 1, 2, 4, None, "3", [3], {}),
    **each("an engine", "engine", "onnxruntime", "", None, {}),
    **each("a hash", "weights_sha256", "", "0" * 64, None, 3),
    "other classes": {"classes": ["synthetic", "real"]},
    "three classes": {"classes": ["real", "synthetic", "both"]},
    "a field too many": {"__class__": "os.system"},
    "a field of the model too many": {"model.__class__": "os.system"},
    "a field of the decision too many": {"decision.__class__": "os.system"},
}  # fmt: skip
"""Fields of a card by case; none of them is valid."""


def written(file: Path, source: Path, header: dict[str, str], **tensors: Tensor) -> Path:
    """The detector's file with another header and other tensors."""
    save_file(load_file(source) | tensors, file, header)
    return file


@pytest.mark.parametrize("case", CARDS)
def test_a_card_that_says_nonsense_is_refused(
    detector_file: Path, tmp_path: Path, case: str, record_property: Say
) -> None:
    """A detector whose card has a field of the wrong type, out of range, or unknown."""
    card = json.dumps(with_fields(card_of(detector_file), CARDS[case]))
    file = written(tmp_path / "d.safetensors", detector_file, {"card": card})
    message = refusal(lambda: Detector.load(file))
    assert message.startswith(str(file))
    record_property("said", message.removeprefix(f"{tmp_path}/"))


HEADERS: dict[str, dict[str, str]] = {
    "no card": {},
    "an empty card": {"card": ""},
    "a card that is no JSON": {"card": "{'arch': 'resnet18'}"},
    "a card that is a list": {"card": "[]"},
    "a card that is null": {"card": "null"},
    "a card of 100,000 brackets": {"card": "[" * 100_000},
    "a checkpoint's header": {"checkpoint": "{}"},
}

NO_DETECTORS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "seven bytes": lambda data: data[:7],
    "half of it": lambda data: data[: len(data) // 2],
    "all but a byte": lambda data: data[:-1],
    "a byte too many": lambda data: data + b"x",
    "a header of 2^63 bytes": lambda data: struct.pack("<Q", 2**63) + data[8:],
    "a header of no bytes": lambda data: struct.pack("<Q", 0) + data[8:],
    "a header that is no JSON": lambda data: data[:8] + b"x" * 100 + data[108:],
    "a header of brackets": lambda data: struct.pack("<Q", 100_000) + b"[" * 100_000,
    "tensors beyond the end": lambda data: data.replace(b'offsets":[0,', b'offsets":[9,'),
    "tensors of another type": lambda data: data.replace(b'"F32"', b'"F99"', 1),
    "a flipped bit in the last tensor": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "a pickle": lambda data: pickle.dumps({"weights": 1}),
    "a zip archive": lambda data: b"PK\x03\x04" + data[4:],
    "text": lambda data: b"version https://git-lfs.github.com/spec/v1\n",
}  # fmt: skip


@pytest.mark.parametrize("case", [*HEADERS, *NO_DETECTORS])
def test_a_file_that_is_no_detector_is_refused(
    refused: Refused, detector_file: Path, case: str
) -> None:
    """A file that is no detector, or one that is cut or changed."""
    file = refused.folder / "d.safetensors"
    if case in HEADERS:
        written(file, detector_file, HEADERS[case])
    else:
        file.write_bytes(NO_DETECTORS[case](detector_file.read_bytes()))
    refused("predict", f"--model={file}", "--data=sample", named=(str(file),))


TENSORS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "one missing": lambda tensors: tensors.popitem(),
    "one too many": lambda tensors: tensors.update(extra=torch.zeros(1)),
    "one of another shape": lambda tensors: tensors.update(
        {"backbone.classifier.3.bias": torch.zeros(7)}
    ),
    "none": lambda tensors: tensors.clear(),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_refused_though_their_hash_is_right(
    refused: Refused, detector_file: Path, case: str
) -> None:
    """A detector whose tensors are not its architecture's."""
    tensors = load_file(detector_file)
    TENSORS[case](tensors)
    card = json.dumps(card_of(detector_file) | {"weights_sha256": digest_of(tensors)})
    file = refused.folder / "d.safetensors"
    save_file(tensors, file, {"card": card})
    refused("predict", f"--model={file}", "--data=sample", named=(str(file), "do not fit"))


def test_weights_that_are_no_numbers_are_found_when_they_score(
    refused: Refused, detector_file: Path, pictures: Path
) -> None:
    """A detector whose weights are nan, which only its scores show."""
    tensors = {
        name: torch.full_like(value, math.nan) if value.is_floating_point() else value
        for name, value in load_file(detector_file).items()
    }
    card = json.dumps(card_of(detector_file) | {"weights_sha256": digest_of(tensors)})
    save_file(tensors, refused.folder / "d.safetensors", {"card": card})
    refused.may_write = True  # the run was rightly opened
    refused(
        "predict", "--model=d.safetensors", f"--data={pictures}", "--workers=0",
        named=("not finite", "Leave it out"),
    )  # fmt: skip
    assert refused.statuses() == ["FAILED"]


# --- starting weights


def half_a_file(file: Path) -> None:
    torch.save({"a": torch.zeros(99)}, file)
    file.write_bytes(file.read_bytes()[:300])


WEIGHTS: dict[str, Callable[[Path], object]] = {
    "nothing": Path.touch,
    "text": lambda file: file.write_text("no weights"),
    "a pickle": lambda file: file.write_bytes(pickle.dumps([1])),
    "a list": lambda file: torch.save([torch.zeros(1)], file),
    "another network's": lambda file: torch.save(nn.Linear(2, 2).state_dict(), file),
    "a whole module": lambda file: torch.save(nn.Linear(2, 2), file),
    "half a file": half_a_file,
    "a scripted module": lambda file: torch.jit.save(torch.jit.script(nn.ReLU()), file),
    "numbers for names": lambda file: torch.save({0: torch.zeros(1)}, file),
    "a folder": Path.mkdir,
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("case", WEIGHTS)
def test_starting_weights_that_are_none_are_refused(
    tmp_path: Path, case: str, suffix: str, record_property: Say
) -> None:
    """A file of starting weights that is none, or another network's."""
    file = tmp_path / f"weights{suffix}"
    WEIGHTS[case](file)
    network = build(ModelSpec.of("mobilenet_v3_large", 32))

    def start() -> None:
        require_weights(str(file), "mobilenet_v3_large")
        initialise(network, str(file))

    message = refusal(start)
    assert message.startswith("--weights")
    assert str(file) in message
    record_property("said", message.replace(f"{tmp_path}/", ""))


# --- checkpoints


Change = Callable[[dict[str, Any]], object]


def tree_with(part: str, value: Any) -> Change:
    return lambda tree: tree.update({part: value})


def trees(what: str, part: str, *values: Any) -> dict[str, Change]:
    """Return a case for each value of a part of a checkpoint."""
    return {f"{what} of {value!r}": tree_with(part, value) for value in values}


def without(part: str) -> Change:
    return lambda tree: tree.pop(part)


def with_field(part: str, name: str, value: Any) -> Change:
    return lambda tree: tree[part].update({name: value})


TREES: dict[str, Change] = {
    **trees("a format", "format", 0, 4, 6, None, "5", []),
    **trees("a start", "start", None, "x", [1], {}),
    "a start with a field too many": with_field("start", "mood", 1),
    **trees("progress", "progress", None, "x", [1], 3),
    "progress with a field too many": with_field("progress", "mood", 1),
    **{name: case for part in ("network", "optimizer", "schedule", "objective")
       for name, case in trees(
           part, part, None, 3, [], {}, {"pairs": [[1]]}, "tensor:nowhere").items()},
    **{f"no {part}": without(part)
       for part in (
           "model", "network", "optimizer", "schedule", "objective", "scaler", "progress",
           "start")},
    **trees("a model", "model", None, "x", [1], 3, {}),
    **{f"another {name}": with_field("model", name, value)
       for name, value in (("arch", "vgg16"), ("image_size", 48), ("front_end", "npr"),
                           ("mean", [0, 0, 0]), ("mood", 1))},
    "a network without tensors": tree_with("network", {"pairs": []}),
}  # fmt: skip
"""Changes of the JSON of a checkpoint by case; none of the results is valid."""


def training() -> TrainingState:
    return start_training(Tiny(), CPU, options_of())


@pytest.mark.parametrize("case", TREES)
def test_a_checkpoint_that_says_nonsense_is_refused_though_its_hash_is_right(
    tmp_path: Path, case: str, record_property: Say
) -> None:
    """A checkpoint whose parts are missing, or of the wrong type."""
    file = tmp_path / "last.safetensors"
    checkpoint.save(file, training(), START)
    tensors, text = checkpoint._read(file)
    tree = json.loads(text)
    TREES[case](tree)
    checkpoint._write(file, tensors, json.dumps(tree))
    message = refusal(lambda: checkpoint.load(file, training()))
    assert message.startswith(str(file))
    record_property("said", message.removeprefix(f"{tmp_path}/"))


@pytest.mark.parametrize("where", ["header", "tensors", "hash"])
@pytest.mark.parametrize("name", ["last", "best"])
def test_a_flipped_bit_is_found_wherever_it_is(
    tmp_path: Path, name: str, where: str, record_property: Say
) -> None:
    """A checkpoint in which one bit is another."""
    file, made = tmp_path / f"{name}.safetensors", training()
    if name == "last":
        checkpoint.save(file, made, START)
    else:
        checkpoint.save_network(file, made.network)
    whole = file.read_bytes()
    begin = whole.index(b'"sha256":"') + 12
    place = {"header": whole.index(b"network" if name == "last" else b"convolution"), "hash": begin,
             "tensors": len(whole) - 2}[where]  # fmt: skip
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    if name == "last":
        message = refusal(lambda: checkpoint.load(file, training()))
    else:
        message = refusal(lambda: checkpoint.load_network(file, Tiny()))
    assert message.startswith(str(file))
    record_property("said", message.removeprefix(f"{tmp_path}/"))


# --- a run to go on with

RECORDS: dict[str, tuple[bytes | None, str]] = {
    "none": (None, "no recorded configuration"),
    "no JSON": (b"x", "is damaged"),
    "no text": (b"\xff\xfe\0", "is damaged"),
    "nothing": (b"", "is damaged"),
    "null": (b"null", "is damaged"),
    "a list": (b"[1]", "is damaged"),
    "100,000 brackets": (b"[" * 100_000, "is damaged"),
    "no options": (b'{"digest": "0"}', "is damaged"),
    "options that are a list": (b'{"digest": "0", "options": []}', "is damaged"),
    "no digest": (b'{"options": {}}', "is damaged"),
    "another command's options": (b'{"digest": "0", "options": {"lr": 1}}', "another command"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_run_whose_record_is_damaged_is_not_gone_on_with(refused: Refused, case: str) -> None:
    """A run to go on with whose recorded options are damaged, or another command's."""
    content, named = RECORDS[case]
    run_id = refused.interrupted_run(content)
    refused("train", *TINY, f"--resume={run_id}", named=(run_id, named))


@pytest.mark.parametrize("run_id", ["", " ", "../..", "0123456789abcdef", "a'b", "a b", "\x1b[2J"])
@pytest.mark.parametrize("command", ["train", "cv", "regimes", "report", "reproduce", "predict"])
def test_a_run_that_is_not_there_is_named(refused: Refused, command: str, run_id: str) -> None:
    """A run that the tracking store does not have."""
    if command in ("train", "cv", "regimes"):
        run_id = run_id or " "  # nothing at all is the default
        refused(command, f"--resume={run_id}", named=("no run",))
    elif command == "predict":
        refused(command, f"--model={run_id}", "--data=sample", named=("--model",))
    else:
        refused(command, run_id, named=("run",))
