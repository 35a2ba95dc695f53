"""Cgroups that systemd makes: a transient scope holds the container, systemd keeps its limits.

systemd wants a process at once when a scope starts, so the unit is made when the first process enters. What systemd
has no word for is written to the control files by the driver of the cgroup version in use.
"""

from __future__ import annotations

import errno
import posix

from argosy.runtime.cgroups import files
from argosy.runtime.cgroups.cgroup import SIGKILL, Cgroup, inside
from argosy.runtime.cgroups.dbus import Bus, BusError
from argosy.runtime.cgroups.layout import UNIFIED, Layout, clean
from argosy.runtime.cgroups.unitname import (
    annotation_properties,
    expand_slice,
    parse_path,
    start_properties,
    unit_name,
)
from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from argosy.runtime.cgroups.unitprops import Property
    from argosy.runtime.cgroups.v1 import LegacyCgroup
    from argosy.runtime.cgroups.v2 import UnifiedCgroup

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket"
PRIVATE = "unix:path=/run/systemd/private"

_DESTINATION = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"


class Systemd:
    """systemd's manager on its bus.

    Args:
        user: Whether it is the caller's own instance instead of the system's.

    Raises:
        Failure: There is none to talk to.
    """

    def __init__(self, *, user: bool) -> None:
        self.bus = open_bus(user=user)
        self._version: int | None = None
        self._subscribed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.bus.close()

    def call(self, member: str, signature: str = "", *values: Any) -> list[Any]:
        """Call a method of the manager."""
        return self.bus.call(_DESTINATION, _PATH, _MANAGER, member, signature, *values)

    def get(self, name: str) -> Any:
        """Return a property of the manager."""
        interface = "org.freedesktop.DBus.Properties"
        return self.bus.call(_DESTINATION, _PATH, interface, "Get", "ss", _MANAGER, name)[0]

    @property
    def version(self) -> int:
        """The version, as a number: 252 for `252.30-1~deb12u2`."""
        if self._version is None:
            text = str(self.get("Version")).lstrip("v")
            digits = text[: len(text) - len(text.lstrip("0123456789"))]
            self._version = int(digits) if digits else 0
        return self._version

    def job(self, member: str, signature: str, *values: Any) -> str:
        """Start a job and return its result when it has ended.

        Raises:
            BusError: systemd refused.
            Failure: The job did not end in time.
        """
        self._subscribe()
        job = self.call(member, signature, *values)[0]
        while True:
            body = self.bus.wait("JobRemoved")
            if len(body) == 4 and body[1] == job:
                return str(body[3])

    def _subscribe(self) -> None:
        """Ask for the signals; systemd refuses to be asked twice on one connection."""
        if self._subscribed:
            return
        self.call("Subscribe")
        if not self.bus.peer:
            rule = f"type='signal',interface='{_MANAGER}',member='JobRemoved'"
            bus = "org.freedesktop.DBus"
            self.bus.call(bus, "/org/freedesktop/DBus", bus, "AddMatch", "s", rule)
        self._subscribed = True

    def reset_failed(self, unit: str) -> None:
        """Let systemd forget a failed unit; one it does not know is no error."""
        try:
            self.call("ResetFailedUnit", "s", unit)
        except BusError:
            return

    def start(self, unit: str, properties: list[Property]) -> None:
        """Start a transient unit; one left over by a failure is cleared away first.

        Raises:
            Failure: systemd refused, or the unit did not start.
        """
        try:
            try:
                result = self._start(unit, properties)
            except BusError as error:
                if not error.name.endswith(".UnitExists"):
                    raise
                self.reset_failed(unit)
                result = self._start(unit, properties)
        except BusError as error:
            raise Failure(f'unable to start unit "{unit}": {error}') from None
        if result != "done":
            self.reset_failed(unit)
            raise Failure(f"error creating systemd unit `{unit}`: got `{result}`")

    def _start(self, unit: str, properties: list[Property]) -> str:
        return self.job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", properties, [])

    def stop(self, unit: str) -> None:
        """Stop a unit and forget it; one that is gone is no error."""
        try:
            self.job("StopUnit", "ss", unit, "replace")
        except BusError as error:
            if not error.name.endswith(".NoSuchUnit"):
                raise Failure(f'unable to stop unit "{unit}": {error}') from None
        self.reset_failed(unit)


def open_bus(*, user: bool) -> Bus:
    """Connect to the system's bus, or to the caller's own; where there is none, to systemd itself.

    Raises:
        Failure: There is neither; for a user's the message says how to get one.
    """
    private = PRIVATE
    if user:
        address, private = user_addresses()
    else:
        address = posix.environ.get(b"DBUS_SYSTEM_BUS_ADDRESS", b"").decode() or SYSTEM_BUS
    if not user and posix.geteuid() != 0:
        private = ""  # the system's is for root
    try:
        if address:
            return Bus(address)
    except Failure:
        if not private:
            raise
    return Bus(private, peer=True)


def user_addresses() -> tuple[str, str]:
    """Return the addresses of the caller's session bus and of the caller's own systemd, empty where there is none.

    Raises:
        Failure: There is no session.
    """
    address = posix.environ.get(b"DBUS_SESSION_BUS_ADDRESS", b"").decode()
    place = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode()
    if not address and place and files.exists(place + "/bus"):
        address = f"unix:path={place}/bus"
    private = f"{place}/systemd/private" if place else ""
    if not (private and files.exists(private)):
        private = ""
    if address or private:
        return address, f"unix:path={private}" if private else ""
    raise Failure(
        "systemd cgroups need the user's session bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR/bus "
        "is there (log in with a session, `loginctl enable-linger`, or use cgroupfs)"
    )


def manager(
    layout: Layout,
    cgroups_path: str | None,
    cid: str,
    *,
    rootless: bool,
    annotations: dict[str, str],
    resources: dict[str, Any],
) -> SystemdCgroup:
    """Name the unit of a new container and find where its directories will be.

    Raises:
        ConfigError: `cgroups_path` is not `slice:prefix:name`, or an annotation is no property.
        Failure: systemd is not there, or not for this caller.
    """
    if rootless and not layout.unified:
        raise Failure("cannot use rootless systemd cgroups manager on cgroup v1")
    parent, prefix, name = parse_path(cgroups_path, cid)
    parent = parent or ("user.slice" if rootless else "system.slice")
    unit = unit_name(prefix, name)
    path = expand_slice(parent) + "/" + unit
    extra = annotation_properties(annotations)
    if rootless:
        with Systemd(user=True) as systemd:
            path = str(systemd.get("ControlGroup")) + path
    inner = _driver(layout, path, rootless=rootless)
    found = SystemdCgroup(inner, unit, user=rootless)
    found.properties = start_properties(unit, parent, cid, layout.unified) + extra
    found.resources = resources
    return found


def _driver(layout: Layout, path: str, *, rootless: bool) -> LegacyCgroup | UnifiedCgroup:
    dirs = {key: layout.mounts[key][0] + clean(path) for key in layout.mounts}
    if layout.unified:
        from argosy.runtime.cgroups.v2 import UnifiedCgroup

        return UnifiedCgroup({UNIFIED: dirs[UNIFIED]}, rootless=rootless)
    from argosy.runtime.cgroups.v1 import LegacyCgroup

    return LegacyCgroup(dirs)


def load(state: dict[str, Any]) -> SystemdCgroup:
    """Return the cgroup that `SystemdCgroup.state` described."""
    from argosy.runtime.cgroups import load as load_any

    inner: Any = load_any(state["inner"])
    found = SystemdCgroup(inner, state["unit"], user=bool(state.get("user")))
    found.started = True
    return found


class SystemdCgroup(Cgroup):
    """A cgroup that is a systemd unit.

    Args:
        inner: The driver of the cgroup version in use, with the directories systemd makes.
        unit: The unit's name.
        user: Whether it is the caller's own systemd.
    """

    driver = "systemd"

    def __init__(self, inner: LegacyCgroup | UnifiedCgroup, unit: str, *, user: bool) -> None:
        super().__init__(inner.dirs, rootless=user)
        self.inner = inner
        self.unit = unit
        self.user = user
        self.started = False
        self.properties: list[Property] = []
        self.resources: dict[str, Any] = {}

    def check(self) -> None:
        """Check that a cgroup which is there already is empty and not frozen."""
        self.inner.check()

    def create(self) -> None:
        """Make nothing yet: the unit starts with its first process."""
        self.fresh = True

    def enter(self, pid: int, below: str = "") -> None:
        """Move a process into the unit, which the first one starts."""
        if not self.started:
            self._start(pid)
        elif below or not self._written(pid):
            inside("", below)
            arguments = (self.unit, "/" + below.strip("/"), [pid])
            with Systemd(user=self.user) as systemd:
                systemd.call("AttachProcessesToUnit", "ssau", *arguments)
            self._others(pid, below)

    def _start(self, pid: int) -> None:
        from argosy.runtime.cgroups.unitprops import oom_policy

        first: list[Property] = [] if self.unit.endswith(".slice") else [("PIDs", ("au", [pid]))]
        with Systemd(user=self.user) as systemd:
            policy = oom_policy(self.resources, systemd.version)
            systemd.start(self.unit, self.properties + first + policy)
        self.started = True
        try:
            for controller, path in self.dirs.items():
                files.make(path)
                self.inner.prepare(controller, path)
            self._others(pid, "")
        except Failure:
            self.undo()
            raise

    def _written(self, pid: int) -> bool:
        """Try to move a process by the control files; tell whether the kernel let us."""
        try:
            self.inner.enter(pid)
        except files.ControlError as failure:
            if failure.errno in (errno.EPERM, errno.EACCES, errno.EBUSY, errno.ENOENT):
                return False
            raise
        return True

    def _others(self, pid: int, below: str) -> None:
        """Enter the hierarchies systemd does not know of; its own is its own business."""
        for key, path in self.dirs.items():
            if key not in ("name=systemd", UNIFIED):
                files.write(inside(path, below) + "/cgroup.procs", str(pid))

    def enter_one(self, pid: int, controller: str, below: str) -> None:
        """Move a process within one hierarchy only."""
        self.inner.enter_one(pid, controller, below)

    def dirfd(self) -> int | None:
        """Return the directory's descriptor, once systemd has made it."""
        return self.inner.dirfd() if self.started else None

    def doors(self) -> list[int]:
        """Return the descriptors of the hierarchies, once systemd has made the unit."""
        return self.inner.doors() if self.started else []

    def adopt(self, pid: int) -> None:
        """See that a process is in; the first one starts the unit."""
        if self.started:
            self.inner.adopt(pid)
        else:
            self.enter(pid)

    def own(self, uid: int) -> None:
        """Give the cgroup to a user, where delegation is safe."""
        self.inner.own(uid)

    def limit(self, resources: dict[str, Any]) -> None:
        """Tell systemd the limits, then write what it has no word for."""
        from argosy.runtime.cgroups import unitprops

        unified = UNIFIED in self.dirs and len(self.dirs) == 1
        with Systemd(user=self.user) as systemd:
            found = unitprops.properties(resources, unified=unified, version=systemd.version)
            if found:
                self._set(systemd, found, stop=not unified and "devices" in resources)
        if resources.get("cpu"):
            resources = {**resources, "cpu": unitprops.rounded(resources["cpu"])}
        self.inner.limit(resources)

    def _set(self, systemd: Systemd, found: list[Property], *, stop: bool) -> None:
        """Set properties; on version 1 systemd takes all devices away for a moment, so nobody may run then."""
        stop = stop and not self.fresh and not self.frozen()
        if stop:
            self.freeze()
        try:
            systemd.call("SetUnitProperties", "sba(sv)", self.unit, True, found)
        finally:
            if stop:
                self.thaw()

    def freeze(self) -> None:
        """Stop every process."""
        self.inner.freeze()

    def thaw(self) -> None:
        """Let the processes run again."""
        self.inner.thaw()

    def frozen(self) -> bool:
        """Tell whether the cgroup itself is frozen."""
        return self.inner.frozen()

    def kill(self, signum: int = SIGKILL) -> None:
        """Send a signal to every process."""
        self.inner.kill(signum)

    def pids(self) -> list[int]:
        """Return the processes of the cgroup and of all below it, sorted."""
        return self.inner.pids()

    def stats(self) -> dict[str, Any]:
        """Return the numbers of `events --stats`."""
        return self.inner.stats()

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory."""
        return self.inner.oom_kills()

    def oom_events(self) -> str | None:
        """Return the file that tells of `oom_kills`."""
        return self.inner.oom_events()

    def destroy(self) -> None:
        """Stop the unit, then remove what systemd left."""
        try:
            with Systemd(user=self.user) as systemd:
                systemd.stop(self.unit)
        finally:
            self.inner.destroy()

    def undo(self) -> None:
        """Stop the unit, if it ever started, and leave nothing."""
        if self.started:
            self.destroy()

    def state(self) -> dict[str, Any]:
        """Return what `load` needs, ready for JSON."""
        inner = self.inner.state()
        return {
            "driver": self.driver,
            "unit": self.unit,
            "user": self.user,
            "paths": self.dirs,
            "inner": inner,
        }
