"""The contract of `Target`, on the places on disk."""

from __future__ import annotations

import pathlib

import pytest

from argosy.content.protocols import Target
from argosy.layout.archive import OCIArchive, OCIArchiveWriter
from argosy.layout.store import LayoutStore
from argosy.testing.contract import TargetContract


class TestLayout(TargetContract):
    def make(self, tmp_path: pathlib.Path) -> Target:
        return LayoutStore.create(tmp_path / "layout")

    def reopen(self, place: Target) -> Target:
        assert isinstance(place, LayoutStore)
        return LayoutStore.open(place.path)


class TestLayoutWithSharedBlobs(TargetContract):
    def make(self, tmp_path: pathlib.Path) -> Target:
        return LayoutStore.create(tmp_path / "layout", blobs=tmp_path / "shared")

    def reopen(self, place: Target) -> Target:
        assert isinstance(place, LayoutStore)
        return LayoutStore.open(place.path, blobs=place.blobs.path)


class TestOCIArchive(TargetContract):
    opened: list[OCIArchiveWriter]

    @pytest.fixture(autouse=True)
    def _closed(self):  # type: ignore[no-untyped-def]
        self.opened = []
        yield
        for place in self.opened:
            place.close()

    def create(self, path: pathlib.Path) -> OCIArchiveWriter:
        return OCIArchive.create(path)

    def make(self, tmp_path: pathlib.Path) -> Target:
        self.opened.append(self.create(tmp_path / "archive.tar"))
        return self.opened[-1]

    def reopen(self, place: Target) -> Target:
        assert isinstance(place, OCIArchiveWriter)
        place.commit()
        place.close()
        self.opened.append(self.create(pathlib.Path(place.file)))
        return self.opened[-1]
