"""A short while of what `python -m tests.faults.load` does for five minutes."""

from pathlib import Path

import pytest

from tests.faults.load import torment

pytestmark = pytest.mark.long


def test_a_server_answers_what_is_good_and_refuses_what_is_not(tmp_path: Path) -> None:
    outcome = torment(tmp_path, clients=16, seconds=15, bad=0.3)
    assert outcome.faults == []
    assert len(outcome.seconds) > 50
    assert len(outcome.refused) > 10
