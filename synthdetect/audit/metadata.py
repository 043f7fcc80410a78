"""Metadata that give the labels away.

If all real images are JPEGs and all synthetic ones PNGs, a detector learns the format (Grommelt et
al. 2024, arXiv:2403.17608). How strongly a property is tied to the label is measured by the
out-of-fold AUC of a classifier that sees only that property: 0.5 means no tie and 1 a full one,
for every kind of property. Folds and confidence intervals go by whole sources.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import t as student_t
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from synthdetect.audit.composition import count_by_label
from synthdetect.audit.findings import ALL_METADATA, NOTE, WARNING, Finding
from synthdetect.datasets.labels import CLASSES, REAL, SYNTHETIC
from synthdetect.datasets.splits import assign_groups
from synthdetect.evaluation.intervals import auc_interval
from synthdetect.system.arrays import FloatArray

AUC_LIMIT = 0.6
"""AUC of a property or of all metadata above which there is a warning, unless it may be chance."""

WEAK_AUC = 0.55
"""AUC of a single property above which there is a note, unless it may be chance."""

CHANCE = 0.003
"""Significance level of an AUC. It is low because many AUCs are measured: at 0.05, most small data
sets would get a false warning."""

MIN_SOURCES = 10
"""Number of sources of each label below which no AUC is measured."""

MAX_ROWS = 10_000
"""Largest number of images of a part that are measured; of more, whole sources are sampled."""

_FOLDS = 5
_SHOWN_VALUES = 12  # of a property; more distinct numbers are shown as tenths


@dataclass(frozen=True)
class Property:
    """A property of a file that is known without its pixels.

    Attributes:
        description: The property, for a sentence.
        features: Columns of the audited table from which a classifier predicts the label.
        values: Computes the value of each row that a table shows.
        advice: Advice if the property is tied to the label.
        applies: Selects the rows that have the property.
        metadata: Whether the property is part of the metadata baseline. Bits per pixel are not:
            they depend on the pixels too, since smoother images compress better.
    """

    description: str
    features: tuple[str, ...]
    values: Callable[[pd.DataFrame], "pd.Series[str]"]
    advice: str
    applies: Callable[[pd.DataFrame], "pd.Series[bool]"] = lambda rows: rows["label"] >= 0
    metadata: bool = True


_REENCODE = "Give both classes the same encoding, or train with --equalise true."
_RESIZE = (
    "Give both classes the same sizes, or use crops at native resolution "
    "(--geometry random_crop); --equalise cannot undo the traces of resizing."
)

PROPERTIES: dict[str, Property] = {
    "format": Property("the file format", ("format",), lambda t: t["format"], _REENCODE),
    "jpeg_quality": Property(
        "the JPEG quality",
        ("jpeg_quality",),
        lambda t: _binned(t["jpeg_quality"]),
        _REENCODE,
        applies=lambda t: t["jpeg_quality"] > 0,
    ),
    "size": Property("the size in pixels", ("width", "height"), lambda t: _sizes(t), _RESIZE),
    "aspect": Property("the aspect ratio", ("aspect",), lambda t: _binned(t["aspect"]), _RESIZE),
    "mode": Property("the colour mode", ("mode",), lambda t: t["mode"], _REENCODE),
    "exif": Property(
        "the presence of EXIF",
        ("exif",),
        lambda t: t["exif"].map({False: "none", True: "EXIF"}),
        "A detector never sees EXIF itself, but it indicates another origin or processing. Look at "
        "some of the images.",
    ),
    "provenance": Property(
        "what the metadata say about the origin (a generator, a camera, a C2PA manifest)",
        ("provenance",),
        lambda t: t["provenance"].replace("", "nothing"),
        "A detector never sees metadata, but whoever handles these files may judge by them, and "
        "images of such different origins differ in more than their pixels' synthesis. Look at "
        "some of the images, and give both classes the same history.",
    ),
    "bits_per_pixel": Property(
        "the file's size in bits per pixel",
        ("bits_per_pixel",),
        lambda t: _binned(t["bits_per_pixel"]),
        "At equal format and quality, one class is smoother, and a detector may learn blur. "
        "Compare with real images that were blurred or resized (a control split).",
        metadata=False,
    ),
}
"""The properties that are measured against the label. The finding is named `<property>_leak`."""


def tabulate(table: pd.DataFrame, what: Property) -> pd.DataFrame:
    """Count the values of a property by part and label: the property's table of an `Audit`."""
    rows = table[what.applies(table)]
    counts = count_by_label([rows["part"], what.values(rows).rename("value")], rows["label"])
    counts.columns = pd.Index(CLASSES)
    totals = table.groupby(["part", "label"]).size().unstack(fill_value=0)
    for label, name in enumerate(CLASSES):
        whole = totals.get(label, pd.Series(dtype=int)).reindex(counts.index.get_level_values(0))
        counts[f"{name}_share"] = counts[name] / whole.clip(lower=1).to_numpy()
    return counts.reset_index()


def _binned(values: "pd.Series[Any]") -> "pd.Series[str]":
    """Return each number as text or, if there are many numbers, the decile that it lies in."""
    rounded = values.round(3)
    distinct = np.unique(rounded)
    if len(distinct) <= _SHOWN_VALUES:
        bins, names = np.searchsorted(distinct, rounded), [f"{value:.10g}" for value in distinct]
    else:
        edges = np.unique(np.quantile(rounded, np.linspace(0, 1, 11)).round(3))
        bins = np.clip(np.searchsorted(edges, rounded, side="right") - 1, 0, len(edges) - 2)
        names = [f"{low:.10g} to <{high:.10g}" for low, high in pairwise(edges)]
        names[-1] = names[-1].replace("<", "")
    # Categories keep the order of the numbers; as text, 1024 would come before 256.
    return pd.Series(pd.Categorical.from_codes(bins, names, ordered=True), index=values.index)


def _sizes(table: pd.DataFrame) -> "pd.Series[str]":
    """Return width x height or, if there are many sizes, the decile of the shorter side."""
    sizes = table["width"].astype(str) + "x" + table["height"].astype(str)
    if sizes.nunique() <= _SHOWN_VALUES:
        return sizes
    return _binned(table[["width", "height"]].min(axis=1)).cat.rename_categories("side {}".format)


def measure_baseline(
    table: pd.DataFrame, properties: dict[str, Property], seed: int
) -> tuple[pd.DataFrame, list[Finding]]:
    """Measure how well each property, and all metadata together, predict the label.

    Returns:
        The table `baseline` of an `Audit`, and findings of parts with too few sources.
    """
    rows: list[tuple[Any, ...]] = []
    too_few: list[Finding] = []
    all_features = [f for p in properties.values() if p.metadata for f in p.features]
    for part, whole in table.groupby("part"):
        if whole["label"].nunique() < 2:
            continue
        sample = _sample_groups(whole, seed)
        sources = _sources_by_label(sample)
        if min(sources) < MIN_SOURCES:
            too_few.append(
                Finding(
                    NOTE,
                    "too_few_sources",
                    f"{part}: {sources[REAL]} real and {sources[SYNTHETIC]} synthetic sources are "
                    f"too few to measure an AUC with folds by source ({MIN_SOURCES} are needed)",
                    float(min(sources)),
                    "Read the tables of counts instead.",
                )
            )
            continue
        shares = [1 / _FOLDS] * _FOLDS
        sample = sample.assign(fold=assign_groups(sample, shares, seed=seed, by_category=False))
        counts = (sample["group"].nunique(), len(sample), len(whole))
        for name, what in properties.items():
            having = sample[what.applies(sample)]
            if min(_sources_by_label(having)) >= MIN_SOURCES:
                rows.append((part, name, *_auc(having, what.features, _tree, seed), *counts))
        auc = _auc(sample, all_features, _boosted_trees, seed)
        rows.append((part, ALL_METADATA, *auc, *counts))
    columns = ["part", "property", "auc", "low", "high", "p", "sources", "images", "of_images"]
    return pd.DataFrame(rows, columns=columns), too_few


def _sources_by_label(rows: pd.DataFrame) -> list[int]:
    return [rows.loc[rows["label"] == label, "group"].nunique() for label in (REAL, SYNTHETIC)]


def _sample_groups(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Sample whole groups with about `MAX_ROWS` rows."""
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
    """Compute the out-of-fold AUC, its 95 % confidence interval over groups, and its p-value.

    The predicted log-odds are taken relative to those of the training folds, so that a fold with
    few synthetic images does not rank below another one when nothing was learned.
    """
    x = np.stack([_numbers(rows[name]) for name in features], axis=1)
    if (x == x[0]).all():
        return 0.5, 0.5, 0.5, 1.0
    y, fold = rows["label"].to_numpy(), rows["fold"].to_numpy()
    scores, by_fold = np.zeros(len(rows)), []
    for part in np.unique(fold):
        test = fold == part
        model = make(int((~test).sum()), seed).fit(x[~test], y[~test])
        probability = np.clip(model.predict_proba(x[test])[:, 1], 1e-6, 1 - 1e-6)
        scores[test] = logit(probability) - logit(y[~test].mean())
        if len(np.unique(y[test])) == 2:
            by_fold.append(roc_auc_score(y[test], scores[test]))
    bounds = auc_interval(y, scores, rows["group"], seed=seed)
    return *bounds, _p_value(np.array(by_fold))


def _p_value(aucs: FloatArray) -> float:
    """Test whether the mean AUC of the folds exceeds 0.5.

    This is the corrected t-test of Nadeau and Bengio (2003, Machine Learning 52): the models of the
    folds share most of their training images, so their results vary less than independent ones
    would. The confidence interval is no substitute, since it takes the models as given.
    """
    if len(aucs) < 2 or aucs.std() == 0:
        return 0.0 if len(aucs) and aucs[0] > 0.5 else 1.0
    error = np.sqrt((1 / len(aucs) + 1 / (_FOLDS - 1)) * aucs.var(ddof=1))
    return float(student_t.sf((aucs.mean() - 0.5) / error, len(aucs) - 1))


def _numbers(values: "pd.Series[Any]") -> FloatArray:
    numeric = pd.api.types.is_numeric_dtype(values)
    return np.asarray(values if numeric else pd.factorize(values, sort=True)[0], dtype=np.float64)


def check_leaks(
    tables: dict[str, pd.DataFrame], properties: dict[str, Property]
) -> Iterator[Finding]:
    """Report AUCs of metadata above the limits.

    Args:
        tables: The table of each property, and `baseline`.
        properties: The properties that were measured.
    """
    baseline = tables["baseline"]
    for row in baseline.to_dict(orient="records"):
        part, name, auc = row["part"], row["property"], row["auc"]
        measured = f"AUC {auc:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        if row["images"] < row["of_images"]:
            measured += f", on {row['images']:,} of {row['of_images']:,} images, sampled by source"
        if name == ALL_METADATA:
            if auc > AUC_LIMIT:
                chance = row["p"] >= CHANCE
                doubt = "; it may be chance, which more sources would show" if chance else ""
                yield Finding(
                    NOTE if chance else WARNING,
                    "metadata_baseline",
                    f"{part}: a classifier that sees only metadata and no pixels tells real from "
                    f"synthetic: {measured}{doubt}",
                    auc,
                    "A detector can do the same without learning anything about generators. Remove "
                    "the differences that the other findings name, or equalise the classes.",
                )
        elif auc > WEAK_AUC and row["p"] < CHANCE:
            what = properties[name]
            yield Finding(
                WARNING if auc > AUC_LIMIT and what.metadata else NOTE,
                f"{name}_leak",
                f"{part}: {what.description} alone tells real from synthetic: {measured}; "
                f"{_largest_difference(tables[name], part)}",
                auc,
                what.advice,
            )


def _largest_difference(counts: pd.DataFrame, part: str) -> str:
    rows = counts[counts["part"] == part].reset_index(drop=True)
    row = rows.loc[(rows["real_share"] - rows["synthetic_share"]).abs().idxmax()]
    return (
        f"{row['value']} is {row['real_share']:.0%} of the real and "
        f"{row['synthetic_share']:.0%} of the synthetic images"
    )
