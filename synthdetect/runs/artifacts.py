"""Names of the artifacts that resuming and reproduction read."""

CONFIG = "config.json"
"""The artifact with the options of a run and the digest of its data."""

CHECKPOINTS = "checkpoints"
"""The artifact folder with the last state, and with the best weights of an unfinished run."""
