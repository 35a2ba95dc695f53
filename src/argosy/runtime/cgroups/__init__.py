"""cgroups: where a container's processes are counted, limited, stopped and killed.

`manager` names the cgroup of a new container, `load` finds that of an old one. Only the driver that is used is loaded,
and its limits and statistics only when they are asked for: `state`, `kill`, `start` and `delete` pay for none of it.
"""

from __future__ import annotations

from argosy.runtime.cgroups import layout as _layout
from argosy.runtime.cgroups.cgroup import Cgroup
from argosy.runtime.errors import ConfigError, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.cgroups.v1 import LegacyCgroup
    from argosy.runtime.cgroups.v2 import UnifiedCgroup

__all__ = ["Cgroup", "disabled", "load", "manager"]


def disabled() -> Cgroup:
    """Return the cgroup of a container that stays in its caller's."""
    return Cgroup({})


def manager(
    cgroups_path: str | None,
    cid: str,
    *,
    systemd: bool,
    rootless: bool,
    resources: dict[str, Any],
    annotations: dict[str, str],
) -> Cgroup:
    """Name the cgroup of a new container; nothing is made before `create`.

    Args:
        cgroups_path: `linux.cgroupsPath`, or None: then the container's id below the caller's own cgroup.
        cid: The container's id.
        systemd: Whether systemd makes the cgroup; `cgroups_path` is then `slice:prefix:name`.
        rootless: Whether missing rights are no error while nobody asked for a cgroup or a limit.
        resources: `linux.resources`.
        annotations: The configuration's annotations, for `org.systemd.property.*`.

    Raises:
        Failure: The path is invalid, or this machine cannot do what is asked.
    """
    found = _layout.discover()
    if resources.get("unified") and not found.unified:
        raise ConfigError("linux.resources.unified", "cannot use unified resources on cgroup v1")
    if systemd:
        from argosy.runtime.cgroups import systemd as _systemd

        return _systemd.manager(
            found,
            cgroups_path,
            cid,
            rootless=rootless,
            annotations=annotations,
            resources=resources,
        )
    path = _layout.checked(cgroups_path or cid)
    return _driver(found.unified).at(found, path, rootless=rootless, asked=bool(cgroups_path))


def _driver(unified: bool) -> type[LegacyCgroup | UnifiedCgroup]:
    if unified:
        from argosy.runtime.cgroups.v2 import UnifiedCgroup

        return UnifiedCgroup
    from argosy.runtime.cgroups.v1 import LegacyCgroup

    return LegacyCgroup


def load(state: dict[str, Any]) -> Cgroup:
    """Return the cgroup that `Cgroup.state` described.

    Raises:
        Failure: The description is of no driver known here.
    """
    driver = state.get("driver")
    paths = dict(state.get("paths") or {})
    rootless, asked = bool(state.get("rootless")), bool(state.get("asked", True))
    if driver in ("v1", "v2"):
        return _driver(driver == "v2")(paths, rootless=rootless, asked=asked)
    if driver == "systemd":
        from argosy.runtime.cgroups import systemd as _systemd

        return _systemd.load(state)
    if driver != "disabled":
        raise Failure(
            f"cgroup driver in the container's state: expected v1, v2, systemd or disabled, got {driver!r}"
        )
    return Cgroup(paths, rootless=rootless, asked=asked)
