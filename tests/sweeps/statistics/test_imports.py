"""The statistics can be used without a sweep: they import neither Optuna nor MLflow."""

import subprocess
import sys

from tests.conftest import ROOT

MODULES = [
    f"sweeps.statistics.{file.stem}" for file in (ROOT / "sweeps" / "statistics").glob("[a-z]*.py")
]


def test_the_statistics_import_no_other_part_of_the_sweep() -> None:
    program = f"import sys, {', '.join(MODULES)}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = set(result.stdout.split())
    assert {name.split(".")[0] for name in imported} & {"optuna", "mlflow", "torch"} == set()
    assert {name for name in imported if name.startswith("sweeps")} == {
        "sweeps", "sweeps.statistics", *MODULES,
    }  # fmt: skip
