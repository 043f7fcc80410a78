"""Model cards are what the Hugging Face Hub's own library reads, whatever names the data have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load

from synthdetect.detectors.card import Card
from synthdetect.evaluation.decision import Decision
from synthdetect.models.spec import ModelSpec
from synthdetect.report.measured import Measured, measured_in
from synthdetect.report.model_card import model_card
from tests.report.conftest import HOSTILE, Make, generators, overall

CARD = Card(
    model=ModelSpec.of("resnet18", 64),
    geometry="resize",
    decision=Decision(threshold=0.4),
    provenance={"run_id": "abc", "data": "/home/somebody/photos/mine.csv", "recipe": "open",
                "training_generators": ["old"], "training_images": 80},
    weights_sha256="0f" * 32,
)  # fmt: skip
PERTURBED = pd.DataFrame(
    [("test", "none", 0, 0.89, 0.8, 0.9, 0.0), ("test", "jpeg", 95, 0.88, 0.8, 0.9, -0.01),
     ("test", "jpeg", 50, 0.6, 0.5, 0.7, -0.29)],
    columns=["split", "perturbation", "level", "auc", "auc_low", "auc_high", "auc_change"],
)  # fmt: skip


@pytest.fixture
def measured(make: Make) -> list[Measured]:
    return list(
        measured_in(
            make(
                {
                    "evaluation/test.csv": overall(),
                    "evaluation/test_generators.csv": generators(("new", "old")),
                    "evaluation/robustness.csv": PERTURBED,
                    "predictions/test.csv": pd.DataFrame(
                        {"path": ["a", "b", "c"], "source_id": ["s", "s", "t"]}
                    ),
                },
                tags={"synthdetect.data": "/home/somebody/photos/mine.csv"},
            )
        )
    )


def read(text: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return what the Hub's library reads of a card in a file: its data, and its metadata."""
    file = folder / "README.md"
    file.write_text(text)
    return ModelCard.load(file).data, dict(metadata_load(file) or {})


def test_the_hubs_library_reads_the_metadata_and_the_results(
    measured: list[Measured], tmp_path: Path
) -> None:
    text = model_card(CARD, measured, name="mine", licence="apache-2.0")
    data, metadata = read(text, tmp_path)
    assert metadata["library_name"] == "synthdetect"
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["license"] == "apache-2.0"
    assert metadata["datasets"] == ["mine.csv"]
    assert {"ai-generated-image-detection", "resnet18"} <= set(metadata["tags"])
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in data.eval_results}
    assert results["mine.csv (test)", "roc_auc"] == 0.8934
    assert results["mine.csv (test, new)", "roc_auc"] == 0.5
    assert {r.dataset_split for r in data.eval_results} == {"test"}
    again: Any = huggingface_hub.ModelCardData(**{
        **{k: v for k, v in metadata.items() if k != "model-index"},
        "model_name": "mine", "eval_results": data.eval_results,
    })  # fmt: skip
    assert "model-index" in again.to_dict()


def test_it_says_what_is_known_and_what_is_not(measured: list[Measured]) -> None:
    text = model_card(CARD, measured, name="mine", licence="")
    assert "license:" not in text
    assert "**It tells synthetic images from real ones on 3 `test` images: AUC 0.893" in text
    assert "| `mine.csv` `test` | `new` | 20 | 0.500 [0.400, 0.900] |" in text
    assert "| `mine.csv` `test` | `jpeg 50` | 0.600 [0.500, 0.700] | -0.290 |" in text
    assert "somebody" not in text  # no folder of whoever trained it
    untested = text[text.index("### What was not tested") :]
    assert "(a control)" in untested
    assert "Compression" not in untested
    plain = model_card(CARD, [replace(m, robustness=pd.DataFrame()) for m in measured], name="m")
    assert "Compression" in plain[plain.index("### What was not tested") :]
    nothing = model_card(CARD, [], name="m")
    assert "Nothing was measured of this detector" in nothing
    assert "model-index" not in nothing


def test_a_later_result_replaces_an_earlier_one_but_keeps_its_perturbations(
    measured: list[Measured],
) -> None:
    later = replace(measured[0], overall=overall(0.7), robustness=pd.DataFrame(), run_id="later")
    text = model_card(CARD, [*measured, later], name="m")
    assert "0.700 [0.650, 0.750]" in text
    assert "0.893" not in text
    assert "`jpeg 50`" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_no_markup_and_leave_the_metadata_whole(
    name: str, measured: list[Measured], tmp_path: Path
) -> None:
    hostile = replace(measured[0], data=name, generators=generators((name, "old")))
    provenance = {**CARD.provenance, "data": name, "training_generators": [name]}
    text = model_card(replace(CARD, provenance=provenance), [hostile], name=name)
    _, metadata = read(text, tmp_path)
    assert metadata["library_name"] == "synthdetect"
    assert len(metadata["model-index"][0]["results"]) == 3
    body = text.split("---\n", 2)[2].split("\n", 2)[2]
    outside = "".join(body.split("`")[::2])  # what is not set as code
    for part in ("<script", "<img", "<svg", "onerror", "javascript:", "\u202e"):
        assert part not in outside
    assert body.count("`") % 2 == 0
