"""Manifests that were read, for who asks for them again in the same run."""

from __future__ import annotations

import threading

from argosy.spec.descriptor import Descriptor

MOST = 16 * 1024 * 1024
"""Bytes of manifests that are kept; of more, the oldest are forgotten."""


class Known:
    """Manifests and their descriptors, by digest and by the tags they were asked by. Safe to use from several threads.

    Args:
        most: How many bytes of them to keep.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._lock = threading.Lock()
        self._raw: dict[str, tuple[Descriptor, bytes]] = {}
        self._tags: dict[str, str] = {}

    def get(self, tag_or_digest: str) -> tuple[Descriptor, bytes] | None:
        """A manifest, if it is known."""
        with self._lock:
            return self._raw.get(self._tags.get(tag_or_digest, tag_or_digest))

    def put(self, tag_or_digest: str, desc: Descriptor, raw: bytes) -> None:
        """Keep a manifest that is what `desc` says."""
        with self._lock:
            if desc.digest not in self._raw:
                self._raw[desc.digest] = desc, raw
                self._held += len(raw)
            if tag_or_digest != desc.digest:
                self._tags[tag_or_digest] = desc.digest
            while self._held > self._most:
                self._drop(next(iter(self._raw)))

    def forget(self, *wanted: str) -> None:
        """Know tags or digests no more."""
        with self._lock:
            for one in wanted:
                self._tags.pop(one, None)
                self._drop(one)

    def _drop(self, digest: str) -> None:
        if digest in self._raw:
            self._held -= len(self._raw.pop(digest)[1])
