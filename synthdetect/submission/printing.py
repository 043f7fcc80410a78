"""Printing the findings of a check."""

from collections.abc import Iterable

from synthdetect.submission.faults import Finding
from synthdetect.system.console import console


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings, each with its severity."""
    for finding in findings:
        console.print(f"{finding.severity}: {finding.message}")
