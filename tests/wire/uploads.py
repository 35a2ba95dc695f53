"""A registry's end of an upload."""

from __future__ import annotations

import os
import re
import threading

from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from tests.wire import scripted as s

DATA = os.urandom(6_000_000)
LAYER = Descriptor.of(mediatypes.OCI_LAYER_GZIP, DATA)
UPLOADS = r"/v2/app/blobs/uploads/"
UNKNOWN = b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}'


class Uploads:
    """A registry's upload end, honest, which counts what it is sent; `breaks` ends some transfers early.

    Args:
        server: Where it is installed.
        breaks: After how many bytes of body each transfer ends, with a reset; None for not at all.
        keeps: Whether a session survives that.
    """

    def __init__(
        self, server: s.Scripted, breaks: list[int | None] | None = None, *, keeps: bool = True
    ) -> None:
        self.breaks, self.keeps = list(breaks or []), keeps
        self.data, self.received, self.sessions = bytearray(), 0, 0
        self.cancelled, self.stored = 0, b""
        self.ranges: list[str] = []
        self.lock = threading.Lock()
        server.on("POST", UPLOADS + ".*", self.begin)
        server.on("GET", "/up/.*", self.status)
        server.on("DELETE", "/up/.*", self.cancel)
        server.on("PATCH", "/up/.*", self.patch)
        server.on("PUT", "/up/.*", self.put)

    def where(self) -> dict[str, str]:
        return {"Location": f"/up/{self.sessions}?state={len(self.data)}"}

    def begin(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.sessions += 1
        self.data = bytearray()
        return s.answer(202, self.where())(seen, peer)

    def live(self, seen: s.Seen) -> bool:
        return seen.path == f"/up/{self.sessions}"

    def status(self, seen: s.Seen, peer: s.Peer) -> bool:
        if not self.live(seen):
            return s.answer(404, {}, UNKNOWN)(seen, peer)
        end = max(len(self.data) - 1, 0)
        return s.answer(204, {**self.where(), "Range": f"0-{end}"})(seen, peer)

    def cancel(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.cancelled += 1
        return s.answer(204)(seen, peer)

    def stale(self, seen: s.Seen) -> bool:
        """Whether its state is not that of the last answer."""
        state = re.search(r"state=(\d+)", seen.target)
        return state is not None and int(state[1]) != len(self.data)

    def take(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.ranges.append(seen.headers.get("content-range", ""))
        limit = self.breaks.pop(0) if self.breaks else None
        wanted = seen.length if limit is None else min(limit, seen.length)
        got = peer.file.read(wanted)
        self.data += got
        self.received += len(got)
        if limit is not None and wanted == limit:
            if not self.keeps:
                self.sessions += 1
            peer.reset()
            return False
        seen.length = 0
        return True

    def patch(self, seen: s.Seen, peer: s.Peer) -> bool:
        start = int(seen.headers.get("content-range", f"{len(self.data)}-").partition("-")[0])
        if self.stale(seen):
            return s.answer(404, {}, UNKNOWN)(seen, peer)
        if start != len(self.data):
            return s.answer(416, {**self.where(), "Range": f"0-{len(self.data) - 1}"})(seen, peer)
        if not self.take(seen, peer):
            return False
        fields = {**self.where(), "Range": f"0-{len(self.data) - 1}"}
        return s.answer(202, fields)(seen, peer)

    def put(self, seen: s.Seen, peer: s.Peer) -> bool:
        if self.stale(seen):
            return s.answer(404, {}, UNKNOWN)(seen, peer)
        if not self.take(seen, peer):
            return False
        digest = re.search(r"digest=([^&]*)", seen.target)
        if not digest or Digest.of(bytes(self.data)) != digest[1]:
            return s.answer(400, {}, b'{"errors":[{"code":"DIGEST_INVALID"}]}')(seen, peer)
        self.stored = bytes(self.data)
        return s.answer(201, {"Location": "/x"})(seen, peer)
