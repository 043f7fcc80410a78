"""Train, compare and serve detectors of AI-generated images.

`train`, `cross_validate`, `evaluate` and `load_detector` are those of `synthdetect.api`, which is
imported when one of them is used: importing this package imports nothing else.
"""

import importlib

__version__ = "0.1.0"
__all__ = ["__version__", "cross_validate", "evaluate", "load_detector", "train"]

_API = f"{__name__}.api"


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module(_API), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
