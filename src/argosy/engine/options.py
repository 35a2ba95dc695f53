"""What `argosy run` is told about a container, parsed but for what only the machine knows."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

from argosy.bundle.users import check_user
from argosy.engine.devices import Device
from argosy.engine.mounts import Mount, check_destinations
from argosy.engine.values import MOST, Ulimit, pairs, parse_hostname, parse_name, signal_number
from argosy.errors import InvalidConfigError, UsageError

NETWORKS = ("bridge", "none", "host", "pasta", "slirp4netns")
SHM = "/dev/shm"  # noqa: S108 - in the container
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_HOST = re.compile(r"([^\s#:=]+)[:=](\S+)")
NETWORK = ipaddress.IPv4Network("10.87.0.0/16")
"""Where a bridge's containers have their addresses."""
GATEWAY = NETWORK.network_address + 1
_MACHINE = {"bridge": str(GATEWAY), "host": "127.0.0.1"}
"""Where this machine is for a container, by its network."""
_LEAST_MEMORY = 6 << 20
_LEAST_CPUS, _MOST_CPUS = 0.01, 1 << 20


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
class RunOptions:
    """Everything about one container but its image.

    `entrypoint` None means the image's; an empty one removes it. `env`, `labels` and `sysctls` are `NAME=value`. Sizes
    are bytes, `cpus` is a number of processors, `stop_timeout` seconds. `groups` are those besides the user's own.
    """

    command: tuple[str, ...] = ()
    entrypoint: str | None = None
    name: str = ""
    hostname: str = ""
    env: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    tty: bool = False
    interactive: bool = False
    init: bool = False
    remove: bool = False
    read_only: bool = False
    privileged: bool = False
    network: str = "bridge"
    published: tuple[Published, ...] = ()
    publish_all: bool = False
    add_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    memory: int | None = None
    cpus: float | None = None
    pids_limit: int | None = None
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout: int = 10

    def __post_init__(self) -> None:
        """See to it that nothing is here that no image could make right.

        Raises:
            UsageError: something is.
        """
        self._check_encoding()
        self._check_names()
        self._check_limits()
        self._check_network()
        check_destinations(self.mounts)
        pairs(self.env, "env")
        pairs(self.labels, "label")
        for setting in self.sysctls:
            if "=" not in setting:
                raise UsageError(f"sysctl {setting[:100]!r}: expected NAME=value")
        pairs(self.sysctls, "sysctl")
        if self.stop_signal:
            signal_number(self.stop_signal)

    @classmethod
    def decode(cls, value: Mapping[str, Any]) -> Self:
        """What a container's record holds of them.

        Raises:
            InvalidConfigError: it holds something else.
        """
        try:
            told = {name: _as_tuples(item) for name, item in value.items()}
            for name, kind in _PARTS.items():
                told[name] = tuple(kind(**part) for part in told[name])
            return cls(**told)
        except (TypeError, KeyError) as exc:
            raise InvalidConfigError(f"the options of the container: {exc}") from exc

    def hostname_of(self, container_id: str) -> str:
        """What the container is called: in the host's network as this machine, as with Docker."""
        own = os.uname().nodename if self.network == "host" else container_id[:12]
        return self.hostname or own

    def _check_encoding(self) -> None:
        """What is no UTF-8 was read with surrogates in its place, which no configuration of a container can have."""
        for text in _texts(dataclasses.astuple(self)):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UsageError(f"{text[:100]!r}: expected UTF-8") from None

    def _check_names(self) -> None:
        if self.name:
            parse_name(self.name)
        if self.hostname:
            parse_hostname(self.hostname)
        check_user(self.user)
        for group in self.groups:
            if not group or ":" in group:
                raise UsageError(f"group {group[:64]!r}: expected a name or a number")
            check_user(f"0:{group}")
        if self.workdir and not os.path.isabs(self.workdir):
            raise UsageError(f"working directory {self.workdir[:100]!r}: expected an absolute path")

    def _check_limits(self) -> None:
        if self.memory is not None and self.memory < _LEAST_MEMORY:
            raise UsageError(f"memory of {self.memory} bytes: expected at least 6m")
        if self.cpus is not None and not _LEAST_CPUS <= self.cpus <= _MOST_CPUS:
            raise UsageError(
                f"cpus {self.cpus:g}: expected a number from {_LEAST_CPUS:g} to {_MOST_CPUS}"
            )
        if self.pids_limit is not None and self.pids_limit > MOST:
            raise UsageError(f"pids limit {self.pids_limit}: expected at most {MOST}")
        if self.shm_size is not None:
            if self.shm_size <= 0:
                raise UsageError(f"size {self.shm_size} of {SHM}: expected more than 0")
            if any(mount.destination == SHM for mount in self.mounts):
                raise UsageError(f"a size of {SHM} where something else is mounted there")

    def _check_network(self) -> None:
        if self.network not in NETWORKS:
            raise UsageError(f"network {self.network!r}: expected one of {', '.join(NETWORKS)}")
        if (self.published or self.publish_all) and self.network in ("none", "host"):
            raise UsageError(f"ports cannot be published with --network {self.network}")
        if self.network != "bridge" and any(p.protocol == "sctp" for p in self.published):
            raise UsageError(f"ports of sctp cannot be published with --network {self.network}")
        taken: dict[tuple[str, int, str], Published] = {}
        for port in self.published:
            other = taken.setdefault((port.address, port.host_port, port.protocol), port)
            if other != port:
                raise UsageError(f"ports {other} and {port}: one port cannot lead to two")
        for entry in self.add_hosts:
            parse_host(entry, self.network)
        for server in self.dns:
            _check_address(server, f"name server {server[:100]!r}")


def parse_host(text: str, network: str) -> tuple[str, str]:
    """Read `NAME:ADDRESS` or `NAME=ADDRESS`; the address `host-gateway` is this machine's, as the container sees it.

    Raises:
        UsageError: another shape, no address, or a network from which this machine has none.

    >>> parse_host("host.docker.internal:host-gateway", "bridge")
    ('host.docker.internal', '10.87.0.1')
    """
    match = _HOST.fullmatch(text)
    if not match:
        raise UsageError(f"host {text[:100]!r}: expected NAME:ADDRESS, with an IP address")
    host, address = match[1], match[2].strip("[]")
    if address == "host-gateway":
        if network not in _MACHINE:
            raise UsageError(
                f"host {text[:100]!r}: this machine has no address with --network {network}",
                hint="--network bridge or host",
            )
        return host, _MACHINE[network]
    _check_address(address, f"host {text[:100]!r}")
    return host, address


_PARTS: dict[str, type] = {
    "mounts": Mount,
    "published": Published,
    "ulimits": Ulimit,
    "devices": Device,
}


def _texts(value: Any) -> Iterator[str]:
    """All strings in nested tuples."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _texts(item)


def _as_tuples(value: Any) -> Any:
    """A JSON value with tuples for its arrays."""
    if isinstance(value, list):
        return tuple(map(_as_tuples, value))
    if isinstance(value, dict):
        return {name: _as_tuples(item) for name, item in value.items()}
    return value


def _check_address(text: str, what: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"{what}: expected an IP address, got {text[:100]!r}") from None
