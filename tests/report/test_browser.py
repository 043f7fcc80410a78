"""Tests of the page in a browser: screen, phone, paper, hostile names and keyboard."""

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from synthdetect.report.contents import build
from synthdetect.report.page import render
from tests.e2e.test_train import CHROMIUM, FLAGS
from tests.report.conftest import HOSTILE, OTHERS, Make, generators, overall, png

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="needs Debian's chromium (.ci/run installs it)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def report(make: Make, tmp_path: Path) -> str:
    """URI of a report with hostile names everywhere."""
    names = pd.DataFrame({"path": HOSTILE, "error": HOSTILE})
    slices = pd.DataFrame(
        [("category", name, 9, 0.5, 0.4, 0.6) for name in HOSTILE],
        columns=["slice", "value", "images", "auc", "auc_low", "auc_high"],
    )
    counts = pd.DataFrame(
        [(name, "synthetic", name, 9) for name in HOSTILE],
        columns=["split", "label", "generator", "images"],
    )
    named = HOSTILE[0].replace("/", "")
    made = make(
        {
            "evaluation/test.csv": overall(),
            "evaluation/test_generators.csv": generators(HOSTILE),
            "evaluation/test_slices.csv": slices,
            f"evaluation/{named}.csv": overall(),
            f"odd/{named}.csv": pd.DataFrame([HOSTILE], columns=HOSTILE),
            "data/excluded.csv": names,
            "data/counts.csv": counts,
            "audit/findings.csv": names,
            "figures/test/generators.png": png(700, 400),
            "figures/test/worst_mistakes.png": png(1150, 1100),
            f"figures/test/{named}.png": png(),
        },
        name=HOSTILE[0],
        status="FAILED",
        params={f"data.{i}": name for i, name in enumerate(HOSTILE)},
        tags={"synthdetect.error": HOSTILE[3], "synthdetect.kind": HOSTILE[1],
              "synthdetect.command": " ".join(HOSTILE)},
    )  # fmt: skip
    file = tmp_path / "report.html"
    file.write_text(render(build(made)), encoding="utf-8")
    return file.as_uri()


def opened(browser: Browser, address: str, width: int) -> tuple[Page, list[str]]:
    """Open the address; also return a list of requests, console messages, dialogs and errors."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    noted: list[str] = []
    page.on("request", lambda r: noted.append(r.url) if r.url.startswith("http") else None)
    page.on("console", lambda message: noted.append(message.text))
    page.on("dialog", lambda dialog: noted.append(dialog.message))
    page.on("pageerror", lambda error: noted.append(str(error)))
    page.goto(address)
    return page, noted


def test_hostile_names_are_shown_and_inject_nothing(browser: Browser, report: str) -> None:
    page, noted = opened(browser, report, 1280)
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.scripts.length") == 1  # report.js
    assert page.locator("svg, iframe, object, [onerror], [onload], [style]").count() == 0
    assert page.locator("a:not([href^='#'])").count() == 0
    for name in (*HOSTILE[:7], HOSTILE[8]):
        assert page.get_by_role("rowheader", name=name, exact=True).count() > 0, name
    assert page.get_by_role("rowheader", name="\\u202egnp.exe\\u2066").count() > 0
    assert page.locator("img").evaluate_all("all => all.every(i => i.naturalWidth > 0)")
    # The policy allows the page's own style.
    assert page.locator("h1").evaluate("h => getComputedStyle(h).marginTop") == "0px"
    assert noted == []


def test_the_policy_blocks_injected_content(browser: Browser, report: str) -> None:
    page, noted = opened(browser, report, 1280)
    page.evaluate(
        """() => { document.body.insertAdjacentHTML('beforeend',
        '<img src="x.png" onerror="window.hit=1"><p id="p" style="color: red">'
        + '<img src="http://elsewhere.invalid/x.png">'); }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator("#p").evaluate("p => getComputedStyle(p).color") != "rgb(255, 0, 0)"
    assert any("Content Security Policy" in text for text in noted)


def test_its_links_work_in_a_sandboxed_frame(browser: Browser, report: str, tmp_path: Path) -> None:
    """MLflow's UI shows the page as a blob in a frame that allows scripts and nothing else."""
    page, noted = opened(browser, report, 1280)
    (tmp_path / "frame.html").write_text("<iframe sandbox='allow-scripts' style='height:90vh'>")
    html = page.content()
    page.goto((tmp_path / "frame.html").as_uri())
    page.locator("iframe").evaluate(
        "(f, html) => { f.src = URL.createObjectURL(new Blob([html], {type: 'text/html'})) }", html
    )
    frame = page.frame_locator("iframe")
    heading = frame.get_by_role("heading", name=OTHERS, exact=True)
    expect(heading).not_to_be_in_viewport()
    frame.get_by_role("link", name=OTHERS).focus()
    page.keyboard.press("Enter")
    expect(heading).to_be_in_viewport()
    expect(heading).to_be_focused()
    assert noted == []


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, report: str, width: int) -> None:
    page, _ = opened(browser, report, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = """all => all.filter(e => !e.closest('.scroll') && !e.closest('.skip')
                 && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
    assert page.locator("body *").evaluate_all(outside) == []


def test_the_keyboard_reaches_and_scrolls_every_table(browser: Browser, report: str) -> None:
    page, _ = opened(browser, report, 375)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    tables = page.locator(".scroll").count()
    scrolled = 0
    for number in range(tables):
        page.keyboard.press("Tab")
        active = "document.activeElement"
        assert page.evaluate(f"{active} === document.querySelectorAll('.scroll')[{number}]")
        assert page.evaluate(f"getComputedStyle({active}).outlineStyle") == "solid"
        if page.evaluate(f"{active}.scrollWidth > {active}.clientWidth"):
            page.keyboard.press("ArrowRight")
            deadline = time.monotonic() + 10
            while page.evaluate(f"{active}.scrollLeft") == 0:
                assert time.monotonic() < deadline
            scrolled += 1
    assert scrolled > 2


def test_it_prints_in_black_on_white_whatever_the_screen(browser: Browser, report: str) -> None:
    page, _ = opened(browser, report, 1280)
    page.emulate_media(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(20, 23, 26)"
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    page.set_viewport_size({"width": 680, "height": 1000})  # A4 without its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    assert page.pdf(format="A4").startswith(b"%PDF")
