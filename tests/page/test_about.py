"""Tests of what the page says of a detector, all of it derived from its card and its results."""

import json
from dataclasses import asdict, replace

import pandas as pd

from synthdetect.detectors.detector import Detector
from synthdetect.page.about import About, about
from synthdetect.tracking.recorded import Results
from tests.page.conftest import OPTIONS, results
from tests.report.conftest import HOSTILE


def limits(known: About) -> str:
    return " ".join(known.limits)


def test_limits_follow_from_the_results(detector: Detector) -> None:
    known = about("models:/a@b", detector.card, results(), OPTIONS)
    said = limits(known)
    assert f"trained on real images and on images by {HOSTILE[0]} and seen, and by no other" in said
    assert "It was not shown to recognise images by weak." in said
    assert "It recognises images by unseen better than by chance, although" in said
    assert "any generator that is not named here" in said
    assert "called 10% [3%, 20%] of the real images of test synthetic, and 40% [30%, 50%]" in said
    assert "control from other real images with an AUC of 0.80 [0.70, 0.90]; 0.5 is wanted. It takes" in said  # fmt: skip  # noqa: E501
    verdicts = {row.generator: (row.trained_on, row.verdict) for row in known.measured}
    assert verdicts == {  # and none of val, on which the threshold was chosen
        HOSTILE[0]: (True, "better than chance"),
        "unseen": (False, "better than chance"),
        "weak": (False, "not shown to be better than chance"),
    }


def test_other_results_give_other_limits(detector: Detector) -> None:
    found = results()
    rows = found.generators[found.generators["generator"] == HOSTILE[0]]
    fine = found.metrics.assign(low=0.4)
    said = limits(about("a", detector.card, Results(fine, rows), OPTIONS))
    assert "never measured on a generator that it was not trained on" in said
    assert "not shown to recognise" not in said
    assert "It takes what" not in said
    worse = rows.assign(auc=0.2, auc_low=0.1, auc_high=0.3)
    known = about("a", detector.card, Results(found.metrics, worse), OPTIONS)
    assert [row.verdict for row in known.measured] == ["worse than chance"]
    unknown = rows.assign(auc_low=float("nan"), auc_high=float("nan"))
    known = about("a", detector.card, Results(found.metrics, unknown), OPTIONS)
    assert known.measured[0].low is None
    assert known.measured[0].verdict == "too few images to tell"


def test_a_detector_without_results_says_so(detector: Detector) -> None:
    empty = Results(*[pd.DataFrame(columns=t.columns) for t in vars(results()).values()])
    for found in (None, empty):
        known = about("a.safetensors", replace(detector.card, provenance={}), found, OPTIONS)
        assert "not recorded" in known.limits[0]
        assert "how often it is wrong is not known" in known.limits[1]
        assert known.measured == []


def test_results_that_are_no_numbers_are_left_out(detector: Detector) -> None:
    found = results()
    broken = found.generators.assign(auc=[float("nan"), float("inf"), 0.55, 0.99])
    known = about("a", detector.card, Results(found.metrics, broken), OPTIONS)
    assert [row.generator for row in known.measured] == ["weak"]
    json.dumps(asdict(known), allow_nan=False)  # as the server writes it


def test_nothing_of_the_machine_is_told(detector: Detector) -> None:
    assert "secret" not in str(asdict(about("a", detector.card, results(), OPTIONS)))
