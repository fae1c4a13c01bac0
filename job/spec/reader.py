"""Environment → JobSpec, or one SpecError that names everything that is wrong.

An error line holds the variable (the lower-case key when it came from JOB_SPEC), what was given,
and what is allowed. It holds no secret: values that look like one are not shown, and the text as a
whole goes through the redactor.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from job.credentials import SECRETS, read_credentials
from job.errors import SpecError
from job.redact import Redactor, holds_secret
from job.spec import carriers, docs
from job.spec.model import JobSpec
from job.spec.rules import NOT_BUILT, contradictions, not_built

PREFIX = "JOB_"
_CARRIER = "JOB_SPEC"
_NOT_OURS = frozenset({"JOB_COMPLETION_INDEX"})  # Kubernetes sets it in indexed Jobs
_SECRET_WORDS = re.compile(r"token|secret|password|api_?key|access_?key|credential")
_PLACEHOLDERS = {"model": "org/name", "dataset": "org/name", "output": "file:///placeholder"}


class Given(NamedTuple):
    """A value, the name under which the user gave it, and whether that was a variable."""

    name: str
    value: Any
    variable: bool


def read_spec(environ: Mapping[str, str], fetch: Callable[[str], bytes] | None = None) -> JobSpec:
    """The job that these variables describe.

    Args:
        environ: the environment; only JOB_* and the credentials' names are looked at.
        fetch: gets the bytes of a JOB_SPEC that is an s3:// or https:// URI.

    Raises:
        SpecError: with every problem at once, each naming its variable or key.
    """
    problems: list[str] = []
    secrets = _secrets(environ, problems)
    given = _given(environ, fetch, problems)
    known, refused = _sort_out(given, secrets, problems)
    values = {key: item.value for key, item in known.items()}
    try:
        spec = JobSpec.model_validate(values)
        failed: set[str] = set()
    except ValidationError as error:
        failed = {str(finding["loc"][0]) for finding in error.errors(include_url=False)}
        problems += _findings(error, known, refused)
        spec = _stand_in(values, failed)
    problems += _contradictions(spec, known, failed | refused)
    problems += _without_effect(spec, known, failed, environ)
    if problems:
        redact = Redactor(secrets)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise SpecError(f"the job spec has {count}", problems=[redact(line) for line in problems])
    return spec


def _secrets(environ: Mapping[str, str], problems: list[str]) -> list[str]:
    """The secret values to keep out of sight; what is wrong with them is a problem too."""
    try:
        return read_credentials(environ).values()
    except SpecError as error:
        problems += error.problems
        return [environ[name].strip() for name in SECRETS if environ.get(name, "").strip()]


def _given(
    environ: Mapping[str, str], fetch: Callable[[str], bytes] | None, problems: list[str]
) -> dict[str, Given]:
    """Every key that is set, known or not; a variable overrides JOB_SPEC."""
    given: dict[str, Given] = {}
    text = environ.get(_CARRIER, "").strip()
    if text:
        try:
            found = carriers.read_carrier(text, fetch)
        except carriers.CarrierError as error:
            problems.append(f"{_CARRIER}: {error}")
        else:
            given = {key: Given(key, _bare(value), variable=False) for key, value in found.items()}
    secrets = {name for secret in SECRETS for name in (secret, f"{secret}_FILE")}
    for name in environ:
        if name.upper().startswith(PREFIX) and name not in secrets | {_CARRIER} | _NOT_OURS:
            key = name.removeprefix(PREFIX).lower() if name == name.upper() else name
            if value := environ[name].strip():
                given[key] = Given(name, value, variable=True)
    return {key: item for key, item in given.items() if item.value not in (None, "", [])}


def _bare(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _sort_out(
    given: dict[str, Given], secrets: list[str], problems: list[str]
) -> tuple[dict[str, Given], set[str]]:
    """The known keys with values fit to be looked at, and the known keys that were refused."""
    known: dict[str, Given] = {}
    refused: set[str] = set()
    for key, item in given.items():
        if key not in JobSpec.model_fields:
            problems.append(_unknown(key, item))
        elif _is_secret(item.value, secrets):
            refused.add(key)
            problems.append(
                f"{item.name}: holds what looks like a secret (not shown); allowed: no secret in"
                " any key, set HF_TOKEN, AWS_* and the like instead, or NAME_FILE"
            )
        else:
            known[key] = item
    return known, refused


def _unknown(key: str, item: Given) -> str:
    """The line for a name that is no key, with the nearest one in the same spelling."""
    bare = key.lower().removeprefix(PREFIX.lower())
    if bare in JobSpec.model_fields or (bare == "spec" and item.variable):
        near = [bare]
    elif _SECRET_WORDS.search(bare):
        named = {secret.lower().removeprefix("job_"): secret for secret in SECRETS}
        secret = named.get(bare, "HF_TOKEN, AWS_* or the like")
        return f"{item.name}: secrets are never keys (not shown); set {secret}, or its _FILE form"
    else:
        near = difflib.get_close_matches(bare, JobSpec.model_fields, n=1, cutoff=0.6)
    spelled = [f"{PREFIX}{name.upper()}" if item.variable else name for name in near]
    hint = f"did you mean {spelled[0]}?" if spelled else "the command `schema` prints all keys"
    return f"{item.name[:60]}: unknown {'variable' if item.variable else 'key'}; {hint}"


def _is_secret(value: Any, secrets: list[str]) -> bool:
    """Whether a value, or a text anywhere inside it, is a known secret or looks like one."""
    if isinstance(value, dict):
        return any(_is_secret(part, secrets) for part in (*value, *value.values()))
    if isinstance(value, list | tuple):
        return any(_is_secret(part, secrets) for part in value)
    text = str(value)
    return holds_secret(text) or any(len(s) >= 8 and s in text for s in secrets)


def _findings(error: ValidationError, known: dict[str, Given], refused: set[str]) -> Iterator[str]:
    """pydantic's findings as lines; a key that was refused for its secret is not also missing."""
    seen = set(refused)
    for finding in error.errors(include_url=False):
        key = str(finding["loc"][0])
        if key in seen:
            continue
        seen.add(key)
        if finding["type"] == "missing":
            yield f"{PREFIX}{key.upper()}: missing, and required: {docs.meaning(key)}"
            continue
        free = finding["type"] == "refused"  # a text that is free in form, with its own words
        why = finding["msg"] if free else f"allowed: {docs.allowed(key)}"
        shown = _shown(known[key].value, longest=200 if free else 20)
        yield f"{known[key].name}: given {shown}; {why}"


def _shown(value: Any, longest: int) -> str:
    """A value for a person: cut short, and not at all when it might be a secret.

    No number, boolean or choice is longer than 20 characters: what is may be a secret.
    """
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    text = str(value)
    for run in re.findall(r"[A-Za-z0-9+/=_]{16,}", text):
        kinds = (re.search(kind, run) for kind in (r"[a-z]", r"[A-Z]", r"[0-9]"))
        if sum(map(bool, kinds)) == 3 or re.fullmatch(r"[0-9a-f]{24,}", run):
            return "a long value (not shown)"
    if len(text) > longest:
        return "a long value (not shown)"
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _stand_in(values: dict[str, Any], failed: set[str]) -> JobSpec:
    """The spec with the failing keys left out, so that the other keys can still be compared."""
    fit = {key: value for key, value in values.items() if key not in failed}
    return JobSpec.model_validate(_PLACEHOLDERS | fit)


def _contradictions(spec: JobSpec, known: dict[str, Given], failed: set[str]) -> Iterator[str]:
    for keys, why in contradictions(spec):
        if not failed.intersection(keys):
            names = [known[k].name if k in known else f"{PREFIX}{k.upper()}" for k in keys]
            yield f"{' and '.join(names)}: {why}"


def _without_effect(
    spec: JobSpec, known: dict[str, Given], failed: set[str], environ: Mapping[str, str]
) -> Iterator[str]:
    """Lines for keys and secrets that are set but would do nothing."""
    for key, (allowed, _) in NOT_BUILT.items():
        if key in known and key not in failed:
            value = spec.model_dump(mode="json")[key]
            if str(value).lower() not in allowed:
                yield f"{known[key].name}: {not_built(key)}"
    secret = "JOB_WEBHOOK_SECRET"  # noqa: S105 - a name
    for name in (secret, f"{secret}_FILE"):
        if environ.get(name, "").strip() and spec.webhook_url is None:
            yield f"{name}: signs nothing without JOB_WEBHOOK_URL; set that too, or leave it unset"
