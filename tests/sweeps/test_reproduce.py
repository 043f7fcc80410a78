"""Reruns of a sweep's trial and final fit from what their runs recorded."""

import sqlite3
from importlib.metadata import EntryPoint
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from sweeps.__main__ import COMMANDS
from synthdetect.cli import main
from synthdetect.commands import extensions
from synthdetect.tracking.tags import WEIGHTS
from tests.conftest import artifact
from tests.sweeps.test_sweep import run_sweep, runs

pytestmark = pytest.mark.usefixtures("without_figures")


def reproduce(run: Run, *arguments: str) -> int:
    given = ["reproduce", run.info.run_id, *arguments]
    return main(given, program="sweeps", commands=COMMANDS)


def test_a_trial_and_a_final_fit_are_reproduced_bit_for_bit(
    workspace: Path,
    small_manifest: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ["--strategies", "dann", "--trials", "1", "--folds", "1", "--seeds", "2",
             "--tuning-folds", "2", "--tuning-share", "0.5", "--lr", "1e-3"]  # fmt: skip
    assert run_sweep(small_manifest, *given) == 0, capsys.readouterr().err
    adapted = "dann"
    (trial,) = (r for r in runs("trial") if r.data.tags["synthdetect.strategy"] == adapted)
    final = next(
        r for r in runs("final")
        if r.data.tags["synthdetect.strategy"] == adapted
        and r.data.params["final.division"] == "1"
    )  # fmt: skip
    installed: list[EntryPoint] = []
    monkeypatch.setattr(extensions, "entry_points", lambda group: installed)
    assert main(["reproduce", trial.info.run_id]) == 2
    assert "'trial'" in capsys.readouterr().err
    installed.append(EntryPoint("sweeps", "sweeps.extension:EXTENSION", extensions.GROUP))
    for recorded in (trial, final):
        before = mlflow.get_run(recorded.info.run_id)
        # The program with the installed extension, and `python -m sweeps` without it.
        by_program = recorded is final
        status = main(["reproduce", recorded.info.run_id]) if by_program else reproduce(recorded)
        assert status == 0, capsys.readouterr().err
        assert mlflow.get_run(recorded.info.run_id).to_dictionary() == before.to_dictionary()
        rerun = runs("reproduce")[0]
        assert rerun.data.tags["synthdetect.reproduces"] == recorded.info.run_id
        assert rerun.data.tags["synthdetect.reproduced"] == "reproduced bit for bit"
        # A trial logs the hashes of its weights, a final fit its model.
        assert rerun.data.tags.get(WEIGHTS) == recorded.data.tags.get(WEIGHTS)
        assert (WEIGHTS in rerun.data.tags) == (recorded is trial)
        compared = artifact(rerun, "reproduction/compared.csv")
        assert {"weights", "epochs", "results"} <= set(compared["part"])
        assert not compared["differing"].any()
        assert ("predictions" in set(compared["part"])) == (recorded is final)
    assert not list((workspace / "runs").glob("*/*.safetensors"))

    # A whole sweep is not rerun, but its error names runs that can be.
    (parent,) = runs("sweep")
    assert reproduce(parent) == 2
    error = capsys.readouterr().err
    assert any(run.info.run_id in error for run in (*runs("trial"), *runs("final")))

    # Weights that differ from the recorded ones are detected by their hash alone.
    with sqlite3.connect("mlflow.db") as store:
        store.execute(
            "update tags set value = 'other' where key = ? and run_uuid = ?",
            (WEIGHTS, trial.info.run_id),
        )
    assert reproduce(trial) == 1
    assert "1 of" in capsys.readouterr().err
