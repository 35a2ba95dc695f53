"""Namespaces that are made, joined or left alone: on the real kernel."""

from __future__ import annotations

import os

import pytest

from tests.runtime.bundlekit import Bundle, Runtime, has_namespace


class TestNamespaces:
    @pytest.mark.parametrize(
        "kind", ["pid", "network", "ipc", "uts", "mount", "cgroup", "time", "user"]
    )
    def test_a_new_one(self, runtime: Runtime, bundle: Bundle, kind: str) -> None:
        file = {"network": "net", "mount": "mnt"}.get(kind, kind)
        if not has_namespace(file):
            pytest.skip(f"needs a kernel with {kind} namespaces")
        if kind == "user":
            bundle.userns()
        bundle.namespace(kind)
        inside = runtime.output(bundle.sh(f"readlink /proc/self/ns/{file}")).strip()
        assert inside.startswith(f"{file}:[")
        assert inside != os.readlink(f"/proc/self/ns/{file}")

    @pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup", "time"])
    def test_without_one_it_is_the_callers(
        self, runtime: Runtime, bundle: Bundle, kind: str
    ) -> None:
        file = {"network": "net"}.get(kind, kind)
        bundle.namespace(kind, None)
        if kind == "uts":
            del bundle.config["hostname"]
        inside = runtime.output(bundle.sh(f"readlink /proc/self/ns/{file}")).strip()
        assert inside == os.readlink(f"/proc/self/ns/{file}")

    def test_a_fifo_is_none_and_nobody_waits_for_its_writer(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        path = bundle.path / "fifo"
        os.mkfifo(path)
        bundle.namespace("ipc", str(path))
        assert f"namespace path {path} is not a ipc namespace" in runtime.run(bundle).stderr

    @pytest.mark.parametrize(
        "kinds",
        [("network",), ("pid", "ipc"), ("uts", "network", "ipc", "pid"), ("time",), ("cgroup",)],
    )
    def test_joining_those_of_another_container(
        self, runtime: Runtime, bundle: Bundle, kinds: tuple[str, ...]
    ) -> None:
        for kind in kinds:
            bundle.namespace(kind)
        first = runtime.start(bundle.sh("exec sleep 100"))
        pid = runtime.state(first)["pid"]
        second = runtime.bundle()
        for kind in kinds:
            file = {"network": "net"}.get(kind, kind)
            second.namespace(kind, f"/proc/{pid}/ns/{file}")
            inside = runtime.output(second.sh(f"readlink /proc/self/ns/{file}")).strip()
            assert inside == os.readlink(f"/proc/{pid}/ns/{file}")

    def test_joining_a_user_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.userns()
        first = runtime.start(bundle.sh("exec sleep 100"))
        pid = runtime.state(first)["pid"]
        second = runtime.bundle()
        second.userns()
        second.namespace("user", f"/proc/{pid}/ns/user")
        second.linux.pop("uidMappings")
        second.linux.pop("gidMappings")
        inside = runtime.output(second.sh("readlink /proc/self/ns/user; id -u")).split()
        assert inside == [os.readlink(f"/proc/{pid}/ns/user"), "0"]

    def test_identities_of_a_user_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.userns(300000, 1000)
        output = runtime.output(
            bundle.sh("cat /proc/self/uid_map /proc/self/gid_map; stat -c %u /bin; id -u")
        )
        assert output.split() == ["0", "300000", "1000", "0", "300000", "1000", "0", "0"]

    def test_clocks_of_a_time_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.namespace("time")
        bundle.linux["timeOffsets"] = {
            "boottime": {"secs": 10_000_000},
            "monotonic": {"secs": 5, "nanosecs": 7},
        }
        uptime = float(runtime.output(bundle.sh("cat /proc/uptime")).split()[0])
        assert uptime > 10_000_000

    def test_host_and_domain_name(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.config.update(hostname="there", domainname="example.org")
        script = "hostname; cat /proc/sys/kernel/domainname"
        assert runtime.output(bundle.sh(script)) == "there\nexample.org\n"

    def test_the_loopback_interface_is_up(self, runtime: Runtime, bundle: Bundle) -> None:
        assert ",UP" in runtime.output(bundle.sh("ip link show lo"))

    def test_no_namespaces_at_all(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.config["linux"] = {}
        del bundle.config["hostname"]
        bundle.config["mounts"] = []
        assert runtime.output(bundle.sh("echo plain")) == "plain\n"
