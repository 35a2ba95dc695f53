"""The systemd driver against a small systemd of its own on a real bus, which moves processes as the real one does."""

from __future__ import annotations

import errno
import os
import pathlib
import posix
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from argosy.runtime import cgroups
from argosy.runtime.cgroups import dbus, gvariant, systemd, unitname, unitprops
from argosy.runtime.cgroups.systemd import SystemdCgroup
from argosy.runtime.cgroups.v2 import UnifiedCgroup
from argosy.runtime.errors import ConfigError, Failure
from tests.runtime.cgroupkit import machine, sleeper
from tests.runtime.test_dbus import bus

__all__ = ["bus"]

ME = "org.freedesktop.systemd1"
# Of this process alone, since cgroups are the whole machine's.
SLICE = f"argosytest{os.getpid()}.slice"


class FakeSystemd(threading.Thread):
    """Answers the calls of the manager's interface that a runtime makes; units are directories of `roots`."""

    def __init__(self, address: str, roots: list[str], version: str = "252.30-1~deb12u2") -> None:
        super().__init__()
        self.roots = roots
        self.version = version
        self.calls: list[tuple[str, list[Any]]] = []
        self.units: dict[str, str] = {}
        self.failed: set[str] = set()
        self.result = "done"
        self.jobs = 0
        self.asking = ""
        self.subscribed: set[str] = set()
        self.bus = dbus.Bus(address)
        daemon = "org.freedesktop.DBus"
        self.bus.call(daemon, "/org/freedesktop/DBus", daemon, "RequestName", "su", ME, 0)

    def run(self) -> None:
        while True:
            try:
                came = self.bus._next(time.monotonic() + 60)
            except Failure:
                return
            if came.kind == 1 and came.fields[3] == "Stop":
                return
            if came.kind == 1:
                self.answer(came)

    def answer(self, came: dbus.Message) -> None:
        member = came.fields[3]
        self.calls.append((member, came.body))
        self.asking = came.fields[7]
        try:
            signature, values = getattr(self, f"on_{member}")(*came.body)
        except KeyError as error:
            name = str(error.args[0])
            self.send(3, came, {4: ("s", f"{ME}.{name}")}, "s", [f"{name}: no"])
            return
        job = self.jobs if member in ("StartTransientUnit", "StopUnit") else 0
        if job:  # before the answer, as may happen
            body = [job, f"{dbus_path(job)}", came.body[0], self.result]
            self.send(
                4,
                came,
                {
                    1: ("o", "/org/freedesktop/systemd1"),
                    2: ("s", ME + ".Manager"),
                    3: ("s", "JobRemoved"),
                },
                "uoss",
                body,
            )
        self.send(2, came, {}, signature, values)

    def send(
        self,
        kind: int,
        came: dbus.Message,
        extra: dict[int, Any],
        signature: str,
        values: list[Any],
    ) -> None:
        body = dbus.Writer()
        for each, value in zip(dbus.split(signature), values, strict=True):
            body.put(each, value)
        fields = dict(extra)
        if kind != 4:
            fields[5] = ("u", came.serial)
            fields[6] = ("s", came.fields[7])
        if signature:
            fields[8] = ("g", signature)
        head = dbus.Writer()
        self.bus.serial += 1
        head.data += bytes((ord("l"), kind, 0, 1))
        head.put("u", len(body.data))
        head.put("u", self.bus.serial)
        head.put("a(yv)", list(fields.items()))
        head.align(8)
        self.bus._send(bytes(head.data + body.data))

    def on_Subscribe(self) -> tuple[str, list[Any]]:
        if self.asking in self.subscribed:
            raise KeyError("AlreadySubscribed")
        self.subscribed.add(self.asking)
        return "", []

    def on_Get(self, _interface: str, name: str) -> tuple[str, list[Any]]:
        return "v", [("s", {"Version": self.version, "ControlGroup": "/user.slice/me"}[name])]

    def on_StartTransientUnit(
        self, unit: str, _mode: str, properties: list[Any], _aux: list[Any]
    ) -> tuple[str, list[Any]]:
        given = dict(properties)
        if unit in self.units or unit in self.failed:
            raise KeyError("UnitExists")
        self.units[unit] = unitname.expand_slice(given.get("Slice", "-.slice")) + "/" + unit
        for root in self.roots:
            os.makedirs(root + self.units[unit], exist_ok=True)
            for pid in given.get("PIDs", []):
                pathlib.Path(root + self.units[unit], "cgroup.procs").write_text(str(pid))
        self.jobs += 1
        return "o", [dbus_path(self.jobs)]

    def on_StopUnit(self, unit: str, _mode: str) -> tuple[str, list[Any]]:
        if unit not in self.units:
            raise KeyError("NoSuchUnit")
        del self.units[unit]
        self.jobs += 1
        return "o", [dbus_path(self.jobs)]

    def on_ResetFailedUnit(self, unit: str) -> tuple[str, list[Any]]:
        if unit not in self.failed:
            raise KeyError("NoSuchUnit")
        self.failed.discard(unit)
        return "", []

    def on_SetUnitProperties(
        self, unit: str, _runtime: bool, _properties: list[Any]
    ) -> tuple[str, list[Any]]:
        if unit not in self.units:
            raise KeyError("NoSuchUnit")
        return "", []

    def on_AttachProcessesToUnit(
        self, unit: str, below: str, pids: list[int]
    ) -> tuple[str, list[Any]]:
        for root in self.roots:
            for pid in pids:
                pathlib.Path(root + self.units[unit] + below, "cgroup.procs").write_text(str(pid))
        return "", []


def dbus_path(job: int) -> str:
    return f"/org/freedesktop/systemd1/job/{job}"


@pytest.fixture
def fake(bus: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSystemd]:
    found = machine()
    keys = ("name=systemd", "memory", "pids") if not found.unified else ("",)
    roots = [found.mounts[key][0] for key in keys if key in found.mounts]
    service = FakeSystemd(bus, roots)
    service.start()
    monkeypatch.setitem(posix.environ, b"DBUS_SYSTEM_BUS_ADDRESS", bus.encode())
    try:
        yield service
    finally:
        stopper = dbus.Bus(bus)
        stopper._send(dbus.message(99, {1: "/", 2: ME, 3: "Stop", 6: ME}, b""))
        service.join()
        stopper.close()
        service.bus.close()
        for root in {mount for mount, _ in found.mounts.values()}:
            for slices in pathlib.Path(root).glob(SLICE):
                for each in slices.glob("*.scope"):
                    _remove(each)
                _remove(slices)


def _remove(group: pathlib.Path) -> None:
    """A process that has just ended may still be on its way out: the kernel says so, and is asked again."""
    for attempt in range(10_000):
        try:
            group.rmdir()
            return
        except OSError as error:
            if error.errno != errno.EBUSY or attempt == 9_999:
                raise
            os.sched_yield()


def make(path: str = f"{SLICE}:libpod:1f", **more: Any) -> SystemdCgroup:
    annotations = more.pop("annotations", {})
    resources = more.pop("resources", {})
    group = cgroups.manager(
        path, "1f", systemd=True, rootless=False, resources=resources, annotations=annotations
    )
    assert isinstance(group, SystemdCgroup)
    return group


@pytest.mark.root
def test_a_container_lives_in_a_scope_of_its_slice(fake: FakeSystemd) -> None:
    group = make(annotations={"org.systemd.property.TimeoutStopSec": "uint16 90", "other": "x"})
    assert all(place.endswith(f"/{SLICE}/libpod-1f.scope") for place in group.paths().values())
    with sleeper() as one, sleeper() as two:
        group.create()
        assert group.dirfd() is None
        group.enter(one.pid)
        started = dict(dict(fake.calls)["StartTransientUnit"][2])
        assert started["PIDs"] == [one.pid]
        assert started["Slice"] == SLICE
        assert started["Delegate"] is True
        assert started["DefaultDependencies"] is False
        assert started["TimeoutStopUSec"] == 90_000_000
        loaded = cgroups.load(group.state())
        loaded.enter(two.pid)
        assert group.pids() == sorted((one.pid, two.pid))
        loaded.apply({"pids": {"limit": 7}, "memory": {"limit": 64 << 20}})
        unit, runtime, properties = dict(fake.calls)["SetUnitProperties"]
        assert (unit, runtime) == ("libpod-1f.scope", True)
        assert dict(properties)["TasksMax"] == 7
        assert (
            pathlib.Path(group.paths().get("pids", group.paths()[""])) / "pids.max"
        ).read_text() == "7\n"
        loaded.freeze()
        assert loaded.frozen()
        loaded.thaw()
        loaded.kill()
        assert (one.wait(10), two.wait(10)) == (-9, -9)
        loaded.destroy()
        assert not loaded.exists()
        assert fake.units == {}
        loaded.destroy()


@pytest.mark.root
def test_a_unit_left_over_by_a_failure_is_cleared_away_once(fake: FakeSystemd) -> None:
    fake.failed.add("libpod-1f.scope")
    group = make()
    with sleeper() as process:
        group.create()
        group.enter(process.pid)
        assert [name for name, _ in fake.calls].count("StartTransientUnit") == 2
        group.kill()
        process.wait(10)
        group.destroy()


@pytest.mark.root
def test_a_unit_that_is_there_is_an_error(fake: FakeSystemd) -> None:
    fake.units["libpod-1f.scope"] = "/x"
    group = make()
    group.create()
    with pytest.raises(Failure, match=r"unable to start unit|UnitExists"):
        group.enter(os.getpid())
    group.undo()
    assert "libpod-1f.scope" in fake.units


@pytest.mark.root
def test_a_job_that_fails_is_an_error_and_leaves_no_failed_unit(fake: FakeSystemd) -> None:
    fake.result = "failed"
    group = make()
    group.create()
    fake.roots = []
    with pytest.raises(
        Failure, match=r"error creating systemd unit `libpod-1f.scope`: got `failed`"
    ):
        group.enter(os.getpid())
    assert fake.calls[-1][0] == "ResetFailedUnit"


def test_without_systemd_the_error_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setitem(
        posix.environ, b"DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none".encode()
    )
    monkeypatch.setattr(systemd, "PRIVATE", f"unix:path={tmp_path}/private")
    with pytest.raises(Failure, match=r"bus: cannot connect"):
        systemd.Systemd(user=False)
    monkeypatch.delitem(posix.environ, b"DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delitem(posix.environ, b"XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(Failure, match=r"session bus"):
        systemd.Systemd(user=True)
    monkeypatch.setitem(posix.environ, b"XDG_RUNTIME_DIR", bytes(tmp_path))
    with pytest.raises(Failure, match=r"session bus"):
        systemd.Systemd(user=True)


def test_the_users_own_bus_is_found_by_the_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "bus").touch()
    monkeypatch.delitem(posix.environ, b"DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setitem(posix.environ, b"XDG_RUNTIME_DIR", bytes(tmp_path))
    assert systemd.user_addresses() == (f"unix:path={tmp_path}/bus", "")
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd" / "private").touch()
    private = f"unix:path={tmp_path}/systemd/private"
    assert systemd.user_addresses() == (f"unix:path={tmp_path}/bus", private)
    (tmp_path / "bus").unlink()
    assert systemd.user_addresses() == ("", private)


@pytest.mark.parametrize("path", ["/a/b", "a:b", "a:b:c:d", "a.slice:b:", "a.slice:b:c/d"])
def test_a_path_that_is_not_slice_prefix_name_is_refused(path: str) -> None:
    with pytest.raises(
        ConfigError, match='expected cgroupsPath to be of format "slice:prefix:name"'
    ):
        unitname.parse_path(path, "c")


@pytest.mark.parametrize("name", ["a", ".slice", "a--b.slice", "-a.slice", "a/b.slice", "a-.slice"])
def test_a_name_that_is_no_slices_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"invalid slice name"):
        unitname.expand_slice(name)


def test_resources_become_properties_of_version_2() -> None:
    resources: dict[str, Any] = {
        "memory": {"limit": 100, "swap": 150, "reservation": 50},
        "cpu": {"shares": 1024, "quota": 12345, "period": 50000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 0},
        "unified": {"memory.high": "max", "cpu.idle": "0", "unknown.thing": "1"},
    }
    assert unitprops.properties(resources, unified=True, version=252) == [
        ("MemoryMax", ("t", 100)),
        ("MemoryLow", ("t", 50)),
        ("MemorySwapMax", ("t", 50)),
        ("CPUWeight", ("t", 100)),
        ("CPUQuotaPeriodUSec", ("t", 50000)),
        ("CPUQuotaPerSecUSec", ("t", 250000)),
        ("TasksMax", ("t", 1)),
        ("AllowedCPUs", ("ay", b"\x03")),
        ("AllowedMemoryNodes", ("ay", b"\x01")),
        ("MemoryHigh", ("t", (1 << 64) - 1)),
    ]
    assert unitprops.rounded(resources["cpu"])["quota"] == 12500


def test_resources_become_properties_of_version_1_and_old_systemds_get_fewer() -> None:
    resources: dict[str, Any] = {
        "memory": {"limit": -1, "swap": 5},
        "cpu": {"shares": 512, "quota": -1, "period": 50000, "cpus": "0"},
        "blockIO": {"weight": 100},
        "pids": {"limit": -1},
    }
    everything = (1 << 64) - 1
    assert unitprops.properties(resources, unified=False, version=239) == [
        ("MemoryLimit", ("t", everything)),
        ("CPUShares", ("t", 512)),
        ("CPUQuotaPerSecUSec", ("t", everything)),
        ("BlockIOWeight", ("t", 100)),
        ("TasksMax", ("t", everything)),
    ]


def test_an_idle_group_has_the_weight_that_means_idle() -> None:
    assert unitprops.properties({"cpu": {"idle": 1, "shares": 5}}, unified=True, version=252) == [
        ("CPUWeight", ("t", 0))
    ]
    assert unitprops.properties(
        {"unified": {"cpu.idle": "1", "cpu.weight": "7"}}, unified=True, version=252
    ) == [("CPUWeight", ("t", 0))]
    assert unitprops.oom_policy({"unified": {"memory.oom.group": "1"}}, 253) == [
        ("OOMPolicy", ("s", "kill"))
    ]
    assert unitprops.oom_policy({"unified": {"memory.oom.group": "1"}}, 252) == []


@pytest.mark.parametrize(
    ("name", "value"), [("cpu.max", "x y"), ("memory.max", "lots"), ("cpuset.cpus", "9-1")]
)
def test_a_unified_value_that_is_none_names_its_key(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"linux.resources.unified.{name}"):
        unitprops.properties({"unified": {name: value}}, unified=True, version=252)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", ("b", True)),
        ("5", ("i", 5)),
        ("uint64 5", ("t", 5)),
        ("0x10", ("i", 16)),
        ("'a b'", ("s", "a b")),
        ('"a\\"b"', ("s", 'a"b')),
        ("@as []", ("as", [])),
        ("[1, 2]", ("ai", [1, 2])),
        ("@au [1, 2]", ("au", [1, 2])),
        ("[('a', true)]", ("a(sb)", [("a", True)])),
        ("1.5", ("d", 1.5)),
        ("byte 255", ("y", 255)),
    ],
)
def test_annotations_hold_gvariants(text: str, expected: tuple[str, Any]) -> None:
    assert gvariant.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "'a",
        "[1, 'a']",
        "[]",
        "byte 256",
        "5 5",
        "uint32 'a'",
        "nonsense",
        "[" * 40,
        "{}",
        "99999999999",
    ],
)
def test_a_text_that_is_no_gvariant_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        gvariant.parse(text)


@pytest.mark.parametrize("key", ["lower", "Has-Dash", "A", "Sp ace"])
def test_an_annotation_that_names_no_property_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=r"invalid property name"):
        unitname.annotation_properties({f"org.systemd.property.{key}": "1"})
    with pytest.raises(ConfigError, match=r"expected seconds"):
        unitname.annotation_properties({"org.systemd.property.TimeoutStopSec": "'x'"})
    with pytest.raises(ConfigError, match=r"invalid value"):
        unitname.annotation_properties({"org.systemd.property.CollectMode": "unquoted"})


def test_rootless_systemd_needs_version_2() -> None:
    if machine().unified:
        pytest.skip("cgroups: version 2 is in use")
    with pytest.raises(Failure, match=r"cannot use rootless systemd cgroups manager on cgroup v1"):
        cgroups.manager(
            "a.slice:b:c", "c", systemd=True, rootless=True, resources={}, annotations={}
        )


def test_a_rootless_unit_stays_tolerant_of_device_rules_when_it_is_found_again() -> None:
    inner = UnifiedCgroup({"": "/nowhere"}, rootless=True)
    found = cgroups.load(SystemdCgroup(inner, "a.scope", user=True).state())
    assert isinstance(found, SystemdCgroup)
    assert found.inner.rootless
    assert found.user
