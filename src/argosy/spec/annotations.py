"""The pre-defined annotation keys (image-spec, annotations.md) and the grammar of reference names."""

from __future__ import annotations

import re

CREATED = "org.opencontainers.image.created"
AUTHORS = "org.opencontainers.image.authors"
URL = "org.opencontainers.image.url"
DOCUMENTATION = "org.opencontainers.image.documentation"
SOURCE = "org.opencontainers.image.source"
VERSION = "org.opencontainers.image.version"
REVISION = "org.opencontainers.image.revision"
VENDOR = "org.opencontainers.image.vendor"
LICENSES = "org.opencontainers.image.licenses"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
DESCRIPTION = "org.opencontainers.image.description"
BASE_DIGEST = "org.opencontainers.image.base.digest"
BASE_NAME = "org.opencontainers.image.base.name"

CONTAINERD_IMAGE_NAME = "io.containerd.image.name"
"""The full name that containerd, BuildKit and Docker put beside `REF_NAME` in a layout's index."""

ATTESTS = "vnd.docker.reference.digest"
"""The digest of the image of the same index that an attestation of BuildKit's is about."""

_REF_NAME = (
    r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
    r"(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*"
)


def is_ref_name(text: str) -> bool:
    """Whether a text fits the grammar that values of `REF_NAME` SHOULD follow.

    >>> is_ref_name("docker.io/library/busybox:1.36")
    True
    >>> is_ref_name("-latest")
    False
    """
    return len(text) <= 1024 and re.fullmatch(_REF_NAME, text) is not None
