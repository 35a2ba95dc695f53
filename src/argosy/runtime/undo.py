"""Mounts of a container that has no mount namespace of its own: they are the host's, and must be undone."""

from __future__ import annotations

import posix

from argosy.runtime.inroot import O_DIR, Proc, Root
from argosy.runtime.kernel import MNT_DETACH, KernelError, LinuxKernel


def unmount_all(rootfs: str, destinations: list[str]) -> None:
    """Unmount what was mounted below a root, the last first; what is gone already is no error.

    Args:
        rootfs: absolute path of the root file system.
        destinations: of the mounts, in the order in which they were made.
    """
    kernel = LinuxKernel()
    root = Root(kernel, posix.open(rootfs, O_DIR | posix.O_NOFOLLOW), Proc(kernel))
    for destination in reversed(destinations):
        try:
            fd = root.open(destination)
        except OSError:
            continue
        try:
            kernel.umount(b"/proc/self/fd/%d" % fd, MNT_DETACH)
        except KernelError:
            pass
        finally:
            posix.close(fd)
