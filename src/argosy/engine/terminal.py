"""A terminal between a person and a container: the console socket, raw mode, and its size."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
import tty
from collections.abc import Iterator

from argosy.errors import ContainerError

TIMEOUT = 30.0


@contextlib.contextmanager
def console_socket(path: str) -> Iterator[socket.socket]:
    """A listening socket the runtime sends the terminal's other end to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(TIMEOUT)
        yield listener


def receive(listener: socket.socket) -> int:
    """The terminal's descriptor.

    Raises:
        ContainerError: the runtime sent none.
    """
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        raise ContainerError("the runtime sent no terminal") from None
    with connection:
        connection.settimeout(TIMEOUT)
        _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                os.set_inheritable(fds[0], False)
                return fds[0]
    raise ContainerError("the runtime sent no terminal")


@contextlib.contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Every key goes through as it is, until the block ends. Nothing happens where `fd` is no terminal."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)  # what has been typed already is the program's, too
        yield
    finally:
        with contextlib.suppress(termios.error):  # its window was closed meanwhile
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def copy_size(source: int, target: int) -> None:
    """Give one terminal the other's size."""
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
