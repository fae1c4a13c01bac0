"""Dataset sources: `hf://`, `s3://`, `https://` or a path, with options as a query."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

from job.spec.uris import CONFIG, clean, parse_hub, parse_path, parse_s3
from job.spec.values import Above0, refuse

FORMATS = (
    *("multilingual-thinking", "messages", "sharegpt", "alpaca", "prompt-completion", "text"),
    "preference",
)
# How files end; those of `job.sources.splits`, which a spec may not import, are among them.
FILE_NAMES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".gz", ".zst")
OPTIONS = ("split", "config", "format", "weight", "kind", "sha256")


class Source(BaseModel):
    """One dataset source: a URI without its query, and the query's options as fields."""

    model_config = CONFIG
    uri: str
    scheme: Literal["hf", "s3", "https", "path"]
    revision: str | None = None
    split: str = "train"
    config: str | None = None
    format: str | None = None
    weight: Above0 | None = None
    kind: Literal["reasoning", "plain"] | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        """As the user writes it: options in a fixed order, defaults left out."""
        options = self.model_dump(include=set(OPTIONS), exclude_defaults=True)
        query = "&".join(f"{name}={quote(str(options[name]))}" for name in sorted(options))
        revision = f"@{self.revision}" if self.revision else ""
        return self.uri + revision + (f"?{query}" if query else "")


def parse_source(value: Any) -> Source:
    """One dataset source with its options.

    Raises:
        PydanticCustomError: a source or an option that does not exist, with the way out.
    """
    if isinstance(value, Source):
        return value
    text, mark, query = clean(value).partition("?")
    options: dict[str, Any] = dict(_options(query)) if mark else {}
    what = "a Hub id org/name[@revision], s3://…, https://…, or an absolute path"
    fields: dict[str, Any]
    if text.startswith("s3://"):
        fields = {"uri": parse_s3(text), "scheme": "s3"}
    elif text.startswith("https://"):
        fields = {"uri": _https(text), "scheme": "https"}
    elif text.startswith("http://"):
        raise refuse("plain http is not safe; allowed: https://…")
    elif text.startswith("/"):
        fields = {"uri": parse_path(text), "scheme": "path"}
    elif text.startswith("file://"):
        raise refuse(f"write the path without `file://`; allowed: {what}")
    elif "://" not in text and text.lower().endswith(FILE_NAMES):
        raise refuse(
            "this looks like a relative path: give an absolute one; a Hub repository of that name "
            "is written hf://org/name"
        )
    else:
        uri, revision = parse_hub(text, what)
        fields = {"uri": uri, "scheme": "hf", "revision": revision}
    _check_reach(fields["scheme"], options)
    try:
        return Source(**fields, **options)
    except ValidationError as error:  # weight and kind are the only fields left to pydantic
        option = error.errors(include_input=False)[0]["loc"][0]
        allowed = {"weight": "a number above 0", "kind": "reasoning or plain"}[str(option)]
        raise refuse(f"option {option}: allowed: {allowed}") from None


def _check_reach(scheme: str, options: dict[str, str]) -> None:
    """Refuse the options that would change nothing for this kind of source."""
    if "config" in options and scheme != "hf":
        raise refuse("option config: only datasets on the Hub have configurations")
    if "split" in options and scheme == "https":
        raise refuse("option split: an https source is one file; name the file of that split")


def _https(text: str) -> str:
    wrong = refuse("allowed: https://host/path without credentials and without `#`")
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError:  # a broken IPv6 address or port
        raise wrong from None
    if not split.hostname or port == 0 or "@" in split.netloc or split.fragment:
        raise wrong
    if not split.path.strip("/"):
        raise wrong
    if ".." in unquote(split.path).split("/"):
        raise refuse("`..` in the path; allowed: https://host/path")
    return text


def _options(query: str) -> dict[str, str]:
    """The options after `?`, each known, given once and well formed."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise refuse("options are written ?name=value&name=value") from None
    options: dict[str, str] = {}
    for name, value in pairs:
        if name not in OPTIONS:
            raise refuse(f"unknown option {name[:40]!r}; allowed: {', '.join(OPTIONS)}")
        if name in options:
            raise refuse(f"option {name} is given twice")
        options[name] = _option(name, value)
    return options


def _option(name: str, value: str) -> str:
    if name == "format" and value not in FORMATS:
        raise refuse(f"option format: allowed: {', '.join(FORMATS)}")
    if name == "sha256":
        value = value.lower()
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            raise refuse("option sha256: allowed: 64 hex digits")
    if name in ("split", "config") and not re.fullmatch(r"[\w][\w.+-]{0,99}", value):
        raise refuse(f"option {name}: allowed: one name of letters, digits, `_`, `.`, `+`, `-`")
    return value


def parse_sources(value: Any) -> tuple[Source, ...]:
    """One source, or a list (also as JSON text) of at least one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise refuse("not JSON; allowed: one source, or a JSON list of sources") from None
    if not isinstance(value, list | tuple):
        value = [value]
    if not value:
        raise refuse("an empty list; allowed: one source, or a JSON list of sources")
    sources = tuple(parse_source(item) for item in value)
    if len(set(sources)) < len(sources):
        raise refuse("the same source is given twice")
    return sources


def _sources_as_written(sources: tuple[Source, ...]) -> str | list[str]:
    return str(sources[0]) if len(sources) == 1 else [str(source) for source in sources]


_STRING = {"type": "string"}
Sources = Annotated[
    tuple[Source, ...],
    BeforeValidator(parse_sources),
    PlainSerializer(_sources_as_written),
    WithJsonSchema({"anyOf": [_STRING, {"type": "array", "items": _STRING, "minItems": 1}]}),
]
