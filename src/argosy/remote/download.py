"""A blob's bytes as they come over the wire, continued where the connection broke.

The stream is not verified: it goes into a `VerifyingReader`, which has the last word. Ranges are closed
(`bytes=N-M`), because some registries refuse open ones, and an answer's `Content-Range` must be exactly what was asked
for. A registry that sends everything again is read from the beginning, the known part dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from argosy.content.protocols import SupportsRead
from argosy.errors import ArgosyError, RegistryError, SizeMismatchError, TransportError
from argosy.remote.wire import Response, SettledError
from argosy.spec.descriptor import Descriptor

PROGRESS = 256 * 1024
"""Bytes that must have moved, down or up, for the failures before to be forgiven: byte after byte has no end."""

_CONTENT_RANGE = r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)"
_DROP = 1024 * 1024


class Download:
    """A blob's bytes: `SupportsRead` and `Resumable`.

    Args:
        desc: The blob.
        ask: Asks the registry for its bytes from an offset up to another, or without a range; the answer streams.
        stop: The offset behind the last byte; None for all of the blob.
        attempts: How many failures end it while fewer than `PROGRESS` bytes come.
        pause: Called with the number of failures so far before it is asked again.
        leave: Called with a failure that is final here: whether another place is asked from now on.
        elsewhere: Called with the failure when all bytes were read and were wrong: whether to read them all once more.
    """

    def __init__(
        self,
        desc: Descriptor,
        ask: Callable[[int, int | None], Response],
        *,
        stop: int | None = None,
        attempts: int,
        pause: Callable[[int], object],
        leave: Callable[[ArgosyError], bool] = lambda _failure: False,
        elsewhere: Callable[[ArgosyError], bool] = lambda _failure: False,
    ) -> None:
        self._desc, self._ask, self._attempts, self._pause = desc, ask, attempts, pause
        self._stop = desc.size if stop is None else stop
        self._leave, self._elsewhere = leave, elsewhere
        self._response: Response | None = None
        self._at = 0
        self._failures = 0
        self._mark = 0
        self._ranged = True

    def start_at(self, offset: int, /) -> None:
        """Let the next `read` return the byte at `offset`."""
        self.close()
        self._at = self._mark = offset

    def elsewhere(self, failure: ArgosyError) -> bool:
        """Have the bytes come from another place, if there is one, since they were not the blob's."""
        return self._elsewhere(failure)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; empty at the end.

        Raises:
            BlobUnknownError: the registry does not have it.
            SizeMismatchError: the registry says it has another size than its descriptor.
            RegistryError: it does not answer, or breaks off too often.
        """
        while True:
            try:
                body = self._body()
                data = body.read(size) if body else b""
                if not data and self._at < self._stop and body:
                    raise TransportError(f"{self._desc.digest}: the body ended at byte {self._at}")
            except ArgosyError as exc:
                self._failed(exc)
                continue
            self._at += len(data)
            return data

    def close(self) -> None:
        """Let the connection go."""
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _failed(self, exc: ArgosyError) -> None:
        self.close()
        if isinstance(exc, TransportError) and not isinstance(exc, SettledError):
            if self._at - self._mark >= PROGRESS:
                self._failures, self._mark = 0, self._at
            self._failures += 1
            if self._failures < self._attempts:
                self._pause(self._failures)
                return
        if not self._leave(exc):
            raise exc
        self._failures, self._mark, self._ranged = 0, self._at, True

    def _body(self) -> SupportsRead | None:
        if self._response is None and (self._at < self._stop or self._at == 0):
            self._response = self._opened()
        return self._response.body if self._response else None

    def _opened(self) -> Response:
        response = self._ask(self._at, self._stop if self._ranged else None)
        try:
            drop = self._check(response)
            while drop and response.body and (data := response.body.read(min(drop, _DROP))):
                drop -= len(data)
        except BaseException:
            response.close()
            raise
        return response

    def _check(self, response: Response) -> int:
        """How many bytes at the beginning of an answer are known already."""
        asked = self._at if self._ranged else 0
        if response.status == 206 and asked:
            match = re.fullmatch(_CONTENT_RANGE, response.headers.get("Content-Range").strip())
            start, end, total = match.groups() if match else ("", "", "")
            size = str(self._desc.size)
            if (start, end) == (str(asked), str(self._stop - 1)) and total in {size, "*"}:
                return 0
            return self._without_ranges(
                f"wrong Content-Range {response.headers.get('Content-Range')!r}"
            )
        if response.status == 416 and asked:
            return self._without_ranges("416 to a range inside the blob")
        if response.status != 200:
            raise RegistryError(f"{self._desc.digest}: unexpected status {response.status}")
        if self._stop != self._desc.size:
            raise RegistryError(f"{self._desc.digest}: asked for a part, the registry sends it all")
        length = response.length
        if length not in {None, self._desc.size}:
            if self._at:  # no word on what came before, which may well be right
                raise RegistryError(
                    f"{self._desc.digest}: asked to go on, the registry sends {length} bytes from the beginning, "
                    f"of {self._desc.size}"
                )
            raise SizeMismatchError(
                f"{self._desc.digest}: the registry sends another size",
                expected=f"{self._desc.size} bytes",
                actual=f"{length} bytes",
            )
        return self._at

    def _without_ranges(self, why: str) -> int:
        self._ranged = False
        raise TransportError(f"{self._desc.digest}: {why}")
