"""The page in a real browser: on a phone and on a desk, in light and in dark, and on paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from job.report import write_report
from tests.report import sample

RUNS = {
    "finished": sample.done,
    "resumed": sample.resumed,
    "out-of-memory": sample.out_of_memory,
    "stopped": sample.stopped,
    "failed": sample.failed,  # before there was anything to plot
}
SCREENS = {"phone": (390, 844), "desktop": (1280, 900)}
# Names of what is read off an axis: words, and a unit in brackets.
AXIS = re.compile(r"^[a-z][a-z, ]+ \(.+\)$")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, else Playwright's own (`make browser`); without one, a failure."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, result in RUNS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        write_report(folders[name], result())
    return folders


def open_page(browser: Browser, folder: Path, screen: str, scheme: Any) -> tuple[Page, list[str]]:
    """The page with everything unfolded, and every address that was asked for."""
    width, height = SCREENS[screen]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder / "index.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    return page, asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("run", RUNS)
def test_nothing_overflows_and_no_request_leaves_the_page(
    browser: Browser, folders: dict[str, Path], run: str, screen: str, scheme: str
) -> None:
    page, asked = open_page(browser, folders[run], screen, scheme)
    width = SCREENS[screen][0]
    beyond = page.evaluate(
        """width => [...document.querySelectorAll('main *')]
            .filter(e => !e.closest('defs, clipPath') && e.getClientRects().length)
            .map(e => [e, e.getBoundingClientRect()])
            .filter(([e, box]) => box.left < 0 || box.right > width)
            .map(([e, _]) => e.outerHTML.slice(0, 120))""",
        width,
    )
    assert beyond == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        """() => [...document.querySelectorAll('section, td, th, .tile, .answer')]
            .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
            .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert cut == []
    assert asked == [(folders[run] / "index.html").as_uri()]
    page.close()


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("run", RUNS)
def test_every_plot_that_is_seen_names_its_axes_with_units_in_letters_that_can_be_read(
    browser: Browser, folders: dict[str, Path], run: str, screen: str
) -> None:
    page, _ = open_page(browser, folders[run], screen, "light")
    plots = [svg for svg in page.locator("figure.plot svg").all() if svg.is_visible()]
    assert len(plots) == (0 if run == "failed" else 2)
    for svg in plots:
        below = svg.locator(".axis-x text").all_text_contents()
        above = svg.locator(".axis-y text").all_text_contents()
        assert below == ["optimizer step (count)"]
        assert len(above) == 2
        assert all(AXIS.match(name.strip()) for name in above)
        for text in svg.locator("text").all():
            box = text.bounding_box()
            assert box is not None
            assert box["height"] >= 9
    page.close()


@pytest.mark.parametrize("run", RUNS)
def test_text_and_ground_differ_enough_in_light_and_in_dark(
    browser: Browser, folders: dict[str, Path], run: str
) -> None:
    for scheme in ("light", "dark"):
        page, _ = open_page(browser, folders[run], "desktop", scheme)
        contrasts = page.evaluate(CONTRASTS)
        assert contrasts
        assert [found for found in contrasts if found[0] < 4.5] == []  # WCAG 2.2, level AA
        page.close()


def test_on_paper_it_is_dark_letters_on_white(
    browser: Browser, folders: dict[str, Path], tmp_path: Path
) -> None:
    page, _ = open_page(browser, folders["finished"], "desktop", "dark")
    assert page.pdf(path=tmp_path / "page.pdf", format="A4")[:4] == b"%PDF"
    page.emulate_media(media="print", color_scheme="dark")
    ground, ink = page.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color] }"
    )
    assert ground == "rgb(255, 255, 255)"
    assert ink == "rgb(28, 33, 39)"
    page.close()


# Of every text: its contrast to what lies behind it, as WCAG 2 defines it, and the text.
CONTRASTS = """() => {
  const channels = color => color.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const found = channels(getComputedStyle(e).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('main *')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => {
      const style = getComputedStyle(e);
      const ink = channels(e.closest('svg') ? style.fill : style.color);
      const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 60)];
    });
}"""
