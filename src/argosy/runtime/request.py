"""What a container is made from: the command line's wishes and the bundle's configuration."""

from __future__ import annotations

import posix

from argosy.runtime.errors import ConfigError, Failure
from argosy.runtime.jsonio import decode, read_file
from argosy.runtime.judge import check, prune
from argosy.runtime.shape import CONFIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Request:
    """What the command line asks for.

    Attributes:
        root: the state root.
        cid: the container's ID.
        bundle: the bundle's directory.
        waits: ``create`` (a fifo to wait at) or ``run``.
        console: a connected socket for the console's master, or None.
        pidfd: a connected socket for the pidfd, or None.
        attended: ``run`` stays and copies the terminal's bytes.
    """

    def __init__(self, root: str, cid: str, bundle: str, *, waits: bool = True) -> None:
        self.root = root
        self.cid = cid
        self.bundle = bundle
        self.waits = waits
        self.systemd = False
        self.rootless = posix.geteuid() != 0
        self.tolerant = self.rootless
        self.no_cgroups = False
        self.no_pivot = False
        self.keyring = True
        self.preserve_fds = 0
        self.listen_fds = 0
        self.notify = False
        self.console: Any = None
        self.pidfd: Any = None
        self.attended = False


def read_config(bundle: str) -> tuple[dict[str, Any], bytes]:
    """A bundle's config.json, without its null properties: (parsed, bytes).

    Raises:
        Failure: it is missing or not JSON.
        ConfigError: a property is of another type than the specification's.
    """
    path = f"{bundle}/config.json"
    try:
        raw = read_file(path)
    except FileNotFoundError:
        raise Failure(f"JSON specification file {path} not found") from None
    config = prune(decode(raw, path))
    if not isinstance(config, dict):
        raise ConfigError("config.json", "expected an object")
    check(config, CONFIG, "")
    return config, raw


def find_rootfs(bundle: str, config: dict[str, Any]) -> str:
    """The root file system's absolute path, without symbolic links.

    Raises:
        Failure: it is not a directory.
    """
    path = config.get("root", {}).get("path") or ""
    absolute = path if path.startswith("/") else f"{bundle}/{path}"
    try:
        fd = posix.open(absolute, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"invalid rootfs: {absolute}: {(error.strerror or '').lower()}") from error
    try:
        found: str = posix.readlink(f"/proc/self/fd/{fd}")
        return found
    finally:
        posix.close(fd)


def same_file(one: str, other: str) -> bool:
    """Whether two paths lead to one file."""
    first, second = posix.stat(one), posix.stat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def selinux_enabled() -> bool:
    """Whether the kernel enforces or watches SELinux labels: its file system is mounted."""
    try:
        posix.stat("/sys/fs/selinux/enforce")
    except OSError:
        return False
    return True
