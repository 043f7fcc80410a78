"""The comparison of runs as data: a function of what is recorded of each, without any store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from synthdetect.comparison.contenders import Contender
from synthdetect.comparison.shared import Shared, shared_images
from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.splits import group_codes
from synthdetect.evaluation.answer import CHOSEN_ON
from synthdetect.evaluation.intervals import LEVEL, auc_interval, metric_intervals
from synthdetect.evaluation.paired import Paired, paired_auc, paired_metrics
from synthdetect.evaluation.predictions import AT_THRESHOLD, CONTROL
from synthdetect.reproduction.manifest_diff import diff_manifests
from synthdetect.system.arrays import FloatArray

NOT_RECORDED = "not recorded"
"""Cell of a setting that a run has not recorded."""

Effects = Callable[[str], str | None]
"""What a difference in a setting may change; None for a setting that changes nothing."""

_DIGITS = 12  # of a digest
_CERTAIN = 50.0  # log-odds beyond which a threshold counts as certain
_METRIC_COLUMNS = (
    "part", "metric", "run", "value", "low", "high", "difference", "difference_low",
    "difference_high",
)  # fmt: skip


@dataclass(frozen=True)
class SplitComparison:
    """Runs on the images of a split that all of them have scored.

    Attributes:
        split: Name of the split.
        shared: The images and their predictions.
        metrics: A row for each part, metric and run: `part` (empty for all images, or a generator,
            whose images are set against all real ones), `metric`, `run` (its letter), `value`,
            `low`, `high`, and, except of the first run, `difference` (to the first run),
            `difference_low` and `difference_high`. Intervals are 95 % over sources.
        disagreements: Positions of the images to which runs answer differently, the greatest
            difference first, those that the first run has right and wrong by turns.
    """

    split: str
    shared: Shared
    metrics: pd.DataFrame
    disagreements: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs, the first of which is the reference.

    Attributes:
        contenders: The runs.
        configuration: The options that differ: `setting`, a column for each run named by its
            letter, and `may_change`.
        data: The data that differ: `setting` and a column for each run.
        environment: Versions, hardware and code that differ, as for the configuration.
        changed_images: By letter of a run, the changes from the first run's manifest to its own,
            and their number.
        splits: The comparisons on images.
        notes: What could not be compared, and why, in sentences.
    """

    contenders: tuple[Contender, ...]
    configuration: pd.DataFrame
    data: pd.DataFrame
    environment: pd.DataFrame
    changed_images: Mapping[str, pd.Series]
    splits: tuple[SplitComparison, ...]
    notes: tuple[str, ...]


def compare(
    contenders: Sequence[Contender],
    *,
    splits: Sequence[str] = (),
    effects: Effects = lambda setting: "",
    seed: int,
    progress: Callable[[str], None] = lambda split: None,
) -> Comparison:
    """Compare runs.

    Args:
        contenders: The runs; each is compared with the first one.
        splits: Splits to compare on; by default all that every run has scored, but train and val,
            whose images have had an influence on the detector, unless there are no others.
        effects: What a difference in a setting may change; settings that change nothing are left
            out.
        seed: Seed of the bootstrap.
        progress: Called with the name of each split before it is compared.
    """
    notes = [f"{one.letter}: {problem}" for one in contenders for problem in one.problems]
    changed = [one.letter for one in contenders if one.environment.get("git.dirty") == "true"]
    if changed:
        notes.append(
            f"{', '.join(changed)}: its code had uncommitted changes, which may differ between "
            "runs of one commit."
        )
    wanted, missing = _splits(contenders, splits)
    notes += missing
    compared = []
    for split in wanted:
        progress(split)
        shared = shared_images([one.predictions[split] for one in contenders])
        words = _words(split, shared, contenders)
        notes += words
        if shared.images:
            compared.append(_split(split, shared, contenders, seed))
    compared = _with_controls(compared, contenders, seed)
    return Comparison(
        tuple(contenders),
        _settings(contenders, lambda one: one.options, effects),
        _data(contenders),
        _settings(contenders, lambda one: one.environment, effects),
        _changed(contenders),
        tuple(compared),
        tuple(notes),
    )


def _splits(contenders: Sequence[Contender], asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the splits to compare on, and in sentences what is missing."""
    if not all(one.predictions for one in contenders):
        return [], []  # the problems of these runs say so
    common = [s for s in contenders[0].predictions if all(s in c.predictions for c in contenders)]
    if asked:
        notes = [
            f"{one.letter} has no predictions of {split}; it has {', '.join(one.predictions)}."
            for split in asked
            for one in contenders
            if split not in one.predictions
        ]
        return [split for split in asked if split in common], notes
    if not common:
        found = "; ".join(f"{one.letter} {', '.join(one.predictions)}" for one in contenders)
        return [], [f"There is no split that all runs have scored: {found}."]
    independent = [split for split in common if split not in CHOSEN_ON]
    if independent:
        return sorted(independent, key=lambda split: (split != "test", split)), []
    shared = " and ".join(common)
    return common, [f"The runs share no images but {shared}, which had an influence on them."]


def _words(split: str, shared: Shared, contenders: Sequence[Contender]) -> list[str]:
    """Return in sentences how the images of the runs differ."""
    notes = []
    sizes = ", ".join(
        f"{one.letter} {size:,}" for one, size in zip(contenders, shared.sizes, strict=True)
    )
    if not shared.images and not shared.relabelled:
        notes.append(
            f"{split}: the runs have no image in common ({sizes}). Images are the same if their "
            "contents are, or their paths where no hash is recorded. Score the same images with "
            "every detector: synthdetect evaluate --model RUN --data ..., and compare those runs."
        )
    elif set(shared.sizes) != {shared.images + shared.relabelled}:
        notes.append(
            f"{split}: compared on the {shared.images:,} images that all runs have ({sizes})."
        )
    if shared.relabelled:
        notes.append(
            f"{split}: {shared.relabelled:,} images have other labels in other runs and are left "
            "out."
        )
    return notes


def _split(
    split: str, shared: Shared, contenders: Sequence[Contender], seed: int
) -> SplitComparison:
    tables = shared.tables
    labels, groups = tables[0]["label"].to_numpy(), group_codes(tables[0])
    pairs = paired_metrics(tables, seed=seed)
    own = [_own(table, seed) for table in tables]
    rows: list[tuple[str | float, ...]] = []
    for name, found in pairs.items():
        values = [tuple(one.loc[name, ["value", "low", "high"]]) for one in own]
        if np.isfinite([value for value, _, _ in values]).any():
            rows += _rows("", name, values, found, contenders)
    generators = _generators(tables) if set(labels) == {REAL, SYNTHETIC} else {}
    for generator, among in generators.items() if len(generators) > 1 else ():
        values = [
            auc_interval(labels[among], t["logit"].to_numpy()[among], groups[among], seed=seed)
            for t in tables
        ]
        found = paired_auc(tables, among=among, seed=seed)
        rows += _rows(generator, "auc", values, found, contenders)
    metrics = pd.DataFrame(rows, columns=list(_METRIC_COLUMNS))
    return SplitComparison(split, shared, metrics, _disagreements(tables))


def _own(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the metrics of a table with intervals; those at a threshold are of its answers."""
    groups, labels = group_codes(table), table["label"]
    scored = metric_intervals(labels, table["logit"], 0.5, groups, seed=seed)
    answers = np.where(table["predicted"] == SYNTHETIC, 1.0, -1.0)
    answered = metric_intervals(labels, answers, 0.5, groups, seed=seed)
    scored, answered = scored.set_index("metric"), answered.set_index("metric")
    scored.loc[list(AT_THRESHOLD)] = answered.loc[list(AT_THRESHOLD)]
    return scored


def _rows(
    part: str, metric: str, values: Sequence[tuple[float, ...]], pairs: Sequence[Paired],
    contenders: Sequence[Contender],
) -> list[tuple[str | float, ...]]:  # fmt: skip
    bounds = [pair.interval(LEVEL) for pair in pairs]
    if not np.isfinite(values).all():  # what has no interval itself has none of its difference
        bounds = [(np.nan, np.nan)] * len(pairs)
    differences = [pair.difference for pair in pairs]
    changes = [(np.nan,) * 3, *((d, *b) for d, b in zip(differences, bounds, strict=True))]
    return [
        (part, metric, one.letter, *value, *change)
        for one, value, change in zip(contenders, values, changes, strict=True)
    ]


def _generators(tables: Sequence[pd.DataFrame]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the mask of the images of each generator together with all real images."""
    table = next((t for t in tables if "generator" in t), None)
    if table is None:
        return {}
    is_real = (table["label"] == REAL).to_numpy()
    names = sorted(set(table.loc[~is_real, "generator"]))
    return {n or "(unnamed)": is_real | (table["generator"] == n).to_numpy() for n in names}


def _with_controls(
    splits: Sequence[SplitComparison], contenders: Sequence[Contender], seed: int
) -> list[SplitComparison]:
    """Set splits of real images only against the real images of the test split.

    Evaluations do so too. The AUC between them should be 0.5.
    """
    test = next((one for one in splits if one.split == "test"), None)
    result = []
    for one in splits:
        if test is None or one is test or set(one.shared.tables[0]["label"]) != {REAL}:
            result.append(one)
            continue
        joined = [
            pd.concat([real[real["label"] == REAL], control.assign(label=SYNTHETIC)])
            .reset_index(drop=True)
            .fillna("")
            for real, control in zip(test.shared.tables, one.shared.tables, strict=True)
        ]
        if joined[0]["label"].nunique() < 2:
            result.append(one)
            continue
        groups = group_codes(joined[0])
        values = [auc_interval(t["label"], t["logit"], groups, seed=seed) for t in joined]
        rows = _rows("", CONTROL, values, paired_auc(joined, seed=seed), contenders)
        added = pd.DataFrame(rows, columns=list(_METRIC_COLUMNS))
        metrics = pd.concat([added, one.metrics], ignore_index=True)
        result.append(SplitComparison(one.split, one.shared, metrics, one.disagreements))
    return result


def _disagreements(tables: Sequence[pd.DataFrame]) -> tuple[int, ...]:
    """Return the images with different answers, as `SplitComparison` describes them."""
    answers = np.stack([table["predicted"].to_numpy() for table in tables])
    margins = np.stack([_margins(table) for table in tables])
    spread = np.ptp(margins, axis=0)
    differing = np.flatnonzero(np.ptp(answers, axis=0))
    ordered = differing[np.argsort(-spread[differing], kind="stable")]
    is_right = answers[0, ordered] == tables[0]["label"].to_numpy()[ordered]
    turn = np.empty(len(ordered), dtype=np.int64)
    for side in (True, False):
        turn[is_right == side] = np.arange((is_right == side).sum())
    return tuple(int(row) for row in ordered[np.lexsort((is_right, turn))])


def _margins(table: pd.DataFrame) -> FloatArray:
    """Return how far each image lies above the lowest score that is called synthetic, in log-odds.

    The tables do not hold the threshold, which lies between the answers.
    """
    score, called = table["logit"].to_numpy(), (table["predicted"] == SYNTHETIC).to_numpy()
    cut = score[called].min() if called.any() else score.max()
    return np.asarray(np.clip(score - cut, -_CERTAIN, _CERTAIN))


def _settings(
    contenders: Sequence[Contender],
    of: Callable[[Contender], Mapping[str, str]],
    effects: Effects,
) -> pd.DataFrame:
    """List the settings that differ between the runs that have recorded their section.

    The sections of another kind of run are no difference: only what both could have set is one.
    """
    recorded = [of(one) for one in contenders]
    sections = [{name.partition(".")[0] for name in settings} for settings in recorded]
    rows = []
    for name in dict.fromkeys(name for settings in recorded for name in settings):
        cells = [settings.get(name, NOT_RECORDED) for settings in recorded]
        could = [name.partition(".")[0] in known for known in sections]
        effect = effects(name)
        if effect is not None and len({c for c, own in zip(cells, could, strict=True) if own}) > 1:
            rows.append((name, *cells, effect))
    letters = [one.letter for one in contenders]
    return pd.DataFrame(rows, columns=["setting", *letters, "may_change"])


def _data(contenders: Sequence[Contender]) -> pd.DataFrame:
    """List digests and numbers of images that differ."""
    facts: list[dict[str, str]] = []
    for one in contenders:
        found = {f"digest of {split}": digest[:_DIGITS] for split, digest in one.datasets.items()}
        counts = one.counts.assign(images=pd.to_numeric(one.counts["images"], errors="coerce"))
        for label in CLASSES:
            sizes = counts[counts["label"] == label].groupby("split")["images"].sum()
            found |= {f"{label} images of {s}": f"{n:,.0f}" for s, n in sizes.items()}
        synthetic = counts[counts["label"] == CLASSES[SYNTHETIC]]
        for split, rows in synthetic.groupby("split"):
            names = sorted(set(rows["generator"].astype(str)) - {""})
            found[f"generators of {split}"] = ", ".join(names) or "unnamed"
        facts.append(found)
    rows = []
    for name in dict.fromkeys(name for found in facts for name in found):
        cells = [found.get(name, "none") for found in facts]
        if len(set(cells)) > 1:
            rows.append((name, *cells))
    return pd.DataFrame(rows, columns=["setting", *(one.letter for one in contenders)])


def _changed(contenders: Sequence[Contender]) -> dict[str, pd.Series]:
    first, *others = contenders
    return {
        one.letter: diff_manifests(first.manifest, one.manifest)["change"].value_counts()
        for one in others
        if len(first.manifest) and len(one.manifest)
    }
