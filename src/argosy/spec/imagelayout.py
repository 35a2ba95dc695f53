"""The names and the header of an OCI image layout (image-spec, image-layout.md)."""

from __future__ import annotations

from argosy.errors import InvalidLayoutError
from argosy.spec import _json
from argosy.spec.digest import Digest

HEADER_FILE = "oci-layout"
INDEX_FILE = "index.json"
BLOBS_DIRECTORY = "blobs"
VERSION = "1.0.0"
MAX_INDEX_SIZE = 64 * 1024 * 1024
"""The most bytes argosy reads as a layout's `index.json`, which holds every image of the layout."""


def header() -> bytes:
    """The content of the `oci-layout` file.

    >>> header()
    b'{"imageLayoutVersion":"1.0.0"}'
    """
    return _json.dumps({"imageLayoutVersion": VERSION})


def check_header(raw: bytes) -> None:
    """Check the content of an `oci-layout` file.

    Raises:
        InvalidLayoutError: not JSON, no `imageLayoutVersion`, or a version other than 1.x.
        LimitExceededError: more than 64 KiB.
    """
    value = _json.loads_object(raw, limit=64 * 1024, error=InvalidLayoutError)
    version = value.get("imageLayoutVersion")
    if version is None:
        raise InvalidLayoutError("imageLayoutVersion: this property is required")
    text = _json.STRING.decode(version, "imageLayoutVersion", InvalidLayoutError)
    if not text.startswith("1."):
        raise InvalidLayoutError(f"imageLayoutVersion: expected {VERSION}, got {text[:64]!r}")


def blob_path(digest: Digest) -> str:
    """Where a blob lies, relative to the layout: `blobs/<algorithm>/<encoded>`."""
    return f"{BLOBS_DIRECTORY}/{digest.algorithm}/{digest.encoded}"
