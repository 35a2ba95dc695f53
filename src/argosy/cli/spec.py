"""`argosy spec`: make a runtime configuration, or edit one."""

from __future__ import annotations

import functools
import json
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

import click

from argosy.bundle import generate
from argosy.cli import files
from argosy.cli.options import FILE, many, one, pair, pairs, switch
from argosy.cli.output import document
from argosy.errors import InvalidConfigError, UsageError, unread
from argosy.layout.durable import replacing

Config = dict[str, Any]
Edit = Callable[[Config, Any], Config]

LIMIT = 16 << 20
"""The largest configuration that is read, in bytes."""


def _numbers(text: str, option: str, shape: str) -> list[int]:
    parts = text.split(":")
    if len(parts) != len(shape.split(":")) or not all(part.isdigit() for part in parts):
        raise UsageError(f"{option}: expected {shape}, got {text!r}")
    return [int(part) for part in parts]


_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _bytes(text: str, option: str) -> int:
    """A size such as 64m; -1 for no limit."""
    number = text.rstrip("bkmgtBKMGT")
    unit = text[len(number) :].lower()
    if text == "-1":
        return -1
    if not number.isdigit() or unit not in _UNITS:
        raise UsageError(f"{option}: expected a size such as 64m, got {text!r}")
    return int(number) * _UNITS[unit]


def _env(config: Config, items: Sequence[str]) -> Config:
    return generate.with_env(config, pairs(items, "--env", "NAME=VALUE"))


def _user(config: Config, text: str) -> Config:
    parts = text.split(":")
    ids = [*parts[:2], parts[0] if len(parts) == 1 else ""][:2]
    groups = parts[2].split(",") if len(parts) == 3 else []
    if len(parts) > 3 or not all(part.isdigit() for part in [*ids, *groups]):
        raise UsageError(f"--user: expected UID[:GID[:GID,…]], got {text!r}")
    return generate.with_user(config, int(ids[0]), int(ids[1]), [int(group) for group in groups])


def _mount(config: Config, text: str) -> Config:
    """Add `type=bind,source=/a,destination=/b,options=ro:nosuid`."""
    mount: Config = {}
    for item in text.split(","):
        key, value = pair(item, "--mount", "NAME=VALUE")
        mount[{"src": "source", "dst": "destination", "target": "destination"}.get(key, key)] = (
            value
        )
    if "options" in mount:
        mount["options"] = mount["options"].split(":")
    if mount.get("type") == "bind":
        mount["options"] = ["rbind", *mount.get("options", [])]
    return generate.with_mount(config, mount)


def _namespace(config: Config, text: str) -> Config:
    kind, _, path = text.partition(":")
    return generate.with_namespace(config, kind, path)


def _capabilities(config: Config, *, add: Sequence[str], drop: Sequence[str]) -> Config:
    return generate.with_capabilities(config, add=add, drop=drop) if add or drop else config


def _rlimit(config: Config, text: str) -> Config:
    name, value = pair(text, "--rlimit", "NAME=VALUE")
    soft, _, hard = value.partition(":")
    numbers = _numbers(f"{soft}:{hard or soft}", "--rlimit", "SOFT:HARD")
    return generate.with_rlimit(config, name, *numbers)


def _device(config: Config, path: str) -> Config:
    """Add a device as it is on this machine."""
    try:
        found = os.stat(path)
    except OSError as exc:
        raise unread(path, exc) from exc
    kinds = ((stat.S_ISCHR, "c"), (stat.S_ISBLK, "b"), (stat.S_ISFIFO, "p"))
    kind = next((letter for test, letter in kinds if test(found.st_mode)), None)
    if kind is None:
        raise UsageError(f"--device: {path} is no device")
    device: Config = {"path": path, "type": kind, "fileMode": stat.S_IMODE(found.st_mode)}
    if kind != "p":
        device |= {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
    return generate.with_device(config, {**device, "uid": found.st_uid, "gid": found.st_gid})


def _id_maps(config: Config, uids: Sequence[str], gids: Sequence[str]) -> Config:
    if not uids and not gids:
        return config
    shape = "CONTAINER:HOST:SIZE"
    users = [_numbers(text, "--uidmap", shape) for text in uids or gids]
    groups = [_numbers(text, "--gidmap", shape) for text in gids or uids]
    clean = generate.without_namespace(config, "user")
    return generate.with_id_maps(
        clean, [(a, b, c) for a, b, c in users], [(a, b, c) for a, b, c in groups]
    )


def _cpus(config: Config, count: float) -> Config:
    return generate.with_resources(
        config, "cpu", {"quota": round(count * 100000), "period": 100000}
    )


def _hook(config: Config, text: str) -> Config:
    kind, command = pair(text, "--hook", "NAME=VALUE")
    words = command.split()
    hook: Config = {"path": words[0], "args": words} if len(words) > 1 else {"path": command}
    return generate.with_hook(config, kind, hook)


def _seccomp(config: Config, which: str) -> Config:
    if which == "none":
        return generate.without(config, "linux.seccomp")
    return generate.with_seccomp(config, None if which == "default" else _load(which))


def _set(config: Config, text: str) -> Config:
    """Set any property by its name to a value of JSON, or to a text that is none."""
    name, value = pair(text, "--set", "NAME=VALUE")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    return generate.with_property(config, name, parsed)


def _each(edit: Edit) -> Edit:
    return lambda config, values: functools.reduce(edit, values, config)


def _property(name: str) -> Edit:
    return lambda config, value: generate.with_property(config, name, value)


def _listed(name: str) -> Edit:
    return lambda config, values: generate.with_property(config, name, list(values))


def _resource(section: str, name: str) -> Edit:
    return lambda config, value: generate.with_resources(config, section, {name: value})


def _size(section: str, name: str, option: str) -> Edit:
    return lambda config, text: generate.with_resources(
        config, section, {name: _bytes(text, option)}
    )


def _mapping(edit: Callable[[Config, dict[str, str]], Config], option: str) -> Edit:
    return lambda config, items: edit(config, pairs(items, option, "NAME=VALUE"))


# Option, its click settings, what it does. They are applied in this order.
_OPTIONS: tuple[tuple[str, dict[str, Any], Edit], ...] = (
    ("--rootfs", one("PATH", "Path of the root file system."), _property("root.path")),
    ("--read-only/--no-read-only", switch("Whether its root file system is read-only."), _property("root.readonly")),
    ("--hostname", one("NAME", "Its host name."), _property("hostname")),
    ("--domainname", one("NAME", "Its NIS domain name."), _property("domainname")),
    ("--terminal/--no-terminal", switch("Whether the process has a terminal."), _property("process.terminal")),
    ("--cwd", one("PATH", "Where the process starts."), _property("process.cwd")),
    ("-u --user", one("UID[:GID[:GID,…]]", "Who it runs as."), _user),
    ("--umask", one("N", "The mask of new files' modes, in decimal.", int), _property("process.user.umask")),
    ("--env-rm", many("NAME", "Take a variable away."), generate.without_env),
    ("-e --env", many("NAME=VALUE", "Set a variable."), _env),
    ("--rlimit", many("NAME=SOFT[:HARD]", "A limit of the process, as RLIMIT_NOFILE=1024."), _each(_rlimit)),
    ("--no-new-privileges/--new-privileges", switch("Whether programs may gain rights."),
     _property("process.noNewPrivileges")),
    ("--oom-score-adj", one("N", "Who is killed first where memory ends: -1000 to 1000.", int),
     _property("process.oomScoreAdj")),
    ("--apparmor", one("PROFILE", "AppArmor profile."), _property("process.apparmorProfile")),
    ("--selinux-label", one("LABEL", "SELinux label."), _property("process.selinuxLabel")),
    ("--mount-rm", many("PATH", "Remove a mount."), _each(generate.without_mount)),
    ("--mount", many("type=,source=,destination=,options=a:b", "Add a mount, or replace the one at that destination."),
     _each(_mount)),
    ("--namespace-rm", many("TYPE", "Stay in the host's namespace of this type."), _each(generate.without_namespace)),
    ("--namespace", many("TYPE[:PATH]", "Make a namespace of this type, or join the one at PATH."), _each(_namespace)),
    ("--device", many("PATH", "Give it a device of this machine."), _each(_device)),
    ("--sysctl", many("NAME=VALUE", "Set a kernel parameter."), _mapping(generate.with_sysctls, "--sysctl")),
    ("--cgroups-path", one("PATH", "Where its cgroup is."), _property("linux.cgroupsPath")),
    ("-m --memory", one("SIZE", "The most memory, as 64m; -1 for no limit."), _size("memory", "limit", "--memory")),
    ("--memory-reservation", one("SIZE", "The memory it keeps where memory is short."),
     _size("memory", "reservation", "--memory-reservation")),
    ("--memory-swap", one("SIZE", "The most memory and swap together."), _size("memory", "swap", "--memory-swap")),
    ("--cpus", one("N", "How many processors' time.", float), _cpus),
    ("--cpu-shares", one("N", "Its weight against others where processors are short.", int),
     _resource("cpu", "shares")),
    ("--cpuset-cpus", one("LIST", "The processors it may use, as 0-3,7."), _resource("cpu", "cpus")),
    ("--cpuset-mems", one("LIST", "The memory nodes it may use, as 0-1."), _resource("cpu", "mems")),
    ("--pids-limit", one("N", "The most processes; -1 for no limit.", int), _resource("pids", "limit")),
    ("--masked-path", many("PATH", "Hide this path, instead of the usual ones."), _listed("linux.maskedPaths")),
    ("--readonly-path", many("PATH", "Make this path read-only, instead of the usual ones."),
     _listed("linux.readonlyPaths")),
    ("--rootfs-propagation", one("MODE", "How mounts are shared with the host, as private."),
     _property("linux.rootfsPropagation")),
    ("--hook", many("KIND=COMMAND", "Run a command at a point of its life, as poststop=/bin/clean -a."), _each(_hook)),
    ("--annotation", many("NAME=VALUE", "Set an annotation."), _mapping(generate.with_annotations, "--annotation")),
    ("--set", many("PROPERTY=JSON", "Any property, as process.user.umask=18."), _each(_set)),
    ("--unset", many("PROPERTY", "Remove a property."), _each(generate.without)),
)  # fmt: skip


def _edits(function: Callable[..., None]) -> Callable[..., None]:
    for name, settings, _ in reversed(_OPTIONS):
        function = click.option(*name.split(), **settings)(function)
    return function


def _key(option: str) -> str:
    return option.rsplit(maxsplit=1)[-1].partition("/")[0].strip("-").replace("-", "_")


@click.command()
@click.argument("args", nargs=-1)
@click.option(
    "-b",
    "--bundle",
    default=".",
    metavar="DIRECTORY",
    show_default=True,
    help="Where config.json is written.",
)
@click.option("-o", "--output", metavar="FILE", help="Write it here; - for stdout.")
@click.option(
    "-f",
    "--from",
    "source",
    type=FILE,
    metavar="FILE",
    help="Edit this instead of the default; - for stdin.",
)
@click.option("--rootless", is_flag=True, help="For somebody without privileges.")
@click.option(
    "--uidmap",
    multiple=True,
    metavar="CONTAINER:HOST:SIZE",
    help="Give it a user namespace that maps these users.",
)
@click.option(
    "--gidmap",
    multiple=True,
    metavar="CONTAINER:HOST:SIZE",
    help="The same of groups; as --uidmap if absent.",
)
@click.option("--cap-add", multiple=True, metavar="CAP", help="One capability more, or ALL.")
@click.option(
    "--cap-drop",
    multiple=True,
    metavar="CAP",
    help="One capability less, or ALL; comes before adding.",
)
@click.option("--seccomp", metavar="[default|none|FILE]", help="Its filter of system calls.")
@_edits
def command(
    args: tuple[str, ...],
    bundle: str,
    output: str | None,
    source: str | None,
    rootless: bool,
    uidmap: tuple[str, ...],
    gidmap: tuple[str, ...],
    cap_add: tuple[str, ...],
    cap_drop: tuple[str, ...],
    seccomp: str | None,
    **values: Any,
) -> None:
    """Write a bundle's config.json: the default one, or FILE, changed by the options. ARGS are the program.

    An existing config.json is replaced only when it is the one that is edited.

    \b
    Examples:
      argosy spec
      argosy spec -o - --no-terminal --memory 64m --cap-drop ALL -- sleep 9
      argosy spec -f config.json --mount type=bind,source=/data,destination=/data,options=ro
    """
    config = _load(source) if source else generate.example()
    if rootless:
        config = generate.as_rootless(config, os.geteuid(), os.getegid())
    if args:
        config = generate.with_args(config, args)
    config = _id_maps(config, uidmap, gidmap)
    config = _capabilities(config, add=cap_add, drop=cap_drop)
    for name, _, edit in _OPTIONS:
        value = values[_key(name)]
        if value is not None and value != ():
            config = edit(config, value)
    if seccomp:
        config = _seccomp(config, seccomp)
    _put(config, output or os.path.join(bundle, "config.json"), source)


def _load(path: str) -> Config:
    with files.opened(path) as file:
        raw = file.read(LIMIT + 1)
    try:
        found = json.loads(raw) if len(raw) <= LIMIT else None
    except (ValueError, RecursionError) as error:
        raise InvalidConfigError(f"{path}: it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidConfigError(f"{path}: expected a JSON object of at most {LIMIT} bytes")
    return found


def _put(config: Config, path: str, source: str | None) -> None:
    if path == "-":
        document(config)
        return
    if os.path.lexists(path) and not (source and source != "-" and os.path.samefile(path, source)):
        raise InvalidConfigError(f"{path} exists", hint="remove it first, or edit it with --from")
    with replacing(path, durable=True) as file:
        file.write(json.dumps(config, indent="\t", ensure_ascii=False).encode() + b"\n")
