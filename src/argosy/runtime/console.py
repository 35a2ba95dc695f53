"""The container's terminal: made inside it, sent out of it, and its three standard streams."""

from __future__ import annotations

import posix
from _struct import pack
from fcntl import ioctl

from argosy.runtime import kernel as k
from argosy.runtime.channel import send_fd
from argosy.runtime.errors import Failure
from argosy.runtime.inroot import O_PATH
from argosy.runtime.mounts import attach, clone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.runtime.steps import Context

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCGPTN = 0x80045430
_TIOCSWINSZ = 0x5414
_TIOCSCTTY = 0x540E
_PTMX_INODE = 2
_PTMX = posix.makedev(5, 2)
_FLAGS = posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC


def set_up_console(context: Context, height: int, width: int, bind: bool) -> None:
    """Make a pseudo-terminal in the container, send its master to the console socket, and make it the process's own.

    Args:
        height: rows, 0 leaves the kernel's default; so does 0 for ``width`` (columns).
        bind: also bind it onto /dev/console (a new container; not in exec).

    Raises:
        Failure: /dev/pts is not the container's own devpts.
    """
    if context.console_socket is None:
        raise Failure("cannot allocate tty if runc will detach without setting console socket")
    master, slave, name = _open_pair(context)
    try:
        if height and width:
            ioctl(master, _TIOCSWINSZ, pack("4H", height, width, 0, 0))
        if context.attended:
            _leave_line_ends(slave)
        if bind:
            _bind_console(context, slave)
        send_fd(context.console_socket, name, master)
        context.console_socket.close()
        context.console_socket = None
    finally:
        posix.close(master)
    for stream in range(3):
        posix.dup2(slave, stream, inheritable=True)
    posix.close(slave)
    ioctl(0, _TIOCSCTTY, 0)


def _open_pair(context: Context) -> tuple[int, int, bytes]:
    path = context.root.open("/dev/pts/ptmx", O_PATH | posix.O_NOFOLLOW)
    try:
        found = posix.fstat(path)
        devpts = context.kernel.filesystem(path) == k.DEVPTS_SUPER_MAGIC
        if not devpts or found.st_ino != _PTMX_INODE or found.st_rdev != _PTMX:
            raise Failure("container's /dev/pts/ptmx is invalid: not the multiplexer of a devpts")
        master = context.proc.reopen(path, _FLAGS)
    finally:
        posix.close(path)
    ioctl(master, _TIOCSPTLCK, pack("i", 0))
    number = int.from_bytes(ioctl(master, _TIOCGPTN, b"\0" * 4), "little")
    slave = ioctl(master, _TIOCGPTPEER, _FLAGS)
    return master, slave, b"/dev/pts/%d" % number


def _leave_line_ends(slave: int) -> None:
    """Turn the translation of newlines off: the caller's terminal does that, or a pipe that wants none of it."""
    from termios import ONLCR, TCSANOW, tcgetattr, tcsetattr

    mode = tcgetattr(slave)
    mode[1] &= ~ONLCR
    tcsetattr(slave, TCSANOW, mode)


def _bind_console(context: Context, slave: int) -> None:
    directory, name = context.root.parent("/dev/console")
    try:
        flags = (
            posix.O_CREAT
            | posix.O_NOFOLLOW
            | posix.O_CLOEXEC
            | posix.O_RDONLY
            | posix.O_NONBLOCK
            | posix.O_NOCTTY
        )
        posix.close(posix.open(name, flags, 0o666, dir_fd=directory))
        target = posix.open(name, O_PATH | posix.O_NOFOLLOW, dir_fd=directory)
        tree = clone(context.kernel, slave, b"", recursive=False)
        attach(context.kernel, tree, target)
        posix.close(tree)
        posix.close(target)
    except OSError as error:
        error.add_note("/dev/console")
        raise
    finally:
        posix.close(directory)


def send_pidfd(context: Context, kind: str) -> None:
    """``--pidfd-socket``: a pidfd of this very process."""
    if context.pidfd_socket is None:
        return
    fd = context.kernel.pidfd_open(posix.getpid())
    try:
        send_fd(context.pidfd_socket, kind.encode(), fd)
    finally:
        posix.close(fd)
        context.pidfd_socket.close()
        context.pidfd_socket = None
