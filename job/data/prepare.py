"""A row's messages made ready for the template: stripped, checked, and folded where needed.

What a chat template cannot say is written into the conversation as text, so that none is lost.

The forms are those that most open models know: <think> for reasoning, <tool_call> and
<tool_response> for functions. A template that has words of its own for a part keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from job.data.marks import Turn
from job.data.rows import Message, Row
from job.data.template import ChatTemplate

_TOOLS = """# Tools

You may call these functions. A call is one JSON object with "name" and "arguments" between \
<tool_call> and </tool_call>.

<tools>
{tools}
</tools>"""


def prepare(
    row: Row, messages: Sequence[Message], template: ChatTemplate
) -> tuple[list[Turn], list[Message] | None]:
    """The messages as the template shall get them: stripped, folded where needed, checked.

    Raises:
        BadRow: a control token in what is said.
    """
    for index, message in enumerate(messages):
        _refuse_control(message, f"messages[{index}]", template)
    for tool in row.tools or ():
        template.refuse_control(_json(tool), "tools")
    folded, tools = _fold_tools(messages, row.tools, template)
    key = template.thinking_key
    added = len(folded) - len(messages)  # a system turn that holds the tools
    turns = []
    for index, message in enumerate(folded, -added):
        thinking = message.pop("thinking", "").strip()
        message["content"] = message["content"].strip()
        turn = Turn(
            message,
            f"messages[{index}]",
            trained=message["role"] == "assistant" and index >= row.context,
            calls=len(messages[index].get("tool_calls", ())) if index >= 0 else 0,
        )
        if thinking and template.mode == "think-tags":
            turn.thinking = thinking
        elif thinking:
            message[key] = thinking
        turns.append(turn)
    return turns, tools


def _refuse_control(message: Message, column: str, template: ChatTemplate) -> None:
    for key in ("content", "thinking", "name"):
        template.refuse_control(message.get(key, ""), f"{column}.{key}")
    for call in message.get("tool_calls", ()):
        template.refuse_control(_json(call["function"]), f"{column}.tool_calls")


def _fold_tools(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None, template: ChatTemplate
) -> tuple[list[Message], list[dict[str, Any]] | None]:
    """The same conversation with calls, results and schemas as text where the template needs it.

    Returns:
        New messages (the given ones are left alone), and the tools that the template renders.
    """
    found = [_fold_message(message, template) for message in messages]
    if not tools or template.says_tools:
        return found, list(tools) if tools else None
    schemas = "\n".join(_json(tool) for tool in tools)
    system = _TOOLS.format(tools=schemas)
    if found[0]["role"] == "system":
        found[0]["content"] = f"{found[0]['content']}\n\n{system}"
    else:
        found.insert(0, {"role": "system", "content": system})
    return found, None


def _fold_message(message: Message, template: ChatTemplate) -> Message:
    if message.get("tool_calls") and not template.says_calls:
        calls = [_call_text(call["function"]) for call in message["tool_calls"]]
        kept = {key: value for key, value in message.items() if key != "tool_calls"}
        return {**kept, "content": "\n".join([*filter(None, [message["content"]]), *calls])}
    if message["role"] == "tool" and not template.says_results:
        text = f"<tool_response>\n{message['content']}\n</tool_response>"
        return {"role": "user", "content": text}
    return dict(message)


def _call_text(function: dict[str, Any]) -> str:
    return f"<tool_call>\n{_json(function)}\n</tool_call>"


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
