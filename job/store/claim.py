"""The claim that keeps two runs of one name apart, and the heartbeat that keeps it alive.

No clocks are compared: a claim lives as long as its content changes. Its holder rewrites it by
compare-and-swap; whoever finds it unchanged for a whole lease takes it over the same way. The claim
is confirmed before each file, so that a holder that slept through its lease writes at most the one
file it was sending.
"""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.errors import DestinationTaken, JobError
from job.store.retry import QUICK_SECONDS

if TYPE_CHECKING:
    from job.store.keys import Store

KEY = "claim.json"
_RELEASED = "released"
_JOIN_SECONDS = 5.0


@dataclass(frozen=True)
class Claim:
    """Who wants to publish.

    Attributes:
        owner: random text that survives a restart of the same job, so that it takes its own claim
            over at once.
        spec_hash: 64 hexadecimal digits.
        beat_seconds: how often a living holder rewrites the claim.
        lease_seconds: how long a claim must stay unchanged to count as dead; several beats.
    """

    owner: str
    spec_hash: str
    beat_seconds: float = 15
    lease_seconds: float = 60


@dataclass(frozen=True)
class Found:
    """A claim as it lies in a store; released: its holder ended and left unfinished work here."""

    owner: str
    spec_hash: str
    released: bool
    etag: str


def read_claim(store: Store) -> Found | None:
    """The claim in the store, None when there is none.

    Raises:
        DestinationTaken: `claim.json` is something else.
    """
    found = store.get(KEY)
    if found is None:
        return None
    try:
        content: Any = json.loads(found.content)
        owner, spec_hash = str(content["owner"]), str(content["spec_hash"])
        return Found(owner, spec_hash, content["beat"] == _RELEASED, found.etag)
    except (ValueError, KeyError, TypeError):
        message = f"{store.uri}/{KEY} is no claim of this program: choose another JOB_NAME"
        raise DestinationTaken(message) from None


class Heartbeat:
    """A held claim. `start` beats in a daemon thread until `stop`, or until the claim is lost."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self._store, self._quick, self._claim = store, store.within(QUICK_SECONDS), claim
        self._process = secrets.token_hex(4)  # two processes never write the same bytes
        self._beats = 0
        self._etag = ""
        self._lost = False
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="claim", daemon=True)

    def _content(self, beat: str = "") -> bytes:
        self._beats += 1
        beat = beat or f"{self._process}-{self._beats}"
        claim = {"owner": self._claim.owner, "spec_hash": self._claim.spec_hash, "beat": beat}
        return json.dumps(claim).encode()

    def create(self) -> bool:
        """Take a claim that nobody has; False when somebody was faster."""
        etag = self._store.put_if_absent(KEY, self._content())
        self._etag = etag or ""
        return etag is not None

    def take_over(self, etag: str) -> bool:
        """Replace the claim with this etag; False when it has changed since."""
        taken = self._store.put_if_match(KEY, self._content(), etag)
        self._etag = taken or ""
        return taken is not None

    def start(self) -> None:
        self._thread.start()

    def confirm(self, *, quick: bool = False) -> None:
        """Beat once now.

        Args:
            quick: with little patience.

        Raises:
            DestinationTaken: the claim is no longer ours, so nothing may be written any more.
            UploadFailed, AccessRefused: whether it is could not be learnt.
        """
        self._beat(self._quick if quick else self._store)

    def is_held(self, store: Store) -> bool:
        """Whether the claim that lies in the store is ours; asks, and changes nothing."""
        found = None if self._lost else read_claim(store)
        return found is not None and found.owner == self._claim.owner

    def _beat(self, store: Store) -> None:
        with self._lock:
            if not self._lost:
                etag = store.put_if_match(KEY, self._content(), self._etag)
                self._lost = etag is None
                self._etag = etag or ""
            if self._lost:
                raise DestinationTaken(
                    f"{store.uri}: this process was silent for too long and another one took"
                    " the run over; nothing more is published here"
                )

    def _run(self) -> None:
        while not self._stopping.wait(self._claim.beat_seconds):
            try:
                self._beat(self._quick)
            except DestinationTaken:
                return
            except JobError:
                continue  # the store is away; whether the claim survived shows at the next beat

    def stop(self, *, unfinished: bool) -> None:
        """End the thread and give the claim back if it is still ours.

        Args:
            unfinished: parts were published but no receipt: the claim stays, marked as released,
                so that a run of another spec does not mix with them.

        Raises:
            JobError: the store could not be asked; the claim will be found dead after its lease.
        """
        self._stopping.set()
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive() or self._lost:
            return  # the store is away, or the claim is another's
        if unfinished:
            self._quick.put_if_match(KEY, self._content(_RELEASED), self._etag)
            return
        found = self._quick.get(KEY)
        if found is not None and found.etag == self._etag:
            self._quick.delete(KEY)
