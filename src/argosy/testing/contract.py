"""What every `Target` promises, as tests: subclass `TargetContract`, give it a place, and let pytest collect it.

Example:
    >>> from argosy.content.memory import MemoryStore
    >>> class TestMemory(TargetContract):
    ...     def make(self, tmp_path):
    ...         return MemoryStore()
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Callable

from argosy.content.copy import copy
from argosy.content.events import Event, Skipped
from argosy.content.graph import read, walk
from argosy.content.memory import MemoryStore
from argosy.content.protocols import Deleter, Target
from argosy.errors import (
    ArgosyError,
    DigestMismatchError,
    IntegrityError,
    InvalidTagError,
    ManifestUnknownError,
    NameUnknownError,
    NotFoundError,
    SizeMismatchError,
    UsageError,
)
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.testing import random


def raises(kind: type[ArgosyError], action: Callable[[], object]) -> ArgosyError:
    """Run `action`, which must raise `kind`; the error comes back."""
    try:
        action()
    except kind as exc:
        return exc
    raise AssertionError(f"{kind.__name__} was not raised")


def tags_of(place: Target) -> list[str]:
    """A place's tags; none where a registry does not know a repository that nothing was pushed to."""
    try:
        return list(place.tags())
    except NameUnknownError:
        return []


class _Broken:
    """Content that cannot be read."""

    def __init__(self, failure: Exception) -> None:
        self._failure = failure

    def read(self, _size: int = -1, /) -> bytes:
        """Nothing."""
        raise self._failure


class TargetContract:
    """Subclasses give `make`, and `reopen` where a place outlives the object that stands for it."""

    keeps_blobs_alone = True
    """Whether a blob that no manifest refers to is kept."""

    def make(self, tmp_path: pathlib.Path) -> Target:
        """A new, empty place."""
        raise NotImplementedError

    def reopen(self, place: Target) -> Target:
        """The same place, seen anew; by default what was made."""
        return place

    def test_what_is_pushed_is_fetched(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        desc = random.image(place, 1, "v1")
        place = self.reopen(place)
        assert place.resolve("v1").digest == desc.digest
        assert place.resolve(desc.digest).media_type == desc.media_type
        for node in walk(place, desc):
            assert place.exists(node.descriptor)
            for child in node.manifest.children():
                assert Digest.of(read(place, child)) == child.digest

    def test_tags_are_listed_each_once(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        desc = random.image(place, 1, "b", "a")
        place.tag(desc, "c")
        place.tag(desc, "a")
        assert sorted(self.reopen(place).tags()) == ["a", "b", "c"]

    def test_a_tag_moves(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        first, second = random.image(place, 1, "v1"), random.image(place, 2)
        assert place.resolve("v1").digest == first.digest
        place.tag(second, "v1")
        assert self.reopen(place).resolve("v1").digest == second.digest

    def test_a_tag_needs_its_manifest(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        absent = random.image(MemoryStore(), 1)
        raises(NotFoundError, lambda: place.tag(absent, "v1"))

    def test_only_a_manifest_has_tags(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        desc = Descriptor.of("text/plain", b"text")
        raises(UsageError, lambda: place.push(desc, io.BytesIO(b"text"), tags=["v1"]))
        place.push(desc, io.BytesIO(b"text"))
        raises(UsageError, lambda: place.tag(desc, "v1"))
        assert tags_of(place) == []

    def test_a_tag_outside_the_grammar_is_refused(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        desc = random.image(place, 1)
        raises(InvalidTagError, lambda: place.tag(desc, "../../etc"))
        assert tags_of(place) == []

    def test_what_is_absent_is_not_found(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        absent = Descriptor.of("application/octet-stream", b"absent")
        assert not place.exists(absent)
        raises(NotFoundError, lambda: place.resolve("nowhere"))
        raises(NotFoundError, lambda: place.resolve(absent.digest))
        raises(NotFoundError, lambda: place.fetch(absent).read())

    def test_a_manifest_that_is_absent_is_told_as_one(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        random.image(place, 1, "v1")
        absent = random.image(MemoryStore(), 2)
        place = self.reopen(place)
        assert not place.exists(absent)
        raises(ManifestUnknownError, lambda: place.resolve("nowhere"))
        raises(ManifestUnknownError, lambda: place.fetch(absent).read())

    def test_content_with_another_digest_is_not_kept(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        desc = Descriptor.of("application/octet-stream", b"right")
        raises(DigestMismatchError, lambda: place.push(desc, io.BytesIO(b"wrong")))
        assert not self.reopen(place).exists(desc)

    def test_what_reading_content_raises_comes_out_as_it_is(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        desc = Descriptor.of("text/plain", b"hello")
        for failure in (OSError(5, "Input/output error"), ConnectionResetError(), ValueError()):
            try:
                place.push(desc, _Broken(failure))
            except Exception as exc:  # noqa: BLE001 - whichever it is, it must be this
                assert exc is failure
            else:
                raise AssertionError("nothing was raised")
            assert not place.exists(desc)

    def test_bytes_are_no_content_to_read(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        for media_type in ("text/plain", "application/vnd.oci.image.manifest.v1+json"):
            desc = Descriptor.of(media_type, b"hello")
            raises(UsageError, lambda desc=desc: place.push(desc, b"hello"))  # type: ignore[misc, arg-type]

    def test_one_string_is_no_list_of_tags(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        desc = random.image(place, 1, "v1")
        raises(UsageError, lambda: place.push(desc, io.BytesIO(read(place, desc)), tags="ab"))
        assert tags_of(place) == ["v1"]

    def test_content_of_another_size_is_not_kept(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        desc = Descriptor.of("application/octet-stream", b"right")
        raises(SizeMismatchError, lambda: place.push(desc, io.BytesIO(b"rig")))
        raises(SizeMismatchError, lambda: place.push(desc, io.BytesIO(b"right and more")))
        assert not self.reopen(place).exists(desc)

    def test_pushing_again_changes_nothing(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        first = random.image(place, 1, "v1")
        assert random.image(place, 1, "v1") == first
        assert list(self.reopen(place).tags()) == ["v1"]

    def test_referrers_are_listed_and_filtered(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        subject = random.image(place, 1, "v1")
        sbom = random.artifact(place, 2, subject=subject, kind="application/x.sbom")
        note = random.artifact(place, 3, subject=subject, kind="application/x.note")
        place = self.reopen(place)
        found = {d.digest: d for d in place.referrers(subject)}
        assert set(found) == {sbom.digest, note.digest}
        assert found[sbom.digest].artifact_type == "application/x.sbom"
        assert found[sbom.digest].annotations == {"org.example.seed": "2"}
        only = list(place.referrers(subject, "application/x.note"))
        assert [d.digest for d in only] == [note.digest]

    def test_types_with_parameters_are_kept_and_found(self, tmp_path: pathlib.Path) -> None:
        memory, place = MemoryStore(), self.make(tmp_path)
        kind = "application/x.bundle+json;version=0.2"
        subject = random.image(memory, 1, "v1")
        made = random.artifact(memory, 2, subject=subject, kind=kind)
        copy(memory, "v1", place, "v1", referrers=True)
        place = self.reopen(place)
        found = [(entry.digest, entry.artifact_type) for entry in place.referrers(subject, kind)]
        assert found == [(made.digest, kind)]
        assert list(place.referrers(subject, kind.partition(";")[0])) == []

    def test_an_unknown_subject_has_no_referrers(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        assert list(place.referrers(random.image(MemoryStore(), 9))) == []

    def test_a_nested_index_is_copied_in_and_out(self, tmp_path: pathlib.Path) -> None:
        memory, back = MemoryStore(), MemoryStore()
        place = self.make(tmp_path)
        root = random.index(memory, 5, "v1", nested=True)
        copy(memory, "v1", place, "v1")
        copy(self.reopen(place), "v1", back, "v1")
        assert back.resolve("v1") == root
        assert [n.raw for n in walk(back, root)] == [n.raw for n in walk(memory, root)]

    def test_copying_again_moves_nothing(self, tmp_path: pathlib.Path) -> None:
        memory, place = MemoryStore(), self.make(tmp_path)
        random.index(memory, 5, "v1")
        copy(memory, "v1", place, "v1")
        events: list[Event] = []
        copy(memory, "v1", self.reopen(place), "v1", on_event=events.append)
        assert {e.reason for e in events if isinstance(e, Skipped)} == {"exists"}
        moved = {type(e).__name__ for e in events}
        assert moved <= {"Planned", "Skipped", "Tagged"}

    def test_a_copy_that_fails_leaves_no_tag(self, tmp_path: pathlib.Path) -> None:
        memory, place = MemoryStore(), self.make(tmp_path)
        desc = random.image(memory, 5, "v1")
        layer = next(iter(walk(memory, desc))).manifest.children()[1]
        memory._content[layer.digest] = (layer, b"damaged")
        raises(IntegrityError, lambda: copy(memory, "v1", place, "v1"))
        place = self.reopen(place)
        assert tags_of(place) == []
        assert not place.exists(layer)

    def test_a_copy_to_a_tag_that_cannot_be_moves_nothing(self, tmp_path: pathlib.Path) -> None:
        memory, place = MemoryStore(), self.make(tmp_path)
        desc = random.image(memory, 5, "v1")
        raises(InvalidTagError, lambda: copy(memory, "v1", place, "v1", "@0"))
        place = self.reopen(place)
        assert not any(place.exists(n.descriptor) for n in walk(memory, desc))
        layer = next(iter(walk(memory, desc))).manifest.children()[1]
        assert not place.exists(layer)

    def test_untagging_leaves_the_other_tags(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        if not isinstance(place, Deleter):
            return
        desc = random.image(place, 1, "a", "b")
        place.untag("a")
        raises(NotFoundError, lambda: place.untag("a"))
        again = self.reopen(place)
        assert list(again.tags()) == ["b"]
        assert again.resolve("b").digest == desc.digest

    def test_deleting_a_manifest_takes_its_tags(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        if not isinstance(place, Deleter):
            return
        gone, stays = random.image(place, 1, "a", "b"), random.image(place, 2, "c")
        place.delete(gone)
        again = self.reopen(place)
        assert list(again.tags()) == ["c"]
        raises(NotFoundError, lambda: again.resolve(gone.digest))
        assert again.resolve("c").digest == stays.digest
