"""The line between the runtime and the container's init: one message a packet, its first byte the kind.

Every question of the child waits for the parent's answer, so the two are never in doubt where the other stands. A
packet is at most `LIMIT` bytes; descriptors travel with ``SCM_RIGHTS``. An `ERROR` packet ends the conversation.
"""

from __future__ import annotations

from _socket import (
    AF_UNIX,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)
from _struct import pack, unpack

from argosy.runtime.errors import StartError

LIMIT = 65536

MAP = b"m"  # child: I am in a new user namespace; parent: the mappings are written
PID = b"p"  # child: this is init's process id; parent: cgroup joined, go on
HOOKS = b"h"  # child: mounts are there; parent: limits set, prestart and createRuntime done
READY = b"r"  # child: everything is set up; parent: rlimits set and the state written
NOTIFY = b"n"  # child: the number of its seccomp listener; parent: taken and sent on
WARNING = b"w"  # child: one line for the log; no answer
SOURCE = b"s"  # child: a mount's index; parent: its detached tree, as a descriptor
DEBUG = b"b"  # child: one line for ``--debug``; no answer
DONE = b"d"  # child: seccomp is loaded, only the fifo is left
ERROR = b"e"  # child: one line; the end


class Channel:
    """One end."""

    def __init__(self, end: socket) -> None:
        self._socket = end

    def send(self, kind: bytes, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """Send one packet."""
        ancillary = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
        self._socket.sendmsg([kind, payload[: LIMIT - 1]], ancillary)

    def receive(self) -> tuple[bytes, bytes]:
        """The next packet's kind and payload; (b"", b"") when the other end is gone."""
        packet = self._socket.recv(LIMIT)
        return packet[:1], packet[1:]

    def ask(self, kind: bytes, payload: bytes = b"") -> bytes:
        """Send, and wait for the answer of the same kind.

        Raises:
            StartError: the other end is gone or refused.
        """
        self.send(kind, payload)
        answer, data = self.receive()
        if answer != kind:
            raise StartError(data.decode("utf-8", "replace") or "the runtime has gone away")
        return data

    def ask_fd(self, kind: bytes, payload: bytes) -> int:
        """Send, and wait for an answer with one descriptor.

        Raises:
            StartError: the other end is gone or refused.
        """
        self.send(kind, payload)
        data, ancillary, _, _ = self._socket.recvmsg(LIMIT, 256, MSG_CMSG_CLOEXEC)
        fds = take_fds(ancillary)
        if data[:1] != kind or len(fds) != 1:
            raise StartError(data[1:].decode("utf-8", "replace") or "the runtime has gone away")
        return fds[0]

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def pair() -> tuple[Channel, Channel]:
    """Two connected ends, both close-on-exec."""
    parent, child = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
    return Channel(parent), Channel(child)


def take_fds(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in what `recvmsg` returned."""
    return [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)
        for fd in unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
    ]


def connect(path: str, timeout: float = 10.0) -> socket:
    """A stream connection to the socket at ``path`` (console, pidfd and seccomp sockets).

    Raises:
        OSError: nobody listens there.
    """
    end = socket(AF_UNIX, 1 | SOCK_CLOEXEC, 0)
    end.settimeout(timeout)
    try:
        end.connect(path)
    except OSError as error:
        end.close()
        error.add_note(f"connecting to {path}")
        raise
    end.settimeout(None)
    return end


def send_fd(end: socket, name: bytes, fd: int) -> None:
    """One descriptor with a name as its payload: what runc's clients receive."""
    end.sendmsg([name], [(SOL_SOCKET, SCM_RIGHTS, pack("i", fd))])
