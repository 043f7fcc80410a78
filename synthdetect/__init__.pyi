from synthdetect.api import cross_validate as cross_validate
from synthdetect.api import evaluate as evaluate
from synthdetect.api import load_detector as load_detector
from synthdetect.api import train as train

__all__ = ["__version__", "cross_validate", "evaluate", "load_detector", "train"]
__version__: str
