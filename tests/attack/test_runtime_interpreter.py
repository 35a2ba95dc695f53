"""The interpreter of the runtime, which no container may write (CVE-2019-5736)."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.runtime import boot, launcher
from tests.runtime.bundlekit import Bundle, Runtime, bundle, launcher_path, runtime

__all__ = ["bundle", "launcher_path", "runtime"]


def unwritable(fd: int) -> bool:
    """On a read-only mount, or in memory and sealed against everything."""
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return True
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & 0xF == 0xF
    except OSError:
        return False


def test_cve_2019_5736_the_interpreter_cannot_be_written_through_init(
    runtime: Runtime, bundle: Bundle
) -> None:
    """What a hostile process keeps open of init's file is on a read-only mount, or sealed: waiting does not help it."""
    pid = runtime.state(runtime.create(bundle))["pid"]
    fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
    try:
        assert unwritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("way", [boot._clone, boot._sealed_copy])
def test_cve_2019_5736_each_way_to_protect_the_interpreter_does(way: Callable[[], int]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    fd = way()
    try:
        assert unwritable(fd)
    finally:
        os.close(fd)


def test_cve_2019_5736_a_dedicated_interpreter_is_covered_at_its_first_start(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    """From then on no start needs a second one: /proc/PID/exe is the file itself, on a mount that is read-only."""
    path = tmp_path / "own" / "argosy-runtime"
    path.parent.mkdir()
    subprocess.run([sys.executable, "-m", "argosy.runtime.launcher", str(path)], check=True)
    program = tmp_path / "own/argosy-runtime.python/bin/python3"
    assert (
        program.stat().st_size == Path(launcher.quicker() or launcher.interpreter()).stat().st_size
    )
    assert not os.path.ismount(program)
    runtime.path = path
    try:
        for _ in range(2):
            pid = runtime.state(runtime.create(bundle))["pid"]
            assert os.readlink(f"/proc/{pid}/exe") == str(program)
            with open(f"/proc/{pid}/exe", "rb") as file:
                assert unwritable(file.fileno())
        assert Path("/proc/self/mounts").read_text().count(str(program)) == 1
    finally:
        runtime.clean()
        remove = [sys.executable, "-m", "argosy.runtime.launcher", "--remove", str(path)]
        subprocess.run(remove, check=True)
    assert list(path.parent.iterdir()) == []
    assert str(program) not in Path("/proc/self/mounts").read_text()


def test_cve_2019_5736_many_first_starts_at_once_all_work_and_leave_nothing_that_stays(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "argosy-runtime"
    launcher.write(str(path), protect=True)
    bundle.write()
    words = [str(path), "--root", str(runtime.root), "run", "-b", str(bundle.path)]
    try:
        started = [subprocess.Popen([*words, runtime.name()]) for _ in range(8)]
        assert [process.wait() for process in started] == [0] * 8
        assert f"{path}.python" in Path("/proc/self/mounts").read_text()
    finally:
        launcher.remove(str(path))
    assert f"{path}.python" not in Path("/proc/self/mounts").read_text()


def test_cve_2019_5736_a_dedicated_interpreter_whose_mount_is_refused_is_sealed_in_memory(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    """Inside of other containers, say, nobody may mount; what is left is a copy that cannot be changed."""
    path = tmp_path / "argosy-runtime"
    launcher.write(str(path), protect=True)
    try:
        script = f"{path} run --bundle /none x; grep -c {path}.python /proc/self/mounts"
        without = ["capsh", "--drop=cap_sys_admin", "--", "-c", script]
        if shutil.which(without[0]) is None:
            pytest.skip("needs capsh, to take CAP_SYS_ADMIN away")
        done = subprocess.run(without, capture_output=True, text=True, check=False)
        assert "JSON specification file /none/config.json not found" in done.stderr
        assert done.stdout == "0\n"
    finally:
        launcher.remove(str(path))


def test_a_launcher_without_an_interpreter_of_its_own_mounts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "argosy-runtime"
    subprocess.run(
        [sys.executable, "-m", "argosy.runtime.launcher", "--plain", str(path)], check=True
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "argosy-runtime",
        "argosy-runtime.code",
    ]
    assert path.read_text().startswith(f"#!{launcher.interpreter()} ")


def test_cve_2019_5736_a_container_that_executes_its_own_interpreter_cannot_write_it(
    runtime: Runtime, bundle: Bundle
) -> None:
    """The published attack: the entry point is a link to /proc/self/exe, and its libraries are the container's."""
    interpreter = Path(os.path.realpath(runtime.path.read_text().split()[0][2:]))
    script = (
        "import posix, fcntl; fd = posix.open('/proc/self/exe', 0); "
        "print(posix.fstatvfs(fd).f_flag & 1 or int(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & 15 == 15))"
    )
    bundle.process["args"] = ["/entry", "-S", "-c", script]
    os.symlink("/proc/self/exe", bundle.rootfs / "entry")
    for place in ("/usr", "/lib", "/lib64", str(interpreter.parents[1])):
        if Path(place).is_dir() and place != "/":
            bundle.mount(place, "none", place, "rbind")
    assert runtime.output(bundle) == "1\n"
