"""cgroup version 2: one directory for everything."""

from __future__ import annotations

import errno
import posix
import select
from time import monotonic

from argosy.runtime.cgroups import files
from argosy.runtime.cgroups.cgroup import SIGKILL, Cgroup
from argosy.runtime.cgroups.layout import UNIFIED, Layout
from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
"""What an owner may write where the kernel does not say so itself (config-linux, "Cgroup ownership")."""

PATIENCE = 10.0
"""How long processes may take to freeze, in seconds."""


class UnifiedCgroup(Cgroup):
    """One container's directory in the cgroup2 hierarchy."""

    driver = "v2"

    @classmethod
    def at(cls, layout: Layout, path: str, *, rootless: bool, asked: bool) -> UnifiedCgroup:
        """Name the directory of `path`; nothing is made yet."""
        return cls({UNIFIED: layout.directory(UNIFIED, path)}, rootless=rootless, asked=asked)

    @property
    def path(self) -> str:
        """The directory.

        Raises:
            Failure: The container has none, because the caller had no right to make one.
        """
        if UNIFIED not in self.dirs:
            raise Failure("container could not join or create cgroup")
        return self.dirs[UNIFIED]

    def prepare(self, controller: str, path: str) -> None:  # noqa: ARG002 - there is but one directory
        """Enable every controller on the way to the new directory."""
        enable(path)

    def dirfd(self) -> int | None:
        """Return a new descriptor of the directory; the caller closes it."""
        if UNIFIED not in self.dirs:
            return None
        return posix.open(self.path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)

    def adopt(self, pid: int) -> None:
        """Move a process in, unless it was born here."""
        if UNIFIED in self.dirs and pid not in files.pids_in(self.path):
            self.enter(pid)

    def expect_limits(self) -> None:
        """Load the code of `apply` ahead."""
        from argosy.runtime.cgroups import limits2  # noqa: F401

    def limit(self, resources: dict[str, Any]) -> None:
        """Set the limits of `linux.resources`, those of version 1 converted, `unified` verbatim."""
        from argosy.runtime.cgroups import limits2

        limits2.apply(self.dirs.get(UNIFIED), resources, rootless=self.rootless)

    def own(self, uid: int) -> None:
        """Give the directory and the files the kernel lists as delegable to the host's user `uid`."""
        posix.chown(self.path, uid, -1)
        listed = files.read_or("/sys/kernel/cgroup/delegate", "").split()
        for name in listed or DELEGATED:
            try:
                posix.chown(f"{self.path}/{name}", uid, -1)
            except FileNotFoundError:
                continue

    def freeze(self) -> None:
        """Stop every process; a cgroup that does not settle is thawed again."""
        try:
            self._toggle("1")
        except Failure:
            files.write(self.path + "/cgroup.freeze", "0")
            raise

    def thaw(self) -> None:
        """Let the processes run again."""
        self._toggle("0")

    def _toggle(self, wanted: str) -> None:
        if not files.exists(self.path + "/cgroup.freeze"):
            raise Failure("freezer not supported: the kernel has no cgroup.freeze")
        files.write(self.path + "/cgroup.freeze", wanted)
        wait_for(self.path + "/cgroup.events", f"frozen {wanted}", PATIENCE)

    def frozen(self) -> bool:
        """Tell whether the cgroup itself was told to freeze."""
        place = self.dirs.get(UNIFIED)
        return place is not None and files.read_or(place + "/cgroup.freeze", "0").strip() == "1"

    def kill(self, signum: int = SIGKILL) -> None:
        """Send a signal to every process; SIGKILL in one order to the kernel (`cgroup.kill`, Linux 5.14)."""
        if signum == SIGKILL and UNIFIED in self.dirs:
            try:
                files.write(self.path + "/cgroup.kill", "1")
                return
            except files.ControlError as failure:
                if failure.errno not in (errno.ENOENT, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM):
                    raise
        was_frozen = self.frozen()
        if signum == SIGKILL and not was_frozen:
            self.try_to_freeze()  # an old kernel: nobody may fork meanwhile
        super().kill(signum)
        if self.frozen() and not was_frozen:
            self.thaw()

    def stats(self) -> dict[str, Any]:
        """Return the numbers of `events --stats`."""
        from argosy.runtime.cgroups import stats2

        return stats2.collect(self.path)

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory."""
        if UNIFIED not in self.dirs:
            return 0
        return files.pairs(files.read_or(self.path + "/memory.events", "")).get("oom_kill", 0)

    def oom_events(self) -> str | None:
        """Return `memory.events`, on which `poll` reports POLLPRI when it changes."""
        return self.path + "/memory.events" if UNIFIED in self.dirs else None


def wait_for(path: str, line: str, patience: float) -> None:
    """Wait until a file of events has `line`.

    Raises:
        Failure: It has not within `patience` seconds.
    """
    end = monotonic() + patience
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while line not in posix.pread(fd, 4096, 0).decode().splitlines():
            left = end - monotonic()
            if left <= 0:
                raise Failure(f'timeout of {patience:g} s waiting for "{line}" in {path}')
            poll.poll(min(left, 0.1) * 1000)
    finally:
        posix.close(fd)


def mount_of(path: str) -> str:
    """Return the topmost cgroup2 directory above `path`: the one without `cgroup.procs` above it."""
    top = path
    for place in reversed(files.parents(path)):
        if not files.exists(place + "/cgroup.subtree_control"):
            break
        top = place
    return top


def enable(path: str) -> None:
    """Enable all controllers there are, from the mount point down to the parent of `path`.

    What a level refuses is not an error here: a limit that needs it will say so.

    Raises:
        Failure: The kernel made `path` or one above it invalid, so that no process can enter.
    """
    top = mount_of(path)
    above = [place for place in files.parents(path) if len(place) >= len(top)]
    for place in above[:-1]:
        _enable_at(place)
    kind = files.read_or(path + "/cgroup.type", "domain").strip()
    if kind == "domain invalid":
        # A parent has processes of its own; threaded is the only way in, and has only thread-aware controllers.
        files.write(path + "/cgroup.type", "threaded")


def _enable_at(place: str) -> None:
    wanted = set(files.read(place + "/cgroup.controllers").split())
    wanted -= set(files.read(place + "/cgroup.subtree_control").split())
    if not wanted:
        return
    try:
        files.write(
            place + "/cgroup.subtree_control", " ".join("+" + name for name in sorted(wanted))
        )
    except files.ControlError:
        for name in sorted(wanted):  # one refused controller must not cost the others
            try:
                files.write(place + "/cgroup.subtree_control", "+" + name)
            except files.ControlError:
                continue
