"""The first thing that runs: protect the interpreter's own file, then hand over to the command line.

This file is run in two ways: as the code that the installed launcher loads first, and as a script by itself (then the
rest comes from the source tree). Only `kernel` is imported before the interpreter is protected.

A container that executes ``/proc/self/exe`` gets the host's interpreter, and with it a way to overwrite it
(CVE-2019-5736). So for the verbs that enter a container the interpreter runs from where it cannot be written. Where it
already lies on a read-only mount nothing is done; the launcher's own interpreter gets such a mount at its first start
as root. Else it is executed again: from a detached read-only clone of its mount or from a sealed copy in memory.
"""

from __future__ import annotations

import _warnings
import gc
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ENTERING = ("create", "run", "exec", "restore")
_MARK = b"_ARGOSY_RUNTIME_SEALED"
_READ_ONLY = 1
_SEALS = 0xF  # seal, shrink, grow, write
_ADD_SEALS, _GET_SEALS = 1033, 1034
_EXE = "/proc/self/exe"
SMALL = 1 << 18  # bytes; smaller is an interpreter whose code is in a shared library
_OVERFLOW = 65534  # whom a user namespace shows files of unmapped owners to belong to


def enters(words: list[str]) -> bool:
    """Whether a command line may enter a container: one of these verbs anywhere is enough."""
    return any(word in _ENTERING for word in words)


def protect(*files: str) -> None:
    """Go on only from an interpreter that cannot be written; re-execute it from such a place where it is not there.

    Args:
        files: what the runtime's own code is loaded from.

    Raises:
        SystemExit: there is no such place, or others may change the interpreter or the code.
    """
    _refuse_writable(sys.executable, *files)
    marked = posix.environ.pop(_MARK, None)
    if _protected():
        return
    if marked:
        _stop("cannot protect the interpreter: it is writable even after it was re-executed")
    environment = {**posix.environ, _MARK: b"1"}
    arguments = [sys.executable, *sys.orig_argv[1:]]
    why = ""
    for copy in _ways(files):
        try:
            posix.execve(copy(), arguments, environment)
        except OSError as error:
            why = str(error)
    _stop(f"cannot protect the interpreter: {why}")


def _dedicated(files: tuple[str, ...]) -> bool:
    """Whether the interpreter is the launcher's own copy (``--protect``), and nobody else's."""
    return bool(files) and sys.executable == f"{files[-1]}.python/bin/python3"


def _attached() -> str:
    """The dedicated interpreter below a read-only mount of itself: from here to the next boot it needs no clone.

    Of many first starts at once two may mount, one over the other; nothing waits for a lock that anybody could hold.
    """
    from argosy.runtime.kernel import AT_FDCWD, MOVE_MOUNT_F_EMPTY_PATH, LinuxKernel

    if not posix.statvfs(sys.executable).f_flag & _READ_ONLY:
        kernel = LinuxKernel()
        path = sys.executable.encode("utf-8", "surrogateescape")
        kernel.move_mount(_clone(), b"", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH)
    return sys.executable


def _ways(files: tuple[str, ...]) -> tuple[Callable[[], int | str], ...]:
    """The cheaper way first: to copy a small file (an interpreter that is a shared library) needs no `kernel`."""
    if _dedicated(files):
        return _attached, _clone, _sealed_copy
    if posix.stat(_EXE).st_size <= SMALL:
        return _sealed_copy, _clone
    return _clone, _sealed_copy


def _refuse_writable(*files: str) -> None:
    if posix.geteuid():
        return
    for path in files:
        found = posix.stat(path)
        if found.st_mode & 0o022 or found.st_uid not in (0, _OVERFLOW):
            _stop(
                f"{path} can be changed by others than root: chown it to root and remove their write permission"
            )


def _protected() -> bool:
    fd = posix.open(_EXE, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return bool(posix.fstatvfs(fd).f_flag & _READ_ONLY) or _foreign(fd) or _sealed(fd)
    finally:
        posix.close(fd)


def _foreign(fd: int) -> bool:
    """Without privileges, somebody else's file that is not ours to write needs no copy."""
    user = posix.geteuid()
    return bool(user) and posix.fstat(fd).st_uid != user and not posix.access(_EXE, posix.W_OK)


def _sealed(fd: int) -> bool:
    if not posix.readlink(_EXE).startswith("/memfd:"):
        return False
    from fcntl import fcntl

    try:
        return bool(fcntl(fd, _GET_SEALS) & _SEALS == _SEALS)
    except OSError:
        return False


def _clone() -> int:
    """A detached clone of the interpreter's mount, read-only. It is nowhere attached: no other mount sees it."""
    from argosy.runtime.kernel import (
        AT_FDCWD,
        MOUNT_ATTR_RDONLY,
        OPEN_TREE_CLOEXEC,
        OPEN_TREE_CLONE,
        LinuxKernel,
    )

    kernel = LinuxKernel()
    fd = kernel.open_tree(AT_FDCWD, _EXE.encode(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    kernel.mount_setattr(fd, MOUNT_ATTR_RDONLY, 0)
    return fd


def _sealed_copy() -> int:
    """A copy in memory that nobody can change any more."""
    from fcntl import fcntl

    try:
        fd = posix.memfd_create("argosy-runtime", 0x13)  # close-on-exec, sealable, executable (6.3)
    except OSError:
        fd = posix.memfd_create("argosy-runtime", 0x3)
    source = posix.open(_EXE, posix.O_RDONLY | posix.O_CLOEXEC)
    left = posix.fstat(source).st_size
    while left > 0:
        left -= posix.sendfile(fd, source, None, left)
    posix.close(source)
    fcntl(fd, _ADD_SEALS, _SEALS)
    return fd


def _fill_streams() -> None:
    """/dev/null for each standard stream that the caller closed: nothing else that is opened may become one."""
    for stream in range(3):
        try:
            posix.fstat(stream)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)  # the lowest number that is free
            posix.set_inheritable(stream, True)


def _stop(why: str) -> None:
    posix.write(2, f"argosy-runtime: {why}\n".encode())
    posix._exit(1)


def run(*files: str) -> None:
    """The whole command; does not return.

    Args:
        files: what the runtime's own code is loaded from.
    """
    words = sys.argv
    _fill_streams()
    gc.disable()  # a command is over before a collection would pay
    _warnings.filters.insert(
        0, ("ignore", None, Warning, None, 0)
    )  # clients parse the standard error too
    if enters(words):
        protect(*files)
    from argosy.runtime.cli import main

    status = 1
    try:
        status = main(words)
    finally:
        if status != 1 or sys.exc_info()[0] is None:
            posix._exit(status)


def _from_source() -> None:
    """Run from the source tree, without the front door's imports."""
    here = posix.getcwd() + "/" + __file__ if not __file__.startswith("/") else __file__
    room = here.rpartition("/")[0]
    package = room.rpartition("/")[0]
    argosy = type(sys)("argosy")
    argosy.__path__ = [package]
    sys.modules["argosy"] = argosy
    run(here, room)


if __name__ == "__main__":
    _from_source()
