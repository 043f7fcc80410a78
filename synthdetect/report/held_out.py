"""What was held out and what was not, from what the run recorded.

Nothing is claimed that is not in the record: what it lacks is said to be not recorded, or left out.
"""

from collections.abc import Iterable
from itertools import combinations

import pandas as pd

from synthdetect.datasets.labels import CLASSES, SYNTHETIC
from synthdetect.datasets.schema import SPLITS
from synthdetect.datasets.splits import group_codes
from synthdetect.report.page import Section, Table
from synthdetect.report.record import Artifacts, RunRecord
from synthdetect.report.text import is_number, label, number

CARD = "model/card.json"
_EVALUATE = "evaluation/held_out.csv"
_TARGET = "data/target.csv"
_MANIFEST = ("path", "label", "split", "generator", "source_id", "sha256")

Facts = list[tuple[str, str]]

_DECISION = {
    "decision.threshold": "rule of the threshold",
    "decision.from": "threshold and calibration are",
}
_CHOICES = {
    "train": "The best epoch, the temperature and the threshold were chosen on the validation "
    "images alone.",
    "cv": "Each labelled image was scored by the one fold's model that had not trained on it. "
    "Temperature and threshold come from these out-of-fold predictions of training and validation "
    "images.",
    "refit": "This training had train and val together, so it has no validation of its own: the "
    "number of epochs, the temperature and the threshold come from the folds' out-of-fold "
    "predictions.",
    "predict": "The images have no labels here. Temperature and threshold are the models' own, "
    "from the validation images of their training.",
}
_CHOICES |= dict.fromkeys(("fold", "regime"), _CHOICES["train"])
_REPORTS = "{} were scored once, at the end, and only report."
_ONLY_REPORT = {
    "train": _REPORTS.format("The test images and further splits"),
    "cv": "Test images chose nothing.",
    "refit": "The test images only report.",
}
_ONLY_REPORT |= dict.fromkeys(("fold", "regime"), _ONLY_REPORT["train"])


def held_out(record: RunRecord, artifacts: Artifacts, kind: str) -> Section:
    """The section that says what no reader should have to guess."""
    manifest = _manifest(artifacts)
    adapted, transductive = _adapted(record, artifacts, manifest)
    compared, doubts = _compared(artifacts)
    sources, leaks = ([], ()) if compared else _sources(record, manifest)
    rows = [
        *_images(artifacts),
        *sources,
        *_generators(manifest, kind),
        *_options(record),
        *adapted,
        *_decision(record),
        *_seeds(record),
        *compared,
    ]
    table = Table("As the run recorded it", pd.DataFrame(rows, columns=["what", "recorded"]))
    return Section(
        "What was held out, and what was not",
        warnings=leaks + transductive + doubts,
        paragraphs=_paragraphs(kind, transductive),
        tables=(table,),
    )


def _paragraphs(kind: str, transductive: tuple[str, ...]) -> tuple[str, ...]:
    """What chose, and what only reports, which images that were adapted to do not."""
    if kind not in _CHOICES:
        return ()
    rest = _ONLY_REPORT.get(kind, "")
    if transductive and rest:
        rest = " ".join([*transductive, _REPORTS.format("All other test images")])
    return (f"{_CHOICES[kind]} {rest}".strip(),)


def _compared(artifacts: Artifacts) -> tuple[Facts, tuple[str, ...]]:
    """What an evaluation found when it compared its images with the training's, with its doubts."""
    table = artifacts.take_table(_EVALUATE)
    if table is None or not {"fact", "value"} <= set(table):
        return [], ()
    table = table.reindex(columns=["split", "fact", "value", "warning"], fill_value="")
    facts, doubts = [], []
    for split, fact, value, warning in table.itertuples(index=False, name=None):
        name = f"{split}: {fact}" if split else fact
        facts.append((name, value))
        if warning == "True" and not (split == "val" and fact.endswith(" val")):
            doubts.append(f"{name}: {value}.")
    return facts, tuple(doubts)


def trained_on(artifacts: Artifacts) -> set[str] | None:
    """The generators that a run's model was trained on; None where no model's card says."""
    generators = artifacts.json(CARD).get("provenance", {}).get("training_generators")
    return set(map(str, generators)) if isinstance(generators, list) else None


def in_order(splits: Iterable[str]) -> list[str]:
    """Splits as one names them: train, val, test, then the further ones."""
    names = sorted(splits)
    return [s for s in SPLITS if s in names] + [s for s in names if s not in SPLITS]


def _manifest(artifacts: Artifacts) -> pd.DataFrame | None:
    """Every image with its split; of a cross-validation, the labelled ones with their fold."""
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
        ("images of each split", listed),
        ("unreadable images left out", f"{excluded:,}" if excluded else "none"),
    ]


def _sources(record: RunRecord, manifest: pd.DataFrame | None) -> tuple[Facts, tuple[str, ...]]:
    """How the sources lie on both sides of training, and a warning if some do."""
    if manifest is None or manifest.empty:
        where = "in the runs inside this one" if record.children else "not recorded"
        return [("sources shared with training", where)], ()
    groups = group_codes(manifest)
    sources = {str(s): set(g) for s, g in pd.Series(groups).groupby(manifest["split"].to_numpy())}
    order = in_order(sources)
    # All folds train; train and val train or choose. Other splits only report.
    learning = [s for s in order if s in ("train", "val") or s.startswith("fold ")]
    overlaps = {(a, b): len(sources[a] & sources[b]) for a, b in combinations(order, 2)}
    bad = {pair: n for pair, n in overlaps.items() if n and set(pair) & set(learning)}
    harmless = {pair: n for pair, n in overlaps.items() if n and pair not in bad}
    named = (manifest["source_id"] != "").mean()
    how = f"{named:.0%} of the images name their source"
    if named < 1:
        how += "; each other one counts as its own, with its copies"
    facts = [
        ("sources of each split", ", ".join(f"{s}: {len(sources[s]):,}" for s in order)),
        ("how sources are known", how),
    ]
    if learning:
        what = "sources in training or validation, and in another split or fold"
        facts.append((what, _pairs(bad)))
    if harmless:
        facts.append(("sources shared among splits that only report", _pairs(harmless)))
    if not bad:
        return facts, ()
    return facts, (f"Sources are on both sides ({_pairs(bad)}): numbers on these are too good.",)


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
        facts.append((f"generators of {split} never trained on", unseen))
    return facts


def _options(record: RunRecord) -> Facts:
    facts, params = [], record.params
    if is_number(params.get("data.finetune", "")):
        amount = float(params["data.finetune"])
        moved = f"{amount:.0f} images" if amount >= 1 else f"{amount:.0%} of them"
        facts.append(("validation images moved to training", moved if amount else "none"))
    if "data.supplement" in params:
        facts.append(("further training data", params["data.supplement"] or "none"))
    if "model.start" in params:
        detail = params.get("model.start_detail", "")
        facts.append(("starting weights", f"{params['model.start']} ({detail})"))
    return facts


def _adapted(
    record: RunRecord, artifacts: Artifacts, manifest: pd.DataFrame | None
) -> tuple[Facts, tuple[str, ...]]:
    """What a training was adapted to, and a warning if it is tested on that."""
    target = record.params.get("adaptation.target", "")
    if not target:
        return [], ()
    images = artifacts.table(_TARGET, ("sha256",))
    size = "" if images is None else f" ({len(images):,} images)"
    facts = [("adapted to, without labels", f"{target}{size}")]
    splits = set(artifacts.json(CARD).get("provenance", {}).get("target_splits", []))
    if target.startswith("split:"):
        splits.add(target.removeprefix("split:"))
    if images is not None and manifest is not None and {"sha256"} <= set(images) & set(manifest):
        splits |= set(manifest.loc[manifest["sha256"].isin(images["sha256"]), "split"])
    if not splits and record.tags.get("synthdetect.kind") == "cv" and images is None:
        doubt = "It was adapted to unlabelled images; whether it is tested on some is not recorded."
        return facts, (doubt,)
    if not splits:
        return facts, ()
    named = ", ".join(in_order(map(str, splits)))
    return facts, (
        f"It was adapted to images of {named}, without their labels: results on these are "
        "transductive, and say less of images from elsewhere.",
    )


def _decision(record: RunRecord) -> Facts:
    facts = []
    if "best/epoch" in record.metrics:
        facts.append(("chosen epoch", number(record.metrics["best/epoch"], whole=True)))
    for name, value in record.metrics.items():
        if name.startswith("decision/"):
            facts.append((label(name.removeprefix("decision/")), number(value)))
    for name in ("decision.threshold", "decision.from"):
        if name in record.params and (name == "decision.from" or _rules(record)):
            facts.append((_DECISION[name], record.params[name]))
    return facts


def _rules(record: RunRecord) -> bool:
    """Whether the run's own rule made its threshold, and not whoever made the model."""
    return record.params.get("decision.from", "chosen").startswith("chosen")


def _seeds(record: RunRecord) -> Facts:
    runs = [record.params, *(child.params for child in record.children)]
    seeds = sorted({params["optim.seed"] for params in runs if "optim.seed" in params})
    if not seeds:
        return []
    if len(seeds) > 1:
        return [("random seeds", f"{len(seeds)}: {', '.join(seeds)}")]
    return [("random seed", f"{seeds[0]}, one alone: the intervals say nothing of other seeds")]
