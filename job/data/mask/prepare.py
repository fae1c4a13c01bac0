"""A row's messages made ready for the template: stripped, hidden where needed, and folded.

What a chat template cannot say is written into the conversation as text, so that none is lost.

The forms are those that most open models know: <think> for reasoning, <tool_call> and
<tool_response> for functions, and instructions before the first question where a template has no
system turn. A template that has words of its own for a part keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from job.data.mask.control import Hidden
from job.data.mask.marks import Turn, unused_characters
from job.data.mask.one_call import one_call_a_turn
from job.data.mask.template import ChatTemplate
from job.data.rows import Message, Row

_TOOLS = """# Tools

You may call these functions. A call is one JSON object with "name" and "arguments" between \
<tool_call> and </tool_call>.

<tools>
{tools}
</tools>"""


@dataclass(slots=True)
class Prepared:
    """A conversation as the template shall get it.

    Attributes:
        hidden: the slots in it.
        characters: private-use characters that are not in it.
        folded: something is said as text for which the template has no words.
    """

    turns: list[Turn]
    tools: list[dict[str, Any]] | None
    hidden: Hidden
    characters: Iterator[str]
    folded: bool


def prepare(row: Row, messages: Sequence[Message], template: ChatTemplate) -> Prepared:
    """The messages as the template shall get them.

    Raises:
        BadRow: calls that the template has no way to say.
    """
    characters = unused_characters(messages, row.tools)
    hidden = Hidden(template.guarded, characters)
    turns = [_turn(hidden, message, index, row.context) for index, message in enumerate(messages)]
    tools: list[dict[str, Any]] | None = hidden.hide(row.tools) if row.tools else None
    folded = False
    if any(turn.calls for turn in turns):
        if not template.says_calls:
            folded = True
            _fold_calls(turns)
        elif not template.says_many_calls:
            turns = one_call_a_turn(turns)
    if any(turn.message["role"] == "tool" for turn in turns) and not template.says_results:
        folded = True
        turns = _fold_results(turns)
    if tools and not template.says_tools:
        folded = True
        _add_system(turns, _TOOLS.format(tools="\n".join(map(_json, tools))))
        tools = None
    if tools and template.is_harmony:
        tools = [_described(tool) for tool in tools]
    if turns[0].message["role"] == "system" and not template.says_system:
        folded = True
        _fold_system(turns)
    for turn in turns:
        _place(turn, template)
        turn.slot = next(characters) if turn.thinking or turn.preamble else ""
    return Prepared(turns, tools, hidden, characters, folded)


def _turn(hidden: Hidden, message: Message, index: int, context: int) -> Turn:
    given = {key: value if key == "role" else hidden.hide(value) for key, value in message.items()}
    given["content"] = given["content"].strip()
    trained = given["role"] == "assistant" and index >= context
    return Turn(given, index, trained, len(given.get("tool_calls", ())))


def _fold_calls(turns: list[Turn]) -> None:
    """Writes calls into the content."""
    for turn in turns:
        for call in turn.message.pop("tool_calls", ()):
            text = f"<tool_call>\n{_json(call['function'])}\n</tool_call>"
            turn.message["content"] = "\n".join(filter(None, [turn.message["content"], text]))


def _fold_results(turns: list[Turn]) -> list[Turn]:
    """Writes results as turns of the user, those that follow each other as one."""
    found: list[Turn] = []
    for turn, before in zip(turns, [None, *turns], strict=False):
        if turn.message["role"] != "tool":
            found.append(turn)
            continue
        text = f"<tool_response>\n{turn.message['content']}\n</tool_response>"
        if before and before.message["role"] == "tool":
            found[-1].message["content"] += f"\n{text}"
        else:
            found.append(Turn({"role": "user", "content": text}, turn.index, trained=False))
    return found


def _add_system(turns: list[Turn], text: str) -> None:
    """Ends the system turn with a text, or begins the conversation with one."""
    if turns[0].message["role"] == "system":
        turns[0].message["content"] += f"\n\n{text}"
    else:
        turns.insert(0, Turn({"role": "system", "content": text}, 0, trained=False))


def _fold_system(turns: list[Turn]) -> None:
    """Begins the first question with the system text, as the makers of Gemma advise."""
    system = turns.pop(0).message["content"]
    turns[0].message["content"] = f"{system}\n\n{turns[0].message['content']}"


def _described(tool: dict[str, Any]) -> dict[str, Any]:
    """The schema with a description, without which Harmony's template fails."""
    return {**tool, "function": {"description": "", **tool["function"]}}


def _place(turn: Turn, template: ChatTemplate) -> None:
    """Gives the template the reasoning by its own name, and keeps back what it cannot place."""
    message = turn.message
    thinking = message.pop("thinking", "").strip()
    if thinking and template.mode == "think-tags":
        turn.thinking = thinking
    elif thinking:
        message[template.thinking_key] = thinking
    if "tool_calls" in message and template.is_harmony:
        turn.preamble, message["content"] = message["content"], ""


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
