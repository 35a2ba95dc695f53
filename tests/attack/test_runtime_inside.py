"""Attacks on what the runtime does between the host and the container: imports, procfs, paths, masks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argosy.runtime import cgroupmount, inroot, launcher
from argosy.runtime.kernel import CLONE_NEWNS, KernelError, LinuxKernel
from argosy.runtime.lock import lock
from argosy.runtime.mountplan import parse
from tests.runtime.bundlekit import (
    Bundle,
    Runtime,
    bundle,
    launcher_path,
    needs_root,
    runtime,
    terminal,
)

__all__ = ["bundle", "launcher_path", "runtime"]


def in_child(body: Callable[[], None]) -> str:
    """Run something in a process with a mount namespace of its own; "" or the exception's text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            LinuxKernel().unshare(CLONE_NEWNS)
            LinuxKernel().mount(None, b"/", None, 1 << 18 | 16384, None)
            body()
        except BaseException as error:
            os.write(
                writer, f"{type(error).__name__}: {error} {getattr(error, 'errno', '')}".encode()
            )
        finally:
            os._exit(0)
    os.close(writer)
    text = b""
    while part := os.read(reader, 65536):
        text += part
    os.close(reader)
    os.waitpid(pid, 0)
    return text.decode()


def test_cve_2019_14271_nothing_can_be_imported_after_the_lock() -> None:
    def body() -> None:
        lock()
        for name in ("json", "encodings.idna", "zipfile"):
            sys.modules.pop(name, None)
            try:
                __import__(name)
            except ImportError:
                continue
            raise AssertionError(name)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_cve_2019_14271_after_the_lock_the_launcher_reads_no_more_of_its_code(
    launcher_path: Path,
) -> None:
    """Its file is opened by a path, and inside of a container that path is the container's."""
    script = f"""
import sys
def run(*_):
    import argosy.runtime.errors
    from argosy.runtime.lock import lock
    lock()
    import argosy.runtime.shape  # of a part that is read already
    try:
        import argosy.runtime.features
    except ImportError:
        print("refused")
boot = type(sys)("argosy.runtime.boot")
boot.run = run
sys.modules["argosy.runtime.boot"] = boot
exec(open({str(launcher_path)!r}).read(), {{"__file__": {str(launcher_path)!r}}})
"""
    command = [launcher.interpreter(), "-IS", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def traced(runtime: Runtime, tmp_path: Path, *words: str) -> list[str]:
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-s",
        "256",
        "-o",
        str(trace),
        "-e",
        "trace=open,openat,openat2,execve,pivot_root,setns,chroot",
    ]
    with terminal() as ours:
        done = subprocess.run(
            [*command, *runtime.argv(*words)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=ours,
        )
    assert done.returncode == 0, done.stderr
    return trace.read_text().splitlines()


def opened_inside(lines: list[str], door: str) -> list[str]:
    """What a process opened between entering the container and its execve."""
    entered: dict[str, list[str]] = {}
    gone: set[str] = set()
    for line in lines:
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.startswith(f"{door}(") and "= 0" in call:
            entered.setdefault(pid, [])
        elif call.startswith("execve(") and pid in entered:
            gone.add(pid)
        elif pid in entered and pid not in gone and call.startswith("open"):
            entered[pid].append(call)
    assert entered
    return [call for calls in entered.values() for call in calls]


FORBIDDEN = re.compile(
    r'\.py|\.so|\.pyc|\.zip|/lib|locale|gconv|nsswitch|ld\.so|\.code"|encodings|localtime'
)


@needs_strace
@pytest.mark.parametrize("extras", ["plain", "everything"])
def test_cve_2019_14271_init_opens_nothing_of_pythons_inside_the_container(
    runtime: Runtime, bundle: Bundle, tmp_path: Path, extras: str
) -> None:
    if extras == "everything":
        bundle.process.update(
            terminal=True, oomScoreAdj=1, user={"uid": 1000, "gid": 1000, "additionalGids": [4]}
        )
        bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 1}
        bundle.mount("/data", "tmpfs", "tmpfs", "tmpcopyup")
        bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
        bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
        bundle.config["hooks"] = {
            "startContainer": [{"path": "/bin/true"}],
            "createContainer": [{"path": "/bin/true"}],
        }
        bundle.config["domainname"] = "x"
    bundle.write()
    opened = opened_inside(
        traced(runtime, tmp_path, "run", "-b", str(bundle.path), f"tr-{extras}"), "pivot_root"
    )
    assert opened
    assert [call for call in opened if FORBIDDEN.search(call)] == []


@needs_strace
def test_cve_2019_14271_a_failing_init_opens_no_sources_for_its_traceback(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.nothing": "1"}
    bundle.write()
    with pytest.raises(AssertionError, match="net/ipv4/nothing"):
        traced(runtime, tmp_path, "run", "-b", str(bundle.path), "failing")
    lines = (tmp_path / "trace").read_text().splitlines()
    assert [call for call in opened_inside(lines, "pivot_root") if FORBIDDEN.search(call)] == []


@needs_strace
def test_cve_2019_14271_exec_opens_nothing_of_pythons_inside_either(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    lines = traced(runtime, tmp_path, "exec", cid, "true")
    assert [call for call in opened_inside(lines, "setns") if FORBIDDEN.search(call)] == []


@needs_root
@pytest.mark.parametrize("begin", ["net", "fs/mqueue/..", "net/.", "net/ipv4/.."])
def test_cve_2022_0811_a_sysctl_of_a_namespace_leads_to_none_of_the_machine(
    runtime: Runtime, bundle: Bundle, begin: str
) -> None:
    """By its beginning it is the container's own; what follows leads out, and core_pattern would be a root shell."""
    place = Path("/proc/sys/kernel/printk_ratelimit")
    before = place.read_text()
    bundle.linux["sysctl"] = {f"{begin}/../kernel/printk_ratelimit": str(int(before) + 1)}
    try:
        assert "is not the name of a sysctl" in runtime.run(bundle).stderr
        assert place.read_text() == before
    finally:
        place.write_text(before)


@needs_root
@pytest.mark.parametrize(
    ("kind", "file", "key"),
    [("ipc", "ipc", "kernel.shmmni"), ("network", "net", "net.core.somaxconn"), ("uts", "uts", "kernel.domainname")],
)  # fmt: skip
def test_cve_2022_0532_a_joined_namespace_of_the_machine_has_none_of_the_containers_sysctls(
    runtime: Runtime, bundle: Bundle, kind: str, file: str, key: str
) -> None:
    place = Path("/proc/sys") / key.replace(".", "/")
    before = place.read_text()
    bundle.namespace(kind, f"/proc/{os.getpid()}/ns/{file}")
    bundle.config.pop("hostname")
    bundle.linux["sysctl"] = {key: "4242"}
    try:
        assert f'sysctl \\"{key}\\"' in runtime.run(bundle).stderr
        assert place.read_text() == before
    finally:
        place.write_text(before)


@needs_root
def test_cve_2025_23266_hooks_on_the_host_get_no_variable_of_the_container(
    runtime: Runtime, bundle: Bundle
) -> None:
    """The image names a library of its own to be loaded; createContainer hooks even run in its root directory."""
    bundle.process["env"] += ["LD_PRELOAD=./evil.so", "LD_AUDIT=./evil.so"]
    names = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    seen = {name: bundle.path / name for name in names}
    bundle.config["hooks"] = {
        name: [{"path": "/bin/sh", "args": ["sh", "-c", f"env > {path}"]}]
        for name, path in seen.items()
    }
    runtime.output(bundle.sh("echo $LD_PRELOAD"))
    for path in seen.values():
        assert "PATH=" in path.read_text()
        assert "evil" not in path.read_text()


@needs_root
@pytest.mark.parametrize("openat2", [True, False])
def test_cve_2025_52881_a_write_to_proc_is_not_redirected_by_a_mount(openat2: bool) -> None:
    """Something is mounted over the file, in the host's /proc that stands in where no procfs can be made.

    CVE-2025-62596 is the same of youki.
    """

    def body() -> None:
        kernel = LinuxKernel()
        proc = inroot.Proc(kernel)
        proc._own = proc.host
        if not openat2:
            kernel.openat2 = refuse  # type: ignore[method-assign, assignment]
        kernel.mount(b"/dev/null", b"/proc/sys/kernel/msgmax", None, 4096, None)
        proc.write(b"sys/kernel/msgmax", b"1")

    assert in_child(body).startswith(
        ("KernelError: openat2: Invalid cross-device link", "OSError: [Errno 18]")
    )


def refuse(*_: Any) -> int:
    raise KernelError(38, "Function not implemented", "openat2")


@needs_root
def test_cve_2025_52881_a_procfs_that_is_none_is_refused() -> None:
    def body() -> None:
        LinuxKernel().mount(b"tmpfs", b"/proc", b"tmpfs", 0, None)
        inroot.Proc(LinuxKernel())

    assert "is not the root of a procfs" in in_child(body)


@needs_root
def test_cve_2025_52881_a_link_in_proc_is_refused() -> None:
    def body() -> None:
        inroot.Proc(LinuxKernel()).write(b"self/oom_score_adj", b"1")

    assert "Too many levels of symbolic links" in in_child(body)


class TestPathsInARoot:
    """Every way of resolving, with `openat2` and without (an outer seccomp profile may forbid it)."""

    @pytest.fixture(params=[True, False], ids=["openat2", "walk"])
    def root(self, request: pytest.FixtureRequest, tmp_path: Path) -> inroot.Root:
        place = tmp_path / "root"
        (place / "dir/inner").mkdir(parents=True)
        (place / "file").write_text("inside")
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/file").write_text("outside")
        os.symlink("/dir", place / "absolute")
        os.symlink("../../../../../../..", place / "up")
        os.symlink(str(tmp_path / "outside"), place / "out")
        os.symlink("loop", place / "loop")
        os.symlink("/proc/self/root", place / "magic")
        kernel = LinuxKernel()
        return inroot.Root(
            kernel, os.open(place, inroot.O_DIR), inroot.Proc(kernel), openat2=request.param
        )

    def where(self, root: inroot.Root, fd: int) -> str:
        base = os.readlink(f"/proc/self/fd/{root.fd}")
        path = os.readlink(f"/proc/self/fd/{fd}")
        os.close(fd)
        assert path == base or path.startswith(base + "/")
        return path[len(base) :]

    @pytest.mark.parametrize(
        ("path", "found"),
        [("/", ""), ("..", ""), ("/../../file", "/file"), ("absolute/inner", "/dir/inner"), ("up/file", "/file"),
         ("dir/../../..//dir/./inner", "/dir/inner"), ("absolute/../file", "/file")],
    )  # fmt: skip
    def test_what_is_there(self, root: inroot.Root, path: str, found: str) -> None:
        assert self.where(root, root.open(path)) == found

    @pytest.mark.parametrize("path", ["out/file", "loop", "none", "file/x", "magic/etc"])
    def test_what_is_not(self, root: inroot.Root, path: str) -> None:
        with pytest.raises(OSError, match=r"."):
            root.open(path)

    def test_made_directories_stay_inside(self, root: inroot.Root, tmp_path: Path) -> None:
        self.where(root, root.mkdir("out/new/deep"))
        self.where(root, root.mkdir("up/../up/etc2"))
        self.where(root, root.create_file("out/made/file"))
        root.symlink("x", "out/made/link")
        assert [entry.name for entry in (tmp_path / "outside").iterdir()] == ["file"]

    def test_a_link_is_refused_where_none_may_be(self, root: inroot.Root) -> None:
        for path in ("absolute", "absolute/inner", "absolute/new"):
            with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
                root.mkdir(path, symlinks=False)

    def test_a_file_that_is_there_is_not_opened_for_another(self, root: inroot.Root) -> None:
        with pytest.raises(FileExistsError):
            root.create_file("file")

    def test_no_descriptor_is_left_open(self, root: inroot.Root) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for path in ("out/file", "loop", "none/x", "file/x"):
            with pytest.raises(OSError, match=r"."):
                root.open(path)
        os.close(root.mkdir("a/b/c"))
        assert len(os.listdir("/proc/self/fd")) == before


def test_cve_2023_25809_without_a_cgroup_namespace_the_hosts_cgroups_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rootless, outside of any delegation: the mount fails, the bind finds nothing, a read-only tmpfs is left."""
    made: list[dict[str, Any]] = []

    def mount(_context: Any, _index: int, entry: dict[str, Any], _label: str) -> None:
        made.append(entry)
        error = {
            1: KernelError(1, "Operation not permitted", "fsmount"),
            2: KernelError(2, "No such file", "open_tree"),
        }
        if len(made) in error:
            raise error[len(made)]

    class Situation:
        own_cgroup = True
        cgroup_path = "/sys/fs/cgroup/mine"
        rootless = True

    monkeypatch.setattr(cgroupmount, "mount", mount)
    entry = parse(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}, "mounts[0]"
    )
    cgroupmount._unified(Situation(), 0, entry, "")  # type: ignore[arg-type]
    assert [one["type"] for one in made] == ["cgroup2", "bind", "tmpfs"]
    assert made[-1]["set"] & 1


def test_the_launcher_refuses_code_that_others_may_change(runtime: Runtime, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    launcher.write(str(tmp_path / "argosy-runtime"))
    (tmp_path / "argosy-runtime.code").chmod(0o666)
    done = subprocess.run(
        [str(tmp_path / "argosy-runtime"), "run", "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "can be changed by others than root" in done.stderr


@pytest.mark.parametrize("name", ["maskedPaths", "readonlyPaths"])
def test_a_path_to_hide_that_cannot_be_opened_is_not_passed_over(
    runtime: Runtime, bundle: Bundle, name: str
) -> None:
    """Only what is not there needs no mask: a link in a circle is there, and may be something else later."""
    (bundle.rootfs / "circle").symlink_to("circle")
    bundle.linux[name] = ["/not/there", "/etc/passwd/x", "/circle"]
    done = runtime.run(bundle.sh("echo reached"))
    assert (done.returncode, done.stdout) == (1, "")
    assert 'can\'t open \\"/circle\\"' in done.stderr
