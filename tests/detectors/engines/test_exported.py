"""Tests of exported files: scores as by torch, and rejection of everything else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from scipy.special import logit

from synthdetect.detectors.detector import Detector
from synthdetect.detectors.engines.convert import quantise, to_graph
from synthdetect.detectors.engines.exported import load_detector, save_exported
from synthdetect.detectors.engines.options import ENGINES
from synthdetect.models.spec import FRONT_ENDS
from synthdetect.runs.options import ExportOptions
from synthdetect.system.errors import UserError
from tests.conftest import ROOT
from tests.detectors.engines.conftest import varied_detector
from tests.detectors.helpers import in_format_2, with_fields

Squares = npt.NDArray[np.uint8]
Change = Callable[[onnx.ModelProto], Any]


def logits(detector: Detector, squares: Squares) -> npt.NDArray[np.float64]:
    """Before calibration."""
    return np.asarray(logit(detector.score(squares)) / detector.card.decision.calibration.slope)


def exporting(
    path: Path, detector: Detector, graph: onnx.ModelProto, engine: str, precision: str
) -> Detector:
    save_exported(path, graph, replace(detector.card, engine=engine, precision=precision))
    return load_detector(path)


# --- scores


@pytest.mark.parametrize(
    ("arch", "front_end"),
    [("vit_b_16", "rgb"), *(("resnet18", front_end) for front_end in FRONT_ENDS)],
)
def test_every_engine_gives_the_logits_of_torch_for_any_number_of_images(
    arch: str, front_end: str, squares: Squares
) -> None:
    detector = varied_detector(arch, front_end)
    graph = to_graph(detector).SerializeToString()
    wanted = logits(detector, squares)
    assert np.ptp(wanted) > 0.1
    for engine in ENGINES.values():
        compute = engine.load()(graph, "fp32")
        for count in (1, 2, 9):
            np.testing.assert_allclose(compute(squares[:count]), wanted[:count], atol=1e-4)


def test_images_may_have_any_strides(detector: Detector, exported: Path, squares: Squares) -> None:
    loaded = load_detector(exported)
    mirrored = squares[:, :, ::-1]
    found = loaded.score(np.ascontiguousarray(mirrored))
    np.testing.assert_allclose(found, detector.score(mirrored.copy()), atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_is_near_torch_and_a_quarter_of_the_size(
    engine: str, detector: Detector, graph: bytes, squares: Squares, tmp_path: Path
) -> None:
    calibrated_on = [squares[:5], squares[5:]]
    small, repeated = (
        quantise(onnx.ModelProto.FromString(graph), engine, calibrated_on) for _ in range(2)
    )
    assert small.SerializeToString() == repeated.SerializeToString()
    made = exporting(tmp_path / "x.onnx", detector, small, engine=engine, precision="int8")
    found, wanted = logits(made, squares), logits(detector, squares)
    assert 0 < np.abs(found - wanted).max() < 0.3 * np.ptp(wanted)
    assert np.corrcoef(found, wanted)[0, 1] > 0.95
    assert (tmp_path / "x.onnx").stat().st_size < 0.27 * len(graph)


def test_bf16_is_near_torch(
    detector: Detector, graph: bytes, squares: Squares, tmp_path: Path
) -> None:
    plain = onnx.ModelProto.FromString(graph)
    made = exporting(tmp_path / "x.onnx", detector, plain, engine="openvino", precision="bf16")
    np.testing.assert_allclose(logits(made, squares), logits(detector, squares), atol=0.3)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_share_an_engine(engine: str, graph: bytes, squares: Squares) -> None:
    compute = ENGINES[engine].load()(graph, "fp32")
    wanted = compute(squares)
    parts = [squares[: 1 + number % 9] for number in range(60)]
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(compute, parts):
            np.testing.assert_allclose(found, wanted[: len(found)], atol=1e-4)


def test_openvino_sends_nothing_when_imported(graph: bytes) -> None:
    ENGINES["openvino"].load()(graph, "fp32")
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


_INTERRUPTED_AFTER_DELETION = """
import signal, sys
from pathlib import Path
from synthdetect.detectors.engines.options import ENGINES
graph = Path(sys.argv[1]).read_bytes()
first = ENGINES["openvino"].load()(graph, "fp32")
second = ENGINES["openvino"].load()(graph, "fp32")
del first
del second
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_process_can_be_interrupted_after_detectors_were_deleted(
    graph: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x.onnx").write_bytes(graph)
    command = [sys.executable, "-X", "faulthandler", "-c", _INTERRUPTED_AFTER_DELETION]
    command.append(str(tmp_path / "x.onnx"))
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "interrupted\n"), result.stderr


def test_the_precisions_of_the_options_are_those_of_the_engines() -> None:
    choices = get_args(get_type_hints(ExportOptions)["precision"])
    assert set(choices) == {name for engine in ENGINES.values() for name in engine.precisions}


# --- the file


def test_the_card_has_the_engine_and_the_hash_of_the_original(
    detector: Detector, exported: Path
) -> None:
    card = load_detector(exported).card
    assert (card.engine, card.precision) == ("onnxruntime", "fp32")
    assert len(card.weights_sha256) == 64
    assert card.provenance == {**detector.card.provenance, "exported_from": "of the tensors"}
    same = replace(
        card, engine="torch", weights_sha256="of the tensors", provenance=detector.card.provenance
    )
    assert same == detector.card


def test_the_file_contains_no_traces_of_the_machine(exported: Path) -> None:
    content = exported.read_bytes()
    for text in (str(Path.home()), "site-packages", "synthdetect/models", "stack_trace"):
        assert text.encode() not in content


def changed(exported: Path, target: Path, change: Change, *, hashed: bool = True) -> Path:
    """Write the exported detector with a changed graph, by default with the matching hash."""
    graph = onnx.load(exported)
    (entry,) = graph.metadata_props
    card = load_detector(exported).card
    change(graph)
    if hashed:
        del graph.metadata_props[:]
        save_exported(target, graph, card)
    else:
        assert entry.value
        target.write_bytes(graph.SerializeToString())
    return target


def outside(graph: onnx.ModelProto) -> None:
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")


def outside_in_a_branch(graph: onnx.ModelProto) -> None:
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [0.0])
    outside_of = onnx.helper.make_graph([], "branch", [], [], [tensor])
    graph.graph.node.append(onnx.helper.make_node("If", ["c"], [], then_branch=outside_of))
    tensor = graph.graph.node[-1].attribute[0].g.initializer[0]
    tensor.external_data.add(key="location", value="../secret.bin")


def other_operator(graph: onnx.ModelProto) -> None:
    graph.graph.node[1].domain = "com.elsewhere"


def function(graph: onnx.ModelProto) -> None:
    graph.functions.add(name="own", domain="com.elsewhere")


def two_logits(graph: onnx.ModelProto) -> None:
    weight = next(t for t in graph.graph.initializer if list(t.dims) == [1, 512])
    bias = next(t for t in graph.graph.initializer if list(t.dims) == [1])
    for tensor, shape in ((weight, [2, 512]), (bias, [2])):
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(np.zeros(shape, dtype=np.float32), tensor.name)
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (outside, "other files"),
        (outside_in_a_branch, "other files"),
        (other_operator, "operators of its own"),
        (function, "operators of its own"),
        (lambda graph: graph.graph.node.pop(), "onnxruntime cannot compute the graph"),
        (two_logits, "onnxruntime cannot compute the graph"),
    ],
)
def test_a_graph_that_is_not_self_contained_or_no_detector_is_an_error(
    exported: Path, tmp_path: Path, change: Change, reason: str
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    refused(changed(exported, tmp_path / "x.onnx", change), reason)


def weights(graph: onnx.ModelProto) -> None:
    tensor = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = b"\x01" + tensor.raw_data[1:]


def test_a_changed_weight_is_detected(exported: Path, tmp_path: Path) -> None:
    path = changed(exported, tmp_path / "x.onnx", weights, hashed=False)
    refused(path, "the graph is not the one")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"engine": "torch"}, "unknown engine"),
        ({"engine": "elsewhere"}, "unknown engine"),
        ({"engine": "onnxruntime", "precision": "bf16"}, "unknown engine or precision"),
        ({"model.image_size": 2**40}, f"model.image_size is {2**40}"),
        ({"model.image_size": 48}, "onnxruntime cannot compute the graph"),
        ({"geometry": "elsewhere"}, "geometry is 'elsewhere'"),
        ({"format": 1}, "card format 1"),
    ],
)
def test_a_card_that_does_not_fit_is_an_error(
    exported: Path, tmp_path: Path, header: dict[str, Any], reason: str
) -> None:
    def change(graph: onnx.ModelProto) -> None:
        (entry,) = graph.metadata_props
        entry.value = json.dumps(with_fields(json.loads(entry.value), header))

    refused(changed(exported, tmp_path / "x.onnx", change, hashed=False), reason)


def test_an_exported_file_with_a_card_of_format_2_is_the_same_detector(
    exported: Path, squares: Squares, tmp_path: Path
) -> None:
    def change(graph: onnx.ModelProto) -> None:
        (entry,) = graph.metadata_props
        entry.value = json.dumps(in_format_2(json.loads(entry.value)))

    old = load_detector(changed(exported, tmp_path / "x.onnx", change, hashed=False))
    new = load_detector(exported)
    assert old.card == new.card
    np.testing.assert_array_equal(old.score(squares), new.score(squares))


def test_a_file_that_is_no_exported_detector_is_an_error(
    detector: Detector, exported: Path, graph: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    refused(path, "not an exported detector")  # there is no file
    for content in (b"", b"\xff" * 100, graph, exported.read_bytes()[:-100_000]):
        path.write_bytes(content)
        refused(path, "not an exported detector")
    detector.save(tmp_path / "detector.safetensors")
    shutil.copy(tmp_path / "detector.safetensors", path)
    refused(path, "not an exported detector")


def test_a_safetensors_file_whose_card_names_an_engine_is_an_error(
    detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    Detector(detector.network, replace(detector.card, engine="openvino")).save(path)
    refused(path, "exported to openvino")


def test_the_error_for_a_missing_package_names_how_to_install_it(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime.*pip install"):
        load_detector(exported)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        load_detector(path)
    assert str(path) in str(caught.value)
