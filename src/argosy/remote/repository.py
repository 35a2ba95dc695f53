"""One repository of a registry: a `Target`, a `Deleter`, a `Mounter` and a `Gatherer` like any other place."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar
from urllib.parse import quote

from argosy.content.overlay import origins
from argosy.content.protocols import BlobReader, Source, SupportsRead, check_tagged, several
from argosy.content.verify import VerifyingReader, embedded
from argosy.errors import (
    AccessError,
    ArgosyError,
    BlobUnknownError,
    DigestMismatchError,
    IntegrityError,
    NameUnknownError,
    NotFoundError,
    RegistryError,
    UnsupportedError,
)
from argosy.remote import flows, unfinished, upload
from argosy.remote import referrers as lists
from argosy.remote.config import Endpoint
from argosy.remote.known import MOST, Known
from argosy.remote.places import Mirror, Place, Places, ask, ask_elsewhere, lied, opened
from argosy.remote.session import Session
from argosy.remote.wire import Flow, Transport, redact_url, run
from argosy.spec import distribution, mediatypes
from argosy.spec.descriptor import EMPTY, Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import MAX_SIZE, Manifest, decode_manifest
from argosy.spec.reference import parse_name, parse_tag

if TYPE_CHECKING:
    from argosy.remote.registry import Registry

T = TypeVar("T")

_MEMO = 10_000


class Repository:
    """A repository of a registry. Safe to use from several threads.

    Args:
        registry: The registry it is in.
        name: Its name, such as `library/alpine`.
        mirrors: Whether its mirrors are asked before it. What is written to is better asked itself: an old mirror would
            say that something is there, or is the same. And tokens for it allow writing from the first one on.
        ahead: For who reads what is resolved, and is soon done: a manifest comes with its tag, in one request, which
            a registry may count as a pull, instead of two; and tags and manifests are asked for once.

    Raises:
        InvalidNameError: the name breaks the specification's grammar.

    Example:
        >>> from argosy.remote.registry import Registry
        >>> str(Registry("registry.example").repository("team/app"))
        'registry.example/team/app'
    """

    unordered: ClassVar[Literal[True]] = True
    """See `Unordered`."""

    def __init__(
        self, registry: Registry, name: str, *, mirrors: bool = True, ahead: bool = False
    ) -> None:
        self.registry, self.name, self.mirrors = registry, parse_name(name), mirrors
        self._ahead, self._known = ahead, Known(MOST if ahead else 0)
        self._lock = threading.Lock()
        self._absent: set[Digest] = set()
        self._sessions: dict[Digest, flows.Opened] = {}
        self._api: bool | None = None
        self._instead: dict[str, Digest] = {}
        if not mirrors:
            registry.session(self._home).mean(flows.push_scope(name))
        self._gathered = lists.Gathered(
            lambda subject, new: run(lists.add(self.name, subject, new), self._own)
        )

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    # ------------------------------------------------------------------------------------------------------- Source

    def resolve(self, tag_or_digest: str) -> Descriptor:
        """The descriptor of what a tag names or a digest is the address of.

        Raises:
            ManifestUnknownError: there is no such tag or manifest.
            InvalidTagError: it is neither a tag nor a digest.
        """
        wanted = _checked(tag_or_digest)
        self._check(wanted)
        by_digest = flows.is_digest(wanted)
        if self._ahead:
            with contextlib.suppress(
                DigestMismatchError
            ):  # then by the way that tells which is right
                return self._manifest(wanted)[0]
        return self._read(lambda name: flows.resolve(name, wanted), by_digest=by_digest)

    def exists(self, desc: Descriptor) -> bool:
        """Whether the registry itself has the content in this repository; mirrors are not asked."""
        found = run(flows.has(self.name, desc), self._own)
        with self._lock:
            if found or len(self._absent) >= _MEMO:
                self._absent.discard(desc.digest)
            else:
                self._absent.add(desc.digest)
        return found

    def readable(self, desc: Descriptor) -> bool:
        """See `Mirrored.readable`."""
        try:
            self._read(lambda name: _found(name, desc), by_digest=True)
        except NotFoundError:
            return False
        return True

    def blob(self, digest: Digest) -> Descriptor:
        """The descriptor of a blob of which only the digest is known.

        Raises:
            BlobUnknownError: it is not here.
        """
        self._check(digest)
        return self._read(lambda name: flows.describe_blob(name, digest), by_digest=True)

    def fetch(self, desc: Descriptor) -> BlobReader:
        """Open content, verified as it is read.

        A manifest is read at once. A blob is asked for at the first `read`, continued where its connection breaks,
        and can be continued from an earlier run (`VerifyingReader.resume`).

        Raises:
            ManifestUnknownError: there is no such manifest; a blob that is not there is the reader's to say.
            IntegrityError: raised by the reader, or here for a manifest: the bytes are not what `desc` says.
        """
        if (data := embedded(desc)) is not None:
            return VerifyingReader(io.BytesIO(data), desc)
        self._check(desc.digest)
        if desc.is_manifest():
            return VerifyingReader(io.BytesIO(self._manifest(desc.digest)[1]), desc)
        places = Places(desc, self._holding(desc), self._own.warn)
        return VerifyingReader(opened(desc, places, self.registry.options.attempts), desc)

    def tags(self) -> Iterator[str]:
        """All tags, each once, in the registry's order, page by page as they are asked for.

        Raises:
            NameUnknownError: there is no such repository.
            RegistryError: the pages have no end, or are no list.
        """
        place = self._itself
        path, scopes = distribution.tags_path(place.name), (flows.pull_scope(place.name),)
        return self.registry.listed(path, "tags", scopes, place)

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        """Descriptors of the manifests whose subject this is: by the API, else by the tag schema, each once."""
        seen: set[Digest] = set()
        for entry in self._referrers(subject.digest, artifact_type):
            if entry.digest not in seen and artifact_type in {None, entry.artifact_type}:
                seen.add(entry.digest)
                yield entry

    # ------------------------------------------------------------------------------------------------------- Target

    @staticmethod
    def check_tag(tag: str) -> None:
        """See `Target.check_tag`."""
        parse_tag(tag)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        """Store content, verified, and then point tags at it.

        Content that is there already is not read. A blob goes on where an earlier upload of it stopped.

        Raises:
            IntegrityError: the content is not what `desc` says; the upload is cancelled.
            ManifestBlobUnknownError: the registry wants a manifest's children first.
            UsageError: tags for something that is no manifest, or one string in place of a list of them.
        """
        for tag in several(tags):
            parse_tag(tag)
            check_tagged(desc)
        self._check(desc.digest, *tags)
        if desc.is_manifest():
            self._push_manifest(desc, content, tags)
            return
        with self._lock:
            absent = desc.digest in self._absent
            self._absent.discard(desc.digest)
            session = self._sessions.pop(desc.digest, None)
        if absent or not self.exists(desc):
            options = self.registry.options
            with unfinished.remembered(options.state_dir, str(self), desc) as memory:
                flow = upload.push_blob(
                    self.name,
                    upload.Content(desc, content),
                    memory,
                    session=session,
                    chunk_size=options.chunk_size,
                    attempts=options.attempts,
                    max_wait=options.max_wait,
                )
                run(flow, self._own)
        with self._lock:
            self._absent.discard(desc.digest)

    def together(self) -> AbstractContextManager[None]:
        """See `Gatherer.together`: the lists of referrers that clients keep are written for many at once."""
        return self._gathered.together()

    def tag(self, desc: Descriptor, tag: str) -> None:
        """Point a tag at a manifest that is here, by storing its own bytes under it.

        Raises:
            ManifestUnknownError: it is not here.
            UsageError: it is no manifest.
        """
        parse_tag(tag)
        check_tagged(desc)
        self._check(desc.digest, tag)
        self._put(desc, self._stored(desc), (tag,))

    def instead(self, tag: str, old: Digest) -> None:
        """See `Replacer.instead`. Where the registry compares nothing itself, it is asked in the moment before."""
        self._instead[tag] = old

    # ------------------------------------------------------------------------------------------ Deleter and Mounter

    def delete(self, desc: Descriptor) -> None:
        """Remove a manifest with all its tags, or a blob; a list of referrers it stands in is kept right.

        Raises:
            NotFoundError: it is not here.
            UnsupportedError: the registry does not allow it.
        """
        self._check(desc.digest)
        if not desc.is_manifest():
            run(flows.delete_blob(self.name, desc.digest), self._own)
            return
        raw = self._stored(desc)
        self._known.forget(desc.digest)
        if not run(flows.delete_manifest(self.name, desc.digest), self._own):
            raise UnsupportedError(f"{self.registry} does not delete manifests")
        subject = _subject(raw)
        if subject is not None and not self._has_api(subject.digest):
            self._gathered.settle(subject.digest)
            emptied = run(lists.remove(self.name, subject.digest, desc.digest), self._own)
            if emptied is not None:
                run(flows.delete_manifest(self.name, emptied.digest), self._own)

    def untag(self, tag: str) -> None:
        """Remove one tag; the manifest and its other tags stay.

        Where the registry does not delete tags, the tag is pointed at an image of nothing, made for this, and that
        is deleted.

        Raises:
            ManifestUnknownError: there is no such tag.
            UnsupportedError: the registry allows neither.
        """
        parse_tag(tag)
        self._check(tag)
        self._known.forget(tag)
        run(flows.resolve(self.name, tag), self._own)
        if run(flows.delete_manifest(self.name, tag), self._own):
            return
        self.push(EMPTY, io.BytesIO(b"{}"))
        made = Manifest(
            artifact_type="application/vnd.argosy.deleted.v1",
            config=EMPTY.bare(),
            annotations={"org.opencontainers.image.title": f"deleted tag {os.urandom(16).hex()}"},
        ).encode()
        desc = Descriptor.of(mediatypes.OCI_MANIFEST, made)
        if not self._deletes_manifests():
            raise UnsupportedError(f"{self.registry} deletes neither tags nor manifests")
        run(flows.put_manifest(self.name, desc, made, (tag,)), self._own)
        if not run(flows.delete_manifest(self.name, desc.digest), self._own):
            raise UnsupportedError(f"{self.registry} does not delete manifests")

    def mount(self, desc: Descriptor, source: Source) -> bool:
        """Take a blob over from another repository of the same registry; False means that it must be copied."""
        # what is new over them is not in the registry, and then is not mounted
        near = [one for one in origins(source) if isinstance(one, Repository) and self._beside(one)]
        if not near or desc.is_manifest():
            return False
        try:
            origin = next((one for one in near[:-1] if one.exists(desc)), near[-1])
            mounted, session = run(flows.mount(self.name, desc.digest, origin.name), self._own)
        except (AccessError, RegistryError):
            return False
        with self._lock:
            if session is not None:
                self._sessions[desc.digest] = session
            self._absent.discard(desc.digest) if mounted else self._absent.add(desc.digest)
        return mounted

    # ------------------------------------------------------------------------------------------------------- inside

    def _beside(self, other: Repository) -> bool:
        return other.registry.name == self.registry.name and other.name != self.name

    @property
    def _own(self) -> Session:
        """How the registry itself is asked.

        Raises:
            DeniedError: registries.conf blocks it.
        """
        self._check()
        return self.registry.session(self._home)

    def _check(self, *wanted: str) -> None:
        """See that registries.conf lets the repository, and these tags and digests of it, be read and written."""
        self.registry.options.registries.check(self.registry.name, self.name, *wanted)

    @property
    def _home(self) -> Endpoint:
        """Where it is written: what registries.conf has in its place is for reading."""
        insecure = self.registry.options.registries.insecure(self.registry.name, self.name)
        return Endpoint(self.registry.name, self.name, insecure)

    def _read(self, flow: Callable[[str], Flow[T]], *, by_digest: bool) -> T:
        """Run a flow at the first place that can answer it: the mirrors, then the registry."""
        *mirrors, last = self._places(by_digest=by_digest)
        for place in mirrors:
            try:
                return run(flow(place.name), self._at(place))
            except IntegrityError as exc:
                self._own.warn(lied(place.registry, exc))
            except ArgosyError:
                pass  # whatever is wrong there: the registry can still be right
        return run(flow(last.name), self.registry.session(last))

    def _places(self, *, by_digest: bool) -> list[Endpoint]:
        rules = self.registry.options.registries
        places = rules.endpoints(self.registry.name, self.name)
        if not self.mirrors:
            return [self._home]
        return [p for p in places if not p.mirror or p.serves(by_digest=by_digest)]

    @property
    def _itself(self) -> Endpoint:
        """Where lists come from: the registry, perhaps elsewhere. A mirror holds what somebody asked for."""
        return self._places(by_digest=True)[-1]

    def _at(self, place: Endpoint) -> Transport:
        session = self.registry.session(place)
        # a mirror with names of its own, as mirror.example/quay, knows by them whose content is wanted
        whose = self.registry.name if place.name == self.name else ""
        return Mirror(session, whose) if place.mirror else session

    def _holding(self, desc: Descriptor) -> Iterator[Place]:
        """Where a blob can be read from; its own `urls` only once the registry has said that it lacks it."""
        for place in self._places(by_digest=True):
            session = self.registry.session(place)
            asked = functools.partial(ask, self._at(place), place.name, desc)
            spared = ArgosyError if place.mirror else BlobUnknownError
            yield Place(
                name=place.registry,
                ask=asked,
                session=session,
                spared=spared,
                trusted=not place.mirror,
            )
        for url in desc.urls[:16] if self.registry.options.foreign else ():
            asked = functools.partial(ask_elsewhere, self._own, url)
            yield Place(name=redact_url(url), ask=asked, session=self._own)

    def _manifest(self, wanted: str) -> tuple[Descriptor, bytes]:
        """A manifest from the first place that has it, or as it is known."""
        found = self._known.get(wanted)
        if found is None:
            found = self._read(
                lambda name: flows.get_manifest(name, wanted, exact=True),
                by_digest=flows.is_digest(wanted),
            )
            self._known.put(wanted, *found)
        return found

    def _stored(self, desc: Descriptor) -> bytes:
        """A manifest as the registry itself has it."""
        found = None if self.mirrors else self._known.get(desc.digest)
        return (found or run(flows.get_manifest(self.name, desc.digest), self._own))[1]

    def _push_manifest(self, desc: Descriptor, content: SupportsRead, tags: Sequence[str]) -> None:
        raw = VerifyingReader(content, desc, close=lambda: None).readall(limit=MAX_SIZE)
        processed = self._put(desc, raw, tags)
        subject = _subject(raw)
        if subject is None or processed:
            return
        if not self._has_api(subject.digest):
            entry = lists.entry_of(desc, decode_manifest(raw, desc.media_type))
            self._gathered.add(subject.digest, entry)

    def _put(self, desc: Descriptor, raw: bytes, tags: Sequence[str]) -> bool:
        self._known.forget(*tags)
        old = self._instead.get(tags[0]) if tags else None
        if old is None:
            return run(flows.put_manifest(self.name, desc, raw, tags), self._own)[0]
        room: Any = importlib.import_module("argosy.remote.replacing")  # few need it
        took_note: bool = run(room.replace_manifest(self.name, desc, raw, tags[0], old), self._own)
        return took_note

    def _has_api(self, subject: Digest) -> bool:
        """Whether the registry has the referrers API; asked once."""
        mode = self.registry.options.referrers
        if mode != "auto":
            return mode == "api"
        if self._api is None:
            try:
                path = distribution.referrers_path(self.name, subject)
                self._api = run(lists.listed(self.name, path), self._own) is not None
            except NameUnknownError:
                self._api = True
        return self._api

    def _referrers(self, subject: Digest, artifact_type: str | None) -> Iterator[Descriptor]:
        mode = self.registry.options.referrers
        if mode != "tag" and (mode != "auto" or self._api is not False):
            known = yield from self._from_api(subject, artifact_type)
            if mode == "auto":
                self._api = known
            if known and mode != "both":
                return
        if mode != "api":
            self._gathered.settle(subject)
            place = self._itself
            index, _, _ = run(lists.tagged(place.name, subject), self.registry.session(place))
            yield from index.manifests if index else ()

    def _from_api(
        self, subject: Digest, artifact_type: str | None
    ) -> Generator[Descriptor, None, bool]:
        """The API's entries; returns whether there is such an API."""
        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        place = self._itself
        session = self.registry.session(place)
        url = distribution.referrers_path(place.name, subject) + query
        visited: set[str] = set()
        while url and url not in visited:
            if len(visited) >= lists.MAX_PAGES:
                raise RegistryError(f"{self}: the list of referrers has no end")
            first = not visited
            visited.add(url)
            try:
                page = run(lists.listed(place.name, url), session)
            except NameUnknownError:
                page = None
                if first:
                    return True
            if page is None:
                if first:
                    return False
                raise RegistryError(f"{self}: page {len(visited)} of the referrers is not there")
            yield from page.entries
            url = session.next_page(page.answer)
        return True

    def _deletes_manifests(self) -> bool:
        """Whether manifests can be deleted, asked with the digest of nothing that exists."""
        try:
            return run(flows.delete_manifest(self.name, str(Digest.of(os.urandom(16)))), self._own)
        except NotFoundError:
            return True


def _checked(tag_or_digest: str) -> str:
    return Digest(tag_or_digest) if ":" in tag_or_digest else parse_tag(tag_or_digest)


def _found(name: str, desc: Descriptor) -> Flow[None]:
    if not (yield from flows.has(name, desc)):
        raise BlobUnknownError(f"{desc.digest} is not there")


def _subject(raw: bytes) -> Descriptor | None:
    try:
        return decode_manifest(raw).subject
    except ArgosyError:
        return None
