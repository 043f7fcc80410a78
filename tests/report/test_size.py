"""A report gives the answer first, shows it at once, and is small however many pictures it has."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

import synthdetect
from synthdetect.report import pictures as small
from synthdetect.report.contents import build
from synthdetect.report.page import render
from synthdetect.report.pictures import encoded
from synthdetect.tracking.records import RunRecord
from tests.e2e.test_train import CHROMIUM, FLAGS
from tests.report.conftest import generators, overall, png

LIMIT = 2_000_000  # bytes of a page


def photographs(seed: int) -> bytes:
    """A figure of crops of photographs of the sample, as PNG."""
    files = sorted((Path(synthdetect.__file__).parent / "sample" / "train").rglob("*.*"))
    rng = np.random.default_rng(seed)
    canvas = Image.new("RGB", (1440, 720), "white")
    for x in range(0, 1440, 240):
        for y in range(0, 720, 240):
            with Image.open(files[rng.integers(len(files))]) as image:
                canvas.paste(image.convert("RGB").resize((236, 236)), (x, y))
    file = io.BytesIO()
    canvas.save(file, "PNG", compress_level=1)
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """As many figures of photographs as an evaluation with everything has."""
    return {
        f"figures/{split}/{name}.png": photographs(seed)
        for split in ("test", "val", "control")
        for seed, name in enumerate(("worst_mistakes", "explain_mistakes", "explain_hits"))
    }


@pytest.fixture(scope="module")
def page(pictures: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    files = {
        "evaluation/test.csv": overall().to_csv(index=False).encode(),
        "evaluation/test_generators.csv": generators(("new", "old")).to_csv(index=False).encode(),
        "predictions/test.csv": b"path,source_id\na,s\nb,t\n",
        "model/card.json": json.dumps({"provenance": {"training_generators": ["old"]}}).encode(),
        **pictures,
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    record = RunRecord(
        "0123abcd", "a run", "FINISHED", {}, {}, {"synthdetect.kind": "evaluate"},
        "2026-01-02 03:04 UTC", 61.0, {path: len(file) for path, file in files.items()}, folder,
    )  # fmt: skip
    file = folder / "report.html"
    file.write_text(render(build(record)), encoding="utf-8")
    return file


def test_a_report_is_at_most_2_mb_and_shows_every_picture(
    page: Path, pictures: dict[str, bytes]
) -> None:
    assert sum(map(len, pictures.values())) > 10_000_000
    html = page.read_text()
    assert len(html.encode()) < LIMIT
    assert html.count("<img ") == len(pictures)
    assert html.count("data:image/webp;base64,") == len(pictures)


def test_the_answer_comes_before_the_facts_and_the_facts_before_the_rest(page: Path) -> None:
    html = page.read_text()
    first = html.index("It tells synthetic images from real ones on 2 test images")
    places = [first, html.index("Run id"), html.index("At a glance"), html.index("<img ")]
    assert places == sorted(places)
    assert "new 0.500 (not trained on)" in html[: places[1]]


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium (.ci/run installs it)")
def test_its_answer_is_in_the_first_view_and_its_pictures_are_whole(page: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shown = browser.new_page(viewport={"width": 1280, "height": 800})
        shown.goto(page.as_uri())
        assert shown.locator(".answer p").first.is_visible()
        box = shown.locator(".answer").bounding_box()
        assert box
        assert box["y"] + box["height"] < 800
        images = shown.locator("img")
        sizes = "all => all.map(i => [i.naturalWidth > 0, i.complete])"
        assert all(map(all, images.evaluate_all(sizes)))
        browser.close()


def test_a_figure_of_lines_keeps_every_pixel() -> None:
    drawn = Image.new("RGB", (400, 300), "white")
    drawn.paste((200, 30, 30), (50, 50, 250, 52))
    file = io.BytesIO()
    drawn.save(file, "PNG")
    ((kind, content),) = encoded([file.getvalue()])
    assert kind == "image/webp"
    with Image.open(io.BytesIO(content)) as again:
        assert again.convert("RGB").tobytes() == drawn.tobytes()


def test_a_damaged_picture_stays_as_it_is_and_many_still_fit(
    pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = png()[:40] + b"\0" * 20
    assert encoded([damaged]) == [("image/png", damaged)]
    file = io.BytesIO()
    Image.new("RGB", (17_000, 20)).save(file, "PNG")  # longer than WebP can be
    assert encoded([file.getvalue()]) == [("image/png", file.getvalue())]
    few = [*pictures.values()][:2]
    whole = sum(len(content) for _, content in encoded(few))
    monkeypatch.setattr(small, "BUDGET", whole // 2)
    assert 0 < sum(len(content) for _, content in encoded(few)) <= whole // 2
