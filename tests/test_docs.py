"""The pages say what the code does: tables, trees, commands, versions and links."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.cli import main
from job.data.read.recognise import NEEDS
from job.errors import ERRORS
from job.spec import JobSpec, read_spec
from job.spec.docs import fill, limits, table

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
README, ARCHITECTURE, TROUBLESHOOTING = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/architecture.md", "docs/troubleshooting.md")
)


def section(page: str, title: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level, _ = title.split(" ", 1)
    _, found, rest = page.partition(f"\n{title}\n")
    assert found, title
    return re.split(rf"\n#{{1,{len(level)}}} ", rest)[0]


def code(text: str) -> str:
    """The first fenced block."""
    found = re.search(r"```\w*\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def cells(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    found = re.search(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE)
    assert found
    return [[c.strip() for c in line.strip("|").split(" | ")] for line in found[0].splitlines()[2:]]


# -- the README -----------------------------------------------------------------------------------


def test_the_made_parts_of_the_readme_are_those_of_the_code():
    assert table() in README
    assert limits() in README
    assert fill(README) == README, "run `make docs`"


def test_the_exit_codes_are_those_of_the_code():
    listed = cells(section(README, "## Exit codes"))
    assert listed[0][:2] == ["0", "ok"]
    expected = [
        [
            str(error.exit_code),
            error.name,
            (error.__doc__ or "").strip(),
            "yes" if error.retryable else "no",
        ]
        for error in ERRORS
    ]
    assert listed[1:] == expected


def test_every_exit_code_has_a_section_on_what_to_do():
    titles = re.findall(r"^## (\d+) (\S+)$", TROUBLESHOOTING, re.MULTILINE)
    assert titles == [(str(error.exit_code), error.name) for error in ERRORS]


def test_the_data_formats_are_those_of_the_code():
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    needs = {}
    for name, columns, _ in cells(section(page, "## Formats")):
        needs[name.strip("`")] = set(re.findall(r"`(\w+)`", columns.partition(", and")[0]))
    assert needs == {name: set(columns) for name, columns in NEEDS.items()}


def test_the_reference_job_is_a_valid_spec_with_the_recipes_settings():
    command = shlex.split(code(section(README, "## A real run")), comments=True)
    given = [command[i + 1] for i, word in enumerate(command) if word == "-e"]
    spec = read_spec(dict(pair.split("=", 1) for pair in given if "=" in pair))
    assert spec.model.uri == "hf://unsloth/gpt-oss-20b"
    assert [str(source) for source in spec.dataset] == ["hf://HuggingFaceH4/Multilingual-Thinking"]
    assert (spec.lora_r, spec.lora_alpha, spec.max_seq_length) == (8, 16, 4096)
    assert (spec.batch_size, spec.max_steps, spec.learning_rate) == (16, 60, 2e-4)
    assert "x^5 + 3x^4 - 10 = 3" in spec.prompts[0][-1]["content"]


def test_the_yaml_example_is_a_valid_spec():
    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert text
    spec = read_spec({"JOB_SPEC": text[1]})
    assert spec.dataset[1].format == "messages"
    assert spec.prompts[0][-1]["content"] == "How do I get my money back?"


def test_the_bad_spec_is_answered_as_shown(capsys):
    shown = next(b for b in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if "MODLE" in b)
    commands = [line[2:] for line in shown.splitlines() if line.startswith("$ ")]
    pairs = [word for line in commands[:-1] for word in shlex.split(line)[1:]]
    assert commands[-1] == "python entrypoint.py check"
    assert main(["check"], dict(pair.split("=", 1) for pair in pairs)) == 78
    answer = [line for line in shown.splitlines() if not line.startswith("$ ")]
    assert capsys.readouterr().err.splitlines() == answer


def test_the_commands_are_those_of_the_code(capsys):
    assert main(["--help"], {}) == 0
    known = re.findall(r"^  (\w+) ", capsys.readouterr().out, re.MULTILINE)
    rows = cells(section(README, "## Commands"))
    assert [row[0].split()[2].strip("`") for row in rows] == known


# -- all pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_job_variable_that_is_named_exists(page):
    known = {f"JOB_{key.upper()}" for key in JobSpec.model_fields}
    known |= {"JOB_SPEC", "JOB_WEBHOOK_SECRET", "JOB_EVENTS_FD"}
    text = page.read_text(encoding="utf-8").replace("JOB_MODLE", "")  # the typing error shown
    assert set(re.findall(r"JOB_[A-Z0-9_]*[A-Z0-9]", text)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_and_path_that_is_named_exists(page):
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for path in re.findall(r"`((?:job|tests|docs|examples|bench|\.ci)/[\w./-]*)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "NOTICE", ROOT / "Dockerfile"], ids=lambda p: p.name
)
def test_the_versions_that_are_named_are_the_locked_ones(page):
    text = page.read_text(encoding="utf-8")
    locked = {
        package["name"]: package["version"]
        for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
        if package["name"] in ("torch", "triton", "unsloth", "unsloth-zoo", "torchao")
    }
    for name, version in re.findall(
        r"\b(torch|triton|unsloth|unsloth[_-]zoo|torchao)(?: |==)(\d[\d.]*\d)", text, re.IGNORECASE
    ):
        full = locked[name.lower().replace("_", "-")]
        assert f"{full}.".startswith(f"{version}."), f"{name} {version}, and {full} is locked"
    for version in re.findall(r"(?:CUDA |nvidia/cuda:)(\d+\.\d+)", text):
        assert version == "12.8"


def test_torch_is_the_build_for_the_cuda_version_that_is_named():
    assert "CUDA 12.8" in README
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    runtime = next(p for p in lock if p["name"] == "nvidia-cuda-runtime-cu12")
    assert runtime["version"].startswith("12.8.")


# -- the architecture -----------------------------------------------------------------------------


def tree() -> list[str]:
    """The paths in the picture of the rooms, folders with a slash at the end."""
    found, above = [], [""]
    for line in code(section(ARCHITECTURE, "## The rooms")).splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        above = above[: depth + 1]
        found.append("".join(above) + name)
        if name.endswith("/"):
            above.append(name)
    return found


def test_every_module_is_in_the_picture_and_nothing_else():
    drawn = tree()
    assert len(drawn) == len(set(drawn))
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "job").rglob("*.*")}
    there = {path for path in there if path.endswith((".py", ".j2", ".css"))} | {"entrypoint.py"}
    assert {path for path in drawn if not path.endswith("/")} == there
    assert all((ROOT / path).is_dir() for path in drawn if path.endswith("/"))


def imports() -> Iterator[tuple[str, str]]:
    """Pairs of rooms (modules or packages right under job/): who imports, and what."""
    for path in (ROOT / "job").rglob("*.py"):
        room = path.relative_to(ROOT / "job").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "job":
                names = (
                    [node.module] if node.module != "job" else [f"job.{a.name}" for a in node.names]
                )
                yield from ((room, str(name).split(".")[1]) for name in names)


def test_imports_point_down_the_layers():
    lines = code(section(ARCHITECTURE, "## Which way imports point")).splitlines()
    layer = {room: depth for depth, line in enumerate(lines) for room in re.findall(r"\w+", line)}
    one_room = {"store", "receipt"}
    pairs = {(a, b) for a, b in imports() if a != b and not {a, b} <= one_room}
    pairs = {(a, b) for a, b in pairs if b not in ("__version__", "__init__")}
    assert len(pairs) > 50
    assert {(a, b) for a, b in pairs if layer[a] >= layer[b]} == set()


def emitted() -> Iterator[tuple[str, set[str]]]:
    """Every event that is emitted with its kind written out, and the names of its fields."""
    for path in (ROOT / "job").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr == "emit" and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), {word.arg for word in node.keywords if word.arg}


def test_every_event_is_in_the_table_with_its_fields():
    listed = {row[0].strip("`"): row[1] for row in cells(section(ARCHITECTURE, "## Events"))}
    found = list(emitted())
    assert {kind for kind, _ in found} == set(listed)
    for kind, fields in found:
        assert fields <= set(re.findall(r"`(\w+)`", listed[kind])), kind


def test_the_schema_of_the_events_has_the_kinds_and_fields_of_the_table():
    schema = json.loads((ROOT / "docs" / "events.schema.json").read_text(encoding="utf-8"))
    kinds = [kind["properties"] for kind in schema["oneOf"]]
    found = {kind["event"]["const"]: set(kind) - {"time", "event"} for kind in kinds}
    listed = {}
    for row in cells(section(ARCHITECTURE, "## Events")):
        fields = re.sub(r"\([^)]*\)", "", row[1]).partition(": ")[0]
        listed[row[0].strip("`")] = set(re.findall(r"`(\w+)`", fields))
    assert found == listed
    assert all(kind["additionalProperties"] is False for kind in schema["oneOf"])
    assert all(
        {"type", "enum"} & set(kind[name]) for kind in kinds for name in set(kind) - {"event"}
    )
