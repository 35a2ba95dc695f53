"""sd_notify(3) from inside: READY=1 of the container is told to the caller's service manager, with init's pid."""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET, socket
from _struct import pack

from argosy.runtime.poll import wait_readable

_BARRIER = 30.0


class Relay:
    """The socket the container writes to.

    Args:
        path: where it is, on the host.
        host: the caller's socket.
        later: its directory is not there yet (``run``): it is bound when the container was created.
    """

    def __init__(self, path: str, host: bytes, *, later: bool = False) -> None:
        self.path = path
        self.host = host
        self._end = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
        if not later:
            self.bind()

    def bind(self) -> None:
        """Make the socket."""
        self._end.bind(self.path)
        posix.chmod(self.path, 0o777)

    def run(self, pid: int) -> None:
        """Wait for READY= and tell it; or for the process to be gone."""
        try:
            pidfd = posix.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            while self._end.fileno() in wait_readable([self._end.fileno(), pidfd], None):
                for line in self._end.recv(4096).split(b"\n"):
                    if line.startswith(b"READY="):
                        self._tell(line, pid)
                        return
        finally:
            posix.close(pidfd)

    def run_beside(self, pid: int) -> None:
        """The same in a process of its own, while the caller attends to the container."""
        self.bind()
        if posix.fork() == 0:
            try:
                self.run(pid)
            finally:
                posix._exit(0)
        self._end.close()

    def _tell(self, ready: bytes, pid: int) -> None:
        manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
        address = b"\0" + self.host[1:] if self.host.startswith(b"@") else self.host
        manager.connect(address)
        manager.send(ready + b"\n")
        manager.send(b"MAINPID=%d\n" % pid)
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        manager.sendmsg([b"BARRIER=1"], [(SOL_SOCKET, SCM_RIGHTS, pack("i", writer))])
        posix.close(writer)
        wait_readable([reader], _BARRIER)
        posix.close(reader)
