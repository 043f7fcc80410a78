"""Tests of the page in a browser: evidence, hostile names, broken and huge images, keyboard."""

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from synthdetect.detectors.detector import Detector
from tests.e2e.test_train import CHROMIUM, FLAGS
from tests.faults.load import bomb
from tests.page.conftest import picture
from tests.report.conftest import HOSTILE

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
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page at a desktop's width; nothing may be asked from elsewhere, and no script breaks."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    noted: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((address, "blob:", "data:"))
            else noted.append(r.url))  # fmt: skip
    page.on("console", lambda m: None if "status of 400" in m.text else noted.append(m.text))
    page.on("dialog", lambda dialog: noted.append(dialog.message))
    page.on("pageerror", lambda error: noted.append(str(error)))
    page.goto(address)
    yield page
    assert noted == []
    page.close()


def file(name: str, content: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": content}


def choose(page: Page, *files: dict[str, Any]) -> None:
    page.locator("#files").set_input_files(list(files))


def test_one_picture_shows_its_verdict_and_its_evidence(page: Page, detector: Detector) -> None:
    content = picture()
    probability = float(detector.score(detector.preprocess(content)[None])[0])
    word = detector.card.decision.answer(probability).words.item()
    choose(page, file("a.png", content))
    expect(page.get_by_role("status")).to_have_text(f"Answer: {word}")
    text = f"probability of synthetic {probability:.2f}; threshold 0.60; band of doubt 0.55 to 0.65"
    expect(page.get_by_role("img", name=text)).to_be_visible()
    evidence = page.locator(".evidence img")
    expect(evidence).to_have_count(2)
    expect(page.locator(".views img")).to_have_count(5)
    expect(page.locator(".residuals img")).to_have_count(1)
    shown = "all => all.every(i => i.complete && i.naturalWidth > 0 && i.alt)"
    assert page.locator("figure img").evaluate_all(shown)
    expect(page.get_by_role("row", name=re.compile("JPEG, quality 30"))).to_be_visible()
    expect(page.locator(".traces")).to_contain_text("PNG, 80 x 70 pixels")
    preview = page.locator(".preview")
    expect(preview).to_be_visible()
    expect(page.locator("#limits li").first).to_contain_text("trained on real images")


def test_pictures_can_be_dropped_and_pasted(page: Page) -> None:
    transfer = page.evaluate_handle(
        """text => { const all = new DataTransfer();
        const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
        for (const name of ['one.png', 'two.png'])
          all.items.add(new File([bytes], name, {type: 'image/png'}));
        return all; }""",
        base64.b64encode(picture()).decode(),
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    assert page.locator("body.dragging").count() == 1
    page.dispatch_event("#results", "drop", {"dataTransfer": transfer})
    assert page.locator("body.dragging").count() == 0
    expect(page.get_by_role("status")).to_contain_text("2 pictures:")
    page.evaluate(
        """data => document.dispatchEvent(
        new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))""",
        transfer,
    )
    expect(page.get_by_role("status")).to_contain_text("4 pictures:")
    assert page.locator("details[open]").count() == 0  # those of several are asked for


def test_hostile_names_are_shown_and_inject_nothing(page: Page) -> None:
    choose(page, *[file(name.replace("/", "∕"), picture()) for name in HOSTILE])
    expect(page.get_by_role("status")).to_contain_text(f"{len(HOSTILE)} pictures:")
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("svg, iframe, object, [onerror], [onload]").count() == 0
    names = page.locator(".name").all_inner_texts()
    assert HOSTILE[0].replace("/", "∕") in names
    assert "\\u202egnp.exe\\u2066" in names
    expect(page.locator("#detector")).to_contain_text(HOSTILE[1])  # the name of the model
    expect(page.locator("#measured")).to_contain_text(HOSTILE[0])  # the name of a generator


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<script>window.hit=1</script>", "not an image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.hit=1'/>", "not an image"),
        (picture()[:900], "truncated"),
        (bomb(3000), "3000x3000 pixels are more than the limit of 4,000,000"),
        (bytes(2**20 + 1), "more than 1 MiB"),
    ],
)
def test_a_broken_or_huge_image_is_refused_and_spoils_no_other(
    page: Page, content: bytes, reason: str
) -> None:
    choose(page, file("good.png", picture()), file("bad.png", content), file("2.png", picture()))
    expect(page.get_by_role("status")).to_contain_text("1 refused")
    answers = page.locator(".answer")
    expect(answers.nth(1)).to_contain_text(reason)
    assert page.locator(".answer.refused").count() == 1
    assert page.locator("details:visible").count() == 2
    assert page.evaluate("window.hit") is None


def test_many_pictures_are_all_answered_and_can_be_removed(page: Page) -> None:
    choose(page, *[file(f"{number}.png", picture(seed=number)) for number in range(60)])
    expect(page.get_by_role("status")).to_contain_text("60 pictures:", timeout=60_000)
    assert page.locator(".answer.synthetic, .answer.real, .answer.unsure").count() == 60
    page.get_by_role("button", name="Remove 7.png", exact=True).click()
    expect(page.locator("#results > li")).to_have_count(59)
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#results > li")).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "files"


def test_it_works_by_keyboard(page: Page) -> None:
    choose(page, file("a.png", picture()), file("b.png", picture()))
    expect(page.get_by_role("status")).to_contain_text("2 pictures:")
    page.evaluate("document.body.focus()")
    active = "document.activeElement"
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(f"{active}.className || {active}.id || {active}.localName"))
        ring = f"({active}.closest('#drop') || {active})"
        assert page.evaluate(f"getComputedStyle({ring}).outlineStyle") == "solid", reached[-1]
    assert reached == ["skip", "files", "clear", "remove", "summary", "remove", "summary"]
    page.keyboard.press("Enter")
    expect(page.locator(".evidence img")).to_have_count(2)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # removes the second picture
    expect(page.locator("#results > li")).to_have_count(1)
    assert page.evaluate(f"{active}.getAttribute('aria-label')") == "Remove a.png"


def test_everything_has_an_accessible_name(page: Page) -> None:
    choose(page, file("a.png", picture()))
    expect(page.locator(".evidence img")).to_have_count(2)
    named = """all => all.filter(e => !(e.getAttribute('aria-label') || e.textContent.trim()
               || e.getAttribute('alt') || e.labels && e.labels.length)).map(e => e.outerHTML)"""
    controls = "button, summary, a, input, [role=img], [role=region], figure img"
    assert page.locator(controls).evaluate_all(named) == []
    expect(page.get_by_label("Choose pictures")).to_have_count(1)
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    choose(page, file("long" * 50 + ".png", picture()))
    expect(page.locator(".evidence img")).to_have_count(2)
    for path in ("", "docs"):
        if path:
            page.goto(f"{page.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        outside = """all => all.filter(e => !e.closest('.scroll, .skip, pre')
                     && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
        assert page.locator("body *").evaluate_all(outside) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_light_and_dark(page: Page, scheme: Any) -> None:
    """The contrast of WCAG 2.2, level AA: 4.5 to 1."""
    page.emulate_media(color_scheme=scheme)
    for word in ("real", "synthetic", "unsure"):
        page.evaluate(
            "word => document.getElementById('status').className = `answer ${word}`", word
        )
        assert contrast(page, "#status") >= 4.5, word
    for selector in ("#detector", "h1", "#drop span", "#drop strong", "aside a"):
        assert contrast(page, selector) >= 4.5, selector


def contrast(page: Page, selector: str) -> float:
    colours = page.locator(selector).evaluate(
        """e => { let back = e;
        while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
        return [getComputedStyle(e).color, getComputedStyle(back).backgroundColor]; }"""  # noqa: E501
    )
    lighter, darker = sorted(map(luminance, colours), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_policy_blocks_injected_content(browser: Browser, address: str) -> None:
    page = browser.new_page()
    noted: list[str] = []
    page.on("console", lambda message: noted.append(message.text))
    page.goto(address)
    page.evaluate(
        """() => document.body.insertAdjacentHTML('beforeend',
        '<img src="x.png" onerror="window.hit=1"><img src="http://elsewhere.invalid/x.png">')"""
    )
    expect(page.locator("#limits li").first).to_be_visible()
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert any("Content Security Policy" in text for text in noted)


def test_the_api_is_described_without_scripts(page: Page, address: str) -> None:
    page.goto(f"{address}/docs")
    assert page.evaluate("document.scripts.length") == 0
    for path in ("POST /invocations", "POST /inspect", "GET /model", "GET /ping"):
        expect(page.get_by_role("heading", name=path)).to_be_visible()
    expect(page.get_by_role("row", name="predictions[].probability number")).to_be_visible()
    meaning = page.get_by_role("row", name=re.compile("residuals array of object"))
    expect(meaning).to_contain_text("What the front-end made")
