"""In what the settings of two runs differ, and what that may change."""

from collections.abc import Mapping

import pandas as pd

MAY_CHANGE: dict[str, str] = {
    "": "every number",
    "adaptation.target": "nothing if the images are the same",
    "data.data": "nothing if the images are the same",
    "data.supplement": "nothing if the images are the same",
    "device.workers": "",
    "device.cache_gib": "",
    "git.": "every number, by other code",
    "hardware.": "the last bits of sums, and with them every number",
    "hardware.cores": "",
    "hardware.memory_gib": "",
    "hardware.workers": "",
    "model.weights": "",  # what they turned out to be is `model.start`
    "run.": "",
    "version.mlflow": "nothing but the record",
    "version.numpy": "what is drawn at random; metrics",
    "version.optuna": "nothing but which trials are tried",
    "version.pandas": "nothing it should",
    "version.pillow": "what images are decoded to",
    "version.python": "nothing it should",
    "version.scikit-learn": "calibration; metrics",
    "version.torchvision": "first weights; how images are changed at random",
}
"""By the beginning of a setting's name, the longest that fits: what a difference in it may change.
Nothing at all: it is not compared."""

DIRTY = "git.dirty"
"""Whether the code had changes that no commit has."""

_UNKNOWN = "not recorded"


def compare_settings(recorded: Mapping[str, str], today: Mapping[str, str]) -> pd.DataFrame:
    """List the settings that differ.

    Args:
        recorded: by name.
        today: likewise; what only the other has is not compared.

    Returns:
        A row a setting: `setting`, `recorded`, `today`, `may_change`. Code with changes that no
        commit has is a difference whatever it is compared with.
    """
    rows = []
    for name, now in today.items():
        effect = MAY_CHANGE[max(filter(name.startswith, MAY_CHANGE), key=len)]
        before = recorded.get(name, _UNKNOWN)
        if effect and (before != now or (name == DIRTY and now == "true")):
            rows.append((name, before, now, effect))
    return pd.DataFrame(rows, columns=["setting", "recorded", "today", "may_change"])
