"""Two runs of one name: one publishes, the other is told."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from job.errors import DestinationTaken
from job.hashing import hash_folder
from job.store import Claim
from tests.store.conftest import OTHERS, OURS, Place, claim, no_progress, receipt_of


def test_of_two_claimants_at_the_same_time_one_wins(place: Place):
    destinations = [place.open() for _ in range(4)]
    start = threading.Barrier(len(destinations))
    outcomes: dict[int, str] = {}

    def compete(number: int) -> None:
        start.wait()
        try:
            destinations[number].acquire(claim(f"owner-{number}"))
            outcomes[number] = "won"
        except DestinationTaken:
            outcomes[number] = "taken"

    threads = [threading.Thread(target=compete, args=(n,)) for n in range(len(destinations))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    winners = [number for number, outcome in outcomes.items() if outcome == "won"]
    assert len(outcomes) == 4
    assert len(winners) == 1
    assert json.loads(place.read("run-a/claim.json"))["owner"] == f"owner-{winners[0]}"
    for destination in destinations:
        destination.release()


def test_a_living_holder_is_not_disturbed(place: Place, adapter: Path):
    holder = place.open()
    holder.acquire(claim("holder"))
    with pytest.raises(DestinationTaken, match="another process"):
        place.open().acquire(claim("newcomer"))
    holder.publish("adapter", adapter, hash_folder(adapter), no_progress)
    holder.publish_receipt(receipt_of(adapter))
    holder.release()
    assert "run-a/claim.json" not in place.files()


def dead_claim(owner: str = "dead", spec_hash: str = OURS) -> bytes:
    return json.dumps({"owner": owner, "spec_hash": spec_hash, "beat": "x-7"}).encode()


def test_a_dead_holders_claim_is_taken_over_after_its_lease(place: Place, adapter: Path):
    place.write("run-a/claim.json", dead_claim())
    before = time.monotonic()
    newcomer = place.open()
    newcomer.acquire(claim("newcomer"))
    assert time.monotonic() - before >= 0.5
    newcomer.publish("adapter", adapter, hash_folder(adapter), no_progress)
    newcomer.publish_receipt(receipt_of(adapter))
    newcomer.release()


def test_a_restart_with_the_same_owner_takes_its_claim_over_at_once(place: Place):
    place.write("run-a/claim.json", dead_claim("me"))
    restarted = place.open()
    before = time.monotonic()
    restarted.acquire(Claim("me", OURS, beat_seconds=30, lease_seconds=60))
    assert time.monotonic() - before < 5
    restarted.release()
    assert "run-a/claim.json" not in place.files()


def test_a_holder_that_lost_its_claim_publishes_nothing(place: Place, adapter: Path):
    holder = place.open()
    holder.acquire(claim("holder"))
    place.write("run-a/claim.json", dead_claim("somebody"))
    with pytest.raises(DestinationTaken, match="took the run over"):
        holder.publish("adapter", adapter, hash_folder(adapter), no_progress)
    with pytest.raises(DestinationTaken, match="took the run over"):
        holder.publish_receipt(receipt_of(adapter))
    holder.publish_failure({"exit_code": 73})
    holder.release()
    assert place.files() == ["run-a/claim.json"]
    assert json.loads(place.read("run-a/claim.json"))["owner"] == "somebody"


def test_a_claim_lost_between_two_files_stops_the_second(place: Place, adapter: Path):
    holder = place.open()
    holder.acquire(claim("holder"))

    def lose_it(what: str, done: int, total: int) -> None:
        if done:
            place.write("run-a/claim.json", dead_claim("somebody"))

    with pytest.raises(DestinationTaken, match="took the run over"):
        holder.publish("adapter", adapter, hash_folder(adapter), lose_it)
    holder.release()
    assert place.files() == ["run-a/adapter/adapter_config.json", "run-a/claim.json"]


def test_a_claim_of_another_spec_is_refused_naming_both(place: Place):
    place.write("run-a/claim.json", dead_claim("dead", OTHERS))
    with pytest.raises(DestinationTaken) as refused:
        place.open().acquire(claim("me"))
    assert OURS in refused.value.message
    assert OTHERS in refused.value.message


def test_unfinished_parts_stay_reserved_for_their_spec(place: Place, adapter: Path):
    first = place.open()
    first.acquire(claim("first"))
    first.publish("adapter", adapter, hash_folder(adapter), no_progress)
    first.release()
    with pytest.raises(DestinationTaken, match="another spec"):
        place.open().acquire(claim("second", OTHERS))
    same_spec = place.open()
    before = time.monotonic()
    same_spec.acquire(Claim("third", OURS, beat_seconds=30, lease_seconds=60))
    assert time.monotonic() - before < 5
    same_spec.release()


def test_a_receipt_that_appears_while_waiting_ends_the_wait(place: Place, adapter: Path):
    place.write("run-a/claim.json", dead_claim())
    receipt = json.dumps(receipt_of(adapter)).encode()
    threading.Timer(0.2, place.write, ("run-a/receipt.json", receipt)).start()
    waiting = place.open()
    waiting.acquire(Claim("waiting", OURS, beat_seconds=0.1, lease_seconds=60))
    assert waiting.read_receipt() == receipt_of(adapter)
    waiting.release()


def test_a_claim_that_is_something_else_is_refused(place: Place):
    place.write("run-a/claim.json", b"[1]")
    with pytest.raises(DestinationTaken, match="no claim of this program"):
        place.open().acquire(claim("me"))


def test_release_ends_the_heartbeat(place: Place):
    destination = place.open()
    destination.acquire(claim("me"))
    beating = [thread for thread in threading.enumerate() if thread.name == "claim"]
    assert len(beating) == 1
    destination.release()
    assert not beating[0].is_alive()
    assert place.keys() == []
