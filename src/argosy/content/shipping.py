"""Blobs on their way from one place to another: each once, whoever wants it, in the cheapest way that works."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable

from argosy.content.bounds import Recent
from argosy.content.events import Copied, Event, Mounted, Progressed, Skipped, Told
from argosy.content.protocols import Mounter, Source, Target
from argosy.content.verify import VerifyingReader
from argosy.content.workers import Cancelled, Task, Turns, Workers
from argosy.errors import DigestMismatchError
from argosy.spec import mediatypes
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import AnyManifest

_MOST_LISTED = 100_000
"""How many referrers and subjects it is remembered of who refers to whom; a longer list is not read to its end."""


class _Sent(Value):
    """A blob that is on its way, and whether it was for this freight that it was sent."""

    descriptor: Descriptor
    task: Task[None]
    own: bool


class Freight:
    """Blobs that belong together: where one cannot be moved, the others need not be.

    Attributes:
        failed: Whether that is so.
        moved: Whether the target lacked any.
    """

    def __init__(self) -> None:
        self.sent: list[_Sent] = []
        self.failed = self.moved = False


class Shipping:
    """Brings blobs to a target. What several want at a time moves once.

    Args:
        source: Where they are.
        target: Where they go.
        workers: Who looks for them at the target, and moves them.
        most: How many move at a time.
        told: Whom to tell.
        foreign: Whether non-distributable layers move too.
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        workers: Workers,
        most: int,
        told: Told,
        *,
        foreign: bool,
    ) -> None:
        self.source, self.target = source, target
        self.fresh: Recent[Digest] = Recent()
        """What was missing at the target."""
        self._workers, self._told, self._foreign = workers, told, foreign
        self._mounter = target if isinstance(target, Mounter) else None
        self._turns = Turns(most)
        self._lock = threading.Lock()
        self._moving: dict[Digest, Task[None]] = {}
        self._there: Recent[Digest] = Recent()
        self._left: Recent[Digest] = Recent()

    def check(self, freight: Freight) -> None:
        """Go on only where somebody still wants it.

        Raises:
            Cancelled: nobody does.
        """
        if freight.failed or self._workers.cancelled:
            raise Cancelled

    def send(self, freight: Freight, desc: Descriptor) -> None:
        """Have a blob moved, unless it is there; for another freight it may be on its way already."""
        if desc.media_type in mediatypes.NONDISTRIBUTABLE and not self._foreign:
            self._leave(desc)
            return
        mine = Task(functools.partial(self._move, freight, desc))
        with self._lock:
            if desc.digest in self._there:
                return
            task = self._moving.setdefault(desc.digest, mine)
        freight.sent.append(_Sent(desc, task, task is mine))
        if task is mine:
            self._workers.start(mine)

    def _leave(self, desc: Descriptor) -> None:
        """Tell once of a blob that does not move. Elsewhere it may be a layer like any other, and that one moves."""
        if self._left.add(desc.digest):
            self._told.tell(Skipped(desc, "foreign"))

    def wait(self, freight: Freight) -> None:
        """Wait until all that was sent is there. What failed for another freight is tried again for this one.

        Raises:
            ArgosyError: what could not be moved, and why.
        """
        failure: Exception | None = None
        for one in freight.sent:  # it grows where something is sent again
            try:
                one.task.result()
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is raised
                if one.own:
                    freight.failed = True
                    if failure is None or isinstance(failure, Cancelled):
                        failure = exc
                elif not (freight.failed or self._workers.cancelled):
                    self.send(freight, one.descriptor)
        freight.sent.clear()
        if failure is not None:
            raise failure

    def _move(self, freight: Freight, desc: Descriptor) -> None:
        try:
            event = self._moved(freight, desc)
            freight.moved = freight.moved or isinstance(event, (Copied, Mounted))
            self._told.tell(event)
            with self._lock:
                self._there.add(desc.digest)
        except BaseException:
            freight.failed = True
            raise
        finally:
            with self._lock:
                self._moving.pop(desc.digest, None)

    def _moved(self, freight: Freight, desc: Descriptor) -> Event:
        self.check(freight)
        with Noted(f"while copying {desc.digest} to {self.target}"):
            if self.target.exists(desc):
                return Skipped(desc, "exists")
            self.fresh.add(desc.digest)
            if self._mounter is not None and self._mounter.mount(desc, self.source):
                return Mounted(desc)
            with self._turns:
                self.check(freight)
                with self._opened(freight, desc) as reader:
                    self._pushed(desc, reader)
        return Copied(desc)

    def _pushed(self, desc: Descriptor, reader: VerifyingReader) -> None:
        while True:
            try:
                self.target.push(desc, reader)
            except DigestMismatchError as exc:
                if not reader.elsewhere(exc):  # a mirror's wrong bytes are no reason to fail
                    raise
            else:
                return

    def _opened(self, freight: Freight, desc: Descriptor) -> VerifyingReader:
        with Noted(f"while reading from {self.source}"):
            reader = self.source.fetch(desc)
        watched = reader if isinstance(reader, VerifyingReader) else VerifyingReader(reader, desc)
        watched.observe(self._observer(freight, desc))
        watched.spread(self._turns)
        return watched

    def _observer(self, freight: Freight, desc: Descriptor) -> Callable[[int], object]:
        if not self._told.listening:
            return lambda _size: self.check(freight)
        done = 0

        def moved(size: int) -> None:
            nonlocal done
            self.check(freight)
            done += size
            self._told.tell(Progressed(desc, done))

        return moved


class Present:
    """Which manifests are at a target, as far as that is known.

    Args:
        target: Where they may be.
        fresh: Content that was missing there.
    """

    def __init__(self, target: Target, fresh: Recent[Digest]) -> None:
        self._target, self._fresh = target, fresh
        self._known: Recent[Digest] = Recent()
        self._lists: dict[Digest, set[Digest]] = {}
        self._remembered = 0

    def add(self, desc: Descriptor) -> bool:
        """Remember that one is there; whether that is news."""
        return self._known.add(desc.digest)

    def has(self, desc: Descriptor, manifest: AnyManifest) -> bool:
        """Whether one is there; it is not asked where some content was missing: then it was itself."""
        if desc.digest in self._known:
            return True
        if any(child.digest in self._fresh for child in manifest.children()):
            self._fresh.add(desc.digest)
            return False
        return self._target.exists(desc) and self._listed(desc, manifest)

    def _listed(self, desc: Descriptor, manifest: AnyManifest) -> bool:
        """Whether what is at the target is found there by its subject too, if it has one.

        Where clients keep the list it may have been lost; to push the manifest again puts it there. A subject's list is
        read once.
        """
        subject = manifest.subject
        if subject is None:
            return True
        listed = self._lists.get(subject.digest)
        if listed is None:
            found = itertools.islice(self._target.referrers(subject), _MOST_LISTED)
            listed = {entry.digest for entry in found}
            self._remembered += 1 + len(listed)
            if self._remembered > _MOST_LISTED:
                self._lists, self._remembered = {}, 1 + len(listed)
            self._lists[subject.digest] = listed
        return desc.digest in listed


class Noted:
    """Adds a note to what is raised inside, once for each place."""

    def __init__(self, note: str) -> None:
        self._note = note

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is not None and not isinstance(exc, Cancelled):
            exc.add_note(self._note)
