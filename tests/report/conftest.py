"""Records of runs, made from a folder of artifacts."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from synthdetect.evaluation.metrics import METRICS
from synthdetect.tracking.records import RunRecord

HOSTILE = (
    "<script>window.hit=1</script>",
    '"><img src=x onerror="window.hit=1">',
    "'><svg onload=window.hit=1>",
    "</style></title></table><script>window.hit=1</script>",
    "javascript:window.hit=1",
    "{{ 7 * 191 }}{% raw %}",
    "$x^2$ \\ & &lt; %s",
    "\u202egnp.exe\u2066",
    "תמונה مُولَّدة",
    "\x00\x1b[31m",
    "long" * 100,
)
"""Hostile names of generators, categories or files."""

OTHERS = "Other metrics and artifacts"
"""Heading of the section of everything that no other section shows."""

Make = Callable[..., RunRecord]


def png(width: int = 40, height: int = 30) -> bytes:
    """Content of a small PNG file."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, "PNG")
    return file.getvalue()


def overall(auc: float = 0.8934) -> pd.DataFrame:
    """All metrics with intervals, as an evaluation logs them."""
    return pd.DataFrame(
        [(name, auc, auc - 0.05, auc + 0.05) for name in METRICS],
        columns=["metric", "value", "low", "high"],
    )


def generators(names: tuple[str, ...]) -> pd.DataFrame:
    """A table of all metrics with a row per generator."""
    rows = [
        {"generator": name, "images": 20, "auc": 0.5 + i / 100, "auc_low": 0.4, "auc_high": 0.9}
        | {metric: 0.25 for metric in METRICS if metric != "auc"}
        for i, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Function that makes a record from artifacts: tables, figures or text by path."""

    def made(files: Mapping[str, Any], **facts: Any) -> RunRecord:
        for path, content in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pd.DataFrame):
                content = content.to_csv(index=False)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        sizes = {path: (tmp_path / path).stat().st_size for path in files}
        known: dict[str, Any] = {
            "id": "0123abcd", "name": "a run", "status": "FINISHED", "params": {}, "metrics": {},
            "tags": {}, "started": "2026-01-02 03:04 UTC", "seconds": 61.0,
        }  # fmt: skip
        return RunRecord(**{**known, **facts}, sizes=sizes, folder=tmp_path)

    return made
