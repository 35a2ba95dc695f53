"""Changing an image configuration: pure functions from one `ImageConfig` to the next.

`Changes` is what a person asks for, field by field, and `Changes.applied` makes the new configuration. Nothing is
guessed: a field that is not named stays as it is, unknown properties included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from argosy.errors import InvalidConfigError
from argosy.spec import _json
from argosy.spec.imageconfig import ExecutionParameters, ImageConfig
from argosy.spec.platform import Platform

__all__ = [
    "CLEARABLE",
    "Changes",
    "clamped",
    "env_with",
    "map_with",
    "now",
    "rfc3339",
    "seconds_of",
]

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)
_SIGNAL = re.compile(r"(?:SIG)?[A-Z][A-Z0-9]*(?:[+-][0-9]{1,2})?|[0-9]{1,2}", re.ASCII)

CLEARABLE: Mapping[str, Mapping[str, Any]] = {
    "config.labels": {"labels": {}},
    "config.exposedports": {"exposed_ports": ()},
    "config.env": {"env": ()},
    "config.entrypoint": {"entrypoint": None},
    "config.cmd": {"cmd": None},
    "config.volume": {"volumes": ()},
    "config.user": {"user": ""},
    "config.workingdir": {"working_dir": ""},
    "config.stopsignal": {"stop_signal": ""},
    "config.healthcheck": {"healthcheck": None},
}
"""The names umoci's `--clear` takes (and those of its kind), with what each empties in the `config` object.
`manifest.annotations` is one more, which the manifest's owner handles."""


_LISTS = ("entrypoint", "cmd", "exposed_ports", "removed_ports", "volumes", "removed_volumes")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to change in a configuration; None, or nothing, leaves a field as it is.

    Args:
        user: `user`, `uid`, `user:group` and so on.
        env: Variables to set, or with None to remove. Existing ones keep their place.
        entrypoint: The new one, as a list of arguments; `()` is an empty one.
        cmd: The new default arguments.
        labels: Labels to set, or with None to remove.
        exposed_ports: Ports to add, as `8080`, `8080/tcp` or `9000-9010/udp`.
        removed_ports: Ports to remove.
        volumes: Paths to add.
        removed_volumes: Paths to remove.
        working_dir: An absolute path.
        stop_signal: As `SIGTERM`, `SIGRTMIN+3` or `15`.
        created: RFC 3339.
        author: Name and e-mail address.
        platform: Sets architecture, os, variant, os.version and os.features alike.
        annotations: Of the manifest; to set, or with None to remove.
        properties: Any other property by its name in JSON, `name` or `config.Name`; None removes it.
        clear: Names of `CLEARABLE`, or `manifest.annotations`, emptied before anything is set.

    Example:
        >>> from argosy.spec.imageconfig import LayerStack
        >>> old = ImageConfig(architecture="amd64", os="linux", rootfs=LayerStack(type="layers"))
        >>> new = Changes(env={"A": "1"}, exposed_ports=["80/tcp"], cmd=["sh"]).applied(old)
        >>> new.execution.env, new.execution.exposed_ports, new.execution.cmd
        (('A=1',), ('80/tcp',), ('sh',))
    """

    user: str | None = None
    env: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    entrypoint: Sequence[str] | None = None
    cmd: Sequence[str] | None = None
    labels: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    exposed_ports: Sequence[str] = ()
    removed_ports: Sequence[str] = ()
    volumes: Sequence[str] = ()
    removed_volumes: Sequence[str] = ()
    working_dir: str | None = None
    stop_signal: str | None = None
    created: str | None = None
    author: str | None = None
    platform: Platform | None = None
    annotations: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    properties: Mapping[str, object] = dataclasses.field(default_factory=dict)
    clear: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in _LISTS:
            if isinstance(one := getattr(self, name), str):  # a sequence too, of its letters
                raise InvalidConfigError(f"{name}: expected a list, got {one[:64]!r}")
        for name in self.clear - CLEARABLE.keys() - {"manifest.annotations"}:
            raise InvalidConfigError(
                f"clear: {name!r} is none of {', '.join([*CLEARABLE, 'manifest.annotations'])}"
            )
        for port in self.exposed_ports:
            _check_port(port)
        if self.stop_signal and not _SIGNAL.fullmatch(self.stop_signal):
            raise InvalidConfigError(
                f"stop signal {self.stop_signal[:64]!r}: expected a name such as SIGTERM, or a number"
            )
        for name in (*self.env, *self.labels, *self.annotations):
            if not name or "\0" in name or ("=" in name and name in self.env):
                raise InvalidConfigError(
                    f"{name[:64]!r} cannot be the name of a variable, label or annotation"
                )

    def applied(self, config: ImageConfig) -> ImageConfig:
        """The configuration with these changes.

        Raises:
            InvalidConfigError: the result would break the specification.
        """
        execution = self._execution(config.execution)
        fields: dict[str, Any] = {
            name: value
            for name in ("created", "author")
            if (value := getattr(self, name)) is not None
        }
        if self.platform is not None:
            fields |= _platform_fields(self.platform)
        if execution != config.execution:
            fields["config"] = execution
        changed = dataclasses.replace(config, **fields) if fields else config
        return _with_properties(changed, self.properties) if self.properties else changed

    def _execution(self, old: ExecutionParameters) -> ExecutionParameters:
        cleared: dict[str, Any] = {}
        for name in self.clear & CLEARABLE.keys():
            cleared |= CLEARABLE[name]
        old = dataclasses.replace(old, **cleared)
        fields: dict[str, Any] = {
            "env": env_with(old.env, self.env),
            "labels": map_with(old.labels, self.labels),
            "exposed_ports": _set_with(old.exposed_ports, self.exposed_ports, self.removed_ports),
            "volumes": _set_with(old.volumes, self.volumes, self.removed_volumes),
        }
        for name in ("user", "working_dir", "stop_signal"):
            if (value := getattr(self, name)) is not None:
                fields[name] = value
        for name in ("entrypoint", "cmd"):
            if (arguments := getattr(self, name)) is not None:
                fields[name] = tuple(arguments)
        return dataclasses.replace(old, **fields)


def _check_port(text: str) -> None:
    match = _PORT.fullmatch(text)
    numbers = [int(n) for n in match.groups()[:2] if n] if match else []
    if not numbers or not all(0 < n < 65536 for n in numbers) or numbers != sorted(numbers):
        raise InvalidConfigError(
            f"port {text[:64]!r}: expected <port>[-<port>][/tcp|/udp|/sctp] with ports from 1 to 65535"
        )


def _platform_fields(platform: Platform) -> dict[str, Any]:
    names = ("architecture", "os", "variant", "os_version", "os_features")
    return {name: getattr(platform, name) for name in names}


def env_with(env: Iterable[str], changes: Mapping[str, str | None]) -> tuple[str, ...]:
    """An environment with variables set or (None) removed; each keeps its place, new ones come last.

    >>> env_with(("A=1", "B=2"), {"A": "3", "B": None, "C": ""})
    ('A=3', 'C=')
    """
    pending = dict(changes)
    out = []
    for item in env:
        name = item.partition("=")[0]
        if name not in changes:
            out.append(item)
        elif (value := pending.pop(name, None)) is not None:
            out.append(f"{name}={value}")
    out += [f"{name}={value}" for name, value in pending.items() if value is not None]
    return tuple(out)


def map_with(old: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """A map with keys set or (None) removed.

    >>> map_with({"a": "1", "b": "2"}, {"b": None, "c": "3"})
    {'a': '1', 'c': '3'}
    """
    merged = {**old, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def _set_with(old: Sequence[str], added: Sequence[str], removed: Sequence[str]) -> tuple[str, ...]:
    return tuple(item for item in dict.fromkeys((*old, *added)) if item not in removed)


def _with_properties(config: ImageConfig, properties: Mapping[str, object]) -> ImageConfig:
    """Set properties by their JSON names; the whole is read again, so every rule of `ImageConfig` holds."""
    document = _json.encode_object(config)
    for name, value in properties.items():
        place, key = document, name
        if name.startswith("config."):
            place, key = document.setdefault("config", {}), name.removeprefix("config.")
        if not key or name in ("config", "rootfs", "history"):
            raise InvalidConfigError(f"property {name!r} cannot be set as a whole")
        if value is None:
            place.pop(key, None)
        else:
            _check_property(name)
            place[key] = value
    return ImageConfig.decode(_json.dumps(document))


def _check_property(name: str) -> None:
    """See that a new property is not meant for a known one, or for a part of one: nothing would come of it.

    Raises:
        InvalidConfigError: it is; readers in Go would take one in other letters for the known one, beside that.
    """
    known = {
        *_json.names(ImageConfig),
        *(f"config.{part}" for part in _json.names(ExecutionParameters)),
    }
    if name in known:
        return
    for one in known:
        part = one not in ("config", "os") and name.startswith(f"{one}.")
        if part or name.lower() == one.lower():
            raise InvalidConfigError(f"property {name!r} is not known, but {one!r} is")


def now(epoch: int | None = None) -> str:
    """The time to write into a new image, RFC 3339 in UTC with whole seconds.

    Args:
        epoch: SOURCE_DATE_EPOCH in seconds, which then is the time.
    """
    if epoch is not None:
        return rfc3339(epoch)
    moment = dt.datetime.now(dt.UTC)
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def rfc3339(seconds: int) -> str:
    """Seconds since 1970 as RFC 3339 in UTC.

    Raises:
        InvalidConfigError: the year is outside 1 to 9999.

    >>> rfc3339(0)
    '1970-01-01T00:00:00Z'
    """
    try:
        moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)  # noqa: DTZ001
    except OverflowError:
        raise InvalidConfigError(f"{seconds} seconds since 1970 is no date") from None
    return moment.isoformat() + "Z"


def clamped(time: str | None, epoch: int) -> str | None:
    """A time no later than the epoch (seconds since 1970); an absent one stays absent.

    >>> clamped("2024-09-26T21:31:42.5Z", 0)
    '1970-01-01T00:00:00Z'
    """
    if time is None or seconds_of(time) <= epoch:
        return time
    return rfc3339(epoch)


def seconds_of(time: str) -> float:
    """An RFC 3339 time as seconds since 1970.

    Raises:
        InvalidConfigError: it is none.
    """
    text = time.upper().replace(" ", "T")
    # Nine digits of a second are common, and more than Python takes.
    text = re.sub(r"(\.\d{6})\d+", r"\1", text)
    with contextlib.suppress(ValueError):  # a 13th month
        if re.fullmatch(_json.RFC3339, time, re.ASCII):  # of ISO 8601 Python takes much more
            return dt.datetime.fromisoformat(text).timestamp()
    raise InvalidConfigError(
        f"expected a date and time as in RFC 3339, such as 2021-02-03T04:05:06Z, got {time[:64]!r}"
    )
