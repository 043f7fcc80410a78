"""The versions of the software and of the code that a run's numbers depend on."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from synthdetect import __version__
from synthdetect.images.geometry import SQUARE_VERSION

_PACKAGES = (
    "mlflow", "torch", "torchvision", "numpy", "pandas", "pillow", "scikit-learn", "optuna",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Versions of synthdetect, its preprocessing, Python and the main packages, as parameters."""
    return {
        "version.synthdetect": __version__,
        "version.preprocessing": str(SQUARE_VERSION),
        "version.python": platform.python_version(),
        **{f"version.{name}": version(name) for name in _PACKAGES},
    }


def code_tags(folder: Path = Path(__file__).parent) -> dict[str, str]:
    """The git commit of a folder, and whether a Python file of its repository differs from it.

    Returns:
        The tags `git.commit` and `git.dirty`, or none if git does not keep the folder. A package
        that is installed in an environment inside somebody's repository is not of that repository.
    """
    tags = {}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit and _git(folder, "ls-files"):
        tags["git.commit"] = commit
        changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ":(top)*.py")
        tags["git.dirty"] = str(bool(changed)).lower()
    return tags


def _git(folder: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
