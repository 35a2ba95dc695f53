"""JSON without the `json` package (which imports `re` and `enum`): the C scanner and encoder behind it, bounded."""

from __future__ import annotations

import posix
import sys
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


class _JSONError(ValueError):
    """What is wrong with a text and where, as `json.decoder.JSONDecodeError` says it."""

    def __init__(self, why: str, text: str, offset: int) -> None:
        line = text.count("\n", 0, offset) + 1
        column = offset - text.rfind("\n", 0, offset)
        super().__init__(f"{why}: line {line} column {column} (char {offset})")


class _Decoder:
    """Stands for the module where the scanner looks for the exception it raises, while nobody has imported that."""

    JSONDecodeError = _JSONError


def decode(raw: bytes, name: str = "JSON") -> Any:
    """Parse one document.

    Args:
        raw: UTF-8 text.
        name: what the text is, for the error.

    Raises:
        Failure: it is not JSON, or nested too deeply; the message names line and column where they are known.
    """
    try:
        text = raw.decode("utf-8")
        value, end = _scan(text, len(text) - len(text.lstrip(_SPACE)))
        rest = text[end:].lstrip(_SPACE)
        if rest:
            raise _JSONError("Extra data", text, len(text) - len(rest))
    except RecursionError:
        raise Failure(f"{name}: not JSON this program reads: nested too deeply") from None
    except ValueError as error:
        raise Failure(f"{name}: not JSON: {error}") from None
    return value


def _scan(text: str, start: int) -> tuple[Any, int]:
    modules: dict[str, Any] = sys.modules
    lent = {"json", "json.decoder"} - modules.keys()
    modules.update(dict.fromkeys(lent, _Decoder))
    try:
        return make_scanner(_Options)(text, start)  # type: ignore[arg-type]
    except StopIteration as stop:
        raise _JSONError("Expecting value", text, stop.value) from None
    finally:
        for name in lent:
            del modules[name]


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
    """Write a file whole or not at all: under a temporary name in the same directory, which is then changed.

    Raises:
        OSError: it cannot be written; nothing is left of it, and the error names it.
    """
    directory, _, name = path.rpartition("/")
    temporary = f"{directory}/.{name}.{posix.getpid()}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW
    try:
        fd = posix.open(temporary, flags, mode)
    except FileExistsError:  # of a process that was killed at this, and had the same number
        posix.unlink(temporary)
        fd = posix.open(temporary, flags, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[posix.write(fd, view) :]
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
    except OSError as error:
        try:
            posix.unlink(temporary)
        except OSError:  # its directory has gone, too
            pass
        error.filename = path
        raise
