"""What `argosy run` is told about a container, parsed but for what only the machine knows."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from typing import Any, Self

from argosy.errors import UsageError

NETWORKS = ("bridge", "none", "host", "pasta", "slirp4netns")
_SIZE = re.compile(r"(\d{1,15})([bkmgt]?)b?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)


def parse_size(text: str) -> int:
    """A size with a unit of 1024, as Docker reads `--memory`.

    Raises:
        UsageError: another shape.

    >>> parse_size("512m"), parse_size("1g")
    (536870912, 1073741824)
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise UsageError(
            f"size {text[:40]!r}: expected a number with b, k, m or g", hint="for example 512m"
        )
    return int(match[1]) * _UNITS[match[2].lower()]


def parse_name(text: str) -> str:
    """A container's name.

    Raises:
        UsageError: characters it may not have.
    """
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"container name {text[:140]!r}: expected letters, digits, '_', '.' and '-'"
        )
    return text


def parse_destination(text: str, what: str) -> str:
    """Where something is mounted in a container, in one spelling.

    Args:
        text: What was typed.
        what: What it belongs to, for the message.

    Raises:
        UsageError: it is not absolute, or the root itself.

    >>> parse_destination("/data//x/../y/", "volume")
    '/data/y'
    """
    place = "/" + os.path.normpath(text).lstrip("/")
    if not os.path.isabs(text) or place == "/" or "\0" in text:
        raise UsageError(f"{what}: the destination must be an absolute path below /")
    return place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A port of the host that leads to one of the container. `address` is empty for all of the host's."""

    address: str
    host_port: int
    container_port: int
    protocol: str

    @classmethod
    def parse(cls, text: str) -> list[Self]:
        """Read `[[address:]host-port:]container-port[/protocol]`; ports may be ranges of one length.

        Raises:
            UsageError: another shape.

        >>> [str(p) for p in Published.parse("127.0.0.1:8080-8081:80-81/tcp")]
        ['127.0.0.1:8080->80/tcp', '127.0.0.1:8081->81/tcp']
        """
        body, slash, protocol = text.partition("/")
        protocol = protocol.lower() if slash else "tcp"
        parts = body.rsplit(":", 2)
        if protocol not in ("tcp", "udp", "sctp") or len(parts) > 3:
            raise _bad_port(text)
        inside = _range(parts[-1], text)
        outside = _range(parts[-2], text) if len(parts) > 1 and parts[-2] else inside
        address = parts[0].strip("[]") if len(parts) == 3 else ""
        if len(inside) != len(outside):
            raise _bad_port(text)
        if address in ("0.0.0.0", "::"):  # noqa: S104 - what was typed
            address = ""
        if address:
            try:
                ipaddress.IPv4Address(address)
            except ValueError:
                raise UsageError(
                    f"port {text[:80]!r}: expected an IPv4 address, got {address!r}"
                ) from None
        return [
            cls(address=address, host_port=o, container_port=i, protocol=protocol)
            for o, i in zip(outside, inside, strict=True)
        ]

    def __str__(self) -> str:
        where = f"{self.address}:" if self.address else ""
        return f"{where}{self.host_port}->{self.container_port}/{self.protocol}"


def _range(text: str, whole: str) -> list[int]:
    match = _PORTS.fullmatch(text)
    if not match:
        raise _bad_port(whole)
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise _bad_port(whole)
    return list(range(first, last + 1))


def _bad_port(text: str) -> UsageError:
    return UsageError(
        f"port {text[:80]!r}: expected [[address:]host:]container[/tcp|udp]",
        hint="for example -p 8080:80",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A directory or file of the host inside the container."""

    source: str
    destination: str
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `source:destination[:options]`, as Docker's `-v` takes it.

        Raises:
            UsageError: another shape, or a destination that is not absolute.

        >>> Volume.parse("/srv:/data:ro").options
        ('ro',)
        """
        parts = text.split(":")
        if len(parts) not in (2, 3) or not all(parts[:2]) or "\0" in text:
            raise UsageError(f"volume {text[:200]!r}: expected source:destination[:options]")
        source, destination = os.path.expanduser(parts[0]), parts[1]
        if not os.path.isabs(source) and not source.startswith("."):
            raise UsageError(
                f"volume {text[:200]!r}: the source must be a path", hint="begin it with / or ./"
            )
        destination = parse_destination(destination, f"volume {text[:200]!r}")
        options = tuple(o for o in (parts[2].split(",") if len(parts) == 3 else ()) if o)
        unknown = set(options) - _VOLUME_OPTIONS
        if unknown:
            raise UsageError(f"volume {text[:200]!r}: option {min(unknown)!r} is not known")
        return cls(source=os.path.abspath(source), destination=destination, options=options)

    def mount(self) -> dict[str, Any]:
        """The runtime configuration's mount. Labels of SELinux (`z`, `Z`) have no meaning here and are dropped."""
        options = [o for o in self.options if o not in ("z", "Z")]
        if not any(o.lstrip("r") in ("private", "shared", "slave") for o in options):
            options.append("rprivate")
        return {
            "destination": self.destination,
            "type": "bind",
            "source": self.source,
            "options": ["rbind", *options],
        }


_VOLUME_OPTIONS = {
    "ro", "rw", "z", "Z", "private", "rprivate", "shared", "rshared", "slave", "rslave", "nosuid", "nodev",
    "noexec", "suid", "dev", "exec", "idmap",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything about one container but its image.

    `entrypoint` None means the image's; an empty one removes it. `env` entries are `NAME=value`. Sizes are bytes,
    `cpus` is a number of processors, `stop_timeout` seconds.
    """

    command: tuple[str, ...] = ()
    entrypoint: str | None = None
    name: str = ""
    hostname: str = ""
    env: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    tty: bool = False
    interactive: bool = False
    remove: bool = False
    read_only: bool = False
    privileged: bool = False
    network: str = "bridge"
    published: tuple[Published, ...] = ()
    add_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    memory: int | None = None
    cpus: float | None = None
    pids_limit: int | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout: int = 10

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise UsageError(f"network {self.network!r}: expected one of {', '.join(NETWORKS)}")
        if self.published and self.network in ("none", "host"):
            raise UsageError(f"ports cannot be published with --network {self.network}")
        if self.name:
            parse_name(self.name)
        for entry in self.add_hosts:
            host, _, address = entry.partition(":")
            if not host or set(host) & set(" \t\n#"):
                raise UsageError(f"host {entry[:100]!r}: expected NAME:ADDRESS")
            _check_address(address.strip("[]"), f"host {entry[:100]!r}")
        for server in self.dns:
            _check_address(server, f"name server {server[:100]!r}")


def _check_address(text: str, what: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"{what}: expected an IP address, got {text[:100]!r}") from None
