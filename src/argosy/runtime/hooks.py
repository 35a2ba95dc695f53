"""Hooks: programs run with the container's state on their standard input. fork, execve, pidfd, poll; no subprocess.

An entry of ``env`` that names no variable (nothing before a "=") is left out; of two with one name the later counts.
A hook without ``env`` gets an empty environment but for PATH (in ``startContainer`` the process's own, as runc does).
Its working directory is the caller's.
"""

from __future__ import annotations

import posix
from _signal import SIGKILL, strsignal

from argosy.runtime.errors import HookError
from argosy.runtime.jsonio import encode
from argosy.runtime.poll import wait_either

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUTPUT_LIMIT = 4096


def run_hooks(
    hooks: list[dict[str, Any]],
    name: str,
    state: dict[str, Any],
    environment: list[str] | None = None,
) -> None:
    """Run the hooks of one point in their order.

    Args:
        hooks: entries of config.json.
        name: the point, for errors: "prestart", "createRuntime" …
        state: the container's state; sent to each as one line of JSON.
        environment: for hooks that have none of their own.

    Raises:
        HookError: one failed; the later ones are not run.
    """
    document = encode(state).encode()
    for index, hook in enumerate(hooks):
        try:
            _run(hook, document, environment or [PATH])
        except (HookError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise HookError(f"error running {name} hook #{index}: {why}") from error


def _run(hook: dict[str, Any], document: bytes, environment: list[str]) -> None:
    path = hook["path"]
    arguments = hook.get("args") or [path]
    entries = hook.get("env") or environment
    variables = dict(entry.split("=", 1) for entry in entries if entry.find("=") > 0)
    stdin, feed = posix.pipe2(posix.O_CLOEXEC)
    output, stdout = posix.pipe2(posix.O_CLOEXEC)
    complaints, stderr = posix.pipe2(posix.O_CLOEXEC)
    pid = posix.fork()
    if pid == 0:
        _become(path, arguments, variables, (stdin, stdout, stderr))
    for fd in (stdin, stdout, stderr):
        posix.close(fd)
    try:
        _await(pid, path, hook.get("timeout"), (feed, document, output, complaints))
    finally:
        posix.close(output)
        posix.close(complaints)


def _become(
    path: str, arguments: list[str], variables: dict[str, str], streams: tuple[int, int, int]
) -> None:
    try:
        for number, fd in enumerate(streams):
            posix.dup2(fd, number, inheritable=True)
        posix.execve(path, arguments, variables)
    except OSError as error:
        posix.write(2, f"fork/exec {path}: {(error.strerror or '').lower()}".encode())
    finally:
        posix._exit(127)


def _await(pid: int, path: str, timeout: float | None, pipes: tuple[int, bytes, int, int]) -> None:
    from _signal import SIG_IGN, SIGPIPE, signal

    pidfd = posix.pidfd_open(pid)
    before = signal(SIGPIPE, SIG_IGN)
    try:
        stdout, stderr, ended = _converse(pidfd, *pipes, timeout)
    except KeyboardInterrupt:
        posix.kill(pid, SIGKILL)
        raise
    finally:
        signal(SIGPIPE, before)
        posix.close(pidfd)
    if not ended:
        posix.kill(pid, SIGKILL)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    if not ended:
        raise HookError(f"{path} ran longer than its timeout of {timeout} seconds")
    if status:
        how = (
            f"exit status {status}"
            if status > 0
            else f"signal: {(strsignal(-status) or '').lower()}"
        )
        raise HookError(f"{how}, stdout: {_shown(stdout)}, stderr: {_shown(stderr)}")


def _shown(said: bytes) -> str:
    return said.decode("utf-8", "replace").strip()


def _converse(
    pidfd: int, feed: int, document: bytes, output: int, complaints: int, timeout: float | None
) -> tuple[bytes, bytes, bool]:
    """What the hook said on its two streams until it ended; False where its time was up first.

    Meanwhile it is given the state.
    """
    from time import monotonic

    end = monotonic() + timeout if timeout else None
    said = {output: b"", complaints: b""}
    readable, writable = {pidfd, *said}, {feed}
    posix.set_blocking(feed, False)
    try:
        while True:
            left = None if end is None else max(0.0, end - monotonic())
            come, go = wait_either(readable, writable, left)
            if go:
                document = _feed(feed, document)
                if not document:
                    writable.clear()
                    posix.close(feed)
            for fd in said.keys() & come:
                part = posix.read(fd, 65536)
                said[fd] = (said[fd] + part)[:_OUTPUT_LIMIT]
                if not part:
                    readable.discard(fd)
            if come == [pidfd] or not come + go:
                return said[output], said[complaints], bool(come)
    finally:
        for fd in writable:
            posix.close(fd)


def _feed(feed: int, document: bytes) -> bytes:
    """Write what the pipe takes of the state, and return the rest; a hook that does not read it is no error."""
    try:
        return document[posix.write(feed, document) :]
    except BrokenPipeError:
        return b""
