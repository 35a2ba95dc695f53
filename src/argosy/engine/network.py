"""The bridge network: one bridge, a veth pair and an address a container, published ports by nftables.

Addresses are leases: one file a container, taken under a lock, in one directory for all engines of the machine, as the
bridge is. Everything is named after the container's id, so that what a killed process left is found and removed by
`down`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import ipaddress
import itertools
import json
import os
import socket
from collections.abc import Collection, Iterator, Sequence

from argosy.engine.command import program, run
from argosy.engine.options import GATEWAY, NETWORK, Published
from argosy.errors import ConflictError, LimitExceededError, StorageError, UnsupportedError

BRIDGE = "argosy0"
LEASES = "/run/argosy/network"
"""Gone after a reboot, as the network is."""
_WHY = "a bridge network"
MAX_EXPOSED = 1000
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

_TABLE = f"""
add table inet argosy
add map inet argosy published {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}
add map inet argosy published_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }}
add chain inet argosy guard {{ type filter hook prerouting priority -300; policy accept; }}
add chain inet argosy prerouting {{ type nat hook prerouting priority -100; policy accept; }}
add chain inet argosy forward {{ type filter hook forward priority 0; policy accept; }}
add chain inet argosy output {{ type nat hook output priority -100; policy accept; }}
add chain inet argosy postrouting {{ type nat hook postrouting priority 100; policy accept; }}
flush chain inet argosy guard
flush chain inet argosy prerouting
flush chain inet argosy forward
flush chain inet argosy output
flush chain inet argosy postrouting
add rule inet argosy guard iifname "{BRIDGE}" ip daddr 127.0.0.0/8 drop
add rule inet argosy forward iifname != "{BRIDGE}" oifname "{BRIDGE}" ct state established,related accept
add rule inet argosy forward iifname != "{BRIDGE}" oifname "{BRIDGE}" ct status dnat accept
add rule inet argosy forward iifname != "{BRIDGE}" oifname "{BRIDGE}" drop
add rule inet argosy prerouting fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at
add rule inet argosy prerouting fib daddr type local dnat ip to meta l4proto . th dport map @published
add rule inet argosy output fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at
add rule inet argosy output fib daddr type local dnat ip to meta l4proto . th dport map @published
add rule inet argosy postrouting ip saddr {NETWORK} oifname != "{BRIDGE}" masquerade
add rule inet argosy postrouting ip saddr 127.0.0.0/8 oifname "{BRIDGE}" masquerade
add rule inet argosy postrouting ip saddr {NETWORK} ip daddr {NETWORK} ct status dnat masquerade
"""
"""The guard comes first: with route_localnet, which ports published on loopback need, the kernel no longer drops what
comes from elsewhere for 127.0.0.0/8 by itself, and any container could reach what listens there (CVE-2020-8558).
Forwarding is the other guard: who routes through this machine reaches the ports of a container that were published,
where they were published, and no others (CVE-2025-54388)."""


_SETTINGS = (
    ("ipv4/ip_forward", "1"),
    (f"ipv4/conf/{BRIDGE}/route_localnet", "1"),
    (f"ipv6/conf/{BRIDGE}/accept_ra", "0"),
)
"""No container tells this machine by router advertisements where to send what it sends by IPv6 (CVE-2020-13401)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A container's place in the network. `namespace` is the path of its network namespace."""

    namespace: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Lease:
    """A container's address and ports, and the run directory of its engine."""

    container: str
    engine: str
    address: str
    published: tuple[Published, ...]


class Bridge:
    """The bridge network of this machine.

    Args:
        engine: The run directory of the engine whose containers these are.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine

    def up(self, container_id: str, published: Sequence[Published] = ()) -> Attachment:
        """Make a network namespace with an address, and lead the published ports to it.

        Raises:
            ConflictError: a port is in use.
            UnsupportedError: `ip` or `nft` is not installed, or the caller is not root.
            StorageError: one of them failed; nothing is left.
        """
        ip, nft = program("ip", _WHY), program("nft", _WHY)
        name, veth = _names(container_id)
        with contextlib.ExitStack() as undo:
            undo.callback(self.down, container_id)
            with self._locked():
                self._check_ports(published)
                address = self._lease(container_id, published)
                self._bridge(ip)
            run([ip, "netns", "add", name])
            run(
                [ip, "-batch", "-"],
                f"link add {veth} type veth peer name eth0 address {_mac(address)} netns {name}\n"
                f"link set {veth} master {BRIDGE} up\n",
            )
            run(
                [ip, "-n", name, "-batch", "-"],
                f"link set lo up\naddr add {address}/{NETWORK.prefixlen} dev eth0\nlink set eth0 up\n"
                f"route add default via {GATEWAY}\n",
            )
            run([nft, "-f", "-"], _TABLE + _elements("add", address, published))
            undo.pop_all()
        return Attachment(namespace=f"/run/netns/{name}", address=address)

    def down(self, container_id: str) -> None:
        """Remove all of a container's network; what is not there is fine."""
        name, veth = _names(container_id)
        lease = _read(container_id)
        with contextlib.suppress(StorageError):
            run([program("ip", _WHY), "link", "del", veth])
        if os.path.exists(f"/run/netns/{name}"):
            with contextlib.suppress(StorageError):
                run([program("ip", _WHY), "netns", "del", name])
        if lease is not None and lease.published:
            gone = _elements("delete", lease.address, lease.published)
            with contextlib.suppress(StorageError):
                run([program("nft", _WHY), "-f", "-"], gone)
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.unlink(os.path.join(LEASES, container_id))

    def leased(self) -> set[str]:
        """The ids of containers that have an address: this engine's, and those that an engine left that is gone."""
        leases = _leases()
        mine = {lease.container for lease in leases if lease.engine == self._engine}
        left = {lease.container for lease in leases if not os.path.exists(lease.engine)}
        return mine | (left and left - _inhabited(left))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.path.join(LEASES, "lock")
        try:
            os.makedirs(LEASES, 0o700, exist_ok=True)
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:
            raise UnsupportedError(
                f"the bridge network is root's, who keeps its addresses in {LEASES}",
                hint="--network pasta, slirp4netns, host or none",
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _lease(self, container_id: str, published: Sequence[Published]) -> str:
        taken = {lease.address for lease in _leases()}
        free = next((str(a) for a in NETWORK.hosts() if a != GATEWAY and str(a) not in taken), None)
        if free is None:
            raise LimitExceededError(f"all addresses of {NETWORK} are in use")
        ports = [dataclasses.asdict(p) for p in published]
        value = {"address": free, "published": ports, "engine": self._engine}
        # One name for all, under the lock: what a killed process left of it, the next one writes over.
        new = os.path.join(LEASES, "new")
        with open(new, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.rename(new, os.path.join(LEASES, container_id))
        return free

    def _check_ports(self, published: Sequence[Published]) -> None:
        """A port is in use where another container has it, or a process of the host listens on it."""
        others = [(other, lease.container) for lease in _leases() for other in lease.published]
        for port in published:
            holder = next((container for other, container in others if _clash(port, other)), None)
            if holder is not None:
                raise ConflictError(
                    f"port {port.host_port}/{port.protocol} is in use by another container, {holder[:12]}",
                    hint="argosy prune frees those of containers whose watcher was killed",
                )
            _try_bind(port)

    def _bridge(self, ip: str) -> None:
        here, mac = f"/sys/class/net/{BRIDGE}", _mac(str(GATEWAY))
        if not os.path.isdir(here):
            run(
                [ip, "-batch", "-"],
                f"link add {BRIDGE} type bridge\naddr add {GATEWAY}/{NETWORK.prefixlen} dev {BRIDGE}\n"
                f"link set {BRIDGE} up\n",
            )
        with open(f"{here}/address", encoding="ascii") as file:
            if file.read().strip() != mac:
                run([ip, "link", "set", BRIDGE, "address", mac])
        for path, value in _SETTINGS:
            with (
                contextlib.suppress(FileNotFoundError),  # a machine without IPv6
                open(f"/proc/sys/net/{path}", "w", encoding="ascii") as file,
            ):
                file.write(value)


def _leases() -> list[_Lease]:
    """Those of all engines; none for whoever is not root, who can have none."""
    try:
        names = [name for name in os.listdir(LEASES) if len(name) == 64]
    except (FileNotFoundError, PermissionError):
        return []
    return [lease for name in names if (lease := _read(name)) is not None]


def _read(container_id: str) -> _Lease | None:
    try:
        with open(os.path.join(LEASES, container_id), encoding="utf-8") as file:
            value = json.load(file)
    except (FileNotFoundError, PermissionError, ValueError):
        return None
    return _Lease(
        container=container_id,
        engine=value["engine"],
        address=value["address"],
        published=tuple(Published(**item) for item in value["published"]),
    )


def _inhabited(containers: Collection[str]) -> set[str]:
    """Those of some containers in whose network namespace a process is."""
    there = {_inode(f"/proc/{name}/ns/net") for name in os.listdir("/proc") if name.isdecimal()}
    there.discard(None)
    return {x for x in containers if _inode(f"/run/netns/{_names(x)[0]}") in there}


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _names(container_id: str) -> tuple[str, str]:
    return f"argosy-{container_id[:12]}", f"ar{container_id[:11]}"


def _mac(address: str) -> str:
    """The hardware address that belongs to an address, so that who has the one has the other.

    Whoever knows where a container was that has ended would send there what is for the next one of its address; and a
    bridge left to itself takes another one with the containers that come and go, while those that stay send to the old.
    """
    return ":".join(f"{part:02x}" for part in (0x02, 0x42, *ipaddress.IPv4Address(address).packed))


def _clash(one: Published, other: Published) -> bool:
    same = (one.host_port, one.protocol) == (other.host_port, other.protocol)
    return same and (not one.address or not other.address or one.address == other.address)


def with_exposed(published: Sequence[Published], texts: Sequence[str]) -> tuple[Published, ...]:
    """The published ports, and the others that an image exposes, each by a free one of this machine.

    Raises:
        UsageError: what the image exposes is no port.
        LimitExceededError: it exposes more than 1000.
    """
    ports = (port for text in texts for port in Published.parse(text))
    exposed = list(itertools.islice(ports, MAX_EXPOSED + 1))
    if len(exposed) > MAX_EXPOSED:
        raise LimitExceededError(
            f"the image exposes more than {MAX_EXPOSED} ports", hint="-p publishes some of them"
        )
    found = list(published)
    inside = {(port.container_port, port.protocol) for port in published}
    taken = {port.host_port for lease in _leases() for port in lease.published}
    taken |= {port.host_port for port in published}
    for port in exposed:
        key = port.container_port, port.protocol
        if key not in inside:
            inside.add(key)
            free = _free_port(_KINDS.get(port.protocol, socket.SOCK_STREAM), taken)
            taken.add(free)
            found.append(dataclasses.replace(port, address="", host_port=free))
    return tuple(found)


def _free_port(kind: int, taken: Collection[int]) -> int:
    """A port on which no process listens, and that is not `taken`: nothing listens on what is published."""
    with contextlib.ExitStack() as held:  # so that none comes twice
        while True:
            probe = held.enter_context(socket.socket(socket.AF_INET, kind))
            probe.bind(("", 0))
            port: int = probe.getsockname()[1]
            if port not in taken:
                return port


def _try_bind(port: Published) -> None:
    if port.protocol not in _KINDS:
        return
    with socket.socket(socket.AF_INET, _KINDS[port.protocol]) as probe:
        if port.protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.address, port.host_port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise ConflictError(
                    f"port {port.host_port}/{port.protocol} is in use on this machine"
                ) from None
            raise StorageError(f"port {port}: {os.strerror(exc.errno or 0).lower()}") from exc


def _elements(verb: str, address: str, published: Sequence[Published]) -> str:
    lines = []
    for port in published:
        key = f"{port.protocol} . {port.host_port}"
        table = "published"
        if port.address:
            key, table = f"{port.address} . {key}", "published_at"
        value = f" : {address} . {port.container_port}" if verb == "add" else ""
        lines.append(f"{verb} element inet argosy {table} {{ {key}{value} }}\n")
    return "".join(lines)
