"""How data is printed: bytes as they are, JSON, plain tables, and sizes people read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence

from argosy.cli.failure import printable

_CONTROLS = r"[\x7f-\x9f]"
"""Control characters that JSON lets through as they are."""


def raw(data: bytes) -> None:
    """Bytes to stdout, exactly."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def document(value: object) -> None:
    """A JSON document to stdout, indented for people."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        right = text.encode(sys.stdout.encoding or "utf-8") == text.encode()
    except UnicodeEncodeError:  # a lone surrogate, or a terminal that knows fewer characters
        right = False
    if not right:  # JSON is UTF-8, whatever people are shown in
        text = json.dumps(value, indent=2)
    print(re.sub(_CONTROLS, lambda found: f"\\u{ord(found[0]):04x}", text))


def lines(values: Iterable[object]) -> None:
    """Values to stdout, one a line, without control characters."""
    for value in values:
        print(printable(str(value)))


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Rows to stdout in aligned columns, without control characters; numbers to the right."""
    text = [[printable(str(cell)) for cell in row] for row in ([header, *rows] if header else rows)]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    right = [all(isinstance(row[i], int) for row in rows) for i in range(len(widths))]
    for row in text:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        print("  ".join(cells).rstrip())


def size(number: int) -> str:
    """A number of bytes for people.

    >>> size(999), size(1_500_000)
    ('999 B', '1.5 MB')
    """
    if number < 1000:
        return f"{number} B"
    power = min((len(str(number)) - 1) // 3, len(_UNITS))
    return f"{number / 1000**power:.1f} {_UNITS[power - 1]}"


_UNITS = ("kB", "MB", "GB", "TB", "PB")
