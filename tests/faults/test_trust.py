"""Nothing that is read can execute, what has changed is found, and what is depended on agrees."""

import json
import os
import pickle
import shutil
import sqlite3
import tomllib
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
import yaml
from packaging.requirements import Requirement
from safetensors.torch import load_file, save_file

from synthdetect.cli import main
from synthdetect.datasets.index import index
from synthdetect.datasets.manifest import read
from synthdetect.detectors.detector import Detector
from synthdetect.models.networks import build
from synthdetect.models.spec import ModelSpec
from synthdetect.models.weights import initialise
from synthdetect.tracking.detectors import find_detectors
from synthdetect.training import checkpoint
from tests.conftest import ROOT, STORE
from tests.detectors.helpers import card_of, in_format_2, with_fields
from tests.faults.conftest import Logged, Refused, Say, refusal

SPEC = ModelSpec.of("mobilenet_v3_large", 32)


class Poison:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


# --- a file that would execute something, wherever a file is read

POISONED: dict[str, Callable[[Path, Path], object]] = {
    "a pickle": lambda file, trace: file.write_bytes(pickle.dumps(Poison(trace))),
    "an old pickle": lambda file, trace: file.write_bytes(pickle.dumps(Poison(trace), protocol=0)),
    "torch's": lambda file, trace: torch.save({"state_dict": Poison(trace)}, file),
    "torch's old one": lambda file, trace: torch.save(
        {"a": Poison(trace)}, file, _use_new_zipfile_serialization=False
    ),
    "pandas'": lambda file, trace: pd.to_pickle(Poison(trace), file, compression=None),
    "a pickle in a zip": lambda file, trace: pd.to_pickle(Poison(trace), file, compression="zip"),
    "YAML": lambda file, trace: file.write_text(f"!!python/object/apply:os.mkdir ['{trace}']\n"),
    "Python": lambda file, trace: file.write_text(f"import os\nos.mkdir({str(trace)!r})\n"),
    "a formula": lambda file, trace: file.write_text(
        f"path,label\n\"=cmd|'mkdir {trace}'!A1\",0\n"
    ),
}

READERS: dict[str, Callable[[Path], object]] = {
    "d.safetensors": lambda file: find_detectors((str(file),)),
    "d.onnx": lambda file: find_detectors((str(file),)),
    "weights.pt": lambda file: initialise(build(SPEC), str(file)),
    "last.safetensors": lambda file: checkpoint.load(file, None),  # type: ignore[arg-type]
    "best.safetensors": lambda file: checkpoint.load_network(file, torch.nn.Linear(1, 1)),
    "m.csv": lambda file: index(read(file)),
    "m.parquet": lambda file: index(read(file)),
    "m.pkl": lambda file: index(read(file)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("poison", POISONED)
def test_what_would_execute_something_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: str, reader: str, record_property: Say
) -> None:
    """A file that would execute something, given as each kind of file that is read."""
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))
    file, trace = tmp_path / reader, tmp_path / "executed"
    POISONED[poison](file, trace)
    message = refusal(lambda: READERS[reader](file))
    assert not trace.exists()
    assert message or poison == "a formula"
    record_property("said", message.replace(f"{tmp_path}/", "") or "taken for a file's name")


# --- a model in a store that somebody has changed


def place_of(logged: Logged, folder: Path) -> Path:
    """The model's folder in a copy of the store."""
    there = str(logged.model.artifact_location).removeprefix("file://")
    return folder / Path(there).relative_to(logged.folder)


@pytest.fixture
def copied(logged: Logged, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a logged model in a copy of its store, which the commands then use."""
    folder = refused.folder
    shutil.copytree(logged.folder / "mlruns", folder / "mlruns")
    shutil.copy(logged.folder / STORE, folder / STORE)
    with sqlite3.connect(folder / STORE) as store:
        for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location"),
                              ("experiments", "artifact_location")):  # fmt: skip
            store.execute(
                f"update {table} set {column} = replace({column}, ?, ?)",
                (str(logged.folder), str(folder)),
            )
    store.close()
    refused.track(monkeypatch, f"sqlite:///{folder / STORE}")
    return place_of(logged, folder)


def described(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the model's description."""
    file = model / "MLmodel"
    description = yaml.safe_load(file.read_text())
    change(description)
    file.write_text(yaml.safe_dump(description))


def artifact(path: str) -> Callable[[Path], object]:
    def change(description: dict[str, Any]) -> None:
        description["flavors"]["python_function"]["artifacts"]["detector"]["path"] = path

    return lambda model: described(model, change)


def weights_of(model: Path) -> Path:
    (file,) = model.rglob("detector.safetensors")
    return file


def card_with(changes: dict[str, Any]) -> Callable[[Path], object]:
    """Another card in the model's file, whose weights stay what they are."""

    def change(model: Path) -> None:
        file = weights_of(model)
        card = with_fields(card_of(file), changes)
        save_file(load_file(file), file, {"card": json.dumps(card)})

    return change


def other_detector(model: Path) -> None:
    torch.manual_seed(9)
    network = build(SPEC)
    Detector(network, Detector.load(weights_of(model)).card).save(weights_of(model))


def flipped(model: Path) -> None:
    data = bytearray(weights_of(model).read_bytes())
    data[-100] ^= 1
    weights_of(model).write_bytes(data)


def described_as(text: str) -> Callable[[Path], object]:
    return lambda model: (model / "MLmodel").write_text(text)


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flipped, "not those the card was written for"),
    "another detector": (other_detector, "another weights_sha256"),
    "another threshold": (card_with({"decision.threshold": 0.9}), "another decision"),
    "another band": (card_with({"decision.unsure": 0.4}), "another decision"),
    "another calibration": (
        card_with({"decision.calibration.slope": 9.0}), "another decision",
    ),
    "another front-end": (card_with({"model.front_end": "npr"}), "another model"),
    "another normalisation": (card_with({"model.mean": [0.5, 0.5, 0.5]}), "another model"),
    "another origin": (card_with({"provenance": {"weights": "imagenet"}}), "another provenance"),
    "a card that is none": (card_with({"decision.threshold": "high"}), "its card does not fit"),
    "a pickle for the weights": (
        lambda model: weights_of(model).write_bytes(pickle.dumps(Poison(model / "executed"))),
        "not a detector",
    ),
    "no weights": (lambda model: weights_of(model).unlink(), "cannot be loaded"),
    "weights elsewhere": (artifact("/etc/passwd"), "is no detector"),
    "weights that climb": (artifact("artifacts/../../../x.safetensors"), "is no detector"),
    "weights on a server": (artifact("http://localhost:1/x.safetensors"), "--model"),
    "no description": (lambda model: (model / "MLmodel").unlink(), "cannot be loaded"),
    "an empty description": (described_as(""), "--model"),
    "a description that is a list": (described_as("[1, 2]"), "is no detector"),
    "a description that is no YAML": (described_as("{[}"), "is no detector"),
    "a description that executes": (
        described_as("!!python/object/apply:os.mkdir ['executed']"), "is no detector",
    ),
    "a description of brackets": (described_as("[" * 5000), "is no detector"),
    "no flavors": (lambda model: described(model, lambda d: d.pop("flavors")), "is no detector"),
    "flavors that are text": (
        lambda model: described(model, lambda d: d.update(flavors="x")), "is no detector",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_a_model_that_has_changed_in_its_store_is_refused(
    refused: Refused, copied: Path, logged: Logged, case: str
) -> None:
    """A logged model that was changed in its store, by accident or by somebody."""
    change, named = TAMPERED[case]
    change(copied)
    uri = f"models:/{logged.model.model_id}"
    refused("predict", f"--model={uri}", "--data=sample", named=(uri, named))
    assert not list(refused.folder.rglob("executed"))


def logged_in_format_2(model: Path) -> None:
    """Give the model's file and description the card that an older version wrote."""
    file = weights_of(model)
    old = in_format_2(card_of(file))
    save_file(load_file(file), file, {"card": json.dumps(old)})
    described(model, lambda description: description.update(metadata=old))


def test_a_model_that_an_older_version_logged_is_found(copied: Path, logged: Logged) -> None:
    uri = f"models:/{logged.model.model_id}"
    ((_, wanted, _),) = find_detectors((uri,))
    logged_in_format_2(copied)
    ((_, found, _),) = find_detectors((uri,))
    assert found.card == wanted.card


def test_a_model_without_the_newer_fields_of_its_specification_is_found(
    copied: Path, logged: Logged
) -> None:
    """As versions logged it whose networks had neither a front-end, a probe nor generators."""
    uri = f"models:/{logged.model.model_id}"
    ((_, wanted, _),) = find_detectors((uri,))
    file = weights_of(copied)
    card = card_of(file)
    older = {name: card["model"][name] for name in ("arch", "image_size", "mean", "std")}
    old = {name: value for name, value in card.items() if name != "attribution"} | {"model": older}
    save_file(load_file(file), file, {"card": json.dumps(old)})
    described(copied, lambda description: description.update(metadata=old))
    ((_, found, _),) = find_detectors((uri,))
    assert found.card == wanted.card


def test_a_changed_model_of_an_older_version_is_refused(
    refused: Refused, copied: Path, logged: Logged
) -> None:
    """A model of an older version whose threshold was changed in its store."""
    logged_in_format_2(copied)
    file = weights_of(copied)
    save_file(load_file(file), file, {"card": json.dumps(card_of(file) | {"threshold": 0.9})})
    uri = f"models:/{logged.model.model_id}"
    refused("predict", f"--model={uri}", "--data=sample", named=(uri, "another decision"))


def pickled_model(model: Path, trace: Path) -> None:
    (model / "python_model.pkl").write_bytes(pickle.dumps(Poison(trace)))
    pickled = {"python_model": "python_model.pkl"}
    described(model, lambda d: d["flavors"]["python_function"].update(pickled))


CODE: dict[str, Callable[[Path, Path], object]] = {
    "code that executes": lambda model, trace: [
        file.write_text(f"import os\nos.mkdir({str(trace)!r})\n") for file in model.rglob("*.py")
    ],
    "a pickled model": pickled_model,
    "another loader": lambda model, trace: described(
        model, lambda d: d["flavors"]["python_function"].update(loader_module="os")
    ),
    "requirements from elsewhere": lambda model, trace: (model / "requirements.txt").write_text(
        "--index-url http://localhost:1\nsynthdetect-evil\n"
    ),
}


@pytest.mark.parametrize("case", CODE)
def test_what_a_logged_model_brings_along_is_not_run_and_not_installed(
    copied: Path, logged: Logged, tmp_path: Path, case: str, record_property: Say
) -> None:
    """A logged model that brings along what would execute; its weights and card are sound."""
    CODE[case](copied, tmp_path / "executed")
    ((_, found, _),) = find_detectors((f"models:/{logged.model.model_id}",))
    assert found.card == Detector.load(weights_of(copied)).card
    assert not (tmp_path / "executed").exists()
    record_property("said", "scores by its weights alone")


def test_the_weights_of_a_served_model_are_checked_too(copied: Path, logged: Logged) -> None:
    """A served model one bit of which has changed."""
    uri = f"models:/{logged.model.model_id}"
    mlflow.pyfunc.load_model(uri)
    flipped(copied)
    with pytest.raises(Exception, match="not those the card was written for"):
        mlflow.pyfunc.load_model(uri)


# --- data that have changed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda file, other: file.write_bytes(other), ("differ from the sha256", "Restore")),
        (lambda file, other: file.write_bytes(other[:50]), ("1 of 24", "exclude")),
        (lambda file, other: file.unlink(), ("1 of 24", "exclude")),
    ],
    ids=["another image", "half an image", "gone"],
)
def test_images_that_differ_from_their_manifest_are_refused(
    refused: Refused,
    images: Path,
    change: Callable[[Path, bytes], object],
    named: tuple[str, ...],
) -> None:
    """Images that have changed since their manifest was written."""
    assert main(["manifest", str(images), "-o", str(images / "m.csv")]) == 0
    victim, _, other, *_ = sorted(images.rglob("*.png"))
    change(victim, other.read_bytes())
    refused("train", f"--data={images / 'm.csv'}", "--weights=none", named=named)


# --- what it depends on


@pytest.fixture(scope="module")
def needed() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["export"]]
    return {r.name.lower().replace("-", "_"): r for r in map(Requirement, lines)}


def test_every_dependency_has_a_lower_and_an_upper_bound(needed: dict[str, Requirement]) -> None:
    """Every dependency of the package and of exporting."""
    for requirement in needed.values():
        operators = {bound.operator for bound in requirement.specifier}
        assert operators == {">=", "<"}, requirement
        assert requirement.url is None


def test_what_is_installed_is_within_the_bounds(needed: dict[str, Requirement]) -> None:
    """The versions that these tests ran with."""
    found = {d.metadata["Name"].lower().replace("-", "_"): d.version for d in distributions()}
    outside = [
        requirement
        for name, requirement in needed.items()
        if name in found and not requirement.specifier.contains(found[name].partition("+")[0])
    ]
    assert not outside


def test_a_logged_model_needs_what_the_package_needs(
    logged: Logged, needed: dict[str, Requirement]
) -> None:
    """The requirements that a logged model is served with."""
    file = place_of(logged, logged.folder) / "requirements.txt"
    for line in file.read_text().splitlines():
        pinned = Requirement(line)
        known = needed[pinned.name.lower().replace("-", "_")]
        (bound,) = pinned.specifier
        assert bound.operator == "=="
        assert known.specifier.contains(bound.version), line
