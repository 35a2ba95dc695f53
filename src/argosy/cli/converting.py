"""What `argosy cp` does to an image on its way: other media types, another compression. Loaded only where asked."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence

from argosy.content import graph
from argosy.content.protocols import Source
from argosy.errors import UsageError
from argosy.image.convert import each, recompress, retyped
from argosy.image.draft import draft
from argosy.image.view import Image, ImageIndex
from argosy.layer.compression import Compression
from argosy.layer.compressor import check_level
from argosy.spec.descriptor import Descriptor
from argosy.spec.platform import Platform


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an image shall become: with Docker's media types or OCI's (`docker`), compressed so; None is as it is.

    With `preserve` nothing may become another digest.

    Raises:
        UsageError: the compression has no such level.
    """

    docker: bool | None = None
    compress: str | None = None
    level: int | None = None
    preserve: bool = False

    def __post_init__(self) -> None:
        if self.compress is not None:
            check_level(Compression(self.compress), self.level)


def converted(
    source: Source, chosen: str, platforms: Sequence[Platform], wish: Wish
) -> tuple[Descriptor, Source, Descriptor]:
    """What was chosen, and where what became of it is: the place and the descriptor.

    Raises:
        UsageError: the digest would be another one, and was to be preserved.
        UnsupportedError: the wanted form has no word for something in it.
    """
    old = source.resolve(chosen)
    view = _changed(_reduced(source, old, platforms), wish)
    if wish.preserve and view.digest != old.digest and not _below(source, old, view.digest):
        raise UsageError(
            f"--preserve-digests: {old.digest} would become {view.digest}",
            hint="leave out --format, --compress, or some of several --platform",
        )
    return old, view.source, view.descriptor


def _below(source: Source, root: Descriptor, digest: str) -> bool:
    """Whether this is one of the images of an index as they are."""
    return root.is_index() and any(
        node.descriptor.digest == digest for node in graph.walk(source, root)
    )


def _reduced(source: Source, root: Descriptor, platforms: Sequence[Platform]) -> Image | ImageIndex:
    """What a copy of these platforms would be."""
    choice = graph.choose(source, root, platforms)
    if not choice.root.is_index():
        return Image(source=source, descriptor=choice.root)
    place = draft(source)
    if choice.made:
        place.push(choice.root, io.BytesIO(choice.made[1]))
    return ImageIndex(source=place, descriptor=choice.root)


def _changed(view: Image | ImageIndex, wish: Wish) -> Image | ImageIndex:
    if wish.docker is not None:
        view = retyped(view, docker=wish.docker)
    if wish.compress is None:
        return view
    kind = Compression(wish.compress)

    def packed(image: Image) -> Image:
        return recompress(image, kind, level=wish.level, force=wish.level is not None)

    return each(view, packed) if isinstance(view, ImageIndex) else packed(view)
