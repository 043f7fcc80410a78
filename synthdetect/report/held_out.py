"""Report section on which images were held out from training and from choices, and which were not.

Every statement comes from the run's record. Facts that the record lacks are reported as not
recorded, or left out.
"""

from collections.abc import Iterable
from itertools import combinations

import pandas as pd

from synthdetect.datasets.labels import CLASSES, SYNTHETIC
from synthdetect.datasets.schema import SPLITS
from synthdetect.datasets.splits import group_codes
from synthdetect.report.page import Section, Table
from synthdetect.report.record import Artifacts
from synthdetect.report.text import format_number, is_number, label
from synthdetect.tracking.records import RunRecord
from synthdetect.tracking.tags import CHOSEN

CARD = "model/card.json"
_EVALUATE = "evaluation/held_out.csv"
_TARGET = "data/target.csv"
_MANIFEST = ("path", "label", "split", "generator", "source_id", "sha256")

Facts = list[tuple[str, str]]

_DECISION = {
    "decision.threshold_rule": "rule of the threshold",
    "decision.threshold": "rule of the threshold",  # its name in runs of older versions
    "decision.from": "source of threshold and calibration",
}
_CHOICES = {
    "train": "The best epoch, the temperature and the threshold were chosen on the validation "
    "images only.",
    "cv": "Each labelled image was scored by the only fold model that was not trained on it. "
    "The temperature and the threshold were chosen on these out-of-fold predictions of the "
    "training and validation images.",
    "refit": "This model was trained on train and val together, so it has no validation images. "
    "The number of epochs, the calibration and the threshold come from the folds.",
    "regime_refit": "This model was trained on all labelled images of its regime, so it has no "
    "validation images. The number of epochs, the calibration and the threshold come from the "
    "training of the same regime that validated.",
    "predict": "The images have no labels. The temperature and the threshold are those of the "
    "models, from the validation images of their training.",
}
"""What was chosen on which images, by kind of run; newer cross-validations record it themselves."""

_CHOICES |= dict.fromkeys(("fold", "regime"), _CHOICES["train"])
_SCORED_ONCE = "{} were scored once, at the end, and influenced no choice."
_REPORTED_ONLY = {
    "train": _SCORED_ONCE.format("The test images and all other splits"),
    "cv": "The test images influenced no choice.",
    "refit": "The test images influenced no choice.",
    "regime_refit": "The test images influenced no choice.",
}
"""Which images influenced no choice, by kind of run."""

_REPORTED_ONLY |= dict.fromkeys(("fold", "regime"), _REPORTED_ONLY["train"])


def held_out(record: RunRecord, artifacts: Artifacts, kind: str) -> Section:
    """Build the section.

    Args:
        record: The run.
        artifacts: Artifacts of the run.
        kind: Kind of the run, from its tag `synthdetect.kind`.
    """
    manifest = _manifest(artifacts)
    adaptation, transductive = _adaptation(record, artifacts, manifest)
    overlap, overlap_warnings = _overlap(artifacts)
    sources, source_warnings = ([], ()) if overlap else _sources(record, manifest)
    rows = [
        *_images(artifacts),
        *sources,
        *_generators(manifest, kind),
        *_options(record),
        *adaptation,
        *_decision(record),
        *_seeds(record),
        *overlap,
    ]
    table = Table("Recorded facts", pd.DataFrame(rows, columns=["fact", "value"]))
    return Section(
        "What was held out, and what was not",
        warnings=source_warnings + transductive + overlap_warnings,
        paragraphs=_paragraphs(record, kind, transductive),
        tables=(table,),
    )


def _paragraphs(record: RunRecord, kind: str, transductive: tuple[str, ...]) -> tuple[str, ...]:
    """Which images influenced choices and which did not. Adaptation counts as an influence."""
    if kind not in _CHOICES:
        return ()
    rest = _REPORTED_ONLY.get(kind, "")
    if transductive and rest:
        rest = " ".join([*transductive, _SCORED_ONCE.format("All other test images")])
    chosen = record.tags.get(CHOSEN, _CHOICES[kind])
    return (f"{chosen} {rest}".strip(),)


def _overlap(artifacts: Artifacts) -> tuple[Facts, tuple[str, ...]]:
    """How an evaluation's images overlap with those of training, as facts and warnings."""
    table = artifacts.take_table(_EVALUATE)
    if table is None or not {"fact", "value"} <= set(table):
        return [], ()
    table = table.reindex(columns=["split", "fact", "value", "warning"], fill_value="")
    facts, warnings = [], []
    for split, fact, value, warning in table.itertuples(index=False, name=None):
        name = f"{split}: {fact}" if split else fact
        facts.append((name, value))
        if warning == "True" and not (split == "val" and fact.endswith(" val")):
            warnings.append(f"{name}: {value}.")
    return facts, tuple(warnings)


def trained_on(artifacts: Artifacts) -> set[str] | None:
    """Generators that a run's model was trained on; None if the run has no card with them."""
    generators = artifacts.json(CARD).get("provenance", {}).get("training_generators")
    return set(map(str, generators)) if isinstance(generators, list) else None


def in_order(splits: Iterable[str]) -> list[str]:
    """Sort splits: train, val, test, then all others by name."""
    names = sorted(splits)
    return [s for s in SPLITS if s in names] + [s for s in names if s not in SPLITS]


def _manifest(artifacts: Artifacts) -> pd.DataFrame | None:
    """All images with their split; for a cross-validation, the labelled images with their fold."""
    table = artifacts.table("predictions/oof.csv", (*_MANIFEST, "fold"))
    if table is None:
        table = artifacts.table("data/manifest.csv", _MANIFEST)
    elif "fold" in table:
        table["split"] = "fold " + table["fold"]
    if table is None or not {"split", "label", "generator", "source_id"} <= set(table):
        return None
    return table[table["split"] != ""]


def _images(artifacts: Artifacts) -> Facts:
    counts = artifacts.table("data/counts.csv")
    if counts is None or not {"split", "images"} <= set(counts):
        return []
    numbers = pd.to_numeric(counts["images"], errors="coerce").fillna(0).astype(int)
    sizes = numbers.groupby(counts["split"]).sum()
    listed = ", ".join(f"{split}: {sizes[split]:,}" for split in in_order(sizes.index))
    excluded = artifacts.rows("data/excluded.csv")
    return [
        ("images per split", listed),
        ("excluded unreadable images", f"{excluded:,}" if excluded else "none"),
    ]


def _sources(record: RunRecord, manifest: pd.DataFrame | None) -> tuple[Facts, tuple[str, ...]]:
    """How splits share sources, with a warning if training or validation shares some."""
    if manifest is None or manifest.empty:
        where = "recorded in the child runs" if record.children else "not recorded"
        return [("sources shared with training", where)], ()
    groups = group_codes(manifest)
    sources = {str(s): set(g) for s, g in pd.Series(groups).groupby(manifest["split"].to_numpy())}
    order = in_order(sources)
    # Images of train, val and all folds influence training or choices. Others are only reported.
    learning = [s for s in order if s in ("train", "val") or s.startswith("fold ")]
    overlaps = {(a, b): len(sources[a] & sources[b]) for a, b in combinations(order, 2)}
    leaks = {pair: n for pair, n in overlaps.items() if n and set(pair) & set(learning)}
    harmless = {pair: n for pair, n in overlaps.items() if n and pair not in leaks}
    named = (manifest["source_id"] != "").mean()
    how = f"{named:.0%}"
    if named < 1:
        how += "; each other image counts as a source together with its copies"
    facts = [
        ("sources per split", ", ".join(f"{s}: {len(sources[s]):,}" for s in order)),
        ("images with a source_id", how),
    ]
    if learning:
        facts.append(("sources that training or validation shares with others", _pairs(leaks)))
    if harmless:
        facts.append(("sources shared by splits that influenced no choice", _pairs(harmless)))
    if not leaks:
        return facts, ()
    return facts, (
        f"Training or validation shares sources with other images ({_pairs(leaks)}): results on "
        "these are too optimistic.",
    )


def _pairs(overlaps: dict[tuple[str, str], int]) -> str:
    return ", ".join(f"{a} and {b}: {n:,}" for (a, b), n in overlaps.items()) or "none"


def _generators(manifest: pd.DataFrame | None, kind: str) -> Facts:
    if manifest is None or "train" not in set(manifest["split"]) or kind == "audit":
        return []
    named = manifest[manifest["label"].isin([str(SYNTHETIC), CLASSES[SYNTHETIC]])]
    by_split = {str(s): set(g) - {""} for s, g in named.groupby("split")["generator"]}
    train = by_split.pop("train", set())
    facts = [("generators trained on", ", ".join(sorted(train)) or "none named")]
    for split in in_order(by_split):
        unseen = ", ".join(sorted(by_split[split] - train)) or "none"
        facts.append((f"generators of {split} not trained on", unseen))
    return facts


def _options(record: RunRecord) -> Facts:
    facts, params = [], record.params
    if is_number(params.get("data.finetune", "")):
        amount = float(params["data.finetune"])
        moved = f"{amount:.0f} images" if amount >= 1 else f"{amount:.0%}"
        facts.append(("validation images moved to training", moved if amount else "none"))
    if "data.supplement" in params:
        facts.append(("supplementary training data", params["data.supplement"] or "none"))
    if "model.start" in params:
        detail = params.get("model.start_detail", "")
        facts.append(("starting weights", f"{params['model.start']} ({detail})"))
    return facts


def _adaptation(
    record: RunRecord, artifacts: Artifacts, manifest: pd.DataFrame | None
) -> tuple[Facts, tuple[str, ...]]:
    """What a model was adapted to, with a warning if it is tested on the same images."""
    target = record.params.get("adaptation.target", "")
    if not target:
        return [], ()
    images = artifacts.table(_TARGET, ("sha256",))
    size = "" if images is None else f" ({len(images):,} images)"
    facts = [("adapted to without labels", f"{target}{size}")]
    splits = set(artifacts.json(CARD).get("provenance", {}).get("target_splits", []))
    if target.startswith("split:"):
        splits.add(target.removeprefix("split:"))
    if images is not None and manifest is not None and {"sha256"} <= set(images) & set(manifest):
        splits |= set(manifest.loc[manifest["sha256"].isin(images["sha256"]), "split"])
    if not splits and record.tags.get("synthdetect.kind") == "cv" and images is None:
        warning = (
            "The models were adapted to unlabelled images. Whether they are tested on some of them "
            "is not recorded."
        )
        return facts, (warning,)
    if not splits:
        return facts, ()
    named = ", ".join(in_order(map(str, splits)))
    return facts, (
        f"The model was adapted to images of {named} without their labels. Results on these splits "
        "are transductive and may not carry over to other images.",
    )


def _decision(record: RunRecord) -> Facts:
    facts = []
    if "best/epoch" in record.metrics:
        facts.append(("chosen epoch", format_number(record.metrics["best/epoch"], whole=True)))
    for name, value in record.metrics.items():
        if name.startswith("decision/"):
            facts.append((label(name.removeprefix("decision/")), format_number(value)))
    for name in _DECISION:
        if name in record.params and (name == "decision.from" or _is_own_decision(record)):
            facts.append((_DECISION[name], record.params[name]))
    return facts


def _is_own_decision(record: RunRecord) -> bool:
    """Whether the run chose its threshold itself, rather than taking that of the model's card."""
    return record.params.get("decision.from", "chosen").startswith("chosen")


def _seeds(record: RunRecord) -> Facts:
    runs = [record.params, *(child.params for child in record.children)]
    seeds = sorted({params["optim.seed"] for params in runs if "optim.seed" in params})
    if not seeds:
        return []
    if len(seeds) > 1:
        return [("random seeds", f"{len(seeds)}: {', '.join(seeds)}")]
    return [
        ("random seed", f"{seeds[0]} only: the intervals do not cover the variation between seeds")
    ]
