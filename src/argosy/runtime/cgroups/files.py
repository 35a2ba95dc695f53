"""Control files: what a cgroup's directory holds, read and written whole.

Every value goes to the kernel in one write, since the kernel takes each write as one order. A refusal names the value
and the file in the wording of runc, which clients match.
"""

from __future__ import annotations

import errno
import posix
from time import sleep

from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 4 << 20
"""The most of one control file that is read, in bytes; a `memory.stat` has about 4 KiB."""

_FOLDER = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC

TRIES = 100
"""How often a write that the kernel interrupted is repeated."""


class ControlError(Failure):
    """The kernel refused to make, read, write or remove something of a cgroup.

    Attributes:
        errno: The kernel's reason.
    """

    def __init__(self, doing: str, path: str, error: OSError) -> None:
        super().__init__(f"{doing} {path}: {posix.strerror(error.errno or 0).lower()}")
        self.errno = error.errno


def read(path: str) -> str:
    """Return the text of a control file.

    Raises:
        ControlError: The file cannot be read; `errno` says why.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise ControlError("open", path, error) from None
    try:
        return _drain(fd).decode("utf-8", "replace")
    except OSError as error:
        raise ControlError("read", path, error) from None
    finally:
        posix.close(fd)


def _drain(fd: int) -> bytes:
    parts = []
    left = LIMIT
    while left > 0:
        part = posix.read(fd, min(left, 65536))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_or(path: str, otherwise: str) -> str:
    """Return the text of a control file, or `otherwise` when the kernel does not have it."""
    try:
        return read(path)
    except ControlError as failure:
        if failure.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return otherwise
        raise


def write(path: str, value: str) -> None:
    """Write one value to a control file.

    Raises:
        ControlError: The kernel refused; `errno` says why.
    """
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise ControlError(f'failed to write "{value}": open', path, error) from None
    try:
        _write_once(fd, value.encode())
    except OSError as error:
        raise ControlError(f'failed to write "{value}": write', path, error) from None
    finally:
        posix.close(fd)


def _write_once(fd: int, data: bytes) -> None:
    for _ in range(TRIES - 1):
        try:
            posix.write(fd, data)
            return
        except (
            InterruptedError
        ):  # a Python signal handler ran; memory limits reclaim and are interruptible
            continue
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
    posix.write(fd, data)


def exists(path: str) -> bool:
    """Tell whether something is at `path`."""
    return posix.access(path, posix.F_OK)


def pairs(text: str) -> dict[str, int]:
    """Return the numbers of a flat keyed file such as `memory.stat`; lines of another shape are left out.

    >>> pairs("oom 0\\noom_kill 3\\n")
    {'oom': 0, 'oom_kill': 3}
    """
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.lstrip("-").isdigit():
            found[key] = int(value)
    return found


def pids_in(path: str) -> list[int]:
    """Return the processes of the cgroup at `path` itself; none when it is gone."""
    try:
        text = read_or(path + "/cgroup.procs", "")
        if not text and exists(path + "/cgroup.threads"):
            text = read_or(path + "/cgroup.threads", "")
    except ControlError as failure:
        if failure.errno == errno.ENODEV:
            return []
        raise
    return [int(line) for line in text.split()]


def below(path: str) -> Iterator[str]:
    """Yield a path of every cgroup below `path` and of itself, leaves first; nothing when it is gone.

    Each path is good until the next one is asked for. None grows with the depth: a container that may make cgroups
    makes them deeper than a path may be long.
    """
    try:
        here = posix.open(path, _FOLDER)
    except FileNotFoundError:
        return
    levels = [("", _folders(here))]
    try:
        while True:
            name, left = levels[-1]
            if left:
                here = _descend(here, left.pop(), levels)
            elif len(levels) > 1:
                levels.pop()
                here = _moved(here, "..")
                yield f"/proc/self/fd/{here}/{name}"
            else:
                break
    finally:
        posix.close(here)
    yield path


def _descend(here: int, name: str, levels: list[tuple[str, list[str]]]) -> int:
    """Go down one level, unless it is gone."""
    try:
        here = _moved(here, name)
    except FileNotFoundError:
        return here
    levels.append((name, _folders(here)))
    return here


def _moved(here: int, name: str) -> int:
    there = posix.open(name, _FOLDER, dir_fd=here)
    posix.close(here)
    return there


def _folders(fd: int) -> list[str]:
    try:
        with posix.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def make(path: str) -> list[str]:
    """Make the cgroup at `path` and its parents; return what was made, parents first.

    When it fails, what was made is removed again.
    """
    made: list[str] = []
    try:
        made.extend(part for part in parents(path) if _make_one(part))
    except OSError as error:
        unmake(made)
        raise ControlError("mkdir", path, error) from None
    return made


def _make_one(path: str) -> bool:
    if exists(path):
        return False
    try:
        posix.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True


def parents(path: str) -> list[str]:
    """Return every directory on the way to `path`, and `path` itself.

    >>> parents("/a/b")
    ['/a', '/a/b']
    """
    parts = [part for part in path.split("/") if part]
    return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]


def unmake(made: list[str]) -> None:
    """Remove the directories that `make` made, as far as they are empty."""
    for path in reversed(made):
        try:
            posix.rmdir(path)
        except OSError:  # gone, or in use by others by now
            continue


def remove(path: str, *, patience: float = 5.0) -> None:
    """Remove the cgroup at `path` and all below it.

    A cgroup whose last process is still dying is busy, so that is tried again, at most for `patience` seconds.

    Raises:
        ControlError: It is still busy, or the kernel refused.
    """
    pause = 0.001
    while True:
        busy = _remove_once(path)
        if busy is None:
            return
        if busy.errno not in (errno.EBUSY, errno.ENOTEMPTY) or patience <= 0:
            raise ControlError("unable to remove cgroup: rmdir", path, busy)
        sleep(pause)
        patience -= pause
        pause = min(pause * 2, 0.1)


def _remove_once(path: str) -> OSError | None:
    """Remove the tree once, leaves first; return what stopped it."""
    try:
        posix.rmdir(path)  # nearly always there is nothing below
        return None
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            return error
    for each in below(path):
        try:
            posix.rmdir(each)
        except FileNotFoundError:
            continue
        except OSError as error:
            return error
    return None
