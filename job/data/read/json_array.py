"""A list of rows in a JSON file, read row by row: the file may be larger than memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from job.data.rows import MOST_BYTES
from job.errors import DataError

_CHUNK = 1 << 20
_BLANKS = re.compile(r"[ \t\r\n]*")
_CUT_OFF = "the file ends inside its list; copy or download it again"
_LONGEST_WORD = 16
"""No word or escape of JSON is longer: an error further from the end is one for good."""
_CUT_WORD = re.compile(r"[\\\w+.-]*\s*")


def json_array(stream: IO[bytes], name: str) -> Iterator[tuple[str, Any]]:
    """Each element of the list, with the line where it begins.

    Raises:
        DataError: the text is no list, not UTF-8, not JSON, or ends too early. Where the next row
            begins cannot be told then.
    """
    text = _Text(stream, name)
    text.expect("[")
    while text.next_character() != "]":
        yield text.element()
        if text.next_character() == "]":
            break
        text.expect(",")
        if text.next_character() == "]":
            raise text.broken("a comma before the end of the list")
    text.expect("]")
    if text.next_character():
        raise text.broken("the file goes on after its list; rows are in one list, or one a line")


class _Text:
    """The part of the file that is being read: it grows at its end, what is read is let go."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._counted = 0  # up to here in the text, and where that is in the file
        self._line, self._column = 1, 1
        self._ended = False

    def next_character(self) -> str:
        """The next one that is no blank, which stays; "" at the end of the file."""
        while True:
            found = _BLANKS.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._grow()

    def expect(self, character: str) -> None:
        """Takes the next character. Raises DataError for another one."""
        found = self.next_character()
        if not found:
            raise self.broken(_CUT_OFF)
        if found != character:
            raise self.broken(f"{character!r} is missing")
        self._at += 1

    def element(self) -> tuple[str, Any]:
        """The value that comes next, and "line N"."""
        self._count()
        place = f"line {self._line}"
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_final(error):
                    self._at = error.pos
                    raise self.broken(error.msg) from None
                if self._ended:
                    self._at = len(self._text)
                    raise self.broken(_CUT_OFF) from None
            except (RecursionError, ValueError):
                raise self.broken("nesting or numbers beyond all use") from None
            else:
                if self._ended or end + _LONGEST_WORD < len(self._text):  # else it may go on: 1|e3
                    self._at = end
                    return place, value
            if len(self._text) - self._at > MOST_BYTES:
                raise DataError(
                    f"{self._name}, {place}: one row is longer than {MOST_BYTES >> 20} MiB, or a "
                    "quote in it is never closed."
                )
            self._grow()

    def _is_final(self, error: json.JSONDecodeError) -> bool:
        """Whether more text could not repair it: nothing is open, and no word is cut short."""
        if error.msg.startswith("Unterminated string"):
            return False
        left = self._text[error.pos : error.pos + _LONGEST_WORD + 1]
        return len(left) > _LONGEST_WORD or not _CUT_WORD.fullmatch(left)

    def _grow(self) -> None:
        """Reads as much again as is there, so that a long row is scanned a few times only."""
        self._count()
        self._text = self._text[self._at :]
        self._at = self._counted = 0
        data = self._stream.read(max(_CHUNK, len(self._text)))
        self._ended = not data
        try:
            self._text += self._decode.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].count(b"\n")
            line = self._line + self._text.count("\n") + before
            raise DataError(
                f"{self._name}, line {line}: is not UTF-8 text. Save the file as UTF-8."
            ) from None

    def _count(self) -> None:
        """Brings line and column (from 1) to where the reading is."""
        lines = self._text.count("\n", self._counted, self._at)
        self._line += lines
        self._column += self._at - self._counted
        if lines:
            self._column = self._at - self._text.rfind("\n", self._counted, self._at)
        self._counted = self._at

    def broken(self, what: str) -> DataError:
        """The error for what stands where the reading is."""
        self._count()
        place = f"{self._name}, line {self._line}, column {self._column}"
        return DataError(f"{place}: broken JSON ({what}).")
