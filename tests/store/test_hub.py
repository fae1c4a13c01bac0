"""The Hub, with the real client against the strict double."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import hf_xet
import httpx
import pytest
from huggingface_hub import HfApi

from job.credentials import Credentials
from job.errors import AccessRefused, DestinationTaken, InternalError, UploadFailed
from job.hashing import FileRecord, hash_folder
from job.receipt import build_receipt
from job.store import misfits, retry
from job.store.hub import HubDestination
from job.store.hub_client import is_transient, translated
from tests.hub_double import HubDouble
from tests.store.conftest import OTHERS, OURS, claim, no_progress, receipt_of

TOKEN = "hf_writes"
BOTH = ("lora", "merged_16bit")


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with HubDouble() as hub:
        hub.add_account(TOKEN, "me", orgs=("org",))
        yield hub


def destination_on(
    hub: HubDouble,
    saves: tuple[str, ...] = ("lora",),
    *,
    repo: str = "org/tuned",
    token: str | None = TOKEN,
    budget: float = 20,
) -> HubDestination:
    credentials = Credentials(hf_token=token, hf_endpoint=hub.url)
    return HubDestination(repo, "run-a", saves, credentials, private=True, budget=budget)


def posts(hub: HubDouble, ending: str) -> int:
    return sum(method == "POST" and path.endswith(ending) for method, path in hub.requests)


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"\0merged weights")
    (folder / "README.md").write_text("# a card")
    return folder


@pytest.fixture
def report(tmp_path: Path) -> Path:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "index.html").write_text("<p>a report</p>")
    return folder


def test_adapter_and_merged_get_a_repository_each_and_the_receipt_is_last(
    hub: HubDouble, adapter: Path, merged: Path, report: Path
):
    destination = destination_on(hub, BOTH)
    destination.check()
    destination.acquire(claim("me"))
    parts = {"adapter": adapter, "merged": merged, "report": report}
    files: list[FileRecord] = []
    for part, folder in parts.items():
        destination.publish(part, folder, hash_folder(folder), no_progress)  # type: ignore[arg-type]
        files += hash_folder(folder, f"{part}/")
    receipt = build_receipt(run="run-a", spec_hash=OURS, spec={}, files=files, facts={})
    destination.publish_receipt(receipt)
    destination.release()

    assert sorted(hub.files("org/tuned")) == [
        ".gitattributes",
        "README.md",
        "model.safetensors",
        "receipt.json",
        "report/index.html",
    ]
    assert "adapter_model.safetensors" in hub.files("org/tuned-lora")
    titles = [commit.title for commit in hub.commits("org/tuned")]
    assert titles[1:] == ["merged of run-a", "report of run-a", "receipt of run-a"]
    assert len(hub.commits("org/tuned-lora")) == 2
    stored = destination_on(hub, ()).read_receipt()
    assert stored is not None
    where = {
        file["path"]: (file["repo"], file["repo_path"], file["commit"]) for file in stored["files"]
    }
    assert where["adapter/adapter_config.json"] == (
        "org/tuned-lora",
        "adapter_config.json",
        hub.commits("org/tuned-lora")[1].oid,
    )
    assert where["report/index.html"][:2] == ("org/tuned", "report/index.html")
    assert destination_on(hub, ()).verify(stored) == []
    assert destination.verify(receipt) == []
    assert HfApi(endpoint=hub.url, token=TOKEN).model_info("org/tuned").private


def publish(hub: HubDouble, adapter: Path) -> HubDestination:
    destination = destination_on(hub)
    destination.acquire(claim("me"))
    destination.publish("adapter", adapter, hash_folder(adapter), no_progress)
    destination.publish_receipt(receipt_of(adapter))
    return destination


def test_only_the_adapter_goes_to_the_root_of_the_named_repository(hub: HubDouble, adapter: Path):
    publish(hub, adapter)
    assert "adapter_config.json" in hub.files("org/tuned")
    assert ("models", "org/tuned-lora") not in hub.repos


def test_sizes_are_of_the_commits_in_the_receipt_and_a_lost_repository_cannot_be_put_back(
    hub: HubDouble, adapter: Path, merged: Path
):
    destination = destination_on(hub, ("lora", "merged_16bit"))
    destination.acquire(claim("me"))
    for part, folder in (("adapter", adapter), ("merged", merged)):
        destination.publish(part, folder, hash_folder(folder), no_progress)
    files = [*hash_folder(adapter, "adapter/"), *hash_folder(merged, "merged/")]
    destination.publish_receipt(
        build_receipt(run="run-a", spec_hash=OURS, spec={}, files=files, facts={})
    )
    receipt = destination.read_receipt()
    assert receipt is not None
    hub.requests.clear()
    assert destination.sizes(receipt) == {file.path: file.size for file in files}
    assert len(hub.requests) == 2  # one for each repository
    hub.repos.pop(("models", "org/tuned-lora"))
    wrong = misfits(destination, receipt)
    assert wrong == hash_folder(adapter, "adapter/")
    with pytest.raises(DestinationTaken, match=r"Remove receipt\.json"):
        destination.restore(wrong[0], adapter, no_progress)


def test_verify_names_a_flipped_bit(hub: HubDouble, adapter: Path):
    destination = publish(hub, adapter)
    receipt = destination.read_receipt()
    assert receipt is not None
    hub.corrupt("org/tuned", "adapter_model.safetensors")
    hub.corrupt("org/tuned", "adapter_config.json")
    assert destination.verify(receipt) == [
        "adapter/adapter_config.json: not the bytes that the receipt lists",
        "adapter/adapter_model.safetensors: not the bytes that the receipt lists",
    ]


def test_verify_stays_in_the_runs_own_repositories(hub: HubDouble, adapter: Path):
    destination = publish(hub, adapter)
    receipt = destination.read_receipt()
    assert receipt is not None
    receipt["files"] = [{**receipt["files"][0], "repo": "somebody/else"}]
    assert destination.verify(receipt) == [
        "adapter/adapter_config.json: in a repository of another run"
    ]
    receipt["files"] = [{**receipt["files"][0], "repo": "org/tuned", "commit": "0" * 40}]
    assert destination.verify(receipt) == ["adapter/adapter_config.json: missing"]


def test_a_second_receipt_is_refused_and_the_first_stays(hub: HubDouble, adapter: Path):
    destination = publish(hub, adapter)
    with pytest.raises(DestinationTaken, match="has a receipt already"):
        destination.publish_receipt(receipt_of(adapter))
    assert len(hub.commits("org/tuned")) == 3


def test_a_commit_whose_reply_is_lost_is_not_made_twice(hub: HubDouble, adapter: Path):
    destination = destination_on(hub)
    destination.acquire(claim("me"))
    hub.lose_reply("POST", "/commit/main")
    destination.publish("adapter", adapter, hash_folder(adapter), no_progress)
    hub.lose_reply("POST", "/commit/main")
    destination.publish_receipt(receipt_of(adapter))
    assert [commit.title for commit in hub.commits("org/tuned")] == [
        "initial commit",
        "adapter of run-a",
        "receipt of run-a",
    ]
    assert posts(hub, "/commit/main") == 2


def test_a_commit_that_the_hub_refused_for_a_moment_is_made(hub: HubDouble, adapter: Path):
    destination = destination_on(hub)
    destination.acquire(claim("me"))
    hub.fail("POST", "/commit/main", 503, times=2)
    destination.publish("adapter", adapter, hash_folder(adapter), no_progress)
    assert len(hub.commits("org/tuned")) == 2
    assert posts(hub, "/commit/main") == 3


def test_an_outage_longer_than_the_budget_is_an_upload_that_failed(
    hub: HubDouble, adapter: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retry, "UPLOAD_SECONDS", 1.0)
    destination = destination_on(hub)
    destination.acquire(claim("me"))
    hub.fail("POST", "/commit/main", 500, times=1000)
    with pytest.raises(UploadFailed, match="HTTP 500"):
        destination.publish("adapter", adapter, hash_folder(adapter), no_progress)
    assert len(hub.commits("org/tuned")) == 1


def test_a_run_that_somebody_else_committed_into_publishes_nothing_more(
    hub: HubDouble, adapter: Path
):
    first, second = destination_on(hub), destination_on(hub)
    first.acquire(claim("first"))
    second.acquire(claim("second"))
    first.publish("adapter", adapter, hash_folder(adapter), no_progress)
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(DestinationTaken, match="somebody else"):
        second.publish("adapter", adapter, hash_folder(adapter), no_progress)
    second.publish_failure({"exit_code": 73})
    assert len(hub.commits("org/tuned")) == 2


def test_a_restart_after_a_commit_makes_no_second_one(hub: HubDouble, adapter: Path):
    killed = destination_on(hub)
    killed.acquire(claim("me"))
    killed.publish("adapter", adapter, hash_folder(adapter), no_progress)
    publish(hub, adapter)
    assert len(hub.commits("org/tuned")) == 3


def test_a_read_only_token_is_refused_before_training(hub: HubDouble):
    hub.add_account("hf_reads", "me", role="read", orgs=("org",))
    with pytest.raises(AccessRefused, match="read-only"):
        destination_on(hub, token="hf_reads").check()
    assert hub.repos == {}


def test_a_token_without_rights_on_an_existing_repository_is_refused(hub: HubDouble):
    hub.add_repo("models", "their/model")
    with pytest.raises(AccessRefused, match="write access"):
        destination_on(hub, repo="their/model").check()


def test_a_namespace_of_others_is_refused(hub: HubDouble):
    with pytest.raises(AccessRefused, match="write access"):
        destination_on(hub, repo="their/new").check()


@pytest.mark.parametrize(("token", "word"), [(None, "set HF_TOKEN"), ("hf_unknown", "accept")])
def test_a_missing_or_unknown_token_is_refused(hub: HubDouble, token: str | None, word: str):
    with pytest.raises(AccessRefused, match=word) as refused:
        destination_on(hub, token=token).check()
    assert "hf_unknown" not in str(refused.value)


def test_check_makes_private_repositories_and_commits_nothing(hub: HubDouble):
    destination = destination_on(hub, BOTH)
    destination.check()
    destination.check()
    for repo in ("org/tuned", "org/tuned-lora"):
        assert hub.repos["models", repo].private
        assert len(hub.commits(repo)) == 1


def test_a_receipt_or_commit_of_another_spec_is_refused_naming_both(hub: HubDouble, adapter: Path):
    unfinished = destination_on(hub)
    unfinished.acquire(claim("me"))
    unfinished.publish("adapter", adapter, hash_folder(adapter), no_progress)
    for state in ("unfinished", "finished"):
        if state == "finished":
            unfinished.publish_receipt(receipt_of(adapter))
        with pytest.raises(DestinationTaken) as refused:
            destination_on(hub).acquire(claim("other", OTHERS))
        assert OURS in refused.value.message
        assert OTHERS in refused.value.message


def test_weights_that_somebody_else_put_there_are_not_overwritten(hub: HubDouble):
    hub.add_repo("models", "org/tuned", {"model.safetensors": b"precious"}, token=TOKEN)
    with pytest.raises(DestinationTaken, match="not put there by this program"):
        destination_on(hub).acquire(claim("me"))


def test_a_failure_is_one_commit_and_lets_another_spec_follow(hub: HubDouble, adapter: Path):
    failing = destination_on(hub)
    assert not failing.publish_failure({"exit_code": 66})
    assert hub.repos == {}
    failing.acquire(claim("me", OTHERS))
    assert failing.publish_failure({"exit_code": 65})
    failing.publish_page(b"<html>why")
    failing.release()
    assert json.loads(hub.files("org/tuned")["failure.json"]) == {"exit_code": 65}
    assert "report/index.html" not in hub.files("org/tuned")
    publish(hub, adapter)
    assert "failure.json" not in hub.files("org/tuned")


def test_a_failure_does_not_touch_a_finished_run(hub: HubDouble, adapter: Path):
    destination = publish(hub, adapter)
    destination.publish_failure({"exit_code": 70})
    assert "failure.json" not in hub.files("org/tuned")


def test_a_path_that_leaves_the_run_is_refused(hub: HubDouble, tmp_path: Path):
    destination = destination_on(hub)
    destination.acquire(claim("me"))
    record = FileRecord("../escape", 1, OURS)
    with pytest.raises(InternalError, match="not a path inside"):
        destination.publish("adapter", tmp_path, [record], no_progress)


def test_publishing_without_acquiring_is_refused(hub: HubDouble, adapter: Path):
    with pytest.raises(DestinationTaken, match="not acquired"):
        destination_on(hub).publish("adapter", adapter, hash_folder(adapter), no_progress)


def test_content_that_is_not_what_was_recorded_fails_the_upload(hub: HubDouble, adapter: Path):
    files = hash_folder(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"\0changed")
    destination = destination_on(hub)
    destination.acquire(claim("me"))
    with pytest.raises(UploadFailed, match="not what was sent") as failed:
        destination.publish("adapter", adapter, files, no_progress)
    assert failed.value.problems == ["adapter_model.safetensors: other bytes"]


def test_a_repository_that_is_not_there_has_no_receipt(hub: HubDouble):
    assert destination_on(hub).read_receipt() is None
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("error", "transient", "told"),
    [
        (httpx.ReadTimeout(""), True, UploadFailed),
        (ConnectionResetError(), True, UploadFailed),
        (TimeoutError(), True, UploadFailed),
        (RuntimeError("as hf_xet says it"), True, UploadFailed),
        (json.JSONDecodeError("<html>", "", 0), True, UploadFailed),
        (hf_xet.XetAuthenticationError(), False, AccessRefused),
    ],
)
def test_errors_without_a_status_are_told_apart(
    error: Exception, transient: bool, told: type[Exception]
):
    assert is_transient(error) is transient
    assert type(translated(error, "hf://org/tuned", writing=True)) is told


def test_an_upload_of_weights_that_the_hub_refuses_is_told_by_its_cause(
    hub: HubDouble, adapter: Path
):
    destination = destination_on(hub)
    destination.acquire(claim("me"))
    hub.fail("PUT", "/lfs-store/", 403)
    with pytest.raises(AccessRefused, match="write access"):
        destination.publish("adapter", adapter, hash_folder(adapter), no_progress)
    assert len(hub.commits("org/tuned")) == 1
