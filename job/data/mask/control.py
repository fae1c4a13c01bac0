"""Text in the content of a row that looks like one of the model's control tokens.

Such text is trained as the plain text it is. While a template works, the first character of each is
replaced by a slot, a private-use character that the conversation does not contain, so that neither
the template nor the tokenizer meets it; the tokenizer's side is in `tokens.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

_MARKUP = re.compile(r"[<\[].*[>\]]", re.DOTALL)
_HTML = re.compile(r"</?[a-z]+[1-6]?>")
_TAG = re.compile(r"</?\w+>")

OWN_TAGS = ("think", "tool_call", "tool_response", "tools")
"""Tags that `prepare.py` writes; where they are tokens of the model, only it may write them."""


def is_control(token: str, special: bool, source: str) -> bool:
    """Whether an added token of a tokenizer steers the model, and is not just a frequent text.

    Gemma holds HTML tags and runs of line breaks as added tokens, and extended vocabularies hold
    whole words; those stay what they are.

    Args:
        special: as the tokenizer has it.
        source: the chat template.
    """
    if not token.strip():
        return False
    if special or token in (f"<{slash}{tag}>" for tag in OWN_TAGS for slash in ("", "/")):
        return True
    return bool(_MARKUP.fullmatch(token)) and (token in source or not _HTML.fullmatch(token))


def tags_in(source: str) -> set[str]:
    """Tags that a chat template mentions: it may look for them in what is said, and act on it."""
    return set(_TAG.findall(source))


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches each of these texts, the longest where several begin at one place.

    They are written as a tree, because a tokenizer may hold thousands that begin alike.
    """
    tree: dict[str, Any] = {}
    for text in texts:
        node = tree
        for character in text:
            node = node.setdefault(character, {})
        node[""] = {}
    return re.compile(_alternatives(tree) if tree else r"(?!)")


def _alternatives(node: dict[str, Any]) -> str:
    """The pattern of a tree's node; its key "" says that a text may end there."""
    ways = []
    for character, below in node.items():
        run = character
        while len(below) == 1 and "" not in below:  # no fork
            ((character, below),) = below.items()
            run += character
        if run:
            ways.append(re.escape(run) + _alternatives(below))
    if not ways:
        return ""
    joined = ways[0] if len(ways) == 1 and "" not in node else f"(?:{'|'.join(ways)})"
    return joined + ("?" if "" in node else "")


def starts(pattern: re.Pattern[str], text: str) -> Iterator[int]:
    """Every place where a match begins, also inside another match."""
    found = pattern.search(text)
    while found:
        yield found.start()
        found = pattern.search(text, found.start() + 1)


class Hidden:
    """The slots of one row.

    Attributes:
        slots: slot -> the character that it stands for.
    """

    def __init__(self, pattern: re.Pattern[str], characters: Iterator[str]) -> None:
        """pattern: what to hide; characters: those that may serve as slots."""
        self._pattern, self._characters = pattern, characters
        self.slots: dict[str, str] = {}

    def hide(self, value: Any) -> Any:
        """The value, a text or JSON, with a slot where something that is hidden begins.

        Every place counts, also one inside another's text, so that hiding leaves none whole.
        """
        if isinstance(value, str):
            return self._hide(value) if self._pattern.search(value) else value
        if isinstance(value, dict):
            return {self.hide(key): self.hide(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(one) for one in value]
        return value

    def _hide(self, text: str) -> str:
        characters = list(text)
        for place in starts(self._pattern, text):
            characters[place] = self._slot(text[place])
        return "".join(characters)

    def _slot(self, character: str) -> str:
        for slot, hidden in self.slots.items():
            if hidden == character:
                return slot
        slot = next(self._characters)
        self.slots[slot] = character
        return slot

    def show(self, text: str) -> str:
        """The text with every slot's character put back."""
        for slot, character in self.slots.items():
            text = text.replace(slot, character)
        return text
