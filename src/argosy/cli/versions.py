"""Semantic versions as tags spell them, and ranges of them: `>=1.2 <2`, `^1.2`, `~1.2.3`, `1.2 - 1.4`, `a || b`."""

from __future__ import annotations

import re
from collections.abc import Callable

from argosy.errors import UsageError

Version = tuple[int, int, int, tuple[tuple[int, int, str], ...]]
Test = Callable[[Version], bool]

_VERSION = re.compile(
    r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?",
    re.ASCII,
)
_PART = re.compile(r"(>=|<=|!=|>|<|=|\^|~)?\s*v?([0-9xX*][0-9A-Za-z.*+-]*)", re.ASCII)


def parse_version(tag: str) -> Version | None:
    """The version a tag spells, or None.

    >>> parse_version("v1.2")[:3], parse_version("latest")
    ((1, 2, 0), None)
    """
    match = _VERSION.fullmatch(tag)
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups()[:3])
    return major, minor, patch, _before(match[4])


def _before(text: str | None) -> tuple[tuple[int, int, str], ...]:
    if text is None:
        return ((2, 0, ""),)  # a release comes after everything that is called before it
    parts = text.split(".")
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts)


def parse_range(text: str) -> Test:
    """What decides whether a version is in a range. Pre-releases are in it only where it names one itself.

    Raises:
        UsageError: it is no range.

    >>> inside = parse_range("^1.2 || 3.x")
    >>> [tag for tag in ("1.1.9", "v1.9", "2.0", "3.4.5", "1.9.0-rc1") if inside(parse_version(tag))]
    ['v1.9', '3.4.5']
    """
    either = [_all_of(part.strip(), text) for part in text.split("||")]
    return lambda version: any(test(version) for test in either)


def _all_of(text: str, whole: str) -> Test:
    text = re.sub(r"(\S+)\s+-\s+(\S+)", r">=\1 <=\2", text).replace(",", " ")
    tests: list[Test] = []
    named, at = False, 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise UsageError(f"{whole!r} is no range of versions")
        named = named or "-" in match[2]
        low, high = _bounds(match[2], whole)
        tests.append(_TESTS[match[1] or "="](low, high, match[2]))
        at = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip())
    if not tests:
        raise UsageError(f"{whole!r} is no range of versions")
    return lambda v: (named or v[3] == _before(None)) and all(test(v) for test in tests)


def _bounds(text: str, whole: str) -> tuple[Version, Version]:
    """The first version that fits a partial one, and the first one after all that do."""
    numbers = [p for p in text.partition("-")[0].partition("+")[0].split(".") if p not in "xX*"]
    exact = parse_version(text)
    if "-" in text and exact is not None:
        return exact, (*exact[:3], (*exact[3], (-1, 0, "")))
    if len(numbers) > 3 or not all(n.isdecimal() for n in numbers):
        raise UsageError(f"{whole!r} is no range of versions")
    given = [int(n) for n in numbers]
    low = [*given, 0, 0, 0][:3]
    if not given:
        return _at([0, 0, 0]), _at([1 << 60, 0, 0])
    high = [*given[:-1], given[-1] + 1, 0, 0, 0][:3]
    return _at(low), _at(high)


def _at(numbers: list[int]) -> Version:
    return numbers[0], numbers[1], numbers[2], ()


def _caret(low: Version, _high: Version, text: str) -> Test:
    count = len([p for p in text.partition("-")[0].split(".") if p not in "xX*"])
    place = next((i for i in range(min(count, 3)) if low[i]), max(min(count, 3) - 1, 0))
    top = [*(int(n) for n in low[:3])][: place + 1]
    top[-1] += 1
    limit = _at([*top, 0, 0, 0])
    return lambda v: low <= v < limit


def _tilde(low: Version, _high: Version, text: str) -> Test:
    short = "." not in text
    limit = _at([low[0] + 1, 0, 0]) if short else _at([low[0], low[1] + 1, 0])
    return lambda v: low <= v < limit


_TESTS: dict[str, Callable[[Version, Version, str], Test]] = {
    "=": lambda low, high, _: lambda v: low <= v < high,
    "!=": lambda low, high, _: lambda v: not low <= v < high,
    ">": lambda _low, high, _: lambda v: v >= high,
    ">=": lambda low, _high, _: lambda v: v >= low,
    "<": lambda low, _high, _: lambda v: v < low,
    "<=": lambda _low, high, _: lambda v: v < high,
    "^": _caret,
    "~": _tilde,
}
