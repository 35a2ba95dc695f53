"""Making a container: everything of ``create``, and of ``run`` up to its program."""

from __future__ import annotations

import posix
from _signal import SIGKILL
from time import gmtime, strftime

from argosy.runtime import cgroups, identity, log, parent, spawn
from argosy.runtime import channel as ch
from argosy.runtime import kernel as k
from argosy.runtime import state as states
from argosy.runtime.container import Container
from argosy.runtime.errors import ConfigError, ExecError, Failure, StartError, describe
from argosy.runtime.inroot import Proc
from argosy.runtime.jsonio import encode, write_file
from argosy.runtime.plan import Situation, plan
from argosy.runtime.request import Request, find_rootfs, same_file, selinux_enabled
from argosy.runtime.sources import Sources
from argosy.runtime.steps import Context
from argosy.runtime.tables import NAMESPACE_FILES
from argosy.runtime.validate import namespaces, validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from argosy.runtime.cgroups import Cgroup
    from argosy.runtime.plan import Step


class Creation:
    """One container in the making. What is made is undone in reverse where anything fails."""

    def __init__(self, request: Request, config: dict[str, Any]) -> None:
        self.request = request
        self.config = config
        self.linux: dict[str, Any] = config.get("linux", {})
        self.kernel = k.LinuxKernel()
        self.undo: list[Callable[[], object]] = []
        self.pid, self.pidfd = -1, -1
        self.hooked = False

    def create(self) -> Container:
        """Make it.

        Raises:
            ConfigError: the configuration asks for what cannot be done.
            Failure: anything else; nothing is left then.
        """
        request, config = self.request, self.config
        self.spaces = namespaces(self.linux) if "linux" in config else {}
        self._check()
        rootfs = find_rootfs(request.bundle, config)
        self.situation = Situation(
            request.cid, rootfs, request.bundle, rootless=request.rootless, no_pivot=request.no_pivot,
            keyring=request.keyring, keep_fds=request.listen_fds + request.preserve_fds, waits=request.waits,
            environment=tuple(self._environment()),
        )  # fmt: skip
        if request.notify:
            self._add_notify()
        steps = plan(config, self.situation)
        try:
            return self._make(steps, rootfs)
        except BaseException:
            self._unwind()
            raise

    def prepare_only(self) -> Container:
        """State and cgroups alone: another program will make the processes (``restore``).

        Raises:
            Failure: as `create`; nothing is left then.
        """
        self.spaces = namespaces(self.linux)
        self._check()
        rootfs = find_rootfs(self.request.bundle, self.config)
        try:
            directory = states.make_directory(self.request.root, self.request.cid)
            self.undo.append(lambda: states.remove(directory))
            self.directory = directory
            self._make_cgroup(rootfs)
        except BaseException:
            self._unwind()
            raise
        return self.container

    def _check(self) -> None:
        ours = {kind for kind in ("network", "ipc", "uts") if self._is_ours(kind)}
        validate(self.config, ours=ours, selinux=selinux_enabled(), rootless=self.request.rootless)
        if "process" not in self.config:
            raise ConfigError("process", "property must not be empty")

    def _is_ours(self, kind: str) -> bool:
        """Whether the namespace to join is the runtime's own."""
        path, name = self.spaces.get(kind, ""), NAMESPACE_FILES[kind]
        try:
            return bool(path) and same_file(path, f"/proc/self/ns/{name}")
        except OSError as error:
            raise ConfigError(
                "linux.namespaces", f"invalid {name}ns path {path}: {error.strerror}"
            ) from error

    def _environment(self) -> list[str]:
        found = []
        if self.request.listen_fds:
            found += [f"LISTEN_FDS={self.request.listen_fds}", "LISTEN_PID=1"]
        if self.request.notify:
            found.append("NOTIFY_SOCKET=/run/notify/notify.sock")
        return found

    def _add_notify(self) -> None:
        source = f"{self.request.root}/{self.request.cid}/notify"
        options = ["bind", "nosuid", "noexec", "nodev", "ro"]
        mount = {"destination": "/run/notify", "type": "bind", "source": source, "options": options}
        self.config.setdefault("mounts", []).append(mount)

    # --- making ---

    def _make(self, steps: tuple[Step, ...], rootfs: str) -> Container:
        request = self.request
        directory = states.make_directory(request.root, request.cid)
        self.undo.append(lambda: states.remove(directory))
        self.directory = directory
        if request.notify:
            posix.mkdir(f"{directory}/notify", 0o755)
        self.filter = self._prepare_filter()
        self._make_cgroup(rootfs)
        context, child = self._context(steps)
        self.undo.append(self.channel.close)  # by which a child ends that is not known here yet
        spaces = spawn.open_spaces(self.spaces)
        parent.preload(steps, self.linux, self.config)
        context.doors = self.cgroup.doors()
        born = self.cgroup.dirfd()
        before = posix.getpid()
        self.pid, self.pidfd = spawn.spawn(context, child, spaces, steps, born)
        for door in (*context.doors, *([born] if born is not None else [])):
            posix.close(door)
        self.undo.append(lambda: self._kill(before))
        child.close()
        _close_all(context, spaces)
        self._converse()
        self.sources.close()
        return self.container

    def _prepare_filter(self) -> Any:
        if not self.linux.get("seccomp"):
            return None
        from argosy.runtime import seccomp

        cache = f"{self.request.root}/.cache"
        prepared = seccomp.prepare(self.linux["seccomp"], cache)
        log.debug(f"seccomp filter flags: {prepared.flags}")
        return prepared

    def _make_cgroup(self, rootfs: str) -> None:
        """Make the cgroup. The state is written first, once nobody is in it: whatever is made can be deleted."""
        self.cgroup = self._find_cgroup()
        self.cgroup.check()
        self.container = Container(self.request.cid, self.directory, self._first_state(rootfs))
        self.container.save()
        self.cgroup.create()
        self.undo.append(self.cgroup.undo)

    def _find_cgroup(self) -> Cgroup:
        request = self.request
        if request.no_cgroups:
            return cgroups.disabled()
        return cgroups.manager(
            self.linux.get("cgroupsPath"), request.cid, systemd=request.systemd, rootless=request.tolerant,
            resources=self.linux.get("resources", {}), annotations=self.config.get("annotations", {}),
        )  # fmt: skip

    def _first_state(self, rootfs: str) -> dict[str, Any]:
        """What `delete` needs should this very process be killed."""
        config = self.config
        write_file(f"{self.directory}/config.json", encode(config).encode())
        hooks = {
            name: entries
            for name, entries in config.get("hooks", {}).items()
            if name.startswith("post")
        }
        now = strftime("%Y-%m-%dT%H:%M:%S", gmtime())
        return {
            "id": self.request.cid, "pid": -1, "start_time": 0, "creator": posix.getpid(),
            "bundle": self.request.bundle, "rootfs": rootfs, "created": f"{now}.{_nanoseconds():09d}Z",
            "owner": states.owner_name(posix.geteuid()), "annotations": config.get("annotations", {}),
            "cgroup": self.cgroup.state(), "shared_pid": self.spaces.get("pid") != "", "hooks": hooks,
            "shared_mounts": [] if "mount" in self.spaces else [m["destination"] for m in config.get("mounts", ())],
            "rootless": self.request.rootless, "systemd": self.request.systemd,
        }  # fmt: skip

    def _context(self, steps: tuple[Step, ...]) -> tuple[Context, ch.Channel]:
        self.channel, child = ch.pair()
        context = Context(self.kernel, child, Proc(self.kernel))
        context.other_end = self.channel
        self.sources = Sources(self.kernel, steps)
        self.sources.prepare(self.linux, self.spaces, rootless=self.request.rootless)
        if self.request.waits:
            context.fifo = self._make_fifo()
        context.console_socket, context.pidfd_socket = self.request.console, self.request.pidfd
        context.filter = self.filter
        context.state = states.hook_state(self.container.state, "creating")
        context.chatty = log.wanted()
        context.attended = self.request.attended
        context.start_hooks = self.config.get("hooks", {}).get("startContainer", [])
        context.rootless = self.request.rootless
        context.user_namespace = "user" in self.spaces
        context.own_cgroup = "cgroup" in self.spaces
        context.cgroup_path = self.cgroup.paths().get("")
        context.cpuset = bool(self.linux.get("resources", {}).get("cpu", {}).get("cpus"))
        return context, child

    def _make_fifo(self) -> int:
        path = f"{self.directory}/exec.fifo"
        before = posix.umask(0)
        try:
            posix.mkfifo(path, 0o622)
        finally:
            posix.umask(before)
        ids = [
            identity.host_id(0, self.linux.get(name, [])) for name in ("uidMappings", "gidMappings")
        ]
        if "user" in self.spaces and None not in ids and not self.request.rootless:
            posix.chown(path, ids[0] or 0, ids[1] or 0)
        return posix.open(path, posix.O_PATH | posix.O_CLOEXEC)

    # --- the conversation ---

    def _converse(self) -> None:
        if self.pid > 0:
            self._adopt(self.pid)
        answers = {
            ch.MAP: self._map, ch.PID: self._found, ch.SOURCE: self._at_source, ch.HOOKS: self._at_hooks,
            ch.READY: self._at_ready, ch.NOTIFY: self._at_notify,
        }  # fmt: skip
        while True:
            kind, payload = parent.listen(self.channel)
            if kind == ch.ERROR:
                self._fail(payload.decode("utf-8", "replace"))
            elif kind == ch.DONE:
                return
            elif kind in answers:
                answers[kind](payload)
            elif self.request.waits or not self.container.state.get("ready"):
                raise StartError(self._why_gone())
            else:
                return  # `run`: the channel was closed by execve

    def _fail(self, text: str) -> None:
        if text.startswith("exec ") and self.container.state.get("ready"):
            raise ExecError(text)
        raise StartError(f"error during container init: {text}")

    def _map(self, _: bytes) -> None:
        """The middle process is in its new user or time namespace. Its pid is that of our only child."""
        pid = spawn.middle_pid()
        if self.spaces.get("user") == "":
            rootless = self.request.rootless
            identity.write_mappings(
                pid, self.linux["uidMappings"], self.linux["gidMappings"], rootless=rootless
            )
        if self.linux.get("timeOffsets"):
            identity.write_offsets(pid, self.linux["timeOffsets"])
        self.channel.send(ch.MAP)

    def _found(self, payload: bytes) -> None:
        self.pid = int(payload)
        self.pidfd = self.kernel.pidfd_open(self.pid)
        self._adopt(self.pid)

    def _adopt(self, pid: int) -> None:
        """Init is there and waits: out-of-memory score, cgroup, Intel RDT."""
        score = self.config["process"].get("oomScoreAdj")
        if score is not None:
            parent.write_score(pid, score, rootless=self.request.rootless)
        self.cgroup.adopt(pid)
        parent.reset_affinity(pid)
        if self.linux.get("intelRdt"):
            from argosy.runtime import intelrdt

            rdt = intelrdt.create(self.linux["intelRdt"], self.request.cid)
            self.undo.append(rdt.destroy)
            self.container.state["rdt"] = rdt.state()
            self.container.save()
            rdt.enter(pid)
        self.channel.send(ch.PID)
        self.cgroup.expect_limits()  # meanwhile init mounts

    def _at_source(self, payload: bytes) -> None:
        self.sources.send(self.channel, self.pidfd, int(payload))

    def _at_hooks(self, _: bytes) -> None:
        """Mounts are there: limits, network devices, prestart and createRuntime."""
        self.cgroup.apply(self.linux.get("resources", {}))
        self._own_cgroup()
        if self.linux.get("netDevices"):
            from argosy.runtime import netdevices

            fd = posix.open(f"/proc/{self.pid}/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
            netdevices.move(self.linux["netDevices"], fd)
            posix.close(fd)
        hooks = self.config.get("hooks", {})
        self.container.state["pid"] = self.pid
        self.hooked = True
        if hooks.get("prestart") or hooks.get("createRuntime"):
            from argosy.runtime.hooks import run_hooks

            shown = states.hook_state(self.container.state, "creating", self.pid)
            for name in ("prestart", "createRuntime"):
                run_hooks(hooks.get(name, []), name, shown)
        self.channel.send(ch.HOOKS)

    def _own_cgroup(self) -> None:
        """Version 2, a cgroup namespace and a writable mount: the directory is delegated to the process's user."""
        writable = any(
            mount["destination"].rstrip("/") == "/sys/fs/cgroup" and mount.get("type") in ("cgroup", "cgroup2")
            and "ro" not in mount.get("options", ())
            for mount in self.config.get("mounts", ())
        )  # fmt: skip
        if not writable or self.spaces.get("cgroup") != "":
            return
        uid = self.config["process"].get("user", {}).get("uid", 0)
        host = (
            identity.host_id(uid, self.linux.get("uidMappings", []))
            if "user" in self.spaces
            else uid
        )
        if host is not None and "uidMappings" in self.linux:
            self.cgroup.own(host)

    def _at_ready(self, _: bytes) -> None:
        parent.set_limits(self.kernel, self.pid, self.config["process"])
        state = self.container.state
        state.update(pid=self.pid, start_time=states.start_time(self.pid) or 0, ready=True)
        self.container.save()
        self.channel.send(ch.READY)

    def _at_notify(self, payload: bytes) -> None:
        shown = states.hook_state(self.container.state, "creating", self.pid)
        parent.hand_listener(self.kernel, self.filter, (self.pid, self.pidfd), payload, shown)
        self.channel.send(ch.NOTIFY)

    def _why_gone(self) -> str:
        try:
            killed = self.cgroup.oom_kills()
        except (OSError, Failure):
            killed = 0
        if killed:
            return "container init was OOM-killed (memory limit too low?)"
        return "container init died before it was ready"

    # --- undoing ---

    def _kill(self, creator: int) -> None:
        if posix.getpid() != creator:
            return
        if self.pid > 0:
            try:
                self.kernel.pidfd_send_signal(self.pidfd, SIGKILL)
            except OSError:
                pass
        self.channel.close()
        spawn.reap(self.pid)

    def _unwind(self) -> None:
        for step in reversed(self.undo):
            try:
                step()
            except (OSError, Failure) as error:
                log.warning(f"undoing a failed create: {describe(error)}")
        if self.hooked:
            self.container._run_poststop()


def _nanoseconds() -> int:
    from time import time_ns

    return time_ns() % 1_000_000_000


def _close_all(context: Context, spaces: spawn.Spaces) -> None:
    for fd in (
        *(fd for fd, _ in spaces.join),
        context.fifo,
        context.proc.host,
    ):
        if fd >= 0:
            posix.close(fd)
