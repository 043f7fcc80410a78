"""Logging of an audit in a run, and printing of its findings."""

import math

import pandas as pd
from rich.table import Table
from rich.text import Text

from synthdetect.audit.checks import audit
from synthdetect.audit.findings import WARNING, Audit
from synthdetect.audit.integrity import SEARCH_CUT_SHORT, NearSearch
from synthdetect.datasets.manifest import Manifest
from synthdetect.system.console import console, counting
from synthdetect.system.visible import visible
from synthdetect.tracking.run import Run

_STYLES = {WARNING: "bold red"}


def audit_quickly(
    run: Run,
    manifest: Manifest,
    excluded: pd.DataFrame,
    *,
    seed: int,
    equalise_quality: int,
    near_duplicates: NearSearch | None = None,
) -> None:
    """Audit a manifest, log the audit, and print its warnings.

    Unless `near_duplicates` is given, no image is opened.
    """
    with counting("looking for near-duplicates") as count:
        found = audit(
            manifest,
            seed=seed,
            near_duplicates=near_duplicates,
            equalise_quality=equalise_quality,
            excluded=excluded,
            progress=count,
        )
    log_audit(run, found)
    warn(found)


def log_audit(run: Run, audit: Audit) -> None:
    """Log the findings and tables, the number of warnings, and their names as a tag."""
    run.log_table(audit.findings, "audit/findings.csv")
    for name, rows in audit.tables.items():
        if len(rows):
            run.log_table(rows, f"audit/{name}.csv")
    warnings = int((audit.findings["severity"] == WARNING).sum())
    metrics = {"audit/warnings": float(warnings)}
    if not math.isnan(audit.metadata_auc):
        metrics["audit/metadata_auc"] = audit.metadata_auc
    run.log_metrics(metrics)
    run.set_tags({"synthdetect.audit": ",".join(audit.warnings) or "clean"})


def show(audit: Audit) -> None:
    """Print all findings."""
    table = Table(title="Findings", title_justify="left", show_lines=True)
    for column in ("", "name", "finding and advice"):
        table.add_column(column, no_wrap=column != "finding and advice")
    for severity, name, finding, advice in _rows(audit):
        text = Text(finding).append(f"\n{advice}", style="dim")
        style = _STYLES.get(severity, "")
        table.add_row(Text(severity.upper(), style=style), Text(name, style=style), text)
    if len(audit.findings):
        console.print(table, soft_wrap=False)
    else:
        console.print("The audit has no findings.")


def warn(audit: Audit) -> None:
    """Print the warnings, and whether the search for near-duplicates was cut short."""
    for severity, name, finding, advice in _rows(audit):
        if severity == WARNING or name == SEARCH_CUT_SHORT:
            console.print(f"{severity.upper()} {name}: {finding}.", style=_STYLES.get(severity))
            console.print(advice)


def _rows(audit: Audit) -> list[list[str]]:
    columns = audit.findings[["severity", "name", "finding", "advice"]]
    return [list(map(visible, row)) for row in columns.to_numpy()]
