"""JOB_SPEC: JSON or YAML text, `base64:` text, an absolute path or a URI → a mapping of keys."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from job.redact import holds_secret

ALLOWED = "allowed: a JSON or YAML mapping, base64: and such text, an absolute path, or a URI"
Fetch = Callable[[str], bytes]
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S*")


class CarrierError(Exception):
    """JOB_SPEC cannot be read; the text says why and never repeats its content."""


def read_carrier(text: str, fetch: Fetch | None) -> dict[str, Any]:
    """The keys in JOB_SPEC, values as JSON types or text.

    Args:
        text: the variable's value, not empty.
        fetch: gets the bytes of an s3:// or https:// URI; its errors pass through.

    Raises:
        CarrierError: not one of the forms, unreadable, not a mapping, or a key twice.
    """
    if text.startswith("base64:"):
        return parse_mapping(_decode(_from_base64(text.removeprefix("base64:"))))
    if text.startswith("/"):
        return parse_mapping(_decode(_from_file(text)))
    if text.startswith("file:///"):
        return parse_mapping(_decode(_from_file(text.removeprefix("file://"))))
    if _ADDRESS.fullmatch(text) and holds_secret(text):
        raise CarrierError(f"an address with credentials (not shown); {ALLOWED}")
    if text.startswith(("s3://", "https://")) and _ADDRESS.fullmatch(text):
        if fetch is None:
            raise CarrierError("a remote spec cannot be fetched here; give its text or a path")
        return parse_mapping(_decode(fetch(text)))
    if _ADDRESS.fullmatch(text):
        raise CarrierError(f"this kind of URI is not read; {ALLOWED} (s3://, https://, file:///)")
    return parse_mapping(text)


def parse_mapping(text: str) -> dict[str, Any]:
    """JSON or YAML text → its mapping.

    Raises:
        CarrierError: neither of the two, not a mapping, or a key twice.
    """
    try:
        found = json.loads(text, object_pairs_hook=_without_repeats)
    except ValueError:
        found = _from_yaml(text)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise CarrierError(f"not a mapping of keys to values; {ALLOWED}")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise CarrierError(f"a key is given twice: {', '.join(name[:40] for name in repeated)}")
    return found


def _from_yaml(text: str) -> Any:
    """YAML whose plain scalars stay text, so that they are read as in the environment.

    YAML 1.1 would make 8 of 010, False of no and a date of 2026-01-31; only null keeps its sense.
    """
    import yaml  # here, because most jobs come in variables and need no parser

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            pairs = [(str(key.value), value) for key, value in node.value]
            _without_repeats(pairs)
            return super().construct_mapping(node, deep=deep)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        # Only the place: YAML's own text quotes the content.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise CarrierError(f"neither JSON nor YAML{where}; {ALLOWED}") from None


def _from_base64(text: str) -> bytes:
    compact = re.sub(r"\s", "", text).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except ValueError:
        raise CarrierError("the text after base64: is not base64") from None


def _from_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or "not a path"
        raise CarrierError(f"the file cannot be read ({why})") from None


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise CarrierError("the content is not UTF-8 text") from None
