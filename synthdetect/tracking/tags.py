"""Names of a run's tags and artifacts."""

KIND = "synthdetect.kind"
"""Tag: the command that made the run, or, of a child run, its role there (fold, trial, ...)."""

PARENT = "mlflow.parentRunId"
"""MLflow's tag of a child run: the id of its parent run."""

FOLD = "synthdetect.fold"
"""Tag of a child run that names it under its parent: the number of its fold, `refit`, a regime."""

WEIGHTS = "synthdetect.weights_sha256"
"""Tag of a training that logs no model: SHA-256 of its weights; of several, separated by commas."""

PROCESS = "synthdetect.process"
"""Tag: the process that opened or resumed the run last."""

NOT_BEGUN = "synthdetect.not_begun"
"""Tag of a run that was interrupted before it had recorded anything."""

LEFT_OUT = "synthdetect.left_out"
"""Tag: what the selection of training images leaves out that the options do not suggest."""

CONFIG = "config.json"
"""Artifact: the options of the run, and the digest of its data."""

MANIFEST = "data/manifest.csv"
"""Artifact of a training: its images and their splits."""

TARGET = "data/target.csv"
"""Artifact of a training: the unlabelled images that it adapts to, if there are any."""

PROCESSES = "processes.json"
"""Artifact of a training in several processes: the device of each of them."""

CHECKPOINTS = "checkpoints"
"""Folder of artifacts: the last checkpoint, and the best epoch's if the run did not finish."""

CHOSEN = "synthdetect.chosen"
"""On which images a cross-validation chose what, as a text for the report."""

RECOGNISED = "synthdetect.columns"
"""Tag of an evaluation of a table: the columns that were recognised by their names."""

DIRECTION = "synthdetect.direction"
"""Tag of an evaluation whose scores are below chance for most generators: what that means."""
