"""`synthdetect regimes`: both tables beside the paper's, and every combination in the factorial."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from synthdetect.cli import main
from synthdetect.data.manifest import load
from tests.conftest import artifact

SMALL = ["--image-size", "32", "--epochs", "1", "--weights", "none", "--batch-size", "16"]


def parent() -> Run:
    (run,) = mlflow.search_runs(
        filter_string="tags.`synthdetect.kind` = 'regimes'", output_format="list"
    )
    return run


def children(run: Run) -> dict[str, Run]:
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    found = mlflow.search_runs(filter_string=query, output_format="list")
    return {child.data.tags["synthdetect.fold"]: child for child in found}


def test_both_regimes_stand_beside_the_papers_numbers(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(small_manifest), "--narrow-per-category", "8", *SMALL]
    assert main(["regimes", *given]) == 0
    run = parent()
    assert run.info.status == "FINISHED"
    found = children(run)
    assert set(found) == {"constrained", "open"}
    constrained, opened = (found[name].data for name in ("constrained", "open"))
    assert (constrained.params["model.arch"], opened.params["model.arch"]) == (
        "resnet18", "resnet50",
    )  # fmt: skip
    assert constrained.params["data.per_category"] == "8"
    assert constrained.params["data.generators"] == "realesr_animevideov3"
    assert (opened.params["data.generators"], opened.params["data.finetune"]) == ("", "0.2")
    assert opened.params["image.geometry"] == "resize_crop"
    long = artifact(run, "regimes/tables.csv").set_index(["table", "regime", "metric"])
    assert long.loc[("test", "open (resnet50)", "auc"), "paper"] == 0.90
    assert long.loc[("val", "constrained (resnet18)", "f1"), "paper"] == 0.45
    ours = long.loc[("test", "open (resnet50)", "auc")]
    assert ours["ours"] == pytest.approx(opened.metrics["test/auc"])
    assert ours["low"] <= ours["ours"] <= ours["high"]
    text = capsys.readouterr().out
    assert "Table 2: test set" in text
    assert "open (resnet50), paper" in text

    # Nothing is done twice, and a finished study is not begun again.
    assert main(["regimes", *given, "--resume", run.info.run_id]) == 2


def test_the_factorial_crosses_everything_and_reports_each_effect(
    workspace: Path, small_manifest: Path
) -> None:
    given = ["--data", str(small_manifest), "--factorial", "true", "--archs", "mobilenet_v3_large"]
    assert main(["regimes", *given, "--narrow-per-category", "8", *SMALL]) == 0
    run = parent()
    assert set(children(run)) == {
        f"mobilenet_v3_large {data} {augmentation}"
        for data in ("narrow", "diverse")
        for augmentation in ("light", "extensive")
    }
    changes = artifact(run, "regimes/effects.csv")
    assert set(zip(changes["factor"], changes["on"], strict=True)) == {
        (factor, on) for factor in ("data", "augmentation") for on in ("test", "unseen")
    }
    assert (changes["low"] <= changes["effect"]).all()
    cells = artifact(run, "regimes/cells.csv")
    narrow, diverse = (
        cells[(cells["on"] == "test") & (cells["data"] == d)]["auc"].mean()
        for d in ("narrow", "diverse")
    )
    effect = changes.set_index(["factor", "on"]).loc[("data", "test"), "effect"]
    assert effect == pytest.approx(diverse - narrow)
    one = children(run)["mobilenet_v3_large narrow extensive"]
    assert main(["reproduce", one.info.run_id]) == 0  # bit for bit


def test_the_open_regime_alone_has_the_supplement_and_validation_images(
    workspace: Path, small_manifest: Path, small_table: pd.DataFrame
) -> None:
    sample = load("sample")
    extra = sample.table[sample.table["split"] == "train"].tail(12)
    extra = extra.assign(path=[str(sample.file(path)) for path in extra["path"]])
    extra = extra[~extra["path"].isin(small_table["path"])].assign(generator="elsewhere")
    extra.assign(label=extra["label"].map(["real", "synthetic"].__getitem__)).to_csv(
        "extra.csv", index=False
    )
    given = ["--data", str(small_manifest), "--supplement", "extra.csv", "--finetune", "0.5"]
    assert main(["regimes", *given, "--narrow-per-category", "8", *SMALL]) == 0
    found = children(parent())
    counts = {
        name: artifact(run, "data/counts.csv").groupby("split")["images"].sum()
        for name, run in found.items()
    }
    split = small_table["split"]
    assert counts["constrained"]["val"] == (split == "val").sum()
    moved = (split == "val").sum() - counts["open"]["val"]
    assert 0 < moved <= (split == "val").sum() / 2
    assert counts["open"]["train"] == (split == "train").sum() + moved + len(extra)
    card = mlflow.artifacts.load_dict(f"{found['open'].info.artifact_uri}/model/card.json")
    assert (card["provenance"]["supplement"], card["provenance"]["finetune"]) == ("extra.csv", 0.5)
    assert "elsewhere" in artifact(found["open"], "data/counts.csv")["generator"].tolist()
    assert found["constrained"].data.params["data.supplement"] == ""
    # Whatever trained, the test is the same.
    assert counts["open"]["test"] == counts["constrained"]["test"] == (split == "test").sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--archs", "vgg"], "--archs"),
        (["--narrow", "midjourney"], "--narrow: midjourney not in the train split"),
        (["--arch", "resnet18"], "unknown option --arch"),
        (["--factorial", "true", "--image-size", "40"], "vit_b_16 needs a multiple of 16"),
    ],
)
def test_what_does_not_fit_is_refused(
    workspace: Path,
    small_manifest: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert main(["regimes", "--data", str(small_manifest), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert mlflow.search_runs(output_format="list") == []
