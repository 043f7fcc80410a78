"""Tests of the assignment of artifacts and metrics to sections."""

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from synthdetect.evaluation.metrics import METRICS
from synthdetect.report.contents import KINDS, build
from synthdetect.report.page import Report, Section, Table, render
from synthdetect.report.parts import DESCRIPTIONS
from synthdetect.tracking.queries import StoredRun
from tests.report.conftest import HOSTILE, OTHERS, Make, generators, overall, png

COUNTS = pd.DataFrame(
    [("control", "real", "", 24), ("test", "real", "", 40), ("test", "synthetic", "new", 20),
     ("train", "real", "", 80), ("train", "synthetic", "old", 80), ("val", "real", "", 9)],
    columns=["split", "label", "generator", "images"],
)  # fmt: skip
MANIFEST = pd.DataFrame(
    [("a", 0, "train", "", "s1", "h1"), ("b", 1, "train", "old", "s1", "h2"),
     ("c", 0, "val", "", "s2", "h3"), ("d", 1, "test", "new", "s3", "h4"),
     ("e", 0, "test", "", "s4", "h5"), ("f", 0, "control", "", "s4", "h6")],
    columns=["path", "label", "split", "generator", "source_id", "sha256"],
)  # fmt: skip
TRAINED = {
    "evaluation/test.csv": overall(),
    "evaluation/val.csv": overall(0.95 - 0.05),
    "evaluation/control.csv": overall().assign(value=""),
    "evaluation/test_generators.csv": generators(("new", "old")),
    "predictions/test.csv": MANIFEST,
    "data/counts.csv": COUNTS,
    "data/manifest.csv": MANIFEST,
    "model/card.json": json.dumps({"provenance": {"training_generators": ["old"]}}),
    "figures/test/roc.png": png(),
    "figures/test/generators.png": png(),
    "figures/learning_curves.png": png(),
}


HELD_OUT = "What was held out, and what was not"


def section(report: Report, title: str) -> Section:
    (found,) = [s for s in report.sections if s.title == title]
    return found


def table(holder: Section, caption: str) -> Table:
    (found,) = [t for t in holder.tables if t.caption == caption]
    return found


def facts(report: Report) -> dict[str, str]:
    (recorded,) = section(report, HELD_OUT).tables
    return dict(recorded.rows.to_numpy().tolist())


def test_a_training_run_has_its_sections_in_order(make: Make) -> None:
    report = build(make(TRAINED, tags={"synthdetect.kind": "train"}, params={"optim.lr": "0.1"}))
    assert report.title == "Training run"
    assert [s.title for s in report.sections] == [
        "At a glance", HELD_OUT, "Results", "Data", "Training", "Options", OTHERS,
    ]  # fmt: skip
    splits = [s.title.split()[-1] for s in section(report, "Results").sections]
    assert splits == ["test", "control", "val"]


def test_the_main_metrics_are_at_a_glance(make: Make) -> None:
    report = build(make(TRAINED, metrics={"control/auc_against_real": 0.98204}))
    rows = table(section(report, "At a glance"), "Main metrics").rows.set_index("split")
    assert rows.loc["test", "AUC"] == "0.893 [0.843, 0.943]"
    assert rows.loc["test", "images"] == "6"
    assert rows.loc["control", "AUC"] == "undefined"
    assert rows.loc["control", "AUC against real"] == "0.982"  # as older runs recorded it
    undefined = overall().astype(object).assign(value="", low="", high="")
    row = dict(zip(undefined, ["auc_against_real", 0.98204, 0.95, 0.999], strict=True))
    control = pd.concat([undefined, pd.DataFrame([row], dtype=object)])
    recorded = make({**TRAINED, "evaluation/control.csv": control}, metrics={"control/x": 1.0})
    report = build(recorded)
    rows = table(section(report, "At a glance"), "Main metrics").rows.set_index("split")
    assert rows["AUC against real"].to_dict() == {
        "test": "", "control": "0.982 [0.950, 0.999]", "val": ""
    }  # fmt: skip
    every = section(report, "Results").tables[0].rows.set_index("metric").loc["AUC against real"]
    assert every["control"] == "0.982 [0.950, 0.999]"
    assert every["test"] == every["val"] == ""
    assert "0.5" in every["definition"]


def test_all_metrics_are_shown_with_their_definitions(make: Make) -> None:
    rows = section(build(make(TRAINED)), "Results").tables[0].rows
    assert list(rows["definition"]) == list(METRICS.values())
    assert list(rows.columns) == ["metric", "test", "control", "val", "definition"]


def test_unseen_generators_are_marked_and_their_mean_has_only_an_auc(make: Make) -> None:
    mean = pd.DataFrame(
        {"generator": ["(mean)"], "images": 40, "auc": 0.52, "auc_low": 0.4, "auc_high": 0.9}
    )
    rows = pd.concat([generators(("new", "old")), mean])
    files = {**TRAINED, "evaluation/test_generators.csv": rows}
    (shown,) = section(build(make(files)), "Results").sections[0].tables
    columns = ["generator", "in training", "AUC [95 %]", "ECE"]
    assert shown.rows[columns].to_numpy().tolist() == [
        ["new", "no", "0.500 [0.400, 0.900]", "0.250"],
        ["old", "yes", "0.510 [0.400, 0.900]", "0.250"],
        ["(mean)", "", "0.520 [0.400, 0.900]", ""],
    ]
    assert "Brier score" not in shown.rows
    assert "evaluation/test_generators.csv" in shown.note


def test_an_oracle_threshold_is_never_shown_as_a_result(make: Make) -> None:
    files = {**TRAINED, "evaluation/test_oracle.csv": overall(0.99)}
    report = build(make(files, metrics={"test/oracle/threshold": 0.7, "test/oracle/f1": 0.99}))
    oracle = section(report, "Results").sections[0].tables[-1]
    assert "oracle" in oracle.caption
    assert "not a result" in oracle.caption
    assert "0.700" in oracle.note
    assert oracle.rows.iloc[0].tolist() == ["AUC", "0.990 [0.940, 1.040]"]
    assert "0.990" not in str(section(report, "At a glance").tables[0].rows.to_numpy())
    assert "0.990" not in str(section(report, "Results").tables[0].rows.to_numpy())


def test_other_metrics_of_a_split_are_listed_with_it(make: Make) -> None:
    metrics = {"test/auc": 0.5, "test/unsure/share": 0.25, "test/generator/x/auc": 0.5,
               "best/val/unsure/share": 0.125}  # fmt: skip
    parts = section(build(make(TRAINED, metrics=metrics)), "Results").sections
    for part, value in ((parts[0], "0.250"), (parts[2], "0.125")):
        assert part.tables[-1].rows.to_numpy().tolist() == [["unsure/share", value]]


def test_alternative_texts_have_the_main_numbers(make: Make) -> None:
    roc, by_generator = section(build(make(TRAINED)), "Results").sections[0].figures
    assert roc.caption.endswith(", test")
    assert roc.alt == f"{roc.caption}: AUC 0.893 [0.843, 0.943]"
    assert by_generator.alt == (
        f"{by_generator.caption}: lowest generator new 0.500, highest generator old 0.510"
    )


def test_spectra_are_shown_with_their_unit(make: Make) -> None:
    rows = pd.DataFrame({"group": ["new"], "frequency": [0.5], "difference_db": [1.25]})
    report = build(make({**TRAINED, "spectra/test_fingerprints.csv": rows}))
    shown = section(report, "Results").sections[0].tables[-1]
    assert "cycles per pixel" in shown.caption
    assert shown.rows.to_numpy().tolist() == [["new", "0.500", "1.250"]]


def test_what_was_held_out_comes_from_the_manifest(make: Make) -> None:
    report = build(make(TRAINED, tags={"synthdetect.kind": "train"}))
    known = facts(report)
    assert known["images per split"] == "train: 160, val: 9, test: 60, control: 24"
    assert known["sources per split"] == "train: 1, val: 1, test: 2, control: 1"
    assert known["sources that training or validation shares with others"] == "none"
    assert known["sources shared by splits that influenced no choice"] == "test and control: 1"
    assert known["generators trained on"] == "old"
    assert known["generators of test not trained on"] == "new"
    held = section(report, HELD_OUT)
    assert held.warnings == ()
    assert "chosen on the validation images" in held.paragraphs[0]


def test_a_source_in_training_and_test_is_a_warning(make: Make) -> None:
    leaking = MANIFEST.assign(source_id=["s1", "s1", "s2", "s1", "s4", "s4"])
    report = build(make({**TRAINED, "data/manifest.csv": leaking}))
    (warning,) = section(report, HELD_OUT).warnings
    assert "train and test: 1" in warning


def test_the_same_content_in_two_splits_counts_as_a_shared_source(make: Make) -> None:
    leaking = MANIFEST.assign(source_id="", sha256=["h1", "h2", "h3", "h4", "h1", "h6"])
    report = build(make({**TRAINED, "data/manifest.csv": leaking}))
    assert section(report, HELD_OUT).warnings
    assert facts(report)["images with a source_id"].startswith("0%")


@pytest.mark.parametrize("source", ["option", "images", "card"])
def test_a_test_split_that_was_adapted_to_has_a_warning(make: Make, source: str) -> None:
    files: dict[str, Any] = dict(TRAINED)
    if source == "images":
        files["data/target.csv"] = pd.DataFrame({"path": ["x", "y"], "sha256": ["h4", "h9"]})
    if source == "card":
        files["model/card.json"] = json.dumps({"provenance": {"target_splits": ["test"]}})
    params = {"adaptation.target": "split:test" if source == "option" else "field"}
    report = build(make(files, tags={"synthdetect.kind": "train"}, params=params))
    held = section(report, HELD_OUT)
    (warning,) = held.warnings
    assert "adapted to images of test" in warning
    assert "transductive" in held.paragraphs[0]
    assert "All other test images were scored once" in held.paragraphs[0]
    assert "The test images" not in held.paragraphs[0]
    size = " (2 images)" if source == "images" else ""
    assert facts(report)["adapted to without labels"] == params["adaptation.target"] + size


def test_adapting_to_images_outside_of_the_data_is_recorded_without_a_warning(make: Make) -> None:
    files = {**TRAINED, "data/target.csv": pd.DataFrame({"path": ["x"], "sha256": ["h9"]})}
    params = {"adaptation.target": "field"}
    report = build(make(files, tags={"synthdetect.kind": "train"}, params=params))
    held = section(report, HELD_OUT)
    assert held.warnings == ()
    assert "The test images and all other splits were scored once" in held.paragraphs[0]
    assert facts(report)["adapted to without labels"] == "field (1 images)"


def test_a_cross_validation_with_adaptation_has_a_warning(make: Make) -> None:
    params = {"adaptation.target": "field"}
    report = build(make({}, tags={"synthdetect.kind": "cv"}, params=params))
    (warning,) = section(report, HELD_OUT).warnings
    assert "is not recorded" in warning


def test_facts_that_are_not_recorded_are_not_shown(make: Make) -> None:
    report = build(make({"evaluation/test.csv": overall()}, tags={"synthdetect.kind": "other"}))
    assert facts(report) == {"sources shared with training": "not recorded"}
    assert section(report, HELD_OUT).paragraphs == ()


def test_an_evaluation_shows_how_its_images_overlap_with_training(make: Make) -> None:
    rows = pd.DataFrame(
        [("x", "sources shared with train", "3 of 10 images", True),
         ("val", "sources shared with val", "9 of 9 images", True),
         ("", "images the detector was trained on", "not known", False)],
        columns=["split", "fact", "value", "warning"],
    )  # fmt: skip
    files = {"evaluation/x.csv": overall(), "evaluation/held_out.csv": rows}
    params = {"decision.from": "as the model's card says"}
    metrics = {"decision/threshold": 0.25, "decision/slope": 2.0}
    made = make(files, tags={"synthdetect.kind": "evaluate"}, params=params, metrics=metrics)
    report = build(made)
    assert facts(report) == {
        "threshold": "0.250",
        "slope": "2.000",
        "source of threshold and calibration": "as the model's card says",
        "x: sources shared with train": "3 of 10 images",
        "val: sources shared with val": "9 of 9 images",
        "images the detector was trained on": "not known",
    }
    held = section(report, HELD_OUT)
    # val shares its sources with val as expected, which is no warning.
    assert held.warnings == ("x: sources shared with train: 3 of 10 images.",)


@pytest.mark.parametrize("name", ["decision.threshold_rule", "decision.threshold"])
def test_the_rule_of_the_threshold_is_shown_unless_it_was_not_used(make: Make, name: str) -> None:
    """Older versions recorded it under the second name."""
    own = build(make({}, params={name: "f1"}))
    assert facts(own)["rule of the threshold"] == "f1"
    given = build(make({}, params={name: "f1", "decision.from": "as the model's card says"}))
    assert "rule of the threshold" not in facts(given)


def test_findings_of_an_audit_with_severity_warning_are_warnings(make: Make) -> None:
    findings = pd.DataFrame({"severity": ["warning", "note"], "name": ["sizes", "modes"]})
    shown = section(build(make({"audit/findings.csv": findings})), "Data audit")
    (warning,) = shown.warnings
    assert "sizes" in warning
    assert "modes" not in warning


@pytest.mark.parametrize(
    ("finetune", "shown"), [("0.0", "none"), ("0.2", "20%"), ("2000.0", "2000 images")]
)
def test_validation_images_moved_to_training_are_shown(
    make: Make, finetune: str, shown: str
) -> None:
    report = build(make({}, params={"data.finetune": finetune, "data.supplement": "more/x"}))
    assert facts(report)["validation images moved to training"] == shown
    assert facts(report)["supplementary training data"] == "more/x"


def child(name: str, seed: str, **facts: Any) -> StoredRun:
    known: dict[str, Any] = {"status": "FINISHED", "metrics": {}, "tags": {}}
    return StoredRun(id=f"id-{name}", name=name, params={"optim.seed": seed}, **{**known, **facts})


def test_one_seed_is_shown_and_several_are_counted(make: Make) -> None:
    one = make({}, params={"optim.seed": "42"})
    assert facts(build(one))["random seed"].startswith("42 only")
    several = replace(one, children=(child("a", "1"), child("b", "2")))
    assert facts(build(several))["random seeds"] == "3: 1, 2, 42"


def test_a_cross_validation_shows_its_folds(make: Make) -> None:
    folds = pd.DataFrame(
        {"fold": [1, 2], "best/epoch": [3.0, 4.0], "best/val/auc": [0.6, 0.8],
         "best/val/nll": [0.1, 0.2], "best/val/generator/a/b/auc": [0.5, 0.7],
         "best/val/generator/a/b/recall": [0.1, 0.2], "test/auc": [0.4, 0.4]}
    )  # fmt: skip
    oof = MANIFEST.assign(fold=[1, 1, 2, 2, 1, 2])
    files = {"cv/folds.csv": folds, "evaluation/oof.csv": overall(), "predictions/oof.csv": oof,
             "figures/folds.png": png()}  # fmt: skip
    children = (child("fold 1", "1", metrics={"best/epoch": 3.0}), child("fold 2", "1"))
    metrics = {"cv/auc/mean": 0.7, "cv/auc/std": 0.14142}
    made = make(files, tags={"synthdetect.kind": "cv"}, metrics=metrics, children=children)
    report = build(made)
    shown = section(report, "Folds")
    assert shown.tables[0].rows.to_numpy().tolist() == [
        ["AUC", "0.600", "0.800", "0.700 ± 0.141"],
        ["a/b: AUC", "0.500", "0.700", "0.600 ± 0.141"],
    ]
    runs = section(report, "Child runs").tables[0].rows
    assert runs["run id"].tolist() == ["id-fold 1", "id-fold 2"]
    assert runs["chosen epoch"].tolist() == ["3", ""]
    assert shown.figures[0].alt.endswith("AUC of the folds 0.700 ± 0.141")
    # Source s4 is in both folds.
    (warning,) = section(report, HELD_OUT).warnings
    assert "fold 1 and fold 2: 1" in warning


def test_folds_that_hold_generators_out_show_what_chose_what(make: Make) -> None:
    folds = pd.DataFrame(
        {"fold": [1, 2], "best/val/auc": [0.9, 0.9], "held_out/auc": [0.6, 0.8],
         "test/auc": [0.4, 0.4]}
    )  # fmt: skip
    children = (
        child("fold 1", "1", metrics={"held_out/auc": 0.6}),
        child("fold 2", "2", metrics={"held_out/auc": 0.8}),
    )
    tags = {"synthdetect.kind": "cv", "synthdetect.chosen": "Each fold chose this."}
    report = build(make({"cv/folds.csv": folds}, tags=tags, children=children))
    tables = section(report, "Folds").tables
    assert [table.rows.iloc[0, -1] for table in tables] == [
        "0.700 ± 0.141",  # the held-out images come first
        "0.900 ± 0.000",
        "0.400 ± 0.000",
    ]
    assert "chosen" in tables[1].caption
    assert section(report, "Child runs").tables[0].rows["held_out AUC"].tolist() == [
        "0.600",
        "0.800",
    ]
    (text,) = section(report, HELD_OUT).paragraphs
    assert text.startswith("Each fold chose this.")


SOME = pd.DataFrame({"name": ["x"], "auc": [0.5]})


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("regimes/tables.csv", "Regimes"),
        ("regimes/effects.csv", "Regimes"),
        ("sweep/comparison.csv", "Sweep"),
        ("sweep/verdicts.csv", "Sweep"),
        ("reproduction/summary.csv", "Reproduction"),
        ("reproduction/settings.csv", "Reproduction"),
        ("evaluation/robustness.csv", "Robustness"),
        ("evaluation/test_robustness.csv", "Robustness"),
        ("evaluation/conditions.csv", "Robustness"),
        ("audit/findings.csv", "Data audit"),
        ("audit/sizes.csv", "Data audit"),
        ("data/excluded.csv", "Data"),
        ("predictions/unreadable.csv", "Predictions"),
        ("anything/else.csv", OTHERS),
        ("evaluation/unheard_of.csv", OTHERS),
    ],
)
def test_each_known_table_has_its_section(make: Make, path: str, title: str) -> None:
    report = build(make({path: SOME}))
    shown = section(report, title).tables[0]
    assert shown.rows.to_numpy().tolist() == [["x", "0.500"]]
    others = [s for s in report.sections if s.title == OTHERS]
    assert len(others) == (title == OTHERS)


@pytest.mark.parametrize(
    ("path", "title"),
    [("figures/regimes/effects.png", "Regimes"), ("figures/audit/sizes.png", "Data audit"),
     ("odd/a.png", OTHERS)],
)  # fmt: skip
def test_each_figure_has_its_section(make: Make, path: str, title: str) -> None:
    assert len(section(build(make({path: png()})), title).figures) == 1


def test_robustness_has_the_figures_of_each_split_and_unrounded_levels(make: Make) -> None:
    levels = pd.DataFrame({"split": "test", "images": 9, "perturbation": ["jpeg", "blur"],
                           "level": ["75", "0.5"], "auc": 0.5, "auc_low": 0.25,
                           "auc_high": 0.75})  # fmt: skip
    files: dict[str, object] = {"evaluation/test_robustness.csv": levels}
    for split in ("test", "val"):
        files[f"evaluation/{split}.csv"] = overall()
        for name in ("robustness", "robustness_generators", "roc"):
            files[f"figures/{split}/{name}.png"] = png()
    metrics = {"test/robustness/jpeg/auc": 0.5, "test/equalised/auc": 0.5}
    report = build(make(files, metrics=metrics))
    shown = section(report, "Robustness")
    assert [figure.caption for figure in shown.figures] == [
        f"{DESCRIPTIONS[name].caption}, {split}"
        for split in ("test", "val")
        for name in ("robustness", "robustness_generators")
    ]
    assert shown.tables[0].caption.startswith("test: ")
    assert shown.tables[0].caption.endswith("9 images")
    rows = shown.tables[0].rows
    assert rows["level"].tolist() == ["75", "0.5"]
    assert rows["AUC [95 %]"].tolist() == ["0.500 [0.250, 0.750]"] * 2
    for part in section(report, "Results").sections:
        assert len(part.figures) == 1
        assert not part.tables


def test_every_artifact_is_shown_or_listed(make: Make) -> None:
    long = pd.DataFrame({"x": range(1000)})
    files = {
        "some/long.csv": long, "predictions/test.csv": MANIFEST, "some/model.safetensors": b"0" * 9,
        "figures/broken.png": b"not a PNG file", "evaluation/empty.csv": "\n",
        "evaluation/odd.csv": pd.DataFrame({"metric": ["auc"], "value": ["<b>"]}),
        "report.html": "<p>an earlier one",
    }  # fmt: skip
    others = section(build(make(files)), OTHERS)
    listed = others.tables[-1].rows
    assert listed[["artifact", "rows"]].to_numpy().tolist() == [
        ["evaluation/empty.csv", "0"],
        ["figures/broken.png", ""],
        ["predictions/test.csv", "6"],
        ["some/long.csv", "1,000"],
        ["some/model.safetensors", ""],
    ]
    assert table(others, "evaluation/odd.csv").rows.to_numpy().tolist() == [["auc", "<b>"]]


def test_single_images_of_a_figure_are_counted_and_not_shown(make: Make) -> None:
    files = {f"explain/test/hits/{i}.png": png() for i in range(5)}
    others = section(build(make({**files, "explain/one.png": png()})), OTHERS)
    assert others.figures == ()
    listed = others.tables[-1].rows["artifact"].tolist()
    assert listed == ["explain/one.png", "explain/test/hits/ (5 files)"]


def test_a_long_table_is_cut_with_a_note(make: Make) -> None:
    findings = pd.DataFrame({"name": [f"f{i}" for i in range(150)]})
    shown = section(build(make({"audit/findings.csv": findings})), "Data audit").tables[0]
    assert len(shown.rows) == 100
    assert "100 of 150 rows" in shown.note
    assert "audit/findings.csv" in shown.note


def test_metrics_without_a_section_are_listed(make: Make) -> None:
    report = build(make({}, metrics={"odd/number": 0.25, "system/x": 1.0, "train/loss": 0.5}))
    rows = section(report, OTHERS).tables[0].rows
    assert rows.to_numpy().tolist() == [["odd/number", "0.250"]]


def test_options_are_listed_once_each(make: Make) -> None:
    params = {"lr": "1e-3", "optim.lr": "0.001", "data.supplement": "", "version.torch": "2"}
    (shown,) = section(build(make({}, params=params)), "Options").tables
    assert shown.rows.to_numpy().tolist() == [["optim.lr", "0.001"], ["data.supplement", "none"]]


def test_the_head_of_the_page_shows_the_origin_of_the_run(make: Make) -> None:
    params = {"data.digest": "d1", "version.torch": "2.14", "hardware.name": "a chip",
              "hardware.kind": "cpu", "model.start": "random"}  # fmt: skip
    tags = {"git.commit": "c0ffee", "git.dirty": "true", "synthdetect.command": "synthdetect train",
            "synthdetect.error": "it broke"}  # fmt: skip
    report = build(make({}, params=params, tags=tags, status="FAILED"))
    assert report.facts["Git commit"] == "c0ffee with uncommitted changes"
    assert report.facts["Device"] == "a chip, cpu"
    assert report.facts["Versions"] == "torch 2.14"
    assert report.facts["Duration"] == "1 min 01 s"
    assert "FAILED" in report.warnings[0]
    assert report.warnings[0].endswith(" it broke")
    assert "uncommitted" in report.warnings[1]
    assert "random weights" in report.warnings[2]


def test_a_parent_run_shows_device_and_versions_of_its_first_child(make: Make) -> None:
    first = child("fold 1", "1")
    first = replace(first, params={"hardware.name": "a chip", "version.torch": "2.14"})
    report = build(make({}, children=(first, child("fold 2", "1", status="FAILED"))))
    assert (report.facts["Device"], report.facts["Versions"]) == ("a chip", "torch 2.14")
    (warning,) = report.warnings
    assert warning.endswith("did not finish: fold 2.")


@pytest.mark.parametrize("kind", [*KINDS, "unheard of", ""])
def test_any_kind_of_run_even_an_empty_one_has_a_report(make: Make, kind: str) -> None:
    assert render(build(make({}, tags={"synthdetect.kind": kind}))).startswith("<!DOCTYPE html>")


def test_the_page_contains_no_secret(make: Make) -> None:
    uri = "postgresql://anna:hunter2@db/x?token=hunter2"
    files = {"audit/findings.csv": pd.DataFrame({"name": [uri], uri: [uri]}),
             "evaluation/test_generators.csv": generators((uri,)),
             "evaluation/test.csv": overall()}  # fmt: skip
    made = make(
        files,
        name=uri,
        status="FAILED",
        params={"data.data": uri, "optim.seed": uri, "hardware.name": uri},
        tags={"synthdetect.error": uri, "synthdetect.command": f"synthdetect train --data={uri}",
              "synthdetect.kind": uri, "synthdetect.data": uri},
        metrics={f"x/{uri}": 1.0},
        children=(child(uri, uri),),
    )  # fmt: skip
    html = render(build(made))
    assert "hunter2" not in html
    assert "anna" not in html


def test_names_that_look_like_numbers_are_unchanged(make: Make) -> None:
    table = generators(("1.50", "nan", "NA", "007"))
    files = {"evaluation/test.csv": overall(), "evaluation/test_generators.csv": table}
    (shown,) = section(build(make(files)), "Results").sections[0].tables
    assert shown.rows["generator"].tolist() == ["1.50", "nan", "NA", "007"]


def test_hostile_names_are_unchanged_in_the_tables(make: Make) -> None:
    names = tuple(name for name in HOSTILE if "\x00" not in name)
    files = {"evaluation/test.csv": overall(), "evaluation/test_generators.csv": generators(names)}
    (shown,) = section(build(make(files)), "Results").sections[0].tables
    assert shown.rows["generator"].tolist() == list(names)
