"""When `index.json` is read and written: as seldom as that can be, and never at the cost of what others write."""

from __future__ import annotations

import io
import json
import pathlib

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.content.protocols import Gatherer, together
from argosy.errors import ManifestUnknownError
from argosy.layout import indexfile
from argosy.layout.durable import write_file
from argosy.layout.store import LayoutStore
from argosy.layout.view import decode_index
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.testing import random


class Counted:
    """How often index files were read and written since it was asked last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = self.writes = 0

        def read(raw: bytes, where: str) -> object:
            self.reads += 1
            return decode_index(raw, where)

        def written(path: str, data: bytes) -> int:
            self.writes += 1
            return write_file(path, data)

        monkeypatch.setattr(indexfile, "decode_index", read)
        monkeypatch.setattr(indexfile, "write_file", written)

    def since(self) -> tuple[int, int]:
        found = self.reads, self.writes
        self.reads = self.writes = 0
        return found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
def store(tmp_path: pathlib.Path, counted: Counted) -> LayoutStore:
    made = LayoutStore.create(tmp_path / "layout")
    counted.since()
    return made


def again(store: LayoutStore) -> LayoutStore:
    """The layout as another process sees it."""
    return LayoutStore.open(store.path)


def pushed(store: LayoutStore, number: int, *tags: str) -> Descriptor:
    raw = b'{"schemaVersion":2,"manifests":[],"annotations":{"n":"%d"}}' % number
    desc = Descriptor.of(mediatypes.OCI_INDEX, raw)
    store.push(desc, io.BytesIO(raw), tags=tags)
    return desc


def test_what_was_written_here_is_not_read_again(store: LayoutStore, counted: Counted) -> None:
    for number in range(3):
        pushed(store, number, f"v{number}")
    assert list(store.tags()) == ["v0", "v1", "v2"]
    assert counted.since() == (0, 3)
    pushed(again(store), 3, "theirs")
    counted.since()
    assert "theirs" in list(store.tags())
    assert counted.since() == (1, 0)


def test_a_copy_writes_the_index_once(store: LayoutStore, counted: Counted) -> None:
    source = MemoryStore()
    root = random.index(source, 1, "v1")
    assert len(json.loads(source.fetch(root).readall())["manifests"]) > 1
    copy(source, "v1", store, "v1", "latest")
    assert counted.since() == (0, 1)
    assert again(store).resolve("latest") == root


def test_several_names_are_removed_by_one_write(store: LayoutStore, counted: Counted) -> None:
    for number in range(3):
        pushed(store, number, f"v{number}")
    counted.since()
    store.untag("v0", "v1", "v2")
    assert counted.since() == (0, 1)
    assert not [*again(store).tags()]


class TestTogether:
    def test_additions_are_seen_here_at_once_and_by_others_when_the_block_ends(
        self, store: LayoutStore, counted: Counted
    ) -> None:
        assert isinstance(store, Gatherer)
        with store.together():
            first = pushed(store, 1, "v1")
            with store.together():
                store.tag(first, "stable")
            assert list(store.tags()) == ["v1", "stable"]
            assert store.exists(first)
            assert not [*again(store).tags()]
        assert [*again(store).tags()] == ["v1", "stable"]
        assert counted.writes == 1

    def test_what_waits_is_shown_while_it_is_written(
        self, store: LayoutStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[list[str]] = []

        def written(path: str, data: bytes) -> int:
            shown.append([*store.tags()])
            return write_file(path, data)

        monkeypatch.setattr(indexfile, "write_file", written)
        with store.together():
            pushed(store, 1, "v1")
        assert shown == [["v1"]]

    def test_what_was_added_before_an_error_stays(self, store: LayoutStore) -> None:
        def half() -> None:
            with store.together():
                store.tag(pushed(store, 1, "v1"), "v2")
                store.resolve("v3")

        with pytest.raises(ManifestUnknownError):
            half()
        assert [*again(store).tags()] == ["v1", "v2"]

    def test_what_others_change_meanwhile_stays(self, store: LayoutStore) -> None:
        pushed(store, 0, "old")
        with store.together():
            pushed(store, 1, "v1")
            other = again(store)
            pushed(other, 2, "theirs")
            other.untag("old")
        assert sorted(again(store).tags()) == ["theirs", "v1"]

    def test_not_too_many_wait(self, store: LayoutStore, counted: Counted) -> None:
        with store.together():
            for number in range(indexfile.MOST):
                pushed(store, number, f"v{number}")
            assert len([*again(store).tags()]) == indexfile.MOST
            pushed(store, indexfile.MOST, "last")
        assert counted.writes == 2

    def test_removals_do_not_wait(self, store: LayoutStore) -> None:
        with store.together():
            pushed(store, 1, "v1")
            pushed(store, 2, "v2")
            store.untag("v1")
            assert [*again(store).tags()] == ["v2"]
            with pytest.raises(ManifestUnknownError):
                store.untag("v1")

    def test_nothing_waits_for_what_may_be_long_in_coming(self, store: LayoutStore) -> None:
        """`gc` spares what nothing leads to for an hour, and a large blob may take two."""
        large = bytes(2 * 1024 * 1024)
        with store.together():
            pushed(store, 1, "v1")
            desc = Descriptor.of(mediatypes.OCTET_STREAM, large)
            store.push(desc, Slow(large, store))

    def test_a_place_that_gains_nothing_by_it_is_left_alone(self) -> None:
        store = MemoryStore()
        with together(store):
            random.image(store, 1, "v1")
        assert [*store.tags()] == ["v1"]


class Slow(io.BytesIO):
    """A stream that looks, when it is read, at what others see of the layout."""

    def __init__(self, data: bytes, store: LayoutStore) -> None:
        super().__init__(data)
        self._store = store

    def read(self, size: int | None = -1, /) -> bytes:
        assert [*again(self._store).tags()] == ["v1"]
        return super().read(size)
