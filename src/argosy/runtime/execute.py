"""``exec``: one more process in a container that runs."""

from __future__ import annotations

import posix
from _signal import SIGKILL

from argosy.runtime import channel as ch
from argosy.runtime import kernel as k
from argosy.runtime import log, parent, spawn
from argosy.runtime import state as states
from argosy.runtime.errors import Failure, StartError, StatusError
from argosy.runtime.inroot import Proc
from argosy.runtime.plan import Situation, exec_plan
from argosy.runtime.request import selinux_enabled
from argosy.runtime.steps import Context
from argosy.runtime.tables import NAMESPACE_FILES, NAMESPACES
from argosy.runtime.validate import affinity, namespaces, validate_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.container import Container
    from argosy.runtime.plan import Step


class Execution:
    """One process entering a container.

    Attributes:
        container: the container.
        process: its ``process``, as config.json has it.
        console: a connected socket for the console's master, or None.
        pidfd_socket: a connected socket for the pidfd, or None.
        keep_fds: descriptors from 3 on that it keeps.
        cgroups: sub-cgroups by controller ("" for version 2).
        pid: the process, once it is there.
    """

    def __init__(self, container: Container, process: dict[str, Any]) -> None:
        self.container = container
        self.process = process
        self.console: Any = None
        self.pidfd_socket: Any = None
        self.keep_fds = 0
        self.attended = False
        self.cgroups: dict[str, str] = {}
        self.environment: tuple[str, ...] = ()
        self.kernel = k.LinuxKernel()
        self.pid = -1
        self.pidfd = -1
        self.ready = False

    def check_status(self, *, paused: bool) -> None:
        """Refuse a container that nobody can enter.

        Raises:
            StatusError: it is stopped, or frozen and not ``paused``.
        """
        status = self.container.status()
        if status in ("stopped", "creating"):
            raise StatusError("cannot exec in a stopped container")
        if status == "paused" and not paused:
            raise StatusError("cannot exec in a paused container (use --ignore-paused to override)")

    def start(self) -> int:
        """Start it.

        Returns:
            Its process ID; it is a child of this process.

        Raises:
            Failure: it could not be set up, or its program not be executed.
        """
        validate_process(self.process, selinux=selinux_enabled())
        config = self.container.config()
        initial, final = affinity(self.process)
        situation = Situation(
            self.container.cid, "/", rootless=self.container.state["rootless"], keep_fds=self.keep_fds, waits=False,
            environment=self.environment,
        )  # fmt: skip
        self.config = config
        self.final = final
        steps = exec_plan(self.process, config, situation)
        if initial is not None:
            _bind(0, initial, "initial")
            log.debug(f"nsexec: affinity: {sum(1 << cpu for cpu in initial):#x}")
        try:
            self._spawn(steps, config)
            self._converse()
        except BaseException:
            self._kill()
            raise
        return self.pid

    def _spawn(self, steps: tuple[Step, ...], config: dict[str, Any]) -> None:
        linux = config.get("linux", {})
        self.channel, child = ch.pair()
        context = Context(self.kernel, child, Proc(self.kernel))
        context.other_end = self.channel
        context.console_socket, context.pidfd_socket = self.console, self.pidfd_socket
        context.chatty = log.wanted()
        context.attended = self.attended
        context.rootless = self.container.state["rootless"]
        context.user_namespace = "user" in namespaces(linux)
        if linux.get("seccomp"):
            from argosy.runtime import seccomp

            context.filter = self.filter = seccomp.prepare(
                linux["seccomp"], f"{self.container.directory}/../.cache"
            )
        parent.preload(steps, linux, {})
        spaces = self._spaces(namespaces(linux))
        born = self._open_doors(context)
        self.pid, self.pidfd = spawn.spawn(context, child, spaces, steps, born)
        for door in (*context.doors, *([born] if born is not None else [])):
            posix.close(door)
        if self.pid > 0:
            self._adopt()
        child.close()
        for fd, _ in spaces.join:
            posix.close(fd)

    def _open_doors(self, context: Context) -> int | None:
        """Let the process enter its cgroups by itself, unless it goes elsewhere or its affinity comes after."""
        self.enters = not self.cgroups and self.final is None
        if not self.enters:
            return None
        cgroup = self.container.cgroup()
        context.doors = cgroup.doors()
        return cgroup.dirfd()

    def _spaces(self, configured: dict[str, str]) -> spawn.Spaces:
        """Join every namespace of init's that the configuration names, at once where the kernel can (5.8)."""
        flags = 0
        for kind in configured:
            flags |= NAMESPACES[kind]
        pid = self.container.state["pid"]
        if not flags:
            return spawn.Spaces(0, [])
        pidfd = self.kernel.pidfd_open(pid)
        if not self.container.alive():
            raise StatusError("cannot exec in a stopped container")
        if self.container.state["rootless"] or "user" in configured:
            posix.close(pidfd)
            return spawn.Spaces(0, self._one_by_one(configured, pid))
        return spawn.Spaces(0, [(pidfd, flags)])

    @staticmethod
    def _one_by_one(configured: dict[str, str], pid: int) -> list[tuple[int, int]]:
        return [
            (
                posix.open(
                    f"/proc/{pid}/ns/{NAMESPACE_FILES[kind]}", posix.O_RDONLY | posix.O_CLOEXEC
                ),
                flag,
            )
            for kind, flag in NAMESPACES.items()
            if kind in configured
        ]

    def _converse(self) -> None:
        answers = {ch.PID: self._found, ch.READY: self._at_ready, ch.NOTIFY: self._at_notify}
        while True:
            kind, payload = parent.listen(self.channel)
            if kind == ch.ERROR:
                raise _unstarted(payload.decode("utf-8", "replace"))
            if kind in answers:
                answers[kind](payload)
            elif self.ready:
                return
            else:
                raise _unstarted("the process died before it was ready")

    def _found(self, payload: bytes) -> None:
        self.pid = int(payload)
        self.pidfd = self.kernel.pidfd_open(self.pid)
        self._adopt()

    def _adopt(self) -> None:
        """Into the container's cgroups, or the asked sub-cgroups; then its own affinity and score."""
        cgroup = self.container.cgroup()
        if self.cgroups:
            try:
                for controller, below in self.cgroups.items():
                    self._enter_below(cgroup, controller, below)
            except (OSError, Failure) as error:
                error.add_note(f"error adding pid {self.pid} to cgroups")
                raise
            if "" not in self.cgroups:
                self._enter_rest(cgroup)
        elif self.enters:
            cgroup.adopt(self.pid)
        else:
            cgroup.enter(self.pid)
        if self.final is not None:
            _bind(self.pid, self.final, "final")
        elif not self.process.get("execCPUAffinity"):
            parent.reset_affinity(self.pid)
        score = self.process.get("oomScoreAdj")
        if score is not None:
            parent.write_score(self.pid, score, rootless=self.container.state["rootless"])
        self.channel.send(ch.PID)

    def _enter_below(self, cgroup: Any, controller: str, below: str) -> None:
        if not controller:
            cgroup.enter(self.pid, below)
        elif controller not in cgroup.paths():
            raise Failure(f"unknown controller {controller} in SubCgroupPaths")
        else:
            cgroup.enter_one(self.pid, controller, below)

    def _enter_rest(self, cgroup: Any) -> None:
        for controller in cgroup.paths():
            if controller not in self.cgroups:
                cgroup.enter_one(self.pid, controller, "")

    def _at_ready(self, _: bytes) -> None:
        parent.set_limits(self.kernel, self.pid, self.process)
        self.ready = True
        self.channel.send(ch.READY)

    def _at_notify(self, payload: bytes) -> None:
        shown = states.hook_state(self.container.state, "running")
        parent.hand_listener(self.kernel, self.filter, (self.pid, self.pidfd), payload, shown)
        self.channel.send(ch.NOTIFY)

    def _kill(self) -> None:
        if self.pid > 0:
            try:
                posix.kill(self.pid, SIGKILL)
            except ProcessLookupError:
                pass
        self.channel.close()
        spawn.reap(self.pid)


def _bind(pid: int, cpus: list[int], which: str) -> None:
    try:
        posix.sched_setaffinity(pid, cpus)
    except OSError as error:
        error.add_note(f"error setting the {which} CPU affinity of process.execCPUAffinity")
        raise


def _unstarted(why: str) -> StartError:
    """In runc's words, as of a container's first process."""
    return StartError(f"unable to start container process: {why}")
