"""How one value of the spec is read: strictly, from text or from a typed JSON or YAML value.

Each parser raises `refuse(why)`; `why` never repeats the value, which may be a misplaced secret.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_ROLES = ("system", "developer", "user", "assistant")
Chat = tuple[dict[str, str], ...]


def refuse(why: str) -> PydanticCustomError:
    """An error whose text is exactly `why`, without pydantic's own wording around it."""
    return PydanticCustomError("refused", "{why}", {"why": why})


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise PydanticCustomError("whole", "not a whole number")


def _number(value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise PydanticCustomError("number", "not a finite number")


def _flag(value: Any) -> bool:
    text = str(value).lower()
    if isinstance(value, bool | int | str) and text in _TRUE + _FALSE:
        return text in _TRUE
    raise PydanticCustomError("flag", "not a boolean")


def _choice(value: Any) -> Any:
    """`true` and `false` of JSON for the choices that have these words among others."""
    return str(value).lower() if isinstance(value, bool) else value


def _whole_or_auto(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if _whole(value) < 1:
        raise PydanticCustomError("whole", "below 1")
    return _whole(value)


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Above0 = Annotated[float, Field(gt=0), BeforeValidator(_number)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Choice = BeforeValidator(_choice)
WholeOrAuto = Annotated[
    int | Literal["auto"],
    BeforeValidator(_whole_or_auto),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]


def words(value: Any) -> list[str]:
    """The parts of a comma list, or of a JSON or YAML list of texts."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise refuse("allowed: a comma list")
    parts = [part.strip() for part in value]
    if not parts or not all(parts):
        raise refuse("an empty entry; allowed: a comma list without gaps")
    return parts


def _word_list(allowed: Sequence[str], alone: str = "") -> Callable[[Any], tuple[str, ...]]:
    """A parser of comma lists over `allowed`, without repeats; `alone` admits no company."""

    def parse(value: Any) -> tuple[str, ...]:
        parts = words(value)
        if not set(parts) <= set(allowed) or len(set(parts)) < len(parts):
            raise refuse(f"allowed: a comma list of {', '.join(allowed)}, each at most once")
        if alone in parts and len(parts) > 1:
            raise refuse(f"`{alone}` stands alone; allowed: a comma list of {', '.join(allowed)}")
        return tuple(parts)

    return parse


def _targets(value: Any) -> tuple[str, ...]:
    parts = words(value)
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", part) for part in parts):
        raise refuse("allowed: auto, or a comma list of module names such as q_proj,v_proj")
    if len(set(parts)) < len(parts) or ("auto" in parts and len(parts) > 1):
        raise refuse("allowed: auto alone, or module names, each at most once")
    return tuple(parts)


def _name(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", value):
        return value
    raise refuse(
        "allowed: one path component of at most 96 letters, digits, `.`, `_`, `-`,"
        " beginning with a letter or digit"
    )


def _day(value: Any) -> str:
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
            return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        pass
    raise refuse("allowed: a day as YYYY-MM-DD, such as 2026-01-31")


def _folder(value: Any) -> Path:
    text = str(value) if isinstance(value, str | Path) else ""
    if not text.startswith("/") or ".." in PurePosixPath(text).parts or not text.strip("/"):
        raise refuse("allowed: an absolute folder below `/`, without `..`")
    return Path("/" + text.strip("/"))


def _remote_code(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", value, re.ASCII):
        return value
    raise refuse("allowed: org/name@ and the 40 hex digits of a commit, nothing else")


def _url(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"https://[^\s/?#@]+(/[^\s#]*)?", value):
        return value
    raise refuse("allowed: an https:// URL without credentials")


def _prompts(value: Any) -> tuple[Chat, ...]:
    if isinstance(value, str):
        if re.match(r"/|[a-z0-9]+://|[\w.-]+/[\w.-]+$", value):
            raise refuse("prompts from a source are not built yet; allowed: a JSON list")
        try:
            value = json.loads(value)
        except ValueError:
            raise refuse('not JSON; allowed: a JSON list such as ["Who are you?"]') from None
    if not isinstance(value, list | tuple):
        raise refuse("allowed: a JSON list of texts, or of lists of {role, content}")
    return tuple(_chat(item, number) for number, item in enumerate(value, 1))


def _chat(item: Any, number: int) -> Chat:
    """One prompt as a chat: a text is one user message."""
    chat = [{"role": "user", "content": item}] if isinstance(item, str) else item
    if not isinstance(chat, list | tuple) or not chat:
        raise refuse(f"prompt {number}: allowed: a text, or a list of {{role, content}}")
    for message in chat:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise refuse(f"prompt {number}: allowed: messages with exactly role and content")
        if message["role"] not in _ROLES:
            raise refuse(f"prompt {number}: allowed roles: {', '.join(_ROLES)}")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise refuse(f"prompt {number}: the content is empty or not a text")
    if chat[-1]["role"] != "user":
        raise refuse(f"prompt {number}: the last message must be the user's, to be answered")
    return tuple(cast("Chat", ({**message} for message in chat)))


def _as_words(value: tuple[str, ...]) -> str:
    return ",".join(value)


SAVES = ("lora", "merged_16bit")
TRACKERS = ("none", "wandb", "mlflow", "trackio", "tensorboard")
_TEXT = WithJsonSchema({"type": "string"})
_LIST = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)
_COMMA = PlainSerializer(_as_words, return_type=str)
Saves = Annotated[tuple[str, ...], BeforeValidator(_word_list(SAVES)), _COMMA, _LIST]
Trackers = Annotated[
    tuple[str, ...], BeforeValidator(_word_list(TRACKERS, alone="none")), _COMMA, _LIST
]
Targets = Annotated[tuple[str, ...], BeforeValidator(_targets), _COMMA, _LIST]
Name = Annotated[str, BeforeValidator(_name)]
Day = Annotated[str, BeforeValidator(_day)]
Folder = Annotated[Path, BeforeValidator(_folder), _TEXT]
RemoteCode = Annotated[str, BeforeValidator(_remote_code)]
Url = Annotated[str, BeforeValidator(_url)]
_MESSAGE = {
    "type": "object",
    "properties": {"role": {"enum": list(_ROLES)}, "content": {"type": "string"}},
    "required": ["role", "content"],
    "additionalProperties": False,
}
Prompts = Annotated[
    tuple[Chat, ...],
    BeforeValidator(_prompts),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "array", "items": _MESSAGE}]},
        }
    ),
]
