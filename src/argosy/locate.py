"""Places as people type them, and opening them.

    docker://registry/name:tag@digest   a repository of a registry; `docker://` may be left out
    oci:directory[:tag][@digest]        an OCI image layout (also `ocidir://directory:tag`)
    oci-archive:file[:tag][@digest]     the same in one tar file, compressed or not
    docker-archive:file[:name:tag]      what `docker save` writes
    dir:directory                       one image as plain files, without a tag
    ./path[:tag][@digest]  ../…  /…     whichever of these lies there

`@3` in the place of a tag is the fourth image of a layout or archive. `-` as a file is stdin or stdout.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Self

from argosy.content.protocols import Source, Target, Untagged
from argosy.errors import (
    InvalidReferenceError,
    InvalidTagError,
    ManifestUnknownError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from argosy.spec._value import Value, replace
from argosy.spec.digest import ALGORITHMS, Digest
from argosy.spec.reference import Reference, stands_for

Connect = Callable[[Reference, bool], Target]
"""Makes a client for one repository: `connect(reference, write)`."""

LOCAL: dict[str, tuple[str, str]] = {
    "oci": ("argosy.layout.store", "LayoutStore"),
    "oci-archive": ("argosy.layout.archive", "OCIArchive"),
    "docker-archive": ("argosy.layout.dockerarchive", "DockerArchive"),
    "dir": ("argosy.layout.directory", "DirectoryStore"),
}
"""Each local transport's class: `cls.open(path)` to read, `cls.create(path)` to write."""

_TRANSPORTS = ("docker", *LOCAL)
_ALIASES = {"ocidir": "oci", "registry": "docker", "oci-dir": "oci"}
_TRANSPORT = re.compile(r"([a-z][a-z0-9-]*):(//)?(.*)", re.DOTALL)
_POSITION = re.compile("@[0-9]+")
_ARCHIVE = re.compile(r"\.(tar|tgz|tar\.[a-z0-9]+)$")
"""How names of archives end, and of no repository that is known; `docker://` names one."""
_ENCODED = 32
"""Characters of the shortest digest of an algorithm that is not known here, and of no tag that people give."""
_SCHEMES = ("http", "https")
_FOREIGN = frozenset({"containers-storage", "docker-daemon", "ostree", "sif", "tarball"})
"""Transports of other tools that argosy does not have: never taken for a repository's name."""


class Location(Value, kw_only=True):
    """Where an image is: a place, and perhaps a tag or digest in it.

    Attributes:
        transport: `docker`, `oci`, `oci-archive`, `docker-archive` or `dir`.
        path: The directory or file; empty for a registry.
        reference: The repository in a registry; None for the others.
        tag: What names the image: a digest, a tag (or full name), or `@N`; None where nothing was said.
        beside: The tag that was typed before the digest, in a local place.

    Example:
        >>> Location.parse("oci:images:v1")
        Location(transport='oci', path='images', reference=None, tag='v1', beside=None)
        >>> str(Location.parse("alpine"))
        'docker.io/library/alpine'
    """

    transport: str
    path: str = ""
    reference: Reference | None = None
    tag: str | None = None
    beside: str | None = None

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Self:
        """Read a location. A path that is no string is looked at, as `./path` is.

        Raises:
            InvalidReferenceError: it has none of the shapes above.
            NotFoundError, DeniedError: nothing is at the path it is, or what is may not be read.
        """
        if not isinstance(text, str):
            return cls._sniff(os.fspath(text))
        if text.startswith(("./", "../", "/", "~")) or text in (".", ".."):
            return cls._sniff(os.path.expanduser(text))
        if text == "-":
            raise InvalidReferenceError(
                "- does not say what is read or written",
                hint="say which it is: oci-archive:- or docker-archive:-",
            )
        match = _TRANSPORT.fullmatch(text)
        name = _ALIASES.get(match[1], match[1]) if match else ""
        if match and name in LOCAL:
            return cls._local(name, match[3], text)
        if match and name == "docker" and match[2]:
            return cls._registry(match[3])
        if match and ((match[2] and name not in _SCHEMES) or name in _FOREIGN):
            raise InvalidReferenceError(
                f"transport {match[1]!r} of {text[:200]!r} is not known",
                hint=f"expected one of {', '.join(_TRANSPORTS)}",
            )
        found = cls._registry(text)
        if (
            found.reference
            and _ARCHIVE.search(found.reference.name)
            and found.reference.registry not in text
        ):
            raise InvalidReferenceError(
                f"{text[:200]!r} may be a file or a repository",
                hint=f"write ./{text} or docker://{text}",
            )
        return found

    @classmethod
    def existing(cls, text: str) -> Self:
        """As `parse`, but the name of a file or directory that is there is that file or directory.

        Raises:
            InvalidReferenceError: it has none of the shapes above.
            NotFoundError, DeniedError: nothing is at the path it is, or what is may not be read.
        """
        return cls._sniff(text) if os.path.lexists(text) else cls.parse(text)

    @classmethod
    def _registry(cls, text: str) -> Self:
        reference = Reference.parse(text)
        return cls(transport="docker", reference=reference, tag=reference.tag_or_digest)

    @classmethod
    def _local(cls, transport: str, rest: str, text: str) -> Self:
        body, at, digest = rest.rpartition("@")
        if at and _is_digest(digest):
            path, tag = _split(body, text)
            return cls(transport=transport, path=_path(path, text), tag=Digest(digest), beside=tag)
        if at and digest.isdecimal():
            return cls(
                transport=transport, path=_path(body.removesuffix(":"), text), tag=f"@{digest}"
            )
        path, tag = _split(rest, text)
        return cls(transport=transport, path=_path(path, text), tag=tag)

    @classmethod
    def _sniff(cls, text: str) -> Self:
        """A bare path: what lies there decides, and the longest name that is there is the path."""
        ends = (match.start() for match in re.finditer("[:@]|$", text))
        there = [text[:end] for end in ends if os.path.lexists(text[:end])]
        path = there[-1] if there else text
        kind = _kind(path)
        if kind is None:
            hint = "say which it is: oci:PATH, oci-archive:PATH, docker-archive:PATH or dir:PATH"
            if not there:
                raise NotFoundError(f"{path}: no such file or directory", hint=hint)
            raise InvalidReferenceError(
                f"{path}: neither an image layout, nor an archive, nor an image directory",
                hint=hint,
            )
        return replace(cls._local(kind, f".{text[len(path) :]}", text), path=path)

    def __str__(self) -> str:
        """The location, as `parse` takes it, and for a registry as other tools do."""
        if self.reference is not None:
            host = self.reference.registry.partition(":")[0]
            taken = host in LOCAL or host in _ALIASES or host in _FOREIGN
            return f"docker://{self.reference}" if taken else str(self.reference)
        if self.tag is None:
            return f"{self.transport}:{self.path}"
        if self.tag.startswith("@"):
            return f"{self.transport}:{self.path}:{self.tag}"
        joint = "@" if isinstance(self.tag, Digest) else ":"
        beside = f":{self.beside}" if self.beside else ""
        return f"{self.transport}:{self.path}{beside}{joint}{self.tag}"

    @property
    def digest(self) -> Digest | None:
        """The digest that names the image, or None. A colon makes none: in a layout whole names are tags, too."""
        known = self.tag is not None and self.tag.partition(":")[0] in ALGORITHMS
        return Digest(self.tag) if self.tag and (known or isinstance(self.tag, Digest)) else None

    @property
    def own_tag(self) -> str | None:
        """The tag that was typed, also the one before a digest."""
        if self.reference is not None:
            return self.reference.tag
        return self.beside if self.digest else self.tag

    def at(self, tag: str) -> Self:
        """The same place, and instead of what was typed another tag or digest."""
        if self.reference is None:
            return replace(self, tag=tag, beside=None)
        if ":" in tag:
            reference = self.reference.with_tag(None).with_digest(Digest(tag))
            return replace(self, reference=reference, tag=tag)
        return replace(self, reference=self.reference.with_tag(tag), tag=tag)


def _is_digest(text: str) -> bool:
    """Whether that is meant by what stands behind an `@`: in `a@b:v1` it is the end of a directory's name."""
    algorithm, colon, encoded = text.partition(":")
    return bool(colon) and (algorithm in ALGORITHMS or len(encoded) >= _ENCODED)


def _split(rest: str, text: str) -> tuple[str, str | None]:
    path, colon, tag = rest.partition(":")
    if colon and not tag:
        raise InvalidReferenceError(f"{text[:200]!r}: expected a tag after the colon")
    return path, tag or None


def _path(path: str, text: str) -> str:
    if not path or "\0" in path:
        raise InvalidReferenceError(f"{text[:200]!r} names no path")
    return path


def _kind(path: str) -> str | None:
    if os.path.isdir(path):
        if os.path.lexists(os.path.join(path, "oci-layout")):
            return "oci"
        return "dir" if os.path.lexists(os.path.join(path, "manifest.json")) else None
    if not os.path.isfile(path):
        return None
    archive = importlib.import_module("argosy.layout.archive")
    kind: str | None = archive.sniff(path)
    return kind


def _class(transport: str) -> Any:
    module, name = LOCAL[transport]
    return getattr(importlib.import_module(module), name)


@contextlib.contextmanager
def source(
    location: Location, connect: Connect | None = None, *, itself: bool = False
) -> Iterator[Source]:
    """Open a place to read from.

    Args:
        location: The place.
        connect: How to reach a registry.
        itself: Ask no mirrors, which may be behind: for what is written to it goes by what is read.

    Raises:
        NotFoundError: there is nothing.
        UsageError: it is in a registry and no `connect` was given.
    """
    if location.reference is not None:
        yield _connected(location.reference, connect, write=itself)
        return
    _open_standard_streams(location, write=False)
    with _closing(_class(location.transport).open(location.path)) as place:
        yield place


@contextlib.contextmanager
def target(
    location: Location, connect: Connect | None = None, *, anew: bool = False
) -> Iterator[Target]:
    """Open a place to write to; it is made if it is not there.

    An archive appears, whole, when the block ends without an error, and not at all otherwise.

    Args:
        location: The place.
        connect: How to reach a registry.
        anew: Of an archive that is there keep nothing; other places are always added to.

    Raises:
        UnsupportedError: it is a tag of a `dir:`, which has none.
        UsageError: it is in a registry and no `connect` was given, stdout is a terminal, or the tag is none.
    """
    if location.reference is not None:
        yield _connected(location.reference, connect, write=True)
        return
    kind = _class(location.transport)
    if not _POSITION.fullmatch(location.own_tag or ""):
        new_tag(location)  # before anything is moved, and made
    _open_standard_streams(location, write=True)
    new = not os.path.lexists(location.path)
    try:
        more = {"anew": anew} if location.transport.endswith("-archive") else {}
        with _closing(kind.create(location.path, **more)) as place:
            yield place
    except BaseException:
        if new:
            _remove_empty(location.path)
        raise


def new_tag(location: Location) -> str | None:
    """The tag that was typed for what is to be written; nothing new can be called `@N`, which counts what is there.

    Raises:
        UnsupportedError: it is a tag of a `dir:`, which has none.
        UsageError: the place can have no such tag.
    """
    tag = location.own_tag
    if tag is None or location.reference is not None:
        return tag
    if location.transport == "dir":
        raise UnsupportedError(
            f"{location}: a dir: is one image, and has no tags",
            hint=f"dir:{location.path} is the image, oci:{location.path}:{tag} a tag",
        )
    try:
        _class(location.transport).check_tag(tag)
    except InvalidTagError as exc:
        raise UsageError(f"{location}: {exc}", hint=exc.hint) from None
    return tag


def _remove_empty(path: str) -> None:
    """Take away a directory that was made for content which never came; one that holds a blob is kept."""
    if not os.path.isdir(path) or os.path.islink(path):
        return
    if any(files for _, _, files in os.walk(os.path.join(path, "blobs"))):
        return
    if set(os.listdir(path)) <= {"blobs", "index.json", "oci-layout", "version"}:
        importlib.import_module("shutil").rmtree(path)


def _connected(reference: Reference, connect: Connect | None, *, write: bool) -> Target:
    if connect is None:
        raise UsageError(f"{reference} is in a registry, and only local places can be used here")
    return connect(reference, write)


def _closing(place: Any) -> Any:
    return place if hasattr(place, "__exit__") else contextlib.nullcontext(place)


def _open_standard_streams(location: Location, *, write: bool) -> None:
    if location.path != "-":
        return
    if not location.transport.endswith("-archive"):
        raise UsageError(
            f"{location.transport}: only archives can be read from stdin or written to stdout",
            hint="oci-archive:- and docker-archive:- can",
        )
    if write and sys.stdout.isatty():
        raise UsageError(
            "an archive is not written to a terminal", hint="send stdout to a file or a pipe"
        )


def choose(place: Source, location: Location) -> str:
    """The tag or digest that a location means in an opened place.

    Where nothing was said it is `latest`, or the only image there is, by its digest where it has several tags. Those
    without a tag, such as a replaced one, count where no image has a tag; tags that stand for a digest, such as a
    signature's, where there is nothing else.

    Raises:
        ManifestUnknownError: nothing was said, and there are several images or none.
    """
    if location.tag is not None:
        return location.tag
    tags = list(place.tags())
    images = [tag for tag in tags if not stands_for(tag)] or _untagged(place) or tags
    if "latest" in images:
        return "latest"
    if not images:
        raise ManifestUnknownError(f"{location} holds no image")
    if len(images) == 1:
        return images[0]
    first = place.resolve(images[0]).digest
    if all(place.resolve(tag).digest == first for tag in images):
        return first
    shown = ", ".join(images[:10]) + (", …" if len(images) > 10 else "")
    raise ManifestUnknownError(
        f"{location} holds {len(images)} images: {shown}",
        hint=f"name one, as in {location.at(images[0])}",
    )


def _untagged(place: Source) -> list[str]:
    """The digests of the images without a tag: each a `Digest`, and so no tag."""
    return [desc.digest for desc in place.untagged()] if isinstance(place, Untagged) else []
