"""Where this machine keeps its cgroups: version 1 hierarchies, version 2, or both.

Both is called hybrid: version 1 hierarchies hold some controllers, a cgroup2 mount holds the rest. It counts as
version 1 where the specification asks which of the two is in use.
"""

from __future__ import annotations

from argosy.runtime.cgroups import files
from argosy.runtime.errors import ConfigError

UNIFIED = ""
"""The key of the cgroup2 directory among the directories of a container."""

PREFERRED = "/sys/fs/cgroup"


class Layout:
    """The mounted hierarchies and the caller's own place in them.

    Attributes:
        mounts: Mount point and mounted root of each version 1 controller (or `name=…`), and of cgroup2 under `""`.
        own: The caller's own cgroup, as the kernel names it, by the same keys.
    """

    __slots__ = ("mounts", "own")

    def __init__(self, mounts: dict[str, tuple[str, str]], own: dict[str, str]) -> None:
        self.mounts = mounts
        self.own = own

    @property
    def unified(self) -> bool:
        """Whether version 2 alone is in use."""
        return UNIFIED in self.mounts and not any(
            key and not key.startswith("name=") for key in self.mounts
        )

    def directory(self, controller: str, path: str) -> str:
        """Return the directory of `path` in a controller's hierarchy.

        An absolute path starts at the mount point, a relative one at the caller's own cgroup.
        """
        mount, root = self.mounts[controller]
        if path.startswith("/"):
            return mount + clean(path)
        own = self.own.get(controller, "/")
        inside = own[len(root) :] if root != "/" and (own + "/").startswith(root + "/") else own
        if controller == UNIFIED and self.unified:
            # The caller's own cgroup has processes, so the kernel lets it have no controllers for children.
            inside = inside.rpartition("/")[0]
        return mount + clean(inside + "/" + path)


def discover(mountinfo: str | None = None, own: str | None = None) -> Layout:
    """Find the hierarchies of this machine, as the caller sees them.

    Args:
        mountinfo: The text of `/proc/self/mountinfo`.
        own: The text of `/proc/self/cgroup`.
    """
    if mountinfo is None:
        mountinfo = files.read("/proc/self/mountinfo")
    if own is None:
        own = files.read("/proc/self/cgroup")
    return Layout(parse_mounts(mountinfo), parse_own(own))


def parse_mounts(mountinfo: str) -> dict[str, tuple[str, str]]:
    """Return mount point and mounted root by controller; the mount below `/sys/fs/cgroup` wins over others."""
    found: dict[str, tuple[str, str]] = {}
    for line in mountinfo.splitlines():
        place, _, rest = line.partition(" - cgroup")
        if not rest:
            continue
        fields = place.split(" ")
        entry = (unescape(fields[4]), unescape(fields[3]))
        for key in _controllers(rest):
            if key not in found or not found[key][0].startswith(PREFERRED):
                found[key] = entry
    return found


NOT_CONTROLLERS = frozenset(("rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode"))


def _controllers(rest: str) -> list[str]:
    """Return the keys of one mount, from what follows ` - cgroup` in its line."""
    if rest.startswith("2 "):
        return [UNIFIED]
    options = rest.rpartition(" ")[2].split(",")
    return [o for o in options if o not in NOT_CONTROLLERS and not o.startswith("release_agent=")]


def parse_own(text: str) -> dict[str, str]:
    """Return the cgroup of each controller from the text of `/proc/PID/cgroup`.

    >>> parse_own("3:cpu,cpuacct:/a\\n1:name=systemd:/\\n0::/b\\n")
    {'cpu': '/a', 'cpuacct': '/a', 'name=systemd': '/', '': '/b'}
    """
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def unescape(text: str) -> str:
    """Return a field of mountinfo with its octal escapes undone.

    >>> unescape("/a\\\\040b")
    '/a b'
    """
    if "\\" not in text:
        return text
    head, *parts = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts)


def clean(path: str) -> str:
    """Return `path` from the root, with `.`, `..` and doubled slashes resolved and nothing above the root.

    >>> clean("/a/../../b//c/.")
    '/b/c'
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts) if parts else ""


def checked(path: str) -> str:
    """Return a `cgroupsPath` that can name a cgroup.

    Raises:
        ConfigError: It names the root of a hierarchy, or holds a byte no path may hold.
    """
    if "\0" in path or "\n" in path:
        raise ConfigError(
            "linux.cgroupsPath", f"{path!r} holds a byte that no cgroup's name may hold"
        )
    if not clean(path):
        raise ConfigError(
            "linux.cgroupsPath", f"{path!r} names the root cgroup, which no container may have"
        )
    return path
