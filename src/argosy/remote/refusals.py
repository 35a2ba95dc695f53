"""What an answer that is no success stands for: its error, what it says, and when to ask again."""

from __future__ import annotations

import importlib
import re
import time
from typing import Any
from urllib.parse import urlsplit

from argosy.errors import (
    ArgosyError,
    DeniedError,
    LimitExceededError,
    NotFoundError,
    ResponseError,
    TooManyRequestsError,
    UnauthorizedError,
    UnsupportedError,
    error_class,
)
from argosy.remote.wire import Headers, Request, Response, redact_url, redact_urls
from argosy.spec import _json
from argosy.spec.distribution import ErrorEntry, decode_errors

_BY_STATUS: dict[int, type[ArgosyError]] = {
    401: UnauthorizedError,
    403: DeniedError,
    404: NotFoundError,
    405: UnsupportedError,
    413: LimitExceededError,
    429: TooManyRequestsError,
}
PROXY_ADVICE = "give the proxy's user and password in its variable: http://user:password@host:port"
RETRIED = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})
"""Statuses that may be different the next time; those from 520 on are what Cloudflare says of who is behind it."""
RATE_LIMITS = ("RateLimit-Limit", "RateLimit-Remaining")
_MOST_DETAIL = 200
_TAGS = r"(?is)<(script|style)\b.*?</\1\s*>|<[^>]*>"


def error_of(response: Response, request: Request) -> ArgosyError:
    """The error an answer stands for: by the specification's code, else by its status, else `ResponseError`.

    A code whose class has no place at this status is not believed: a 500 that says BLOB_UNKNOWN is a 500.
    """
    entries = decode_errors(response.data)
    where = f"{request.method} {redact_url(response.url or request.url)}"
    told = _told(entries, response, where) or _meant(response.status, where)
    message = f"{where}: {response.status} {told}".rstrip()
    cls = _class_of(entries, response.status)
    if cls is TooManyRequestsError:
        limited = TooManyRequestsError(message, retry_after=retry_after(response.headers))
        for name in RATE_LIMITS:
            if value := response.headers.get(name):
                limited.add_note(f"{name}: {printable(value)[:100]}")
        return limited
    if cls is not None:
        error = cls(message)
    else:
        error = ResponseError(
            message,
            method=request.method,
            url=redact_url(response.url or request.url),
            http_status=response.status,
            errors=tuple(entry._asdict() for entry in entries),
            body=response.data,
            retry_after=retry_after(response.headers),
        )
    if response.status == 407:
        error.hint = PROXY_ADVICE
    if isinstance(error, UnauthorizedError):
        error.hint = login_hint(urlsplit(response.url or request.url).netloc.rpartition("@")[2])
    return error


def login_hint(registry: str) -> str:
    """The advice for whom a registry does not let in."""
    return f"log in with `argosy login {registry}`; see `argosy auth ls --explain {registry}`"


_STATUSES = {
    401: "who asks is not known",
    403: "who asks may not",
    407: "the proxy does not know who asks",
}


def _meant(status: int, where: str) -> str:
    """What a status without a word (an answer to HEAD has no body) says about what was asked for."""
    if status == 404:
        return "there is no such " + ("tag or manifest" if "/manifests/" in where else "content")
    if status < 400:
        return "neither done nor refused"
    if status in _STATUSES:
        return _STATUSES[status]
    known = importlib.import_module("http").HTTPStatus  # an enumeration, for errors only
    return str(known(status).phrase).lower() if status in [*known] else ""


def _class_of(entries: tuple[ErrorEntry, ...], status: int) -> type[ArgosyError] | None:
    if status == 429 or status >= 500:
        return _BY_STATUS.get(status)
    named = next((cls for entry in entries if (cls := error_class(entry.code))), None)
    generic = _BY_STATUS.get(status)
    if named and (generic is None or issubclass(named, generic) or status in {400, 404, 416}):
        return named
    return generic


def _told(entries: tuple[ErrorEntry, ...], response: Response, where: str) -> str:
    if entries:
        text = "; ".join(list(dict.fromkeys(_said(entry, where) for entry in entries))[:3])
        return printable(" ".join(text.split()))[:1000]
    text = response.data[:4096].decode("utf-8", "replace")
    if "<" in text:
        text = re.sub(_TAGS, " ", text)
    return printable(" ".join(text.split()))[:300]


def _said(entry: ErrorEntry, where: str) -> str:
    """One entry, with its detail where that says more than its message and the request do."""
    said = ": ".join(filter(None, (entry.code, entry.message)))
    detail = entry.detail
    if isinstance(detail, str):
        text = " ".join(detail.split())
        values = [text]
        text = text if len(text) <= _MOST_DETAIL else f"{text[:_MOST_DETAIL]}..."
    else:
        text = _json.dumps(detail).decode() if detail else ""
        values = [v for v, key in re.findall(r'"([^"]*)"(:?)', text) if not key] or [text]
        text = text if len(text) <= _MOST_DETAIL else ""
    if not text or all(value in said or value in where for value in values):
        return said
    return f"{said} ({redact_urls(text)})"


def printable(text: str) -> str:
    """Text from outside as a terminal may see it: control characters become question marks.

    >>> printable("a\\x1b[2Jb")
    'a?[2Jb'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


_FOREVER = 1e9
"""Seconds, more than anybody means to wait."""


def retry_after(headers: Headers, now: float | None = None) -> float | None:
    """The seconds a `Retry-After` header asks to wait: either of its forms (RFC 9110, section 10.2.3), or None.

    Args:
        headers: The answer's header fields.
        now: The time as seconds since the epoch, for the form with a date; the answer's own `Date` if None, or where
            it has none, the time here.

    >>> retry_after(Headers([("Retry-After", "7")]))
    7.0
    >>> retry_after(Headers([("Retry-After", "Thu, 01 Jan 1970 00:02:00 GMT")]), now=60)
    60.0
    """
    text = headers.get("Retry-After").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), _FOREVER)
    until = http_date(text)
    if until is None:
        return None
    since = now if now is not None else http_date(headers.get("Date"))
    return max(0.0, until - (since if since is not None else time.time()))


def http_date(text: str) -> float | None:
    """An HTTP date as seconds since the epoch, or None where it is none."""
    utils: Any = importlib.import_module("email.utils")  # 20 ms, for a few answers only
    try:
        moment = utils.parsedate_to_datetime(text)
        zone = moment.tzinfo or utils.datetime.UTC  # asctime's form does not say it
        return float(moment.replace(tzinfo=zone).timestamp())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
