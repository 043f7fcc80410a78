"""A comparison as one self-contained page, in the form of the reports of runs."""

import io
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure as Plot

from synthdetect import __version__
from synthdetect.comparison.compare import Comparison, SplitComparison
from synthdetect.comparison.contenders import Contender
from synthdetect.comparison.curves import curves_figure
from synthdetect.comparison.looks import Look
from synthdetect.comparison.words import (
    MAIN,
    by_metric,
    changed_words,
    disagreement_cells,
    row_title,
    signed,
    verdicts,
)
from synthdetect.evaluation.metrics import METRICS
from synthdetect.evaluation.predictions import CONTROL
from synthdetect.report.page import Figure, Report, Section, Table, render
from synthdetect.report.text import format_interval

PAGE = "comparison.html"
"""Artifact path of the page."""

_MOST_ROWS = 15  # of the table of images; the run's artifacts have all


def render_page(
    comparison: Comparison, looks: Sequence[Look], facts: Mapping[str, str], title: str,
    notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """Return the page as HTML.

    Args:
        comparison: The comparison.
        looks: Images on which the runs disagree.
        facts: Facts that identify the comparison, by name.
        title: Heading of the page.
        notes: Further sentences on what is missing.
    """
    first, *others = comparison.contenders
    sections = (
        _glance(comparison),
        _differences(comparison),
        *(_metrics(split, first.letter) for split in comparison.splits),
        _curves(comparison.contenders),
        _disagreements(comparison, looks),
    )
    return render(
        Report(
            title=title,
            subtitle=" and ".join([first.name, *(one.name for one in others)]),
            facts={**facts, "Made by": f"synthdetect {__version__}"},
            warnings=(*comparison.notes, *notes),
            sections=tuple(section for section in sections if not section.is_empty),
        )
    )


def _glance(comparison: Comparison) -> Section:
    rows = [[c.letter, c.name, c.kind, c.status, c.run_id] for c in comparison.contenders]
    columns = ["", "run", "kind", "status", "run id"]
    first = comparison.contenders[0].letter
    sentences = [
        f"{split.split} ({split.shared.images:,} images): {sentence}"
        for split in comparison.splits
        for sentence in verdicts(split, first)
    ]
    note = f"Every difference is to {first}. AUC differences: 95 % intervals over the photographs."
    table = Table("The runs", pd.DataFrame(rows, columns=columns), note if sentences else "")
    return Section("At a glance", paragraphs=tuple(sentences), tables=(table,))


def _differences(comparison: Comparison) -> Section:
    titles = {
        "Configuration": comparison.configuration,
        "Data": comparison.data,
        "Environment": comparison.environment,
    }
    tables = tuple(
        Table(title, rows.replace("", "none").rename(columns={"may_change": "may change"}))
        for title, rows in titles.items()
        if len(rows)
    )
    equal = [title.lower() for title, rows in titles.items() if rows.empty]
    words = [f"The same, as far as recorded: {', '.join(equal)}."] if equal else []
    return Section("What differs", paragraphs=(*words, *changed_words(comparison)), tables=tables)


def _metrics(split: SplitComparison, first: str) -> Section:
    shared = split.shared
    pooled, parts = (CONTROL, *METRICS), split.metrics["part"] != ""
    caption = f"{split.split}: the same {shared.images:,} images, 95 % intervals by {shared.unit}"
    tables = [Table(f"{caption}: all metrics", _wide(split.metrics[~parts], first, pooled))]
    if parts.any():
        each = _wide(split.metrics[parts], first, MAIN)
        tables.append(Table(f"{split.split}: AUC of each generator against all real images", each))
    return Section(f"Metrics on {split.split}", tables=tuple(tables))


def _wide(metrics: pd.DataFrame, first: str, names: Sequence[str]) -> pd.DataFrame:
    """Return a row for each metric, with a column for each run and for each difference."""
    rows = []
    for part, metric, by_run in by_metric(metrics, names):
        cells = {"metric": row_title(part, metric)}
        for letter, row in by_run.iterrows():
            cells[str(letter)] = format_interval(row["value"], row["low"], row["high"])
            if letter != first:
                bounds = (row[name] for name in ("difference_low", "difference_high"))
                cells[f"{letter} − {first}"] = signed(format_interval(row["difference"], *bounds))
        rows.append(cells)
    return pd.DataFrame(rows)


def _curves(contenders: Sequence[Contender]) -> Section:
    trained = [one for one in contenders if one.curves]
    if not trained:
        return Section("Learning curves")
    letters = ", ".join(one.letter for one in trained)
    caption = f"Loss and AUC by epoch of {letters}: validation bold, training thin, dot: chosen"
    chosen = ", ".join(f"{one.letter} {one.chosen_epoch}" for one in trained if one.chosen_epoch)
    alt = f"{caption}. Chosen epochs: {chosen or 'not recorded'}"
    return Section("Learning curves", figures=(Figure(caption, alt, _png(curves_figure(trained))),))


def _png(plot: Plot) -> bytes:
    file = io.BytesIO()
    plot.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _disagreements(comparison: Comparison, looks: Sequence[Look]) -> Section:
    letters = [one.letter for one in comparison.contenders]
    parts = []
    for split in comparison.splits:
        count = len(split.disagreements)
        if not count:
            continue
        shown = split.disagreements[:_MOST_ROWS]
        rows = pd.DataFrame(
            [disagreement_cells(split, position) for position in shown],
            columns=["image", "what it is", *letters],
        )
        limited = (
            f"The first {len(shown)} are shown; compare/ among the artifacts has all. "
            if count > len(shown)
            else ""
        )
        note = f"{limited}Each answer with its probability, ✓ right or ✗ wrong."
        caption = f"{split.split}: different answers to {count:,} of {split.shared.images:,} images"
        figures = [_figure(look, split, letters) for look in looks if look.split == split.split]
        parts.append(
            Section(
                f"On {split.split}", tables=(Table(caption, rows, note),), figures=tuple(figures)
            )
        )
    words = [
        "Each picture is the image as the network sees it, then for each run the Grad-CAM map "
        "toward its answer: where it looked, not why."
    ] * bool(looks)
    return Section("Where the runs disagree", paragraphs=tuple(words), sections=tuple(parts))


def _figure(look: Look, split: SplitComparison, letters: Sequence[str]) -> Figure:
    name, origin, *answers = disagreement_cells(split, look.position)
    said = "; ".join(f"{a}: {answer}" for a, answer in zip(letters, answers, strict=True))
    order = ", ".join(["image", *(f"map of {letter}" for letter in look.letters)])
    caption = f"{name} ({origin}). {said}"
    return Figure(caption, f"{caption}. From left to right: {order}", look.png)
