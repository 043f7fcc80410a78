"""A comparison as JSON and as artifacts and metrics of a run."""

import json
import math
import re
from typing import Any

import pandas as pd

from synthdetect.comparison.compare import Comparison
from synthdetect.comparison.words import disagreement_cells
from synthdetect.tracking.run import Run

RECORD = "comparison.json"
"""Artifact path of the comparison as JSON."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. :/]")  # characters that MLflow refuses


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, with None for what is undefined."""
    return {
        "runs": [
            {
                "letter": one.letter, "name": one.name, "run_id": one.run_id, "kind": one.kind,
                "status": one.status, "model": one.model,
            }
            for one in comparison.contenders
        ],
        "notes": list(comparison.notes),
        "configuration": _records(comparison.configuration),
        "data": _records(comparison.data),
        "environment": _records(comparison.environment),
        "changed_images": {
            letter: {str(change): int(count) for change, count in changes.items()}
            for letter, changes in comparison.changed_images.items()
        },
        "splits": [
            {
                "split": split.split,
                "images": split.shared.images,
                "images_of_runs": list(split.shared.sizes),
                "relabelled": split.shared.relabelled,
                "unit": split.shared.unit,
                "metrics": _records(split.metrics),
                "disagreements": [
                    {
                        "path": str(split.shared.tables[0]["path"].iloc[position]),
                        "label": int(split.shared.tables[0]["label"].iloc[position]),
                        "predicted": [int(t["predicted"].iloc[position])
                                      for t in split.shared.tables],
                    }
                    for position in split.disagreements
                ],
            }
            for split in comparison.splits
        ],
        "curves": {
            one.letter: {
                name: {str(epoch): _plain(value) for epoch, value in curve.items()}
                for name, curve in one.curves.items()
            }
            for one in comparison.contenders
        },
    }  # fmt: skip


def log_comparison(run: Run, comparison: Comparison) -> None:
    """Log a comparison to a run: as JSON, as tables, and the differences as metrics."""
    run.client.log_text(run.id, json.dumps(to_json(comparison), indent=1), RECORD)
    tables = {
        "configuration": comparison.configuration,
        "data": comparison.data,
        "environment": comparison.environment,
    }
    letters = [one.letter for one in comparison.contenders]
    metrics: dict[str, float] = {}
    for split in comparison.splits:
        tables[f"{split.split}_metrics"] = split.metrics
        tables[f"{split.split}_disagreements"] = pd.DataFrame(
            [disagreement_cells(split, position) for position in split.disagreements],
            columns=["image", "what_it_is", *letters],
        )
        changes = split.metrics[(split.metrics["part"] == "") & split.metrics["difference"].notna()]
        for row in changes.to_dict(orient="records"):
            for name in ("difference", "difference_low", "difference_high"):
                key = f"{split.split}/{row['run']}/{row['metric']}/{name}"
                if math.isfinite(row[name]):
                    metrics[_NOT_IN_NAMES.sub("_", key)] = float(row[name])
    for name, rows in tables.items():
        if len(rows):
            run.log_table(rows, f"compare/{name}.csv")
    run.log_metrics(metrics)


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in rows.to_dict(orient="records")
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return float(value) if math.isfinite(value) else None
