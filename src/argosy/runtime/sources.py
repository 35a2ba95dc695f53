"""Mount sources that only the host's side can open: id-mapped ones, and those a user namespace cannot reach.

Init asks for them when their turn has come, because an earlier mount may be part of a later one's source. A helper
process of the runtime enters init's mount namespace, with the host's identity, and sends the detached tree back.
"""

from __future__ import annotations

import posix

from argosy.runtime import kernel as k
from argosy.runtime.channel import ERROR, SOURCE, Channel
from argosy.runtime.errors import ConfigError, Failure, describe
from argosy.runtime.identity import holder
from argosy.runtime.mounts import clone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from argosy.runtime.kernel import LinuxKernel
    from argosy.runtime.plan import Step


class Sources:
    """What the host's side knows of the mounts.

    Attributes:
        entries: arguments of the steps ``mount``, by the mount's index.
        userns: open user namespaces of the id-mapped ones, by the mount's index.
    """

    def __init__(self, kernel: LinuxKernel, steps: tuple[Step, ...]) -> None:
        self.kernel = kernel
        self.entries: dict[int, dict[str, Any]] = {
            step[1]: step[2] for step in steps if step[0] == "mount"
        }
        self.userns: dict[int, int] = {}

    def prepare(self, linux: dict[str, Any], spaces: dict[str, str], *, rootless: bool) -> None:
        """Open a user namespace for every id-mapped mount.

        Raises:
            ConfigError: there are no mappings for one, or the container is rootless.
            Failure: the kernel refused.
        """
        held: dict[str, int] = {}
        for index, entry in self.entries.items():
            if not entry["idmap"]:
                continue
            if rootless:
                raise ConfigError(
                    f"mounts[{index}]", "id-mapped mounts are not supported for rootless containers"
                )
            self.userns[index] = _userns(self.kernel, index, entry, linux, spaces, held)

    def send(self, channel: Channel, pidfd: int, index: int) -> None:
        """Answer init's question for one source.

        Args:
            channel: the runtime's end.
            pidfd: of init.
            index: the mount's.
        """
        helper = posix.fork()
        if helper == 0:
            try:
                self._help(channel, pidfd, index)
            except (OSError, Failure) as error:
                channel.send(ERROR, describe(error).encode())
            finally:
                posix._exit(0)
        posix.waitpid(helper, 0)

    def _help(self, channel: Channel, pidfd: int, index: int) -> None:
        entry = self.entries[index]
        self.kernel.prctl(k.PR_SET_DUMPABLE, 0)
        self.kernel.setns(pidfd, k.CLONE_NEWNS)
        tree = clone(
            self.kernel, k.AT_FDCWD, entry["source"].encode(), recursive=entry["bind"] == "rbind"
        )
        if index in self.userns:
            recursive = entry["idmap"] == "ridmap"
            self.kernel.mount_setattr(
                tree, k.MOUNT_ATTR_IDMAP, 0, recursive=recursive, userns_fd=self.userns[index]
            )
        channel.send(SOURCE, b"", (tree,))

    def close(self) -> None:
        """Close the user namespaces."""
        for fd in set(self.userns.values()):
            posix.close(fd)
        self.userns.clear()


def _userns(
    kernel: LinuxKernel,
    index: int,
    entry: dict[str, Any],
    linux: dict[str, Any],
    spaces: dict[str, str],
    held: dict[str, int],
) -> int:
    uids, gids = entry["uids"], entry["gids"]
    path = spaces.get("user")
    if not uids and path:
        return _once(held, path, lambda: posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC))
    if not uids:
        uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    if not uids or not gids:
        raise ConfigError(
            f"mounts[{index}]", "id-mapped mounts must have both uid and gid mappings specified"
        )
    return _once(held, repr((uids, gids)), lambda: holder(kernel, uids, gids))


def _once(held: dict[str, int], key: str, make: Callable[[], int]) -> int:
    if key not in held:
        held[key] = make()
    return held[key]
