"""The tool that kills commands: what it calls a difference, and a prediction that is killed."""

from pathlib import Path

import pytest

from tests.faults.kills import differences, torment


def test_differences_are_named() -> None:
    wanted = {"train": {"status": "FINISHED", "val/auc": [(1, 0.5), (2, 0.6)]}, "scores.csv": "ab"}
    assert differences(wanted, wanted) == []
    twice = {**wanted["train"], "val/auc": [(1, 0.5), (1, 0.5), (2, 0.6)]}  # type: ignore[dict-item]
    assert differences(wanted, {**wanted, "train": twice}) == ["train: val/auc differs"]
    running = {**wanted["train"], "status": "RUNNING"}  # type: ignore[dict-item]
    assert differences(wanted, {**wanted, "train": running}) == ["train: status differs"]
    assert differences(wanted, {**wanted, "scores.csv": "cd"}) == ["scores.csv: differs"]
    assert differences(wanted, {"train": wanted["train"]}) == ["scores.csv: is missing"]
    assert differences({}, wanted)[0].endswith("is there once too often")


@pytest.mark.long
def test_a_killed_prediction_goes_on_in_its_own_run(tmp_path: Path) -> None:
    outcome = torment("predict", kills=2, seed=1, folder=tmp_path)
    assert outcome.kills >= 2
    assert outcome.faults == []
