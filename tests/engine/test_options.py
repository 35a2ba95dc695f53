"""What is typed after `argosy run`, read or refused in one line."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.cli import engine
from argosy.engine.devices import Device
from argosy.engine.invoke import meaning
from argosy.engine.mounts import Mount
from argosy.engine.names import local_name, typed_digits
from argosy.engine.options import Published, RunOptions
from argosy.engine.profile import capabilities
from argosy.engine.values import Ulimit, parse_name, parse_size, signal_number
from argosy.errors import ArgosyError, InvalidConfigError, UnsupportedError, UsageError
from argosy.locate import Location

ports = st.integers(1, 65535)


@given(
    ports, ports, st.sampled_from(["tcp", "udp"]), st.sampled_from(["", "127.0.0.1", "10.0.0.1"])
)
def test_a_published_port_is_read(host: int, inside: int, protocol: str, address: str) -> None:
    text = f"{address + ':' if address else ''}{host}:{inside}/{protocol}"
    (port,) = Published.parse(text)
    assert (port.host_port, port.container_port, port.protocol, port.address) == (
        host,
        inside,
        protocol,
        address,
    )


def test_short_forms_of_ports_are_read() -> None:
    assert [str(p) for p in Published.parse("80")] == ["80->80/tcp"]
    assert [str(p) for p in Published.parse("0.0.0.0:8000-8002:80-82/UDP")] == [
        "8000->80/udp", "8001->81/udp", "8002->82/udp",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "a:b", "80-79", "1:2:3:4", "80-82:90", "80/icmp", "x:80:80", "80:"]
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Published.parse(text)


@pytest.mark.parametrize(
    ("text", "size"), [("6", 6), ("1k", 1024), ("2M", 2 << 20), ("1gb", 1 << 30), ("3b", 3)]
)
def test_sizes_have_units_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5g", "m", "1 g", "1x"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["a", "a:b", "/a:b", "/a:/", "/a:/b:bad", "name:/data", ":/b", "/a::", "/a:/b:ro:x"]
)
def test_what_is_no_volume_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Mount.volume(text)


def test_a_volume_is_a_private_bind_mount_unless_told_otherwise() -> None:
    assert Mount.volume("/a:/b:ro,Z").options == ("rbind", "rro", "rprivate")
    assert Mount.volume("/a:/b:cached").options == ("rbind", "rprivate")
    assert Mount.volume("/a:/b:shared").options == ("rbind", "shared")


@pytest.mark.parametrize(
    ("text", "kind", "source", "options"),
    [
        ("type=bind,source=/a,target=/b", "bind", "/a", ("rbind", "rprivate")),
        ("type=bind,src=/a,dst=/b,readonly", "bind", "/a", ("rbind", "rro", "rprivate")),
        ("type=bind,src=/a,destination=/b,ro=true", "bind", "/a", ("rbind", "rro", "rprivate")),
        ("type=bind,src=/a,dst=/b,ro=0,consistency=cached", "bind", "/a", ("rbind", "rprivate")),
        ("src=/a,dst=/b,type=bind,bind-propagation=rslave", "bind", "/a", ("rbind", "rslave")),
        ("type=bind,src=/a,dst=/b,ro,bind-nonrecursive", "bind", "/a", ("bind", "ro", "rprivate")),
        ("type=bind,src=/a,dst=/b,bind-recursive=disabled", "bind", "/a", ("bind", "rprivate")),
        ("type=bind,src=/a,dst=/b,ro,bind-recursive=writable", "bind", "/a", ("rbind", "ro", "rprivate")),
        ("type=bind,src=/a,dst=/b,ro,bind-recursive=readonly", "bind", "/a", ("rbind", "rro", "rprivate")),
        ('type=bind,"src=/a,b",dst=/b', "bind", "/a,b", ("rbind", "rprivate")),
        ("type=tmpfs,dst=/b", "tmpfs", "tmpfs", ("nosuid", "nodev", "noexec")),
        ("type=tmpfs,dst=/b,tmpfs-size=2m,tmpfs-mode=0700,ro", "tmpfs", "tmpfs",
         ("nosuid", "nodev", "noexec", "size=2097152", "mode=0700", "ro")),
    ],
)  # fmt: skip
def test_mounts_are_read_by_key_and_value(
    text: str, kind: str, source: str, options: tuple[str, ...]
) -> None:
    mount = Mount.parse(text)
    assert (mount.kind, mount.source, mount.destination) == (kind, source, "/b")
    assert mount.options == options
    assert not mount.make


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'volume'"),
        ("src=name,dst=/b", "'volume'"),
        ("type=volume,src=name,dst=/b", "'volume'"),
        ("type=image,src=name,dst=/b", "'image'"),
        ("type=bind,src=/a", "destination must be an absolute path"),
        ("type=bind,src=/a,dst=/", "destination must be an absolute path"),
        ("type=bind,src=/a,dst=b", "destination must be an absolute path"),
        ("type=bind,dst=/b", "source must be a path"),
        ("type=bind,src=name,dst=/b", "source must be a path"),
        ("type=bind,src=/a\0,dst=/b", "source must be a path"),
        ("type=bind,src=/a,source=/c,dst=/b", "source is there twice"),
        ("type=bind,src=/a,dst=/b,readonly=perhaps", "expected true or false"),
        ("type=bind,src,dst=/b", "expected src=VALUE"),
        ("type=bind,src=/a,dst=/b,tmpfs-size=1m", "a bind has no 'tmpfs-size'"),
        ("type=bind,src=/a,dst=/b,volume-nocopy", "a bind has no 'volume-nocopy'"),
        ("type=bind,src=/a,dst=/b,bind-propagation=wild", "bind-propagation=wild"),
        ("type=bind,src=/a,dst=/b,bind-recursive=often", "bind-recursive=often"),
        ("type=bind,src=/a,dst=/b,bind-recursive=readonly", "with readonly"),
        ("type=bind,src=/a,dst=/b,bind-nonrecursive,bind-recursive=enabled", "expected disabled"),
        ("type=tmpfs,src=/a,dst=/b", "a tmpfs has no source"),
        ("type=tmpfs,dst=/b,tmpfs-size=much", "size 'much'"),
        ("type=tmpfs,dst=/b,tmpfs-mode=rwx", "tmpfs-mode=rwx"),
        ('type=bind,"src=/a,dst=/b', "expected KEY=VALUE"),
    ],
)
def test_what_is_no_mount_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        Mount.parse(text)


@pytest.mark.parametrize(
    ("text", "path", "access"),
    [
        ("/dev/a", "/dev/a", "rwm"),
        ("/dev/a:rw", "/dev/a", "rw"),
        ("/dev/a:/dev/b", "/dev/b", "rwm"),
        ("/dev/a:/dev/../x:m", "/x", "m"),
    ],
)
def test_devices_are_read_as_docker_reads_them(text: str, path: str, access: str) -> None:
    assert Device.parse(text) == Device(source="/dev/a", path=path, access=access)


@pytest.mark.parametrize("text", ["", "-a", "a b", "a/b", "ä", "x" * 129])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected 1 to 128 letters, "):
        parse_name(text)


def test_ports_need_a_network_of_the_containers_own() -> None:
    with pytest.raises(UsageError):
        RunOptions(network="host", published=tuple(Published.parse("80")))
    with pytest.raises(UsageError):
        RunOptions(network="nosuch")
    for network in ("pasta", "slirp4netns"):
        with pytest.raises(UsageError, match="sctp"):
            RunOptions(network=network, published=tuple(Published.parse("80/sctp")))


def test_options_are_read_back_from_a_record_as_they_were() -> None:
    options = RunOptions(
        command=("a", "b"),
        env=("A=1",),
        mounts=(Mount.volume("/a:/b:ro"), Mount.parse("type=tmpfs,dst=/t,tmpfs-size=1m")),
        published=tuple(Published.parse("127.0.0.1:80-81:80-81")),
        ulimits=(Ulimit.parse("nofile=1:-1"),),
        devices=(Device.parse("/dev/a:/dev/b:r"),),
        sysctls=("net.core.somaxconn=1",),
        cpus=0.5,
    )
    assert RunOptions.decode(json.loads(json.dumps(dataclasses.asdict(options)))) == options
    for wrong in ({"nosuch": 1}, {"mounts": [{"nosuch": 1}]}, {}):
        with pytest.raises(InvalidConfigError):
            RunOptions.decode(wrong)


def test_a_port_of_the_host_leads_to_one_place() -> None:
    def published(*texts: str) -> tuple[Published, ...]:
        return tuple(port for text in texts for port in Published.parse(text))

    for texts in (("80:80", "80:80"), ("80:80", "80:80/udp"), ("127.0.0.1:80:81", "80:80")):
        RunOptions(published=published(*texts))
    with pytest.raises(UsageError, match="ports 81->81/tcp and 81->82/tcp: one port cannot lead"):
        RunOptions(published=published("80-81:80-81", "81:82"))


def test_capabilities_are_added_and_dropped_as_docker_does() -> None:
    assert "CAP_NET_RAW" in capabilities([], [])
    assert "CAP_NET_RAW" not in capabilities([], ["net_raw"])
    assert capabilities([], ["all"]) == []
    assert capabilities(["ALL"], ["CAP_SYS_ADMIN"]).count("CAP_SYS_ADMIN") == 0
    assert len(capabilities(["ALL"], [])) == 41
    with pytest.raises(UsageError):
        capabilities(["nosuch"], [])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("localhost:5000/a:v1", "localhost:5000/a:v1"),
        ("oci:/tmp/Some Dir:v1", "localhost/some-dir:v1"),
        ("oci-archive:x.tar", "localhost/x-tar:latest"),
        ("docker-archive:x.tar:busybox:1", "localhost/x-tar:busybox-1"),
    ],
)
def test_every_place_has_a_name_among_the_local_images(text: str, name: str) -> None:
    assert local_name(Location.parse(text)) == name
    assert Location.parse(local_name(Location.parse(text)))


def test_digits_of_an_id_are_told_from_names() -> None:
    assert typed_digits(Location.parse("0123456789ab")) == "0123456789ab"
    assert typed_digits(Location.parse("alpine")) is None
    assert typed_digits(Location.parse("facade:v1")) is None


@pytest.mark.parametrize("text", ["", "SIGNOSUCH", "0", "99", "SIGTERM+x", "SIG_DFL"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        signal_number(text)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": stat /x: no such file or directory', 127),
        ('exec: "/etc": permission denied', 126),
        ("exec /x: exec format error", 126),
        ("mount /a: no such file or directory", 125),
        ("something else", 125),
    ],
)
def test_the_runtimes_words_become_dockers_exit_codes(message: str, code: int) -> None:
    assert meaning(message) == code


@given(st.text(max_size=30))
def test_no_text_crashes(text: str) -> None:
    for read in (
        Published.parse,
        Mount.volume,
        Mount.tmpfs,
        Mount.parse,
        Device.parse,
        parse_size,
        parse_name,
    ):
        try:
            read(text)
        except ArgosyError:
            continue


def test_images_need_no_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOSY_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("ARGOSY_RUNTIME", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert list(engine.images().entries()) == []
    with pytest.raises(UnsupportedError, match="argosy-runtime is not installed"):
        engine.places()


@pytest.mark.parametrize(
    "options",
    [
        {"command": ("echo", "a\udcff")},
        {"env": ("A=\udcff",)},
        {"mounts": (Mount.volume("/a:/b\udcff"),)},
    ],
)
def test_what_is_no_utf_8_is_refused_before_anything_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"\\udcff': expected UTF-8$"):
        RunOptions(**options)
