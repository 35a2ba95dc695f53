"""Filters that the kernel takes: what it decides, and what it tells an agent."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import struct
import threading
from collections.abc import Callable

import pytest

from argosy.runtime import libseccomp, seccomp
from argosy.runtime.errors import Failure
from argosy.runtime.kernel import KernelError, LinuxKernel, buffer
from tests.runtime.seccompkit import GETPID, profile, rule

NEEDED = [
    "read", "write", "exit_group", "close", "mmap", "munmap", "brk", "openat", "fstat", "newfstatat", "lseek",
    "rt_sigaction", "rt_sigprocmask", "madvise", "futex", "ioctl", "sendmsg", "poll",
]  # fmt: skip


def in_child(action: Callable[[], int]) -> int:
    """The status of a child that does something: what it returns, or 128 and the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            status = action()
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def loaded(prepared: seccomp.Filter, *calls: int) -> int:
    """The sum of the errnos of calls made under a filter in a child."""
    kernel = LinuxKernel()

    def act() -> int:
        kernel.prctl(38, 1)
        seccomp.load(kernel, prepared)
        total = 0
        for number in calls:
            kernel._numbers["under test"] = number
            try:
                kernel.call("under test", 0)
            except KernelError as error:
                total += error.errno or 0
        return total

    return in_child(act)


def test_the_kernel_takes_the_filter_and_decides_as_said(library: libseccomp.Library) -> None:
    allowed = seccomp.prepare(
        profile("SCMP_ACT_ERRNO", rule(" ".join(NEEDED), "SCMP_ACT_ALLOW"), defaultErrnoRet=13),
        None,
    )
    assert loaded(allowed, GETPID) == 13
    assert loaded(allowed, 435) == 38
    killed = seccomp.prepare(
        profile("SCMP_ACT_ALLOW", rule("getppid", "SCMP_ACT_KILL_PROCESS")), None
    )
    assert loaded(killed, 110) == 128 + 31


def test_the_default_profile_of_podman_loads_and_lets_python_run(
    library: libseccomp.Library, tmp_path: pathlib.Path
) -> None:
    source = pathlib.Path("/usr/share/containers/seccomp.json")
    if not source.exists():
        pytest.skip("podman's default seccomp profile is not installed")
    document = json.loads(source.read_text())
    rules = [
        {
            key: each[key]
            for key in ("names", "action", "args", "errnoRet")
            if each.get(key) is not None
        }
        for each in document["syscalls"]
        if not each.get("includes") and not each.get("excludes")
    ]
    given = {
        "defaultAction": document["defaultAction"],
        "defaultErrnoRet": document["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }
    prepared = seccomp.prepare(given, str(tmp_path / "cache"))
    assert loaded(prepared, GETPID) == 0
    assert loaded(prepared, 246) in (1, 38)  # kexec_load
    assert (
        in_child(lambda: (seccomp.load(LinuxKernel(), prepared), len(os.listdir("/")) and 0)[1])
        == 0
    )


def test_a_notification_reaches_the_agent_with_one_state_and_one_descriptor(
    library: libseccomp.Library, tmp_path: pathlib.Path
) -> None:
    path = str(tmp_path / "agent")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    prepared = seccomp.prepare(
        profile(
            "SCMP_ACT_ALLOW",
            rule("getppid", "SCMP_ACT_NOTIFY"),
            listenerPath=path,
            listenerMetadata="m",
        ),
        None,
    )
    assert prepared.notifies
    assert (prepared.listener_path, prepared.metadata) == (path, "m")
    state = json.dumps(
        {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 1, "pad": "x" * 300000}
    ).encode()
    kernel = LinuxKernel()
    answered: list[bytes] = []

    def agent() -> None:
        peer, _ = listener.accept()
        with peer:
            data, fds, _, _ = socket.recv_fds(peer, 1 << 20, 4)
            while part := peer.recv(1 << 20):
                data += part
        answered.append(data)
        (fd,) = fds
        notification = bytearray(80)
        import fcntl

        fcntl.ioctl(fd, 0xC0502100, notification)
        (number,) = struct.unpack_from("=Q", notification)
        fcntl.ioctl(fd, 0xC0182101, bytearray(struct.pack("=QqiI", number, 0, -77, 0)))
        os.close(fd)

    thread = threading.Thread(target=agent)
    thread.start()

    def act() -> int:
        kernel.prctl(38, 1)
        fd = seccomp.load(kernel, prepared)
        assert fd is not None
        seccomp.send_listener(prepared, fd, state)
        os.close(fd)
        kernel._numbers["under test"] = 110
        try:
            kernel.call("under test")
        except KernelError as error:
            return error.errno or 0
        return 0

    try:
        assert in_child(act) == 77
    finally:
        thread.join(20)
        listener.close()
    assert answered == [state]


def test_an_agent_that_is_not_there_is_an_error(tmp_path: pathlib.Path) -> None:
    prepared = seccomp.Filter(b"", 8, str(tmp_path / "nobody"), None)
    with pytest.raises(
        Failure, match=r"failed to send seccomp descriptor to listener .*/nobody: no such file"
    ):
        seccomp.send_listener(prepared, 0, b"{}")


def test_without_a_notify_rule_the_listener_is_ignored(library: libseccomp.Library) -> None:
    found = seccomp.prepare(
        profile("SCMP_ACT_ALLOW", listenerPath="/x", listenerMetadata="m"), None
    )
    assert (found.listener_path, found.metadata, found.notifies) == (None, None, False)
    assert buffer(bytearray(found.program)) is not None
