"""Paths below a root that somebody hostile may be writing: only (directory descriptor, relative path) is ever used.

`openat2` with RESOLVE_IN_ROOT resolves what exists; a walk with O_PATH and O_NOFOLLOW, one component at a time, makes
what does not, and stands in where the kernel or a seccomp profile has no `openat2`. Symbolic links are followed inside
the root only, magic links never. Every function returns a close-on-exec descriptor that the caller closes.
"""

from __future__ import annotations

import posix
from errno import EAGAIN, EEXIST, EINVAL, ELOOP, ENOENT, ENOSYS, ENOTDIR, EPERM, EXDEV

from argosy.runtime.kernel import (
    FSCONFIG_CMD_CREATE,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    KernelError,
    LinuxKernel,
)

O_PATH = posix.O_PATH | posix.O_CLOEXEC
O_DIR = O_PATH | posix.O_DIRECTORY
_STEP = O_PATH | posix.O_NOFOLLOW
_MAX_LINKS = 40
_RETRIES = 128
S_IFMT, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFREG = (
    0o170000, 0o040000, 0o120000, 0o020000, 0o060000, 0o010000, 0o100000,
)  # fmt: skip


def split(path: str | bytes) -> list[bytes]:
    """The components of a path; empty ones and "." are nothing."""
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    return [part for part in raw.split(b"/") if part not in (b"", b".")]


def kind(fd: int) -> int:
    """File type bits of what ``fd`` stands on."""
    return posix.fstat(fd).st_mode & S_IFMT


class Root:
    """A directory that paths are resolved in.

    Attributes:
        fd: the directory, O_PATH; owned by the caller.
        proc: a procfs to reopen descriptors through.
    """

    def __init__(self, kernel: LinuxKernel, fd: int, proc: Proc, *, openat2: bool = True) -> None:
        self.kernel = kernel
        self.fd = fd
        self.proc = proc
        self._openat2 = openat2

    def open(self, path: str | bytes, flags: int = O_PATH, *, symlinks: bool = True) -> int:
        """Open what exists at ``path``.

        Args:
            path: taken as relative to the root, whether or not it begins with a slash.
            flags: of open(2); O_CLOEXEC is added.
            symlinks: False refuses a symbolic link anywhere on the way, the last component too.

        Raises:
            OSError: ENOENT, ELOOP, ENOTDIR …
        """
        relative = b"/".join(split(path)) or b"."
        if self._openat2:
            try:
                return self._open2(relative, flags | posix.O_CLOEXEC, symlinks)
            except KernelError as error:
                if error.errno not in (ENOSYS, EPERM, EAGAIN):
                    error.filename = path
                    raise
                self._openat2 = error.errno == EAGAIN
        fd = self._walk(split(path), symlinks=symlinks)
        if flags & posix.O_PATH and not flags & posix.O_DIRECTORY:
            return fd
        try:
            return self.proc.reopen(fd, flags)
        finally:
            posix.close(fd)

    def _open2(self, relative: bytes, flags: int, symlinks: bool) -> int:
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if symlinks else RESOLVE_NO_SYMLINKS)
        for left in range(_RETRIES, -1, -1):
            try:
                return self.kernel.openat2(self.fd, relative, flags, resolve)
            except KernelError as error:
                if error.errno != EAGAIN or not left:
                    raise
        raise AssertionError  # pragma: no cover

    def mkdir(self, path: str | bytes, mode: int = 0o755, *, symlinks: bool = True) -> int:
        """Open the directory at ``path``, making what is missing of it."""
        try:
            return self.open(path, O_DIR, symlinks=symlinks)
        except OSError as error:
            if error.errno != ENOENT:
                raise
        return self._walk(split(path), make=mode, symlinks=symlinks)

    def parent(self, path: str | bytes, mode: int = 0o755) -> tuple[int, bytes]:
        """The directory that holds ``path`` (made if missing) and the name in it.

        Raises:
            OSError: EINVAL for a path without a name.
        """
        parts = split(path)
        if not parts or parts[-1] == b"..":
            raise OSError(EINVAL, "no file name in the path", path)
        return self.mkdir(b"/".join(parts[:-1]), mode), parts[-1]

    def create_file(self, path: str | bytes, mode: int = 0o644) -> int:
        """An empty regular file that was not there before; O_PATH."""
        directory, name = self.parent(path)
        try:
            flags = (
                posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_RDONLY
            )
            posix.close(posix.open(name, flags, mode, dir_fd=directory))
            return posix.open(name, _STEP, dir_fd=directory)
        finally:
            posix.close(directory)

    def symlink(self, target: str, path: str, *, replace: bool = False) -> None:
        """A symbolic link; one that is there stays unless ``replace``."""
        directory, name = self.parent(path)
        try:
            if replace:
                _unlink(name, directory)
            posix.symlink(target, name, dir_fd=directory)
        except FileExistsError:
            pass
        finally:
            posix.close(directory)

    def _walk(self, parts: list[bytes], *, make: int | None = None, symlinks: bool = True) -> int:
        """Resolve component by component; the stack of open directories is the way back for ".."."""
        stack = [posix.open(".", O_DIR, dir_fd=self.fd)]
        queue = parts[::-1]
        links = 0
        try:
            while queue:
                part = queue.pop()
                if part == b"..":
                    if len(stack) > 1:
                        posix.close(stack.pop())
                    continue
                fd = _step(stack[-1], part, make)
                if kind(fd) != S_IFLNK:
                    stack.append(fd)
                    continue
                links += 1
                target = _link(fd)
                if links > _MAX_LINKS or not symlinks:
                    raise OSError(ELOOP, "too many levels of symbolic links", b"/".join(parts))
                if target.startswith(b"/"):
                    _close(stack[1:])
                    del stack[1:]
                queue.extend(reversed(split(target)))
            if make is not None and kind(stack[-1]) != S_IFDIR:
                raise OSError(ENOTDIR, "not a directory", b"/".join(parts))
            return stack.pop()
        finally:
            _close(stack)


def _close(fds: list[int]) -> None:
    for fd in fds:
        posix.close(fd)


def _link(fd: int) -> bytes:
    try:
        target: bytes = posix.readlink(b"", dir_fd=fd)
        return target
    finally:
        posix.close(fd)


def _step(directory: int, name: bytes, make: int | None) -> int:
    try:
        return posix.open(name, _STEP, dir_fd=directory)
    except FileNotFoundError:
        if make is None:
            raise
    try:
        posix.mkdir(name, make, dir_fd=directory)
    except OSError as error:
        if error.errno != EEXIST:
            raise
    return posix.open(name, _STEP, dir_fd=directory)


def _unlink(name: bytes, directory: int) -> None:
    try:
        posix.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


class Proc:
    """A procfs that nobody in a container can have put anything into.

    Descriptors are reopened through the host's /proc, held open since before any container was entered and checked to
    be the root of a procfs. Writes go through a detached mount of its own where the kernel allows one, else through the
    host's; always by `openat2` with no symbolic links, no magic links and no other mounts.

    Attributes:
        host: the host's /proc, O_PATH.
    """

    def __init__(self, kernel: LinuxKernel) -> None:
        self.kernel = kernel
        self.host = posix.open("/proc", O_DIR | posix.O_NOFOLLOW)
        if kernel.filesystem(self.host) != PROC_SUPER_MAGIC or posix.fstat(self.host).st_ino != 1:
            raise OSError(EXDEV, "is not the root of a procfs", "/proc")
        self._own = -1

    def reopen(self, fd: int, flags: int) -> int:
        """Open again what ``fd`` stands on, with other flags."""
        return posix.open(b"self/fd/%d" % fd, flags | posix.O_CLOEXEC, dir_fd=self.host)

    def path(self, fd: int) -> bytes:
        """The path of an open file, as this process sees it."""
        path: bytes = posix.readlink(b"self/fd/%d" % fd, dir_fd=self.host)
        return path

    def own(self) -> int:
        """The procfs to write to; of the process's own PID namespace where it could be made."""
        if self._own < 0:
            try:
                self._own = self._detached()
            except KernelError:
                self._own = self.host
        return self._own

    def _detached(self) -> int:
        context = self.kernel.fsopen(b"proc")
        try:
            self.kernel.fsconfig(context, FSCONFIG_CMD_CREATE, None, None)
            return self.kernel.fsmount(context)
        finally:
            posix.close(context)

    def open(self, path: bytes, flags: int) -> int:
        """Open a file of the procfs itself."""
        resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
        try:
            return self.kernel.openat2(self.own(), path, flags | posix.O_CLOEXEC, resolve)
        except KernelError as error:
            if error.errno not in (ENOSYS, EPERM):
                error.filename = b"/proc/" + path
                raise
        return self._open_stepwise(path, flags)

    def _open_stepwise(self, path: bytes, flags: int) -> int:
        fd = Root(self.kernel, self.own(), self, openat2=False)._walk(split(path), symlinks=False)
        try:
            if posix.fstat(fd).st_dev != posix.fstat(self.own()).st_dev:
                raise OSError(EXDEV, "something is mounted over it", path)
            return self.reopen(fd, flags)
        finally:
            posix.close(fd)

    def open_own(self, path: bytes, flags: int) -> int:
        """Open a file of this process's own directory."""
        me: bytes = posix.readlink(b"self", dir_fd=self.own())
        return self.open(me + b"/" + path, flags)

    def write(self, path: bytes, data: bytes) -> None:
        """Write a file of the procfs in one write(2)."""
        self._write(self.open(path, posix.O_WRONLY), path, data)

    def write_own(self, path: bytes, data: bytes) -> None:
        """Write a file of this process's own directory in one write(2)."""
        self._write(self.open_own(path, posix.O_WRONLY), b"self/" + path, data)

    def _write(self, fd: int, path: bytes, data: bytes) -> None:
        try:
            posix.write(fd, data)
        except OSError as error:
            error.filename = b"/proc/" + path
            raise
        finally:
            posix.close(fd)
