"""Pictures of the MLflow UI and of our server's page, from real runs in a real browser.

    python docs/screenshots.py STORE RUN_ID
    python docs/screenshots.py STORE --study NAME
    python docs/screenshots.py --page ADDRESS PICTURE

Needs `pip install playwright` and Debian's Chromium.
"""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, TimeoutError, sync_playwright

IMAGES = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def main(store: str, run: str, study: str = "") -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port)]
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            IMAGES.mkdir(exist_ok=True)
            if study:
                _shoot_study(page, address, study)
                return
            _shoot(page, f"{address}/#/experiments/0/runs/{run}", "run.png")
            page.goto(f"{address}/#/experiments/0/runs/{run}/artifacts")
            for name in ("figures", "test", "worst_mistakes.png"):
                page.get_by_text(name, exact=True).first.click()
                time.sleep(2)
            # The picture alone: above it stands the path of whoever took it.
            page.locator("img[src^='blob:'], img[src*='get-artifact']").first.screenshot(
                path=IMAGES / "figures.png"
            )
    finally:
        server.terminate()
        server.wait()


def _shoot_study(page: Page, address: str, study: str) -> None:
    """The final trainings of a study, compared in the UI's charts."""
    kinds = f"tags.`synthdetect.study` = '{study}' and tags.`synthdetect.kind` = 'final'"
    query = f"searchFilter={quote(kinds)}&compareRunsMode=CHART"
    _shoot(page, f"{address}/#/experiments/0/runs?{query}", "study.png")
    parent = page.locator("[role=row] a[href*='/runs/']").first.bounding_box()
    assert parent
    page.mouse.click(parent["x"] - 31, parent["y"] + parent["height"] / 2)  # the box with a plus
    page.get_by_placeholder("Search metric charts").fill("val/auc|val/loss|train/auc")
    time.sleep(8)
    page.screenshot(path=IMAGES / "study.png")


def shoot_page(address: str, picture: str) -> None:
    """The page of a running `synthdetect serve`, with the details of one picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1150})
        page.goto(address)
        page.locator("#files").set_input_files(picture)
        page.locator(".evidence img").nth(1).wait_for()
        page.screenshot(path=IMAGES / "page.png")


def _shoot(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.reload()  # a changed fragment alone loads nothing
    panel = page.get_by_role("button", name="Close")
    with contextlib.suppress(TimeoutError):
        panel.first.click(timeout=5000)  # the assistant's panel, open at the first visit
    time.sleep(8)  # the UI keeps polling, so the network is never idle
    page.screenshot(path=IMAGES / name)


def _wait(address: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("mlflow ui did not start")


if __name__ == "__main__":
    if sys.argv[1] == "--page":
        shoot_page(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
