"""What the Hub double makes of a README's metadata: read by huggingface_hub, judged by the rules of
huggingface.co/docs/hub/model-cards."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.utils import HFValidationError, validate_repo_id

RELATIONS = {"adapter", "finetune", "merge", "quantized"}
# Of huggingface.co/docs/hub/repositories-licenses, those that the tests use, and no others.
LICENCES = {"apache-2.0", "mit", "gemma", "other"}
TEXTS = ("library_name", "pipeline_tag", "license_name", "license_link")


def front_matter(content: str) -> dict[str, Any]:
    """A README's metadata; {} without any."""
    return dict(ModelCard(content, ignore_metadata_errors=False).data.to_dict())


def metadata_errors(found: dict[str, Any]) -> list[str]:
    """Why the Hub would refuse a README with this metadata."""
    errors = [
        f'"{key}" {found[key]!r} is no repository'
        for key in ("base_model", "datasets")
        for name in _listed(found.get(key))
        if not _is_repository(name)
    ]
    if found.get("base_model_relation", "adapter") not in RELATIONS:
        errors.append('"base_model_relation" must be one of ' + ", ".join(sorted(RELATIONS)))
    if found.get("license", "mit") not in LICENCES:
        errors.append(f'"license" {found["license"]!r} is not known')
    if wrong := [c for c in _listed(found.get("language")) if not re.fullmatch("[a-z]{2}", str(c))]:
        errors.append(f'"language" must be ISO 639-1 codes, not {wrong}')
    errors += [f'"{key}" must be text' for key in TEXTS if not isinstance(found.get(key, ""), str)]
    errors += [f"tag {tag!r} is no text" for tag in found.get("tags", []) if type(tag) is not str]
    return errors


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _is_repository(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
