"""Where a dataset came from, as MLflow records it."""

import tempfile
from typing import Any

from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.exceptions import MlflowException

from synthdetect.images.buckets import filesystem


class BucketSource(DatasetSource):
    """A folder in a bucket whose protocol MLflow does not know, such as Azure's `az`.

    Args:
        uri: URL of the folder.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @staticmethod
    def _get_source_type() -> str:
        return "bucket"

    def load(self) -> str:
        """Copy the folder to this machine, and return its path here."""
        fs, path = filesystem(self.uri)
        folder = tempfile.mkdtemp()
        fs.get(path, folder, recursive=True)
        return folder

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False  # MLflow's own sources come first; `source_of` decides

    @classmethod
    def _resolve(cls, raw_source: Any) -> "BucketSource":
        return cls(raw_source)

    def to_dict(self) -> dict[str, Any]:
        return {"uri": self.uri}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> "BucketSource":
        return cls(source_dict["uri"])


def source_of(uri: str) -> DatasetSource:
    """Return the source for a folder or a URL, by MLflow's own classes where it has one."""
    try:
        found: DatasetSource = resolve_dataset_source(uri)
    except MlflowException:
        return BucketSource(uri)
    return found
