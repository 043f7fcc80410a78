"""The kinds of runs of a sweep."""

from collections.abc import Mapping

from synthdetect.runs.kinds import RunKind

RUN_KINDS: Mapping[str, RunKind] = {
    "sweep": RunKind("A sweep, the parent of its trials and final fits."),
    "trial": RunKind(
        "A tuning trial: a training on each tuning fold.",
        parent="sweep",
        rerun="sweeps.reproduce:rerun_trial",
    ),
    "final": RunKind(
        "A final fit: the training of one side on one fold.",
        parent="sweep",
        rerun="sweeps.reproduce:rerun_final_fit",
        figures=False,
    ),
}
"""Kinds of runs by name."""
