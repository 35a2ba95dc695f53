"""Runtime configurations made and edited: pure functions from one `config.json` to another.

`example` is what `runc spec` writes. Every `with_…` function takes a configuration and returns a new one that shares
what did not change; what is wrong is an `InvalidConfigError` that names the property. They go one after the other:

>>> config = with_args(example(unified=True), ["sleep", "9"])
>>> config = with_env(config, {"A": "1"})
>>> config["process"]["args"], config["process"]["env"][-1]
(['sleep', '9'], 'A=1')
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from argosy.bundle.convert import as_rootless, default_config, with_id_maps
from argosy.bundle.rules import CAPABILITIES, RLIMITS
from argosy.bundle.schema import CAPABILITY_SETS, HOOKS, parts, violations
from argosy.bundle.schema import CONFIG as SCHEMA
from argosy.bundle.seccompprofile import default_profile
from argosy.errors import InvalidConfigError

__all__ = [
    "as_rootless",
    "example",
    "with_annotations",
    "with_args",
    "with_capabilities",
    "with_device",
    "with_env",
    "with_hook",
    "with_id_maps",
    "with_mount",
    "with_namespace",
    "with_property",
    "with_resources",
    "with_rlimit",
    "with_seccomp",
    "with_sysctls",
    "with_user",
    "without",
    "without_env",
    "without_mount",
    "without_namespace",
]

Config = dict[str, Any]

VERSION = "1.3.0"
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm")


def example(*, unified: bool | None = None) -> Config:
    """The configuration `runc spec` writes: a shell in a terminal, in namespaces of its own, with few rights.

    Args:
        unified: Whether the machine has cgroup version 2 alone, which gets a cgroup namespace; None to look.
    """
    config = default_config(terminal=True, hostname="argosy")
    if unified is None:
        unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    config = with_property(config, "ociVersion", VERSION)
    config = with_property(config, "process.env", list(_ENVIRONMENT))
    config = with_property(config, "root", {"path": "rootfs", "readonly": True})
    return config if unified else without_namespace(config, "cgroup")


def with_property(config: Mapping[str, Any], name: str, value: Any) -> Config:
    """Set any property by its name, with its parents where they are missing.

    Args:
        config: The old configuration.
        name: As `linux.resources.memory.limit`; names of properties, not places in arrays.
        value: A JSON value of the property's shape.

    Raises:
        InvalidConfigError: The specification has no such property, or the value has another shape.

    >>> with_property({}, "process.user.uid", 5)
    {'process': {'user': {'uid': 5}}}
    """
    path = tuple(name.split("."))
    try:
        schema = parts(SCHEMA, path)
    except KeyError:
        raise InvalidConfigError(f"{name}: runtime-spec {VERSION} has no such property") from None
    for where, why in violations(value, schema, name):
        raise InvalidConfigError(f"{where}: {why}")
    return _change(config, path, lambda _: value)


def without(config: Mapping[str, Any], name: str) -> Config:
    """Remove a property by its name; one that is not there stays away.

    >>> without({"process": {"user": {}, "cwd": "/"}}, "process.user")
    {'process': {'cwd': '/'}}
    """
    *above, last = name.split(".")
    inner: Any = config
    for part in above:
        inner = (inner or {}).get(part)
    if not inner or last not in inner:
        return dict(config)
    kept = {key: value for key, value in inner.items() if key != last}
    return _change(config, tuple(above), lambda _: kept) if above else kept


def _change(config: Mapping[str, Any], path: Sequence[str], change: Callable[[Any], Any]) -> Config:
    """A copy with one property changed; the function gets None where it was not there."""
    first, rest = path[0], path[1:]
    old = config.get(first)
    return {**config, first: _change(old or {}, rest, change) if rest else change(old)}


def with_args(config: Mapping[str, Any], args: Sequence[str]) -> Config:
    """Set the program and its arguments.

    Raises:
        InvalidConfigError: There is none.
    """
    if not args:
        raise InvalidConfigError("process.args: expected at least one argument")
    return with_property(config, "process.args", list(args))


def with_env(config: Mapping[str, Any], variables: Mapping[str, str]) -> Config:
    """Set variables of the environment; others stay, and those that are there keep their place.

    Raises:
        InvalidConfigError: A name is none.
    """
    for name in variables:
        if not name or "=" in name or "\0" in name:
            raise InvalidConfigError(f"process.env: {name!r} is no variable's name")
    have = list((config.get("process") or {}).get("env") or ())
    names = [item.partition("=")[0] for item in have]
    kept = [
        f"{name}={variables[name]}" if name in variables else item
        for name, item in zip(names, have, strict=True)
    ]
    new = [f"{name}={value}" for name, value in variables.items() if name not in names]
    return with_property(config, "process.env", [*kept, *new])


def without_env(config: Mapping[str, Any], names: Collection[str]) -> Config:
    """Remove variables of the environment."""
    have = (config.get("process") or {}).get("env") or ()
    return with_property(
        config, "process.env", [item for item in have if item.partition("=")[0] not in names]
    )


def with_user(config: Mapping[str, Any], uid: int, gid: int, groups: Iterable[int] = ()) -> Config:
    """Set who the process runs as, by numbers inside the container."""
    user: Config = {"uid": uid, "gid": gid}
    more = list(groups)
    if more:
        user["additionalGids"] = more
    return with_property(config, "process.user", user)


def with_mount(config: Mapping[str, Any], mount: Mapping[str, Any]) -> Config:
    """Add a mount at the end, or replace the one at its destination, where it is.

    Args:
        config: The old configuration.
        mount: An object of `mounts`.

    Raises:
        InvalidConfigError: It is no mount.
    """
    for where, why in violations(dict(mount), parts(SCHEMA, ("mounts", "*")), "mounts"):
        raise InvalidConfigError(f"{where}: {why}")
    mounts = list(config.get("mounts") or ())
    places = [each["destination"] for each in mounts]
    if mount["destination"] in places:
        mounts[places.index(mount["destination"])] = dict(mount)
    else:
        mounts.append(dict(mount))
    return {**config, "mounts": mounts}


def without_mount(config: Mapping[str, Any], destination: str) -> Config:
    """Remove the mount at a destination.

    Raises:
        InvalidConfigError: There is none.
    """
    mounts = list(config.get("mounts") or ())
    kept = [each for each in mounts if each["destination"] != destination]
    if len(kept) == len(mounts):
        raise InvalidConfigError(f"mounts: nothing is mounted at {destination}")
    return {**config, "mounts": kept}


def with_namespace(config: Mapping[str, Any], kind: str, path: str = "") -> Config:
    """Give the container a namespace of its own, or join it to the one at `path`."""
    entry = {"type": kind, "path": path} if path else {"type": kind}
    old = (config.get("linux") or {}).get("namespaces") or []
    if any(each["type"] == kind for each in old):
        spaces = [entry if each["type"] == kind else each for each in old]
    else:
        spaces = [*old, entry]
    return with_property(config, "linux.namespaces", spaces)


def without_namespace(config: Mapping[str, Any], kind: str) -> Config:
    """Leave the container in the runtime's namespace of a kind."""
    old = (config.get("linux") or {}).get("namespaces") or ()
    return with_property(config, "linux.namespaces", [each for each in old if each["type"] != kind])


def with_capabilities(
    config: Mapping[str, Any],
    *,
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    sets: Collection[str] = ("bounding", "effective", "permitted"),
) -> Config:
    """Add and drop capabilities; `ALL` stands for all of them, and dropping comes first.

    Args:
        config: The old configuration.
        add: Names, with or without CAP_, in any case.
        drop: Names to take from every set.
        sets: The sets that get more.

    Raises:
        InvalidConfigError: A name or a set is none.
    """
    adding, dropping = _capability_names(add), _capability_names(drop)
    for kind in sets:
        if kind not in CAPABILITY_SETS:
            raise InvalidConfigError(f"process.capabilities: there is no set {kind!r}")
    old = (config.get("process") or {}).get("capabilities") or {}
    made = {}
    for kind in CAPABILITY_SETS:
        kept = [name for name in old.get(kind) or () if name not in dropping]
        if kind in sets:
            kept += sorted(adding.difference(kept))
        if kept or kind in old:
            made[kind] = kept
    return with_property(config, "process.capabilities", made)


def _capability_names(names: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for name in names:
        full = "CAP_" + name.upper().removeprefix("CAP_")
        if full != "CAP_ALL" and full not in CAPABILITIES:
            raise InvalidConfigError(f"process.capabilities: there is no capability {name!r}")
        found |= CAPABILITIES if full == "CAP_ALL" else {full}
    return frozenset(found)


def with_rlimit(config: Mapping[str, Any], kind: str, soft: int, hard: int) -> Config:
    """Set a limit of the process; `kind` may come without RLIMIT_, in any case.

    Raises:
        InvalidConfigError: There is no such limit, or the soft one is above the hard one.
    """
    name = "RLIMIT_" + kind.upper().removeprefix("RLIMIT_")
    if name not in RLIMITS:
        raise InvalidConfigError(f"process.rlimits: there is no {name}")
    if soft > hard:
        raise InvalidConfigError(
            f"process.rlimits: {name}: {soft} is above the hard limit of {hard}"
        )
    old = (config.get("process") or {}).get("rlimits") or ()
    entry = {"type": name, "hard": hard, "soft": soft}
    return with_property(
        config, "process.rlimits", [*(each for each in old if each["type"] != name), entry]
    )


def with_device(
    config: Mapping[str, Any], device: Mapping[str, Any], access: str = "rwm"
) -> Config:
    """Add a device node and the right to use it.

    Args:
        config: The old configuration.
        device: An object of `linux.devices`.
        access: Letters of rwm.

    Raises:
        InvalidConfigError: It is no device.
    """
    old = (config.get("linux") or {}).get("devices") or ()
    devices = [*(each for each in old if each["path"] != device["path"]), dict(device)]
    made = with_property(config, "linux.devices", devices)
    if device["type"] == "p":
        return made
    rule = {"allow": True, "type": "b" if device["type"] == "b" else "c", "major": device["major"]}
    rule |= {"minor": device["minor"], "access": access}
    rules = ((config.get("linux") or {}).get("resources") or {}).get("devices") or ()
    return with_property(made, "linux.resources.devices", [*rules, rule])


def with_resources(config: Mapping[str, Any], section: str, values: Mapping[str, Any]) -> Config:
    """Set limits of one section of `linux.resources`, as `memory`; others of it stay.

    Raises:
        InvalidConfigError: There is no such limit, or the value has another shape.
    """
    made = dict(config)
    for name, value in values.items():
        made = with_property(made, f"linux.resources.{section}.{name}", value)
    return made


def with_sysctls(config: Mapping[str, Any], values: Mapping[str, str]) -> Config:
    """Set kernel parameters of the container's namespaces; others stay."""
    return _change(config, ("linux", "sysctl"), lambda old: {**(old or {}), **values})


def with_annotations(config: Mapping[str, Any], values: Mapping[str, str]) -> Config:
    """Set annotations; others stay."""
    return _change(config, ("annotations",), lambda old: {**(old or {}), **values})


def with_hook(config: Mapping[str, Any], kind: str, hook: Mapping[str, Any]) -> Config:
    """Add a hook at the end of its kind.

    Raises:
        InvalidConfigError: There is no such kind, or it is no hook.
    """
    if kind not in HOOKS:
        raise InvalidConfigError(f"hooks.{kind}: expected one of {', '.join(HOOKS)}")
    old = (config.get("hooks") or {}).get(kind) or ()
    return with_property(config, f"hooks.{kind}", [*old, dict(hook)])


def with_seccomp(
    config: Mapping[str, Any],
    profile: Mapping[str, Any] | None = None,
    *,
    architecture: str = "amd64",
) -> Config:
    """Set the seccomp profile.

    Args:
        config: The old configuration.
        profile: An object of `linux.seccomp`; None for the default one, which allows what the bounding set needs.
        architecture: The image's, for the default profile.
    """
    if profile is None:
        bounding = ((config.get("process") or {}).get("capabilities") or {}).get("bounding") or ()
        profile = default_profile(architecture, bounding)
    return with_property(config, "linux.seccomp", dict(profile))
