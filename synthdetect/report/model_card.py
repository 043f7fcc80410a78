"""The model card of a detector, in the form of the Hugging Face Hub: README.md with metadata.

The metadata are those of https://huggingface.co/docs/hub/model-cards; results stand in its
`model-index`. All names come from data, which are not trusted: in the text they are set as code, so
that they are neither markup nor links.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import yaml

from synthdetect.datasets.labels import CLASSES
from synthdetect.detectors.card import TORCH, Card
from synthdetect.evaluation.answer import answer, judged_split
from synthdetect.evaluation.metrics import METRICS
from synthdetect.evaluation.predictions import CONTROL, MEAN, WORST
from synthdetect.evaluation.summary import markdown, with_interval
from synthdetect.report.measured import Measured, name_of_data
from synthdetect.report.text import clean, label

README = "README.md"
"""The file of a model card."""

LIBRARY = "synthdetect"

_TAGS = ("ai-generated-image-detection", "synthetic-image-detection", "image-forensics")
_INDEXED = {
    "auc": "roc_auc", "average_precision": "average_precision", "balanced_accuracy":
    "balanced_accuracy", "accuracy": "accuracy", "f1": "f1", "eer": "eer", "ece": "ece",
}  # fmt: skip
"""Metrics in the metadata, by the name under which the Hub lists them."""

_SHOWN = ("auc", "balanced_accuracy", "real_accuracy", "fake_accuracy", "f1", "eer", "ece")
_SAMPLE = "sample"


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice, not as a reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def model_card(
    card: Card, measured: Sequence[Measured], *, name: str, licence: str = "", model: str = ""
) -> str:
    """Write the model card of a detector.

    Args:
        card: The detector's card.
        measured: What was measured of it; of several results on the same data and split, the last
            counts.
        name: Name of the model.
        licence: Identifier of its licence, such as apache-2.0; empty if the user gave none.
        model: How commands name the model, such as a `models:/` URI; empty for the folder of the
            card itself.

    Returns:
        The text of `README.md`.
    """
    latest = _latest(measured)
    parts = [
        f"# {clean(name)}",
        *_answer(card, latest),
        _use(model),
        _training(card),
        _results(latest),
        _robustness(latest),
        _decision(card),
        _limits(card, latest),
        _provenance(card, latest),
    ]
    metadata = yaml.dump(
        _metadata(card, latest, name, licence), Dumper=_Plain, sort_keys=False, allow_unicode=True
    )
    return f"---\n{metadata}---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _latest(measured: Sequence[Measured]) -> list[Measured]:
    """Return the last result on each split, with the last perturbations that were tried on it."""
    found: dict[tuple[str, str], Measured] = {}
    for one in measured:
        before = found.get((one.data, one.split))
        if before is not None and one.robustness.empty:
            one = replace(one, robustness=before.robustness)
        found[one.data, one.split] = one
    return list(found.values())


# --- the metadata


def _metadata(card: Card, measured: Sequence[Measured], name: str, licence: str) -> dict[str, Any]:
    data = name_of_data(str(card.provenance.get("data", "")))
    found: dict[str, Any] = {
        "library_name": LIBRARY,
        "pipeline_tag": "image-classification",
        "tags": [*_TAGS, _identifier(card.model.arch)],
    }
    if licence:
        found["license"] = licence
    if data:
        found["datasets"] = [_identifier(data)]
    results = [result for one in measured for result in _indexed(one)]
    if results:
        found["model-index"] = [{"name": clean(name), "results": results}]
    return found


def _identifier(name: str) -> str:
    """Return a name with the characters that the Hub allows in the names of data sets and tags."""
    if name == _SAMPLE:
        return "synthdetect-sample"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:96] or "unnamed"


def _indexed(one: Measured) -> list[dict[str, Any]]:
    """Return the results on a split, and on each of its generators, as the Hub indexes them."""
    task = {"type": "image-classification", "name": "Detection of AI-generated images"}

    def result(what: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        title = clean(f"{one.data} ({what})")
        dataset = {"type": _identifier(one.data), "name": title, "split": clean(one.split)}
        return {"task": task, "dataset": dataset, "metrics": metrics}

    found = []
    metrics = [
        _metric(kind, metric, *row)
        for metric, kind in _INDEXED.items()
        if (row := one.row(metric)) is not None
    ]
    if metrics:
        found.append(result(one.split, metrics))
    for row in _generators(one).to_dict(orient="records"):
        if row["auc"] == row["auc"]:
            metric = _metric("roc_auc", "auc", row["auc"], row["auc_low"], row["auc_high"])
            found.append(result(f"{one.split}, {row['generator']}", [metric]))
    return found


def _metric(kind: str, name: str, value: float, low: float, high: float) -> dict[str, Any]:
    bounds = f" [95 %: {low:.3f} to {high:.3f}]" if low == low and high == high else ""
    return {"type": kind, "name": f"{label(name)}{bounds}", "value": round(float(value), 4)}


# --- the text


def _code(text: object) -> str:
    """Return text as code in Markdown, so that nothing in it is markup, in a table too."""
    shown = clean(str(text)).replace("`", "'").replace("|", "\\|").replace("\n", " ")
    return f"`{shown or ' '}`"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown(pd.DataFrame(rows, columns=list(columns)))


def _generators(one: Measured) -> pd.DataFrame:
    if one.generators.empty:
        return one.generators
    return one.generators[~one.generators["generator"].isin((MEAN, WORST))]


def _judging(measured: Sequence[Measured]) -> Measured | None:
    both = {one.split: one for one in measured if one.row("auc")}
    return both.get(judged_split(both)) or next(iter(both.values()), None)


def _control(one: Measured, measured: Sequence[Measured]) -> list[float] | None:
    rows = (other.row(CONTROL) for other in measured if other.data == one.data)
    return next(filter(None, rows), None)


def _answer(card: Card, measured: Sequence[Measured]) -> list[str]:
    one = _judging(measured)
    if one is None:
        return ["Nothing was measured of this detector: nothing is known of how well it works."]
    table = one.generators
    if len(table):
        table = table.assign(generator=[_code(name) for name in table["generator"]])
        table = table[~table["generator"].isin((_code(MEAN), _code(WORST)))]
    trained_on = {_code(name) for name in card.provenance.get("training_generators", ())}
    said = answer(
        _code(one.split),
        one.overall,
        table,
        control=_control(one, measured),
        trained_on=trained_on,
        images=one.images,
        sources=one.sources,
    )
    return [f"**{said[0]}**", " ".join(said[1:])] if said else []


def _use(model: str) -> str:
    given = model or "FOLDER"
    where = "" if model else "\n`FOLDER` is a copy of this folder."
    return f"""## Intended use

The detector answers with the probability that an image is {CLASSES[1]} rather than {CLASSES[0]}. It
is made for research on the detection of AI-generated images, and for sorting many images before a
person looks at them. It is not evidence about a single image: do not accuse anybody by it.

```sh
pip install synthdetect
synthdetect predict --model {given} --data IMAGES
synthdetect evaluate --model {given} --data LABELLED_IMAGES
synthdetect serve --model {given}
```
{where}""".rstrip()


def _training(card: Card) -> str:
    known = card.provenance
    weights = " ".join(str(known.get(name, "")) for name in ("weights", "weights_detail")).strip()
    facts = {
        "architecture": card.model.arch,
        "front end": "" if card.model.front_end == "none" else card.model.front_end,
        "side of the square in pixels": card.model.image_size,
        "geometry": card.geometry,
        "recipe": known.get("recipe", ""),
        "starting weights": weights,
        "data": name_of_data(str(known.get("data", ""))),
        "training images": known.get("training_images", ""),
        "of these, images that also validated": known.get("validation_images", ""),
        "generators": ", ".join(map(str, known.get("training_generators", ()))),
        "further training data": name_of_data(str(known.get("supplement", ""))),
        "adaptation to unlabelled images": name_of_data(str(known.get("target", ""))),
    }
    rows = [[name, _code(value)] for name, value in facts.items() if value not in ("", 0)]
    text = f"## Training\n\n{_table(['fact', 'value'], rows)}"
    if known.get("data") == _SAMPLE:
        text += (
            "\n\nThe sample has crops of photographs, and crops that neural upscalers rebuilt from "
            "a quarter of their size. It contains no text-to-image output."
        )
    return text


def _results(measured: Sequence[Measured]) -> str:
    rows = [
        [
            f"{_code(one.data)} {_code(one.split)}",
            f"{one.images:,}" if one.images else "",
            *(with_interval(*row) if (row := one.row(name)) else "" for name in _SHOWN),
        ]
        for one in measured
    ]
    if not rows:
        return ""
    columns = ["images of", "n", *map(label, _SHOWN)]
    text = f"## Evaluation\n\n{_table(columns, rows)}\n\nIn brackets: 95 % confidence intervals."
    if any(one.split == "val" for one in measured):
        text += (
            " Epoch, calibration and threshold were chosen on `val`, whose numbers are too good."
        )
    listed = [
        [
            f"{_code(one.data)} {_code(one.split)}",
            _code(row["generator"]),
            f"{row['images']:.0f}",
            with_interval(row["auc"], row["auc_low"], row["auc_high"]),
        ]
        for one in measured
        if one.split != "val"
        for row in _generators(one).to_dict(orient="records")
    ]
    if listed:
        columns = ["images of", "generator", "n", "AUC against the real images"]
        text += f"\n\n### By generator\n\n{_table(columns, listed)}"
    controls = [
        [f"{_code(one.data)} {_code(one.split)}", with_interval(*row)]
        for one in measured
        if (row := one.row(CONTROL))
    ]
    if controls:
        columns = ["images of", "AUC against other real images (0.5 is wanted)"]
        text += f"\n\n### Real images only\n\n{_table(columns, controls)}"
    return text


def _robustness(measured: Sequence[Measured]) -> str:
    rows = []
    for one in measured:
        table = one.robustness
        if table.empty or not {"level", "auc_change"} <= set(table):
            continue
        tried = table[table["perturbation"] != "none"]
        worst = tried.loc[tried.groupby("perturbation", sort=False)["auc"].idxmin()]
        rows += [
            [
                f"{_code(one.data)} {_code(one.split)}",
                _code(f"{row['perturbation']} {row['level']:g}"),
                with_interval(row["auc"], row["auc_low"], row["auc_high"]),
                f"{row['auc_change']:+.3f}",
            ]
            for row in worst.to_dict(orient="records")
        ]
    if not rows:
        return ""
    columns = ["images of", "perturbation", "AUC", "change"]
    return (
        "## Robustness\n\nThe level of each perturbation at which the AUC was lowest:\n\n"
        f"{_table(columns, rows)}"
    )


def _decision(card: Card) -> str:
    rows = [[label(name), f"{value:.4g}"] for name, value in card.decision.describe().items()]
    return (
        "## Decision\n\nAn image is called synthetic from the threshold on. Calibration and "
        f"threshold were chosen on validation images.\n\n{_table(['fact', 'value'], rows)}"
    )


def _limits(card: Card, measured: Sequence[Measured]) -> str:
    tested = sorted({name for one in measured for name in _names(one)})
    named = ", ".join(map(_code, tested)) or "none"
    limits = [
        f"Generators that it was tested on: {named}. Nothing is known of any other.",
        "One training: how much another seed changes the numbers is not in their intervals.",
        "A detector can learn traces of processing, such as blur or compression, in place of those "
        "of generation.",
    ]
    untested = ["edits of a part of an image, screenshots, prints and adversarial changes"]
    if all(one.robustness.empty for one in measured):
        untested.insert(0, "compression, resizing and other processing after generation")
    if not any(one.row(CONTROL) for one in measured):
        untested.insert(0, "real images that were processed like synthetic ones (a control)")
    if _judging(measured) is None or all(one.split in ("train", "val") for one in measured):
        untested.insert(0, "images that influenced no choice: there was no test split")
    if not set(tested) - set(card.provenance.get("training_generators", ())):
        untested.insert(0, "generators that it was not trained on")
    if card.engine != TORCH:
        limits.append(
            f"It was converted to {card.engine} in {card.precision}. Results of runs before that "
            "are those of the original; `parity.json` among the artifacts of the run that exported "
            "it says how far its scores differ."
        )
    listed = "\n".join(f"- {text}" for text in limits)
    return f"## Limits\n\n{listed}\n\n### What was not tested\n\n" + "\n".join(
        f"- {text[:1].upper()}{text[1:]}." for text in untested
    )


def _names(one: Measured) -> list[str]:
    rows = _generators(one)
    return [str(name) for name in rows["generator"]] if len(rows) and one.split != "val" else []


def _provenance(card: Card, measured: Sequence[Measured]) -> str:
    facts = {
        "SHA-256 of the weights": card.weights_sha256,
        "run of the training": card.provenance.get("run_id", ""),
        "runs of the results": ", ".join(dict.fromkeys(one.run_id for one in measured)),
        "digest of the data": card.provenance.get("data_digest", ""),
        "written by": f"{LIBRARY} {card.synthdetect}",
    }
    rows = [[name, _code(value)] for name, value in facts.items() if value]
    definitions = "; ".join(f"{label(name)}: {METRICS[name]}" for name in _SHOWN if name in METRICS)
    return f"## Provenance\n\n{_table(['fact', 'value'], rows)}\n\nMetrics: {definitions}."
