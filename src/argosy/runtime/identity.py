"""User namespaces from outside: mappings written, helper processes that hold one, offsets of time namespaces."""

from __future__ import annotations

import posix
from _signal import SIGKILL

from argosy.runtime import kernel as k
from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.runtime.kernel import LinuxKernel

_HELPERS = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")
_CLOCKS = ("monotonic", "boottime")


def _lines(mappings: list[dict[str, int]]) -> bytes:
    return b"".join(b"%d %d %d\n" % (m["containerID"], m["hostID"], m["size"]) for m in mappings)


def write_mappings(
    pid: int, uids: list[dict[str, int]], gids: list[dict[str, int]], *, rootless: bool
) -> None:
    """Give a process's new user namespace its mappings.

    Args:
        pid: the process.
        uids: entries of ``uidMappings``.
        gids: entries of ``gidMappings``.
        rootless: the caller has no privileges: a mapping of itself alone is written directly, others by
            newuidmap(1) and newgidmap(1).

    Raises:
        Failure: the kernel or the helper refused.
    """
    if rootless and _only_self(gids, posix.getegid()):
        _write(pid, "setgroups", b"deny")
    for name, helper, mappings, own in (
        ("gid_map", "newgidmap", gids, posix.getegid()),
        ("uid_map", "newuidmap", uids, posix.geteuid()),
    ):
        if rootless and not _only_self(mappings, own):
            _by_helper(helper, pid, mappings)
        else:
            _write(pid, name, _lines(mappings))


def _only_self(mappings: list[dict[str, int]], own: int) -> bool:
    return len(mappings) == 1 and mappings[0]["size"] == 1 and mappings[0]["hostID"] == own


def _write(pid: int, name: str, data: bytes) -> None:
    path = f"/proc/{pid}/{name}"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, data)
        finally:
            posix.close(fd)
    except OSError as error:
        shown = data.decode().strip().replace("\n", ", ")
        raise Failure(
            f'failed to write "{shown}" to {path}: {(error.strerror or "").lower()}'
        ) from error


def _by_helper(helper: str, pid: int, mappings: list[dict[str, int]]) -> None:
    path = next(
        (
            f"{place}/{helper}"
            for place in _HELPERS
            if posix.access(f"{place}/{helper}", posix.X_OK)
        ),
        None,
    )
    if path is None:
        raise Failure(
            f"{helper} is not installed: without it only the caller's own ID can be mapped"
        )
    words = [str(number) for m in mappings for number in (m["containerID"], m["hostID"], m["size"])]
    child = posix.fork()
    if child == 0:
        try:
            posix.execve(path, [helper, str(pid), *words], {})
        finally:
            posix._exit(127)
    if posix.waitpid(child, 0)[1]:
        raise Failure(
            f"{helper} {pid} {' '.join(words)} failed: is the range in /etc/sub{helper[3:6]}?"
        )


def write_offsets(pid: int, offsets: dict[str, dict[str, int]]) -> None:
    """The clocks of a process's new time namespace (for its children), before anybody is in it."""
    lines = [
        f"{clock} {offsets[clock].get('secs', 0)} {offsets[clock].get('nanosecs', 0)}\n"
        for clock in _CLOCKS
        if clock in offsets
    ]
    _write(pid, "timens_offsets", "".join(lines).encode())


def holder(kernel: LinuxKernel, uids: list[dict[str, int]], gids: list[dict[str, int]]) -> int:
    """A descriptor of a user namespace with these mappings, made by a helper process that is gone again."""
    ready, told = posix.pipe2(posix.O_CLOEXEC)
    pid = posix.fork()
    if pid == 0:
        _hold(kernel, told)
    try:
        posix.close(told)
        if posix.read(ready, 1) != b"1":
            raise Failure("cannot make a user namespace for an id-mapped mount")
        write_mappings(pid, uids, gids, rootless=False)
        return posix.open(f"/proc/{pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC)
    finally:
        posix.close(ready)
        posix.kill(pid, SIGKILL)
        posix.waitpid(pid, 0)


def _hold(kernel: LinuxKernel, told: int) -> None:
    from _signal import pause

    try:
        kernel.prctl(k.PR_SET_PDEATHSIG, SIGKILL)
        kernel.unshare(k.CLONE_NEWUSER)
        posix.write(told, b"1")
        pause()
    finally:
        posix._exit(1)


def host_id(number: int, mappings: list[dict[str, int]]) -> int | None:
    """The host's ID of a container's, None where it is not mapped."""
    for entry in mappings:
        offset = number - entry["containerID"]
        if 0 <= offset < entry["size"]:
            return entry["hostID"] + offset
    return None
