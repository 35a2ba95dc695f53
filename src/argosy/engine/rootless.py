"""Root for somebody who is not: a user namespace in which this very command line runs again as uid 0.

The namespace has the user's subordinate ids where `newuidmap` and /etc/subuid give some, and else only the user. The
process in it has a mount namespace of its own too, so that overlays can be mounted.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence

from argosy.engine.command import program
from argosy.engine.values import PASSED_ON
from argosy.errors import StorageError, UnsupportedError
from argosy.runtime import kernel as kernels

VARIABLE = "ARGOSY_ROOTLESS"
_AWAITED = (*PASSED_ON, signal.SIGWINCH, signal.SIGCHLD)


def needed() -> bool:
    """Whether this process is neither root nor root of a namespace of its own."""
    return os.geteuid() != 0


def mapped(kind: str = "gid") -> int:
    """How many ids this process's user namespace has; 4294967295 in the first one."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        return sum(int(line.split()[2]) for line in file)


def enter(argv: Sequence[str], join: int = 0) -> int:
    """Run a command line of argosy again, as root of a user namespace, and wait for it.

    Args:
        argv: The words after `argosy`.
        join: A process whose user and mount namespaces to enter, if it is there; else they are new ones.

    Returns:
        Its exit code.

    Raises:
        UnsupportedError: the kernel gives no user namespaces to this user.
        StorageError: the ids could not be mapped.
    """
    joined = _namespaces_of(join)
    ready, unshared = os.pipe()
    go, mapped = os.pipe()
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        _child(argv, (ready, unshared), (go, mapped), joined)
    os.close(unshared)
    os.close(go)
    try:
        with os.fdopen(ready, "rb") as told:
            answer = told.read()
        if answer:
            raise UnsupportedError(
                f"this user may not make a user namespace: {answer.decode()}",
                hint="ask for kernel.unprivileged_userns_clone=1, or run as root",
            )
        if not joined:
            _map(child)
        os.write(mapped, b"1")
    finally:
        os.close(mapped)
        code = _wait(child)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return 128 - code if code < 0 else code


def _wait(child: int) -> int:
    """Wait for a child's end and pass signals on meanwhile, but for the terminal's: those have reached it, too."""
    while True:
        came = signal.sigwaitinfo(_AWAITED)
        if came.si_signo != signal.SIGCHLD:
            if came.si_code <= 0:  # a process sent it, not the kernel
                os.kill(child, came.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


def _namespaces_of(pid: int) -> list[int]:
    """Descriptors of a process's user and mount namespaces; none where it is gone."""
    if not pid:
        return []
    try:
        return [
            os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            for kind in ("user", "mnt")
        ]
    except OSError:
        return []


def _child(
    argv: Sequence[str], ready: tuple[int, int], go: tuple[int, int], joined: Sequence[int]
) -> None:
    os.close(ready[0])
    os.close(go[1])
    try:
        kernel = kernels.LinuxKernel()
        for fd in joined:
            kernel.setns(fd, 0)
        if not joined:
            kernel.unshare(kernels.CLONE_NEWUSER | kernels.CLONE_NEWNS)
    except OSError as exc:
        os.write(ready[1], os.strerror(exc.errno or 0).lower().encode())
        os._exit(125)
    os.close(ready[1])
    if os.read(go[0], 1) != b"1":
        os._exit(125)
    os.setgid(0)
    os.setuid(0)
    env = {**os.environ, VARIABLE: "1"}
    os.execve(sys.executable, [sys.executable, "-P", "-m", "argosy", *argv], env)


def _map(pid: int) -> None:
    """Write the namespace's id maps: with subordinate ids by their helpers, or this user alone."""
    for kind, own in (("uid", os.getuid()), ("gid", os.getgid())):
        ranges = subordinate(f"/etc/sub{kind}")
        if ranges:
            argv = [program(f"new{kind}map", "subordinate ids"), str(pid), "0", str(own), "1"]
            inside = 1
            for first, count in ranges:
                argv += [str(inside), str(first), str(count)]
                inside += count
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise StorageError(f"new{kind}map: {done.stderr.strip()[:200]}")
            continue
        if kind == "gid":
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/{kind}_map", f"0 {own} 1")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as exc:
        raise StorageError(f"{path}: {os.strerror(exc.errno or 0).lower()}") from exc


def subordinate(path: str) -> list[tuple[int, int]]:
    """The ranges of ids that a file like /etc/subuid or /etc/subgid gives this user: the first id and how many.

    The user is who the kernel says, as for the helpers that write the map; $USER and $LOGNAME say what they like.
    """
    names = {str(os.getuid())}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    try:
        with open(path, encoding="utf-8") as file:
            rows = [line.strip().split(":") for line in file.read(1 << 20).splitlines()]
    except OSError:
        return []
    return [
        (int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3 and row[0] in names and row[1].isdecimal() and row[2].isdecimal()
    ]
