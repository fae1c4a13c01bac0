"""The model card: README.md of the adapter, of the merged model and of their Hub repositories.

A card may become public. It names Hub models and datasets; of paths, buckets and addresses it
tells only what kind of place they are. The metadata follows huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

from typing import Any

import yaml

from job.languages import LANGUAGES
from job.report import audit, loading, tiles, view, words

Result = dict[str, Any]
SAMPLE_CHARACTERS = 800
CARD_SETTINGS = (
    "precision", "max_seq_length", "train_on", "lora_r", "lora_alpha", "lora_dropout",
    "batch_size", "learning_rate", "scheduler", "optimizer", "warmup_steps", "weight_decay", "seed",
)  # fmt: skip


def render_card(result: Result, kind: str) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        result: the result of a run whose weights of this kind are saved.
        kind: "adapter" or "merged".
    """
    header = yaml.safe_dump(metadata(result, kind), sort_keys=False, allow_unicode=True)
    load = loading.adapter if kind == "adapter" else loading.merged
    sections = [
        _introduction(result, kind),
        "## Intended use\n\n*Left for the publisher of this model to write.*",
        "## How to load it\n\n" + load(result),
        "## Results\n\n" + _verdict(result) + _table(_results(result)),
        "## Training\n\n" + _table(_training(result)),
    ]
    if result.get("audit"):
        sections.append("## Data\n\n" + _table(audit.main_facts(result["audit"])))
    if result.get("samples"):
        sections.append("## Before and after\n\n" + _sample(result["samples"][0]))
    return f"---\n{header}---\n\n" + "\n\n".join(sections) + "\n"


def metadata(result: Result, kind: str) -> dict[str, Any]:
    """The front matter: only what the Hub can check and what is known."""
    model = result.get("model") or {}
    fields: dict[str, Any] = {}
    if base := words.hub_id(view.model_uri(result)):
        fields["base_model"] = base
        fields["base_model_relation"] = "adapter" if kind == "adapter" else "finetune"
    fields["library_name"] = "peft" if kind == "adapter" else "transformers"
    fields["pipeline_tag"] = "text-generation"
    fields |= _licence(model, base)
    names = (words.hub_id(dataset["uri"]) for dataset in view.training_sets(result))
    if datasets := list(dict.fromkeys(name for name in names if name)):
        fields["datasets"] = datasets
    if languages := _languages(result):
        fields["language"] = languages
    fields["tags"] = ["finetune-job", "unsloth", "sft", "lora"]
    return fields


def _licence(model: Result, base: str | None) -> dict[str, str]:
    """The base's licence; a file of its repository as a link that can be followed from here."""
    found = dict(model.get("licence") or {})
    link = found.get("license_link")
    if link and "://" not in link:
        revision = model.get("revision") or "main"
        found["license_link"] = f"https://huggingface.co/{base}/blob/{revision}/{link}"
    return found


def _languages(result: Result) -> list[str]:
    """ISO 639-1 codes, as the Hub wants them, of languages that datasets name in English."""
    named = (str(name).lower() for name in (result.get("audit") or {}).get("languages") or {})
    codes = (name if name in LANGUAGES.values() else LANGUAGES.get(name) for name in named)
    return sorted({code for code in codes if code})


def _introduction(result: Result, kind: str) -> str:
    uri = view.model_uri(result)
    base = f"`{words.hub_id(uri)}`" if words.hub_id(uri) else f"a model in {words.public_name(uri)}"
    what = (
        "A LoRA adapter" if kind == "adapter" else "A fine-tuned model, with a LoRA merged into it,"
    )
    sources = [words.public_name(dataset["uri"]) for dataset in view.training_sets(result)]
    text = f"# {result['run']}\n\n{what} {'for' if kind == 'adapter' else 'made from'} {base}"
    if revision := (result.get("model") or {}).get("revision"):
        text += f" at revision `{revision}`"
    text += f", trained on rows of {_and(sources)}." if sources else "."
    if result["status"] != "done":
        text += "\n\n> The run that made this did not finish; look at its report before use."
    return text


def _and(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:-1]) + " and " + unique[-1] if len(unique) > 1 else unique[0]


def _verdict(result: Result) -> str:
    """The page's headline, if the run has one that is about its numbers."""
    if result["status"] != "done":
        return ""
    headline = view.headline(result)
    return f"{headline.text}. {headline.note}\n\n"


def _results(result: Result) -> list[tuple[str, str]]:
    skip = {"Peak memory", "Training time", "Time in all"}
    found = [
        (f"{tile.label} ({tile.note})" if tile.note else tile.label, tile.value)
        for tile in tiles.tiles(result)
        if tile.label not in skip
    ]
    return found + [(f"Merge, {what.lower()}", value) for what, value in _merge(result)]


def _merge(result: Result) -> list[tuple[str, str]]:
    known = ("relative_error", "tolerance", "greedy_agreement")
    merge = result.get("merge") or {}
    return view.merge_facts({key: merge[key] for key in known if key in merge})


def _training(result: Result) -> list[tuple[str, str]]:
    decided = {key: setting["value"] for key, setting in (result.get("plan") or {}).items()}
    used = result["spec"] | decided
    facts = [(key, words.number(used[key])) for key in CARD_SETTINGS if used.get(key) is not None]
    device = (result.get("device") or {}).get("name")
    versions = result.get("versions") or {}
    libraries = ("unsloth", "transformers", "trl", "peft", "torch")
    installed = ", ".join(f"{name} {versions[name]}" for name in libraries if name in versions)
    known = (("device", device), ("with", installed))
    return [*facts, *((name, value) for name, value in known if value)]


def _table(rows: list[tuple[str, str]]) -> str:
    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

    return "\n".join(["| | |", "| --- | --- |", *(f"| {cell(a)} | {cell(b)} |" for a, b in rows)])


def _sample(sample: Result) -> str:
    parts = [("Prompt", words.prompt_text(sample["prompt"]))]
    for moment in ("before", "after"):
        if answer := sample.get(moment):
            title = f"{moment.capitalize()} training"
            if answer.get("analysis"):
                parts.append((f"{title}, reasoning", answer["analysis"]))
            parts.append((title, words.answer_text(answer) or "(no answer)"))
    return "\n\n".join(f"{title}:\n\n{_fenced(text)}" for title, text in parts)


def _fenced(text: str) -> str:
    """A text as a code block that it cannot leave, whatever backticks it holds."""
    text = words.printable(text)
    if len(text) > SAMPLE_CHARACTERS:
        text = text[:SAMPLE_CHARACTERS].rstrip() + " …"
    runs = "".join(char if char == "`" else " " for char in text).split()
    fence = "`" * max(3, *(len(run) + 1 for run in runs), 3)
    return f"{fence}text\n{text}\n{fence}"
