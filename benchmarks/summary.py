"""Write `docs/performance.md` from the last results: `python -m benchmarks.summary`."""

import json
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

_HEAD = """\
# Performance

Ratios measured side by side in one process by the scripts in `benchmarks/`; the contenders take
turns, and a ratio is the median of the rounds (their least and greatest beside it). Written by
`python -m benchmarks.summary` from `benchmarks/results/`. Where the rounds lie far apart, the
machine had other work too. A ratio below what is wanted is marked as missed.
"""


def render(results: list[dict[str, Any]]) -> str:
    """The page's text."""
    parts = [_HEAD]
    for result in results:
        machine = result["machine"]
        parts.append(
            f"\n## {result['benchmark']}\n\n"
            f"`python -m benchmarks.{result['module']}`: {result['notes']}. "
            f"{machine['name']}, {machine['cores']} cores, {machine['instruction_set']}, "
            f"{machine['memory_gib']} GiB.\n\n"
            "| what | against | ratio | rounds | wanted |\n| --- | --- | --- | --- | --- |\n"
        )
        for row in result["rows"]:
            mark = "" if row["ratio"] >= row["wanted"] else " (missed)"
            parts.append(
                f"| {row['what']} | {row['against']} | {row['ratio']:.3f} | "
                f"{row['low']:.3f} to {row['high']:.3f} | {row['wanted']:g}{mark} |\n"
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


if __name__ == "__main__":
    PAGE.write_text(render([json.loads(f.read_text()) for f in sorted(RESULTS.glob("*.json"))]))
