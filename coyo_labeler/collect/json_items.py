"""The items of a JSON document, one at a time: exports can be larger than memory."""

import json
from collections.abc import Iterator
from typing import IO, Any

from coyo_labeler.errors import InputError, one_line

#: Characters that are read at once, first; an item that is longer doubles it.
_BLOCK = 1 << 20
#: Characters of one item, at most.
_LONGEST = 1 << 28

_BLANKS = " \t\r\n"
_OF_NUMBERS = "0123456789.eE+-"


def read_items(file: IO[str], where: str) -> Iterator[Any]:
    """The elements of a list, or one document, or documents one after another (JSON lines).

    where: setting and file, for messages.

    Raises: InputError where the text is not JSON, or breaks off.
    """
    try:
        yield from _Items(file, where).read()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is not UTF-8 ({one_line(error, 200)}); export it again"
        ) from None


class _Items:
    """A window on the text that is moved from item to item."""

    def __init__(self, file: IO[str], where: str) -> None:
        self._file, self._where = file, where
        self._text, self._start = "", 0
        self._is_whole = False  # whether the file has been read to its end
        self._decoder = json.JSONDecoder()

    def read(self) -> Iterator[Any]:
        if self._peek() == "[":
            self._start += 1
            yield from self._elements()
            if self._peek():
                raise self._error("there is text behind the list")
            return
        while self._peek():
            yield self._item()

    def _elements(self) -> Iterator[Any]:
        if self._peek() == "]":
            self._start += 1
            return
        while True:
            yield self._item()
            end = self._peek()
            self._start += 1
            if end == "]":
                return
            if end != ",":
                raise self._error("an item does not end in a comma or bracket")

    def _item(self) -> Any:
        """The next item."""
        self._peek()
        while True:
            try:
                item, end = self._decoder.raw_decode(self._text, self._start)
            except RecursionError:
                raise self._error("it is nested too deeply") from None
            except ValueError as error:
                if not self._more():
                    raise self._error(one_line(error, 200)) from None
                continue
            is_number = isinstance(item, int | float)
            if is_number and not self._text[end:].strip(_OF_NUMBERS) and self._more():
                continue  # the rest of the number may follow
            self._start = end
            return item

    def _peek(self) -> str:
        """The next character that is no blank, which stays; "" at the end."""
        while True:
            while self._start < len(self._text):
                if self._text[self._start] not in _BLANKS:
                    return self._text[self._start]
                self._start += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on; at least as much as there is, so that a long item is not parsed too often."""
        if self._is_whole:
            return False
        kept = self._text[self._start :]
        if len(kept) > _LONGEST:
            raise self._error(f"an item has more than {_LONGEST:,} characters")
        block = self._file.read(max(_BLOCK, len(kept)))
        self._is_whole = not block
        self._text, self._start = kept + block, 0
        return bool(block)

    def _error(self, why: str) -> InputError:
        return InputError(f"{self._where} is not readable JSON ({why}); export it again")
