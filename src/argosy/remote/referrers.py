"""Referrers: the registry's list of them, and the tag that stands for it where the registry has no such list.

The tag schema's list is kept by clients, several at a time perhaps. An update reads the list, merges, writes it on
condition that it has not changed, and reads again to see that it stands: many registries mind no condition.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from argosy.errors import (
    ArgosyError,
    ConflictError,
    InvalidManifestError,
    NameUnknownError,
    ResponseError,
    UnsupportedError,
)
from argosy.remote.flows import pull_scope, push_scope
from argosy.remote.refusals import error_of
from argosy.remote.wire import Flow, Request, Response, redact_url
from argosy.spec import _json, distribution, mediatypes
from argosy.spec._value import Value, replace
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import MAX_SIZE, AnyManifest, Index, decode_manifest

MAX_PAGES = 1000
_ATTEMPTS = 16
_MAX_PAUSE = 2.0
_MOST = 64
"""How many entries of one list wait for one another before they are written."""
_updating = threading.Lock()  # one update at a time in this process; others are met by merging


class Page(Value):
    """One page of a list: what it holds, and the answer it came in. Who asked for a type filters it himself."""

    entries: tuple[Descriptor, ...]
    answer: Response


def listed(name: str, url: str) -> Flow[Page | None]:
    """One page of the referrers API (end-12); None where the registry has no such API.

    Raises:
        NameUnknownError: the registry has the API, and no such repository.
    """
    request = Request(
        method="GET",
        url=url,
        headers={"Accept": mediatypes.OCI_INDEX},
        scopes=(pull_scope(name),),
        statuses=(400, 404, 405, 406, 501),
    )
    response = yield request
    if response.status >= 400:
        error = error_of(response, request)
        if isinstance(error, NameUnknownError):
            raise error
        return None
    if mediatypes.essence(response.headers.get("Content-Type")) != mediatypes.OCI_INDEX:
        return None
    return Page(_index(response.data, redact_url(response.url)).manifests, response)


def _index(raw: bytes, where: str) -> Index:
    """A list of referrers; one that is null, as some programs write an empty one, is empty.

    Raises:
        InvalidManifestError: it is something else.
    """
    try:
        value = _json.loads_object(raw, limit=MAX_SIZE, error=InvalidManifestError)
        parsed = decode_manifest(raw) if value.get("manifests", ()) is not None else Index()
    except (InvalidManifestError, UnsupportedError) as exc:
        raise InvalidManifestError(
            f"{where}: expected an image index with the referrers: {exc}"
        ) from None
    if not isinstance(parsed, Index):
        raise InvalidManifestError(f"{where}: expected an image index with the referrers")
    return parsed


def tagged(name: str, subject: Digest, pause: float = 0.0) -> Flow[tuple[Index | None, bytes, str]]:
    """The tag schema's list: the index, its bytes and its ETag; None where there is none.

    Args:
        name: The repository's name.
        subject: Whose referrers.
        pause: Seconds to leave the host alone first.

    Raises:
        InvalidManifestError: the tag names something else than an index.
    """
    request = Request(
        method="GET",
        url=distribution.manifest_path(name, distribution.referrers_tag(subject)),
        headers={"Accept": mediatypes.OCI_INDEX},
        scopes=(pull_scope(name),),
        statuses=(404,),
        pause=pause,
    )
    response = yield request
    if response.status == 404:
        return None, b"", ""
    index = _index(response.data, f"{name}:{distribution.referrers_tag(subject)}")
    return index, response.data, response.headers.get("ETag")


def entry_of(desc: Descriptor, manifest: AnyManifest) -> Descriptor:
    """How a manifest stands in a list of referrers: with its artifact type and its annotations."""
    annotations = dict(manifest.annotations)
    return replace(desc.bare(), artifact_type=manifest.kind, annotations=annotations)


def add(name: str, subject: Digest, new: Sequence[Descriptor]) -> Flow[None]:
    """Put entries into the tag schema's list.

    Raises:
        ConflictError: others change the list faster than it can be written.
    """

    def change(entries: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        have = {entry.digest for entry in entries}
        return (*_unique(entries), *(e for e in _unique(new) if e.digest not in have))

    yield from _update(name, subject, change)


def remove(name: str, subject: Digest, digest: Digest) -> Flow[Descriptor | None]:
    """Take an entry out of the tag schema's list; returns the list's own descriptor where it is now empty."""

    def change(entries: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        return tuple(e for e in _unique(entries) if e.digest != digest)

    return (yield from _update(name, subject, change))


def _unique(entries: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    return tuple({entry.digest: entry for entry in entries}.values())


def _update(
    name: str,
    subject: Digest,
    change: Callable[[tuple[Descriptor, ...]], tuple[Descriptor, ...]],
) -> Flow[Descriptor | None]:
    """Change the list; one that would be left with nothing in it is not written, and its descriptor returned."""
    pause = 0.0
    with _updating:
        for _ in range(_ATTEMPTS):
            index, raw, etag = yield from tagged(name, subject, pause)
            entries = index.manifests if index else ()
            wanted = change(entries)
            if index and not wanted:
                return Descriptor.of(mediatypes.OCI_INDEX, raw)
            if wanted == entries:
                return None
            began = time.monotonic()
            made = replace(index or Index(), manifests=wanted)
            try:
                yield _put(name, subject, made.encode(), etag if index else None)
            except (ConflictError, ResponseError) as exc:
                if isinstance(exc, ResponseError) and exc.http_status not in {409, 412}:
                    raise
            # whoever read the list before this write has written it, too, when twice the time of a write has passed
            pause = (time.monotonic() - began) * (2 + os.urandom(1)[0] / 128)
            pause = min(pause, _MAX_PAUSE)
    raise ConflictError(
        f"{name}:{distribution.referrers_tag(subject)}: others change the list of referrers faster than "
        f"it could be written, {_ATTEMPTS} times"
    )


def _put(name: str, subject: Digest, raw: bytes, etag: str | None) -> Request:
    """Write the list: over the one with this ETag, any if it is empty, or only where there is none yet."""
    only = {"If-None-Match": "*"} if etag is None else {"If-Match": etag} if etag else {}
    return Request(
        method="PUT",
        url=distribution.manifest_path(name, distribution.referrers_tag(subject)),
        headers={
            "Content-Type": mediatypes.OCI_INDEX,
            **only,
        },
        body=raw,
        scopes=(push_scope(name),),
    )


class Gathered:
    """Entries for the tag schema's lists of a repository; inside `together` they wait for one another.

    What waits when a process is killed is not lost: `copy` finds that a manifest is not in its list, and pushes it.

    Args:
        write: Puts entries into a subject's list.
    """

    def __init__(self, write: Callable[[Digest, Sequence[Descriptor]], object]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._blocks = 0
        self._waiting: dict[Digest, list[Descriptor]] = {}

    def add(self, subject: Digest, entry: Descriptor) -> None:
        """Put an entry into a list, now or with others."""
        with self._lock:
            waiting = self._waiting.setdefault(subject, [])
            waiting.append(entry)
            if self._blocks and len(waiting) < _MOST:
                return
        self.settle(subject)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """See `Gatherer.together`. Where the block fails, what cannot be written either is not told besides."""
        with self._lock:
            self._blocks += 1
        try:
            yield
        except Exception:
            with contextlib.suppress(ArgosyError):
                self._end()
            raise
        except BaseException:  # who interrupts does not wait for a network
            with self._lock:
                self._blocks -= 1
            raise
        else:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._blocks -= 1
            waiting = () if self._blocks else tuple(self._waiting)
        for subject in waiting:
            self.settle(subject)

    def settle(self, subject: Digest) -> None:
        """Write what waits for one list."""
        with self._lock:
            waiting = self._waiting.pop(subject, ())
        if waiting:
            self._write(subject, waiting)
