"""An image out of nothing."""

from __future__ import annotations

from argosy.content.protocols import Source
from argosy.image.draft import draft
from argosy.image.view import Image
from argosy.spec import mediatypes
from argosy.spec.imageconfig import ImageConfig, LayerStack
from argosy.spec.manifest import Manifest
from argosy.spec.platform import Platform

__all__ = ["scratch"]


def scratch(
    source: Source,
    platform: Platform | None = None,
    *,
    created: str | None = None,
    author: str = "",
    docker: bool = False,
) -> Image:
    """An image with no layers, in a draft over `source`.

    Args:
        source: The place it is drafted over.
        platform: What it runs on; this machine's if None.
        created: RFC 3339, or None for none.
        author: Who makes it.
        docker: Whether its media types are Docker's.
    """
    place = draft(source)
    platform = platform or Platform.host()
    config = ImageConfig(
        created=created,
        author=author,
        architecture=platform.architecture,
        os=platform.os,
        os_version=platform.os_version,
        os_features=platform.os_features,
        variant=platform.variant,
        rootfs=LayerStack(type="layers"),
    )
    as_wanted = mediatypes.to_docker if docker else mediatypes.to_oci
    manifest = Manifest(
        media_type=as_wanted(mediatypes.OCI_MANIFEST),
        config=place.put(as_wanted(mediatypes.OCI_CONFIG), config.encode()),
    )
    return Image(source=place, descriptor=place.put(manifest.media_type, manifest.encode()))
