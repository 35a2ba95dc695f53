"""The text form of GVariant, as annotations `org.systemd.property.NAME` carry values.

Only what systemd's properties can be: booleans, numbers, strings, arrays and tuples, and `@type` or a type's name
before a value. A number without a type is an `i`, as in GLib.
"""

from __future__ import annotations

from argosy.runtime.cgroups.dbus import split
from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMES = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
_RANGES = {
    "y": (0, 1 << 8),
    "n": (-1 << 15, 1 << 15),
    "q": (0, 1 << 16),
    "i": (-1 << 31, 1 << 31),
    "u": (0, 1 << 32),
    "x": (-1 << 63, 1 << 63),
    "t": (0, 1 << 64),
}
_CLASSES: dict[str, tuple[type, ...]] = {
    "b": (bool,),
    "d": (int, float),
    "s": (str,),
    "o": (str,),
    "g": (str,),
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}
DEEPEST = 16


def parse(text: str) -> tuple[str, Any]:
    """Return signature and value of a text.

    Raises:
        Failure: It is no GVariant, or one of a kind that no property has.

    >>> parse("true"), parse("uint64 5"), parse("['a', 'b']"), parse("@au []")
    (('b', True), ('t', 5), ('as', ['a', 'b']), ('au', []))
    """
    parser = _Parser(text)
    found = parser.value("", 0)
    parser.space()
    if parser.at != len(text):
        raise parser.wrong("the end")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def wrong(self, expected: str) -> Failure:
        return Failure(f"{self.text!r}: expected {expected} at position {self.at}")

    def space(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def skip(self, text: str) -> bool:
        self.space()
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def word(self) -> str:
        start = self.at
        while self.at < len(self.text) and (
            self.text[self.at].isalnum() or self.text[self.at] in "+-._()@{}"
        ):
            if self.text[self.at] in "()" and not self.text[start:].startswith("@"):
                break
            self.at += 1
        return self.text[start : self.at]

    def value(self, kind: str, depth: int) -> tuple[str, Any]:
        """Read a value of `kind`, or of the kind it shows itself."""
        if depth > DEEPEST:
            raise self.wrong("less nesting")
        self.space()
        first = self.text[self.at : self.at + 1]
        if first in ("'", '"'):
            return self.typed(kind or "s", self.string(first))
        if first == "[":
            return self.array(kind, depth)
        if first == "(":
            return self.tuple(kind, depth)
        return self.plain(kind, depth)

    def plain(self, kind: str, depth: int) -> tuple[str, Any]:
        start = self.at
        word = self.word()
        if word.startswith("@"):
            return self.value(word[1:], depth + 1)
        if word in _NAMES:
            return self.value(_NAMES[word], depth + 1)
        if word in ("true", "false"):
            return self.typed(kind or "b", word == "true")
        try:
            number: int | float = float(word) if kind == "d" or "." in word else int(word, 0)
        except ValueError:
            self.at = start
            raise self.wrong("a value") from None
        return self.typed(kind or ("d" if isinstance(number, float) else "i"), number)

    def typed(self, kind: str, value: Any) -> tuple[str, Any]:
        """Check that a value can be of its kind."""
        if kind in _RANGES:
            low, high = _RANGES[kind]
            fits = type(value) is int and low <= value < high
        else:
            fits = isinstance(value, _CLASSES.get(kind, ()))
        if not fits:
            raise self.wrong(f"a value of type {kind}")
        return kind, value

    def string(self, quote: str) -> str:
        self.at += 1
        parts: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == quote:
                return "".join(parts)
            if char == "\\":
                char = self.text[self.at : self.at + 1]
                self.at += 1
                char = _ESCAPES.get(char, char)
            parts.append(char)
        raise self.wrong(quote)

    def array(self, kind: str, depth: int) -> tuple[str, Any]:
        self.at += 1
        inner = kind[1:] if kind.startswith("a") else ""
        values: list[Any] = []
        while not self.skip("]"):
            if values and not self.skip(","):
                raise self.wrong("a comma or ]")
            inner, value = self.value(inner, depth + 1)
            values.append(value)
        if not inner:
            raise self.wrong("the type of an empty array, as in @as []")
        return "a" + inner, values

    def tuple(self, kind: str, depth: int) -> tuple[str, Any]:
        self.at += 1
        wanted = split(kind[1:-1]) if kind.startswith("(") else []
        kinds: list[str] = []
        values: list[Any] = []
        while not self.skip(")"):
            if values and not self.skip(","):
                raise self.wrong("a comma or )")
            if self.skip(")"):  # one element: a comma ends it
                break
            given = wanted[len(values)] if len(values) < len(wanted) else ""
            inner, value = self.value(given, depth + 1)
            kinds.append(inner)
            values.append(value)
        return f"({''.join(kinds)})", tuple(values)
