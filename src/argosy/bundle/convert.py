"""From an image's configuration to a runtime's: image-spec conversion.md, as pure functions.

The verbatim fields, the annotations with labels before implicit ones, exposed ports as an annotation, volumes as
mounts. What the specification leaves open (capabilities, namespaces, mounts of /proc and its kind) is what `runc spec`
and umoci write, so that nobody's tools are surprised.

One rule stands against the letter: labels that make a runtime do something on the host are left out unless the caller
trusts them (`UNSAFE_ANNOTATIONS`). Labels are a stranger's words.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from argosy.bundle.users import User, resolve_user
from argosy.errors import InvalidConfigError
from argosy.spec.imageconfig import ImageConfig

__all__ = [
    "UNSAFE_ANNOTATIONS",
    "as_rootless",
    "default_config",
    "runtime_config",
    "unsafe_labels",
    "with_id_maps",
]

UNSAFE_ANNOTATIONS = (
    "bundle",
    "org.systemd.property.",
    "org.criu.config",
    "run.oci.",
    "module.wasm.image/variant",
    "io.kubernetes.cri",
    "io.katacontainers.",
    "containerd.io/restart.",
    "cdi.k8s.io/",
    "com.docker.network.",
    "dev.gvisor.",
)
"""Annotations by which runtimes and engines are told what to do on the host (the `potentiallyUnsafeConfigAnnotations`
of runc, crun, Kata and gVisor, containerd's restart monitor, and the devices of CDI); one that ends with a dot or a
slash is a prefix."""

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
    "/sys/firmware", "/sys/devices/virtual/powercap",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_MOUNTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),  # noqa: S108
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)
_VOLUME_OPTIONS = ("rw", "nosuid", "nodev", "relatime", "tmpcopyup")

_IMPLICIT: tuple[tuple[str, Callable[[ImageConfig], str]], ...] = (
    ("org.opencontainers.image.os", lambda config: config.os),
    ("org.opencontainers.image.architecture", lambda config: config.architecture),
    ("org.opencontainers.image.variant", lambda config: config.variant),
    ("org.opencontainers.image.os.version", lambda config: config.os_version),
    ("org.opencontainers.image.os.features", lambda config: ",".join(config.os_features)),
    ("org.opencontainers.image.author", lambda config: config.author),
    ("org.opencontainers.image.created", lambda config: config.created or ""),
    ("org.opencontainers.image.stopSignal", lambda config: config.execution.stop_signal),
    (
        "org.opencontainers.image.exposedPorts",
        lambda config: ",".join(config.execution.exposed_ports),
    ),
)


def runtime_config(
    config: ImageConfig,
    *,
    user: User | None = None,
    terminal: bool = True,
    hostname: str = "argosy",
    volumes: bool = True,
    trust_labels: bool = False,
) -> dict[str, Any]:
    """The runtime configuration an image's configuration stands for.

    Args:
        config: The image's configuration.
        user: Who `Config.User` is, by the image's own database (`resolve_user`); None for a numeric or empty one.
        terminal: Whether the process gets a terminal.
        hostname: The container's.
        volumes: Mount an empty file system, seeded from the image, at each of `Config.Volumes`.
        trust_labels: Keep labels of `UNSAFE_ANNOTATIONS` too.

    Returns:
        The JSON object of `config.json`.

    Raises:
        InvalidConfigError: a field has no meaning for a runtime: a volume or working directory that is no absolute
            path, a variable without a name, a user that needs the database.

    Example:
        >>> from argosy.spec.imageconfig import ExecutionParameters, LayerStack
        >>> made = runtime_config(ImageConfig(
        ...     os="linux", architecture="amd64", rootfs=LayerStack(type="layers"),
        ...     config=ExecutionParameters(entrypoint=("env",), cmd=("-0",), env=("A=1",), labels={"k": "v"})))
        >>> made["process"]["args"], made["process"]["cwd"], made["annotations"]["k"]
        (['env', '-0'], '/', 'v')
    """
    made = default_config(terminal=terminal, hostname=hostname)
    execution = config.execution
    process = made["process"]
    who = user or _numeric(execution.user)
    process["user"] = {"uid": who.uid, "gid": who.gid}
    if who.additional_gids:
        process["user"]["additionalGids"] = list(who.additional_gids)
    process["args"] = [*(execution.entrypoint or ()), *(execution.cmd or ())] or ["sh"]
    process["cwd"] = _absolute(execution.working_dir or "/", "WorkingDir")
    process["env"] = _environment(execution.env, who, terminal)
    if volumes:
        made["mounts"] += [_volume(path) for path in execution.volumes]
    notes = _annotations(config, trust_labels)
    if notes:
        made["annotations"] = notes
    return made


def default_config(*, terminal: bool = True, hostname: str = "argosy") -> dict[str, Any]:
    """A runtime configuration that says nothing of any image."""
    mounts = [
        {"destination": place, "type": kind, "source": source, "options": list(options)}
        for place, kind, source, options in _MOUNTS
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [],
            "cwd": "/",
            "capabilities": {
                kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": hostname,
        "mounts": mounts,
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def with_id_maps(
    made: Mapping[str, Any],
    uids: Sequence[tuple[int, int, int]],
    gids: Sequence[tuple[int, int, int]],
) -> dict[str, Any]:
    """A runtime configuration with a user namespace.

    Args:
        made: The old one.
        uids: (id in the container, id on the host, how many), as are `gids`.
        gids: See `uids`.
    """
    linux = dict(made["linux"])
    linux["namespaces"] = [*linux["namespaces"], {"type": "user"}]
    names = ("containerID", "hostID", "size")
    linux["uidMappings"] = [dict(zip(names, item, strict=True)) for item in uids]
    linux["gidMappings"] = [dict(zip(names, item, strict=True)) for item in gids]
    return {**made, "linux": linux}


def as_rootless(made: Mapping[str, Any], uid: int, gid: int) -> dict[str, Any]:
    """A runtime configuration that somebody without privileges can run, as `runc spec --rootless` writes it.

    The network stays the host's, /sys is bound, no group or resource needs rights, and root inside is `uid` outside.
    """
    mapped = with_id_maps(made, [(0, uid, 1)], [(0, gid, 1)])
    linux = mapped["linux"]
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "network"]
    del linux["resources"]
    mounts = [_unprivileged(mount) for mount in made["mounts"]]
    user = {"uid": 0, "gid": 0}
    return {**mapped, "process": {**made["process"], "user": user}, "mounts": mounts}


def _unprivileged(mount: Mapping[str, Any]) -> dict[str, Any]:
    if mount["type"] == "sysfs":
        options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
        return {**mount, "type": "none", "source": "/sys", "options": options}
    kept = [o for o in mount["options"] if not o.startswith(("gid=", "uid="))]
    return {**mount, "options": kept}


def unsafe_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels that would tell a runtime or engine to do something on the host.

    >>> unsafe_labels(["org.systemd.property.ExecStartPre", "maintainer"])
    ('org.systemd.property.ExecStartPre',)
    """
    return tuple(label for label in labels if _is_unsafe(label))


def _is_unsafe(label: str) -> bool:
    return any(
        label.startswith(known) if known.endswith((".", "/", "cri")) else label == known
        for known in UNSAFE_ANNOTATIONS
    )


def _annotations(config: ImageConfig, trust_labels: bool) -> dict[str, str]:
    """Implicit annotations, then labels, which win."""
    implicit = {key: value for key, of in _IMPLICIT if (value := of(config))}
    labels = config.execution.labels
    return implicit | {
        key: value for key, value in labels.items() if trust_labels or not _is_unsafe(key)
    }


def _environment(env: Sequence[str], user: User, terminal: bool) -> list[str]:
    """The image's variables as they are, and of ours only those it does not have."""
    for position, item in enumerate(env):
        if "\0" in item or not item.partition("=")[0]:
            raise InvalidConfigError(f"Env[{position}]: {item[:64]!r} is no variable")
    have = {item.partition("=")[0] for item in env}
    ours = [_PATH, f"HOME={user.home or '/'}"]
    if terminal:
        ours.insert(1, "TERM=xterm")
    return [*env, *(item for item in ours if item.partition("=")[0] not in have)]


def _volume(path: str) -> dict[str, Any]:
    # Two leading slashes are kept by POSIX' normpath; here they mean the root as one does.
    place = "/" + posixpath.normpath(_absolute(path, "Volumes")).lstrip("/")
    if place == "/":
        raise InvalidConfigError("Volumes: '/' cannot be a volume")
    options = list(_VOLUME_OPTIONS)
    return {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}


def _absolute(path: str, what: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise InvalidConfigError(f"{what}: expected an absolute path, got {path[:200]!r}")
    return path


def _numeric(text: str) -> User:
    return resolve_user(text, lambda _path, _limit: None)
