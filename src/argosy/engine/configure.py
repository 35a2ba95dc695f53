"""The runtime configuration of one container: the image's, then Docker's defaults, then what the user said."""

from __future__ import annotations

import dataclasses
import itertools
import os
import resource
from collections.abc import Iterator, Sequence
from typing import Any

from argosy.bundle.convert import runtime_config
from argosy.bundle.inside import read_inside
from argosy.bundle.seccompprofile import default_profile
from argosy.bundle.users import User, resolve_group, resolve_user
from argosy.engine import cgroup, profile, security
from argosy.engine.command import init_program
from argosy.engine.devices import Device
from argosy.engine.mounts import check_sources
from argosy.engine.options import SHM, RunOptions
from argosy.engine.values import Ulimit, pairs, parse_destination
from argosy.errors import InvalidConfigError, StorageError, UsageError
from argosy.layer.resolve import DIRECTORY, Resolver, handle_path
from argosy.runtime.errors import ConfigError
from argosy.runtime.plan import PROGRAM
from argosy.runtime.tables import RLIMITS
from argosy.runtime.validate import check_sysctl, sysctl_name
from argosy.spec.imageconfig import ImageConfig
from argosy.spec.platform import Platform

_CPU_PERIOD = 100_000
_INIT = "/run/argosy-init"
_IPV6 = "/proc/sys/net/ipv6"
_WITHOUT_IPV6 = {"net.ipv6.conf.eth0.disable_ipv6": "1"}
"""The bridge gives no IPv6 addresses: left on, any container could advertise itself to the others as their router
(CVE-2020-10749, CVE-2024-32473). Who wants it says so by --sysctl."""
_OWN_SYSCTLS = (
    "a container's own are kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*, kernel.domainname, and net.*, unless the "
    "network is the host's"
)


def check(options: RunOptions, *, rootless: bool = False) -> None:
    """Refuse what `configure` would refuse whatever the image.

    Raises:
        UsageError: an option cannot be on this machine, or not without root.
        UnsupportedError: a program it needs is not installed.
    """
    profile.capabilities(options.cap_add, options.cap_drop)
    check_sources(options.mounts)
    _sysctls(options)
    if options.init:
        init_program()
    for device in options.devices:
        _check_device(device, options)
        if rootless:
            device.check_unprivileged()
    if rootless:
        for ulimit in options.ulimits:
            _check_ulimit(ulimit)
    elif options.network == "pasta":  # which becomes nobody, who may not enter root's namespaces
        raise UsageError(
            "network pasta is for users other than root", hint="root's own is --network bridge"
        )


def _check_device(device: Device, options: RunOptions) -> None:
    """A device is made in the container, not in a directory of the host that is mounted there."""
    for node, mount in itertools.product(device.nodes(), options.mounts):
        inside = f"{node.path}/".startswith(f"{mount.destination}/")
        below = node.path.removeprefix(mount.destination)
        if inside and mount.kind == "bind" and not os.path.lexists(mount.source + below):
            raise UsageError(
                f"device {node.path}: it would be made in {mount.source} of this machine"
            )


def _check_ulimit(ulimit: Ulimit) -> None:
    """Only root of the machine raises a hard limit."""
    most = resource.getrlimit(RLIMITS[ulimit.kind])[1] % (1 << 64)
    if ulimit.hard > most:
        name = ulimit.kind.removeprefix("RLIMIT_").lower()
        raise UsageError(f"ulimit {name}: without root the hard limit is at most {most}")


def configure(
    config: ImageConfig,
    options: RunOptions,
    *,
    user: User,
    container_id: str,
    rootfs: str,
    files: dict[str, str],
    network_namespace: str | None = None,
    rootless: bool = False,
    ids: int = 1 << 32,
) -> dict[str, Any]:
    """The JSON object of `config.json`.

    Args:
        config: The image's configuration.
        options: What the user said.
        user: Who it runs as, as `find_user` found them.
        container_id: The container's id.
        rootfs: The mounted root file system.
        files: Files of the host to bind over the container's, such as `/etc/hosts`.
        network_namespace: The path of one to join; None makes a new one (none for `--network host`).
        rootless: Leave out what only root may do.
        ids: How many ids there are to own files.

    Raises:
        InvalidConfigError: the image's configuration cannot be run as it stands.
        UsageError: an option cannot be, on this machine or with this image.
    """
    check(options, rootless=rootless)
    hostname = options.hostname_of(container_id)
    made = runtime_config(config, user=user, terminal=options.tty, hostname=hostname, volumes=False)
    made["ociVersion"] = "1.2.0"
    made["root"] = {"path": rootfs, "readonly": options.read_only}
    _process(made["process"], config, options, user, hostname)
    volumes = [*_volumes(config.execution.volumes, options, rootfs)]
    ours = [
        *_files(files, options),
        *(volumes if options.read_only else ()),
        *_init(made["process"], options),
    ]
    _mounts(made["mounts"], options, ours)
    if rootless:
        made["mounts"] = [_unprivileged(mount, options, ids) for mount in made["mounts"]]
    _linux(made["linux"], options, container_id, network_namespace, rootless=rootless)
    _devices(made, options, rootless=rootless)
    for setting in options.security:
        security.apply(made, setting)
    if options.privileged:
        _privileged(made)
    made.setdefault("annotations", {}).update(pairs(options.labels, "label"))
    if options.init:
        made["annotations"][PROGRAM] = arguments(config, options)[0]
    return made


def find_user(text: str, groups: Sequence[str], rootfs: str, ids: int = 1 << 32) -> User:
    """A user as the container knows it, with the groups that were added for the container.

    Args:
        text: `user[:group]`, by name or number; root if empty.
        groups: The groups that were added, by name or number.
        rootfs: The root file system to look in, never through a link that leaves it.
        ids: How many group ids there are.

    Raises:
        InvalidConfigError: a name is not known there.
        UsageError: a group is beyond `ids`.
    """

    def read(path: str, limit: int) -> bytes | None:
        return read_inside(rootfs, path, limit)

    user = resolve_user(text, read)
    added = [resolve_group(group, read) for group in groups]
    beyond = [gid for gid in added if gid >= ids]
    if beyond:
        raise UsageError(
            f"group {beyond[0]} is not to be had: this user has {ids} group ids",
            hint="/etc/subgid gives more",
        )
    return dataclasses.replace(
        user, additional_gids=tuple(dict.fromkeys((*user.additional_gids, *added)))
    )


def one_more(
    process: dict[str, Any],
    command: Sequence[str],
    *,
    user: User | None = None,
    env: Sequence[str] = (),
    workdir: str | None = None,
    terminal: bool = False,
) -> dict[str, Any]:
    """The JSON object of one more process in a container: `process` of its `config.json`, but for what is given here.

    Another user comes with groups of their own and none of the container's.
    """
    made = {**process, "args": list(command), "env": [*process["env"], *env], "terminal": terminal}
    made.pop("consoleSize", None)
    if user:
        made["user"] = identity(user)
    if workdir:
        made["cwd"] = workdir
    return made


def identity(user: User) -> dict[str, Any]:
    """The JSON object `process.user`.

    A user's own group is among the supplementary ones too, as after a login: else a set-group-id program would put it
    off, and with it what it is forbidden (CVE-2022-36109, CVE-2023-25173).
    """
    groups = [user.gid, *(gid for gid in user.additional_gids if gid != user.gid)]
    return {"uid": user.uid, "gid": user.gid, "additionalGids": groups}


def _process(
    process: dict[str, Any], config: ImageConfig, options: RunOptions, user: User, hostname: str
) -> None:
    process["args"] = arguments(config, options)
    env = {"HOSTNAME": hostname, **pairs(process["env"], "env")}
    env.update(pairs(options.env, "env"))
    env.setdefault("HOME", user.home or "/")
    process["env"] = [f"{name}={value}" for name, value in env.items()]
    if options.workdir:
        process["cwd"] = options.workdir
    process["user"] = identity(user)
    process["capabilities"] = _capabilities(options, user)
    process["noNewPrivileges"] = False
    process["rlimits"] = [*{ulimit.kind: ulimit.entry() for ulimit in options.ulimits}.values()]


def arguments(config: ImageConfig, options: RunOptions) -> list[str]:
    """The program and its arguments; another entry point than the image's takes the image's command away, too.

    Raises:
        InvalidConfigError: neither the image nor the user names a program.
    """
    execution, own = config.execution, options.entrypoint is None
    start = execution.entrypoint or () if own else (options.entrypoint or "",)
    # Of a user or an image, this is how Docker is told that there is none.
    found = [] if tuple(start) == ("",) else [*start]
    found += options.command or (execution.cmd or () if own else ())
    if not found:
        raise InvalidConfigError(
            "the image names no command", hint="give one: argosy run IMAGE COMMAND"
        )
    return found


def _capabilities(options: RunOptions, user: User) -> dict[str, list[str]]:
    """As Docker: a user other than root gets a bounding set only, and what was added by name."""
    bounding = profile.capabilities(options.cap_add, options.cap_drop)
    held = (
        bounding if user.uid == 0 else [c for c in bounding if c in profile.named(options.cap_add)]
    )
    return {
        "bounding": bounding,
        "effective": held,
        "permitted": held,
        "inheritable": [],
        "ambient": [],
    }


def _mounts(
    mounts: list[dict[str, Any]], options: RunOptions, ours: Sequence[dict[str, Any]]
) -> None:
    """Put in the user's mounts, and ours where they leave room; what lies in another one comes after it."""
    for mount in options.mounts:
        if mount.make and not os.path.lexists(mount.source):
            _make_source(mount.source)
    for entry in mounts:
        if entry["destination"] == SHM and options.shm_size is not None:
            kept = [option for option in entry["options"] if not option.startswith("size=")]
            entry["options"] = [*kept, f"size={options.shm_size}"]
    taken = {mount.destination for mount in options.mounts}
    mounts[:] = [entry for entry in (*mounts, *ours) if entry["destination"] not in taken]
    mounts += [mount.entry() for mount in options.mounts]
    mounts.sort(key=lambda mount: mount["destination"].count("/"))


def _init(process: dict[str, Any], options: RunOptions) -> list[dict[str, Any]]:
    """Put the host's init before the program, where that was asked for, and mount it."""
    if not options.init:
        return []
    process["args"] = [_INIT, "--", *process["args"]]
    flags = ["bind", "ro", "nosuid", "nodev", "rprivate"]
    return [{"destination": _INIT, "type": "bind", "source": init_program(), "options": flags}]


def _files(files: dict[str, str], options: RunOptions) -> list[dict[str, Any]]:
    """They are as the root file system is: read-only or not."""
    found = [_bound(source, destination) for destination, source in files.items()]
    if options.read_only:
        for mount in found:
            mount["options"].append("ro")
    return found


def _volumes(volumes: Sequence[str], options: RunOptions, rootfs: str) -> Iterator[dict[str, Any]]:
    """The image's volumes, which are made, each bound onto itself: it can be written where the rest cannot.

    It begins with what the image has there, and goes with the container. Where the user mounts something, or above it,
    it is the user's.
    """
    places = [mount.destination for mount in options.mounts]
    for path in volumes:
        destination = parse_destination(path, "the image's Volumes")
        if not any(f"{destination}/".startswith(f"{place}/") for place in places):
            yield _bound(_directory_inside(rootfs, destination), destination)


def _directory_inside(rootfs: str, path: str) -> str:
    """Where a directory of the container is on the host, made if it is not there; no link leads out of the root."""
    top = os.open(rootfs, DIRECTORY)
    try:
        fd = Resolver(top).walk(os.fsencode(path), _make_directory)
    except OSError as exc:
        raise StorageError(f"volume {path}: {os.strerror(exc.errno or 0).lower()}") from exc
    finally:
        os.close(top)
    try:
        return os.readlink(handle_path(fd))
    finally:
        os.close(fd)


def _make_directory(parent: int, name: bytes) -> None:
    os.mkdir(name, 0o755, dir_fd=parent)
    os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103 - whatever the umask


def _bound(source: str, destination: str) -> dict[str, Any]:
    options = ["rbind", "rprivate"]
    return {"destination": destination, "type": "bind", "source": source, "options": options}


def _unprivileged(mount: dict[str, Any], options: RunOptions, ids: int) -> dict[str, Any]:
    """A mount as one can be made in a user namespace: no owner that does not exist, no /sys of another's network."""
    if ids <= 5 and mount["type"] == "devpts":
        return {**mount, "options": [o for o in mount["options"] if not o.startswith("gid=")]}
    if mount["type"] == "sysfs" and options.network == "host":
        flags = ["rbind", "nosuid", "noexec", "nodev", "ro", "rprivate"]
        return {"destination": "/sys", "type": "bind", "source": "/sys", "options": flags}
    return mount


def _make_source(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"volume {path}: {os.strerror(exc.errno or 0).lower()}") from exc


def _linux(
    linux: dict[str, Any],
    options: RunOptions,
    container_id: str,
    network_namespace: str | None,
    *,
    rootless: bool,
) -> None:
    kinds: list[dict[str, str]] = [n for n in linux["namespaces"] if n["type"] != "network"]
    if options.network != "host":
        entry = {"type": "network"}
        if network_namespace:
            entry["path"] = network_namespace
        kinds.append(entry)
    linux["namespaces"] = kinds
    linux["resources"] = _resources(linux.get("resources", {}), options)
    linux["maskedPaths"] += profile.heat()
    linux["seccomp"] = default_profile(
        Platform.host().architecture, profile.capabilities(options.cap_add, options.cap_drop)
    )
    if not rootless:
        linux["cgroupsPath"] = cgroup.path_of(container_id)
    ours = _WITHOUT_IPV6 if network_namespace and os.path.exists(_IPV6) else {}
    linux["sysctl"] = ours | _sysctls(options)


def _sysctls(options: RunOptions) -> dict[str, str]:
    """Ports below 1024 for everybody, where they are the container's own, and what the user said.

    Raises:
        UsageError: a sysctl is not of a namespace of the container's own.
    """
    own, made = {"ipc", "uts"}, {}
    if options.network != "host":
        own.add("network")
        made["net.ipv4.ip_unprivileged_port_start"] = "0"
    for key, value in pairs(options.sysctls, "sysctl").items():
        try:
            check_sysctl(key, own)
        except ConfigError as exc:
            raise UsageError(str(exc), hint=_OWN_SYSCTLS) from None
        made[sysctl_name(key)] = value
    return made


def _devices(made: dict[str, Any], options: RunOptions, *, rootless: bool) -> None:
    found = [(node, device.access) for device in options.devices for node in device.nodes()]
    if rootless:
        made["mounts"] += [node.mount() for node, _ in found]
        return
    made["linux"]["devices"] = [*{node.path: node.entry() for node, _ in found}.values()]
    made["linux"]["resources"]["devices"] += [node.rule(access) for node, access in found]


def _resources(resources: dict[str, Any], options: RunOptions) -> dict[str, Any]:
    made = dict(resources)
    if options.memory is not None:
        made["memory"] = {"limit": options.memory}
    if options.cpus is not None:
        made["cpu"] = {"quota": round(options.cpus * _CPU_PERIOD), "period": _CPU_PERIOD}
    if options.pids_limit is not None:
        made["pids"] = {"limit": options.pids_limit if options.pids_limit > 0 else -1}
    return made


def _privileged(made: dict[str, Any]) -> None:
    """Everything: all capabilities and devices, no filter, nothing masked."""
    everything = profile.capabilities(["ALL"])
    made["process"]["capabilities"].update(
        bounding=everything, effective=everything, permitted=everything
    )
    made["linux"].pop("seccomp", None)
    made["linux"]["maskedPaths"] = made["linux"]["readonlyPaths"] = []
    made["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    for mount in made["mounts"]:
        if mount["destination"] in ("/sys", "/sys/fs/cgroup"):
            mount["options"] = [o for o in mount["options"] if o != "ro"]
