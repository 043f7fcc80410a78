"""What gives the labels away without a look at the pixels, and what is wrong with the data.

If all real images are JPEGs and all synthetic ones PNGs, a detector learns the format (Grommelt et
al. 2024, arXiv:2403.17608). Everything here reads the indexed manifest, in which the files were
described once; only the search for near duplicates opens images.

How strongly a property is tied to the label is the AUC of a classifier that knows that property
alone, out of fold: 0.5 is no tie, 1 a full one, whatever the kind of property. Folds and intervals
go by whole sources. train and val, from which a detector learns, are measured together, and every
other split alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import logit
from scipy.stats import t as student_t
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from synthdetect.datasets.duplicates import MAX_PAIRS, exact_pairs, near_pairs, perceptual_hashes
from synthdetect.datasets.folds import LABELLED
from synthdetect.datasets.index import ProgressCallback
from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.manifest import Manifest
from synthdetect.datasets.splits import assign_groups, group_codes
from synthdetect.evaluation.metrics import auc_interval

WARNING, NOTE = "warning", "note"

AUC_LIMIT = 0.6
"""A property, or all together, that tell the labels apart better than this are a warning, unless
it may be chance."""

WEAK_AUC = 0.55
"""Above this, unless it may be chance, a single property is noted."""

CHANCE = 0.003
"""What an AUC's p-value must be below. So many are looked at that with 0.05 for each, most small
data sets would be warned of for nothing."""

ENOUGH_SOURCES = 10
"""Of each label, below which no AUC is measured."""

ENOUGH_IMAGES = 10
"""Of a platform or the like, from which on it is noticed that all have one label."""

MAX_ROWS = 10_000
"""Images of a part that are measured; of more, whole sources are drawn at random."""

SKEWED, VERY_SKEWED = 0.4, 0.2
"""Share of the smaller class below which a split is noted, and warned of."""

UNSPLIT = "unsplit"
"""What images without a split are called."""

TOGETHER = "together"
"""In the table `baseline`: all of the metadata."""

_FOLDS = 5
_REPLICATES = 300
_SHOWN_VALUES = 12  # of a property; more distinct numbers are shown as tenths


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        findings: a row each, warnings first: `severity` (warning or note), `name`, `finding` (a
            sentence), `value` (an AUC, a share or a number, as the sentence says), `advice`.
        tables: by name. A property's has a row a value and part of the data: `part`, `value`,
            counts `real` and `synthetic`, and their shares `real_share` and `synthetic_share`.
            `baseline` has `part`, `property`, `auc`, `low` and `high` (95 %), `p` (how probable so
            high an AUC is by chance), `sources`, `images` and, more where they were drawn,
            `of_images`;
            `duplicates` has `kind` (exact or near), `distance` (differing bits of 256) and
            `path`, `split`, `label` of both images; `unreadable` has `path` and `error`.
    """

    findings: pd.DataFrame
    tables: dict[str, pd.DataFrame]

    @property
    def warnings(self) -> list[str]:
        """The names of the warnings, each once."""
        found = self.findings
        return list(dict.fromkeys(found.loc[found["severity"] == WARNING, "name"]))

    @property
    def metadata_auc(self) -> float:
        """The AUC of all metadata together in the worst part; nan if there was too little data."""
        table = self.tables["baseline"]
        return float(table.loc[table["property"] == TOGETHER, "auc"].max())


@dataclass(frozen=True)
class Property:
    """Something that a file shows before its pixels are looked at.

    Attributes:
        what: in a sentence.
        features: columns of the audited table that say it.
        shown: the text that stands for it in a table, from the rows.
        advice: if it is tied to the label.
        among: the rows that have it at all.
        metadata: whether the baseline has it. Bits per pixel it has not: they follow from the
            pixels too, since a smoother picture compresses better.
    """

    what: str
    features: tuple[str, ...]
    shown: Callable[[pd.DataFrame], "pd.Series[str]"]
    advice: str
    among: Callable[[pd.DataFrame], "pd.Series[bool]"] = lambda rows: rows["label"] >= 0
    metadata: bool = True


class Finding(NamedTuple):
    """A row of `Audit.findings`."""

    severity: str
    name: str
    finding: str
    value: float
    advice: str


_REENCODE = "Give both classes the same encoding, or train with --equalise true."
_RESIZE = (
    "Give both classes the same sizes, or see them by a crop at native resolution "
    "(--geometry random_crop); --equalise cannot undo what resizing has left."
)

PROPERTIES: dict[str, Property] = {
    "format": Property("the file format", ("format",), lambda t: t["format"], _REENCODE),
    "jpeg_quality": Property(
        "the JPEG quality",
        ("jpeg_quality",),
        lambda t: _binned(t["jpeg_quality"]),
        _REENCODE,
        among=lambda t: t["jpeg_quality"] > 0,
    ),
    "size": Property("the size in pixels", ("width", "height"), lambda t: _sizes(t), _RESIZE),
    "aspect": Property("the aspect ratio", ("aspect",), lambda t: _binned(t["aspect"]), _RESIZE),
    "mode": Property("the colour mode", ("mode",), lambda t: t["mode"], _REENCODE),
    "exif": Property(
        "the presence of EXIF",
        ("exif",),
        lambda t: t["exif"].map({False: "none", True: "EXIF"}),
        "A detector never sees EXIF itself, but it marks another origin or processing: look at it.",
    ),
    "bits_per_pixel": Property(
        "the file's size in bits per pixel",
        ("bits_per_pixel",),
        lambda t: _binned(t["bits_per_pixel"]),
        "At equal format and quality, one class is smoother: a detector may learn blur. Compare "
        "with real images that were blurred or resized (a control split).",
        metadata=False,
    ),
}
"""What is measured against the label; `<name>_leak` is the finding."""

_SIDED = {
    "generator": "Show each generator's real counterpart under the same name, or leave it empty.",
    "platform": "Have real and synthetic images of every platform, or leave these out.",
    "category": "Have real and synthetic images of every category, or leave these out.",
}
"""Columns in which a value may stand on one side only, with advice for when it has one label."""


def audit(
    manifest: Manifest,
    *,
    seed: int,
    near_duplicates: bool,
    equalise_quality: int = 0,
    excluded: pd.DataFrame | None = None,
    progress: ProgressCallback | None = None,
) -> Audit:
    """Look for what would make results mean something else than they say.

    Args:
        manifest: indexed; whatever its splits are, and with unreadable files or without them.
        seed: of folds, draws and intervals.
        near_duplicates: whether to open the images and look for pictures that look alike.
        equalise_quality: where positive, the images are taken as `equalise` makes them: JPEGs of
            this quality, RGB, without EXIF.
        excluded: `path` and `error` of unreadable images that the manifest has not any more.
        progress: of opening images.
    """
    manifest, unreadable = _readable(manifest, excluded)
    table = _described(manifest.table)
    findings = [*_unreadable(unreadable, len(table)), *_balance(table), *_one_sided(table)]
    if equalise_quality:
        findings.append(_equalised(table, equalise_quality))
        table = _as_equalised(table, equalise_quality)
    measured = {name: p for name, p in PROPERTIES.items() if set(p.features) <= set(table.columns)}
    tables = {name: _crosstab(table, p) for name, p in measured.items()}
    tables["baseline"], few = _baseline(table, measured, seed)
    findings += [*few, *_leaks(tables, measured), *_sources(table)]
    tables["duplicates"], copies = _duplicates(manifest, table, near_duplicates, progress)
    findings += copies
    tables["unreadable"] = unreadable
    found = pd.DataFrame(findings, columns=list(Finding._fields))
    found = found.sort_values("severity", key=lambda s: s != WARNING, kind="stable")
    return Audit(found.reset_index(drop=True), tables)


def _readable(manifest: Manifest, excluded: pd.DataFrame | None) -> tuple[Manifest, pd.DataFrame]:
    table, parts = manifest.table, [pd.DataFrame(columns=["path", "error"]), excluded]
    if "error" in table:
        bad = table["error"] != ""
        parts.append(table.loc[bad, ["path", "error"]])
        table = table[~bad]
    listed = [part for part in parts if part is not None and len(part)] or parts[:1]
    return manifest.with_table(table), pd.concat(listed, ignore_index=True)


def _described(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the further columns that are looked at."""
    split = table["split"]
    pixels = table["width"] * table["height"]
    return table.assign(
        part=split.mask(split.isin(LABELLED), "train+val").replace("", UNSPLIT),
        group=group_codes(table),
        aspect=table["width"] / table["height"],
        bits_per_pixel=8 * table["bytes"] / pixels,
    )


def _as_equalised(table: pd.DataFrame, quality: int) -> pd.DataFrame:
    same = table.assign(format="JPEG", mode="RGB", jpeg_quality=quality, exif=False)
    return same.drop(columns="bits_per_pixel")  # nobody knows them without encoding all


def _equalised(table: pd.DataFrame, quality: int) -> Finding:
    coarser = table["jpeg_quality"].between(1, quality - 1).groupby(table["label"]).mean()
    shares = ", ".join(f"{coarser.get(k, 0):.0%} of the {CLASSES[k]}" for k in (REAL, SYNTHETIC))
    return Finding(
        NOTE,
        "equalised",
        "format, JPEG quality, colour mode and EXIF are equal: all become JPEGs of quality "
        f"{quality}. Differences in size and aspect stay, and so may traces of stronger "
        f"compression: {shares} images were stored at a lower quality",
        float(coarser.max()),
        "Where these shares differ much, give a lower --equalise-quality.",
    )


# --- what is there at all


def _unreadable(unreadable: pd.DataFrame, readable: int) -> Iterator[Finding]:
    if len(unreadable):
        path, error = unreadable.iloc[0]
        yield Finding(
            WARNING,
            "unreadable",
            f"{len(unreadable):,} of {len(unreadable) + readable:,} images cannot be read; the "
            f"first: {path} ({error})",
            float(len(unreadable)),
            "Repair or remove them; table `unreadable` lists them.",
        )


def _balance(table: pd.DataFrame) -> Iterator[Finding]:
    counts = _by_label(table["split"], table["label"])
    for split, (real, synthetic) in zip(counts.index, counts.to_numpy().tolist(), strict=True):
        smaller = min(real, synthetic) / (real + synthetic)
        if smaller >= SKEWED or (smaller == 0 and split not in LABELLED):
            continue
        yield Finding(
            WARNING if smaller < VERY_SKEWED else NOTE,
            "imbalance",
            f"{split or UNSPLIT}: {real:,} real and {synthetic:,} synthetic images; the smaller "
            f"class is {smaller:.0%}",
            smaller,
            "Look at balanced accuracy, AUC and ECE of both classes; accuracy follows the larger.",
        )


def _one_sided(table: pd.DataFrame) -> Iterator[Finding]:
    for column, advice in _SIDED.items():
        if column not in table:
            continue
        named = table[table[column] != ""]
        for part, rows in named.groupby("part"):
            counts = _by_label(rows[column], rows["label"])
            if (counts.sum() == 0).any():  # one class has no names here: nothing to compare
                continue
            alone = counts[(counts.min(axis=1) == 0) & (counts.sum(axis=1) >= ENOUGH_IMAGES)]
            if len(alone):
                listed = "; ".join(
                    f"{_named(alone.index[alone[1 - label] == 0])} only {CLASSES[label]}"
                    for label in (REAL, SYNTHETIC)
                    if (alone[1 - label] == 0).any()
                )
                yield Finding(
                    WARNING,
                    f"{column}_one_side",
                    f"{part}: {len(alone)} of {len(counts)} {column} value(s) have one label "
                    f"only: {listed}",
                    float(len(alone)),
                    advice,
                )
        if column != "category":
            yield from _one_part(named, column)


def _one_part(named: pd.DataFrame, column: str) -> Iterator[Finding]:
    learned = named["split"].isin(LABELLED)
    trained, tested = set(named.loc[learned, column]), set(named.loc[~learned, column])
    if trained and tested and trained != tested:
        yield Finding(
            NOTE,
            f"{column}_one_side",
            f"{column} in evaluation only: {_named(sorted(tested - trained))}; "
            f"in train or val only: {_named(sorted(trained - tested))}",
            float(len(trained ^ tested)),
            "By design where generalisation is to be measured; read the results of each apart.",
        )


def _sources(table: pd.DataFrame) -> Iterator[Finding]:
    unknown = int((table["source_id"] == "").sum())
    if unknown:
        yield Finding(
            NOTE,
            "source_unknown",
            f"{unknown:,} of {len(table):,} images name no source (source_id); each counts as a "
            "source of its own",
            float(unknown),
            "If photographs and their regenerations are both there, name their common source.",
        )
    named = table[table["source_id"] != ""]
    both = int((named.groupby("source_id")["label"].nunique() > 1).sum())
    if both:
        yield Finding(
            NOTE,
            "same_source_across_labels",
            f"{both:,} sources have real and synthetic images: by design, they are kept together",
            float(both),
            "Nothing is to be done.",
        )
    splits = named[["source_id", "split"]].drop_duplicates()
    shared = splits[splits["source_id"].duplicated(keep=False)]
    torn = shared.loc[shared["split"].isin(LABELLED), "source_id"].drop_duplicates()
    if len(torn):
        yield Finding(
            WARNING,
            "source_across_splits",
            f"{len(torn):,} sources have images in train or val and in another split too; the "
            f"first: {torn.iloc[0]}",
            float(len(torn)),
            "Put all images of a source into one split, or empty the split column.",
        )


# --- properties against the label


def _by_label(values: "pd.Series[Any]", labels: "pd.Series[Any]") -> pd.DataFrame:
    """A row a value, a column a label: how many images."""
    return pd.crosstab(values, labels).reindex(columns=[REAL, SYNTHETIC], fill_value=0)


def _crosstab(table: pd.DataFrame, what: Property) -> pd.DataFrame:
    rows = table[what.among(table)]
    counts = _by_label([rows["part"], what.shown(rows).rename("value")], rows["label"])
    counts.columns = pd.Index(CLASSES)
    totals = table.groupby(["part", "label"]).size().unstack(fill_value=0)
    for label, name in enumerate(CLASSES):
        whole = totals.get(label, pd.Series(dtype=int)).reindex(counts.index.get_level_values(0))
        counts[f"{name}_share"] = counts[name] / whole.clip(lower=1).to_numpy()
    return counts.reset_index()


def _binned(values: "pd.Series[Any]") -> "pd.Series[str]":
    """A number's own text if there are few of them, else the tenth of the images it lies in."""
    rounded = values.round(3)
    distinct = np.unique(rounded)
    if len(distinct) <= _SHOWN_VALUES:
        bins, names = np.searchsorted(distinct, rounded), [f"{value:.10g}" for value in distinct]
    else:
        edges = np.unique(np.quantile(rounded, np.linspace(0, 1, 11)).round(3))
        bins = np.clip(np.searchsorted(edges, rounded, side="right") - 1, 0, len(edges) - 2)
        names = [f"{low:.10g} to <{high:.10g}" for low, high in pairwise(edges)]
        names[-1] = names[-1].replace("<", "")
    # Categories stay in the order of the numbers; text would put 1024 before 256.
    return pd.Series(pd.Categorical.from_codes(bins, names, ordered=True), index=values.index)


def _sizes(table: pd.DataFrame) -> "pd.Series[str]":
    """Width x height if there are few of them, else the tenth of the shorter side."""
    sizes = table["width"].astype(str) + "x" + table["height"].astype(str)
    if sizes.nunique() <= _SHOWN_VALUES:
        return sizes
    return _binned(table[["width", "height"]].min(axis=1)).cat.rename_categories("side {}".format)


def _baseline(
    table: pd.DataFrame, properties: dict[str, Property], seed: int
) -> tuple[pd.DataFrame, list[Finding]]:
    """How well each property alone, and all metadata together, tell the labels apart."""
    rows: list[tuple[Any, ...]] = []
    few: list[Finding] = []
    together = [f for p in properties.values() if p.metadata for f in p.features]
    for part, whole in table.groupby("part"):
        if whole["label"].nunique() < 2:
            continue
        drawn = _drawn(whole, seed)
        sources = _sources_by_label(drawn)
        if min(sources) < ENOUGH_SOURCES:
            few.append(
                Finding(
                    NOTE,
                    "too_few_sources",
                    f"{part}: {sources[REAL]} real and {sources[SYNTHETIC]} synthetic sources are "
                    f"too few to measure an AUC with folds by source ({ENOUGH_SOURCES} are needed)",
                    float(min(sources)),
                    "Read the tables of counts.",
                )
            )
            continue
        shares = [1 / _FOLDS] * _FOLDS
        drawn = drawn.assign(fold=assign_groups(drawn, shares, seed=seed, by_category=False))
        counts = (drawn["group"].nunique(), len(drawn), len(whole))
        for name, what in properties.items():
            rows_with = drawn[what.among(drawn)]
            if min(_sources_by_label(rows_with)) >= ENOUGH_SOURCES:
                rows.append((part, name, *_auc(rows_with, what.features, _tree, seed), *counts))
        rows.append((part, TOGETHER, *_auc(drawn, together, _boosted_trees, seed), *counts))
    columns = ["part", "property", "auc", "low", "high", "p", "sources", "images", "of_images"]
    return pd.DataFrame(rows, columns=columns), few


def _sources_by_label(rows: pd.DataFrame) -> list[int]:
    return [rows.loc[rows["label"] == label, "group"].nunique() for label in (REAL, SYNTHETIC)]


def _drawn(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """About `MAX_ROWS` rows, whole groups."""
    if len(rows) <= MAX_ROWS:
        return rows
    groups = rows["group"].unique()
    order = np.random.default_rng(seed).permutation(groups)
    sizes = rows.groupby("group").size()[order].to_numpy()
    return rows[rows["group"].isin(order[np.cumsum(sizes) - sizes < MAX_ROWS])]


def _tree(images: int, seed: int) -> Any:
    return DecisionTreeClassifier(min_samples_leaf=max(5, images // 100), random_state=seed)


def _boosted_trees(images: int, seed: int) -> Any:
    return HistGradientBoostingClassifier(
        max_iter=25,
        learning_rate=0.2,
        min_samples_leaf=max(5, images // 100),
        early_stopping=False,
        random_state=seed,
    )


def _auc(
    rows: pd.DataFrame, features: Any, make: Callable[[int, int], Any], seed: int
) -> tuple[float, float, float, float]:
    """AUC out of fold, its interval over groups, and its p-value.

    The trees' log-odds are taken relative to each training part's own, so that a fold with few
    synthetic images does not rank below another when nothing was learned.
    """
    x = np.stack([_numbers(rows[name]) for name in features], axis=1)
    if (x == x[0]).all():
        return 0.5, 0.5, 0.5, 1.0
    y, fold = rows["label"].to_numpy(), rows["fold"].to_numpy()
    scores, by_fold = np.zeros(len(rows)), []
    for part in np.unique(fold):
        held = fold == part
        model = make(int((~held).sum()), seed).fit(x[~held], y[~held])
        said = np.clip(model.predict_proba(x[held])[:, 1], 1e-6, 1 - 1e-6)
        scores[held] = logit(said) - logit(y[~held].mean())
        if len(np.unique(y[held])) == 2:
            by_fold.append(roc_auc_score(y[held], scores[held]))
    bounds = auc_interval(y, scores, rows["group"], replicates=_REPLICATES, seed=seed)
    return *bounds, _p_value(np.array(by_fold))


def _p_value(aucs: npt.NDArray[np.float64]) -> float:
    """That folds' mean AUC is above 0.5 by chance.

    Nadeau and Bengio's corrected t-test (2003, Machine Learning 52): the folds' models were trained
    on much the same images, so their results vary less than independent ones would. The interval
    cannot stand in for it: it takes the models as given.
    """
    if len(aucs) < 2 or aucs.std() == 0:
        return 0.0 if len(aucs) and aucs[0] > 0.5 else 1.0
    error = np.sqrt((1 / len(aucs) + 1 / (_FOLDS - 1)) * aucs.var(ddof=1))
    return float(student_t.sf((aucs.mean() - 0.5) / error, len(aucs) - 1))


def _numbers(values: "pd.Series[Any]") -> npt.NDArray[np.float64]:
    numeric = pd.api.types.is_numeric_dtype(values)
    return np.asarray(values if numeric else pd.factorize(values, sort=True)[0], dtype=np.float64)


def _leaks(tables: dict[str, pd.DataFrame], properties: dict[str, Property]) -> Iterator[Finding]:
    baseline = tables["baseline"]
    for row in baseline.to_dict(orient="records"):
        part, name, auc = row["part"], row["property"], row["auc"]
        measured = f"AUC {auc:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        if row["images"] < row["of_images"]:
            measured += f", on {row['images']:,} of {row['of_images']:,} images, drawn by source"
        if name == TOGETHER:
            if auc > AUC_LIMIT:
                chance = row["p"] >= CHANCE
                doubt = "; it may be chance, more sources would tell" if chance else ""
                yield Finding(
                    NOTE if chance else WARNING,
                    "metadata_baseline",
                    f"{part}: a classifier that sees only metadata, no pixel, tells real from "
                    f"synthetic: {measured}{doubt}",
                    auc,
                    "A detector can do the same without learning anything of generation; remove "
                    "what the other findings name, or equalise the classes.",
                )
        elif auc > WEAK_AUC and row["p"] < CHANCE:
            what = properties[name]
            yield Finding(
                WARNING if auc > AUC_LIMIT and what.metadata else NOTE,
                f"{name}_leak",
                f"{part}: {what.what} alone tells real from synthetic: {measured}; "
                f"{_most_telling(tables[name], part)}",
                auc,
                what.advice,
            )


def _most_telling(crosstab: pd.DataFrame, part: str) -> str:
    rows = crosstab[crosstab["part"] == part].reset_index(drop=True)
    row = rows.loc[(rows["real_share"] - rows["synthetic_share"]).abs().idxmax()]
    return (
        f"{row['value']} is {row['real_share']:.0%} of the real and "
        f"{row['synthetic_share']:.0%} of the synthetic images"
    )


# --- copies


def _duplicates(
    manifest: Manifest, table: pd.DataFrame, near: bool, progress: ProgressCallback | None
) -> tuple[pd.DataFrame, list[Finding]]:
    first, second = exact_pairs(table)
    found = [_pairs(table, "exact", first, second, np.zeros(len(first), dtype=np.int64))]
    if near:
        groups = table["group"].to_numpy()
        found.append(
            _pairs(table, "near", *near_pairs(perceptual_hashes(manifest, progress), groups))
        )
    pairs = pd.concat(found, ignore_index=True)
    return pairs, [f for kind, rows in pairs.groupby("kind") for f in _copies(str(kind), rows)]


def _pairs(table: pd.DataFrame, kind: str, first: Any, second: Any, distance: Any) -> pd.DataFrame:
    sides = {"1": table.iloc[first], "2": table.iloc[second]}
    columns = {
        f"{column}_{side}": rows[column].to_numpy()
        for side, rows in sides.items()
        for column in ("path", "split", "label")
    }
    pairs = pd.DataFrame({"kind": kind, "distance": distance, **columns})
    for side in sides:
        pairs[f"label_{side}"] = pairs[f"label_{side}"].map(dict(enumerate(CLASSES)))
    return pairs


def _copies(kind: str, pairs: pd.DataFrame) -> Iterator[Finding]:
    name = "duplicate" if kind == "exact" else "near_duplicate"
    what = "pair(s) of identical files" if kind == "exact" else "pair(s) of images that look alike"
    at_least = "at least " if len(pairs) >= MAX_PAIRS else ""
    learned = pairs["split_1"].isin(LABELLED) | pairs["split_2"].isin(LABELLED)
    across_splits = (pairs["split_1"] != pairs["split_2"]) & learned
    across_labels = pairs["label_1"] != pairs["label_2"]
    # Identical files stay together when splits are made; what only looks alike does not.
    unsplit = (pairs["split_1"] == "") & (kind == "near")
    sides = [
        (WARNING, "across_splits", across_splits, "in train or val and in another split",
         "Give them a common source_id and put them into one split, or remove one of each."),
        (WARNING, "across_labels", across_labels, "with different labels",
         "Find out which label is right, or give a photograph and what was made of it a common "
         "source_id."),
        (WARNING, "across_sources", unsplit & ~across_labels, "that splits by source would part",
         "Give them a common source_id, or remove one of each."),
        (NOTE, "within_split", ~across_splits & ~across_labels & ~unsplit,
         "with one label in one split, or in two evaluation splits",
         "They count as independent and are not; remove one of each."),
    ]  # fmt: skip
    for severity, side, holds, where, advice in sides:
        chosen = pairs[holds]
        if len(chosen):
            row = chosen.iloc[0]
            near = f", differing in {row['distance']} of 256 bits" if kind == "near" else ""
            yield Finding(
                severity,
                f"{name}_{side}",
                f"{at_least}{len(chosen):,} {what} {where}; the first: {row['path_1']} "
                f"({row['split_1']} {row['label_1']}) and {row['path_2']} "
                f"({row['split_2']} {row['label_2']}){near}",
                float(len(chosen)),
                advice,
            )


def _named(values: Any, most: int = 8) -> str:
    names = [str(value) for value in values]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"
