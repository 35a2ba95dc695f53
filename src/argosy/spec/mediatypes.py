"""Media types: those of the image-spec, Docker's equivalents, and what each means to a tool (media-types.md)."""

from __future__ import annotations

import re

from argosy.errors import InvalidManifestError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_DESCRIPTOR = "application/vnd.oci.descriptor.v1+json"
OCI_LAYOUT_HEADER = "application/vnd.oci.layout.header.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_NONDISTRIBUTABLE_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_NONDISTRIBUTABLE_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
OCI_ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"  # withdrawn, still met

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

OCTET_STREAM = "application/octet-stream"

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
"""Image manifests."""
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
"""Image indexes and Docker manifest lists."""
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
"""Image configurations that argosy parses."""
SCHEMA1 = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
"""Docker's first manifest format, which is recognised and refused."""
NONDISTRIBUTABLE = frozenset(
    {
        OCI_NONDISTRIBUTABLE,
        OCI_NONDISTRIBUTABLE_GZIP,
        OCI_NONDISTRIBUTABLE_ZSTD,
        DOCKER_FOREIGN,
        DOCKER_FOREIGN_GZIP,
    }
)
"""Layers that registries may lack: pushed and pulled only on request (layer.md, "Non-Distributable Layers")."""

ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
"""What a client puts into `Accept` when it asks for a manifest."""

COMPRESSION: dict[str, str] = {
    OCI_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    OCI_NONDISTRIBUTABLE: "none",
    OCI_NONDISTRIBUTABLE_GZIP: "gzip",
    OCI_NONDISTRIBUTABLE_ZSTD: "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    DOCKER_FOREIGN: "none",
    DOCKER_FOREIGN_GZIP: "gzip",
}
"""Every layer media type, with the compression it names: `none`, `gzip` or `zstd`."""

LAYERS = frozenset(COMPRESSION)
"""Layers that are tar archives of a changeset."""

_DOCKER_TO_OCI: dict[str, str] = {
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_LIST: OCI_INDEX,
    DOCKER_CONFIG: OCI_CONFIG,
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER_GZIP: OCI_LAYER_GZIP,
    DOCKER_LAYER_ZSTD: OCI_LAYER_ZSTD,
    DOCKER_FOREIGN: OCI_NONDISTRIBUTABLE,
    DOCKER_FOREIGN_GZIP: OCI_NONDISTRIBUTABLE_GZIP,
}
_OCI_TO_DOCKER = {oci: docker for docker, oci in _DOCKER_TO_OCI.items()}

_RFC6838 = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII
)
_PARAMETERS = r"""(?:[ \t]*;[ \t]*[\w!#$%&'*+.^`|~-]+=(?:[\w!#$%&'*+.^`|~-]+|"[ !#-\[\]-~]*"))*"""
_LONGEST = 1024


def to_oci(media_type: str) -> str:
    """The OCI media type that stands for Docker's; any other media type as it is.

    >>> to_oci("application/vnd.docker.distribution.manifest.v2+json")
    'application/vnd.oci.image.manifest.v1+json'
    """
    return _DOCKER_TO_OCI.get(media_type, media_type)


def to_docker(media_type: str) -> str:
    """Docker's media type that stands for OCI's; any other media type as it is."""
    return _OCI_TO_DOCKER.get(media_type, media_type)


def is_manifest(media_type: str) -> bool:
    """Whether a registry keeps this under `manifests/` rather than `blobs/`."""
    return media_type in MANIFESTS or media_type in INDEXES or media_type == OCI_ARTIFACT_MANIFEST


def layer_media_type(compression: str, *, docker: bool = False) -> str:
    """The media type of a layer with this compression (`none`, `gzip` or `zstd`).

    >>> layer_media_type("zstd")
    'application/vnd.oci.image.layer.v1.tar+zstd'
    """
    oci = {"none": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}[compression]
    return to_docker(oci) if docker else oci


def parse_media_type(text: str) -> str:
    """A media type whose name complies with RFC 6838, section 4.2; parameters may follow, 1024 characters in all.

    Whether parameters may be there the image-spec leaves open, and they are: signatures of Sigstore and SBOMs tell
    their version so. A manifest's media type has none. See `plain`.

    >>> parse_media_type("application/vnd.cyclonedx+json;version=1.5")
    'application/vnd.cyclonedx+json;version=1.5'

    Raises:
        InvalidManifestError: it does not comply.
    """
    if not (_RFC6838.fullmatch(text) or _has_parameters(text)):
        raise InvalidManifestError(f"expected a media type <type>/<subtype>, got {text[:200]!r}")
    return text


def _has_parameters(text: str) -> bool:
    """A manifest's has none: who cuts them off, and who does not, would take it for different things."""
    name, mark, rest = text.partition(";")
    name = name.rstrip(" \t")
    if not mark or len(text) > _LONGEST or not _RFC6838.fullmatch(name) or is_manifest(name):
        return False
    return re.fullmatch(_PARAMETERS, mark + rest, re.ASCII) is not None


def plain(media_type: str) -> bool:
    """Whether a media type is a name without parameters, which every registry takes.

    >>> plain("text/markdown"), plain("text/plain; charset=utf-8")
    (True, False)
    """
    return ";" not in media_type


def essence(content_type: str) -> str:
    """A Content-Type header without its parameters, in lower case.

    >>> essence("application/vnd.oci.image.index.v1+json; charset=utf-8")
    'application/vnd.oci.image.index.v1+json'
    """
    return content_type.partition(";")[0].strip().lower()
