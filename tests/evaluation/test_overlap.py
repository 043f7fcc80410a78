"""Overlap of evaluated images with training is counted by content and by source."""

import pandas as pd
import pytest

from synthdetect.evaluation.overlap import ADAPTED_TO, overlap


def rows(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(columns)


TRAINED = rows(
    split=["train", "train", "val", "test"],
    label=[0, 1, 0, 1],
    generator=["", "sd", "", "flux"],
    sha256=["a", "b", "c", "d"],
    source_id=["1", "1", "2", "3"],
)
TEST = rows(
    label=[0, 1, 1],
    generator=["", "sd", "flux"],
    sha256=["a", "x", "y"],
    source_id=["9", "2", ""],
)


def test_shared_contents_and_sources_are_counted_separately() -> None:
    found = overlap({"test": TEST}, TRAINED).set_index("fact")
    assert found.loc["contents shared with train", "value"] == "1 of 3 images"
    assert found.loc["contents shared with val", "value"] == "0 of 3 images"
    assert found.loc["sources shared with train", "value"] == "0 of 3 images"
    assert found.loc["sources shared with val", "value"] == "1 of 3 images"
    assert found[found["warning"]].index.tolist() == [
        "contents shared with train", "sources shared with val",
    ]  # fmt: skip


def test_validation_images_raise_no_warning_on_validation() -> None:
    val = TRAINED[TRAINED["split"] == "val"]
    found = overlap({"val": val}, TRAINED).set_index("fact")
    assert found.loc["contents shared with val", "value"] == f"{len(val)} of {len(val)} images"
    assert not found["warning"].any()
    train = TRAINED[TRAINED["split"] == "train"]
    assert overlap({"val": train}, TRAINED)["warning"].any()


def test_generators_are_divided_into_those_in_training_and_unseen_ones() -> None:
    found = overlap({"test": TEST}, TRAINED).set_index("fact")["value"]
    assert found["generators in training"] == "sd"
    assert found["generators unseen"] == "flux"


@pytest.mark.parametrize(
    ("hashes", "value", "warns"),
    [
        (["x", "y", "z"], "2 of 3 images", True),
        (["z"], "0 of 3 images", False),
        ([""], "not known", True),  # recorded by an older version, without hashes
    ],
)
def test_images_that_a_detector_was_adapted_to_are_counted(
    hashes: list[object], value: str, warns: bool
) -> None:
    adapted = rows(split=[ADAPTED_TO] * len(hashes), sha256=hashes)
    trained = pd.concat([TRAINED, adapted], ignore_index=True)
    found = overlap({"test": TEST}, trained).set_index("fact")
    assert found.loc["contents adapted to", "value"] == value
    assert found.loc["contents adapted to", "warning"] == warns
    assert found.loc["contents shared with train", "value"] == "1 of 3 images"
    assert "contents adapted to" not in overlap({"test": TEST}, TRAINED)["fact"].tolist()


def test_unknown_facts_are_reported_as_such() -> None:
    nothing = overlap({"test": TEST}, None)
    assert nothing["value"].tolist() == ["not known"]
    assert nothing["warning"].all()
    bare = overlap({"test": TEST.drop(columns="sha256")}, TRAINED).set_index("fact")
    assert bare.loc["contents shared with train", "value"] == "not known"


def test_images_without_a_source_share_none() -> None:
    trained = TRAINED.assign(source_id="")
    found = overlap({"test": TEST}, trained).set_index("fact")["value"]
    assert found["sources shared with train"] == "0 of 3 images"
