"""The page: complete, self-contained, safe against what is in it, and quiet about what is not."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from job.errors import ERRORS
from job.report import write_report
from job.report.advice import ADVICE, next_steps
from job.report.page import render_page
from tests.report import sample

VOID = {"meta", "img", "br", "hr", "link", "input"}
LOADS = {"src", "srcset", "href", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """Parses strictly: every element that is opened is closed, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page(result: dict[str, Any]) -> Page:
    return Page(render_page(result, []))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "report"
    write_report(folder, sample.done())
    return folder


def test_a_finished_run_leaves_page_plots_json_and_card(folder: Path) -> None:
    plots, texts = {"loss.png", "speed.png"}, {"result.json", "samples.json", "data.json"}
    names = {path.name for path in folder.iterdir()}
    assert names == {"index.html", "README.md", *plots, *texts}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in plots)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["training"]["history"] == sample.done()["training"]["history"]


def test_the_page_loads_nothing_from_anywhere_and_draws_its_plots(folder: Path) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    parsed = Page(html)
    loads = [value for _, attrs in parsed.tags for name, value in attrs.items() if name in LOADS]
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {f"#{name}" for name in ids} >= set(loads)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in parsed.tags}
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert not re.search(r"url\([^#]|@import", html)
    assert [tag for tag, _ in parsed.tags].count("svg") == 4


def test_the_page_forbids_every_request_by_policy(folder: Path) -> None:
    parsed = Page((folder / "index.html").read_text(encoding="utf-8"))
    policies = [a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_a_finished_run_is_understood_from_the_top() -> None:
    text = page(sample.done()).text
    for fact in (
        "Held-out loss fell by 29 %: 2.953 → 2.104",
        "gpt-oss-20b on 96 rows of Multilingual-Thinking, notes.jsonl",
        "3.396 → 1.777",
        "508,400",
        "38.4 GB",
        "NVIDIA H100 80GB HBM3",
        "15m41s",
        "64 % of them trained on",
        "Answers that reason in the language asked for: 0 of 1 before, 1 of 1 after.",
        "perplexity 19.2 → 8.2",
        "Best evaluation 2.098 held-out loss after step 40",
        "Next token right 44 % → 55 %",
        "540 tokens/s, 21m29s in all phases",
        "2 rows longer than max_seq_length",
        "row 17: 5,120 tokens",
        "the checkpoint is stored as MXFP4",
        "39.7 GB without the reserve, 3.3 % more",
        "2 of 2 (first 32 tokens)",
        "s3://models/tuned/run-3fa94c01b2d7/receipt.json",
        "hf://acme/gpt-oss-thinks-lora",
        "2.8.0+cu128",
        "adapter: 2 files, 31.9 MB",
    ):
        assert fact in text


def test_the_cost_is_told_with_the_price_it_comes_from() -> None:
    result = sample.done()
    assert "Cost" not in page(result).text
    result["spec"]["gpu_usd_per_hour"] = 2.0
    text = page(result | {"cost_usd": 12.345}).text
    assert "Cost $12.35 at $2.00 an hour, all starts" in text.replace("$12.35at", "$12.35 at")


def test_the_data_section_tells_the_mix_and_what_to_look_at() -> None:
    text = page(sample.done()).text
    for fact in (
        "Less than 75 % may cost the model its ability to reason",
        "Rows of an epoch 75 rows, 39,700 tokens, 64 % of them trained on",
        "60 steps of 16 rows: 12.8 epochs",
        "Reasoning 60 % of the rows, 75 % of the tokens",
        "Share of rows Asked",
        "messages 30 9,900 47 % 40 % 40 %",
        "Trained and held out none",
    ):
        assert fact in text
    plain = sample.done()
    plain["audit"]["warnings"] = []
    for source in plain["audit"]["sources"]:
        source["asked"] = None
    text = page(plain).text
    assert "Asked" not in text
    assert "messages 30 9,900 47 % 40 % Length" in text


def test_answers_stand_side_by_side_with_reasoning_apart_and_their_end() -> None:
    parsed = page(sample.done())
    for text in (
        "Before training",
        "After training",
        "Reasoning",
        "Answer",
        "cut at the token limit · 512 tokens",
        "ended by itself · 187 tokens",
    ):
        assert text in parsed.text


def test_what_the_model_wrote_is_text_and_not_part_of_the_page() -> None:
    result = sample.done()
    hostile = "</div><script>alert(1)</script><img src=http://x/y onerror=alert(1)>"
    result["samples"][0]["after"].update(final=hostile, analysis=hostile)
    result["samples"][0]["prompt"][0]["content"] = hostile
    result["run"] = result["spec"]["model"] = hostile
    result["plan"]["packing"]["reason"] = hostile
    result["audit"]["sources"][0]["source"] = hostile
    result["audit"]["warnings"] = [hostile]
    parsed = page(result)
    assert hostile in parsed.text
    assert not {"script", "img"} & {tag for tag, _ in parsed.tags}


def test_an_advice_with_markup_in_it_is_escaped() -> None:
    result = sample.failed()
    result["failure"]["advice"] = "run `<script>x</script>` first"
    html = render_page(result, [])
    assert "<code>&lt;script&gt;x&lt;/script&gt;</code>" in html


def test_text_of_any_direction_finds_its_own(folder: Path) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<div class="text" dir="auto">عاصمة', html)
    assert re.search(r'<div class="text" dir="auto">実数解', html)


def test_a_failed_run_tells_reason_code_phase_and_what_to_do_first() -> None:
    text = page(sample.failed()).text
    for fact in (
        "Failed in the phase “data”",
        "1 of 96 rows of /data/private/notes.jsonl cannot be read.",
        "notes.jsonl row 17, column messages: the last turn has no content",
        "What to do first",
        "python entrypoint.py check",
        "Phase data · after 1m14s · exit code 65 (data)",
        "starting it again unchanged will not help",
    ):
        assert fact in text


def test_a_run_that_failed_in_training_shows_what_it_had(tmp_path: Path) -> None:
    write_report(tmp_path, sample.out_of_memory())
    assert {path.name for path in tmp_path.iterdir()} == {
        "index.html",
        "loss.png",
        "speed.png",
        "result.json",
        "data.json",
    }
    text = Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    assert "Halve JOB_MAX_SEQ_LENGTH" in text
    assert "2.953 → 2.310 before → after step 20" in text
    assert "Optimizer steps 21 of 60 planned" in text
    assert "What to do next" not in text
    assert "receipt.json" not in text


def test_parts_that_are_missing_leave_no_empty_section() -> None:
    assert page(sample.failed()).headings == [
        "What happened",
        "Settings",
        "Time by phase",
        "Versions",
    ]


@pytest.mark.parametrize(
    "part", ["audit", "samples", "merge", "training", "plan", "device", "versions", "timings",
             "model", "datasets", "files"],
)  # fmt: skip
def test_a_result_without_a_part_still_has_a_page(part: str) -> None:
    without, empty = sample.done(), sample.done()
    del without[part]
    empty[part] = None
    assert page(without).headings == page(empty).headings


def test_a_run_without_held_out_rows_says_what_that_means() -> None:
    result = sample.done()
    result["training"].update(eval_loss_before=None, eval_loss_after=None)
    text = page(result).text
    assert "Training loss 3.396 → 1.777" in text
    assert "No rows were held out" in text


def test_what_to_do_next_follows_from_the_numbers() -> None:
    result = sample.done()
    steps = next_steps(result)
    assert "the card in `merged/`" in steps[0]
    assert steps[1:] == [
        "Held-out loss rose again after step 40: `JOB_MAX_STEPS=40` ends about there."
    ]
    result["spec"].update(save="lora", sample_tokens=128)
    result["training"]["evals"][-1]["loss"] = 1.9
    result["samples"][0]["after"]["stop"] = "length"
    steps = next_steps(result)
    assert "the card in `adapter/`" in steps[0]
    assert steps[1:] == [
        "Held-out loss was still falling at the end: `JOB_MAX_STEPS=120` may lower it further.",
        "Answers cut at the token limit: 1 of 2. `JOB_SAMPLE_TOKENS=256` shows more of them.",
    ]
    result["training"]["evals"] = []
    assert "JOB_EVAL_FRACTION=0.05" in next_steps(result)[1]
    assert next_steps(sample.failed()) == []


def test_a_held_out_loss_that_rose_is_not_called_a_success() -> None:
    result = sample.done()
    result["training"]["eval_loss_after"] = 3.2
    text = page(result).text
    assert "Held-out loss did not fall: 2.953 → 3.200" in text
    assert "fell by" not in text


def test_the_same_result_is_not_changed_by_reporting_it(tmp_path: Path) -> None:
    result = sample.done()
    before = copy.deepcopy(result)
    write_report(tmp_path, result)
    assert result == before


def test_a_resumed_run_says_from_where_it_went_on() -> None:
    assert "training went on after step 22" in page(sample.resumed()).text
    assert "Resumed" not in page(sample.done()).text


def test_every_error_has_an_advice() -> None:
    assert set(ADVICE) == {error.exit_code for error in ERRORS}
