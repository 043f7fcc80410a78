"""The page `docs/performance.md`, from the latest results."""

import json
from pathlib import Path
from typing import Any

from benchmarks.billion import write_table
from benchmarks.common import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

_HEAD = """\
# Performance

The scripts in `benchmarks/` measure ratios of speeds side by side: the contenders take turns in one
process, and a ratio is the median of the rounds, with their minimum and maximum beside it. Rounds
that differ much mean that the machine had other work too. A ratio below the wanted one is marked as
missed; a ratio without a wanted one is shown for comparison. `python -m benchmarks` measures all
ratios and writes this page from `benchmarks/results/`.
"""


def render(results: list[dict[str, Any]]) -> str:
    """Return the text of the page."""
    parts = [_HEAD]
    for result in results:
        if "missing" in result:
            parts.append(
                f"\n## {result['benchmark']}\n\n`{result['command']}`: {result['missing']}.\n"
            )
            continue
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
        if "operators" in result:
            parts.append(_operators(result["operators"]))
    return "".join(parts)


def _steps(steps: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return a table of the seconds and MiB of each step, with a column for each size."""
    sizes = list(steps)
    lines = [f"| step | {' | '.join(f'{int(size):,} images' for size in sizes)} |"]
    lines.append("| --- |" + " --- |" * len(sizes))
    for name in steps[sizes[0]]:
        cells = [
            f"{(s := steps[size][name])['seconds']:.2f} s, {s['mib']:.0f} MiB" for size in sizes
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n\n![Growth](../benchmarks/results/scaling.png)\n"


def _operators(operators: list[dict[str, Any]]) -> str:
    """Return a table of the operators of a step, the costliest first."""
    lines = ["| operator | share of the time | calls |", "| --- | --- | --- |"]
    lines += [f"| `{o['name']}` | {o['share']:.1%} | {o['calls']} |" for o in operators]
    return "\n" + "\n".join(lines) + "\n"


def write_page() -> None:
    """Write the page from all results, and the table in `docs/scaling.md`."""
    results = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    PAGE.write_text(render(results))
    write_table(results)
