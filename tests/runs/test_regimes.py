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
from synthdetect.runs.options import RegimesOptions
from synthdetect.system.seeds import derive_seed
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
    extra = extra.assign(path=[sample.file(path) for path in extra["path"]])
    extra = extra[~extra["path"].isin(small_table["path"])].assign(generator="elsewhere")
    return extra.assign(label=extra["label"].map(["real", "synthetic"].__getitem__))


def trained_on(run: Run) -> "pd.Series[int]":
    """Number of training images by class and generator."""
    counts = artifact(run, "data/counts.csv").fillna("")
    train = counts[counts["split"] == "train"]
    return train.groupby(["label", "generator"])["images"].sum()


def validated_on(run: Run) -> list[str]:
    return sorted(artifact(run, "predictions/val.csv")["path"])


def test_both_regimes_are_compared_with_the_papers_numbers(
    workspace: Path, small_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(small_manifest), "--narrow-per-category", "8", *SMALL]
    given += ["--finetune", "0.5"]
    assert main(["regimes", *given]) == 0
    run = parent()
    assert run.info.status == "FINISHED"
    found = children(run)
    assert set(found) == {"constrained", "open", "constrained refit", "open refit"}
    constrained, opened = (found[name].data for name in ("constrained", "open"))
    assert (constrained.params["model.arch"], opened.params["model.arch"]) == (
        "resnet18", "resnet50",
    )  # fmt: skip
    assert constrained.params["data.per_category"] == "8"
    assert constrained.params["data.generators"] == "realesr_animevideov3"
    assert constrained.params["data.categories"] == "landscape,object"
    assert (opened.params["data.generators"], opened.params["data.finetune"]) == ("", "0.5")
    assert (opened.params["image.geometry"], opened.params["augment.rotation"]) == (
        "resize_crop", "10.0",
    )  # fmt: skip
    assert constrained.params["optim.seed"] == opened.params["optim.seed"] != "42"
    # What the open regime trains on validates neither.
    shared = validated_on(found["constrained"])
    assert shared == validated_on(found["open"])
    manifest = pd.read_csv(small_manifest)
    assert len(shared) < (manifest["split"] == "val").sum()

    # The table of the validation is of the chosen trainings, that of the test of their refits.
    long = artifact(run, "regimes/tables.csv").set_index(["table", "regime", "metric"])
    assert long.loc[("test", "open (resnet50)", "auc"), "paper"] == 0.90
    assert long.loc[("val", "constrained (resnet18)", "f1"), "paper"] == 0.45
    tested = found["open refit"].data.metrics["test/auc"]
    assert long.loc[("test", "open (resnet50)", "auc"), "ours"] == pytest.approx(tested)
    ours = long.loc[("val", "open (resnet50)", "auc")]
    assert ours["ours"] == pytest.approx(opened.metrics["best/val/auc"])
    assert ours["low"] <= ours["ours"] <= ours["high"]
    for split in ("val", "test"):
        for metric in ("accuracy", "auc", "f1"):
            levels = long.xs((split, metric), level=("table", "metric"))
            before, after = (levels.loc[name] for name in levels.index[:2])
            change = levels.loc["difference"]
            assert change["ours"] == pytest.approx(after["ours"] - before["ours"])
            assert change["paper"] == pytest.approx(after["paper"] - before["paper"])
            assert change["low"] <= change["ours"] <= change["high"]
            assert change["covers"] == "photographs"
    text = capsys.readouterr().out
    assert "2 x 1 = 2 trainings, each followed by a refit" in text
    assert "Table 2: test set" in text
    for shown in ("open (resnet50), paper", "open minus constrained, here"):
        assert shown in text

    # A refit trains on all labelled images of its regime, with what the validation chose.
    split = manifest["split"].isin(["train", "val"])
    assert trained_on(found["open refit"]).sum() == split.sum()
    narrow = manifest["category"].isin(["landscape", "object"])
    named = trained_on(found["constrained refit"])
    assert set(named.index) == {("real", ""), ("synthetic", "realesr_animevideov3")}
    assert named.sum() == 16 < (split & narrow).sum()
    for name in ("constrained", "open"):
        chosen, refit = (found[key].data for key in (name, f"{name} refit"))
        assert refit.metrics["best/epoch"] == chosen.metrics["best/epoch"]
        assert refit.metrics["decision/threshold"] == chosen.metrics["decision/threshold"]
        assert "best/val/auc" not in refit.metrics
    card = f"{found['constrained refit'].info.artifact_uri}/model/card.json"
    assert mlflow.artifacts.load_dict(card)["provenance"]["validation_images"] > 0
    assert main(["reproduce", found["constrained refit"].info.run_id]) == 0  # bit for bit

    # Nothing is done twice, and a finished study is not begun again.
    assert main(["regimes", *given, "--resume", run.info.run_id]) == 2


def test_the_factorial_separates_breadth_from_size(
    workspace: Path, small_table: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    # Who made an unnamed image nobody knows, and a real one was made by no generator.
    table = small_table.replace({"generator": {"realcugan_se": ""}})
    real = (table["label"] == "real") & (table["split"] == "train")
    table.loc[real, "generator"] = "realsr_df2k"
    given = ["--data", written(table), "--factorial", "true", "--archs", "mobilenet_v3_large"]
    given += ["--factors", "data", "--seeds", "2", "--narrow-per-category", "8", *SMALL]
    assert main(["regimes", *given]) == 0
    assert "3 x 2 = 6 trainings" in capsys.readouterr().out
    run = parent()
    found = children(run)
    assert set(found) == {
        f"mobilenet_v3_large {data} light resize {number}"
        for data in ("narrow", "matched", "diverse")
        for number in (1, 2)
    }
    narrow, matched, diverse = (
        found[f"mobilenet_v3_large {data} light resize 1"]
        for data in ("narrow", "matched", "diverse")
    )
    # The matched data are as many of each class as the narrow ones, of all generators.
    assert trained_on(narrow).groupby("label").sum().to_dict() == {"real": 8, "synthetic": 8}
    assert trained_on(matched).groupby("label").sum().to_dict() == {"real": 8, "synthetic": 8}
    assert set(trained_on(matched).index) == set(trained_on(diverse).index)
    assert trained_on(diverse).sum() == (table["split"] == "train").sum()
    # All validate on what all know; no training of a combination starts as another does.
    known = table[table["split"] == "val"]
    known = known[known["category"].isin(["landscape", "object"])]
    known = known[known["generator"].fillna("").isin(["", "realesr_animevideov3"])]
    assert {tuple(validated_on(child)) for child in found.values()} == {
        tuple(sorted(known["path"]))
    }
    seeds = {name: child.data.params["optim.seed"] for name, child in found.items()}
    for number in (0, 1):
        of_number = {seed for name, seed in seeds.items() if name.endswith(f" {number + 1}")}
        assert of_number == {str(derive_seed(42, number))}

    changes = artifact(run, "regimes/effects.csv").set_index(["change", "on"])
    assert set(changes.index) == {
        (change, on) for change in ("breadth", "size") for on in ("test", "unseen")
    }
    assert (changes["low"] <= changes["effect"]).all()
    assert set(changes["covers"]) == {"photographs and trainings"}
    cells = artifact(run, "regimes/cells.csv")
    mean = cells[cells["on"] == "test"].groupby("data")["auc"].mean()
    assert changes.loc[("breadth", "test"), "effect"] == pytest.approx(
        mean["matched"] - mean["narrow"]
    )
    assert changes.loc[("size", "test"), "effect"] == pytest.approx(
        mean["diverse"] - mean["matched"]
    )
    judged = artifact(narrow, "predictions/test.csv")
    judged = judged[(judged["label"] == 0) | (judged["generator"] == "realsr_df2k")]
    unseen = cells.set_index(["data", "seed", "on"]).loc[("narrow", 1, "unseen")]
    auc = metrics(judged["label"], judged["logit"], 0.5)["auc"]
    assert unseen["auc"] == pytest.approx(auc)
    assert main(["reproduce", matched.info.run_id]) == 0  # bit for bit


def test_the_factorial_crosses_augmentation_and_geometry_apart(small_manifest: Path) -> None:
    options = RegimesOptions.resolve({"factorial": True, "data": str(small_manifest)})
    found = regimes._regimes(options, load(str(small_manifest)))
    assert len({regime.name for regime in found}) == 3 * 3 * 2 * 2
    by_levels = {tuple(regime.levels.values()): regime.differences for regime in found}
    plain = by_levels["resnet18", "diverse", "light", "resize"]
    assert plain == {"arch": "resnet18", "supplement": ""}
    extensive = {"rotation": 10.0, "jitter": 0.2}
    assert by_levels["resnet18", "diverse", "extensive", "resize"] == {**plain, **extensive}
    assert by_levels["resnet18", "matched", "light", "resize_crop"] == {
        **plain, "geometry": "resize_crop",
    }  # fmt: skip


def test_factors_that_are_not_crossed_stay_at_one_level(small_manifest: Path) -> None:
    given = {"factorial": True, "factors": "geometry", "archs": "resnet50"}
    found = regimes._regimes(RegimesOptions.resolve(given), load(str(small_manifest)))
    assert [regime.name for regime in found] == [
        "resnet50 diverse light resize", "resnet50 diverse light resize_crop",
    ]  # fmt: skip


def test_the_open_regime_alone_has_the_supplement_and_validation_images(
    workspace: Path, small_table: pd.DataFrame
) -> None:
    extra = further(small_table)
    written(extra, "extra.csv")
    made = (small_table["split"] == "test") & (small_table["label"] == "synthetic")
    small_table = small_table[~made]
    given = ["--data", written(small_table), "--supplement", "extra.csv", "--finetune", "0.5"]
    given += ["--refit", "false"]
    assert main(["regimes", *given, "--narrow-per-category", "8", *SMALL]) == 0
    found = children(parent())
    counts = {
        name: artifact(run, "data/counts.csv").groupby("split")["images"].sum()
        for name, run in found.items()
    }
    split = small_table["split"]
    assert set(found) == {"constrained", "open"}
    assert counts["constrained"]["val"] == counts["open"]["val"]
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


def without_names(table: pd.DataFrame) -> pd.DataFrame:
    return unnamed(table).assign(category="")


@pytest.mark.parametrize(
    ("change", "arguments", "described"),
    [
        (
            pd.DataFrame.copy,
            [],
            "generators realesr_animevideov3; categories landscape, object (2 of 4); at most "
            "35,000 images of each category",
        ),
        (
            pd.DataFrame.copy,
            ["--narrow", "realesrgan_x4plus", "--narrow-categories", "plant"],
            "generators realesrgan_x4plus; categories plant (1 of 4)",
        ),
        (
            lambda table: table.assign(category=""),
            ["--narrow-per-category", "0"],
            "generators realesr_animevideov3; content not narrowed, since the training images have "
            "no categories.",
        ),
        (unnamed, [], "generators all; categories landscape, object (2 of 4)"),
        (without_names, ["--supplement", "extra.csv"], "at most 35,000 images in all"),
        (without_names, ["--narrow-per-category", "8"], "at most 8 images in all"),
    ],
)
def test_narrow_data_are_described_before_any_training(
    begun: None,
    small_table: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    arguments: list[str],
    described: str,
) -> None:
    written(further(small_table), "extra.csv")
    given = ["--data", written(change(small_table)), *SMALL, *arguments]
    assert main(["regimes", *given]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "Narrow data: " in text
    assert described in text
    assert described in parent().data.params["regimes.compared_data"]


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
        (["--narrow-categories", "cars"], "--narrow-categories: cars not in the train split"),
        (
            [
                "--narrow",
                "realesr_animevideov3,realesrgan_x4plus",
                "--narrow-categories",
                "animal,landscape,object,plant",
            ],
            "--narrow: the narrow data would be all of the train split",
        ),
        (["--narrow-per-category", "1"], "--narrow-categories, --narrow-per-category: "),
        (["--supplement", "nowhere"], "supplement: 'nowhere'"),
        (["--finetune", "1000"], "--finetune: 1000 of"),
        (["--weights", "small.safetensors"], "are trained: resnet18, resnet50"),
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


def one_content(table: pd.DataFrame) -> pd.DataFrame:
    return one_generator(table).assign(category="")


def other_val(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(category=table["category"].where(table["split"] != "val", "plant"))


NOTHING_NARROW = (
    "--narrow: the narrow data would be all of the train split of other.csv (generators: none; "
    "categories: none)"
)
FACTORIAL = ["--factorial", "true", "--archs", "mobilenet_v3_large"]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (without_names, [], NOTHING_NARROW),
        (without_names, FACTORIAL, NOTHING_NARROW),
        # Fewer images of the same are not narrow, if breadth is to be told from size.
        (without_names, [*FACTORIAL, "--narrow-per-category", "8"], NOTHING_NARROW),
        (one_content, FACTORIAL, "(generators: realesr_animevideov3; categories: none)"),
        (apart, [], "--narrow-categories, --narrow-per-category: "),
        (without_test, FACTORIAL, "--factorial: other.csv has no test split with both classes"),
        (real_test, FACTORIAL, "--factorial: other.csv has no test split with both classes"),
        (other_val, FACTORIAL, "has no real and synthetic images of what both the narrow and the"),
    ],
)
def test_data_without_a_difference_to_study_are_refused_before_any_training(
    begun: None,
    small_table: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    arguments: list[str],
    message: str,
) -> None:
    assert main(["regimes", "--data", written(change(small_table)), *arguments, *SMALL]) == 2
    assert message in capsys.readouterr().err
    assert mlflow.search_runs(output_format="list") == []
