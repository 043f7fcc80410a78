"""The notebook: it runs as it stands, and is kept without outputs."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

FILE = ROOT / "docs" / "quickstart.ipynb"
HANGS = 1000
"""Seconds after which a cell hangs. A machine that is busy takes several times what is promised."""


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(FILE.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.long
def test_it_trains_compares_and_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("SYNTHDETECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # as a person runs it
    notebook: Any = nbformat.read(FILE, as_version=4)  # type: ignore[no-untyped-call]
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=HANGS, kernel_name="python3", resources=where).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(figures) == 2
    printed = "".join(output.get("text", "") for output in shown)
    assert "AUC of npr minus that of rgb: " in printed
