"""JSON as the specifications need it: strict reading, stable writing, and a small codec for values.

Reading refuses what two parsers could understand differently: duplicate names, NaN and Infinity, numbers that become
Infinity, bytes that are not UTF-8, trailing data. It has limits on size and depth, because everything it reads comes
from outside.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from argosy.errors import InvalidConfigError, InvalidError, LimitExceededError
from argosy.spec._value import ABSENT, Value, field

MAX_DEPTH = 128
"""How deep arrays and objects may nest."""

MAX_SIZE = 4 * 1024 * 1024
"""How many bytes a document may have, unless the caller says otherwise."""

T = TypeVar("T")


class _RefusedError(ValueError):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        name = next(n for n, _ in pairs if n in seen or seen.add(n))  # type: ignore[func-returns-value]
        raise _RefusedError(f"duplicate property {name!r}")
    return found


def _no_constant(text: str) -> object:
    raise _RefusedError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):  # read it would be, but never written again
        raise _RefusedError(f"the number {text[:64]} is too large")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def loads(raw: bytes, *, limit: int = MAX_SIZE, error: type[InvalidError] = InvalidError) -> object:
    """Read one strict JSON document.

    Args:
        raw: The document, UTF-8.
        limit: The most bytes it may have.
        error: The class to raise where the document is not valid.

    Raises:
        InvalidError: (or `error`) not JSON, not UTF-8, a name twice in one object, too deep; with the byte offset
            or the property where known; a number that no double holds.
        LimitExceededError: more than `limit` bytes.
    """
    if len(raw) > limit:
        raise LimitExceededError(f"document of {len(raw)} bytes is over the limit of {limit} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise error(f"not UTF-8 at byte {exc.start}") from None
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        raise error(
            f"not JSON at byte {len(text[: exc.pos].encode())}: {exc.msg.lower()}"
        ) from None
    except _RefusedError as exc:
        raise error(str(exc)) from None
    except RecursionError:
        raise error(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:  # more digits than Python converts
        raise error("a number has too many digits") from None
    if _depth(value) > MAX_DEPTH + 1:
        raise error(f"nested deeper than {MAX_DEPTH} levels")
    return value


def loads_object(
    raw: bytes, *, limit: int = MAX_SIZE, error: type[InvalidError] = InvalidError
) -> dict[str, object]:
    """As `loads`, for a document that must be an object.

    Raises:
        InvalidError: (or `error`) also where the document is no object.
        LimitExceededError: more than `limit` bytes.
    """
    value = loads(raw, limit=limit, error=error)
    if not isinstance(value, dict):
        raise error(f"expected a JSON object, got {_name(value)}")
    return value


def dumps(value: object, *, indent: int | None = None) -> bytes:
    """Write JSON: UTF-8, properties in the order given, no white space unless `indent` is given."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        value, ensure_ascii=False, separators=separators, indent=indent, allow_nan=False
    )
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate came in as an escape: it leaves as one
        return json.dumps(value, separators=separators, indent=indent, allow_nan=False).encode()


_NAMES: dict[type, str] = {
    dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number",
    float: "a number", type(None): "null",
}  # fmt: skip


def _name(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)


class Kind(Value):
    """How one sort of property is read and written."""

    decode: Callable[[Any, str, type[InvalidError]], Any]
    encode: Callable[[Any], Any] = lambda value: value


def _typed(expected: type, article: str) -> Callable[[Any, str, type[InvalidError]], Any]:
    def decode(value: Any, where: str, error: type[InvalidError]) -> Any:
        if type(value) is not expected:
            raise error(f"{where}: expected {article}, got {_name(value)}")
        return value

    return decode


def _whole(
    article: str, allowed: range | None = None
) -> Callable[[Any, str, type[InvalidError]], int]:
    def decode(value: Any, where: str, error: type[InvalidError]) -> int:
        if type(value) is not int or (allowed is not None and value not in allowed):
            found = value if type(value) in (int, float) else _name(value)
            raise error(f"{where}: expected {article}, got {found}")
        return value

    return decode


def _decode_base64(value: Any, where: str, error: type[InvalidError]) -> bytes:
    text = _typed(str, "a string")(value, where, error)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as exc:
        raise error(f"{where}: not Base 64: {str(exc).lower()}") from None


def _decode_strings(value: Any, where: str, error: type[InvalidError]) -> tuple[str, ...]:
    return list_of(STRING).decode(value, where, error)  # type: ignore[no-any-return]


def _decode_map(value: Any, where: str, error: type[InvalidError]) -> dict[str, str]:
    _typed(dict, "an object")(value, where, error)
    for key, item in value.items():
        if type(item) is not str:
            raise error(f"{where}.{key}: expected a string, got {_name(item)}")
    return dict(value)


def _decode_set(value: Any, where: str, error: type[InvalidError]) -> tuple[str, ...]:
    _typed(dict, "an object")(value, where, error)
    return tuple(value)


RFC3339 = r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)"


def _decode_time(value: Any, where: str, error: type[InvalidError]) -> str:
    text: str = _typed(str, "a string")(value, where, error)
    if not re.fullmatch(RFC3339, text, re.ASCII):
        raise error(f"{where}: expected a date and time as in RFC 3339, got {text[:64]!r}")
    return text


STRING = Kind(_typed(str, "a string"))
BOOLEAN = Kind(_typed(bool, "a boolean"))
INTEGER = Kind(_whole("a whole number"))
SIZE = Kind(_whole("a whole number of bytes from 0 to 2^63-1", range(1 << 63)))
BASE64 = Kind(_decode_base64, lambda data: binascii.b2a_base64(data, newline=False).decode())
STRINGS = Kind(_decode_strings, list)
STRING_MAP = Kind(_decode_map, dict)
SET = Kind(_decode_set, lambda names: {name: {} for name in names})
TIME = Kind(_decode_time)
ANY = Kind(lambda value, _where, _error: value)


def parsed(parse: Callable[[str], Any]) -> Kind:
    """A string that `parse` turns into a value; its `InvalidError` gets the property's name in front."""

    def decode(value: Any, where: str, error: type[InvalidError]) -> Any:
        text = STRING.decode(value, where, error)
        try:
            return parse(text)
        except InvalidError as exc:
            raise error(f"{where}: {exc}") from None

    return Kind(decode, str)


def list_of(kind: Kind) -> Kind:
    """An array whose items are all of one kind; a tuple in Python."""

    def decode(value: Any, where: str, error: type[InvalidError]) -> tuple[Any, ...]:
        _typed(list, "an array")(value, where, error)
        return tuple(kind.decode(item, f"{where}[{i}]", error) for i, item in enumerate(value))

    return Kind(decode, lambda items: [kind.encode(item) for item in items])


def object_of(cls: type[Any]) -> Kind:
    """An object that is a value made of `prop` fields."""

    def decode(value: Any, where: str, error: type[InvalidError]) -> Any:
        return decode_object(cls, value, where, error)

    return Kind(decode, encode_object)


def prop(name: str, kind: Kind, default: Any = ABSENT, *, always: bool = False) -> Any:
    """A value's field that is the JSON property `name`.

    Args:
        name: The property's name in JSON.
        kind: How it is read and written.
        default: The value where the property is absent or null. Without one the property is REQUIRED.
        always: Written even where it equals its default. With the default None, what is empty is written too: it was
            given.
    """
    metadata = {"name": name, "kind": kind, "always": always}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def extra() -> Any:
    """The field that keeps the properties nobody knows."""
    return field(default_factory=dict)


_PROPERTIES: dict[Any, tuple[tuple[str, str, Kind, bool, bool, bool], ...]] = {}


def _properties(cls: Any) -> tuple[tuple[str, str, Kind, bool, bool, bool], ...]:
    found = _PROPERTIES.get(cls)
    if found is None:
        found = _PROPERTIES[cls] = tuple(
            (
                attribute,
                f.metadata["name"],
                f.metadata["kind"],
                f.default is ABSENT and f.default_factory is ABSENT,
                f.metadata["always"],
                f.default is None,
            )
            for attribute, f in cls._fields.items()
            if "kind" in f.metadata
        )
    return found


def names(cls: type[Any]) -> tuple[str, ...]:
    """The properties that a class of `prop` fields knows, by their names in JSON."""
    return tuple(name for _, name, *_ in _properties(cls))


def decode_object(
    cls: type[T], value: object, where: str = "", error: type[InvalidError] = InvalidConfigError
) -> T:
    """Make a value of `prop` fields from a decoded JSON object; what is not known goes to its field `extra`.

    Raises:
        InvalidError: (or `error`) a REQUIRED property is missing, or one is of the wrong kind.
    """
    if not isinstance(value, dict):
        raise error(f"{where or 'document'}: expected an object, got {_name(value)}")
    known: dict[str, Any] = {}
    rest = dict(value)
    prefix = f"{where}." if where else ""
    for attribute, name, kind, required, _, _ in _properties(cls):
        item = rest.pop(name, None)
        if item is not None:
            known[attribute] = kind.decode(item, prefix + name, error)
        elif required:
            raise error(f"{prefix}{name}: this property is required")
    try:
        return cls(**known, extra=rest)  # type: ignore[call-arg]
    except InvalidError as exc:
        raise error(f"{where}: {exc}" if where else str(exc)) from None


def encode_object(value: Any) -> dict[str, Any]:
    """The JSON object of a value of `prop` fields: known properties in their order, then the unknown ones."""
    out: dict[str, Any] = {}
    for attribute, name, kind, required, always, nullable in _properties(type(value)):
        item = getattr(value, attribute)
        if required or always or not _absent(item, nullable):
            out[name] = kind.encode(item)
    out.update(value.extra)
    return out


def _absent(item: object, nullable: bool) -> bool:
    if nullable or item is None:  # what may be None is there where it is empty: an empty entrypoint
        return item is None
    return item is False or (isinstance(item, (tuple, dict, str)) and not item)
