"""Network devices: names, netlink's lengths, and real moves between fresh network namespaces."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.runtime import netdevices, netlink
from argosy.runtime.errors import ConfigError, Failure
from argosy.runtime.kernel import CLONE_NEWNET, KernelError, LinuxKernel


def test_an_attribute_longer_than_its_length_field_is_refused_not_wrapped() -> None:
    """CVE-2021-43784: a payload of 65532 bytes or more let the rest be read as attributes of the attacker's."""
    assert len(netlink.attribute(1, bytes(65531))) == 65536
    for size in (65532, 65536, 131072):
        with pytest.raises(Failure, match=r"longer than 65531"):
            netlink.attribute(1, bytes(size))


@given(st.dictionaries(st.integers(1, 60), st.binary(max_size=40), max_size=6))
def test_attributes_are_read_back_as_written(given_: dict[int, bytes]) -> None:
    data = b"".join(netlink.attribute(kind, payload) for kind, payload in given_.items())
    assert len(data) % 4 == 0
    assert netlink.attributes(data) == given_


@given(st.binary(max_size=100))
def test_hostile_attributes_are_an_error_and_never_read_past_the_end(data: bytes) -> None:
    try:
        found = netlink.attributes(data)
    except Failure:
        return
    assert sum(len(payload) for payload in found.values()) <= len(data)


def test_a_message_longer_than_its_datagram_is_refused() -> None:
    link = netlink.Netlink()
    try:
        for length in (0, 15, 17, 1 << 31):
            with pytest.raises(Failure, match=r"does not fit its datagram"):
                link._take(struct.pack("=IHHII", length, 16, 0, 0, 0), [])
    finally:
        link.close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "a\tb", "a:b", "x" * 16, "é" * 8, "a%db", "%s", "a\0"]
)
def test_a_name_no_device_can_have_is_refused_by_its_place(name: str) -> None:
    with pytest.raises(ConfigError, match=r"linux\.netDevices"):
        netdevices.check({name: {}})


@pytest.mark.parametrize("name", ["a%s", "%d%d", "%", "eth%i", "eth0/../x", "x" * 14 + "%d"])
def test_a_new_name_that_is_no_name_or_template_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"linux\.netDevices\.eth0\.name"):
        netdevices.check({"eth0": {"name": name}})


def test_two_devices_cannot_get_one_name_but_can_share_a_template() -> None:
    with pytest.raises(ConfigError, match=r"more than one device is to be named 'x'"):
        netdevices.check({"a": {"name": "x"}, "b": {"name": "x"}})
    with pytest.raises(ConfigError, match=r"more than one device"):
        netdevices.check({"a": {"name": "b"}, "b": {}})
    netdevices.check({"a": {"name": "eth%d"}, "b": {"name": "eth%d"}})


def in_namespaces(test: Callable[[int], None]) -> None:
    """Run a test in a fresh network namespace, with another one's descriptor, in a child of its own."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces: needs root")
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            kernel = LinuxKernel()
            kernel.unshare(CLONE_NEWNET)
            there = os.open("/proc/self/ns/net", os.O_RDONLY)
            kernel.unshare(CLONE_NEWNET)
            test(there)
        except KernelError as error:
            os.write(write, b"skip" + str(error).encode())
        except BaseException as error:
            import traceback

            os.write(
                write,
                b"".join(line.encode() for line in traceback.format_exception(error))[-60000:],
            )
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as report:
        complaint = report.read()
    os.waitpid(pid, 0)
    if complaint.startswith("skip"):
        pytest.skip(f"network namespaces: {complaint[4:]}")
    assert not complaint, complaint


def ip(*words: str, netns: int | None = None) -> list[dict[str, object]]:
    prefix = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{netns}"] if netns is not None else []
    done = subprocess.run(
        [*prefix, "ip", "-json", *words],
        capture_output=True,
        text=True,
        pass_fds=[netns] if netns else [],
    )
    if done.returncode and "Unknown device type" in done.stderr:
        raise KernelError(95, "no veth devices", "ip link add")
    assert not done.returncode, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout or "[]")
    return found


def add(name: str, *settings: str, netns: int | None = None) -> None:
    """Make a device; its other end, which `names` leaves out, stays where it is made."""
    ip("link", "add", name, *settings, "type", "veth", "peer", "name", f"end-{name}", netns=netns)


def names(netns: int | None = None) -> list[str]:
    return sorted(
        name
        for each in ip("link", netns=netns)
        if not (name := str(each["ifname"])).startswith("end-")
    )


def addresses(device: str, netns: int | None = None) -> set[tuple[object, object]]:
    (shown,) = ip("addr", "show", "dev", device, netns=netns)
    infos = shown["addr_info"]
    assert isinstance(infos, list)
    return {(each["local"], each["prefixlen"]) for each in infos if each["scope"] == "global"}


def is_up(device: str, netns: int | None = None) -> bool:
    (shown,) = ip("link", "show", "dev", device, netns=netns)
    flags = shown["flags"]
    assert isinstance(flags, list)
    return "UP" in flags


@pytest.mark.root
def test_the_loopback_device_comes_up_with_its_address() -> None:
    def act(_there: int) -> None:
        assert not is_up("lo")
        netdevices.loopback_up(LinuxKernel())
        assert is_up("lo")
        (shown,) = ip("addr", "show", "dev", "lo")
        assert "127.0.0.1" in json.dumps(shown)
        netdevices.loopback_up(LinuxKernel())

    in_namespaces(act)


@pytest.mark.root
def test_a_device_keeps_its_addresses_and_mtu_and_is_up_under_its_new_name() -> None:
    def act(there: int) -> None:
        add("dummy7")
        ip("link", "set", "dummy7", "mtu", "1400", "address", "02:00:00:00:00:07", "up")
        ip("addr", "add", "10.7.0.2/24", "brd", "+", "dev", "dummy7")
        ip("addr", "add", "2001:db8::7/64", "dev", "dummy7", "nodad")
        ip("addr", "add", "10.7.9.9/32", "scope", "host", "dev", "dummy7")
        ip(
            "addr",
            "add",
            "10.7.8.8/32",
            "dev",
            "dummy7",
            "valid_lft",
            "100",
            "preferred_lft",
            "100",
        )
        netdevices.move({"dummy7": {"name": "eth0"}}, there)
        assert addresses("eth0", there) == {("10.7.0.2", 24), ("2001:db8::7", 64)}
        assert is_up("eth0", there)
        (shown,) = ip("link", "show", "dev", "eth0", netns=there)
        assert (shown["mtu"], shown["address"]) == (1400, "02:00:00:00:00:07")
        assert names() == ["lo"]
        assert os.readlink("/proc/self/ns/net") != os.readlink(f"/proc/self/fd/{there}")

    in_namespaces(act)


@pytest.mark.root
def test_a_template_takes_the_first_free_number_and_a_device_down_comes_up() -> None:
    def act(there: int) -> None:
        for name in ("d0", "d1", "d2"):
            add(name)
        netdevices.move({"d0": {"name": "eth%d"}, "d1": {"name": "eth%d"}, "d2": {}}, there)
        assert names(there) == [
            "d2",
            "eth0",
            "eth1",
            "lo",
        ]
        assert all(is_up(name, there) for name in ("d2", "eth0", "eth1"))

    in_namespaces(act)


@pytest.mark.root
def test_a_taken_name_is_an_error_and_what_had_moved_comes_back_as_it_was() -> None:
    def act(there: int) -> None:
        add("a0")
        ip("addr", "add", "10.9.0.1/24", "dev", "a0")
        ip("link", "set", "a0", "up")
        add("b0")
        add("eth0", netns=there)
        with pytest.raises(
            ConfigError, match=r"linux\.netDevices\.b0: the container already has .* named 'eth0'"
        ):
            netdevices.move({"a0": {"name": "eth9"}, "b0": {"name": "eth0"}}, there)
        assert names() == ["a0", "b0", "lo"]
        assert addresses("a0") == {("10.9.0.1", 24)}
        assert is_up("a0")
        assert names(there) == ["eth0", "lo"]

    in_namespaces(act)


@pytest.mark.root
def test_a_device_that_is_not_there_is_an_error() -> None:
    def act(there: int) -> None:
        with pytest.raises(
            ConfigError, match=r"linux\.netDevices\.nope: there is no such network device"
        ):
            netdevices.move({"nope": {}}, there)
        with pytest.raises(Failure, match=r'unable to move network device "lo"'):
            netdevices.move({"lo": {"name": "lo7"}}, there)
        assert is_up("lo") in (True, False)

    in_namespaces(act)


@pytest.mark.root
def test_a_number_taken_there_does_not_confuse_the_move() -> None:
    def act(there: int) -> None:
        add("x", "index", "77")
        add("y", "index", "77", netns=there)
        ip("addr", "add", "10.1.1.1/24", "dev", "x")
        netdevices.move({"x": {}}, there)
        assert addresses("x", there) == {("10.1.1.1", 24)}
        assert addresses("y", there) == set()
        assert not is_up("y", there)

    in_namespaces(act)
