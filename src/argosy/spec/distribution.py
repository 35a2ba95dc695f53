"""The distribution-spec's words for both ends of the wire: headers, paths, grammar, error bodies.

The client and the registry of argosy meet only here and in `argosy.errors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from argosy.errors import ArgosyError, InvalidError, InvalidUploadError
from argosy.spec import _json
from argosy.spec._value import Value
from argosy.spec.digest import Digest

API_VERSION_HEADER = "Docker-Distribution-API-Version"
CONTENT_DIGEST_HEADER = "Docker-Content-Digest"
CHUNK_MIN_LENGTH_HEADER = "OCI-Chunk-Min-Length"
SUBJECT_HEADER = "OCI-Subject"
TAG_HEADER = "OCI-Tag"
FILTERS_HEADER = "OCI-Filters-Applied"
NAMESPACE_HEADER = "OCI-Namespace"

API_VERSION = "registry/2.0"
MAX_ERROR_BODY = 64 * 1024
MAX_WARNING = 4096

# Patterns for what is seldom seen: compiled, and kept by `re`, when they are first used.
_RANGE = r"([0-9]{1,19})-([0-9]{1,19})"
_LINK = r'(?a)<([^<>]*)>((?:\s*;\s*[^\s;,="]+\s*(?:=\s*(?:"[^"]*"|[^\s;,"]*))?)*)'
_REL_NEXT = r'(?i);\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next(?=\s*(?:;|$)))'
_WARNING = r'(?a)[\s,]*([0-9]{3}) [^\s",]+ "((?:[^"\\]|\\.)*)"(?: "[^"]*")?\s*(?=,|$)'


def manifest_path(name: str, tag_or_digest: str) -> str:
    """`/v2/<name>/manifests/<reference>`."""
    return f"/v2/{name}/manifests/{tag_or_digest}"


def blob_path(name: str, digest: Digest) -> str:
    """`/v2/<name>/blobs/<digest>`."""
    return f"/v2/{name}/blobs/{digest}"


def uploads_path(name: str) -> str:
    """`/v2/<name>/blobs/uploads/`."""
    return f"/v2/{name}/blobs/uploads/"


def tags_path(name: str) -> str:
    """`/v2/<name>/tags/list`."""
    return f"/v2/{name}/tags/list"


def referrers_path(name: str, digest: Digest) -> str:
    """`/v2/<name>/referrers/<digest>`."""
    return f"/v2/{name}/referrers/{digest}"


def referrers_tag(digest: Digest) -> str:
    """The tag of the referrers tag schema: at most 32 characters of the algorithm, 64 of the encoded portion.

    >>> referrers_tag(Digest.of(b"{}", "sha512"))[:20]
    'sha512-27c74670adb75'
    """
    encoded = re.sub(r"[^a-zA-Z0-9._-]", "-", digest.encoded[:64])
    algorithm = re.sub(r"[^a-zA-Z0-9._-]", "-", digest.algorithm[:32])
    return f"{algorithm}-{encoded}"


def parse_content_range(text: str) -> tuple[int, int]:
    """A chunk's `Content-Range: <start>-<end>`, both inclusive, in bytes.

    Raises:
        InvalidUploadError: another shape, or the end before the start.

    >>> parse_content_range("0-1023")
    (0, 1023)
    """
    match = re.fullmatch(_RANGE, text.strip())
    if not match or int(match[2]) < int(match[1]):
        raise InvalidUploadError(f"Content-Range: expected <start>-<end>, got {text[:100]!r}")
    return int(match[1]), int(match[2])


def parse_upload_range(text: str) -> int:
    """How many bytes an upload's `Range: 0-<end>` says were received.

    `0-0` is ambiguous by specification (one byte, or none yet); it reads as one.

    Raises:
        InvalidUploadError: another shape.

    >>> parse_upload_range("0-1023"), parse_upload_range("bytes=0-9"), parse_upload_range("0--1")
    (1024, 10, 0)
    """
    value = text.strip().removeprefix("bytes=").removeprefix("bytes ")
    if value == "0--1":
        return 0
    match = re.fullmatch(_RANGE, value)
    if not match or int(match[1]) != 0:
        raise InvalidUploadError(f"Range: expected 0-<end>, got {text[:100]!r}")
    return int(match[2]) + 1


def next_link(values: Iterable[str]) -> str | None:
    """The target of the first `rel="next"` in some Link headers, or None.

    >>> next_link(['</v2/a/tags/list?last=x&n=1>; rel="next"'])
    '/v2/a/tags/list?last=x&n=1'
    """
    for value in values:
        for target, parameters in re.findall(_LINK, value[:16384]):
            if re.search(_REL_NEXT, parameters):
                return str(target)
    return None


def link(target: str, parameters: Mapping[str, str | int]) -> str:
    """A Link header to the next page.

    >>> link("/v2/a/tags/list", {"n": 2, "last": "v1+"})
    '</v2/a/tags/list?n=2&last=v1%2B>; rel="next"'
    """
    query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in parameters.items())
    return f'<{target}?{query}>; rel="next"'


def warning(text: str) -> str:
    """A `Warning` header's value: code 299, no agent, no date, ASCII, at most 4096 bytes.

    >>> warning('use "v2"')
    '299 - "use \\\\"v2\\\\""'
    """
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    cut = escaped[: MAX_WARNING - 8]
    # Half of an escape would take the closing quote with it.
    half = (len(cut) - len(cut.rstrip("\\"))) % 2
    return f'299 - "{cut[: len(cut) - half]}"'


def parse_warnings(value: str) -> Iterator[str]:
    """The texts of a `Warning` header, of which a proxy may have joined several; what is none of the specification's is
    left out.

    >>> list(parse_warnings('299 - "deprecated", 299 - "read only"'))
    ['deprecated', 'read only']
    """
    at, one = 0, re.compile(_WARNING)
    while match := one.match(value, at, MAX_WARNING):
        at = match.end()
        if match[1] == "299":
            yield re.sub(r"\\(.)", r"\1", match[2])


class ErrorEntry(Value, kw_only=True):
    """One entry of an error body."""

    code: str
    message: str = ""
    detail: object = None


def encode_errors(error: ArgosyError, detail: object = None) -> bytes:
    """The error body (`{"errors":[…]}`) of an error.

    >>> from argosy.errors import BlobUnknownError
    >>> encode_errors(BlobUnknownError("no such blob"))
    b'{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}'
    """
    entry: dict[str, object] = {"code": error.code or "UNKNOWN", "message": str(error)}
    if detail is not None:
        entry["detail"] = detail
    return _json.dumps({"errors": [entry]})


def decode_errors(body: bytes) -> tuple[ErrorEntry, ...]:
    """The entries of an error body; none where the body is something else (HTML, plain text, nothing).

    >>> decode_errors(b'{"errors":[{"code":"DENIED","message":"no"}]}')[0].code
    'DENIED'
    >>> decode_errors(b"<html>")
    ()
    """
    try:
        value = _json.loads(body, limit=MAX_ERROR_BODY)
    except (InvalidError, ArgosyError):
        return ()
    listed = value.get("errors") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return ()
    return tuple(
        ErrorEntry(
            code=str(item.get("code") or ""),
            message=str(item.get("message") or ""),
            detail=item.get("detail"),
        )
        for item in listed[:100]
        if isinstance(item, dict)
    )
