"""A pod around one job: how it ends, whatever the job comes to and whatever the APIs answer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from job.credentials import Credentials, read_credentials
from job.errors import InternalError
from job.runpod import is_pod, is_worker
from job.runpod.ending import Pod
from job.runpod.pod import LIMIT_HOURS, PodLife, limit_hours
from job.runpod.starts import Starts
from job.spec import read_spec
from job.store.keys import STARTS
from tests.hub_double import HubDouble
from tests.jobs import Ended, entrypoint, job, start, until, wait
from tests.runpod.pod_api import KEY, PodApi

POD = "pod-ours"
HEAVY = ("torch", "transformers", "unsloth", "datasets", "runpod")


def as_the_platform(api: PodApi, process: subprocess.Popen[str]) -> None:
    """An ended pod's container gets SIGTERM."""
    api.ended = lambda pod, action: process.send_signal(signal.SIGTERM)


def run_in_pod(api: PodApi, drill: Any, **environ: str) -> Ended:
    """The stand-in's job as the container of a pod, to its end."""
    api.pods[POD] = "RUNNING"
    process = drill.start(**api.environ(POD), **environ)
    as_the_platform(api, process)
    return wait(process)


def test_a_pod_is_told_from_a_worker_and_from_another_container():
    assert is_pod({"RUNPOD_POD_ID": "a"})
    assert not is_pod({})
    worker = {"RUNPOD_POD_ID": "a", "RUNPOD_WEBHOOK_GET_JOB": "http://x"}
    assert is_worker(worker)
    assert not is_pod(worker)


def test_a_pod_whose_job_is_done_is_terminated(api, drill):
    one = drill()
    ended = run_in_pod(api, one)
    one.is_done(ended)
    assert api.pods == {}
    assert [way for way, *_ in api.asked] == ["v2"]
    assert KEY not in ended.text


def test_a_pod_whose_job_failed_is_stopped_so_that_its_logs_are_kept(api, drill):
    one = drill()
    one.order(diverges_at=3)
    ended = run_in_pod(api, one)
    assert ended.code == ended.line["exit_code"] == 82
    assert api.pods == {POD: "EXITED"}


def test_a_wrong_spec_ends_the_pod_too(api):
    api.pods[POD] = "RUNNING"
    process = start("run", environ={"JOB_MODLE": "x", **api.environ(POD)})
    as_the_platform(api, process)
    ended = wait(process)
    assert ended.code == ended.line["exit_code"] == 78
    assert api.pods == {POD: "EXITED"}


@pytest.mark.parametrize(
    ("policy", "left"), [("terminate", {}), ("stop", {POD: "EXITED"}), ("exit", {POD: "RUNNING"})]
)
def test_the_policy_says_how_a_pod_ends(api, drill, policy, left):
    ended = run_in_pod(api, drill(JOB_ON_FINISH=policy))
    assert ended.code == 0
    assert api.pods == left


def test_a_pod_on_hold_is_left_alone_until_it_is_told_to_end(api, drill):
    api.pods[POD] = "RUNNING"
    process = drill(JOB_ON_FINISH="hold").start(**api.environ(POD))
    lines: list[str] = []
    until(lambda: lines.append(process.stderr.readline()) or "is held" in lines[-1], "the hold")
    process.send_signal(signal.SIGTERM)
    assert wait(process).code == 0
    assert api.asked == []


def test_a_restarted_container_with_a_receipt_ends_the_pod_without_loading_torch(api, drill):
    one = drill()
    one.is_done(one.run())
    one.moved()
    api.pods[POD] = "RUNNING"
    environ = one.environ | api.environ(POD)
    process = start("run", environ=environ, options=("-X", "importtime"))
    as_the_platform(api, process)
    ended = wait(process)
    assert ended.code == 0
    assert api.pods == {}
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "httpx" in loaded
    assert not {name for name in loaded if name.split(".")[0] in HEAVY}


# -- the four ways --------------------------------------------------------------------------------


def end(api: PodApi, pod: str = POD, action: Any = "terminate") -> tuple[bool, list[str]]:
    said: list[str] = []
    return Pod.of(api.environ(pod)).end(action, said.append), said


@pytest.mark.parametrize("action", ["terminate", "stop"])
@pytest.mark.parametrize("works", ["v2", "graphql", "v1"])
def test_what_one_api_refuses_another_one_does(api, works, action):
    api.pods = {POD: "RUNNING", "pod-of-another": "RUNNING"}
    ways = ["v2", "graphql", "v1"]
    api.refuse = {way: [403] for way in ways if way != works}
    done, _ = end(api, action=action)
    assert done
    assert [way for way, *_ in api.asked] == ways[: ways.index(works) + 1]
    assert api.pods.pop("pod-of-another") == "RUNNING"
    assert api.pods == ({} if action == "terminate" else {POD: "EXITED"})


def test_runpodctl_is_the_last_way(api, tmp_path, monkeypatch):
    api.refuse = {way: [500] for way in ("v2", "graphql", "v1")}
    program = tmp_path / "runpodctl"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert not end(api)[0]
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert end(api)[0]
    assert (tmp_path / "called").read_text().split() == ["remove", "pod", POD]


def test_a_pod_that_is_not_there_any_more_counts_as_ended(api):
    assert end(api)[0]
    api.refuse = {"v2": [403]}
    assert end(api)[0]


def test_a_refusal_that_graphql_answers_with_200_is_a_refusal(api):
    api.pods[POD] = "RUNNING"
    api.refuse = {"v2": [401], "v1": [401]}
    api.keys = {"another key"}
    done, said = end(api)
    assert not done
    assert api.pods == {POD: "RUNNING"}
    assert KEY not in "\n".join(said)


def test_a_key_of_its_own_is_used_where_there_is_one(api):
    api.pods[POD] = "RUNNING"
    api.keys = {"terminate-key-0123456789"}
    environ = api.environ(POD) | {"RUNPOD_TERMINATE_API_KEY": "terminate-key-0123456789"}
    assert Pod.of(environ).end("terminate", print)
    assert api.pods == {}


def test_it_is_asked_again_and_again_until_the_container_is_ended(api):
    """All refuse for a while; then v2 accepts, and nothing happens for a while."""
    api.pods[POD] = "RUNNING"
    api.refuse = {"v2": [503, 503, 202, 202, 204], "graphql": [500], "v1": [500]}
    life = PodLife(api.environ(POD), print, repeat=0.05)
    asked = lambda: [way for way, *_ in api.asked].count("v2")  # noqa: E731

    def platform() -> None:
        until(lambda: asked() >= 4, "four rounds")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=platform).start()
    assert life.finish(0) == 0
    assert asked() >= 4


# -- the guards -----------------------------------------------------------------------------------


def spec_of(tmp_path: Path, **changes: str) -> Any:
    return read_spec(job(tmp_path, **changes))


def test_a_container_that_dies_without_a_word_is_not_started_for_ever(api, drill):
    """Also where its disk is wiped: the count lies at the destination."""
    one = drill(JOB_MAX_ATTEMPTS="2")
    for _ in range(2):
        one.order(waits_in="load")
        api.pods[POD] = "RUNNING"
        process = one.start(**api.environ(POD))
        one.until_said("phase", phase="load")
        process.kill()
        process.communicate()
        time.sleep(0.1)
        shutil.rmtree(one.folder / "work")
        (one.place / "claim.json").unlink()  # else a minute's wait until its lease is over
    ended = run_in_pod(api, one)
    assert ended.code == 70
    assert STARTS in ended.line["message"]
    assert api.pods == {POD: "EXITED"}
    assert one.said() == []  # nothing was begun
    assert (one.place / STARTS).exists()  # and a restart of the pod changes nothing of that


def test_a_start_that_got_further_begins_a_new_count(tmp_path):
    spec = spec_of(tmp_path, JOB_MAX_ATTEMPTS="1")
    Starts(spec, read_credentials({})).begin()
    with pytest.raises(InternalError):
        Starts(spec, read_credentials({})).begin()
    checkpoint = tmp_path / "out/run-a/checkpoints/step-000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "COMPLETE").write_text("{}")
    Starts(spec, read_credentials({})).begin()
    assert json.loads((tmp_path / "out/run-a" / STARTS).read_text())["count"] == 1


def test_a_run_that_told_how_it_ended_leaves_no_count(api, drill):
    one = drill()
    one.order(diverges_at=3)
    run_in_pod(api, one)
    assert not (one.place / STARTS).exists()


def test_a_pod_lives_a_day_at_most_or_an_hour_longer_than_its_job_may(tmp_path):
    spec = spec_of(tmp_path)
    assert limit_hours(spec) == LIMIT_HOURS == 24
    assert limit_hours(spec.model_copy(update={"max_hours": 3})) == 4


def test_when_the_limit_has_passed_the_run_is_stopped_and_then_the_pod(api):
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        life = PodLife(api.environ(POD), print, repeat=0.05)
        life._grace = 0.05  # of a run that hangs
        api.pods[POD] = "RUNNING"
        life.limit(0)
        until(lambda: api.pods[POD] == "EXITED", "the end of the pod")
        assert told == [signal.SIGTERM]
        life._working = False
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_pod_id_that_is_none_is_refused_before_anything_is_done():
    ended = entrypoint("run", environ={"RUNPOD_POD_ID": "x/../y", "JOB_MODEL": "a/b"})
    assert ended.code == 78
    assert "RUNPOD_POD_ID" in ended.line["message"]


def test_on_the_hub_the_count_lies_on_the_branch_of_the_checkpoints(tmp_path):
    with HubDouble() as hub:
        hub.add_account("hf_writes", "me", orgs=("org",))
        spec = spec_of(tmp_path, JOB_OUTPUT="hf://org/tuned", JOB_MAX_ATTEMPTS="1")
        credentials = Credentials(hf_token="hf_writes", hf_endpoint=hub.url)
        Starts(spec, credentials).begin()  # nothing can be kept before there is a repository
        api = HfApi(endpoint=hub.url, token="hf_writes")
        api.create_repo("org/tuned", private=True)
        Starts(spec, credentials).begin()
        assert STARTS in api.list_repo_files("org/tuned", revision="checkpoints")
        assert STARTS not in api.list_repo_files("org/tuned")
        with pytest.raises(InternalError, match="branch `checkpoints`"):
            Starts(spec, credentials).begin()
        Starts(spec, credentials).end()
        Starts(spec, credentials).end()  # nothing is there any more
        Starts(spec, credentials).begin()
