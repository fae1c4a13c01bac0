"""The pictures of docs/report.md, taken of a run: `python docs/pictures/take.py NAME RUN STEP`.

NAME begins the files' names, RUN is the run's folder below the work dir. Its page is opened in
Chromium; its events, up to that of STEP, are shown to the panel again (0: no panel).
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from datetime import datetime
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console

from job.report.panel import Panel

HERE = Path(__file__).parent
SCREENS = {"desktop": (1280, 1600), "phone": (390, 1600)}  # pixels; what is below is cut off
WIDTHS = {"narrow": 60, "wide": 140}  # columns


def save(png: bytes, name: str) -> None:
    """With 128 colours, which letters and lines do not need more of."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(HERE / f"{name}.png", optimize=True)


def take_page(browser: Browser, name: str, page: Path) -> None:
    for screen, (width, height) in SCREENS.items():
        for scheme in ("light", "dark"):
            view = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            view.goto(page.resolve().as_uri())
            save(view.screenshot(), f"{name}-{screen}-{scheme}")
            view.close()


def take_panel(browser: Browser, name: str, events: list[dict[str, object]], step: int) -> None:
    for called, width in WIDTHS.items():
        quiet = Console(file=io.StringIO(), width=width)
        times: list[float] = []
        panel = Panel(io.StringIO(), clock=lambda times=times: times[-1], console=quiet)
        for event in events:
            times.append(datetime.fromisoformat(str(event["time"])).timestamp())
            panel.handle(event)
            if event["event"] == "step" and event["step"] == step:
                break
        screen = Console(file=io.StringIO(), width=width, record=True, force_terminal=True)
        screen.print(panel.frame())
        panel.close()
        svg = screen.export_svg(title="finetune-job")
        svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fetched from elsewhere
        view = browser.new_page()
        svg = svg.replace("Fira Code", "DejaVu Sans Mono")
        view.set_content(f"<div style='width: {8 * width}px'>{svg}</div>")
        save(view.locator("svg").screenshot(), f"{name}-{called}")
        view.close()


def main(name: str, run: Path, step: int) -> None:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path)
        take_page(browser, f"report-{name}", run / "report" / "index.html")
        if step:
            lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
            take_panel(browser, "terminal", [json.loads(line) for line in lines], step)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
