"""The contract of `Target`, on the places on disk."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import pytest

from argosy.content.protocols import SupportsRead, Target
from argosy.errors import StorageError, UsageError
from argosy.layout.archive import OCIArchive, OCIArchiveWriter
from argosy.layout.blobs import FileReader
from argosy.layout.directory import DirectoryStore
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.store import LayoutStore
from argosy.spec.descriptor import Descriptor
from argosy.testing import random
from argosy.testing.contract import TargetContract


class TestLayout(TargetContract):
    def make(self, tmp_path: pathlib.Path) -> Target:
        return LayoutStore.create(tmp_path / "layout")

    def reopen(self, place: Target) -> Target:
        assert isinstance(place, LayoutStore)
        return LayoutStore.open(place.path)

    def test_of_no_tag_none_is_removed(self, tmp_path: pathlib.Path) -> None:
        place = self.make(tmp_path)
        assert isinstance(place, LayoutStore)
        random.image(place, 1, "v1")
        with pytest.raises(UsageError):
            place.untag(None)  # type: ignore[arg-type]
        assert list(place.tags()) == ["v1"]

    def test_a_blob_that_its_disk_does_not_give_is_told_so(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "blob"
        path.write_bytes(b"hello")
        reader = FileReader(os.open(path, os.O_WRONLY), str(path))
        with contextlib.closing(reader), pytest.raises(StorageError, match="blob: bad file"):
            reader.read(1)


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


class TestCompressedOCIArchive(TestOCIArchive):
    def make(self, tmp_path: pathlib.Path) -> Target:
        self.opened.append(self.create(tmp_path / "archive.tar.zst"))
        return self.opened[-1]


class _Apps:
    """A Docker archive whose tags are those of one repository, `app`: the contract's tags are no names of images."""

    def __init__(self, place: OCIArchiveWriter) -> None:
        self.place = place

    def __getattr__(self, name: str) -> object:
        return getattr(self.place, name)

    def resolve(self, tag: str) -> Descriptor:
        return self.place.resolve(tag if ":" in tag else f"app:{tag}")

    def tags(self) -> Iterator[str]:
        return (tag.removeprefix("app:") for tag in self.place.tags())

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        self.place.push(
            desc, content, tags=tags if isinstance(tags, str) else [f"app:{tag}" for tag in tags]
        )

    def tag(self, desc: Descriptor, tag: str) -> None:
        self.place.tag(desc, f"app:{tag}")

    def untag(self, tag: str) -> None:
        self.place.untag(f"app:{tag}")


class TestDockerArchive(TestOCIArchive):
    def create(self, path: pathlib.Path) -> OCIArchiveWriter:
        return DockerArchive.create(path)

    def make(self, tmp_path: pathlib.Path) -> Target:
        return _Apps(super().make(tmp_path))  # type: ignore[arg-type, return-value]

    def reopen(self, place: Target) -> Target:
        assert isinstance(place, _Apps)
        return _Apps(super().reopen(place.place))  # type: ignore[arg-type, return-value]


class _Named:
    """A `dir:` directory with one tag beside it: the form itself has none."""

    def __init__(self, place: DirectoryStore, tags: dict[str, Descriptor]) -> None:
        self.place, self.named = place, tags

    def __getattr__(self, name: str) -> object:
        return getattr(self.place, name)

    def resolve(self, tag: str) -> Descriptor:
        return self.named[tag] if tag in self.named else self.place.resolve(tag)

    def tags(self) -> Iterator[str]:
        return iter(self.named)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        self.place.push(desc, content, tags=tags)
        self.named.update(dict.fromkeys(tags, desc))

    def tag(self, desc: Descriptor, tag: str) -> None:
        self.place.tag(desc, tag)
        assert self.place.resolve("@0").digest == desc.digest
        self.named[tag] = desc


class TestDirectory(TargetContract):
    def make(self, tmp_path: pathlib.Path) -> Target:
        return _Named(DirectoryStore.create(tmp_path / "dir"), {})  # type: ignore[return-value]

    def reopen(self, place: Target) -> Target:
        assert isinstance(place, _Named)
        place.place.__exit__(None, None, None)
        return _Named(DirectoryStore.create(place.place.path), place.named)  # type: ignore[return-value]
