"""Attacks of a container on the machine `argosy run` runs it on: by what is handed in, and by the network."""

from __future__ import annotations

import io
import os
import pathlib
import socket
import subprocess
import sys
import tarfile

import pytest

from argosy.bundle.seccompprofile import default_profile
from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.engine import profile
from argosy.engine.network import BRIDGE, Bridge
from argosy.engine.options import GATEWAY, Published
from argosy.layout.store import LayoutStore
from argosy.spec.imageconfig import ExecutionParameters
from argosy.testing.hostimage import host_image
from tests.engine.conftest import (
    Argosy,
    argosy,
    asked,
    host_layout,
    image,
    launcher,
    needs_containers,
    root,
)
from tests.engine.test_configure import made

__all__ = ["argosy", "asked", "host_layout", "image", "launcher", "root"]

pytestmark = pytest.mark.xdist_group("containers")

REACH = """
echo pwned > /proc/self/fd/0
: > /proc/self/fd/1
: > /proc/self/fd/2
echo told
echo told >&2
"""


@pytest.fixture
def container(argosy: Argosy, image: str) -> str:
    argosy("run", "-q", "-d", "--name", "c", "--network", "none", image, "sleep", "100")
    return "c"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_container_gets_no_file_of_the_machine_as_its_streams(
    argosy: Argosy, image: str, container: str, tmp_path: pathlib.Path, verb: str
) -> None:
    options = {"run": ["-q", "--rm", "-u", "4242", "--network", "none", image], "exec": [container]}
    files = {name: tmp_path / name for name in ("in", "out", "err")}
    for path in files.values():
        path.write_text("kept\n")
    with files["in"].open() as stdin, files["out"].open("a") as out, files["err"].open("a") as err:
        subprocess.run(
            [sys.executable, "-m", "argosy", verb, "-i", *options[verb], "sh", "-c", REACH],
            env=argosy.env, stdin=stdin, stdout=out, stderr=err, check=True,  # type: ignore[attr-defined]
        )  # fmt: skip
    assert files["in"].read_text() == "kept\n"
    assert files["out"].read_text() == files["err"].read_text() == "kept\ntold\n"
    assert {path.stat().st_uid for path in files.values()} == {0}


def test_a_container_does_not_read_what_is_typed_for_others(argosy: Argosy, image: str) -> None:
    line = f"{sys.executable} -m argosy run -q --rm --network none {image} sh -c 'test -t 1 || echo none; cat <&1'"
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"],
        env=argosy.env, input="secret\n", capture_output=True, text=True, timeout=60, check=False,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert "none" in done.stdout


@pytest.fixture
def peopled(argosy: Argosy, image: str, tmp_path: pathlib.Path) -> str:
    """An image whose root is in the group of disks, and with a user in another group."""
    etc = tmp_path / "etc.tar"
    files = {
        "passwd": "root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n",
        "group": "root:x:0:\ndisk:x:6:root\nours:x:7:me\n",
    }
    with tarfile.open(etc, "w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"etc/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    changed = f"oci:{tmp_path}/peopled:v1"
    argosy("append", "-b", image, "-f", etc, "-t", changed)
    return changed


STATUS = "/proc/self/status"
GROUPS = ["sh", "-c", "while read -r name rest; do [ $name != Groups: ] || echo $rest; done < /proc/self/status"]  # fmt: skip


@pytest.mark.parametrize(
    ("user", "groups"), [("me", "7 1000"), ("1000", "1000"), ("me:7", "7"), ("root", "0 6")]
)
def test_cve_2022_36109_the_groups_of_a_process_are_its_users_and_its_own_is_one_of_them(
    argosy: Argosy, peopled: str, user: str, groups: str
) -> None:
    run = argosy("run", "-q", "--rm", "--network", "none", "-u", user, peopled, *GROUPS)
    assert run.out.split() == groups.split()
    argosy("run", "-q", "-d", "--name", "c", "--network", "none", peopled, "sleep", "100")
    assert argosy("exec", "c", *GROUPS).out.split() == ["0", "6"]
    assert argosy("exec", "-u", user, "c", *GROUPS).out.split() == groups.split()


DEEPER = "i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done"


def test_directories_deeper_than_a_stack_are_removed_all_the_same(
    argosy: Argosy, host_layout: pathlib.Path, root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """By a layer or by what runs in a container: neither stays for good on the machine's disk."""
    layout = LayoutStore.create(str(tmp_path / "deep"))
    made = host_image(MemoryStore(), ("sh", "mkdir"))
    copy(made.source, made.descriptor.digest, layout, "v1")
    nested = tmp_path / "nested.tar"
    with tarfile.open(nested, "w") as tar:
        for depth in range(100, 1001, 100):
            member = tarfile.TarInfo("d/" * depth)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
    image = f"oci:{tmp_path}/nested:v1"
    argosy("append", "-b", f"oci:{tmp_path}/deep:v1", "-f", nested, "-t", image)
    argosy("run", "-q", "--rm", "--network", "none", image, "sh", "-c", f"cd /tmp; {DEEPER}")
    argosy("prune", "-a")
    left = subprocess.run(["find", root, "-name", "d"], capture_output=True, check=True)
    assert left.stdout == b""


@pytest.mark.parametrize("user", ["root", "me"])
def test_cve_2022_24769_and_27649_no_capability_is_inheritable_or_ambient(
    argosy: Argosy, peopled: str, user: str
) -> None:
    more = ["--cap-add", "NET_ADMIN", "-u", user]
    run = argosy(
        "run", "-q", "--rm", "--network", "none", *more, peopled, "cat", "/proc/self/status"
    )
    argosy("run", "-q", "-d", "--name", "c", "--network", "none", *more, peopled, "sleep", "100")
    for status in (run.out, argosy("exec", "c", "cat", "/proc/self/status").out):
        sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
        assert {sets["CapInh"], sets["CapAmb"]} == {"0" * 16}


def test_cve_2026_31431_a_container_reaches_no_cryptography_of_the_kernel() -> None:
    """By socket(2). What socketcall(2) of 32-bit programs opens no filter sees: it is in memory."""
    tests = {"SCMP_CMP_LT": int.__lt__, "SCMP_CMP_EQ": int.__eq__, "SCMP_CMP_GT": int.__gt__}
    rules = [rule for rule in default_profile()["syscalls"] if "socket" in rule["names"]]

    def is_allowed(family: int) -> bool:
        return any(
            all(tests[arg["op"]](family, arg["value"]) for arg in rule.get("args", ()))
            for rule in rules
        )

    refused = [family for family in range(64) if not is_allowed(family)]
    assert refused == [38, socket.AF_VSOCK]


@pytest.mark.parametrize("more", [(), ("--cap-add", "NET_ADMIN"), ("--privileged",)])
def test_cve_2018_10856_and_2021_20188_who_is_not_root_has_no_capability(
    argosy: Argosy, image: str, more: tuple[str, ...]
) -> None:
    """By `-u` of a run or an exec, privileged or not: the kernel takes them away where a program is executed."""
    run = argosy(
        "run", "-q", "--rm", "--network", "none", *more, "-u", "4242", image, "cat", STATUS
    )
    argosy("run", "-q", "-d", "--name", "c", "--network", "none", *more, image, "sleep", "100")
    for status in (run.out, argosy("exec", "-u", "4242", "c", "cat", STATUS).out):
        sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
        assert {sets["CapPrm"], sets["CapEff"], sets["CapInh"], sets["CapAmb"]} == {"0" * 16}


def test_cve_2026_55686_a_working_directory_behind_a_link_is_made_in_the_container(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    outside, links = tmp_path / "outside", tmp_path / "links.tar"
    outside.mkdir()
    with tarfile.open(links, "w") as tar:
        for name, target in (("abs", outside), ("rel", f"../../../../../../..{outside}")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, str(target)
            tar.addfile(member)
    changed = f"oci:{tmp_path}/changed:v1"
    argosy("append", "-b", image, "-f", links, "-t", changed)
    for workdir in ("/abs/new", "/rel/new/newer"):
        argosy("mutate", changed, "--workdir", workdir)
        run = argosy("run", "-q", "--rm", "--network", "none", changed, "sh", "-c", "pwd")
        assert run.out.startswith(f"{outside}/new")
    assert list(outside.iterdir()) == []


def test_cve_2026_57231_a_variable_of_an_image_takes_no_value_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARGOSY_SECRET", "secret")
    env = made(image=ExecutionParameters(env=("ARGOSY_SECRET", "ARGOSY_*", "HOME")))["process"][
        "env"
    ]
    assert "ARGOSY_SECRET=" in env
    assert not any("secret" in entry or entry == f"HOME={os.environ['HOME']}" for entry in env)


def test_an_images_volume_behind_a_link_stays_in_the_image(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / "link.tar"
    with tarfile.open(link, "w") as tar:
        member = tarfile.TarInfo("data")
        member.type, member.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(member)
    changed = f"oci:{tmp_path}/changed:v1"
    argosy("append", "-b", image, "-f", link, "-t", changed)
    argosy("mutate", changed, "--volume", "/data", "--volume", "/data/../../below")
    argosy(
        "run", "-q", "--rm", "--read-only", "--network", "none", changed, "sh", "-c",
        "touch /data/x /below/x",
    )  # fmt: skip
    assert list(outside.iterdir()) == []


def test_ghsa_6fw5_f8r9_fgfm_what_tells_of_the_machines_other_work_is_masked(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    script = "cat /proc/interrupts; ls /sys/devices/virtual/powercap 2>&-; true"
    assert argosy("run", "-q", "--rm", "--network", "none", image, "sh", "-c", script).out == ""
    for cpu in ("cpu0", "cpu11"):
        (tmp_path / cpu / "thermal_throttle").mkdir(parents=True)
    (tmp_path / "cpu1").mkdir()
    places = [str(tmp_path / cpu / "thermal_throttle") for cpu in ("cpu0", "cpu11")]
    assert profile.heat(str(tmp_path)) == places


@pytest.mark.parametrize(
    "mount", ["type=bind,src=MINE,dst=/link/below", "type=tmpfs,dst=/link", "type=tmpfs,dst=/link/x/../y"]
)  # fmt: skip
def test_what_is_mounted_behind_a_link_of_the_image_stays_in_the_container(
    argosy: Argosy, image: str, tmp_path: pathlib.Path, mount: str
) -> None:
    outside, mine, link = tmp_path / "outside", tmp_path / "mine", tmp_path / "link.tar"
    outside.mkdir()
    mine.mkdir()
    with tarfile.open(link, "w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, f"/../../..{outside}"
        tar.addfile(member)
    changed = f"oci:{tmp_path}/changed:v1"
    argosy("append", "-b", image, "-f", link, "-t", changed)
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--mount", mount.replace("MINE", str(mine)), changed,
        "sh", "-c", "cat /proc/self/mounts",
    )  # fmt: skip
    assert f" {outside}" in done.out
    assert list(outside.iterdir()) == []


def test_no_link_of_the_image_leads_a_mount_into_proc(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    link = tmp_path / "link.tar"
    with tarfile.open(link, "w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "proc"
        tar.addfile(member)
    changed = f"oci:{tmp_path}/changed:v1"
    argosy("append", "-b", image, "-f", link, "-t", changed)
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--mount", "type=tmpfs,dst=/link/sys", changed, "true", code=125
    )  # fmt: skip
    assert "inside /proc" in done.err


def test_a_link_that_a_container_made_leads_no_mount_of_its_next_run_out_of_it(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    """A volume of the image is bound onto itself: its place is looked up anew at each start, and in the container."""
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    changed = f"oci:{tmp_path}/changed:v1"
    argosy("mutate", image, "--volume", "/data", "--volume", "/data/mid/sub", "-t", changed)
    tools = [option for path in ("/bin", "/usr", "/lib") for option in ("-v", f"{path}:{path}:ro")]
    script = (
        f"mv /data/mid /data/old && ln -s {outside} /data/mid; touch /data/mid/sub/x && ls -l /data"
    )
    argosy(
        "run", "-q", "--name", "c", "--read-only", "--network", "none", *tools, changed, "sh", "-c", script, code=None
    )  # fmt: skip
    argosy("start", "-a", "c", code=None)
    assert list((outside / "sub").iterdir()) == []


SEND = """
import socket, sys
for words, address in (("to loopback", "127.0.0.1"), ("to the gateway", sys.argv[1])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(words.encode(), (address, int(sys.argv[2])))
"""


def test_cve_2020_8558_a_container_does_not_reach_what_listens_on_the_machines_loopback(
    tmp_path: pathlib.Path,
) -> None:
    needs_containers()
    bridge, container_id = Bridge(str(tmp_path)), os.urandom(32).hex()
    name = os.path.basename(bridge.up(container_id).namespace)
    # Root of a container with CAP_NET_RAW makes such packets itself; here the namespace is told where 127.0.0.1 is.
    away = f"""
        ip address flush dev lo
        echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
        ip route add 127.0.0.1 via {GATEWAY}
        exec "$@"
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("0.0.0.0", 0))
            listener.settimeout(30)
            port = str(listener.getsockname()[1])
            inside = ["ip", "netns", "exec", name, "sh", "-ec", away, "sh"]
            subprocess.run([*inside, sys.executable, "-c", SEND, str(GATEWAY), port], check=True)
            assert listener.recv(100) == b"to the gateway"
    finally:
        bridge.down(container_id)


def test_cve_2020_13401_no_container_advertises_itself_as_the_machines_router(
    tmp_path: pathlib.Path,
) -> None:
    needs_containers()
    accept = pathlib.Path(f"/proc/sys/net/ipv6/conf/{BRIDGE}/accept_ra")
    if not accept.parent.parent.exists():
        pytest.skip("this machine has no IPv6")
    bridge, container_id = Bridge(str(tmp_path)), os.urandom(32).hex()
    try:
        bridge.up(container_id)
        assert accept.read_text() == "0\n"
    finally:
        bridge.down(container_id)


def test_cve_2020_10749_no_container_advertises_itself_as_the_router_of_others(
    argosy: Argosy, image: str
) -> None:
    """CVE-2020-10749, CVE-2024-32473: a container whose network has no IPv6 takes none from whoever offers it."""
    addresses = pathlib.Path("/proc/net/if_inet6")
    if not addresses.exists():
        pytest.skip("this machine has no IPv6")
    own = argosy("run", "-q", "--rm", image, "cat", addresses).out
    assert {line.split()[-1] for line in own.splitlines()} <= {"lo"}
    wanted = ("--sysctl", "net.ipv6.conf.eth0.disable_ipv6=0")
    assert " eth0" in argosy("run", "-q", "--rm", *wanted, image, "cat", addresses).out


RECEIVE = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
    listener.bind(("0.0.0.0", 80))
    print("listening", flush=True)
    listener.settimeout(30)
    print(listener.recv(100).decode(), flush=True)
"""
FROM_OUTSIDE = """
import socket, sys
port = int(sys.argv[3])
for words, address, port in (
    ("direct", sys.argv[1], 80), ("elsewhere", "198.18.88.8", port), ("published", sys.argv[2], port)
):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(words.encode(), (address, port))
"""


def test_cve_2025_54388_who_routes_through_this_machine_reaches_published_ports_only(
    tmp_path: pathlib.Path,
) -> None:
    """CVE-2025-67499: nor does a published port take what was sent to that port of another machine."""
    needs_containers()
    bridge, container_id = Bridge(str(tmp_path)), os.urandom(32).hex()
    outside, link = f"out{container_id[:8]}", f"ou{container_id[:8]}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    published = Published(address="", host_port=port, container_port=80, protocol="udp")
    try:
        attached = bridge.up(container_id, [published])
        for line in (
            f"netns add {outside}", f"link add {link} type veth peer name eth0 netns {outside}",
            f"addr add 198.18.77.1/30 dev {link}", f"link set {link} up",
            f"-n {outside} addr add 198.18.77.2/30 dev eth0", f"-n {outside} link set eth0 up",
            f"-n {outside} route add default via 198.18.77.1",
        ):  # fmt: skip
            subprocess.run(["ip", *line.split()], check=True)
        inside = ["ip", "netns", "exec", os.path.basename(attached.namespace), sys.executable, "-c"]
        away = ["ip", "netns", "exec", outside, sys.executable, "-c"]
        with subprocess.Popen([*inside, RECEIVE], stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            words = [attached.address, "198.18.77.1", str(port)]
            subprocess.run([*away, FROM_OUTSIDE, *words], check=True)
            assert listener.stdout.readline() == "published\n"
    finally:
        subprocess.run(["ip", "netns", "del", outside], check=False)
        bridge.down(container_id)
