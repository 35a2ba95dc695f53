"""`argosy ps --format`: containers by a template of Go's, with the fields that Docker's has."""

from __future__ import annotations

from argosy.cli import containerfilter
from argosy.cli.failure import printable
from argosy.cli.images import ago
from argosy.cli.template import render
from argosy.engine.container import Container
from argosy.engine.invoke import status_of, words
from argosy.engine.options import Published
from argosy.errors import UsageError

_ESCAPES = (("\\t", "\t"), ("\\n", "\n"))
"""What a shell leaves as it is between single quotes, and Docker does not."""


def template_of(text: str) -> str:
    """What is asked for, as a template.

    Raises:
        UsageError: it is Docker's table.
    """
    if text.split()[:1] == ["table"]:
        raise UsageError("--format: there is no table", hint="argosy ps alone prints one")
    for escape, meant in _ESCAPES:
        text = text.replace(escape, meant)
    return "{{json .}}" if text == "json" else text


def filled(template: str, container: Container) -> str:
    """A container's line; control characters are the template's own alone.

    Raises:
        UsageError: it has something that is not supported, or names a field that is not there.
    """
    record = container.record
    labels = containerfilter.labels(container)
    facts = {
        "ID": container.id[:12],
        "Names": record.name,
        "Image": record.image.removeprefix("docker.io/library/"),
        "Command": f'"{words(record.command)}"',
        "CreatedAt": record.created,
        "RunningFor": ago(record.created) if record.created else "",
        "State": status_of(container),
        "Status": _status(container),
        "Ports": ", ".join(ports(container)),
        "Labels": ",".join(f"{name}={value}" for name, value in labels.items()),
        "Networks": record.options["network"] if record.created else "",
    }
    return render(template, {name: printable(fact) for name, fact in facts.items()})


def ports(container: Container) -> list[str]:
    """What of this machine leads into it."""
    return [str(Published(**item)) for item in container.record.options["published"]]


def _status(container: Container) -> str:
    """`Up 3 minutes`, `Exited (0) 3 minutes ago`; another state has no time."""
    record, status = container.record, status_of(container)
    if status == "running":
        return f"Up {ago(record.started).removesuffix(' ago')}"
    if status == "exited":
        return f"Exited ({record.exit_code}) {ago(record.finished)}"
    return status.capitalize()
