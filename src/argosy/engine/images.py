"""The local images: an OCI image layout whose tags are whole references, so that other tools can read it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

from argosy import locate
from argosy.content import graph
from argosy.content.copy import copy
from argosy.content.events import OnEvent, ignore
from argosy.content.protocols import Source
from argosy.engine.names import local_name, typed_digits
from argosy.errors import (
    InvalidConfigError,
    ManifestUnknownError,
    NotFoundError,
    PlatformUnknownError,
    UsageError,
)
from argosy.image.view import Image
from argosy.layout.gc import gc
from argosy.layout.store import LayoutStore
from argosy.locate import Connect, Location
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.platform import Platform

PULL_POLICIES = ("missing", "always", "never")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """One line of `argosy images`. `size` is what its blobs take, in bytes, compressed."""

    name: str
    digest: Digest
    image_id: Digest
    platform: Platform | None
    created: str | None
    size: int

    def begins(self, digits: str) -> bool:
        """Whether its id or its digest begins with these hexadecimal digits."""
        return any(it.encoded.startswith(digits) for it in (self.image_id, self.digest))


class LocalImages:
    """The images of one user on this machine.

    Args:
        path: The layout's directory; made if it is not there.
    """

    def __init__(self, path: str) -> None:
        self.store = LayoutStore.create(path)

    def __str__(self) -> str:
        return str(self.store)

    def get(
        self,
        place: Location,
        *,
        platform: Platform | None = None,
        pull: str = "missing",
        connect: Connect | None = None,
        jobs: int = 4,
        on_event: OnEvent = ignore,
    ) -> tuple[str, Image]:
        """An image that is here, whole; it is pulled if it is not (or always, or never).

        Args:
            place: What was typed: a reference, any other place, or the first digits of an image id or digest.
            platform: What it must run on; this machine's if None.
            pull: One of `PULL_POLICIES`.
            connect: How to reach registries.
            jobs: How many blobs move at a time.
            on_event: Told what moves.

        Returns:
            The image's name here, and the image.

        Raises:
            ManifestUnknownError: it is not here and may not be pulled, or is not there either.
            PlatformUnknownError: it has no image for the platform.
        """
        wanted = platform or Platform.host()
        name = local_name(place)
        if place.reference is not None and pull != "always":
            found = self._by_id(place) or self._whole(name, wanted)
            if found is not None:
                self._check_platform(self.store, found[0], platform)
                return found
        if pull == "never":
            raise ManifestUnknownError(
                f"{name} is not among the local images", hint="leave out --pull=never"
            )
        with locate.source(place, connect) as source:
            chosen = locate.choose(source, place)
            self._check_platform(source, chosen, platform)
            copy(
                source, chosen, self.store, name,
                platforms=[wanted], sparse=True, jobs=jobs, on_event=on_event,
            )  # fmt: skip
        return name, Image.open(
            self.store, name, wanted if platform or self._is_index(name) else None
        )

    def _is_index(self, name: str) -> bool:
        return self.store.resolve(name).is_index()

    def _check_platform(self, source: Source, chosen: str, platform: Platform | None) -> None:
        """An image that is no index must still be for the platform that was asked for."""
        desc = source.resolve(chosen)
        if platform is None or desc.is_index():
            return
        found = Image.select(source, desc, None).platform
        if platform.distance(found) is None:
            raise PlatformUnknownError(f"{chosen} is an image for {found}, not for {platform}")

    def _whole(self, name: str, wanted: Platform) -> tuple[str, Image] | None:
        """The image by its name, if nothing of it is missing."""
        try:
            desc = graph.select(self.store, self.store.resolve(name), wanted)
            image = Image(source=self.store, descriptor=desc)
            if all(self.store.exists(child) for child in image.manifest.children()):
                return name, image
        except NotFoundError:
            return None
        return None

    def _by_id(self, place: Location) -> tuple[str, Image] | None:
        """By the first digits of an image id or manifest digest, as people copy them from a list."""
        digits = typed_digits(place)
        if digits is None:
            return None
        found = {entry.image_id: entry for entry in self.entries() if entry.begins(digits)}
        if len(found) != 1:
            return None
        entry = next(iter(found.values()))
        return entry.name, Image.select(self.store, self.store.resolve(entry.name), entry.platform)

    def entries(self) -> Iterator[LocalImage]:
        """Every image, one entry a name and platform that is here."""
        for name in self.store.tags():
            root = self.store.resolve(name)
            for desc in self._leaves(root):
                if self.store.blobs.has(desc):
                    yield self._local(name, root, desc)

    def _leaves(self, root: Descriptor) -> Iterator[Descriptor]:
        if not root.is_index():
            yield root
            return
        for entry in graph.read_index(self.store, root).manifests:
            if entry.media_type in mediatypes.MANIFESTS:
                yield entry

    def _local(self, name: str, root: Descriptor, desc: Descriptor) -> LocalImage:
        manifest = graph.read_image(self.store, desc)
        config = None
        if manifest.config.media_type in mediatypes.CONFIGS:
            with contextlib.suppress(
                InvalidConfigError
            ):  # that is for who runs it to hear, not for who lists
                config = Image(source=self.store, descriptor=desc).config
        return LocalImage(
            name=name,
            digest=root.digest,
            image_id=manifest.config.digest,
            platform=config.platform if config else None,
            created=config.created if config else None,
            size=sum(child.size for child in manifest.children()),
        )

    def finder(self) -> Callable[[str], list[str]]:
        """Tells which names are meant by a name, or by the first digits of an image's id: all of that image.

        What is here is read once, however many are asked for.

        Raises:
            ManifestUnknownError: there is no such image.
            UsageError: the digits fit several.
        """
        names = set(self.store.tags())
        entries = functools.cache(lambda: list(self.entries()))

        def find(text: str) -> list[str]:
            place = Location.parse(text)
            name, digits = local_name(place), typed_digits(place)
            if name in names:
                return [name]
            fits = [entry for entry in entries() if entry.begins(digits)] if digits else []
            if len({entry.image_id for entry in fits}) > 1:
                raise UsageError(f"{text} fits several images: give more digits")
            if not fits:
                raise ManifestUnknownError(f"{text} is not among the local images")
            return [entry.name for entry in fits]

        return find

    def remove(self, *names: str) -> tuple[str, ...]:
        """Remove names, all in one step. Returns them.

        Raises:
            ManifestUnknownError: there is none of them.
        """
        if names:
            self.store.untag(*names)
        return names

    def collect(self) -> int:
        """Remove what no name leads to. Returns the bytes that are free again."""
        return gc(self.store, untagged=True).size
