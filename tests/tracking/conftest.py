"""A working folder whose tracking store is there at once."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def workspace(workspace: Path, empty_store: Path) -> Path:
    """An empty working folder with an empty tracking store."""
    shutil.copy(empty_store, workspace)
    return workspace
