from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

from job.credentials import Credentials
from job.errors import AccessRefused, DataError, JobError, NotFound, SpecError, Unavailable
from job.sources import fetch_dataset, fetch_model, model_facts, resolve_dataset, transfer
from job.sources.hub import counting_bar
from tests.hub_double import HubDouble
from tests.sources.parts import (
    NEEDED,
    SHARDS,
    WEIGHT_BYTES,
    Watch,
    model,
    model_files,
    source,
)

TOKEN = "hf_the_right_one"
SPLITS = {
    "README.md": b"---\nlicense: mit\n---\n",
    "data/train-00000-of-00002.parquet": b"\0train 0",
    "data/train-00001-of-00002.parquet": b"\0train 1",
    "data/test-00000-of-00001.parquet": b"\0test 0",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    monkeypatch.setattr(transfer, "LOOK_PATIENCE", 1.0)
    monkeypatch.setattr(transfer, "PATIENCE", 1.0)
    with HubDouble() as double:
        yield double


def as_user(hub: HubDouble, token: str | None = None) -> Credentials:
    return Credentials(hf_token=token, hf_endpoint=hub.url)


def content(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {n: p.read_bytes() for n, p in found.items() if not n.startswith(".cache/")}


def downloads(hub: HubDouble) -> list[str]:
    return [path.rpartition("/")[2] for method, path in hub.requests if "/cdn/" in path]


def test_a_model_comes_at_its_commit_with_only_what_is_needed(hub: HubDouble, tmp_path: Path):
    commit = hub.add_repo("models", "org/name", model_files())
    ref, watch = model("org/name"), Watch()
    facts = model_facts(ref, as_user(hub))
    assert (facts.revision, facts.is_local) == (commit.oid, False)
    assert facts.config == {"model_type": "llama"}
    assert facts.weight_bytes == WEIGHT_BYTES
    fetched = fetch_model(ref, facts, tmp_path / "m", as_user(hub), watch)
    assert content(fetched.path) == {name: model_files()[name] for name in NEEDED}
    assert (fetched.revision, fetched.files) == (commit.oid, len(NEEDED))
    assert watch.calls[-1] == ("model", fetched.size, fetched.size)


def test_a_model_tells_the_licence_of_its_card(hub: HubDouble):
    front = b"---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\ntags: [a]\n---\n"
    hub.add_repo("models", "org/name", {**model_files(), "README.md": front})
    hub.add_repo("models", "org/bare", model_files())
    licence = {"license": "other", "license_name": "own", "license_link": "LICENSE"}
    assert model_facts(model("org/name"), as_user(hub)).licence == licence
    assert model_facts(model("org/bare"), as_user(hub)).licence == {}


def test_main_may_move_between_the_look_and_the_download(hub: HubDouble, tmp_path: Path):
    first = hub.add_repo("models", "org/name", model_files())
    ref = model("org/name")
    facts = model_facts(ref, as_user(hub))
    hub.add_commit("org/name", {SHARDS[0]: b"newer", "config.json": b'{"model_type": "newer"}'})
    fetched = fetch_model(ref, facts, tmp_path, as_user(hub), Watch())
    assert fetched.revision == first.oid
    assert content(tmp_path)[SHARDS[0]] == model_files()[SHARDS[0]]
    assert model_facts(ref, as_user(hub)).config == {"model_type": "newer"}


@pytest.mark.parametrize("revision", ["v1", "commit"])
def test_a_tag_and_a_commit_are_found(hub: HubDouble, revision: str):
    first = hub.add_repo("models", "org/name", model_files())
    hub.tag("org/name", "v1", first.oid)
    hub.add_commit("org/name", {"config.json": b"{}"})
    name = first.oid if revision == "commit" else revision
    assert model_facts(model(f"org/name@{name}"), as_user(hub)).revision == first.oid


def test_another_revision_into_the_same_folder_leaves_nothing_of_the_first(
    hub: HubDouble, tmp_path: Path
):
    hub.add_repo("models", "org/name", model_files())
    ref, user = model("org/name"), as_user(hub)
    fetch_model(ref, model_facts(ref, user), tmp_path, user, Watch())
    hub.add_commit("org/name", {"model.safetensors": b"whole"})
    fetch_model(ref, model_facts(ref, user), tmp_path, user, Watch())
    assert content(tmp_path)["model.safetensors"] == b"whole"
    assert not set(SHARDS) & set(content(tmp_path))


def test_a_private_model_needs_the_token_and_the_cdn_never_sees_it(hub: HubDouble, tmp_path: Path):
    hub.add_repo("models", "org/secret", model_files(), private=True, token=TOKEN)
    ref, user = model("org/secret"), as_user(hub, TOKEN)
    fetched = fetch_model(ref, model_facts(ref, user), tmp_path, user, Watch())
    assert fetched.files == len(NEEDED)
    assert SHARDS[0] in downloads(hub)


@pytest.mark.parametrize(
    ("name", "token", "error", "told"),
    [
        ("org/none", None, AccessRefused, r"refused \(401\)\. It does not exist, is private or"),
        ("org/none", "hf_reader", NotFound, r"no such model for this token \(404\).*a private"),
        ("org/secret", None, AccessRefused, r"refused \(401\).*set HF_TOKEN"),
        ("org/secret", "hf_reader", NotFound, r"private repository answers the same"),
        ("org/gated", None, AccessRefused, r"is gated \(401\): accept its terms.*HF_TOKEN"),
        ("org/gated", "hf_reader", AccessRefused, r"is gated \(403\): accept its terms"),
        ("org/open", "hf_wrong", AccessRefused, r"refused \(401\).*HF_TOKEN is wrong, expired"),
        ("org/open@nope", None, NotFound, r"has no revision 'nope': give a branch, a tag"),
    ],
)
def test_who_may_not_read_what_is_told_with_the_way_out(
    hub: HubDouble, name: str, token: str | None, error: type[JobError], told: str
):
    hub.add_account("hf_reader", "reader", role="read")
    hub.add_repo("models", "org/secret", model_files(), private=True, token=TOKEN)
    hub.add_repo("models", "org/gated", model_files(), gated=True, token=TOKEN)
    hub.add_repo("models", "org/open", model_files())
    with pytest.raises(error, match=told) as caught:
        model_facts(model(name), as_user(hub, token))
    assert str(caught.value).startswith(f"JOB_MODEL hf://{name.partition('@')[0]}")
    assert token is None or token not in str(caught.value)


def test_a_token_that_is_withdrawn_before_the_download_is_refused(hub: HubDouble, tmp_path: Path):
    hub.add_repo("models", "org/name", model_files())
    facts = model_facts(model("org/name"), as_user(hub))
    hub.fail("HEAD", "/resolve/", 403, times=100)
    with pytest.raises(AccessRefused, match=r"refused \(403\)"):
        fetch_model(model("org/name"), facts, tmp_path, as_user(hub), Watch())


def test_a_hub_that_fails_for_a_moment_is_asked_again(hub: HubDouble, tmp_path: Path):
    hub.add_repo("models", "org/name", model_files())
    hub.fail("GET", "/api/models", 503)
    ref, user = model("org/name"), as_user(hub)
    facts = model_facts(ref, user)
    hub.fail("GET", f"/cdn/.*{SHARDS[0]}", 500)
    hub.fail("HEAD", f"/resolve/.*{SHARDS[1]}", 502)
    watch = Watch()
    fetched = fetch_model(ref, facts, tmp_path, user, watch)
    assert content(tmp_path) == {name: model_files()[name] for name in NEEDED}
    assert watch.calls[-1] == ("model", fetched.size, fetched.size)


def test_a_lost_answer_is_fetched_again(hub: HubDouble, tmp_path: Path):
    hub.add_repo("models", "org/name", model_files())
    ref, user = model("org/name"), as_user(hub)
    facts = model_facts(ref, user)
    hub.lose_reply("GET", f"/cdn/.*{SHARDS[0]}")
    fetch_model(ref, facts, tmp_path, user, Watch())
    assert content(tmp_path)[SHARDS[0]] == model_files()[SHARDS[0]]


def test_a_hub_that_stays_down_is_unavailable(hub: HubDouble):
    hub.add_repo("models", "org/name", model_files())
    hub.fail("GET", "/api/models", 503, times=100)
    with pytest.raises(Unavailable, match=r"cannot be reached \(it answered 503\)"):
        model_facts(model("org/name"), as_user(hub))


def test_a_hub_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "LOOK_PATIENCE", 0.3)
    nowhere = Credentials(hf_endpoint="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"cannot be reached \(ConnectError\)"):
        model_facts(model("org/name"), nowhere)


def test_a_hub_that_may_not_be_asked_is_a_fault_of_the_spec(
    hub: HubDouble, monkeypatch: pytest.MonkeyPatch
):
    """Another host with the same variables would fail the same way."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SpecError, match="HF_HUB_OFFLINE is set; unset it"):
        model_facts(model("org/name"), as_user(hub))


def test_a_second_start_keeps_complete_files_and_repairs_a_cut_one(hub: HubDouble, tmp_path: Path):
    hub.add_repo("models", "org/name", model_files())
    ref, user = model("org/name"), as_user(hub)
    facts = model_facts(ref, user)
    fetch_model(ref, facts, tmp_path, user, Watch())
    shard = tmp_path / SHARDS[0]
    shard.write_bytes(shard.read_bytes()[:-7])
    hub.requests.clear()
    watch = Watch()
    fetched = fetch_model(ref, facts, tmp_path, user, watch)
    assert set(downloads(hub)) == {SHARDS[0]}
    assert content(tmp_path)[SHARDS[0]] == model_files()[SHARDS[0]]
    assert watch.calls[-1] == ("model", fetched.size, fetched.size)


def test_a_bit_that_flips_here_is_seen_by_the_digest_and_repaired(hub: HubDouble, tmp_path: Path):
    hub.add_repo("models", "org/name", model_files())
    ref, user = model("org/name"), as_user(hub)
    facts = model_facts(ref, user)
    fetch_model(ref, facts, tmp_path, user, Watch())
    shard = tmp_path / SHARDS[1]
    shard.write_bytes(b"X" + shard.read_bytes()[1:])
    fetch_model(ref, facts, tmp_path, user, Watch())
    assert content(tmp_path)[SHARDS[1]] == model_files()[SHARDS[1]]


def test_a_file_that_is_damaged_at_the_hub_is_never_accepted(hub: HubDouble, tmp_path: Path):
    hub.add_repo("models", "org/name", model_files())
    ref, user = model("org/name"), as_user(hub)
    facts = model_facts(ref, user)
    hub.corrupt("org/name", SHARDS[0])
    with pytest.raises(Unavailable, match=f"{SHARDS[0]} came twice with another size or SHA-256"):
        fetch_model(ref, facts, tmp_path, user, Watch())


def test_a_model_of_pickles_is_refused_by_a_look(hub: HubDouble):
    small = {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"\0"}
    hub.add_repo("models", "org/pickles", small)
    with pytest.raises(NotFound, match=r"found pytorch_model\.bin"):
        model_facts(model("org/pickles"), as_user(hub))
    assert downloads(hub) == []


def test_an_index_with_a_shard_that_is_not_there_is_refused_by_a_look(hub: HubDouble):
    files = {name: data for name, data in model_files().items() if name != SHARDS[1]}
    hub.add_repo("models", "org/name", files)
    with pytest.raises(NotFound, match=SHARDS[1]):
        model_facts(model("org/name"), as_user(hub))


def test_a_dataset_comes_by_the_splits_name(hub: HubDouble, tmp_path: Path):
    commit = hub.add_repo("datasets", "org/rows", SPLITS)
    resolved = resolve_dataset(source("org/rows"), as_user(hub))
    hub.add_commit("org/rows", {"data/train-00000-of-00002.parquet": b"\0newer"}, "datasets")
    fetched = fetch_dataset(resolved, tmp_path, as_user(hub), Watch())
    assert fetched.revision == commit.oid
    assert [path.read_bytes() for path in fetched.files] == [b"\0train 0", b"\0train 1"]
    assert fetched.size == resolved.size
    test = resolve_dataset(source("org/rows?split=test"), as_user(hub))
    assert [file.name for file in test.files] == ["data/test-00000-of-00001.parquet"]


def test_a_dataset_comes_as_its_readme_says(hub: HubDouble, tmp_path: Path):
    readme = b"---\nconfigs:\n- config_name: de\n  data_files: de.jsonl\n"
    readme += b"- config_name: en\n  default: true\n  data_files: en.jsonl\n---\n"
    files = {"README.md": readme, "de.jsonl": b"hallo", "en.jsonl": b"hello"}
    hub.add_repo("datasets", "org/rows", files)
    for text, expected in (("org/rows", b"hello"), ("org/rows?config=de", b"hallo")):
        resolved = resolve_dataset(source(text), as_user(hub))
        fetched = fetch_dataset(resolved, tmp_path, as_user(hub), Watch())
        assert [path.read_bytes() for path in fetched.files] == [expected]


@pytest.mark.parametrize(
    ("text", "token", "error", "told"),
    [
        ("org/rows?split=nope", None, NotFound, "split 'nope' .splits there: test, train"),
        ("org/rows?config=nope", None, NotFound, "no configuration 'nope'"),
        ("org/rows@nope", None, NotFound, "no revision 'nope'"),
        ("org/script", None, DataError, r"script\.py: loading scripts and pickles are not run"),
        ("org/table", None, DataError, r"stored as \.arrow"),
        ("org/none", "hf_reader", NotFound, "no such dataset for this token"),
        ("org/gated", None, AccessRefused, "is gated"),
    ],
)
def test_a_dataset_that_cannot_be_read_says_why(
    hub: HubDouble, text: str, token: str | None, error: type[JobError], told: str
):
    hub.add_account("hf_reader", "reader", role="read")
    hub.add_repo("datasets", "org/rows", SPLITS)
    hub.add_repo("datasets", "org/script", {"script.py": b"x", "README.md": b"#"})
    hub.add_repo("datasets", "org/table", {"train.arrow": b"a,b"})
    # No README: only asking for a data file can meet the gate.
    hub.add_repo("datasets", "org/gated", {"train.json": b"[]"}, gated=True, token=TOKEN)
    with pytest.raises(error, match=told):
        resolve_dataset(source(text), as_user(hub, token))


def test_bytes_that_come_by_xet_are_counted_once():
    counted: list[int] = []
    reporter = XetDownloadProgressReporter(
        reconstruction_desc="x", total=100, log_level=40, tqdm_class=counting_bar(counted.append)
    )
    with reporter:
        for done in (40, 100):
            reporter.update_progress(
                SimpleNamespace(
                    total_bytes=100,
                    total_bytes_completed=done,
                    total_bytes_completion_rate=1.0,
                    total_transfer_bytes_completed=done // 2,
                    total_transfer_bytes_completion_rate=1.0,
                )
            )
    assert sum(counted) == 100
