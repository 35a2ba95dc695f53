"""Overlay mounts by the kernel's mount API: made detached, so that a process that dies leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from argosy.errors import KernelError, UnsupportedError
from argosy.runtime import kernel as kernels

_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 0x4


@contextlib.contextmanager
def detached(
    lower: Sequence[str],
    upper: str | None = None,
    work: str | None = None,
    *,
    rootless: bool = False,
    volatile: bool = False,
) -> Iterator[int]:
    """An overlay mount that stands nowhere; it goes away with its descriptor unless it was attached.

    Args:
        lower: The lower directories, the topmost first.
        upper: Where changes go; None makes it read-only.
        work: overlayfs's own directory, beside `upper`.
        rootless: Keep overlayfs's marks in attributes any user may set.
        volatile: Never sync changes: they are thrown away at the end.

    Yields:
        The mount's descriptor. `/proc/self/fd/<it>` is its root.

    Raises:
        UnsupportedError: the kernel has no overlayfs, or refuses it to this user.
        KernelError: it refuses these directories.
    """
    kernel = kernels.LinuxKernel()
    fds: list[int] = []
    try:
        context = kernel.fsopen(b"overlay")
        fds.append(context)
        kernel.fsconfig(context, _SET_STRING, b"source", b"overlay")
        _lower(kernel, context, lower)
        if upper is not None and work is not None:
            kernel.fsconfig(context, _SET_STRING, b"upperdir", os.fsencode(upper))
            kernel.fsconfig(context, _SET_STRING, b"workdir", os.fsencode(work))
        if rootless:
            kernel.fsconfig(context, _SET_FLAG, b"userxattr", None)
        if volatile:
            with contextlib.suppress(kernels.KernelError):  # older than 5.10
                kernel.fsconfig(context, _SET_FLAG, b"volatile", None)
        kernel.fsconfig(context, _CREATE, None, None)
        fds.append(kernel.fsmount(context))
        yield fds[-1]
    except kernels.KernelError as exc:
        raise _translated(exc, upper or lower[0]) from exc
    finally:
        for fd in fds:
            os.close(fd)


def _lower(kernel: kernels.LinuxKernel, context: int, lower: Sequence[str]) -> None:
    """One option a directory where the kernel has it (6.5), so that neither length nor colons matter."""
    try:
        for path in lower:
            kernel.fsconfig(context, _SET_STRING, b"lowerdir+", os.fsencode(path))
    except kernels.KernelError as exc:
        if exc.errno != errno.EINVAL:
            raise
        joined = ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in lower)
        kernel.fsconfig(context, _SET_STRING, b"lowerdir", os.fsencode(joined))


def attach(mount: int, path: str) -> None:
    """Put a detached mount at a path.

    Raises:
        KernelError: the kernel refuses.
    """
    kernel = kernels.LinuxKernel()
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kernel.move_mount(mount, b"", target, b"", _MOVE_MOUNT_F_EMPTY_PATH | 0x40)
    except kernels.KernelError as exc:
        raise _translated(exc, path) from exc
    finally:
        os.close(target)


def like(upper: str, lower: str) -> None:
    """Give an upper directory the mode and owner of the one below: as a root, overlayfs shows the upper one's own."""
    status = os.stat(lower)
    os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, stat.S_IMODE(status.st_mode))


def detach(path: str) -> None:
    """Take away what is mounted at a path, as soon as nobody uses it; nothing is there is fine."""
    with contextlib.suppress(OSError):
        kernels.LinuxKernel().umount(os.fsencode(path), kernels.MNT_DETACH)


def _translated(exc: OSError, path: str) -> Exception:
    if exc.errno in (errno.ENODEV, errno.EPERM, errno.ENOSYS):
        return UnsupportedError(
            f"overlay mounts are not to be had here: {os.strerror(exc.errno).lower()}",
            hint="run as root, or with a kernel of 5.11 or newer",
        )
    return KernelError(
        f"{path}: overlay: {os.strerror(exc.errno or 0).lower()}",
        step="overlay",
        syscall=getattr(exc, "syscall", "") or "mount",
        errno=exc.errno,
    )
