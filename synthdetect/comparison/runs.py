"""`synthdetect compare`: recorded runs compared in a run of its own."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from synthdetect.comparison.compare import Effects, compare
from synthdetect.comparison.contenders import MOST, Contender, read_contender
from synthdetect.comparison.looks import looks
from synthdetect.comparison.options import CompareOptions
from synthdetect.comparison.page import PAGE, render_page
from synthdetect.comparison.record import log_comparison, to_json
from synthdetect.comparison.text import show
from synthdetect.comparison.words import verdicts
from synthdetect.evaluation.summary import inert
from synthdetect.runs.messages import command_tags
from synthdetect.runs.options import CvOptions, EvaluateOptions, RegimesOptions, TrainOptions
from synthdetect.runs.setting import log_setting
from synthdetect.runs.settings import FACTS, option_effects
from synthdetect.system.console import console
from synthdetect.system.errors import UserError
from synthdetect.system.files import replace_atomically, require_file
from synthdetect.tracking.opening import open_run
from synthdetect.tracking.queries import find_run
from synthdetect.tracking.records import log_page

COMPARED = "synthdetect.compared"
"""Tag of the run: the ids of the runs that it compares, separated by commas."""


def compare_runs(options: CompareOptions) -> dict[str, Any]:
    """Compare runs, and log the comparison as a page.

    Raises:
        UserError: If there are not two or more such runs, or no run has a split of that name.
    """
    file = Path(options.output).expanduser()
    if options.output:
        require_file(file, "--output")
    contenders = read_contenders(options.runs)
    known = {split for one in contenders for split in one.predictions}
    unknown = [split for split in options.splits if split not in known]
    if unknown:
        raise UserError(
            f"--splits: no run has predictions of {', '.join(unknown)}. "
            f"Found: {', '.join(sorted(known)) or 'none'}."
        )
    ids = [one.run_id for one in contenders]
    tags = {**command_tags("compare", options), COMPARED: ",".join(ids)}
    names = " and ".join(one.name for one in contenders)
    name = f"compare {names}"[:250]
    with open_run(name, kind="compare", tags=tags, tracking=options.tracking) as run:
        log_setting(run, options)
        found = compare(
            contenders, splits=options.splits, effects=known_effects(), seed=options.seed
        )
        seen, notes = looks(found, most=options.images, data=options.data, detectors={})
        html = render_page(found, seen, {"Run id": run.id}, "Comparison of runs", notes)
        log_comparison(run, found)
        uri = log_page(run.id, html, PAGE)
        first = contenders[0].letter
        sentences = [
            f"{split.split}: {words}" for split in found.splits for words in verdicts(split, first)
        ]
        listed = [f"- {one.letter}: {one.name} (`{one.run_id}`)" for one in contenders]
        run.describe(inert("\n".join([*listed, "", *sentences])))
    if options.output:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(file) as temporary:
            temporary.write_text(html, encoding="utf-8")
    show(found)
    for note in notes:
        console.print(note, style="bold yellow")
    console.print()
    run.print_pages()
    console.print(f"page         {uri}")
    if options.output:
        console.print(f"wrote {file}")
    return {**to_json(found), "page": uri, "run_id": run.id}


def read_contenders(runs: Sequence[str]) -> list[Contender]:
    """Read the runs that `--runs` names, each with its letter.

    Raises:
        UserError: If there are fewer than two or too many, or one is not there or given twice.
    """
    if not 2 <= len(runs) <= MOST:
        raise UserError(f"--runs: give from two to {MOST} runs (got {len(runs)}).")
    ids: dict[str, str] = {}
    for text in runs:
        run_id = find_run(text, "--runs")
        if run_id in ids:
            raise UserError(f"--runs: {ids[run_id]} and {text} are the same run, {run_id}.")
        ids[run_id] = text
    return [
        read_contender(letter, run_id) for letter, run_id in zip(ascii_uppercase, ids, strict=False)
    ]


def known_effects() -> Effects:
    """Return what a difference in a recorded option, or in another recorded fact, may change."""
    options: dict[str, str] = {}
    for kind in (TrainOptions, CvOptions, RegimesOptions, EvaluateOptions):
        options |= option_effects(kind)

    def effect(name: str) -> str | None:
        known = options.get(name)
        if known is None:
            known = FACTS[max(filter(name.startswith, FACTS), key=len)]
        return known or None

    return effect
