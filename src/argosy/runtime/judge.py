"""Whether a JSON value has its shape: one small checker, for config.json and for what the runtime itself wrote.

A shape is a type; a (low, high) pair of integers; a list of one shape (an array); or a dictionary, by property, of
which `ANY` stands for every other one (a map), and `NEEDED` for the names of those that must be there.

Properties that no table names are ignored, as the specification demands; a property it names with a value of another
type is refused by its path.
"""

from __future__ import annotations

from argosy.runtime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

U16, U32, U64 = (0, 0xFFFF), (0, 0xFFFFFFFF), (0, 0xFFFFFFFFFFFFFFFF)
I32, I64 = (-(1 << 31), (1 << 31) - 1), (-(1 << 63), (1 << 63) - 1)
ANY = "*"
NEEDED = None  # no property's name
STRINGS = [str]
MAP = {ANY: str}
HOOKS = [{"path": str, "args": STRINGS, "env": STRINGS, "timeout": I64}]
_WORDS = {str: "a string", bool: "true or false", float: "a number"}


def check(value: Any, shape: Any, where: str) -> None:
    """Refuse a value that has not the shape; null stands for a missing property.

    Raises:
        ConfigError: names the property.

    Example:
        >>> check([{"size": "2MB"}], [{"size": str, "limit": U64, NEEDED: ("size", "limit")}], "limits")
        Traceback (most recent call last):
        ...
        argosy.runtime.errors.ConfigError: invalid configuration: limits[0].limit: is missing
    """
    if isinstance(shape, list):
        _check_array(value, shape[0], where)
    elif isinstance(shape, dict):
        _check_object(value, shape, where)
    elif isinstance(shape, tuple):
        if type(value) is not int or not shape[0] <= value <= shape[1]:
            raise ConfigError(
                where, f"expected an integer from {shape[0]} to {shape[1]}, got {value!r:.80}"
            )
    elif type(value) is not shape:
        raise ConfigError(where, f"expected {_WORDS[shape]}, got {value!r:.80}")
    elif shape is str:
        _check_text(value, where)


def _check_text(value: str, where: str) -> None:
    """What goes to the kernel has an end and is UTF-8: of Python's strings, those without lone surrogates."""
    if "\0" in value:
        raise ConfigError(where, "contains a NUL byte")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(where, f"{value!r:.80} has half of a surrogate pair") from None


def _check_array(value: Any, item: Any, where: str) -> None:
    if not isinstance(value, list):
        raise ConfigError(where, f"expected an array, got {value!r:.80}")
    if item is str and all(type(e) is str and e.isascii() and "\0" not in e for e in value):
        return
    for index, entry in enumerate(value):
        check(entry, item, f"{where}[{index}]")


def _check_object(value: Any, shape: dict[str | None, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError(where, f"expected an object, got {value!r:.80}")
    within = f"{where}." if where else ""
    for name in shape.get(NEEDED, ()):
        if value.get(name) is None:
            raise ConfigError(f"{within}{name}", "is missing")
    rest = shape.get(ANY)
    for name, entry in value.items():
        if rest:
            _check_text(name, where)
        inner = rest or shape.get(name)
        if inner is not None and entry is not None:
            check(entry, inner, f"{within}{name}")


def prune(value: Any) -> Any:
    """The document without its null properties: the specification's "missing" and JSON's null are one thing."""
    if isinstance(value, dict):
        return {name: prune(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [prune(entry) for entry in value]
    return value
