"""The Hub breaks: one commit for each part of a run, the right end, the rest by the next start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job.credentials import read_credentials
from job.receipt import verify_uri
from tests.drills.conftest import Drill
from tests.hub_double import HubDouble
from tests.jobs import Ended, wait

TOKEN, FRESH = "hf_drillDrillDRILL0123456789", "hf_freshFreshFRESH0123456789"
REPO = "org/tuned"
COMMITS = ["adapter of run-a", "report of run-a", "receipt of run-a"]
COMMIT, WEIGHTS = "/commit/main", "/lfs-store/"


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with HubDouble() as hub:
        hub.add_account(TOKEN, orgs=("org",))
        yield hub


@pytest.fixture
def run(drill: Callable[..., Drill], hub: HubDouble) -> Drill:
    environ = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    environ["DRILL_PATIENCE"] = "60"
    changes = {"JOB_MAX_STEPS": "2", "JOB_CHECKPOINT_MINUTES": "60", "JOB_SAVE": "lora"}
    return drill(environ, JOB_OUTPUT=f"hf://{REPO}", **changes)


def is_done(run: Drill, hub: HubDouble, ended: Ended) -> None:
    """Exit 0, all files as the receipt says, and each commit once."""
    assert ended.code == 0, ended.text
    _, problems = verify_uri(ended.line["receipt"], read_credentials(run.environ))
    assert problems == []
    assert [c.title for c in hub.commits(REPO)[1:] if "failed" not in c.title] == COMMITS


@pytest.mark.parametrize(
    ("what", "method", "where", "times"),
    [
        (503, "POST", COMMIT, 2),
        (429, "POST", COMMIT, 2),
        ("lose", "POST", COMMIT, 1),
        (500, "PUT", WEIGHTS, 7),  # more than the client's own five attempts
        (503, "POST", "/preupload/", 2),
        (500, "POST", "/paths-info/", 2),
    ],
)
def test_what_breaks_for_a_while_is_done_once(
    run: Drill, hub: HubDouble, what: int | str, method: str, where: str, times: int
):
    process = run.start()
    run.until_said("phase", phase="verify")
    if what == "lose":
        hub.lose_reply(method, where)
    else:
        hub.fail(method, where, int(what), times)
    is_done(run, hub, wait(process))


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [(403, 77, "write access"), (500, 74, "the Hub did not take it (HTTP 500)")],
)
def test_what_does_not_heal_ends_and_the_next_start_only_uploads(
    run: Drill, hub: HubDouble, status: int, code: int, text: str
):
    run.environ["DRILL_PATIENCE"] = "2"
    process = run.start()
    run.until_said("phase", phase="verify")
    hub.fail("POST", COMMIT, status, 10**6)
    ended = wait(process)
    assert ended.code == code, ended.text
    assert text in ended.line["message"]
    assert "receipt.json" not in hub.files(REPO)
    retries = [event for event in run.said("retry") if event["what"] == f"hf://{REPO}"]
    assert bool(retries) == (status == 500)
    hub.heal()
    is_done(run, hub, run.run())
    assert len(run.said("step")) == 2  # of the first start


@pytest.mark.parametrize("done", [False, True], ids=["never made", "made"])
def test_a_commit_that_is_never_answered_is_given_up_and_made_once(
    run: Drill, hub: HubDouble, done: bool
):
    process = run.start(DRILL_HUB_TIMEOUT="3")
    run.until_said("phase", phase="verify")
    hub.hang("POST", COMMIT, done=done)
    is_done(run, hub, wait(process))
    assert "ReadTimeout" in [retry["why"] for retry in run.said("retry")]


def test_a_hub_that_answers_no_commit_ends_with_74_and_the_next_start_only_uploads(
    run: Drill, hub: HubDouble
):
    process = run.start(DRILL_HUB_TIMEOUT="3", DRILL_PATIENCE="2")
    run.until_said("phase", phase="verify")
    hub.hang("POST", COMMIT, 10**6)
    ended = wait(process)
    assert ended.code == 74, ended.text
    assert "the Hub did not take it (ReadTimeout)" in ended.line["message"]
    hub.heal()
    is_done(run, hub, run.run())
    assert len(run.said("step")) == 2  # of the first start


def test_a_token_in_a_file_that_expires_is_read_again(run: Drill, hub: HubDouble, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    del run.environ["HF_TOKEN"]
    run.environ["HF_TOKEN_FILE"] = str(token)
    process = run.start()
    run.until_said("phase", phase="verify")
    hub.add_account(FRESH, orgs=("org",))
    token.write_text(FRESH)
    del hub.accounts[TOKEN]
    ended = wait(process)
    is_done(run, hub, ended)
    for text in (ended.text, (run.run_folder / "events.jsonl").read_text()):
        assert TOKEN not in text
        assert FRESH not in text
