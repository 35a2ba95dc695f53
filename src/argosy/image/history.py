"""An image's history as people read it: steps with sizes, and as the Dockerfile it may have come from."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator

from argosy.image.view import Image
from argosy.spec.digest import Digest

__all__ = ["Step", "as_dockerfile", "steps"]

_NOP = re.compile(r"^/bin/sh -c #\(nop\)\s*", re.ASCII)
_SHELL = re.compile(r"^(?:RUN )?(?:\|\d+ .*?)?/bin/sh -c ", re.ASCII | re.DOTALL)
_BUILDKIT = " # buildkit"
_INSTRUCTION = re.compile(
    r"^(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER"
    r"|VOLUME|WORKDIR)\b",
    re.ASCII,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a history.

    Args:
        created: RFC 3339, or None.
        created_by: What made it, as recorded.
        instruction: The same as a line of a Dockerfile.
        author: Who.
        comment: What they said.
        layer: The digest of the layer it made, or None.
        size: That layer's size in bytes, compressed; 0 without one.
        media_type: Of that layer.
    """

    created: str | None
    created_by: str
    instruction: str
    author: str
    comment: str
    layer: Digest | None
    size: int
    media_type: str


def steps(image: Image) -> tuple[Step, ...]:
    """The steps from the base upwards; layers the history does not mention have one with nothing recorded.

    Raises:
        InvalidConfigError: the history tells of more layers than there are.
        UnsupportedError: this is an artifact, which has no history.
    """
    return tuple(
        Step(
            created=step.created,
            created_by=step.created_by,
            instruction=instruction(step.created_by, layer is not None),
            author=step.author,
            comment=step.comment,
            layer=layer.descriptor.digest if layer else None,
            size=layer.descriptor.size if layer else 0,
            media_type=layer.descriptor.media_type if layer else "",
        )
        for step, layer in image.histories()
    )


def instruction(created_by: str, makes_layer: bool = True) -> str:
    """What a builder recorded, as a line of a Dockerfile.

    >>> instruction('/bin/sh -c #(nop)  CMD ["sh"]', False)
    'CMD ["sh"]'
    >>> instruction("/bin/sh -c apk add curl")
    'RUN apk add curl'
    >>> instruction("COPY app /app # buildkit")
    'COPY app /app'
    """
    text = created_by.removesuffix(_BUILDKIT).strip()
    plain = _NOP.sub("", text)
    if plain != text or (_INSTRUCTION.match(text) and not _SHELL.match(text)):
        return plain
    if not text:
        return "# a layer that nothing was recorded of" if makes_layer else ""
    command = _SHELL.sub("", text)
    if command != text:
        return f"RUN {command}"
    return f"# {text}" if "\n" not in text else f"# {text.splitlines()[0]}"


def as_dockerfile(image: Image) -> Iterator[str]:
    """Lines that tell how an image was made: what is recorded, and at the end what the configuration adds to it.

    It is for people to read, and does not build: sources of ADD and COPY were never recorded.
    """
    yield f"# {image.platform}, {image.digest}"
    yield "FROM scratch"
    told = []
    for step in steps(image):
        if step.instruction:
            told.append(step.instruction.split(" ", 1)[0])
            yield step.instruction.replace("\n", " \\\n")
    yield from (line for name, line in _from_config(image) if name not in told)


def _from_config(image: Image) -> Iterator[tuple[str, str]]:
    execution = image.config.execution
    for item in execution.env:
        name, _, value = item.partition("=")
        yield "ENV", f"ENV {name}={json.dumps(value)}"
    for port in execution.exposed_ports:
        yield "EXPOSE", f"EXPOSE {port}"
    for path in execution.volumes:
        yield "VOLUME", f"VOLUME {json.dumps([path])}"
    if execution.working_dir:
        yield "WORKDIR", f"WORKDIR {execution.working_dir}"
    if execution.user:
        yield "USER", f"USER {execution.user}"
    for key, value in execution.labels.items():
        yield "LABEL", f"LABEL {json.dumps(key)}={json.dumps(value)}"
    if execution.stop_signal:
        yield "STOPSIGNAL", f"STOPSIGNAL {execution.stop_signal}"
    if execution.entrypoint is not None:
        yield "ENTRYPOINT", f"ENTRYPOINT {json.dumps(list(execution.entrypoint))}"
    if execution.cmd is not None:
        yield "CMD", f"CMD {json.dumps(list(execution.cmd))}"
