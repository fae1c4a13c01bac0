"""What the fields of JobSpec say to people and programs: JSON Schema, README parts, error texts."""

from __future__ import annotations

from functools import cache
from typing import Any

from job.spec.model import JobSpec
from job.spec.rules import NOT_BUILT

_DEFAULTS_IN_WORDS = {"name": "`run-<hash>`", "template_date": "first start, UTC"}


@cache
def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the flat keys, as in JOB_SPEC and a serverless input."""
    made = JobSpec.model_json_schema(mode="validation")
    properties = {key: _property(key, schema) for key, schema in made["properties"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "finetune-job spec",
        "description": "Each key is also the variable JOB_ + upper case, which overrides it.",
        "type": "object",
        "properties": properties,
        "required": made["required"],
        "additionalProperties": False,
    }


def _property(key: str, made: dict[str, Any]) -> dict[str, Any]:
    """pydantic's schema of one key in the user's spelling: no titles, no nulls, flat defaults."""
    kinds = [kind for kind in made.get("anyOf", ()) if kind != {"type": "null"}]
    schema = {name: value for name, value in made.items() if name not in ("title", "default")}
    if kinds and len(kinds) < len(made["anyOf"]):  # an optional key is unset, never null
        del schema["anyOf"]
        schema |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    default = _as_written(key)
    return schema if default is None else schema | {"default": default}


def _as_written(key: str) -> Any:
    """The default as a user would write it; None when there is none."""
    default = JobSpec.model_fields[key].get_default()
    if isinstance(default, tuple):
        return ",".join(default) or None
    if default is None or JobSpec.model_fields[key].is_required():
        return None
    return default if isinstance(default, int | float | str) else str(default)


def table() -> str:
    """The keys as a markdown table, for the README."""
    rows = ["| key | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in JobSpec.model_fields.items():
        name = f"**{key}**" if field.is_required() else key
        note = " *(not built yet)*" if key in NOT_BUILT else ""
        text = meaning(key).replace("|", "\\|")
        rows.append(f"| {name} | `JOB_{key.upper()}` | {_default_text(key)} | {text}{note} |")
    return "\n".join(rows) + "\n"


def limits() -> str:
    """The keys that are refused when set, as a markdown list by reason."""
    by_reason: dict[str, list[str]] = {}
    for key, (_, reason) in NOT_BUILT.items():
        by_reason.setdefault(reason, []).append(f"`{key}`")
    return "".join(f"- {', '.join(keys)}: {reason}\n" for reason, keys in by_reason.items())


def fill(page: str) -> str:
    """A markdown page whose made parts, each between two comments with its name, are made anew.

    Raises:
        ValueError: a comment is missing.
    """
    for name, made in (("spec table", table()), ("not built", limits())):
        begin = f"<!-- {name}: `make docs` -->\n"
        start = page.index(begin) + len(begin)
        page = page[:start] + made + page[page.index(f"<!-- end of {name} -->", start) :]
    return page


def _default_text(key: str) -> str:
    if JobSpec.model_fields[key].is_required():
        return "required"
    default = _as_written(key)
    if default is None:
        return _DEFAULTS_IN_WORDS.get(key, "(empty)")
    return str(default).lower() if isinstance(default, bool) else f"`{default}`"


def meaning(key: str) -> str:
    """The description of a key."""
    return JobSpec.model_fields[key].description or ""


def allowed(key: str) -> str:
    """What a key may be, in words, from its schema."""
    schema = json_schema()["properties"][key]
    if "anyOf" in schema:
        return " or ".join(_in_words(kind) for kind in schema["anyOf"])
    return _in_words(schema)


def _in_words(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if schema.get("type") == "boolean":
        return "true, false, 1, 0, yes, no"
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "array": "a list",
    }
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    return " ".join([kinds[schema["type"]], " and ".join(bounds)]).strip()
