"""Network devices of a container: its loopback, and `linux.netDevices` moved in from the host.

A device keeps its permanent global addresses, and is up when it has arrived. When one cannot be moved, those before it
come back under their old names.
"""

from __future__ import annotations

import errno
import posix
from _struct import Struct

from argosy.runtime.errors import ConfigError, Failure
from argosy.runtime.kernel import CLONE_NEWNET, LinuxKernel
from argosy.runtime.netlink import (
    ADDRESS,
    CREATE,
    GETADDR,
    GETLINK,
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_FLAGS,
    IFA_LOCAL,
    IFA_PROTO,
    IFA_RT_PRIORITY,
    IFF_UP,
    IFLA_IFNAME,
    IFLA_NET_NS_FD,
    LINK,
    NEWADDR,
    NEWLINK,
    Netlink,
    attribute,
    attributes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_U32 = Struct("=I")

NAME_LIMIT = 15
"""The most bytes of a device's name (`IFNAMSIZ` without its zero)."""

_PERMANENT = 0x80
_UNIVERSE = 0
_KEPT = (IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY, IFA_PROTO)
"""What of an address is carried over; its label would hold the old name, its times are endless."""
_NODAD = 0x02
_MANAGE_TEMPORARY, _NO_PREFIX_ROUTE = 0x100, 0x200
_KEPT_FLAGS = _PERMANENT | _NODAD | _MANAGE_TEMPORARY | _NO_PREFIX_ROUTE


def loopback_up(kernel: LinuxKernel) -> None:  # noqa: ARG001 - as every step of init
    """Set the loopback device of the calling process's network namespace up.

    Raises:
        Failure: The kernel refused.
    """
    link = Netlink()
    try:
        link.change(NEWLINK, LINK.pack(0, 0, 0, IFF_UP, IFF_UP) + attribute(IFLA_IFNAME, b"lo\0"))
    except OSError as error:
        raise Failure(f"unable to set the loopback device up: {_why(error)}") from None
    finally:
        link.close()


def _why(error: OSError) -> str:
    return posix.strerror(error.errno).lower() if error.errno else str(error)


class Device:
    """A device as it was before it moved.

    Attributes:
        name: Its name.
        index: Its number in its namespace.
        up: Whether it was up.
        addresses: Bodies of requests for its permanent global addresses, but for the index.
    """

    __slots__ = ("addresses", "index", "name", "up")

    def __init__(
        self, name: str, index: int, up: bool, addresses: list[tuple[int, int, bytes]]
    ) -> None:
        self.name = name
        self.index = index
        self.up = up
        self.addresses = addresses


def check(devices: dict[str, dict[str, Any]]) -> None:
    """Check the names of `linux.netDevices`.

    Raises:
        ConfigError: A name is none that a device can have, or two devices get the same.
    """
    targets: set[str] = set()
    for name, settings in devices.items():
        where = f"linux.netDevices.{name}"
        _check_name(name, where, template=False)
        target = (settings or {}).get("name") or name
        _check_name(target, where + ".name", template=True)
        if target in targets and "%" not in target:
            raise ConfigError(where + ".name", f"more than one device is to be named {target!r}")
        targets.add(target)


def _check_name(name: str, where: str, *, template: bool) -> None:
    if not name or len(name.encode()) > NAME_LIMIT or name in (".", ".."):
        raise ConfigError(
            where, f"invalid network device name {name!r}: expected 1 to {NAME_LIMIT} bytes"
        )
    if any(char in "/:\0" or char.isspace() for char in name):
        raise ConfigError(
            where, f"invalid network device name {name!r}: it has a slash, colon or space"
        )
    rest = name.replace("%d", "", 1) if template else name
    if "%" in rest:
        raise ConfigError(
            where, f"invalid network device name {name!r}: expected no % but one %d in the new name"
        )


def move(
    devices: dict[str, dict[str, Any]], netns_fd: int, kernel: LinuxKernel | None = None
) -> None:
    """Move devices of the caller's network namespace into another one.

    Args:
        devices: `linux.netDevices`: settings by name; `name` renames, with `%d` for the first free number.
        netns_fd: A descriptor of the network namespace.
        kernel: For its setns.

    Raises:
        ConfigError: A name is invalid, or taken in the namespace, or no device's.
        Failure: The kernel refused; devices moved before are back then.
    """
    if not devices:
        return
    check(devices)
    kernel = kernel or LinuxKernel()
    home_fd = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    home = Netlink()
    try:
        there = _netlink_in(kernel, netns_fd, home_fd)
        try:
            _move_all(devices, home, there, home_fd, netns_fd)
        finally:
            there.close()
    finally:
        home.close()
        posix.close(home_fd)


def _netlink_in(kernel: LinuxKernel, netns_fd: int, home_fd: int) -> Netlink:
    """Return a socket of the other namespace; the caller is back in its own afterwards."""
    kernel.setns(netns_fd, CLONE_NEWNET)
    try:
        return Netlink()
    finally:
        kernel.setns(home_fd, CLONE_NEWNET)


def _move_all(
    devices: dict[str, dict[str, Any]], home: Netlink, there: Netlink, home_fd: int, netns_fd: int
) -> None:
    moved: list[tuple[Device, int]] = []
    for name, settings in devices.items():
        target = (settings or {}).get("name") or name
        try:
            device = _find(home, name)
            index = _transfer(device, home, there, netns_fd, target)
            moved.append((device, index))
            _settle(there, index, device, up=True)
        except BaseException as error:
            for each, index in reversed(moved):
                _bring_back(each, index, home, there, home_fd)
            if isinstance(error, OSError):
                raise Failure(
                    f'unable to move network device "{name}" as "{target}": {_why(error)}'
                ) from None
            raise


def _find(link: Netlink, name: str) -> Device:
    """Return a device by its name, with what must survive the move.

    Raises:
        ConfigError: There is none.
    """
    body = LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    try:
        answer = link.ask(GETLINK, body)[0]
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        raise ConfigError(f"linux.netDevices.{name}", "there is no such network device") from None
    _, _, index, flags, _ = LINK.unpack_from(answer)
    return Device(name, index, bool(flags & IFF_UP), _addresses(link, index))


def _addresses(link: Netlink, wanted: int) -> list[tuple[int, int, bytes]]:
    """Return the permanent global addresses of a device: family, prefix length and flags, and the attributes."""
    found = []
    for body in link.dump(GETADDR, ADDRESS.pack(0, 0, 0, 0, 0)):
        family, prefix, flags, scope, index = ADDRESS.unpack_from(body)
        given = attributes(body[ADDRESS.size :])
        if IFA_FLAGS in given:
            flags = _U32.unpack_from(given[IFA_FLAGS])[0]
        if index != wanted or scope != _UNIVERSE or not flags & _PERMANENT:
            continue
        kept = b"".join(attribute(kind, given[kind]) for kind in _KEPT if kind in given)
        kept += attribute(IFA_FLAGS, _U32.pack(flags & _KEPT_FLAGS))
        found.append((family, prefix, kept))
    return found


def _transfer(device: Device, here: Netlink, there: Netlink, netns_fd: int, target: str) -> int:
    """Move a device and return its number where it arrived.

    Raises:
        ConfigError: The name is taken there.
    """
    before = _links(there)
    if target in before.values():
        where = f"linux.netDevices.{device.name}"
        raise ConfigError(where, f"the container already has a network device named {target!r}")
    if device.up:
        _set(here, device.index, up=False)  # one that is up cannot be renamed
    try:
        request = LINK.pack(0, 0, device.index, 0, 0)
        request += attribute(IFLA_NET_NS_FD, _U32.pack(netns_fd))
        here.change(NEWLINK, request + attribute(IFLA_IFNAME, target.encode() + b"\0"))
    except OSError:
        _settle(here, device.index, device, up=device.up)
        raise
    return next(index for index in _links(there) if index not in before)


def _links(link: Netlink) -> dict[int, str]:
    """Return the names of all devices of a namespace by their numbers."""
    found = {}
    for body in link.dump(GETLINK, LINK.pack(0, 0, 0, 0, 0)):
        name = attributes(body[LINK.size :]).get(IFLA_IFNAME, b"")
        found[LINK.unpack_from(body)[2]] = name.rstrip(b"\0").decode("utf-8", "replace")
    return found


def _settle(link: Netlink, index: int, device: Device, *, up: bool) -> None:
    """Give a device its addresses and set it up, or leave it down."""
    for family, prefix, kept in device.addresses:
        try:
            link.change(NEWADDR, ADDRESS.pack(family, prefix, 0, _UNIVERSE, index) + kept, CREATE)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
    if up:
        _set(link, index, up=True)


def _set(link: Netlink, index: int, *, up: bool) -> None:
    link.change(NEWLINK, LINK.pack(0, 0, index, IFF_UP if up else 0, IFF_UP))


def _bring_back(device: Device, index: int, home: Netlink, there: Netlink, home_fd: int) -> None:
    """Undo a move; when that fails too, the namespace's end brings real devices back by itself."""
    try:
        away = Device(device.name, index, True, device.addresses)
        _settle(home, _transfer(away, there, home, home_fd, device.name), device, up=device.up)
    except (OSError, Failure):
        return
