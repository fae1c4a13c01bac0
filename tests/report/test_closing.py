"""The last lines on the terminal."""

from __future__ import annotations

from job.report import fit, summary
from tests.report import sample

S3 = "s3://models/tuned/run-3fa94c01b2d7/receipt.json"
HUB = "hf://acme/gpt-oss-thinks/receipt.json"


def test_the_summary_tells_losses_one_answer_places_and_times() -> None:
    lines = summary(sample.done(), [S3]).splitlines()
    assert lines[1:] == [
        "Finished run-3fa94c01b2d7 after 21m29s",
        "  loss          3.396 -> 1.777  (60 steps)",
        "  held-out      2.953 -> 2.104",
        "  asked         x^5 + 3x^4 - 10 = 3 を解いてください。",
        "  before        [reasons] We need to solve x^5 + 3x^4 - 13 = 0. Let us try Newton's "
        "method from 1.4. f(1.4) = 5.378 + 11.525 - 13 = 3.903, so the root is smaller.",
        "  before        The equation x^5 + 3x^4 - 13 = 0 has one real root, about 1.38.",
        "  after         [reasons] まず方程式を x^5 + 3x^4 - 13 = 0 と書き直します。中間値の定理"
        "を使うと、1 と 2 の間に実数解が一つあります。ニュートン法で近似します。",
        "  after         実数解は x ≈ 1.2915 です。 検算: 1.2915⁵ ≈ 3.593。",
        "  adapter       s3://models/tuned/run-3fa94c01b2d7/adapter",
        "  merged model  s3://models/tuned/run-3fa94c01b2d7/merged",
        "  report        s3://models/tuned/run-3fa94c01b2d7/report",
        "  receipt       s3://models/tuned/run-3fa94c01b2d7/receipt.json",
        "  time          preflight 1.4s, fetch 1m13s, data 4.2s, train 15m41s, merge 1m28s, "
        "verify 1m02s, publish 2m00s",
    ]


def test_what_it_cost_is_the_last_line_where_the_price_is_known() -> None:
    assert "cost" not in summary(sample.done(), [S3])
    assert summary(sample.done() | {"cost_usd": 0.7163}, [S3]).endswith("cost          $0.7163\n")


def test_on_the_hub_the_merged_model_is_the_repository_and_the_adapter_beside_it() -> None:
    text = summary(sample.done(), [HUB])
    assert "merged model  hf://acme/gpt-oss-thinks\n" in text
    assert "adapter       hf://acme/gpt-oss-thinks-lora\n" in text


def test_each_destination_is_listed() -> None:
    assert summary(sample.done(), [S3, HUB]).count("receipt.json") == 2


def test_an_answer_that_was_cut_while_reasoning_is_said_to_be_none() -> None:
    result = sample.done()
    result["samples"][0]["after"]["final"] = ""
    assert "  after         (no answer)\n" in summary(result, [S3])


def test_a_failure_tells_where_why_and_what_to_do_first() -> None:
    text = summary(sample.failed(), [])
    assert "Failed in the phase 'data' after 1m14s, exit code 65: 1 of 96 rows" in text
    assert "  - notes.jsonl row 17" in text
    assert "  first         Look at the rows named above" in text
    assert "  report        /work/run-3fa94c01b2d7/report/index.html\n" in text
    assert "receipt" not in text


def test_a_run_that_was_stopped_is_not_called_failed() -> None:
    result = sample.failed()
    result["failure"].update(exit_code=75, phase="train", message="Stopped by a signal.")
    assert "Stopped in the phase 'train'" in summary(result, [])
    assert "Failed" not in summary(result, [])


def test_on_a_narrow_terminal_words_and_places_stay_whole() -> None:
    text = fit(summary(sample.done(), [S3]), 60)
    assert "\n                s3://models/tuned/run-3fa94c01b2d7/receipt.json\n" in text
    assert (
        "  time          preflight 1.4s, fetch 1m13s, data 4.2s,\n"
        "                train 15m41s, merge 1m28s, verify 1m02s,\n"
        "                publish 2m00s\n"
    ) in text
    assert fit("", 60) == ""
