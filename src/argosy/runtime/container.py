"""A container that exists: its status, and the short verbs. Making one is `create`, entering one `execute`."""

from __future__ import annotations

import posix
from _signal import SIGKILL

from argosy.runtime import state as states
from argosy.runtime.errors import Failure, StartError, StatusError, describe
from argosy.runtime.jsonio import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from argosy.runtime.cgroups import Cgroup

_LONG = 100.0


class Container:
    """One container below a state root.

    Attributes:
        cid: its ID.
        directory: its state directory.
        state: what state.json said when it was loaded.

    Example:
        >>> Container.load("/run/argosy", "nobody")
        Traceback (most recent call last):
        argosy.runtime.errors.UnknownError: container does not exist
    """

    def __init__(self, cid: str, directory: str, state: dict[str, Any]) -> None:
        self.cid = cid
        self.directory = directory
        self.state = state

    @classmethod
    def load(cls, root: str, cid: str) -> Self:
        """The container with this ID.

        Raises:
            UnknownError: there is none.
        """
        directory = states.find_directory(root, cid)
        return cls(cid, directory, states.read(directory))

    def config(self) -> dict[str, Any]:
        """The configuration it was created with."""
        config: dict[str, Any] = load(f"{self.directory}/config.json")
        return config

    def cgroup(self) -> Cgroup:
        """Its control groups."""
        from argosy.runtime import cgroups

        return cgroups.load(self.state["cgroup"])

    def alive(self) -> bool:
        """Whether its init is a process that has not ended."""
        pid = self.state["pid"]
        return bool(pid > 0 and states.start_time(pid) == self.state["start_time"])

    def status(self) -> str:
        """creating, created, running, paused or stopped."""
        if self.state["pid"] < 0:
            return (
                "creating"
                if states.start_time(self.state.get("creator", 0)) is not None
                else "stopped"
            )
        if not self.alive():
            return "stopped"
        if self.cgroup().frozen():
            return "paused"
        return "created" if _exists(f"{self.directory}/exec.fifo") else "running"

    def public_state(self) -> dict[str, Any]:
        """What ``state`` prints."""
        return states.public(self.state, self.status())

    # --- verbs ---

    def start(self) -> None:
        """Let the created process become its program.

        Raises:
            StatusError: it is not in the created state.
            StartError: a startContainer hook or the program failed.
            HookError: a poststart hook failed; the container is stopped.
        """
        status = self.status()
        if status == "stopped":
            raise StatusError("cannot start a container that has stopped")
        if status == "running":
            raise StatusError("cannot start an already running container")
        if status != "created":
            raise StatusError(f"cannot start a container in the {status} state")
        self._release()
        self.run_poststart()

    def _release(self) -> None:
        """Open the fifo's other end; it is closed again by execve, or after the reason for its failure."""
        from argosy.runtime.poll import wait_readable

        fifo = f"{self.directory}/exec.fifo"
        pidfd = posix.pidfd_open(self.state["pid"])
        fd = posix.open(fifo, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
        said = b""
        try:
            while True:
                ready = wait_readable([fd, pidfd], None)
                part = posix.read(fd, 65536) if fd in ready else b""
                said += part
                if not part and (said or pidfd in ready):
                    break
        finally:
            posix.close(fd)
            posix.close(pidfd)
        if not said:
            raise StartError("container process is already dead")
        posix.unlink(fifo)
        if len(said) > 1:
            raise StartError(said[1:].decode("utf-8", "replace"))

    def run_poststart(self) -> None:
        """The poststart hooks; one that fails stops the container (runtime-spec 1.3)."""
        hooks = self.state.get("hooks", {}).get("poststart")
        if not hooks:
            return
        from argosy.runtime.hooks import run_hooks

        try:
            run_hooks(hooks, "poststart", states.hook_state(self.state, "running"))
        except Failure:
            self._kill_all()
            raise

    def kill(self, signal: int, *, everything: bool = False) -> None:
        """Send a signal to init.

        A SIGKILL to a container without a PID namespace of its own kills every process of its cgroup.

        Raises:
            StatusError: it is not running.
        """
        if self.state.get("shared_pid") and signal == SIGKILL:
            pids = self.cgroup().pids()
            if pids:
                self.cgroup().kill(SIGKILL)
                return
        if not self.alive():
            if everything:
                return
            raise StatusError("container not running")
        try:
            posix.kill(self.state["pid"], signal)
        except ProcessLookupError:
            raise StatusError("container not running") from None
        if signal == SIGKILL and self.cgroup().frozen():
            self.cgroup().thaw()

    def delete(self, *, force: bool = False) -> None:
        """Remove everything `create` made.

        Raises:
            StatusError: it is running and not ``force``.
        """
        status = self.status()
        if not force and status not in ("stopped", "created"):
            raise StatusError(f"cannot delete container {self.cid} that is not stopped: {status}")
        if status != "stopped":
            self._kill_all()
        self.destroy()

    def _kill_all(self) -> None:
        """Kill every process and wait until init is gone."""
        if self.state["pid"] > 0 and self.alive():
            try:
                pidfd = posix.pidfd_open(self.state["pid"])
            except ProcessLookupError:
                return
            try:
                try:
                    self.kill(SIGKILL)
                except StatusError:
                    return
                _await_end(pidfd)
            finally:
                posix.close(pidfd)

    def destroy(self) -> None:
        """Cgroups, mounts and state of a container whose init is gone; then the poststop hooks, which only warn.

        Of several callers at once one alone removes the state and runs the hooks.
        """
        cgroup = self.cgroup()
        orphans = self.state.get("shared_pid") or self.state["pid"] < 0
        if orphans and cgroup.pids():
            cgroup.kill(SIGKILL)
        cgroup.destroy()
        if self.state.get("shared_mounts"):
            from argosy.runtime.undo import unmount_all

            unmount_all(self.state["rootfs"], self.state["shared_mounts"])
        if self.state.get("rdt"):
            from argosy.runtime import intelrdt

            intelrdt.load(self.state["rdt"]).destroy()
        if states.claim(self.directory):
            states.remove(self.directory)
            self._run_poststop()

    def _run_poststop(self) -> None:
        hooks = self.state.get("hooks", {}).get("poststop")
        if not hooks:
            return
        from argosy.runtime import log
        from argosy.runtime.hooks import run_hooks

        for hook in hooks:
            try:
                run_hooks([hook], "poststop", states.hook_state(self.state, "stopped", 0))
            except (OSError, Failure) as error:
                log.warning(describe(error))

    def pause(self) -> None:
        """Freeze every process.

        Raises:
            StatusError: it is neither running nor created.
        """
        status = self.status()
        if status not in ("running", "created"):
            raise StatusError(f"container not running or created: {status}")
        self.cgroup().freeze()

    def resume(self) -> None:
        """Thaw every process.

        Raises:
            StatusError: it is not paused.
        """
        if not self.alive() or not self.cgroup().frozen():
            raise StatusError("container not paused")
        self.cgroup().thaw()

    def save(self) -> None:
        """Write state.json anew."""
        states.write(self.directory, self.state)


def _await_end(pidfd: int) -> None:
    from argosy.runtime.poll import wait_readable

    if not wait_readable([pidfd], _LONG):
        raise Failure("container init still running")


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except FileNotFoundError:
        return False
    return True
