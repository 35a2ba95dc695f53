"""JSON without the `json` package (which imports `re` and `enum`): the C scanner and encoder behind it, bounded."""

from __future__ import annotations

import posix
from _json import encode_basestring_ascii, make_encoder, make_scanner

from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 16 << 20
"""Largest document read, in bytes."""

_SPACE = " \t\n\r"


class _Options:
    """What `make_scanner` reads from `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own


def decode(raw: bytes, name: str = "JSON") -> Any:
    """Parse one document.

    Args:
        raw: UTF-8 text.
        name: what the text is, for the error.

    Raises:
        Failure: it is not JSON, or nested too deeply; the message names the offset where it is known.
    """
    try:
        text = raw.decode("utf-8")
        start = len(text) - len(text.lstrip(_SPACE))
        value, end = make_scanner(_Options)(text, start)  # type: ignore[arg-type]
        if text[end:].strip(_SPACE):
            raise Failure(f"{name}: not JSON: more text after the value at offset {end}")
    except StopIteration as stop:
        raise Failure(f"{name}: not JSON: no value at offset {stop.value}") from None
    except RecursionError:
        raise Failure(f"{name}: not JSON this program reads: nested too deeply") from None
    except ValueError as error:
        raise Failure(f"{name}: not JSON: {error}") from None
    return value


def read_file(path: str | int, limit: int = LIMIT) -> bytes:
    """The bytes of a file (or of an open descriptor), at most ``limit``.

    Raises:
        OSError: it cannot be read.
        Failure: it is larger.
    """
    fd = path if isinstance(path, int) else posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts = []
        while part := posix.read(fd, 1 << 20):
            parts.append(part)
            limit -= len(part)
            if limit < 0:
                raise Failure(f"{path}: too large")
        return b"".join(parts)
    finally:
        if fd is not path:
            posix.close(fd)


def load(path: str) -> Any:
    """`decode` of `read_file`."""
    return decode(read_file(path), path)


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")


def encode(value: Any) -> str:
    """Compact JSON, ASCII only; keys in their order."""
    encoder = make_encoder(
        None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False
    )
    return "".join(encoder(value, 0))


def pretty(value: Any, indent: str = "\n") -> str:
    """JSON with two spaces an indent, as runc prints it."""
    if isinstance(value, dict) and value:
        inner = indent + "  "
        items = [
            f"{encode_basestring_ascii(str(key))}: {pretty(item, inner)}"
            for key, item in value.items()
        ]
        return "{" + inner + ("," + inner).join(items) + indent + "}"
    if isinstance(value, list | tuple) and value:
        inner = indent + "  "
        return (
            "[" + inner + ("," + inner).join(pretty(item, inner) for item in value) + indent + "]"
        )
    return encode(value)


def write_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all: a temporary name in the same directory, fsync, rename."""
    temporary = f"{path}.{posix.getpid()}.tmp"
    fd = posix.open(
        temporary,
        posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW,
        mode,
    )
    try:
        view = memoryview(data)
        while view:
            view = view[posix.write(fd, view) :]
    finally:
        posix.close(fd)
    posix.rename(temporary, path)
