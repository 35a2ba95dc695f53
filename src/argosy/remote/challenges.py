"""Challenges (RFC 9110, section 11.6.1): what a 401 asks for."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping

from argosy.spec._value import Value, field

_MAX_HEADER = 16 * 1024


class Challenge(Value):
    """One challenge: its scheme in lower case, and its parameters by names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of some `WWW-Authenticate` headers; what cannot be read is left out.

    >>> [c.scheme for c in parse_challenges(['Basic realm="a, b", Bearer realm="https://t/",scope="r:a:pull,push"'])]
    ['basic', 'bearer']
    """
    return tuple(c for value in values for c in _challenges(value[:_MAX_HEADER]))


@functools.cache
def _grammar() -> tuple[re.Pattern[str], ...]:
    """A scheme, a parameter, and a token68 (RFC 9110, section 11): only who is challenged waits for them."""
    word = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    return (
        re.compile(rf"[\s,]*({word})(?=\s|,|$)"),
        re.compile(rf'[\s,]*({word})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))'),
        re.compile(r"\s+([A-Za-z0-9._~+/-]+=*)\s*(?=,|$)"),
    )


def _challenges(text: str) -> Iterator[Challenge]:
    scheme, parameter, token68_ = _grammar()
    at = 0
    while match := scheme.match(text, at):
        at = match.end()
        parameters: dict[str, str] = {}
        if token68 := token68_.match(text, at):
            at = token68.end()
        while found := parameter.match(text, at):
            at = found.end()
            quoted = found[2]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else found[3]
            parameters.setdefault(found[1].lower(), value)
        yield Challenge(match[1].lower(), parameters)
