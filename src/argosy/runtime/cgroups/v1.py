"""cgroup version 1, and hybrid: one directory a hierarchy."""

from __future__ import annotations

import posix
from time import sleep

from argosy.runtime.cgroups import files
from argosy.runtime.cgroups.cgroup import NOT_ALLOWED, SIGKILL, Cgroup
from argosy.runtime.cgroups.layout import UNIFIED, Layout
from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ASKED_FIRST = ("devices", "freezer", "pids", "memory")
"""Which hierarchy is asked for the container's processes: those that nothing else moves processes in."""

ATTEMPTS = 1000
"""How often a cgroup that stays FREEZING is told to freeze, as new processes may keep appearing."""


class LegacyCgroup(Cgroup):
    """One container's directories in the version 1 hierarchies, and in cgroup2 where that is mounted as well."""

    driver = "v1"

    @classmethod
    def at(cls, layout: Layout, path: str, *, rootless: bool, asked: bool) -> LegacyCgroup:
        """Name the directories of `path` in every hierarchy; nothing is made yet."""
        dirs = {key: layout.directory(key, path) for key in layout.mounts}
        return cls(dirs, rootless=rootless, asked=asked)

    def prepare(self, controller: str, path: str) -> None:
        """Fill in what a new directory must inherit, or no process can enter it."""
        if controller == "cpuset":
            inherit_cpuset(path)

    def dirfd(self) -> int | None:
        """Return a new descriptor of the cgroup2 directory in hybrid mode; the other hierarchies have `doors`."""
        if UNIFIED not in self.dirs:
            return None
        return posix.open(self.dirs[UNIFIED], posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)

    def doors(self) -> list[int]:
        """Return new descriptors of the `tasks` files, but for cgroup2, into which a process is born."""
        found: list[int] = []
        unified = self.dirs.get(UNIFIED)
        for path in self.places():
            if path == unified:
                continue
            try:
                found.append(posix.open(path + "/tasks", posix.O_WRONLY | posix.O_CLOEXEC))
            except OSError as error:
                if self.tolerant and error.errno in NOT_ALLOWED:
                    continue
                for fd in found:
                    posix.close(fd)
                raise files.ControlError("open", path + "/tasks", error) from None
        return found

    def adopt(self, pid: int) -> None:
        """Move a process into the cgroup2 directory, unless it was born there."""
        unified = self.dirs.get(UNIFIED)
        if unified and pid not in files.pids_in(unified):
            files.write(unified + "/cgroup.procs", str(pid))

    def places(self) -> list[str]:
        """Return the distinct directories, the one that is asked for processes first."""
        first = [self.dirs[key] for key in ASKED_FIRST if key in self.dirs]
        return list(dict.fromkeys([*first, *self.dirs.values()]))

    def expect_limits(self) -> None:
        """Load the code of `apply` ahead."""
        from argosy.runtime.cgroups import limits1  # noqa: F401

    def limit(self, resources: dict[str, Any]) -> None:
        """Set the limits of `linux.resources` in the hierarchies that hold the controllers."""
        from argosy.runtime.cgroups import limits1

        limits1.apply(self.dirs, resources, rootless=self.rootless)

    def freeze(self) -> None:
        """Stop every process; a cgroup that does not settle is thawed again."""
        path = self._freezer()
        try:
            _freeze(path)
        except Failure:
            files.write(path, "THAWED")
            raise

    def thaw(self) -> None:
        """Let the processes run again."""
        files.write(self._freezer(), "THAWED")

    def _freezer(self) -> str:
        if "freezer" not in self.dirs:
            raise Failure("cannot toggle freezer: cgroups not configured for container")
        return self.dirs["freezer"] + "/freezer.state"

    def frozen(self) -> bool:
        """Tell whether the cgroup itself is frozen; one that is freezing counts as frozen."""
        path = self.dirs.get("freezer")
        if path is None or files.read_or(path + "/freezer.state", "").strip() in ("", "THAWED"):
            return False
        return files.read_or(path + "/freezer.self_freezing", "1").strip() == "1"

    def kill(self, signum: int = SIGKILL) -> None:
        """Send a signal to every process, frozen meanwhile so that no new one is missed."""
        was_frozen = self.frozen()
        if not was_frozen and "freezer" in self.dirs and len(self.pids()) > 1:
            self.try_to_freeze()
        super().kill(signum)
        if self.frozen() and (signum == SIGKILL or not was_frozen):
            self.thaw()  # a frozen process of version 1 dies only when it runs

    def stats(self) -> dict[str, Any]:
        """Return the numbers of `events --stats`."""
        from argosy.runtime.cgroups import stats1

        return stats1.collect(self.dirs)

    def oom_kills(self) -> int:
        """Return how often the kernel killed for want of memory."""
        if "memory" not in self.dirs:
            return 0
        text = files.read_or(self.dirs["memory"] + "/memory.oom_control", "")
        return files.pairs(text).get("oom_kill", 0)

    def oom_events(self) -> str | None:
        """Return `memory.oom_control`, to be registered with `cgroup.event_control`."""
        return self.dirs["memory"] + "/memory.oom_control" if "memory" in self.dirs else None


def _freeze(path: str) -> None:
    for attempt in range(ATTEMPTS):
        if attempt % 50 == 49:  # a pause lets the processes that keep forking come to rest
            files.write(path, "THAWED")
            sleep(0.01)
        files.write(path, "FROZEN")
        if attempt % 25 == 24:
            sleep(0.00001)
        if files.read(path).strip() == "FROZEN":
            return
    raise Failure("unable to freeze")


def inherit_cpuset(path: str) -> None:
    """Fill empty `cpus` and `mems` of a cpuset, and of those above it, from their parents.

    A new cpuset has neither, and no process may enter it before it has both.
    """
    chain = files.parents(path)
    prefix = (
        "cpuset." if files.exists(path + "/cpuset.cpus") else ""
    )  # mounted with `noprefix`: no prefix
    for name in (prefix + "cpus", prefix + "mems"):
        empty = []
        value = ""
        for place in reversed(chain):
            value = files.read(f"{place}/{name}").strip()
            if value:
                break
            empty.append(place)
        for place in reversed(empty):
            files.write(f"{place}/{name}", value)
