"""What the images of this machine are called."""

from __future__ import annotations

from argosy.locate import Location
from argosy.spec.reference import Reference


def local_name(place: Location) -> str:
    """What an image is called here: its whole reference, or `localhost/<file>:<tag>` for what is in no registry.

    >>> local_name(Location.parse("alpine:3.20"))
    'docker.io/library/alpine:3.20'
    """
    if place.reference is not None:
        reference = place.reference
        if reference.digest is not None:
            return f"{reference.repository}@{reference.digest}"
        return f"{reference.repository}:{reference.tag or 'latest'}"
    tag = place.tag or "latest"
    if "/" in tag:
        return str(Reference.parse(tag))
    base = "".join(
        c if c.isalnum() else "-" for c in place.path.rstrip("/").rpartition("/")[2].lower()
    )
    plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in tag).lstrip(".-") or "latest"
    return f"localhost/{base.strip('-') or 'image'}:{plain}"


def typed_digits(place: Location) -> str | None:
    """The hexadecimal digits somebody typed for an image id, if that is what it looks like."""
    reference = place.reference
    if reference is None or reference.registry != "docker.io" or reference.tag or reference.digest:
        return None
    text = reference.name.removeprefix("library/").removeprefix("sha256:")
    is_hex = 6 <= len(text) <= 64 and all(c in "0123456789abcdef" for c in text)
    return text if is_hex else None
