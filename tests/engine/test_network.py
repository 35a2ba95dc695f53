"""The bridge: addresses, published ports, and who reaches whom."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import pathlib
import resource
import socket
import subprocess
import urllib.request
from collections.abc import Callable

import pytest

from argosy.engine import network
from argosy.engine.network import Bridge, with_exposed
from argosy.engine.options import Published
from argosy.errors import LimitExceededError
from tests.conftest import find_peer
from tests.engine.conftest import Argosy, alone, free_port, needs_containers, web

pytestmark = pytest.mark.xdist_group("containers")


def test_a_published_port_leads_into_the_container(argosy: Argosy, images: pathlib.Path) -> None:
    port = free_port()
    assert web(argosy, f"oci:{images}/busybox:latest", port) == b"page\n"
    done = argosy(
        "run", "-q", "--rm", "-p", f"{port}:80", f"oci:{images}/busybox:latest", "true", code=125
    )
    assert f"port {port}/tcp is in use by another container" in done.err
    argosy("rm", "-f", "web")
    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)


def test_a_port_the_machine_uses_is_refused(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]]
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = argosy("run", "-q", "--rm", "-p", f"127.0.0.1:{port}:80", image, "true", code=125)
    assert f"port {port}/tcp is in use on this machine" in done.err
    assert left_behind() == []


def test_all_ports_an_image_exposes_are_published_by_free_ones(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    exposing = f"oci:{tmp_path}/exposing:v1"
    ports = [f"--exposed-ports={text}" for text in ("80", "81-82/udp", "83/tcp")]
    argosy("mutate", "-q", image, *ports, "-t", exposing)
    given = free_port()
    argosy("run", "-q", "-d", "-P", "-p", f"{given}:80", exposing, "sleep", "100")
    (entry,) = json.loads(argosy("ps", "--json").out)
    host, inside = zip(*(text.split("->") for text in entry["Ports"]), strict=True)
    assert inside == ("80/tcp", "81/udp", "82/udp", "83/tcp")
    assert host[0] == str(given)
    assert len(set(host)) == 4
    done = argosy("run", "-q", "--rm", "-P", "--network", "none", exposing, "true", code=125)
    assert "ports cannot be published with --network none" in done.err


def test_a_port_that_is_published_twice_and_exposed_is_not_published_again() -> None:
    published = [*Published.parse("8080:80"), *Published.parse("8081:80")]
    assert with_exposed(published, ["80/tcp"]) == tuple(published)


def test_an_image_that_exposes_all_there_are_is_refused() -> None:
    with pytest.raises(LimitExceededError, match="more than 1000 ports"):
        with_exposed([], ["1-65535/tcp"])


def test_no_exposed_port_is_published_by_one_that_another_container_has(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = map(
        int, pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    )
    (other,) = Published.parse("1:1")
    half = [dataclasses.replace(other, host_port=n) for n in range(first, (first + last) // 2)]
    lease = {
        "address": "10.87.0.2",
        "engine": "/",
        "published": [dataclasses.asdict(p) for p in half],
    }
    (tmp_path / ("0" * 64)).write_text(json.dumps(lease))
    monkeypatch.setattr(network, "LEASES", str(tmp_path))
    found = {port.host_port for port in with_exposed(half[:1], ["1001-1100/tcp"])}
    assert found & {port.host_port for port in half} == {first}
    assert len(found) == 101


def test_an_image_may_expose_more_ports_than_files_can_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, before[1]))
    try:
        found = with_exposed([], ["1001-1200/tcp"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len({port.host_port for port in found}) == 200


def test_containers_reach_each_other_on_the_bridge(argosy: Argosy, images: pathlib.Path) -> None:
    busybox = f"oci:{images}/busybox:latest"
    argosy("run", "-q", "-d", "--name", "a", busybox, "sleep", "60")
    address = json.loads(argosy("ps", "--json").out)[0]["Address"]
    argosy("run", "-q", "--rm", busybox, "ping", "-c", "1", "-W", "5", address)


def test_two_engines_give_no_address_twice(tmp_path: pathlib.Path) -> None:
    needs_containers()
    find_peer("nft")
    with contextlib.ExitStack() as down:
        addresses: dict[str, str] = {}
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            bridge, container = Bridge(str(tmp_path / name)), os.urandom(32).hex()
            down.callback(bridge.down, container)
            address = bridge.up(container).address
            assert bridge.leased() & {*addresses.values(), container} == {container}
            addresses[address] = container
    assert len(addresses) == 2


def test_the_address_of_an_engine_that_is_gone_is_free_once_no_process_is_there(
    tmp_path: pathlib.Path,
) -> None:
    needs_containers()
    find_peer("nft")
    run = tmp_path / "run"
    run.mkdir()
    bridge, container = Bridge(str(run)), os.urandom(32).hex()
    other = Bridge(str(tmp_path))
    try:
        name = os.path.basename(bridge.up(container).namespace)
        assert container not in other.leased()
        run.rmdir()
        with subprocess.Popen(
            ["ip", "netns", "exec", name, "cat"], stdin=subprocess.PIPE
        ) as inside:
            there = os.stat(f"/run/netns/{name}").st_ino
            while os.stat(f"/proc/{inside.pid}/ns/net").st_ino != there:
                pass
            assert container not in other.leased()
        assert container in other.leased()
    finally:
        bridge.down(container)


def test_who_gets_the_address_of_one_that_ended_is_reached_where_that_one_was(
    tmp_path: pathlib.Path,
) -> None:
    needs_containers()
    find_peer("nft")
    bridge, container = Bridge(str(tmp_path)), os.urandom(32).hex()
    try:
        attached = bridge.up(container)
        name = os.path.basename(attached.namespace)
        shown = subprocess.check_output(["ip", "-n", name, "-j", "link", "show", "eth0"])
    finally:
        bridge.down(container)
    told = [
        ipaddress.IPv4Address(attached.address).packed,
        ipaddress.IPv4Address("10.87.0.1").packed,
    ]
    assert json.loads(shown)[0]["address"] == f"02:42:{told[0].hex(':')}"
    here = pathlib.Path("/sys/class/net/argosy0/address").read_text()
    assert here == f"02:42:{told[1].hex(':')}\n", "it does not change with those that come and go"


def test_the_hosts_network_is_the_hosts(argosy: Argosy, image: str) -> None:
    inside = argosy(
        "run", "-q", "--rm", "--network", "host", image, "ls", "-l", "/proc/self/ns/net"
    ).out
    assert os.readlink("/proc/self/ns/net") in inside


def test_hosts_are_told_in_both_spellings_and_this_machine_by_a_word(
    argosy: Argosy, image: str
) -> None:
    hosts = [f"--add-host={host}" for host in ("a:192.0.2.1", "b=::1", "c=[::2]", "d:::3")]
    machine = "--add-host=host.docker.internal:host-gateway"
    told = argosy("run", "-q", "--rm", *hosts, machine, image, "cat", "/etc/hosts").out
    lines = ("192.0.2.1\ta", "::1\tb", "::2\tc", "::3\td", "10.87.0.1\thost.docker.internal")
    assert told.endswith("\n".join(lines) + "\n")
    told = alone(argosy, image, "cat", "/etc/hosts", options=["--network", "host", machine]).out
    assert told.endswith("\n127.0.0.1\thost.docker.internal\n")
