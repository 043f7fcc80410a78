"""Tests of the platform in Python: the commands' own code, with tables of pandas in and out."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

import synthdetect
from synthdetect import cross_validate, evaluate, load_detector, train
from synthdetect.api import LoadedDetector, TrainResult
from synthdetect.runs.options import CvOptions, EvaluateOptions, TrainOptions
from synthdetect.system.errors import UserError
from tests.conftest import STORE, artifact

pytestmark = pytest.mark.usefixtures("without_figures")
SMALL = {"arch": "mobilenet_v3_large", "image_size": 32, "batch_size": 16, "weights": "none"}


@pytest.fixture(scope="module")
def folder(module_path: Path) -> Iterator[Path]:
    """A working folder with its own store and cache, for all tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_path)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{module_path / STORE}")
        patch.setenv("SYNTHDETECT_CACHE", str(module_path / "cache"))
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(f"sqlite:///{module_path / STORE}")
        yield module_path
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def trained(folder: Path, small_table: pd.DataFrame) -> TrainResult:
    """A training of seconds on a table whose paths are relative to the working folder."""
    relative = [os.path.relpath(path, folder) for path in small_table["path"]]
    return train(data=small_table.assign(path=relative), epochs=2, unsure=0.01, **SMALL)


@pytest.fixture(scope="module")
def loaded(trained: TrainResult) -> LoadedDetector:
    return load_detector(trained.run_id)


def of_split(result: TrainResult, split: str) -> pd.DataFrame:
    return result.predictions[result.predictions["split"] == split].reset_index(drop=True)


def test_a_training_returns_what_its_run_recorded(
    trained: TrainResult, small_table: pd.DataFrame
) -> None:
    run = mlflow.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert trained.history.index.tolist() == [1, 2]
    assert trained.history["train/loss"].notna().all()
    recorded = artifact(run, "evaluation/test.csv")
    metrics = trained.metrics[trained.metrics["split"] == "test"].reset_index(drop=True)
    pd.testing.assert_frame_equal(metrics.drop(columns="split"), recorded)
    assert set(trained.generators["split"]) == {"val", "test"}
    scored = small_table[small_table["split"] != "train"]
    assert set(trained.predictions["path"]) == set(scored["path"])
    # The data can be read again, which resuming and reproducing do.
    assert len(pd.read_parquet(run.data.params["data.data"])) == len(small_table)


@pytest.mark.parametrize("function", [train, cross_validate, evaluate])
def test_what_does_not_fit_is_refused_as_on_the_command_line(
    folder: Path, function: object
) -> None:
    with pytest.raises(UserError, match=r"unknown option --dtaa. Did you mean --data\?"):
        function(dtaa="sample")  # type: ignore[operator]
    with pytest.raises(UserError, match=r"--seed: Input should be a valid integer"):
        function(seed="x", data="sample")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("function", "kind"),
    [(train, TrainOptions), (cross_validate, CvOptions), (evaluate, EvaluateOptions)],
)
def test_the_signature_shows_every_option(function: object, kind: type[TrainOptions]) -> None:
    shown = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert list(shown) == ["options", *kind.fields()]
    assert shown["seed"].default == 42


def test_predict_gives_the_scores_of_the_run_and_names_what_cannot_be_read(
    trained: TrainResult, loaded: LoadedDetector, tmp_path: Path
) -> None:
    test = of_split(trained, "test")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    answers = loaded.predict([*test["path"], broken])
    np.testing.assert_allclose(answers["probability"][:-1], test["probability"], atol=1e-6)
    assert answers["label"][:-1].tolist() == test["predicted"].tolist()
    assert {"unsure", "error"} <= set(answers)
    assert "not an image" in answers["error"].iloc[-1]
    assert answers["image"].iloc[-1] == str(broken)
    by_table = loaded.predict(test)
    pd.testing.assert_frame_equal(by_table, answers[:-1])


@pytest.mark.parametrize(
    ("images", "reason"),
    [([], "there are none"), (["a.png", "./a.png"], "listed twice"), ("no/folder", "neither"),
     (pd.DataFrame({"file": ["a.png"]}), "no column 'path'")],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(
    loaded: LoadedDetector, images: object, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        loaded.predict(images)  # type: ignore[arg-type]


def test_explain_gives_a_map_and_a_figure(
    trained: TrainResult, loaded: LoadedDetector, tmp_path: Path
) -> None:
    rows = of_split(trained, "test").head(2)
    explained = loaded.explain(rows)
    assert explained.squares.shape == (2, 32, 32, 3)
    assert explained.maps.shape == (2, 32, 32)
    assert explained.rows["predicted"].tolist() == rows["predicted"].tolist()
    titles = [axes.get_title() for axes in explained.figure("mine").axes]
    assert all(
        Path(path).name[:10] in title for path, title in zip(rows["path"], titles, strict=False)
    )
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken.png: cannot be read"):
        loaded.explain([broken])


def test_evaluate_takes_a_detector_or_a_table_of_scores(trained: TrainResult) -> None:
    test = of_split(trained, "test")
    quick = {"explain": 0, "spectra": False}
    of_model = evaluate(model=trained.model, data=test, robustness="jpeg:50", **quick)
    options = EvaluateOptions.resolve({"decide": "given", "seed": 7})
    of_table = evaluate(options, predictions=test, seed=42)
    assert (options.predictions, options.seed) == ("", 7)
    assert mlflow.get_run(of_table.run_id).data.params["evaluate.seed"] == "42"
    aucs = [
        result.metrics.set_index("metric").loc["auc", "value"] for result in (of_model, of_table)
    ]
    assert aucs[0] == pytest.approx(aucs[1])
    assert of_model.robustness[["split", "perturbation", "level"]].to_numpy().tolist() == [
        ["test", "none", 0], ["test", "jpeg", 50],
    ]  # fmt: skip
    assert of_table.robustness.empty
    assert of_table.predictions["path"].tolist() == test["path"].tolist()


def test_a_cross_validation_returns_its_pool_and_its_refit(
    folder: Path, small_table: pd.DataFrame
) -> None:
    result = cross_validate(data=small_table, epochs=1, folds=2, refit=True, **SMALL)
    labelled = small_table[small_table["split"].isin(["train", "val"])]
    assert set(result.predictions["path"]) == set(labelled["path"])
    assert result.folds["fold"].tolist() == [1, 2]
    assert set(result.metrics["split"]) == {"oof"}
    assert load_detector(result.model).card.provenance["run_id"] != result.run_id


def test_a_table_that_cannot_be_written_is_named(folder: Path) -> None:
    table = pd.DataFrame({"path": ["a", "b"], "label": [1, "real"], "x": [[1], "y"]})
    with pytest.raises(UserError, match="--data: the table cannot be written"):
        train(data=table)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = """
import sys, synthdetect
assert not {"torch", "pandas", "mlflow", "pydantic", "synthdetect.api"} & set(sys.modules)
from synthdetect import train
assert not {"torch", "mlflow", "matplotlib"} & set(sys.modules)
try:
    synthdetect.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "module 'synthdetect' has no attribute 'nothing'"


def test_the_stub_declares_what_the_package_has() -> None:
    stub = Path(synthdetect.__file__).with_suffix(".pyi").read_text()
    assert f"__all__ = {synthdetect.__all__!s}".replace("'", '"') in stub
    for name in synthdetect.__all__:
        assert hasattr(synthdetect, name)
        assert name in dir(synthdetect)
