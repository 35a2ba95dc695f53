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
from argosy.content.verify import CHUNK
from argosy.engine.names import local_name, typed_digits
from argosy.errors import (
    ArgosyError,
    IntegrityError,
    InvalidConfigError,
    InvalidError,
    ManifestUnknownError,
    NotFoundError,
    PlatformUnknownError,
    UsageError,
)
from argosy.image.view import Image
from argosy.layout.gc import gc
from argosy.layout.names import is_named
from argosy.layout.store import LayoutStore
from argosy.locate import Connect, Location
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.platform import Platform

PULL_POLICIES = ("missing", "always", "never")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """One line of `argosy images`. `size` is what its blobs take, in bytes, compressed.

    Of one whose manifest or configuration cannot be read, name and digest are all that is known, the digest for its id,
    too; and `damaged` says why.
    """

    name: str
    digest: Digest
    image_id: Digest
    platform: Platform | None = None
    created: str | None = None
    size: int = 0
    damaged: str = ""

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
        with _here(name):
            is_index = self.store.resolve(name).is_index()
            return name, Image.open(self.store, name, wanted if platform or is_index else None)

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
        with contextlib.suppress(NotFoundError), _here(name):
            desc = graph.select(self.store, self.store.resolve(name), wanted)
            image = Image(source=self.store, descriptor=desc)
            whole = all(self.store.exists(child) for child in image.manifest.children())
            return (name, image) if whole and image.raw_config else None
        return None

    def whole(self, name: str) -> Descriptor:
        """What a name means as far as it is here: all of it, or else the one image of it that is here whole.

        Layers that are non-distributable may lack.

        Raises:
            ManifestUnknownError: there is no such name, or none of its images is here whole.
            UsageError: several are, but not all.
        """
        root = self.store.resolve(name)
        if not root.is_index() or self._lacks_nothing(root):
            return root
        images = [e for e in self.store.catalog.manifests([root]) if not e.is_index()]
        here = [entry for entry in images if self._lacks_nothing(entry)]
        if not here:
            raise ManifestUnknownError(
                f"none of the images of {name} is here whole", hint=f"argosy pull {name}"
            )
        if len(here) > 1:
            have = ", ".join(str(entry.platform or entry.digest) for entry in here)
            raise UsageError(
                f"of the {len(images)} images of {name} only {len(here)} are here: {have}",
                hint="choose one of these with --platform",
            )
        return here[0]

    def _lacks_nothing(self, root: Descriptor) -> bool:
        return all(
            self.store.exists(desc) or desc.media_type in mediatypes.NONDISTRIBUTABLE
            for desc in self.store.catalog.content([root])
        )

    def _by_id(self, place: Location) -> tuple[str, Image] | None:
        """By the first digits of an image id or manifest digest, as people copy them from a list."""
        digits = typed_digits(place)
        if digits is None:
            return None
        found = {entry.image_id: entry for entry in self.entries() if entry.begins(digits)}
        if len(found) != 1:
            return None
        entry = next(iter(found.values()))
        with _here(entry.name):
            image = Image.open(self.store, entry.name, entry.platform)
            return (entry.name, image) if image.raw_config else None

    def entries(self) -> Iterator[LocalImage]:
        """Every image, one entry a name and platform that is here, or is damaged."""
        for name in self.store.tags():
            root = self.store.resolve(name)
            found = False
            for desc in self._leaves(root):
                found = True
                try:
                    yield self._local(name, root, desc)
                except ArgosyError as exc:
                    yield LocalImage(
                        name=name, digest=root.digest, image_id=root.digest, damaged=str(exc)
                    )
            if not found:
                why = "none of its manifests is here"
                yield LocalImage(name=name, digest=root.digest, image_id=root.digest, damaged=why)

    def _leaves(self, root: Descriptor) -> Iterator[Descriptor]:
        """The images that are here below a manifest, and what is damaged on the way to them."""
        for desc in self.store.catalog.manifests([root]):
            here = self.store.blobs.find(desc.digest) is not None
            if here and not (desc.is_index() and self.store.catalog.facts(desc)):
                yield desc

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

    def chain_ids(self) -> Iterator[Digest]:
        """What the layers of all images are, unpacked. An artifact, and what cannot be run, has none."""
        for entry in self.entries():
            if entry.platform is None:
                continue
            image = Image.select(self.store, self.store.resolve(entry.name), entry.platform)
            with contextlib.suppress(ValueError, LookupError):
                yield from image.config.chain_ids()

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
        """Remove names, all in one step, and what is damaged of theirs, which would be in the way of the next pull.

        Returns:
            The names.

        Raises:
            ManifestUnknownError: there is none of them.
        """
        if names:
            entries = self.store.entries()
            roots = [entry for name in names for entry in entries.meant(name)]
            below = self.store.catalog.content(roots)
            damaged = {desc.digest for desc in below if _is_read(desc) and self._is_damaged(desc)}
            self.store.untag(*names)
            for digest in damaged:
                with contextlib.suppress(NotFoundError):  # somebody else has
                    self.store.blobs.remove(digest)
        return names

    def _is_damaged(self, desc: Descriptor) -> bool:
        """Whether a blob is here that is not what its name says; it is read for that, and a layer may be large."""
        try:
            with self.store.fetch(desc) as blob:
                while blob.read(CHUNK):
                    pass
        except ArgosyError as exc:
            return isinstance(exc, IntegrityError)
        return False

    @contextlib.contextmanager
    def reading(self, name: str, image: Image) -> Iterator[None]:
        """Reading the layers of an image that is here: those that turn out to be damaged are removed.

        They would be in the way of the next pull, which does not read what is here with the right size.
        """
        try:
            yield
        except (IntegrityError, InvalidError) as exc:
            damaged = [d for d in image.manifest.layers if self._is_damaged(d)]
            for desc in damaged:
                with contextlib.suppress(NotFoundError):  # somebody else has
                    self.store.blobs.remove(desc.digest)
            if damaged:
                exc.add_note(f"in {name}, which is damaged")
                exc.hint = "what is damaged of it has been removed: pull it anew"
            raise

    def collect(self) -> int:
        """Remove what no name leads to. Returns the bytes that are free again."""
        unnamed = [e for e in self.store.index().manifests if e.is_manifest() and not is_named(e)]
        for entry in unnamed:
            if self.store.catalog.facts(entry) is None:  # of no use to anybody
                self.store.forget(entry)
        return gc(self.store, untagged=True).size


def _is_read(desc: Descriptor) -> bool:
    """Whether it is small enough to be looked at whenever an image is removed."""
    return desc.is_manifest() or desc.media_type in mediatypes.CONFIGS


@contextlib.contextmanager
def _here(name: str) -> Iterator[None]:
    """Reading an image that is here: of damage it is told which image it is, and what to do."""
    try:
        yield
    except IntegrityError as exc:
        exc.add_note(f"in {name}, which is damaged")
        exc.hint = f"argosy rmi {name} removes it; then it can be pulled anew"
        raise
