"""rtnetlink, as much of it as moving a device between network namespaces needs.

Lengths are checked both ways: an attribute too long for its 16-bit length is refused instead of wrapped around
(CVE-2021-43784), and nothing is read past the end of what the kernel sent.
"""

from __future__ import annotations

import posix
from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket
from _struct import Struct, unpack_from

from argosy.runtime.errors import Failure

NEWLINK, GETLINK, NEWADDR, GETADDR = 16, 18, 20, 22
_ERROR, _DONE, _OVERRUN = 2, 3, 4
_REQUEST, _ACK, _CREATE, _EXCLUSIVE, _DUMP, _INTERRUPTED = 1, 4, 0x400, 0x200, 0x300, 0x10
CREATE = _CREATE | _EXCLUSIVE

IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_RT_PRIORITY, IFA_PROTO = 1, 2, 4, 8, 9, 11

IFF_UP = 1

_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
LINK = Struct("=BxHiII")
"""`struct ifinfomsg`: family, type, index, flags, mask of the flags to change."""
ADDRESS = Struct("=BBBBI")
"""`struct ifaddrmsg`: family, prefix length, flags, scope, index."""

LARGEST = 1 << 17
"""The largest datagram that is read, in bytes; the kernel's are at most some 32 KiB."""
PATIENCE = 10.0
_AGAIN = 5
"""How often a listing is asked again when the kernel says that it changed meanwhile."""


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute, padded.

    Raises:
        Failure: The payload does not fit the attribute's 16-bit length.
    """
    length = _ATTRIBUTE.size + len(payload)
    if length > 0xFFFF:
        raise Failure(f"netlink: attribute {kind} of {len(payload)} bytes is longer than 65531")
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the payloads of attributes by their kind.

    Raises:
        Failure: One is longer than what is there.
    """
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            raise Failure(f"netlink: attribute {kind} of length {length} does not fit its message")
        found[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += length + (-length % 4)
    return found


class Netlink:
    """A socket of rtnetlink in the network namespace of its making."""

    def __init__(self) -> None:
        self.socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)
        self.socket.settimeout(PATIENCE)
        self.socket.bind((0, 0))
        self.sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Order something and wait until it is done.

        Raises:
            OSError: The kernel refused.
        """
        self._send(kind, flags | _ACK, body)
        for _ in self._answers():
            continue

    def ask(self, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of the messages that answer a request for one thing.

        Raises:
            OSError: The kernel refused: ENODEV for a link that is not there.
        """
        self._send(kind, _ACK, body)
        return list(self._answers())

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of the messages that list everything of a kind.

        Raises:
            OSError: The kernel refused.
            Failure: The list kept changing.
        """
        for _ in range(_AGAIN):
            self.interrupted = False
            self._send(kind, _DUMP, body)
            found = list(self._answers())
            if not self.interrupted:
                return found
        raise Failure("netlink: the list of network devices keeps changing")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self.sequence += 1
        head = _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self.sequence, 0)
        self.socket.send(head + body)

    def _answers(self) -> list[bytes]:
        found: list[bytes] = []
        while True:
            data, sender = self.socket.recvfrom(LARGEST)
            if sender[0] != 0:  # only the kernel is listened to
                continue
            if self._take(data, found):
                return found

    def _take(self, data: bytes, found: list[bytes]) -> bool:
        """Sort the messages of one datagram; tell whether the answer is complete."""
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size or at + length > len(data):
                raise Failure(f"netlink: message of length {length} does not fit its datagram")
            body = data[at + _HEADER.size : at + length]
            at += length + (-length % 4)
            if sequence != self.sequence:
                continue
            if flags & _INTERRUPTED:
                self.interrupted = True
            if kind == _DONE:
                return True
            if kind == _ERROR:
                return _acknowledged(body)
            if kind == _OVERRUN:
                raise Failure("netlink: the kernel lost an answer")
            found.append(body)
        return False


def _acknowledged(body: bytes) -> bool:
    if len(body) < 4:
        raise Failure("netlink: an acknowledgement without a code")
    code = -unpack_from("=i", body)[0]
    if code:
        raise OSError(code, posix.strerror(code))
    return True
