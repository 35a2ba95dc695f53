"""What is associated with a manifest and is no part of it: who refers to it, and tags that are made of its digest."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from argosy.content import graph
from argosy.content.protocols import Source
from argosy.content.workers import Workers
from argosy.errors import LimitExceededError
from argosy.spec.descriptor import Descriptor
from argosy.spec.reference import digest_tag

_FEW = 250
"""Referrers that are listed before anybody asked whether there is room; a longer list is then read again."""
_ENTRY = 40
"""Bytes of manifests that take as much memory as one entry of a list."""


class Associated:
    """Finds what is associated with manifests, on the threads of a run.

    Args:
        source: Where they are.
        workers: Who asks there, for several at a time.
        referrers: Whether to look for who refers to them.
        digest_tags: Whether to look for tags of the form `sha256-<hex>.sig`.
    """

    def __init__(
        self, source: Source, workers: Workers, *, referrers: bool, digest_tags: bool
    ) -> None:
        self.wanted = referrers or digest_tags
        self._source, self._workers = source, workers
        self._referrers, self._digest_tags = referrers, digest_tags
        self._lock = threading.Lock()
        self._by_digest: dict[tuple[str, str], list[str]] | None = None

    def tags(
        self, manifests: Iterable[Descriptor], check: Callable[[], object]
    ) -> Iterator[tuple[Descriptor, str]]:
        """Tags that stand for some manifests, with what they point at.

        Args:
            manifests: Which.
            check: Called again and again; it raises where nobody wants them any more.
        """
        if not self._digest_tags:
            return
        with self._lock:  # all the tags are looked through once
            if self._by_digest is None:
                self._by_digest = self._sorted(check)
        known = self._by_digest
        keys = ((desc.digest.algorithm, desc.digest.encoded) for desc in manifests)
        tags = [tag for key in keys for tag in known.get(key, ())]
        yield from zip(self._workers.map(self._source.resolve, tags), tags, strict=True)

    def _sorted(self, check: Callable[[], object]) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for tag in self._source.tags():
            check()
            if (digest := digest_tag(tag)) is not None:
                found.setdefault(digest, []).append(tag)
        return found

    def referrers(
        self,
        manifests: Sequence[Descriptor],
        check: Callable[[], object],
        take: Callable[[int], object],
    ) -> Iterator[Descriptor]:
        """Who refers to some manifests.

        Args:
            manifests: To which.
            check: Called again and again; it raises where nobody wants them any more.
            take: Called with an amount of memory before it is used, in bytes of manifests; it may wait.

        Raises:
            LimitExceededError: there are more than 100 000.
        """
        if not self._referrers:
            return
        few = functools.partial(self._listed, check, _FEW)  # those who list may not wait for room
        met = 0
        for desc, entries in zip(manifests, self._workers.map(few, manifests), strict=True):
            short = len(entries) < _FEW
            take(_ENTRY * (len(entries) if short else graph.MAX_NODES))
            found = entries if short else self._listed(check, graph.MAX_NODES + 1, desc)
            met += len(found)
            check_number(met)
            yield from found

    def _listed(self, check: Callable[[], object], most: int, desc: Descriptor) -> list[Descriptor]:
        found: list[Descriptor] = []
        for entry in itertools.islice(self._source.referrers(desc), most):
            check()
            found.append(entry.bare())
        return found


def check_number(met: int) -> None:
    """Raise where one copy has met too many descriptors."""
    # each walk has its limit, but a registry can name new referrers, and theirs, for ever
    if met > graph.MAX_NODES:
        raise LimitExceededError(f"more than {graph.MAX_NODES} descriptors in one copy")
