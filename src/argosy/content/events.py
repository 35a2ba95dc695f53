"""What happens while content is copied, told to whoever watches (a progress display, a log, a test)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from argosy.content.bounds import Recent
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest


class Planned(Value):
    """This content belongs to what is copied. Told before any of it moves, so that totals can be shown."""

    descriptor: Descriptor


class Progressed(Value):
    """Some bytes of a blob moved; `done` counts all of its so far. Of manifests only the end is told."""

    descriptor: Descriptor
    done: int


class Copied(Value):
    """The content is now at the target, verified and durable."""

    descriptor: Descriptor


class Skipped(Value):
    """The content did not move, and why: `exists`, or `foreign` (a non-distributable layer, not asked for)."""

    descriptor: Descriptor
    reason: str


class Mounted(Value):
    """The target took the content over from another repository of its own; no bytes moved."""

    descriptor: Descriptor


class Tagged(Value):
    """A tag of the target now points at the content: the last thing that happens."""

    descriptor: Descriptor
    tag: str


Event = Planned | Progressed | Copied | Skipped | Mounted | Tagged
OnEvent = Callable[[Event], object]


def ignore(_event: Event) -> None:
    """Watch nothing."""


class Told:
    """Tells whoever watches, from several threads, one event at a time.

    Args:
        on_event: Who watches.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self.listening = on_event is not ignore
        self._on_event = on_event
        self._telling = threading.Lock()
        self._planned: Recent[Digest] = Recent()

    def tell(self, event: Event) -> None:
        """Tell of something."""
        with self._telling:
            self._on_event(event)

    def plan(self, desc: Descriptor) -> None:
        """Tell that content belongs to what is copied, once."""
        if self.listening and self._planned.add(desc.digest):
            self.tell(Planned(desc))
