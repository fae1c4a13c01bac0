"""A secret does not survive the redactor, whatever form the text gives it."""

from __future__ import annotations

import base64
import json
import re
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.redact import MARK, Redactor, holds_secret

CANARY = 'canary-S3cret/with+every=thing &"é\\'
secrets = st.text(min_size=8, max_size=60).filter(lambda s: s.strip() == s and s not in MARK)
around = st.text(max_size=30)


@given(secrets, around, around)
def test_a_secret_of_eight_characters_never_survives_in_plain_form(secret, before, after):
    # A mark next to other text may spell a made-up secret again; real text has no such luck.
    redacted = Redactor([secret])(before + secret + after).split(MARK)
    assert not any(secret in part for part in redacted)


@given(st.text(alphabet=string.printable, min_size=8, max_size=60), around, around)
def test_a_secret_never_survives_url_encoded(secret, before, after):
    for form in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        redacted = Redactor([secret])(f"{before}{form}{after}").split(MARK)
        assert not any(form in part for part in redacted)


@given(st.binary(max_size=12), st.text(min_size=8, max_size=60), st.binary(max_size=12))
def test_a_secret_never_survives_in_base64_at_any_alignment(before, secret, after):
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + secret.encode() + after).decode()
        redacted = Redactor([secret])(f"Authorization: Basic {encoded}")
        assert encoded not in redacted
        assert MARK in redacted


def test_a_secret_is_removed_from_inside_base64_without_a_header_that_gives_it_away():
    encoded = base64.b64encode(b"user:" + CANARY.encode() + b"\n").decode()
    redacted = Redactor([CANARY])(f"payload={encoded};")
    kept = redacted.split("payload=")[1].split(MARK)
    assert len("".join(kept)) < len(encoded) / 2


def test_a_secret_is_removed_from_json_text_and_the_json_stays_valid():
    for ascii_only in (True, False):
        text = json.dumps({"env": [CANARY], "kept": 1}, ensure_ascii=ascii_only)
        assert json.loads(Redactor([CANARY])(text)) == {"env": [MARK], "kept": 1}


def test_a_secret_is_removed_from_the_repr_of_an_exception():
    assert "S3cret" not in Redactor([CANARY])(repr(ValueError(CANARY)))


def test_lower_case_percent_encoding_is_known_too():
    encoded = re.sub("%..", lambda code: code[0].lower(), quote(CANARY, safe=""))
    assert Redactor([CANARY])(f"x={encoded}&y") == f"x={MARK}&y"


def test_a_secret_that_is_not_utf_8_is_handled_as_its_bytes():
    secret = b"secret\xff\xfe1".decode(errors="surrogateescape")
    assert Redactor([secret])("x=secret%FF%FE1&y") == f"x={MARK}&y"


def test_the_longer_of_two_secrets_leaves_no_rest():
    assert Redactor(["abcdefgh", "abcdefgh-and-more"])("abcdefgh-and-more") == MARK


PATTERNS = [
    ("token hf_abcdefghijklmnopqrstuvwxyzABCDEFGH end", "hf_abcdefghij"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7"),
    ("ASIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7"),
    ("https://user:pass@host/x", "pass"),
    ("https://token-only@host/x", "token-only"),
    ("postgres://u:pw123@host/db", "pw123"),
    ("s3://AK:SK123@bucket/key", "SK123"),
    ("https://h/x?X-Amz-Signature=0a1b2c&y=1", "0a1b2c"),
    ("https://h/x?a=1&X-Amz-Credential=AAA%2Fbbb&y=1", "AAA%2Fbbb"),
    ("https://h/x?sig=abc%3D", "abc%3D"),
    ("https://h/x?token=abcd", "abcd"),
    ("Authorization: Bearer abcdef", "abcdef"),
    ("{'authorization': 'Bearer abcdef'}", "abcdef"),
    ("got Bearer eyabc012345678901234567", "012345678901234567"),
    ("rpa_ABCDEFGHIJKLMNOPQRSTUVWXYZ01", "rpa_ABCDEFGHIJ"),
    ("github_pat_11ABCDEFG0123456789_abcdef", "11ABCDEFG0123456789"),
]


@pytest.mark.parametrize(("text", "secret"), PATTERNS)
def test_an_unknown_secret_is_told_by_its_pattern(text, secret):
    assert holds_secret(text)
    redacted = Redactor([])(text)
    assert secret not in redacted
    assert MARK in redacted


INNOCENT = [
    "hf://org/name@main",
    "hf://name@v1.0:x",
    "s3://bucket/prefix/file@2.jsonl",
    "https://host/path?split=train&format=messages",
    "Explain the basic settings of a bearer market",
    "loss 1.234 step 10/60 sha256 " + "0a" * 32,
    "HuggingFaceH4/Multilingual-Thinking",
    "a@b.example wrote",
    "task-sk-learn-something-with-words-only",
]


@pytest.mark.parametrize("text", INNOCENT)
def test_ordinary_text_stays_as_it_is(text):
    assert not holds_secret(text)
    assert Redactor(["long-secret-value"])(text) == text


def test_a_very_short_value_does_not_blank_out_ordinary_text():
    assert Redactor(["", "a", "abc"])("abc a banana") == "abc a banana"


def test_the_redactor_does_not_show_its_secrets():
    assert CANARY not in repr(Redactor([CANARY]))
