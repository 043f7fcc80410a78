"""A sweep's trial and final training, made again from what they recorded."""

import sqlite3
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from sweeps.__main__ import COMMANDS
from synthdetect.cli import main
from synthdetect.cli import main as synthdetect
from tests.conftest import artifact
from tests.sweeps.test_sweep import run_sweep, runs


def reproduce(run: Run, *arguments: str) -> int:
    given = ["reproduce", run.info.run_id, *arguments]
    return main(given, program="sweeps", commands=COMMANDS)


def test_a_trial_and_a_final_training_are_done_again_bit_for_bit(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--strategies", "domain_adaptation", "--trials", "1", "--folds", "1",
             "--tuning-folds", "2", "--tuning-share", "0.5", "--lr", "1e-3"]  # fmt: skip
    assert run_sweep(small_manifest, *given) == 0, capsys.readouterr().err
    adapted = "domain_adaptation"
    (trial,) = (r for r in runs("trial") if r.data.tags["synthdetect.strategy"] == adapted)
    final = next(r for r in runs("final") if r.data.tags["synthdetect.strategy"] == adapted)
    for recorded in (trial, final):
        before = mlflow.get_run(recorded.info.run_id)
        assert reproduce(recorded) == 0, capsys.readouterr().err
        assert mlflow.get_run(recorded.info.run_id).to_dictionary() == before.to_dictionary()
        again = runs("reproduce")[0]
        assert again.data.tags["synthdetect.reproduces"] == recorded.info.run_id
        assert again.data.tags["synthdetect.reproduced"] == "reproduced bit for bit"
        weights = "synthdetect.weights_sha256"
        assert again.data.tags[weights] == recorded.data.tags[weights]
        compared = artifact(again, "reproduction/compared.csv")
        assert {"weights", "epochs"} <= set(compared["part"])
        assert not compared["differing"].any()
    assert {"results", "predictions"} & set(compared["part"]) == {"predictions"}
    assert not list((workspace / "runs").glob("*/*.safetensors"))

    # The package by itself says where a sweep's runs are made again, and so does a whole sweep.
    assert synthdetect(["reproduce", trial.info.run_id]) == 2
    assert "kind 'trial'" in capsys.readouterr().err
    (parent,) = runs("sweep")
    assert reproduce(parent) == 2
    assert "It has trainings inside, such as" in capsys.readouterr().err

    # Other weights than recorded are told by their hash alone.
    with sqlite3.connect("mlflow.db") as store:
        store.execute(
            "update tags set value = 'other' where key = ? and run_uuid = ?",
            (weights, trial.info.run_id),
        )
    assert reproduce(trial) == 1
    assert "1 of" in capsys.readouterr().err
