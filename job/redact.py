"""Keep secrets out of text: known values in every form they travel in, and well-known patterns.

Covers plain, URL-encoded, JSON-escaped and base64 forms of a known secret (also inside a longer
base64 text, as in an `Authorization: Basic` header). Not covered: compressed or encrypted forms,
and a secret that is split over two calls.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MARK = "[redacted]"
_SHORTEST = 4  # shorter values would blank out ordinary text
_SHORTEST_ENCODED = 8  # below this the base64 core is short enough to occur by chance

# Tokens that can be told by their shape alone.
_TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"  # AWS access key ids
    r"|\brpa_[A-Za-z0-9]{20,}"  # RunPod
    r"|\b(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{20,}"  # GitHub
    r"|\bsk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JSON web tokens
)
# Secrets that can be told by where they stand; the group before them is kept.
_PLACES = (
    re.compile(r"(\bhttps?://)[^/\s@\"'<>]+(?=@)", re.IGNORECASE),
    re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@:\"'<>]*:[^/\s@\"'<>]*(?=@)", re.IGNORECASE),
    re.compile(
        r"([?&](?:x-amz-(?:signature|credential|security-token)|signature|awsaccesskeyid|sig"
        r"|(?:access_?|auth_?)?token|api_?key|password|secret)=)[^&\s\"'#<>]+",
        re.IGNORECASE,
    ),
    re.compile(r"(\bauthorization\W{1,5}(?:bearer|basic|token)\s+)[^\s\"',]+", re.IGNORECASE),
    re.compile(r"(\bbearer\s+)(?=[A-Za-z._~+/=-]*[0-9])[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE),
)


class Redactor:
    """Replaces secrets in text by `[redacted]`.

    Args:
        secrets: the values themselves; ones shorter than 4 characters are left to the patterns.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._forms: set[str] = set()
        self._values: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Replace these from now on, too."""
        forms = self._forms | {form for secret in secrets for form in _forms(secret)}
        # The longest first, so that no form is cut short by another one inside it.
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._forms = forms
        self._values = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        if self._values:
            text = self._values.sub(MARK, text)
        text = _TOKENS.sub(MARK, text)
        for place in _PLACES:
            text = place.sub(rf"\g<1>{MARK}", text)
        return text

    def __repr__(self) -> str:
        return "Redactor(…)"


def holds_secret(text: str) -> bool:
    """Whether a token, a password in a URL or a signature can be told by its pattern."""
    return bool(_TOKENS.search(text)) or any(place.search(text) for place in _PLACES)


def _forms(secret: str) -> Iterator[str]:
    """The spellings under which a secret may turn up in text."""
    if len(secret) < _SHORTEST:
        return
    yield secret
    escaped = (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield from escaped
    yield repr(secret)[1:-1]
    raw = secret.encode(errors="surrogateescape")  # as os.environ holds bytes that are not UTF-8
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), quoted)
    if len(secret) >= _SHORTEST_ENCODED:
        yield from _base64_cores(raw)


def _base64_cores(secret: bytes) -> Iterator[str]:
    """What base64 makes of the secret at each of the three alignments within a longer text.

    The first and last characters also depend on the neighbours and are cut off: what is left of a
    secret of n bytes holds at least n - 4 of them.
    """
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret).decode()
        start = (0, 2, 3)[shift]
        whole = (shift + len(secret)) * 8 // 6  # characters that no byte after the secret changes
        core = encoded[start:whole]
        yield core
        yield core.replace("+", "-").replace("/", "_")
