"""The table of extras says what `pyproject.toml` says, and names what is missing."""

import importlib.util
import re
import subprocess
import sys
import tomllib

import pytest

from synthdetect.system import extras as module
from synthdetect.system.errors import UserError
from synthdetect.system.extras import EXTRAS, missing, require_extra
from tests.conftest import ROOT


def test_every_extra_has_the_packages_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        extra: {re.split(r"[<>=~]", requirement)[0] for requirement in requirements}
        for extra, requirements in project["optional-dependencies"].items()
        if extra not in ("dev", "docs")
    }
    assert {extra: set(names.values()) for extra, names in EXTRAS.items()} == declared
    for names in EXTRAS.values():
        assert all(importlib.util.find_spec(name) for name in names)


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnx" else name)
    assert missing("export") == ["onnx"]
    require_extra("export", "this", "openvino")
    with pytest.raises(UserError, match=r'^this: needs onnx, .*install "synthdetect\[export\]"'):
        require_extra("export", "this")


@pytest.mark.parametrize("script", ["peers", "inference", "engines"])
def test_a_benchmark_without_its_extra_ends_at_once(script: str) -> None:
    code = (
        "import sys; sys.modules['openvino'] = None; sys.argv = ['x', '--smoke']\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'openvino' else real(n, *a)\n"
        f"import benchmarks.{script} as script; script.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 1
    assert 'pip install "synthdetect[export]"' in result.stderr
    assert "Traceback" not in result.stderr
