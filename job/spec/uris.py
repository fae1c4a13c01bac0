"""The base model and the destinations of a spec; dataset sources are in sources.py.

Each is normalised once, so that two spellings of one thing compare and hash equal:
`org/name` is `hf://org/name`, and a trailing slash is nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

from job.spec.values import refuse, words

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,95})"
_HUB_ID = re.compile(rf"(?:{_PART}/)?{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
CONFIG = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ModelRef(BaseModel):
    """Where the base model comes from; `revision` only on the Hub."""

    model_config = CONFIG
    uri: str
    scheme: Literal["hf", "s3", "path"]
    revision: str | None = None

    def __str__(self) -> str:
        return self.uri + (f"@{self.revision}" if self.revision else "")


class DestinationRef(BaseModel):
    """Where a run is published; `location` is `bucket/prefix`, `org/name` or `/folder`."""

    model_config = CONFIG
    uri: str
    scheme: Literal["s3", "hf", "file"]
    location: str

    def __str__(self) -> str:
        return self.uri


def clean(value: Any) -> str:
    """A text without white space inside it."""
    if not isinstance(value, str) or not value.strip():
        raise refuse("allowed: a text")
    text = value.strip()
    if re.search(r"[\x00-\x20\x7f]", text):
        raise refuse("white space or a control character; allowed: a URI without them")
    return text


def parse_hub(text: str, what: str) -> tuple[str, str | None]:
    """`org/name[@revision]` → (`hf://org/name`, revision)."""
    name, at, revision = text.removeprefix("hf://").partition("@")
    if not _HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise refuse(f"allowed: {what}; a relative path is not: give an absolute one")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise refuse("allowed after `@`: a branch, tag or commit")
    return f"hf://{name}", revision or None


def parse_s3(text: str) -> str:
    """`s3://bucket/prefix` without a trailing slash."""
    bucket, _, key = text.removeprefix("s3://").partition("/")
    key = key.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        raise refuse("allowed: s3://bucket/prefix with a valid bucket name")
    if key and any(part in ("", ".", "..") for part in key.split("/")):
        raise refuse("an empty, `.` or `..` part in the prefix; allowed: s3://bucket/prefix")
    return f"s3://{bucket}/{key}" if key else f"s3://{bucket}"


def parse_path(text: str) -> str:
    """An absolute path without `.`, `..`, double or trailing slashes."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise refuse("allowed: an absolute path below `/`, without `..`")
    return "/" + "/".join(parts)


def parse_model(value: Any) -> ModelRef:
    """A Hub id, `hf://`, an absolute folder or `s3://`.

    Raises:
        PydanticCustomError: anything else, with the way out.
    """
    if isinstance(value, ModelRef):
        return value
    text = clean(value)
    what = "a Hub id org/name[@revision], an absolute folder, or s3://bucket/prefix"
    if "?" in text or "#" in text:
        raise refuse(f"a model takes no `?` options; allowed: {what}")
    if text.startswith("s3://"):
        return ModelRef(uri=parse_s3(text), scheme="s3")
    if text.startswith("/"):
        return ModelRef(uri=parse_path(text), scheme="path")
    if text.startswith(("https://", "http://")):
        raise refuse(f"a web address is no model; allowed: {what}")
    if text.startswith("file://"):
        raise refuse(f"write the folder without `file://`; allowed: {what}")
    uri, revision = parse_hub(text, what)
    return ModelRef(uri=uri, scheme="hf", revision=revision)


def parse_destination(value: Any) -> DestinationRef:
    """`s3://bucket/prefix`, `hf://org/name` or `file:///folder`.

    Raises:
        PydanticCustomError: anything else, with the way out.
    """
    if isinstance(value, DestinationRef):
        return value
    text = clean(value)
    what = "s3://bucket/prefix, hf://org/name, or file:///folder"
    if "?" in text or "#" in text:
        raise refuse(f"a destination takes no `?` options; allowed: {what}")
    if text.startswith("s3://"):
        uri = parse_s3(text)
        return DestinationRef(uri=uri, scheme="s3", location=uri.removeprefix("s3://"))
    if text.startswith("hf://"):
        uri, revision = parse_hub(text, what)
        location = uri.removeprefix("hf://")
        if revision or "/" not in location:
            raise refuse("allowed: hf://org/name, with the organisation and without a revision")
        return DestinationRef(uri=uri, scheme="hf", location=location)
    if text.startswith("file:///"):
        folder = parse_path(text.removeprefix("file://"))
        return DestinationRef(uri=f"file://{folder}", scheme="file", location=folder)
    raise refuse(f"allowed: {what}")


def parse_destinations(value: Any) -> tuple[DestinationRef, ...]:
    """A comma list of destinations, each at most once."""
    if isinstance(value, list | tuple) and any(isinstance(v, DestinationRef) for v in value):
        parts: list[Any] = list(value)
    else:
        parts = list(words(value))
    found = tuple(parse_destination(part) for part in parts)
    if len({ref.uri for ref in found}) < len(found):
        raise refuse("the same destination is given twice")
    return found


def _destinations_as_written(refs: tuple[DestinationRef, ...]) -> str:
    return ",".join(map(str, refs))


_STRING = {"type": "string"}
Model = Annotated[
    ModelRef, BeforeValidator(parse_model), PlainSerializer(str), WithJsonSchema(_STRING)
]
Destinations = Annotated[
    tuple[DestinationRef, ...],
    BeforeValidator(parse_destinations),
    PlainSerializer(_destinations_as_written),
    WithJsonSchema({"anyOf": [_STRING, {"type": "array", "items": _STRING, "minItems": 1}]}),
]
