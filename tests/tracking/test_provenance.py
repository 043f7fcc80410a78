"""The recorded state of the code is that of the code alone."""

import subprocess
from pathlib import Path

from synthdetect.tracking.provenance import code_tags


def test_code_is_changed_by_code_and_not_by_results(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *names, *arguments], check=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("one = 1\n")
    assert code_tags(package) == {}
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "test.csv").write_text("path\n")
    assert code_tags(package)["git.dirty"] == "false"
    (package / "module.py").write_text("one = 2\n")
    assert code_tags(package)["git.dirty"] == "true"
    git("checkout", "-q", ".")
    assert code_tags(package)["git.dirty"] == "false"
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "module.py").touch()
    assert code_tags(package)["git.dirty"] == "true"
    (tmp_path / ".gitignore").write_text("environment\n")
    installed = tmp_path / "environment" / "package"
    installed.mkdir(parents=True)
    (installed / "module.py").touch()
    assert code_tags(installed) == {}
