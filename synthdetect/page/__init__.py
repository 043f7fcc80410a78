"""The page of `synthdetect serve`: pictures in; verdicts, their evidence and their limits out."""

from pydantic import ConfigDict

DESCRIBED = ConfigDict(use_attribute_docstrings=True)
"""The pydantic configuration of answers, whose description of the API has their docstrings."""
