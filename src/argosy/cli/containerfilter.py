"""Which containers are meant, as `docker ps --filter` says it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from argosy.cli.options import patterns
from argosy.engine.container import Container
from argosy.engine.invoke import status_of
from argosy.engine.names import local_name, typed_digits
from argosy.engine.values import pairs
from argosy.errors import UsageError
from argosy.locate import Location

Wanted = Mapping[str, list[str]]
"""Values by what they are of."""


def parse(filters: Iterable[str]) -> Wanted:
    """What `KEY=VALUE` texts say.

    Raises:
        UsageError: one is of another shape, has another key, or is a name that is no regular expression.

    >>> parse(["label=a=1", "label=b"])
    {'label': ['a=1', 'b']}
    """
    found: dict[str, list[str]] = {}
    for text in filters:
        key, mark, value = text.partition("=")
        if not mark or key not in _FITS:
            raise UsageError(
                f"--filter {text[:100]!r}: expected KEY=VALUE, KEY one of {', '.join(_FITS)}"
            )
        found.setdefault(key, []).append(value)
    patterns(found.get("name", ()))
    return found


def fits(container: Container, wanted: Wanted) -> bool:
    """Whether a container is meant: of each key any value must fit, of labels all."""
    return all(
        (all if key == "label" else any)(_FITS[key](container, value) for value in values)
        for key, values in wanted.items()
    )


def labels(container: Container) -> dict[str, str]:
    """What `run --label` said."""
    return pairs(container.record.options["labels"], "label")


def _is_labelled(container: Container, value: str) -> bool:
    name, mark, text = value.partition("=")
    found = labels(container)
    return name in found and (not mark or found[name] == text)


def _is_of(container: Container, image: str) -> bool:
    place = Location.parse(image)
    digits = typed_digits(place)
    of_image = container.record.digest.partition(":")[2]
    return container.record.image == local_name(place) or bool(
        digits and of_image.startswith(digits)
    )


_FITS: dict[str, Callable[[Container, str], bool]] = {
    "id": lambda container, value: container.id.startswith(value),
    "name": lambda container, value: bool(patterns([value])[0].search(container.record.name)),
    "label": _is_labelled,
    "status": lambda container, value: status_of(container) == value,
    "ancestor": _is_of,
}
