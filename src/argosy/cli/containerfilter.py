"""Which containers are meant, as `docker ps --filter` says it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from argosy.cli.options import patterns, typed_place
from argosy.engine.container import Container
from argosy.engine.invoke import status_of
from argosy.engine.names import local_name, typed_digits
from argosy.engine.values import pairs
from argosy.errors import InvalidConfigError, UsageError

Fits = Callable[[Container], bool]
Wanted = Mapping[str, list[Fits]]
"""What is asked of a container, by what it is about."""

STATUSES = ("created", "running", "exited", "dead", "orphaned", "damaged")


def parse(filters: Iterable[str]) -> Wanted:
    """What `KEY=VALUE` texts say.

    Raises:
        UsageError: one is of another shape or has another key, or its value can be none of that key.

    >>> wanted = parse(["label=a=1", "label=b", "status=exited"])
    >>> {key: len(asked) for key, asked in wanted.items()}
    {'label': 2, 'status': 1}
    """
    found: dict[str, list[Fits]] = {}
    for text in filters:
        key, mark, value = text.partition("=")
        if not mark or key not in _FILTERS:
            raise UsageError(
                f"--filter {text[:100]!r}: expected KEY=VALUE, KEY one of {', '.join(_FILTERS)}"
            )
        found.setdefault(key, []).append(_FILTERS[key](value))
    return found


def fits(container: Container, wanted: Wanted) -> bool:
    """Whether a container is meant: of each key any value must fit, of labels all."""
    return all(
        (all if key == "label" else any)(one(container) for one in asked)
        for key, asked in wanted.items()
    )


def labels(container: Container) -> dict[str, str]:
    """Those of its image, and what `run --label` said."""
    own = pairs(container.record.options["labels"], "label")
    with contextlib.suppress(OSError, InvalidConfigError):  # it is being made, or damaged
        return {**container.image().execution.labels, **own}
    return own


def _id(value: str) -> Fits:
    return lambda container: container.id.startswith(value)


def _name(value: str) -> Fits:
    (pattern,) = patterns([value])
    return lambda container: pattern.search(container.record.name) is not None


def _label(value: str) -> Fits:
    name, mark, text = value.partition("=")

    def fits(container: Container) -> bool:
        found = labels(container).get(name)
        return found is not None and (not mark or found == text)

    return fits


def _status(value: str) -> Fits:
    if value not in STATUSES:
        raise UsageError(f"--filter status={value[:100]}: expected one of {', '.join(STATUSES)}")
    return lambda container: status_of(container) == value


def _ancestor(value: str) -> Fits:
    place = typed_place(value)
    name, digits = local_name(place), typed_digits(place)

    def fits(container: Container) -> bool:
        image_id = container.record.digest.partition(":")[2]
        return container.record.image == name or bool(digits and image_id.startswith(digits))

    return fits


_FILTERS: dict[str, Callable[[str], Fits]] = {
    "id": _id,
    "name": _name,
    "label": _label,
    "status": _status,
    "ancestor": _ancestor,
}
