"""Mount options to what the kernel is told; pure."""

from __future__ import annotations

from argosy.runtime import kernel as k
from argosy.runtime.errors import ConfigError
from argosy.runtime.tables import (
    ATTRIBUTES,
    BINDS,
    IDMAPS,
    IGNORED_OPTIONS,
    PROPAGATION,
    RECURSIVE_ATTRIBUTES,
    SUPER_FLAGS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KERNEL_OWN = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "tmpfs", "ramfs")


class Attributes:
    """Attributes to set and to clear, the later option winning.

    Attributes:
        set: MOUNT_ATTR_* asked for.
        clear: MOUNT_ATTR_* asked away; holds MOUNT_ATTR__ATIME whole when an access time mode was chosen.
        given: whether any option was seen.
    """

    __slots__ = ("clear", "given", "set")

    def __init__(self) -> None:
        self.set = 0
        self.clear = 0
        self.given = False

    def add(self, pair: tuple[int, int]) -> None:
        """Take one option in."""
        self.given = True
        self.set = self.set & ~(pair[1] | pair[0]) | pair[0]
        self.clear = self.clear & ~pair[0] | pair[1]


def parse(mount: dict[str, Any], where: str, bundle: str = "/", rootfs: str = "") -> dict[str, Any]:
    """One entry of ``mounts`` as the argument of the step ``mount``.

    Args:
        mount: the entry; its shape was checked.
        where: its path in config.json, for errors.
        bundle: what a relative source of a bind is relative to.
        rootfs: a destination that begins with this path is meant below it.

    Returns:
        destination, type (of binds "bind" or "remount"), source, bind (None, "bind" or "rbind"), set, clear,
        attributes (given at all), rset, rclear,
        propagation (pairs of flag and recursion), super (fsconfig flags), data (file system options), ignored (those of
        a bind, for which the kernel has no use), copyup, idmap (None, "idmap" or "ridmap"), uids, gids.

    Raises:
        ConfigError: options that contradict the mount.
    """
    destination = mount.get("destination")
    if not destination:
        raise ConfigError(f"{where}.destination", "is missing")
    if rootfs and destination.startswith(f"{rootfs}/"):
        destination = destination[len(rootfs) :]
    own, recursive = Attributes(), Attributes()
    result: dict[str, Any] = {
        "destination": destination, "type": mount.get("type") or "none", "source": mount.get("source", ""),
        "bind": None, "propagation": [], "super": [], "data": [], "ignored": [], "copyup": False, "idmap": None,
        "uids": mount.get("uidMappings", []), "gids": mount.get("gidMappings", []),
    }  # fmt: skip
    for option in mount.get("options", ()):
        if not _take(option, result, own, recursive):
            result["data"].append(option)
    result.update(
        set=own.set,
        clear=own.clear,
        attributes=own.given,
        rset=recursive.set,
        rclear=recursive.clear,
    )
    _check(result, mount, where)
    if result["bind"] and not result["source"].startswith("/"):
        result["source"] = f"{bundle.rstrip('/')}/{result['source']}"
    return result


def _take(option: str, result: dict[str, Any], own: Attributes, recursive: Attributes) -> bool:
    if option in ATTRIBUTES:
        own.add(ATTRIBUTES[option])
    elif option in PROPAGATION:
        result["propagation"].append(PROPAGATION[option])
    elif option in BINDS:
        result["bind"] = option
    elif option in RECURSIVE_ATTRIBUTES:
        recursive.add(RECURSIVE_ATTRIBUTES[option])
    elif option in SUPER_FLAGS:
        name, on = SUPER_FLAGS[option]
        result["super"] = [flag for flag in result["super"] if flag != name] + [name] * on
    elif option in IDMAPS:
        result["idmap"] = option
    elif option == "tmpcopyup":
        result["copyup"] = True
    else:
        return option in IGNORED_OPTIONS
    return True


def _check(result: dict[str, Any], mount: dict[str, Any], where: str) -> None:
    if result["type"] == "bind" and not result["bind"]:
        result["bind"] = "bind"
    mapped = bool(result["uids"]), bool(result["gids"])
    if result["bind"]:
        again = "remount" in mount.get("options", ())
        result["type"] = "remount" if again else "bind"
        result["ignored"], result["data"] = result["data"], []
        if not result["source"] and not again:
            raise ConfigError(f"{where}.source", "is missing for a bind mount")
    elif result["idmap"] or any(mapped):
        raise ConfigError(where, "id-mapped mounts are only supported for bind-mounts")
    if mapped[0] != mapped[1]:
        raise ConfigError(where, "id-mapped mounts must have both uid and gid mappings specified")
    if any(mapped) and not result["idmap"]:
        result["idmap"] = "idmap"
    if result["copyup"] and result["type"] != "tmpfs":
        raise ConfigError(
            f"{where}.options", f"tmpcopyup is for tmpfs only, not {mount.get('type', 'none')}"
        )
    if (
        result["type"] not in _KERNEL_OWN
        and not result["bind"]
        and result["set"] & k.MOUNT_ATTR_RDONLY
    ):
        result["super"].append("ro")
