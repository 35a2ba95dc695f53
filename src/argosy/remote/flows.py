"""The distribution-spec as generators: each yields requests, is sent the answers, and returns what was asked for.

None of them knows sockets, credentials, redirects or waiting; a `Session` does that below, and `wire.run` drives them.
Their docstrings name the end-points of the specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

from argosy.errors import (
    ArgosyError,
    BlobUnknownError,
    DigestMismatchError,
    InvalidManifestError,
    LimitExceededError,
    ManifestUnknownError,
    NotFoundError,
    RegistryError,
    UnsupportedError,
)
from argosy.remote import network
from argosy.remote.refusals import error_of
from argosy.remote.wire import Flow, Request, Response, redact_url
from argosy.spec import _json, distribution, mediatypes
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest, hasher
from argosy.spec.manifest import MAX_SIZE, decode_manifest, schema1

PAGE = 1000
"""Entries asked for at a time. More makes ECR answer 400."""
MAX_PAGES = 10_000

_NO_HEAD = (400, 405, 501)
"""What registries answer to HEAD that do not know it; where something else is wrong, GET is told what."""
_ACCEPT = {"Accept": ", ".join((*mediatypes.ACCEPTED, mediatypes.OCI_ARTIFACT_MANIFEST))}


def pull_scope(name: str) -> str:
    """What a token must allow to read a repository."""
    return f"repository:{name}:pull"


def push_scope(name: str) -> str:
    """What a token must allow to write to a repository."""
    return f"repository:{name}:pull,push"


def delete_scope(name: str) -> str:
    """What a token must allow to delete from a repository."""
    return f"repository:{name}:delete,pull,push"


def missing(response: Response, request: Request, cls: type[NotFoundError]) -> ArgosyError:
    """The error of an answer, as `cls` where it is a plain 404."""
    error = error_of(response, request)
    return cls(str(error)) if type(error) is NotFoundError else error


def is_digest(tag_or_digest: str) -> bool:
    """Whether this is a digest and no tag: a tag has no colon."""
    return ":" in tag_or_digest


# ---------------------------------------------------------------------------------------------------------- manifests


def resolve(name: str, tag_or_digest: str) -> Flow[Descriptor]:
    """The descriptor of a manifest, by HEAD; by GET where HEAD does not say enough (end-3).

    Raises:
        ManifestUnknownError: there is none.
        UnsupportedError: it is a Docker schema 1 manifest.
    """
    request = Request(
        method="HEAD",
        url=distribution.manifest_path(name, tag_or_digest),
        headers=_ACCEPT,
        scopes=(pull_scope(name),),
        statuses=(*_NO_HEAD, 403, 404),  # GET is told why not
    )
    response = yield request
    if response.status == 404:
        raise missing(response, request, ManifestUnknownError)
    if response.status == 200 and (found := _described(response, tag_or_digest)):
        return found
    desc, _ = yield from get_manifest(name, tag_or_digest)
    return desc


def _described(response: Response, tag_or_digest: str) -> Descriptor | None:
    """What a HEAD answer says a manifest is, or None where it leaves something out or contradicts the question."""
    media_type = mediatypes.essence(response.headers.get("Content-Type"))
    size = None if response.coding else response.length
    if media_type in mediatypes.SCHEMA1:
        raise schema1()
    if not mediatypes.is_manifest(media_type) or not size:
        return None  # a 0 is the length of what follows a HEAD: no manifest is empty
    try:
        digest = Digest(response.headers.get(distribution.CONTENT_DIGEST_HEADER))
        hasher(digest.algorithm)  # one that cannot be computed here proves nothing
    except ArgosyError:
        return None
    if is_digest(tag_or_digest) and digest != tag_or_digest:
        return None
    return Descriptor(media_type=media_type, digest=digest, size=size)


def get_manifest(
    name: str, tag_or_digest: str, *, exact: bool = False
) -> Flow[tuple[Descriptor, bytes]]:
    """A manifest and its descriptor (end-3): proved where asked for by digest, else its own digest is the truth.

    Args:
        name: The repository.
        tag_or_digest: Which one.
        exact: Refuse one whose own digest is not the one its answer states.

    Raises:
        ManifestUnknownError: there is none.
        DigestMismatchError: the registry sent something else than what was asked for.
        InvalidManifestError: what was sent is no manifest, or is two things at once.
        LimitExceededError: it is over 8 MiB.
    """
    request = Request(
        method="GET",
        url=distribution.manifest_path(name, tag_or_digest),
        headers=_ACCEPT,
        scopes=(pull_scope(name),),
        statuses=(404,),
        limit=MAX_SIZE,
    )
    response = yield request
    if response.status == 404:
        raise missing(response, request, ManifestUnknownError)
    raw = response.data
    stated = mediatypes.essence(response.headers.get("Content-Type"))
    if stated in mediatypes.SCHEMA1:  # whose digest is not that of its bytes: they hold signatures
        raise schema1()
    digest = _own_digest(raw, tag_or_digest, response, exact=exact)
    try:
        parsed = decode_manifest(raw, stated if mediatypes.is_manifest(stated) else None)
    except InvalidManifestError as exc:
        if distribution.decode_errors(raw):
            raise error_of(response, request) from None  # some send their errors with a 200
        exc.add_note(f"sent as {stated or 'nothing in particular'} for {name}:{tag_or_digest}")
        raise
    return Descriptor(media_type=parsed.media_type, digest=digest, size=len(raw)), raw


def _own_digest(raw: bytes, tag_or_digest: str, response: Response, *, exact: bool) -> Digest:
    if is_digest(tag_or_digest):
        return _proved(raw, Digest(tag_or_digest))
    try:
        stated = Digest(response.headers.get(distribution.CONTENT_DIGEST_HEADER))
        if stated.registered:
            return _proved(raw, stated)
    except DigestMismatchError:
        if exact:
            raise
    except ArgosyError:
        pass
    return Digest.of(raw)


def _proved(raw: bytes, wanted: Digest) -> Digest:
    actual = Digest.of(raw, wanted.algorithm)
    if actual != wanted:
        raise DigestMismatchError(
            "the registry sent another manifest", expected=wanted, actual=actual
        )
    return wanted


def put_manifest(
    name: str, desc: Descriptor, raw: bytes, tags: Sequence[str] = ()
) -> Flow[tuple[bool, tuple[str, ...]]]:
    """Store a manifest, and tags for it (end-7a, end-7b).

    One tag goes into the path; several, or another algorithm than sha256, ask for all at once and go on one by one
    where the registry does not know that.

    Returns:
        Whether the registry took note of its `subject`, and the tags it has now.

    Raises:
        ManifestBlobUnknownError: the registry lacks something the manifest refers to.
        DigestMismatchError: the registry has stored something else.
    """
    first = desc.digest.algorithm == "sha256" and len(tags) == 1
    path = tags[0] if first else desc.digest
    query = () if first else tuple(tags)
    response = yield put_request(name, desc, raw, path, query)
    if response.status in {414, 431}:
        response = yield put_request(name, desc, raw, path, ())
    check_stored(response.headers.get(distribution.CONTENT_DIGEST_HEADER), desc.digest)
    done = list(tags) if first else _accepted(response)
    for tag in tags:
        if tag not in done:
            response = yield put_request(name, desc, raw, tag, ())
            check_stored(response.headers.get(distribution.CONTENT_DIGEST_HEADER), desc.digest)
            done.append(tag)
    return bool(response.headers.get(distribution.SUBJECT_HEADER)), tuple(done)


def put_request(
    name: str, desc: Descriptor, raw: bytes, path: str, tags: Sequence[str] = ()
) -> Request:
    """What stores a manifest below a path, and tags for it."""
    query = f"?{urlencode([('tag', tag) for tag in tags])}" if tags else ""
    return Request(
        method="PUT",
        url=distribution.manifest_path(name, path) + query,
        headers={"Content-Type": desc.media_type},
        body=raw,
        scopes=(push_scope(name),),
        statuses=(414, 431) if tags else (),
    )


def _accepted(response: Response) -> list[str]:
    values = response.headers.get_all(distribution.TAG_HEADER)
    return [tag for value in values for part in value.split(",") if (tag := part.strip())]


def check_stored(response_digest: str, wanted: Digest) -> None:
    """Compare the digest a registry says it stored with the one that was sent, where both are of one algorithm.

    Raises:
        DigestMismatchError: they differ.
    """
    if response_digest.partition(":")[0] == wanted.algorithm and response_digest != wanted:
        raise DigestMismatchError(
            "the registry stored something else", expected=wanted, actual=response_digest[:200]
        )


def delete_manifest(name: str, tag_or_digest: str) -> Flow[bool]:
    """Delete a manifest or a tag (end-9); False where the registry does not do that.

    Raises:
        ManifestUnknownError: there is none.
    """
    request = Request(
        method="DELETE",
        url=distribution.manifest_path(name, tag_or_digest),
        scopes=(delete_scope(name),),
        statuses=(400, 404, 405, 501),
    )
    response = yield request
    if response.status == 404 and not response.again:
        raise missing(response, request, ManifestUnknownError)
    return response.status < 400 or response.status == 404


# -------------------------------------------------------------------------------------------------------------- blobs


def has(name: str, desc: Descriptor) -> Flow[bool]:
    """Whether a repository has some content (end-2, end-3)."""
    if desc.is_manifest():
        _, response = yield from _looked(
            name, distribution.manifest_path(name, desc.digest), _ACCEPT
        )
    else:
        _, response = yield from _looked(name, distribution.blob_path(name, desc.digest))
    return response.status != 404


def describe_blob(name: str, digest: Digest) -> Flow[Descriptor]:
    """A blob's descriptor (end-2); the registry does not know its media type.

    Raises:
        BlobUnknownError: there is none.
        RegistryError: the registry does not say its size.
    """
    request, response = yield from _looked(name, distribution.blob_path(name, digest))
    if response.status == 404:
        raise missing(response, request, BlobUnknownError)
    size = response.whole
    if size is None:
        raise RegistryError(f"{digest}: the registry does not say the blob's size")
    return Descriptor(media_type=mediatypes.OCTET_STREAM, digest=digest, size=size)


def _looked(
    name: str, path: str, headers: Mapping[str, str] | None = None
) -> Flow[tuple[Request, Response]]:
    """What the registry says of some content, by HEAD; by GET of its first byte where it does not know HEAD.

    Returns:
        The last request and its answer, whose status is one of success, 404, or 416 for content without a first byte.
    """
    request = Request(
        method="HEAD",
        url=path,
        headers=headers or {},
        scopes=(pull_scope(name),),
        statuses=(*_NO_HEAD, 404),
    )
    response = yield request
    if response.status in _NO_HEAD:
        first = {**request.headers, "Range": "bytes=0-0"}
        request = request.replace(method="GET", headers=first, stream=True, statuses=(404, 416))
        response = yield request
        response.close()  # some send all of it
    return request, response


def range_of(start: int, stop: int | None) -> dict[str, str]:
    """The header that asks for bytes from `start` up to `stop`; none for all of them, or where that is None."""
    return {"Range": f"bytes={start}-{stop - 1}"} if start and stop is not None else {}


def open_blob(
    name: str, desc: Descriptor, start: int = 0, stop: int | None = None
) -> Flow[Response]:
    """A blob's bytes from `start` up to `stop`, or without a range all of them (end-2); the answer streams.

    Raises:
        BlobUnknownError: there is none.
    """
    request = Request(
        method="GET",
        url=distribution.blob_path(name, desc.digest),
        headers=range_of(start, stop),
        scopes=(pull_scope(name),),
        stream=True,
        statuses=(404, 416),
    )
    response = yield request
    if response.status == 404:
        raise missing(response, request, BlobUnknownError)
    return response


def delete_blob(name: str, digest: Digest) -> Flow[None]:
    """Delete a blob (end-10).

    Raises:
        BlobUnknownError: there is none.
        UnsupportedError: the registry does not do that.
    """
    request = Request(
        method="DELETE",
        url=distribution.blob_path(name, digest),
        scopes=(delete_scope(name),),
        statuses=(400, 404, 405, 501),
    )
    response = yield request
    if response.status == 404 and response.again:
        return
    if response.status == 404:
        raise missing(response, request, BlobUnknownError)
    if response.status >= 400:
        raise UnsupportedError(f"the registry does not delete blobs: {error_of(response, request)}")


class Opened(Value):
    """An upload session: where it is, and the least bytes of each of its chunks but the last."""

    location: str
    least: int = 0


def opened(response: Response, least: int = 0) -> Opened:
    """The session an answer names; its chunks' `least` is what was known where the answer does not say.

    Raises:
        RegistryError: it names none.
    """
    text = response.headers.get(distribution.CHUNK_MIN_LENGTH_HEADER)
    said = text.isascii() and text.isdigit() and len(text) < 12
    return Opened(location_of(response), int(text) if said else least)


def mount(name: str, digest: Digest, source: str) -> Flow[tuple[bool, Opened | None]]:
    """Take a blob over from another repository of the registry (end-11).

    Returns:
        Whether it is there now; and if not, the upload session that was begun instead, if one was.
    """
    query = urlencode({"mount": digest, "from": source})
    response = yield Request(
        method="POST",
        url=f"{distribution.uploads_path(name)}?{query}",
        scopes=(push_scope(name), pull_scope(source)),
        # quay answers an unknown `from` with an error, Docker Hub one of another owner
        statuses=(400, 401, 403, 404, 405, 416, 500),
    )
    if response.status == 201:
        return True, None
    return False, opened(response) if response.status == 202 else None


def location_of(response: Response) -> str:
    """An answer's `Location`, absolute; https where the registry's own address is, whatever a proxy made of it.

    Raises:
        RegistryError: there is none.
    """
    text = response.headers.get("Location")
    if not text:
        raise RegistryError(f"{redact_url(response.url)}: {response.status} without a Location")
    return _meant(response, text)


def next_of(response: Response) -> str:
    """The next page's URL, absolute as a `Location` is made, or an empty string.

    Raises:
        SettledError: what is named is no address.
    """
    following = distribution.next_link(response.headers.get_all("Link"))
    return _meant(response, following) if following else ""


def _meant(response: Response, text: str) -> str:
    location = network.join(response.url, text)
    base = network.join(response.url, "/")
    if base.startswith("https://") and location.startswith("http://" + base[len("https://") :]):
        return "https://" + location[len("http://") :]
    return location


# -------------------------------------------------------------------------------------------------------------- lists


def page(
    url: str, member: str, scopes: Sequence[str]
) -> Flow[tuple[Mapping[str, object], Response]]:
    """One page of a list (end-8): the decoded object, and the answer that it came in.

    Args:
        url: A path on the registry, or where the page before said to go.
        member: The member of the object that is the list.
        scopes: What a token must allow.

    Raises:
        NameUnknownError: there is no such repository.
        RegistryError: what came is no list.
        ArgosyError: what came is an error, whatever its status.
    """
    request = Request(method="GET", url=url, scopes=tuple(scopes))
    response = yield request
    try:
        value = _json.loads_object(response.data)
    except (ArgosyError, LimitExceededError) as exc:
        raise RegistryError(f"{redact_url(response.url)} sent no list: {exc}") from None
    if member not in value and value.get("errors"):
        raise error_of(response, request)  # some send their errors with a 200
    return value, response


def first_page(path: str, *, last: str = "", limit: int = PAGE) -> str:
    """The path of a list's first page.

    >>> first_page("/v2/_catalog", last="a b")
    '/v2/_catalog?n=1000&last=a%20b'
    """
    return f"{path}?n={limit}" + (f"&last={quote(last, safe='')}" if last else "")
