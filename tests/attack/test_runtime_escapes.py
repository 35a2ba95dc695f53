"""Published ways out of containers: hostile images, volumes and processes against the runtime, on the real kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.runtime import identity, rootfs
from argosy.runtime.channel import pair
from argosy.runtime.errors import Failure
from argosy.runtime.inroot import Proc
from argosy.runtime.kernel import CLONE_NEWNS, LinuxKernel
from argosy.runtime.steps import Context
from tests.runtime.bundlekit import Bundle, Runtime, bundle, launcher_path, runtime, terminal

__all__ = ["bundle", "launcher_path", "runtime"]


@pytest.fixture
def host(bundle: Bundle) -> Path:
    """A directory of the host beside the bundle, which no container may touch."""
    place = bundle.path / "host"
    place.mkdir()
    (place / "victim").write_text("untouched")
    return place


def exchange(one: Path, other: Path) -> None:
    """Exchange two names at once, as attackers do (renameat2 with RENAME_EXCHANGE)."""
    ctypes.CDLL(None).renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)


def without_dev(bundle: Bundle) -> None:
    """No tmpfs on /dev: what the image has there is what there is."""
    kept = [
        mount for mount in bundle.config["mounts"] if not mount["destination"].startswith("/dev")
    ]
    bundle.config["mounts"] = kept


def test_cve_2016_9962_init_cannot_be_traced_from_inside(runtime: Runtime, bundle: Bundle) -> None:
    """Before it becomes the program, init belongs to no user of the container: its memory is out of reach."""
    bundle.userns(100000)
    pid = runtime.state(runtime.create(bundle))["pid"]
    for name in ("exe", "fd", "mem"):
        assert os.lstat(f"/proc/{pid}/{name}").st_uid == 0


def test_cve_2016_9962_init_cannot_be_traced_by_an_equal(runtime: Runtime, bundle: Bundle) -> None:
    """A process beside it in the PID namespace, with the same user and the same capabilities, gets nothing of it."""
    pid = runtime.state(runtime.create(bundle))["pid"]
    other = runtime.bundle()
    other.namespace("pid", f"/proc/{pid}/ns/pid")
    script = "test -e /proc/1/comm && for name in exe root cwd fd/0 fd/3; do readlink /proc/1/$name; done"
    assert runtime.run(other.sh(f"{script}; true")).stdout == ""


@pytest.mark.parametrize("fstype", ["proc", "sysfs"])
def test_cve_2019_19921_proc_and_sys_only_on_real_directories(
    runtime: Runtime, bundle: Bundle, fstype: str
) -> None:
    name = {"proc": "proc", "sysfs": "sys"}[fstype]
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / "elsewhere").mkdir()
    (bundle.rootfs / name).symlink_to("/elsewhere")
    done = runtime.run(bundle)
    assert done.returncode == 1
    assert "must be mounted on ordinary directory" in done.stderr


def test_cve_2019_16884_nothing_but_procfs_on_proc_and_nothing_below(
    runtime: Runtime, bundle: Bundle, host: Path
) -> None:
    (bundle.rootfs / "link").symlink_to("/proc")
    for destination, why in [
        ("/proc", "it is not of type proc"),
        ("/proc/self/attr", "it is inside /proc"),
        ("/link/sys", "it is inside /proc"),
    ]:
        other = runtime.bundle()
        (other.rootfs / "link").symlink_to("/proc")
        other.mount(destination, "none", str(host), "bind")
        done = runtime.run(other)
        assert done.returncode == 1
        assert why in done.stderr


def test_cve_2023_27561_and_28642_a_volume_with_links_at_proc_does_not_redirect_it(
    runtime: Runtime, bundle: Bundle
) -> None:
    """The volume is mounted first and /proc of the image leads into it."""
    volume = bundle.path / "volume"
    (volume / "proc").mkdir(parents=True)
    (bundle.rootfs / "proc").rmdir()
    (bundle.rootfs / "proc").symlink_to("/volume/proc")
    bundle.config["mounts"].insert(
        0, {"destination": "/volume", "source": str(volume), "options": ["bind"]}
    )
    assert "must be mounted on ordinary directory" in runtime.run(bundle).stderr


def test_ghsa_g54h_devices_are_denied_unless_allowed(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process["capabilities"] = {
        name: ["CAP_MKNOD"] for name in ("bounding", "effective", "permitted")
    }
    bundle.process["noNewPrivileges"] = False
    script = "mknod /tmp/mem c 1 1 && cat /tmp/mem >/dev/null; mknod /tmp/kmsg c 1 11; head -c1 /tmp/kmsg"
    done = runtime.run(bundle.sh(script))
    assert done.stderr.count("Operation not permitted") == 2
    assert done.stdout == ""


def test_cve_2021_30465_a_mount_point_swapped_for_a_link_stays_inside(
    runtime: Runtime, bundle: Bundle, host: Path
) -> None:
    """A racing process of another container exchanges the mount point with a link to the host's root."""
    volume = bundle.path / "volume"
    (volume / "real").mkdir(parents=True)
    os.symlink("/" * 20 + str(host), volume / "evil")
    bundle.mount("/volume", "none", str(volume), "bind")
    bundle.mount("/volume/real/x", "tmpfs", "tmpfs")
    bundle.write()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(volume / "real", volume / "evil")

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        for _ in range(12):
            runtime.run(bundle)
    finally:
        stop.set()
        racer.join()
    assert sorted(entry.name for entry in host.iterdir()) == ["victim"]


LINKS: list[tuple[str, Callable[[Bundle], None]]] = [
    ("a mount point", lambda b: b.mount("/link/deep/new", "tmpfs", "tmpfs")),
    ("a file to bind on", lambda b: b.mount("/link/deep/file", "none", "/etc/hostname", "bind")),
    (
        "a device",
        lambda b: b.linux.update(
            devices=[{"path": "/link/null", "type": "c", "major": 1, "minor": 3}]
        ),
    ),
    ("the working directory", lambda b: b.process.update(cwd="/link/deep/cwd")),
    (
        "a file at a link to nowhere",
        lambda b: b.mount("/dangling", "none", "/etc/hostname", "bind"),
    ),
]


@pytest.mark.parametrize("change", [change for _, change in LINKS], ids=[name for name, _ in LINKS])
@pytest.mark.parametrize("climbing", [False, True])
def test_cve_2024_45310_links_of_the_image_lead_nowhere_outside(
    runtime: Runtime, bundle: Bundle, host: Path, change: Callable[[Bundle], None], climbing: bool
) -> None:
    target = "../" * 30 + str(host)[1:] if climbing else str(host)
    os.symlink(target, bundle.rootfs / "link")
    os.symlink(f"{target}/made", bundle.rootfs / "dangling")
    change(bundle)
    runtime.run(bundle)
    assert sorted(entry.name for entry in host.iterdir()) == ["victim"]
    assert (host / "victim").read_text() == "untouched"


def test_cve_2024_21626_a_leaked_descriptor_is_no_way_to_the_host(
    runtime: Runtime, bundle: Bundle, host: Path
) -> None:
    """The caller leaks a directory of the host; the working directory names it by every number it could have."""
    leaked = os.open(host, os.O_RDONLY)

    def leak() -> None:
        for number in range(3, 20):
            os.dup2(leaked, number, inheritable=True)

    words = runtime.argv("run", "-b", str(bundle.path))
    try:
        for number in range(3, 24):
            bundle.process["cwd"] = f"/proc/self/fd/{number}"
            bundle.sh("ls; cat victim").write()
            done = subprocess.run(
                [*words, f"leak{number}"], capture_output=True, text=True, close_fds=False, preexec_fn=leak, check=False,
                timeout=60, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert "untouched" not in done.stdout
            assert done.returncode != 0
    finally:
        os.close(leaked)


def test_cve_2024_21626_what_the_caller_leaks_never_reaches_init(
    runtime: Runtime, bundle: Bundle, host: Path
) -> None:
    """Not even before the program: hooks and a waiting init have no descriptor of the caller's."""
    leaked = os.open(host, os.O_RDONLY)
    cid = runtime.name()
    words = runtime.argv("create", "-b", str(bundle.path), cid)
    seen = bundle.path / "seen"
    listing = f"ls -l /proc/self/fd > {seen}"
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", listing]}],
    }
    bundle.sh("exec true").write()
    try:
        subprocess.run(
            words, close_fds=False, preexec_fn=lambda: os.dup2(leaked, 17, inheritable=True), check=True,
            timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        place = f"/proc/{runtime.state(cid)['pid']}/fd"
        held = [os.readlink(f"{place}/{number}") for number in os.listdir(place)]
        assert str(host) not in held
        assert str(host) not in seen.read_text()
    finally:
        os.close(leaked)
        runtime("delete", "--force", cid)


def test_cve_2025_24965_and_2026_84042_helpers_are_the_hosts_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of the same name that comes first in PATH, or lies in the working directory, is never started."""
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    mapping = [{"containerID": 0, "hostID": 4294967290, "size": 2}]
    with pytest.raises(Failure, match=r"newuidmap"):
        identity._by_helper("newuidmap", os.getpid(), mapping)
    assert not (tmp_path / "started").exists()


def test_cve_2024_21626_exec_has_no_descriptor_of_the_host_either(
    runtime: Runtime, bundle: Bundle
) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    (bundle.rootfs / "inside").touch()
    for number in range(3, 24):
        done = runtime("exec", "--cwd", f"/proc/self/fd/{number}", cid, "ls")
        assert done.returncode == 255 or "inside" in done.stdout.split()
    assert runtime.ok("exec", cid, "sh", "-c", "ls /proc/self/fd").split() == ["0", "1", "2", "3"]


def test_cve_2024_21626_no_program_is_found_through_a_descriptor_of_the_runtime(
    runtime: Runtime, bundle: Bundle
) -> None:
    """The runtime holds the host's /proc; a program or the interpreter of a script names a file through it."""
    names = [f"/proc/self/fd/{number}/self/root/bin/busybox" for number in range(3, 24)]
    for number, name in enumerate(names):
        script = bundle.rootfs / f"bin/script{number}"
        script.write_text(f"#!{name} sh\necho reached\n")
        script.chmod(0o755)
    cid = runtime.start(bundle.sh("exec sleep 100"))
    for number, name in enumerate(names):
        assert "reached" not in runtime("exec", cid, name, "echo", "reached").stdout
        assert "reached" not in runtime("exec", cid, f"script{number}").stdout
    assert runtime.ok("exec", cid, names[0].replace("fd/3/self/", ""), "echo", "reached")


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "/etc/victim"])
def test_cve_2025_31133_masks_are_a_null_device(
    runtime: Runtime, bundle: Bundle, target: str
) -> None:
    """The image's /dev/null is a link to a file that would then be bound, writable, over the masked path.

    CVE-2025-62161 is the same of youki.
    """
    dev = bundle.path / "dev"
    dev.mkdir()
    (dev / "null").symlink_to(target)
    (bundle.rootfs / "etc/victim").write_text("x")
    (bundle.rootfs / "masked").write_text("secret")
    without_dev(bundle)
    bundle.mount("/dev", "none", str(dev), "bind")
    bundle.linux["maskedPaths"] = ["/masked"]
    done = runtime.run(bundle.sh("stat -c %t:%T /masked"))
    assert done.stdout in ("1:3\n", "")
    if not done.stdout:
        assert "invalid" in done.stderr


def test_cve_2025_31133_nor_is_a_disk_of_the_same_number(runtime: Runtime, bundle: Bundle) -> None:
    dev = bundle.path / "dev"
    dev.mkdir()
    os.mknod(dev / "null", stat.S_IFBLK | 0o666, os.makedev(1, 3))
    (bundle.rootfs / "masked").write_text("secret")
    without_dev(bundle)
    bundle.mount("/dev", "none", str(dev), "bind")
    bundle.linux["maskedPaths"] = ["/masked"]
    bundle.process["args"] = ["stat", "-c", "%F", "/masked"]
    done = runtime.run(bundle, stdin=subprocess.PIPE)
    assert done.stdout == "character special file\n", done.stderr


@pytest.mark.parametrize("own", [True, False])
def test_a_mask_is_no_way_to_the_hosts_null_device(
    runtime: Runtime, bundle: Bundle, own: bool
) -> None:
    """What masks a file is bound into the container: were it the host's node, its mode would be the container's."""
    if not own:
        dev = bundle.path / "dev"
        dev.mkdir()
        without_dev(bundle)
        bundle.mount("/dev", "none", str(dev), "bind")
    (bundle.rootfs / "masked").write_text("secret")
    bundle.linux["maskedPaths"] = ["/masked"]
    for kind in ("bounding", "effective", "permitted"):
        bundle.process["capabilities"][kind] = ["CAP_CHOWN", "CAP_FOWNER"]
    before = os.stat(os.devnull)
    try:
        done = runtime.run(bundle.sh("cat /masked; chmod 600 /masked; chown 1000 /masked; true"))
        after = os.stat(os.devnull)
    finally:
        os.chmod(os.devnull, before.st_mode & 0o7777)
        os.chown(os.devnull, before.st_uid, before.st_gid)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


def test_cve_2025_52565_the_console_is_bound_on_no_link(
    runtime: Runtime, bundle: Bundle, host: Path
) -> None:
    dev = bundle.path / "dev"
    (dev / "pts").mkdir(parents=True)
    (dev / "console").symlink_to("/etc/victim")
    (bundle.rootfs / "etc/victim").write_text("x")
    without_dev(bundle)
    bundle.mount("/dev", "none", str(dev), "bind")
    bundle.mount("/dev/pts", "devpts", "devpts", "newinstance", "ptmxmode=0666")
    bundle.process["terminal"] = True
    with terminal() as ours:
        done = runtime.run(bundle.sh("cat /etc/victim"), stdin=ours)
    assert done.returncode != 0
    assert "/dev/console" in done.stderr


@pytest.mark.parametrize("kind", ["file", "link", "node"])
def test_cve_2026_88264_the_terminal_comes_from_a_real_devpts(
    runtime: Runtime, bundle: Bundle, kind: str
) -> None:
    pts = bundle.path / "pts"
    pts.mkdir()
    (pts / "ptmx").touch() if kind == "file" else (pts / "ptmx").symlink_to("/dev/full")
    bundle.config["mounts"] = [
        mount for mount in bundle.config["mounts"] if mount["destination"] != "/dev/pts"
    ]
    if kind == "node":  # the first file of a tmpfs has the number that a devpts gives its own
        node = {"path": "/dev/pts/ptmx", "type": "c", "major": 5, "minor": 2}
        bundle.mount("/dev/pts", "tmpfs", "tmpfs")
        bundle.linux["devices"] = [node]
    else:
        bundle.mount("/dev/pts", "none", str(pts), "bind")
    bundle.process["terminal"] = True
    with terminal() as ours:
        done = runtime.run(bundle, stdin=ours)
    assert done.returncode != 0
    assert "/dev/pts/ptmx" in done.stderr


def test_cve_2026_41579_a_dev_that_is_a_link_makes_nothing_on_the_host(
    runtime: Runtime, bundle: Bundle, host: Path
) -> None:
    """CVE-2026-47766 is the same of crun."""
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(host)
    without_dev(bundle)
    runtime.run(bundle)
    assert sorted(entry.name for entry in host.iterdir()) == ["victim"]


def test_cve_2026_88265_standard_streams_do_not_follow_a_null_that_is_a_link(
    runtime: Runtime, bundle: Bundle
) -> None:
    without_dev(bundle)
    victim = bundle.rootfs / "etc/victim"
    victim.write_text("x")
    (bundle.rootfs / "dev/null").symlink_to("/etc/victim")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    done = runtime.run(
        bundle.sh("echo over >&2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        capture_output=False,
    )
    assert done.returncode != 0
    assert (victim.read_text(), victim.stat().st_uid) == ("x", 0)


def test_cve_2025_54867_a_root_that_becomes_a_link_is_not_followed(
    bundle: Bundle, host: Path
) -> None:
    """The runtime resolved the root; before init opens it, somebody puts a link there."""
    shutil.rmtree(bundle.rootfs)
    bundle.rootfs.symlink_to(host)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            kernel = LinuxKernel()
            kernel.unshare(CLONE_NEWNS)
            rootfs.prepare(Context(kernel, pair()[1], Proc(kernel)), str(bundle.rootfs), 0, True)
        except OSError as error:
            status = 0 if error.errno in (errno.ELOOP, errno.ENOTDIR) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("kind", ["endless", "fifo", "huge"])
def test_go_2026_5475_the_containers_users_are_read_with_a_limit(
    runtime: Runtime, bundle: Bundle, kind: str
) -> None:
    passwd = bundle.rootfs / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "endless":
        os.mknod(passwd, 0o20666, os.makedev(1, 5))
    else:
        with passwd.open("wb") as file:
            file.truncate(1 << 40)
    bundle.process["args"] = ["env"]
    assert "HOME=/" in runtime.output(bundle).splitlines()


def test_cve_2022_29162_and_27650_exec_leaves_no_inheritable_capability(
    runtime: Runtime, bundle: Bundle
) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    output = runtime.ok(
        "exec", "--cap", "CAP_NET_ADMIN", "--cap", "CAP_SYS_ADMIN", cid, "cat", "/proc/self/status"
    )
    found = dict(line.split(":\t") for line in output.splitlines() if line.startswith("Cap"))
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0


@pytest.fixture
def running(runtime: Runtime, bundle: Bundle) -> str:
    return runtime.start(bundle.sh("exec sleep 100"))


@pytest.mark.parametrize(
    "user",
    [
        "root",
        "0x0",
        "-1",
        " 0",
        "0 ",
        "4294967295",
        "99999999999",
        "1:",
        "1:-1",
        "1:2:3",
        "\u0661",
        "+1",
    ],
)
def test_cve_2026_30892_a_user_is_two_numbers_or_refused(
    runtime: Runtime, running: str, user: str
) -> None:
    done = runtime("exec", "-u", user, running, "id")
    assert done.returncode == 255
    assert "expected a number" in done.stderr
    assert done.stdout == ""


def test_the_sockets_of_the_caller_are_not_the_containers(runtime: Runtime, bundle: Bundle) -> None:
    """Whatever the caller has open, the program has three streams."""
    left, right = socket.socketpair()
    with left, right:
        left.set_inheritable(True)
        bundle.sh("ls /proc/self/fd").write()
        words = runtime.argv(
            "run",
            "-b",
            str(bundle.path),
            "sockets",
        )
        done = subprocess.run(
            words, capture_output=True, text=True, close_fds=False, check=True, timeout=60
        )
        assert done.stdout.split() == ["0", "1", "2", "3"]
