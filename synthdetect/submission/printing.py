"""Printing the findings of a check."""

from collections.abc import Iterable

from synthdetect.submission.faults import Finding
from synthdetect.system.console import console


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings, each with its severity."""
    for finding in findings:
        style = "bold red" if finding.severity == "error" else "bold yellow"
        console.print(f"{finding.severity}: {finding.message}", style=style)
