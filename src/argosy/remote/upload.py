"""Moving a blob to a registry: whole at first, in chunks where that is wanted or has failed, on from where it broke.

A registry keeps an upload session, named by the `Location` of its last answer. After a failure it is asked how much
it has (end-13), and only the rest is sent. Where the caller keeps sessions on disk, that holds across runs too.
"""

from __future__ import annotations

import contextlib
from urllib.parse import urlencode

from argosy.content.protocols import SupportsRead
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    AccessError,
    ArgosyError,
    IntegrityError,
    InvalidDigestError,
    InvalidError,
    InvalidUploadError,
    LimitExceededError,
    NotFoundError,
    RangeNotSatisfiableError,
    RegistryError,
    ResponseError,
    TooManyRequestsError,
    TransportError,
    UnsupportedError,
    UploadUnknownError,
)
from argosy.remote.download import PROGRESS
from argosy.remote.flows import Opened, check_stored, has, opened, push_scope
from argosy.remote.refusals import RETRIED
from argosy.remote.unfinished import REMEMBERED, Memory
from argosy.remote.wire import Flow, Request, Response, SettledError, redact_url
from argosy.spec import distribution
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest

MOST_CHUNK = 16 * 1024 * 1024
"""Bytes of the largest chunk that is tried where the whole was refused (413) or lost."""
LEAST_CHUNK = 256 * 1024
"""Bytes of the smallest chunk that is tried."""
_UNKNOWN_QUERY = (400, 401, 403, 404, 405, 416, 500)
"""What registries say that do not expect a `mount` without a `from`."""
_STEP = 1024 * 1024


class Content:
    """What is uploaded: a verified reader that can be put to any byte, as far as what it reads from allows.

    Args:
        desc: What it must be.
        stream: Where it comes from.
    """

    def __init__(self, desc: Descriptor, stream: SupportsRead) -> None:
        self.desc = desc
        self._reader = VerifyingReader(stream, desc, close=lambda: None)
        if isinstance(stream, VerifyingReader) and stream.descriptor.bare() == desc.bare():
            self._reader = stream
        # While a piece is hashed, the one before it is on its way: a thread more would only take turns with these.
        self._reader.hash_here()
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; the read that reaches the end proves the whole."""
        data = self._reader.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int) -> None:
        """Put it to a byte: forward by reading, back by beginning again.

        Raises:
            TransportError: it is behind that byte, and what it comes from cannot begin again.
        """
        if offset < self._at:
            if not self._reader.rewind():
                raise SettledError(
                    f"{self.desc.digest}: the registry lost what it was sent, and the source cannot begin again"
                )
            self._at = 0
        while self._at < offset and self.read(min(_STEP, offset - self._at)):
            pass

    def part(self, offset: int, length: int) -> Part:
        """A body of `length` bytes from `offset` on."""
        return Part(self, offset, length)


class Part(Value):
    """A request's body: some bytes of a content."""

    content: Content
    offset: int
    length: int

    def open(self) -> SupportsRead:
        """The content, put to the first byte of this part."""
        self.content.seek(self.offset)
        return self.content


# -------------------------------------------------------------------------------------------------------------- flows


class _Upload:
    """Where an upload stands: the session, what the registry has, and how it wants its chunks."""

    def __init__(self, name: str, content: Content, memory: Memory, *, chunk: int) -> None:
        self.name, self.content, self.memory = name, content, memory
        self.location, self.offset = memory.location, 0
        self.chunk, self.least = chunk, memory.least
        self.resumed = bool(memory.location)
        self.mountable = content.desc.size >= REMEMBERED
        self.whole = self.ended = self.there = False

    @property
    def desc(self) -> Descriptor:
        return self.content.desc

    def moved(self, response: Response) -> None:
        """Take a new location from an answer."""
        if response.headers.get("Location"):
            self.take(opened(response, self.least))

    def take(self, session: Opened) -> None:
        """Go on in a session, and remember it."""
        self.location, self.least = session.location, session.least
        self.memory.save(self.location, self.least)

    def request(self, method: str, **more: object) -> Request:
        """A request to the session; the flow, not the session below, knows how to repeat it."""
        fields = {"url": self.location, "scopes": (push_scope(self.name),), "retry": False, **more}
        return Request(method=method, **fields)  # type: ignore[arg-type]


def push_blob(
    name: str,
    content: Content,
    memory: Memory,
    *,
    session: Opened | None = None,
    chunk_size: int | None = None,
    attempts: int = 5,
    max_wait: float = 120.0,
) -> Flow[None]:
    """Upload a blob (end-4 to end-6, end-13, end-14).

    Args:
        name: The repository.
        content: The blob.
        memory: Where the session is remembered.
        session: A session that is open already, from a mount that did not happen.
        chunk_size: Bytes of a chunk; None for the whole at once.
        attempts: How many failures end it while the registry gets fewer than `PROGRESS` bytes.
        max_wait: The most seconds to wait where the registry asks for it; where it asks for more, that is the end.

    Raises:
        IntegrityError: the content is not what its descriptor says; the session is cancelled.
        RegistryError: the registry failed more often than is forgiven.
    """
    state = _Upload(name, content, memory, chunk=chunk_size or 0)
    failures, mark = 0, 0
    if state.resumed:
        yield from _resume(state)
    if session is not None:
        yield from _offer(state, session)
    while True:
        if not state.location:
            yield from _begin(state)  # which the session below has tried as often as it should be
        try:
            if not state.there:
                yield from _send(state)
        except (
            UnsupportedError,
            RegistryError,
            InvalidUploadError,
            NotFoundError,
            InvalidDigestError,
            LimitExceededError,
        ) as exc:
            if _asked(exc) > max_wait or not _forgivable(exc, state):
                yield from _give_up(state, exc)
                raise
            smaller = isinstance(exc, LimitExceededError) and state.chunk != LEAST_CHUNK
            if state.offset - mark >= PROGRESS:
                failures, mark = 0, state.offset
            failures += not smaller
            if failures >= attempts:
                yield from _give_up(state, exc)
                raise
            yield from _recover(state, exc, failures)
        except BaseException as exc:
            yield from _give_up(state, exc)
            raise
        else:
            memory.clear()
            return


def _begin(state: _Upload) -> Flow[None]:
    """Open a session, unless the registry has the blob somewhere and takes it from there (end-11 without `from`).

    Where the answer that ended the last one was lost, it may have the blob here.
    """
    state.there = state.ended and (yield from has(state.name, state.desc))
    if state.there:
        return
    query: dict[str, str] = {}
    statuses: tuple[int, ...] = ()
    if state.desc.digest.algorithm != "sha256":
        query["digest-algorithm"] = state.desc.digest.algorithm
    if state.mountable:
        query["mount"], statuses = str(state.desc.digest), _UNKNOWN_QUERY
    asked, state.mountable = state.mountable, False
    try:
        response = yield Request(
            method="POST",
            url=distribution.uploads_path(state.name) + (f"?{urlencode(query)}" if query else ""),
            scopes=(push_scope(state.name),),
            statuses=statuses,
        )
    except AccessError:
        if not asked:
            raise
        response = Response(401)  # some want other credentials for this wish alone, whoever asks
    if asked and response.status >= 400:
        yield from _begin(state)
        return
    if asked and response.status == 201:
        state.there = True
        return
    state.take(opened(response))
    state.offset, state.resumed, state.ended = 0, False, False


def _offer(state: _Upload, session: Opened) -> Flow[None]:
    """Take the session of a mount that did not happen, or cancel it where an earlier run's has some bytes already."""
    state.mountable = False
    if not state.offset:
        state.take(session)
        state.resumed = False
        return
    with contextlib.suppress(ArgosyError):
        yield state.request("DELETE", url=session.location, statuses=(400, 404, 405))


def _send(state: _Upload) -> Flow[None]:
    """Everything the registry lacks, and the request that ends the session."""
    size = state.desc.size
    if not size:
        state.content.read(1)  # nothing of it is sent, and all the same it has to be proved
    if state.whole or (size < REMEMBERED and not state.chunk and not state.offset):
        yield from _close(state, state.content.part(0, size))
        return
    while state.offset < size:
        length = min(max(state.chunk or size, state.least), size - state.offset)
        # a first piece that is all of it goes as docker, podman and crane send it: without a range
        last = state.offset + length - 1
        ranged = {"Content-Range": f"{state.offset}-{last}"} if length < size else {}
        response = yield state.request(
            "PATCH",
            headers={"Content-Type": "application/octet-stream", **ranged},
            body=state.content.part(state.offset, length),
        )
        state.moved(response)
        state.offset = _reached(response, state.offset, length)
    state.content.seek(size)
    yield from _close(state, None)


def _reached(response: Response, offset: int, length: int) -> int:
    text = response.headers.get("Range")
    received = distribution.parse_upload_range(text) if text else offset + length
    # that it took a little of much is a failure, and counts: byte after byte, an upload would have no end
    if not min(length, LEAST_CHUNK) <= received - offset <= length:
        raise RegistryError(
            f"the registry says it has {received} bytes after a chunk of {offset} to {offset + length}"
        )
    return received


def _close(state: _Upload, body: Part | None) -> Flow[None]:
    digest = state.desc.digest
    state.ended = True
    response = yield state.request(
        "PUT",
        url=_ending(state.location, digest),
        headers={"Content-Type": "application/octet-stream"},
        body=body if body is not None else b"",
        settling=state.desc.size,
    )
    if response.status == 202:
        state.moved(response)
        where = f"PUT {redact_url(response.url)}"
        raise RegistryError(f"{where}: 202 where the upload ends: the registry has not stored it")
    check_stored(response.headers.get(distribution.CONTENT_DIGEST_HEADER), digest)


def _ending(location: str, digest: Digest) -> str:
    """A session's address with the digest that ends it, and no other; the rest of its query is left as it is signed."""
    address, _, query = location.partition("?")
    kept = "&".join(field for field in query.split("&") if field.partition("=")[0] != "digest")
    return f"{address}?{kept}{'&' if kept else ''}digest={digest}"


# ----------------------------------------------------------------------------------------------------------- recovery


def _forgivable(exc: ArgosyError, state: _Upload) -> bool:
    """Whether going on may help: not where the registry has understood, and does not want it."""
    if isinstance(exc, SettledError):
        return False
    if _chunkless(exc):
        return not state.whole and state.desc.size > 0
    if isinstance(exc, InvalidDigestError):
        return state.resumed  # what an earlier run left was not this blob's beginning
    if isinstance(exc, ResponseError):
        return exc.http_status in RETRIED
    if isinstance(exc, NotFoundError):
        return isinstance(exc, UploadUnknownError) or bool(state.location)
    return True


def _asked(exc: BaseException) -> float:
    """The seconds to wait that an answer asked for."""
    if isinstance(exc, (ResponseError, TooManyRequestsError)):
        return exc.retry_after or 0.0
    return 0.0


def _chunkless(exc: ArgosyError) -> bool:
    """Whether the registry says that it does not take a blob in pieces."""
    if isinstance(exc, ResponseError):
        return exc.http_status in {400, 411, 415, 501}
    plain = isinstance(exc, InvalidUploadError) and not isinstance(exc, RangeNotSatisfiableError)
    return plain or isinstance(exc, UnsupportedError)


def _recover(state: _Upload, exc: ArgosyError, failures: int) -> Flow[None]:
    pause, before = min(30.0, 0.25 * 2 ** (failures - 1)), state.offset
    if isinstance(exc, (InvalidDigestError, NotFoundError)):
        state.location = ""
    elif _chunkless(exc):
        state.location, state.whole = "", True
    elif isinstance(exc, LimitExceededError):
        state.chunk = _smaller(state)
    if state.location:
        yield from _ask(state, pause)
    if state.offset <= before and isinstance(exc, TransportError):
        # it keeps nothing of a piece that broke: lose a smaller one the next time
        state.chunk = _smaller(state)


def _smaller(state: _Upload) -> int:
    """The next chunk to try after one was refused as too large, or lost."""
    last = min(state.chunk or state.desc.size, state.desc.size - state.offset)
    return max(min(last // 2, MOST_CHUNK), LEAST_CHUNK)


def _resume(state: _Upload) -> Flow[None]:
    """Go on with an earlier run's session, if it is still there to be asked. A new one takes its place in memory."""
    try:
        yield from _ask(state, 0.0)
    except TransportError:  # its host may be gone: that must not stop this run and all that come
        state.location = ""


def _ask(state: _Upload, pause: float) -> Flow[None]:
    """Ask how much the registry has (end-13); where it does not say, the next attempt opens a new session."""
    try:
        response = yield state.request("GET", retry=True, pause=pause)
        received = distribution.parse_upload_range(response.headers.get("Range"))
        state.moved(response)
    except TransportError:
        raise
    except ArgosyError:  # whatever it answers: a session that cannot be asked is none
        received = -1
    # `0-0` is what an empty session answers too: nothing is lost by taking it for one
    state.offset = received if received > 1 else 0
    if received < 0 or received > state.desc.size:
        state.location, state.offset = "", 0


def _give_up(state: _Upload, exc: BaseException) -> Flow[None]:
    """Cancel the session (end-14), unless a later run may go on with it; that this fails is no matter."""
    wrong = isinstance(exc, (IntegrityError, InvalidError))
    if not state.location or isinstance(exc, (TransportError, GeneratorExit)):
        return
    if _asked(exc):  # a request more is not what it asked for
        return
    if state.memory.lasting and not wrong:
        return
    state.memory.clear()
    with contextlib.suppress(ArgosyError):
        yield state.request("DELETE", statuses=(400, 404, 405))
