"""The kinds of runs of a sweep."""

from collections.abc import Mapping

from synthdetect.runs.kinds import RunKind

RUN_KINDS: Mapping[str, RunKind] = {
    # A sweep is the parent of its tuning trials and of its final fits.
    "sweep": RunKind(),
    "trial": RunKind(rerun="sweeps.reproduce:rerun_trial"),
    "final": RunKind(rerun="sweeps.reproduce:rerun_final_fit", figures=False),
}
"""Kinds of runs by name."""
