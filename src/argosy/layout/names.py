"""How entries of an `index.json` are named, and which entry a name means.

The specification puts no rule on `org.opencontainers.image.ref.name`. Most tools write a tag there; BuildKit,
containerd and Docker write the tag there and the whole name into `io.containerd.image.name`. Several entries may have
one name: then they are meant to differ in their platform.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from argosy.errors import InvalidError, ManifestUnknownError
from argosy.spec._value import replace
from argosy.spec.annotations import CONTAINERD_IMAGE_NAME, REF_NAME, is_ref_name
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import ALGORITHMS
from argosy.spec.platform import Platform, best
from argosy.spec.reference import Reference, parse_tag


def check_tag(tag: str) -> str:
    """A tag as a layout takes it: one of the distribution-spec, or the image-spec's grammar of reference names.

    Raises:
        InvalidTagError: it is neither, or could be taken for a digest.
    """
    if is_ref_name(tag) and tag.partition(":")[0] not in ALGORITHMS:
        return tag
    return parse_tag(tag)


def unnamed(entry: Descriptor) -> Descriptor:
    """An entry without its names: what it is, not what it is called here."""
    names = (REF_NAME, CONTAINERD_IMAGE_NAME)
    if not any(name in entry.annotations for name in names):
        return entry
    rest = {k: v for k, v in entry.annotations.items() if k not in names}
    return replace(entry, annotations=rest)


def named(entry: Descriptor, tag: str) -> Descriptor:
    """An entry called `tag` and nothing else."""
    annotations = {**unnamed(entry).annotations, REF_NAME: tag}
    return replace(entry, annotations=annotations)


def is_named(entry: Descriptor) -> bool:
    """Whether an entry has a name."""
    return REF_NAME in entry.annotations or CONTAINERD_IMAGE_NAME in entry.annotations


def tags_of(entries: Sequence[Descriptor]) -> Iterator[str]:
    """The names of the entries, each once. Where one tag stands for several images, their whole names are given."""
    owners: dict[str, set[str | None]] = {}
    for entry in entries:
        tag = entry.annotations.get(REF_NAME)
        if tag is not None:
            owners.setdefault(tag, set()).add(entry.annotations.get(CONTAINERD_IMAGE_NAME))
    seen: set[str] = set()
    for entry in entries:
        tag, whole = (
            entry.annotations.get(REF_NAME),
            entry.annotations.get(CONTAINERD_IMAGE_NAME),
        )
        name = whole if tag is None or (whole and len(owners[tag]) > 1) else tag
        if name is not None and name not in seen:
            seen.add(name)
            yield name


def called(entries: Iterable[Descriptor], tag: str) -> list[Descriptor]:
    """The entries a name means: by their tag, else by their whole name, else by that name's long form."""
    entries = list(entries)
    for meant in _MEANINGS:
        found = [entry for entry in entries if meant(entry, tag)]
        if found:
            return found
    return []


def _by_tag(entry: Descriptor, tag: str) -> bool:
    return entry.annotations.get(REF_NAME) == tag


def _by_name(entry: Descriptor, tag: str) -> bool:
    return entry.annotations.get(CONTAINERD_IMAGE_NAME) == tag


def _by_long_name(entry: Descriptor, tag: str) -> bool:
    names = (entry.annotations.get(CONTAINERD_IMAGE_NAME), entry.annotations.get(REF_NAME))
    return any(name is not None and same_reference(name, tag) for name in names)


_MEANINGS: tuple[Callable[[Descriptor, str], bool], ...] = (_by_tag, _by_name, _by_long_name)


def long_name(text: str) -> str | None:
    """A name as `registry/repository:tag`, the tag `latest` if there is neither tag nor digest; None where it is no
    reference.

    >>> long_name("busybox")
    'docker.io/library/busybox:latest'
    """
    try:
        reference = Reference.parse(text)
    except InvalidError:
        return None
    return str(reference if reference.tag or reference.digest else reference.with_tag("latest"))


def same_reference(one: str, other: str) -> bool:
    """Whether two names mean one image, as `busybox` and `docker.io/library/busybox:latest` do."""
    if _last_part(one) != _last_part(other):
        return False  # as most do, and to read a reference takes a hundred times as long
    if not set("/:") & {*one, *other}:
        return False  # two plain tags
    return long_name(one) is not None and long_name(one) == long_name(other)


def _last_part(name: str) -> str:
    return name.strip().rpartition("/")[2].removesuffix(":latest")


def meant(entries: Iterable[Descriptor], tag: str) -> list[Descriptor]:
    """As `called`, but a tag that stands for images of different whole names means none of them.

    Raises:
        ManifestUnknownError: it does.
    """
    found = called(entries, tag)
    wholes = {entry.annotations.get(CONTAINERD_IMAGE_NAME) for entry in found}
    if len(wholes) > 1 and len({entry.digest for entry in found}) > 1:
        names = ", ".join(sorted(name for name in wholes if name))
        raise ManifestUnknownError(f"{tag} stands for several images: {names}")
    return found


class Entries:
    """The entries of one `index.json`, found without a look at every one.

    Args:
        entries: All of them.
    """

    def __init__(self, entries: Sequence[Descriptor]) -> None:
        self._entries = entries
        self.digests = frozenset(entry.digest for entry in entries)
        self._tagged: dict[str | None, list[Descriptor]] = {}
        for entry in entries:
            self._tagged.setdefault(entry.annotations.get(REF_NAME), []).append(entry)

    def meant(self, tag: str) -> list[Descriptor]:
        """See `meant`."""
        return meant(self._tagged.get(tag, self._entries), tag)


def choose(found: Sequence[Descriptor]) -> Descriptor:
    """One of several entries of a name: the one that suits this machine's platform best, else the first."""
    if len(found) == 1 or not all(entry.platform for entry in found):
        return found[0]
    return found[best(Platform.host(), [entry.platform for entry in found]) or 0]


def position(text: str) -> int | None:
    """The number in `@N`, which stands for an entry by its place, or None."""
    number = text.removeprefix("@")
    return int(number) if number != text and number.isdecimal() and len(number) < 9 else None
