"""In which recorded settings two runs differ, and what each difference may change."""

from collections.abc import Mapping

import pandas as pd

from synthdetect.config.options import Affects, Options, affects

_EVERYTHING = "every number"

FACTS: dict[str, str] = {
    "": _EVERYTHING,
    "git.": "every number, through other code",
    "hardware.": "the last bits of sums, and through them every number",
    "hardware.cores": "",
    "hardware.memory_gib": "",
    "hardware.workers": "",
    "model.weights": "",  # the weights that were found are recorded as `model.start`
    "version.mlflow": "nothing but the record",
    "version.numpy": "random numbers; metrics",
    "version.optuna": "nothing but which trials are tried",
    "version.pandas": "nothing, by its documentation",
    "version.pillow": "decoded images",
    "version.preprocessing": "what the network sees of large JPEGs and of images with a profile",
    "version.python": "nothing, by its documentation",
    "version.scikit-learn": "calibration; metrics",
    "version.torchvision": "initial weights; random changes of images",
}
"""What a difference in a recorded fact may change, by the longest matching prefix of its name.

An empty text means that the fact is not compared.
"""

_BY_AFFECTS = {
    Affects.NUMBERS: _EVERYTHING,
    Affects.PLACE: "nothing if the images are the same",
}

DIRTY = "git.dirty"
"""Whether the code had uncommitted changes."""

_UNKNOWN = "not recorded"


def option_effects(kind: type[Options]) -> dict[str, str]:
    """Return what a difference in each recorded option may change; an empty text means nothing."""
    effects = {name: _BY_AFFECTS.get(affects(field), "") for name, field in kind.fields().items()}
    recorded = {f"{section}.{name}": effects[name] for name, section in kind.sections().items()}
    return recorded | {name: text for name, text in FACTS.items() if name in recorded}


def compare_settings(
    recorded: Mapping[str, str], today: Mapping[str, str], options: type[Options] | None = None
) -> pd.DataFrame:
    """List the settings that differ.

    Args:
        recorded: Recorded settings by name.
        today: Today's settings; only these are compared.
        options: The options that are among the settings.

    Returns:
        A table with a row for each differing setting: `setting`, `recorded`, `today`,
        `may_change`. Code with uncommitted changes always counts as a difference.
    """
    known = option_effects(options) if options else {}
    rows = []
    for name, now in today.items():
        effect = known.get(name)
        if effect is None:
            effect = FACTS[max(filter(name.startswith, FACTS), key=len)]
        before = recorded.get(name, _UNKNOWN)
        if effect and (before != now or (name == DIRTY and now == "true")):
            rows.append((name, before, now, effect))
    return pd.DataFrame(rows, columns=["setting", "recorded", "today", "may_change"])
