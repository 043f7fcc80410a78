"""`synthdetect promote`."""

from synthdetect.commands.options import PromoteOptions
from synthdetect.system.console import console
from synthdetect.tracking.models import CHAMPION, promote


def promote_version(options: PromoteOptions) -> None:
    """Move the alias and say so."""
    promote(options.name, options.version)
    console.print(f"models:/{options.name}@{CHAMPION} is now version {options.version}")
