"""Writes `docs/performance.md` from the last results."""

import json
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

_HEAD = """\
# Performance

Ratios measured side by side in one process by the scripts in `benchmarks/`; the contenders take
turns, and a ratio is the median of the rounds (their least and greatest beside it). `python -m
benchmarks` measures all of it again and writes this page from `benchmarks/results/`. Where the
rounds lie far apart, the machine had other work too. A ratio below what is wanted is marked as
missed; one of which nothing is wanted is shown for comparison.
"""


def render(results: list[dict[str, Any]]) -> str:
    """The page's text."""
    parts = [_HEAD]
    for result in results:
        machine = result["machine"]
        parts.append(
            f"\n## {result['benchmark']}\n\n"
            f"`{result['command']}`: {result['notes']}. "
            f"{machine['name']}, {machine['cores']} cores, {machine['instruction_set']}, "
            f"{machine['memory_gib']} GiB.\n\n"
            "| what | against | ratio | rounds | wanted |\n| --- | --- | --- | --- | --- |\n"
        )
        for row in result["rows"]:
            wanted = f"{row['wanted']:g}" if row["wanted"] else ""
            mark = "" if row["ratio"] >= row["wanted"] else " (missed)"
            parts.append(
                f"| {row['what']} | {row['against']} | {row['ratio']:.3f} | "
                f"{row['low']:.3f} to {row['high']:.3f} | {wanted}{mark} |\n"
            )
        if "steps" in result:
            parts.append(_steps(result["steps"]))
    return "".join(parts)


def _steps(steps: dict[str, dict[str, dict[str, float]]]) -> str:
    """How cost grows: seconds, and MiB that the process had grown by, a column a size."""
    sizes = list(steps)
    lines = [f"| step | {' | '.join(f'{int(size):,} images' for size in sizes)} |"]
    lines.append("| --- |" + " --- |" * len(sizes))
    for name in steps[sizes[0]]:
        cells = [
            f"{(s := steps[size][name])['seconds']:.2f} s, {s['mib']:.0f} MiB" for size in sizes
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n\n![Growth](../benchmarks/results/scaling.png)\n"


def write_page() -> None:
    """Write the page from all the results there are."""
    PAGE.write_text(render([json.loads(f.read_text()) for f in sorted(RESULTS.glob("*.json"))]))
