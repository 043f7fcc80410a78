"""Tests of the page: valid, self-contained, accessible, and safe for any text."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from importlib.resources import files

import pandas as pd
import pytest
from PIL import Image

from synthdetect.report.page import Figure, Report, Section, Table, render
from tests.report.conftest import HOSTILE, png

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Checker(HTMLParser):
    """Collects elements and text, and asserts that tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def example(name: str = "a name") -> Report:
    """A report with this name in every place that takes text."""
    rows = pd.DataFrame([[name, "0.500 [0.400, 0.600]", name]], columns=["what", "AUC", name])
    inner = Section(
        name, (name,), (name,), (Table(name, rows, name),), (Figure(name, name, png()),)
    )
    outer = Section(name, sections=(inner, Section("empty")))
    return Report(name, name, {name: name}, (name,), (outer, Section("empty")))


@pytest.mark.parametrize("name", ["a name", *HOSTILE])
def test_any_text_leaves_the_page_well_formed(name: str) -> None:
    plain, page = Checker(render(example())), Checker(render(example(name)))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    # The class may depend on the length of the text.
    assert [set(a) - {"class"} for _, a in page.elements] == [
        set(a) - {"class"} for _, a in plain.elements
    ]
    assert "1337" not in page.text  # the product in a hostile template, which is not evaluated
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e\u2066\ud800-\udfff]", page.text)


def test_it_refers_to_no_other_resource() -> None:
    html = render(example("https://elsewhere.example/x.png url(https://elsewhere.example)"))
    page = Checker(html)
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "style"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/webp;base64,")), (name, value)
    assert page.all("script") == [{}]
    assert not page.all("link")
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_its_policy_allows_only_its_own_style_script_and_images() -> None:
    html = render(example())
    digests = {}
    for tag in ("style", "script"):
        text = html[html.index(f"<{tag}>") + len(tag) + 2 : html.index(f"</{tag}>")]
        digests[tag] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    (policy,) = [m["content"] for m in Checker(html).all("meta") if "http-equiv" in m]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests['style']}'; "
        f"script-src 'sha256-{digests['script']}'; base-uri 'none'; form-action 'none'"
    )


def test_it_is_accessible_by_keyboard_and_screen_reader() -> None:
    page = Checker(render(example()))
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("a")[0] == {"class": "skip", "href": "#content"}
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {(a["href"] or "")[1:] for a in page.all("a")} <= set(ids)
    assert {s["aria-labelledby"] for s in page.all("section")} <= set(ids)
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings == [1, 2, 3]
    (region,) = [a for _, a in page.elements if a.get("role") == "region"]
    assert (region["tabindex"], region["aria-label"]) == ("0", "Table: a name")
    assert len(page.all("caption")) == len(page.all("table"))
    assert [h["scope"] for h in page.all("th")] == ["col", "col", "col", "row"]
    assert all(image["alt"] and image["width"] for image in page.all("img"))


def test_empty_sections_are_left_out() -> None:
    assert "empty" not in Checker(render(example())).text


def test_cells_have_classes_for_numbers_and_long_text() -> None:
    rows = pd.DataFrame(
        [["a", "0.1 [0.0, 0.2]", "x" * 30], ["b", "undefined", ""]], columns=list("abc")
    )
    html = render(Report("r", sections=(Section("s", tables=(Table("t", rows),)),)))
    classes = [cell["class"] for tag in ("th", "td") for cell in Checker(html).all(tag)]
    assert classes == ["text", "number", "long", "text", "text", "number", "long", "number", "long"]


def test_a_figure_must_be_a_png() -> None:
    with pytest.raises(ValueError, match="no PNG"):
        Figure("c", "a", b"<svg onload=alert(1)>")


def test_a_photograph_is_shown_in_its_size() -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "PNG")
    figure = Figure("c", "a", file.getvalue())
    assert figure.size == (30, 20)
    html = render(Report("r", sections=(Section("s", figures=(figure,)),)))
    assert "data:image/webp;base64," in html
    assert 'width="30" height="20"' in html


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_contrast_suffices_on_light_and_dark_screens_and_paper() -> None:
    """WCAG 2.2 requires 4.5 to 1 for text (1.4.3) and 3 to 1 for graphical marks (1.4.11)."""
    css = files("synthdetect.report").joinpath("report.css").read_text()
    palettes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(palettes) == 3
    palettes[2] = {**palettes[0], **palettes[2]}
    for palette in palettes:
        for foreground, background, minimum in (
            ("ink", "paper", 4.5), ("soft", "paper", 4.5), ("link", "paper", 4.5),
            ("ink", "band", 4.5), ("ink", "warn-paper", 4.5), ("warn-line", "paper", 3),
        ):  # fmt: skip
            a, b = sorted((luminance(palette[foreground]), luminance(palette[background])))
            assert (b + 0.05) / (a + 0.05) >= minimum, (foreground, background)
