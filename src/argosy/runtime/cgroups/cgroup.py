"""What every driver shares: the directories of one container and the processes in them."""

from __future__ import annotations

import errno
import posix

from argosy.runtime.cgroups import files
from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGKILL = 9

NOT_ALLOWED = (errno.EPERM, errno.EACCES, errno.EROFS)
"""What a caller without rights gets; tolerated where nobody asked for a cgroup."""


class Cgroup:
    """The cgroup of one container, which may be one directory or one a hierarchy.

    A container made without cgroups has this very class with no directories: every method then does nothing.

    Args:
        dirs: Directory by controller; the cgroup2 directory under `""`.
        rootless: Whether the caller is not root of the machine; device rules it may not set are then no error.
        asked: Whether the configuration names this cgroup. Where it does not, a rootless caller may go without.
        made: Directories this runtime made, parents first.
    """

    driver = "disabled"

    def __init__(
        self,
        dirs: dict[str, str],
        *,
        rootless: bool = False,
        asked: bool = True,
        made: list[str] | None = None,
    ) -> None:
        self.dirs = dirs
        self.rootless = rootless
        self.asked = asked
        self.made = made or []
        self.fresh = False

    @property
    def tolerant(self) -> bool:
        """Whether missing rights are no error: nobody asked for this cgroup."""
        return self.rootless and not self.asked

    def create(self) -> None:
        """Make the directories, after `check`.

        Raises:
            Failure: One cannot be made. Nothing is left then.
        """
        try:
            for controller, path in list(self.dirs.items()):
                self._make(controller, path)
        except Failure:
            try:
                self.undo()
            except Failure:
                pass  # the first one says why: a read-only file system refuses to remove what was never made
            raise
        self.fresh = True

    def check(self) -> None:
        """Check that a cgroup which is there already is empty and not frozen.

        Raises:
            Failure: It is not.
        """
        if not self.exists():
            return
        pids = self.pids()
        if pids:
            raise Failure(f"container's cgroup is not empty: {len(pids)} process(es) found")
        if self.frozen():
            raise Failure("container's cgroup unexpectedly frozen")

    def _make(self, controller: str, path: str) -> None:
        try:
            self.made.extend(files.make(path))
            self.prepare(controller, path)
        except files.ControlError as failure:
            if not (self.tolerant and failure.errno in NOT_ALLOWED):
                raise
            del self.dirs[controller]

    def prepare(self, controller: str, path: str) -> None:
        """Make a new directory ready for processes; drivers know what a controller needs."""

    def undo(self) -> None:
        """Remove what `create` made, as far as it is empty, parents too: for a container that never was."""
        for path in self.places():
            files.remove(path)
        files.unmake(self.made)
        self.made = []

    def dirfd(self) -> int | None:
        """Return a new descriptor of the cgroup2 directory for `CLONE_INTO_CGROUP`, or None where that has no use."""
        return None

    def doors(self) -> list[int]:
        """Return new descriptors through which a process with one thread enters by itself.

        It writes `0` to each, in any namespaces, having been born in `dirfd` where there is one. That spares the lock
        over all processes of the machine which moving another process takes, and with it some 10 ms.

        Raises:
            ControlError: A hierarchy cannot be entered.
        """
        return []

    def enter(self, pid: int, below: str = "") -> None:
        """Move a process into the cgroup, or into the one named `below` under it.

        Raises:
            Failure: The kernel refused, or `below` leads out of the cgroup.
        """
        for path in self.places():
            try:
                files.write(inside(path, below) + "/cgroup.procs", str(pid))
            except files.ControlError as failure:
                if not (self.tolerant and failure.errno in NOT_ALLOWED):
                    raise
                if not below:
                    self.dirs = {key: each for key, each in self.dirs.items() if each != path}

    def adopt(self, pid: int) -> None:
        """See that a process is in that goes through all `doors` itself and may have been born in `dirfd`.

        Raises:
            Failure: The kernel refused.
        """
        self.enter(pid)

    def enter_one(self, pid: int, controller: str, below: str) -> None:
        """Move a process within one hierarchy only, as `exec --cgroup CONTROLLER:PATH` asks.

        Raises:
            Failure: There is no such hierarchy, or the kernel refused.
        """
        if controller not in self.dirs:
            raise Failure(f"unknown controller {controller} in --cgroup option")
        files.write(inside(self.dirs[controller], below) + "/cgroup.procs", str(pid))

    def apply(self, resources: dict[str, Any]) -> None:
        """Set the limits of `linux.resources`; what is absent stays as it is.

        A new cgroup gets its device rules even when there are none in `resources`: nothing but the defaults.

        Raises:
            Failure: A value is invalid or the kernel refused it; the message names the property or the file.
        """
        if self.fresh and resources.get("devices") is None:
            resources = {**resources, "devices": []}
        self.limit(resources)
        self.fresh = False

    def expect_limits(self) -> None:
        """Load the code of `apply` ahead: for a caller that waits for something else before it."""

    def limit(self, resources: dict[str, Any]) -> None:
        """Set the limits; drivers know how."""

    def own(self, uid: int) -> None:
        """Give the cgroup to the host's user `uid`, where delegation is safe (version 2 only)."""

    def freeze(self) -> None:
        """Stop every process of the cgroup; returns when all have stopped.

        Raises:
            Failure: They did not stop in time, or there is no freezer.
        """
        raise Failure("cannot toggle freezer: cgroups not configured for container")

    def try_to_freeze(self) -> None:
        """Stop every process where that is possible, so that none can fork while all are counted."""
        try:
            self.freeze()
        except Failure:
            return

    def thaw(self) -> None:
        """Let the processes run again.

        Raises:
            Failure: The kernel refused, or there is no freezer.
        """
        raise Failure("cannot toggle freezer: cgroups not configured for container")

    def frozen(self) -> bool:
        """Tell whether the cgroup itself is frozen, not merely one above it."""
        return False

    def kill(self, signum: int = SIGKILL) -> None:
        """Send a signal to every process of the cgroup and below it; a process that is gone is no error."""
        for pid in self.pids():
            try:
                posix.kill(pid, signum)
            except ProcessLookupError:
                continue

    def pids(self) -> list[int]:
        """Return the processes of the cgroup and of all below it, sorted."""
        found: set[int] = set()
        for path in self.places()[:1]:
            for each in files.below(path):
                found.update(files.pids_in(each))
        return sorted(found)

    def places(self) -> list[str]:
        """Return the distinct directories, the one that is asked for processes first."""
        return list(dict.fromkeys(self.dirs.values()))

    def stats(self) -> dict[str, Any]:
        """Return the numbers of `events --stats`: the `data` object in runc's shape."""
        return {}

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed here for want of memory."""
        return 0

    def oom_events(self) -> str | None:
        """Return the file that `poll` watches for `oom_kills` to change, or None."""
        return None

    def destroy(self) -> None:
        """Remove the cgroup and all below it; waits a bounded time for dying processes.

        Raises:
            Failure: It is still busy.
        """
        for path in self.places():
            try:
                files.remove(path)
            except files.ControlError as failure:
                if not (self.tolerant and failure.errno in NOT_ALLOWED):
                    raise

    def paths(self) -> dict[str, str]:
        """Return the directory of each controller; the cgroup2 one under `""`."""
        return dict(self.dirs)

    def exists(self) -> bool:
        """Tell whether any directory of the cgroup is there."""
        return any(files.exists(path) for path in self.places())

    def state(self) -> dict[str, Any]:
        """Return what `cgroups.load` needs to find this cgroup again, ready for JSON."""
        return {
            "driver": self.driver,
            "paths": self.dirs,
            "rootless": self.rootless,
            "asked": self.asked,
        }


def inside(path: str, below: str) -> str:
    """Return the directory of `below` under `path`.

    Raises:
        Failure: `below` leads elsewhere.
    """
    if not below or below == "/":
        return path
    parts = below.strip("/").split("/")
    if ".." in parts or "." in parts or "" in parts:
        raise Failure(f"bad sub cgroup path: {below}")
    return path + "/" + "/".join(parts)
