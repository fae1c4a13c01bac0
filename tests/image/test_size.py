"""The table of layers in docs/image.md is that of the built image, and the image stays small."""

from __future__ import annotations

import re

import pytest

from tests.image.conftest import ROOT
from tests.image.engine import Engine

pytestmark = pytest.mark.image

PAGE = (ROOT / "docs" / "image.md").read_text(encoding="utf-8")
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
# What makes a layer, and how the page names it.
LAYERS = {
    "apt-get": "gcc, Python, headers, tini",
    "uv sync": "packages of `uv.lock`, bytecode",
    "uv export": "bill of materials, licences",
    "COPY job/": "the code",
}


def table() -> dict[str, float]:
    """The page's layers in MB."""
    found = re.search(r"<!-- layers: .*?-->\n(.*?)<!-- end of layers -->", PAGE, re.DOTALL)
    assert found
    rows = [line.strip("| ").split(" | ") for line in found[1].splitlines()[2:]]
    return {row[0].strip("* "): float(row[1].strip("* ").replace(",", "")) for row in rows}


def layers(engine: Engine) -> list[tuple[str, float]]:
    """The image's layers: the command that made each, and MB."""
    form = "{{.Size}}\t{{.CreatedBy}}"
    text = engine.call("history", "--no-trunc", "--format", form, engine.image)
    found = []
    for line in text.splitlines():
        size, command = line.split("\t", 1)
        number, unit = re.fullmatch(r"([\d.]+)(\w+)", size).groups()  # type: ignore[union-attr]
        found.append((command, float(number) * UNITS[unit] / 1e6))
    return found


@pytest.mark.parametrize(("command", "name"), LAYERS.items())
def test_a_layer_is_as_large_as_the_page_says(engine: Engine, command: str, name: str) -> None:
    (size,) = [size for made_by, size in layers(engine) if command in made_by]
    assert size == pytest.approx(table()[name], rel=0.05, abs=0.2)


def test_the_whole_is_the_sum_and_no_larger_than_promised(engine: Engine) -> None:
    whole = table().pop("the image")
    assert sum(size for name, size in table().items() if name != "the image") == pytest.approx(
        whole, rel=0.01
    )
    size = int(engine.call("image", "inspect", "--format", "{{.Size}}", engine.image)) / 1e6
    assert size == pytest.approx(whole, rel=0.02)
    assert size <= 7100


def test_a_change_of_the_code_sends_little(engine: Engine) -> None:
    names = [command for command, _ in layers(engine)]  # the newest first
    code = next(i for i, command in enumerate(names) if "COPY job/" in command)
    assert sum(size for _, size in layers(engine)[: code + 1]) < 2
