"""What all tests of run kinds share."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick(without_figures: None) -> None:
    """Leave the figures to the tests of whole commands, in tests/e2e."""
