"""Tests of `synthdetect regimes`: the paper's tables, and every combination of the factorial."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from synthdetect.cli import main
from synthdetect.datasets.manifest import load
from synthdetect.evaluation.metrics import metrics
from synthdetect.runs import regimes
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


def written(table: pd.DataFrame, name: str = "other.csv") -> str:
    """A table as a manifest in the working folder."""
    table.to_csv(name, index=False)
    return name


def unnamed(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(generator="")


def further(small_table: pd.DataFrame) -> pd.DataFrame:
    """Images of the sample that are not in the small table."""
    sample = load("sample")
    extra = sample.table[sample.table["split"] == "train"].tail(12)
    extra = extra.assign(path=[str(sample.file(path)) for path in extra["path"]])
    extra = extra[~extra["path"].isin(small_table["path"])].assign(generator="elsewhere")
    return extra.assign(label=extra["label"].map(["real", "synthetic"].__getitem__))


def test_both_regimes_are_compared_with_the_papers_numbers(
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
    workspace: Path, small_table: pd.DataFrame
) -> None:
    # Who made an unnamed image nobody knows, and a real one was made by no generator.
    table = small_table.replace({"generator": {"realcugan_se": ""}})
    real = (table["label"] == "real") & (table["split"] == "train")
    table.loc[real, "generator"] = "realsr_df2k"
    given = ["--data", written(table), "--factorial", "true", "--archs", "mobilenet_v3_large"]
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
    judged = artifact(one, "predictions/test.csv")
    judged = judged[(judged["label"] == 0) | (judged["generator"] == "realsr_df2k")]
    unseen = cells.set_index(["data", "augmentation", "on"]).loc[("narrow", "extensive", "unseen")]
    auc = metrics(judged["label"], judged["logit"], 0.5)["auc"]
    assert unseen["auc"] == pytest.approx(auc)
    assert main(["reproduce", one.info.run_id]) == 0  # bit for bit


def test_the_open_regime_alone_has_the_supplement_and_validation_images(
    workspace: Path, small_table: pd.DataFrame
) -> None:
    extra = further(small_table)
    written(extra, "extra.csv")
    made = (small_table["split"] == "test") & (small_table["label"] == "synthetic")
    small_table = small_table[~made]
    given = ["--data", written(small_table), "--supplement", "extra.csv", "--finetune", "0.5"]
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
    # The supplement is among what the study says of its data.
    logged = artifact(parent(), "data/counts.csv")
    assert "elsewhere" in logged["generator"].tolist()
    # What a test of one class cannot have is undefined, and no metric.
    tables = artifact(parent(), "regimes/tables.csv").set_index(["table", "regime", "metric"])
    assert pd.isna(tables.loc[("test", "open (resnet50)", "auc"), "ours"])
    logged_metrics = {name for name in parent().data.metrics if name.startswith("regimes/open/")}
    assert "regimes/open/test/auc" not in logged_metrics
    assert {"regimes/open/val/auc", "regimes/open/test/accuracy"} <= logged_metrics


@pytest.fixture
def begun(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let studies end where their trainings would begin."""

    def stop(*arguments: object) -> None:
        raise RuntimeError("nothing is trained")

    monkeypatch.setattr(regimes, "train_children", stop)


@pytest.mark.parametrize(
    ("arguments", "described"),
    [
        (["--supplement", "extra.csv"], "all of other.csv, at most 35,000 images"),
        (["--narrow-per-category", "8"], "all of other.csv, at most 8 images"),
    ],
)
def test_data_can_be_narrow_for_other_reasons_than_generators(
    begun: None,
    small_table: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    described: str,
) -> None:
    written(further(small_table), "extra.csv")
    given = ["--data", written(unnamed(small_table)), "--factorial", "true", *SMALL]
    archs = ["--archs", "mobilenet_v3_large"]
    assert main(["regimes", *given, *archs, *arguments]) == 1
    assert f"narrow data: {described}" in capsys.readouterr().out


def test_a_study_does_not_resume_with_another_supplement(
    begun: None,
    small_table: pd.DataFrame,
    small_manifest: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    extra = further(small_table)
    given = ["--data", str(small_manifest), "--supplement", written(extra), *SMALL]
    assert main(["regimes", *given]) == 1
    again = [*given, "--resume", parent().info.run_id]
    assert main(["regimes", *again]) == 1  # as far as before
    written(extra.iloc[1:])
    assert main(["regimes", *again]) == 2
    assert "have changed since it began" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--archs", "vgg"], "--archs"),
        (["--narrow", "midjourney"], "--narrow: midjourney not in the train split"),
        (["--arch", "resnet18"], "unknown option --arch"),
        (["--factorial", "true", "--image-size", "40"], "vit_b_16 needs a multiple of 16"),
        (["--factorial", "true", "--archs", ""], "--archs: name at least one"),
        (["--factorial", "true", "--archs", "resnet18,vit_b_16,resnet18"], "--archs: resnet18 "),
        (
            ["--narrow", "realesr_animevideov3,realesrgan_x4plus"],
            "--narrow: the narrow data would be all of the train split",
        ),
        (["--narrow-per-category", "1"], "--narrow, --narrow-per-category: "),
        (["--supplement", "nowhere"], "supplement: 'nowhere'"),
        (["--finetune", "1000"], "--supplement, --finetune: --finetune: 1000 of"),
        (["--weights", "small.safetensors"], "are trained: resnet18, resnet50"),
        (["--seed", "2147483647", "--seeds", "2"], "--seed: "),
    ],
)
def test_options_that_do_not_fit_are_refused(
    workspace: Path,
    small_manifest: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    Path("small.safetensors").touch()
    assert main(["regimes", "--data", str(small_manifest), *SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert mlflow.search_runs(output_format="list") == []


def one_generator(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["split"] != "train") | (table["generator"] != "realesrgan_x4plus")]


def without_test(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] != "test"]


def real_test(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["split"] != "test") | (table["label"] == "real")]


def apart(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(category=table["label"])


NOTHING_NARROW = (
    "--narrow: the narrow data would be all of the train split of other.csv (generators: none)"
)


@pytest.mark.parametrize(
    ("change", "factorial", "message"),
    [
        (unnamed, "false", NOTHING_NARROW),
        (unnamed, "true", NOTHING_NARROW),
        (one_generator, "true", "(generators: realesr_animevideov3)"),
        (apart, "false", "--narrow, --narrow-per-category: "),
        (without_test, "true", "--factorial: other.csv has no test split with both classes"),
        (real_test, "true", "--factorial: other.csv has no test split with both classes"),
    ],
)
def test_data_without_a_difference_to_study_are_refused_before_any_training(
    begun: None,
    small_table: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    factorial: str,
    message: str,
) -> None:
    given = ["--data", written(change(small_table)), "--factorial", factorial, *SMALL]
    assert main(["regimes", *given, "--archs", "mobilenet_v3_large"]) == 2
    assert message in capsys.readouterr().err
    assert mlflow.search_runs(output_format="list") == []
