"""`argosy run`: a container from an image."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from argosy.cli import contained, engine, failure, progress
from argosy.cli.options import PLACE, PLATFORM, arguments, environment, jobs_option
from argosy.cli.unpacking import max_ratio_option
from argosy.engine import rootless, security
from argosy.engine.container import Container, unheard
from argosy.engine.devices import Device
from argosy.engine.images import PULL_POLICIES
from argosy.engine.mounts import Mount
from argosy.engine.options import NETWORKS, Published, RunOptions
from argosy.engine.values import Ulimit, parse_size
from argosy.errors import UsageError
from argosy.image.view import Layer
from argosy.layer.entry import Limits
from argosy.locate import Connect, Location
from argosy.spec.platform import Platform

if TYPE_CHECKING:
    from argosy.engine.run import Engine


@click.command(cls=contained.Command, context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open to the container.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option(
    "--init",
    is_flag=True,
    help="Have this machine's catatonit, docker-init or tini-static take in orphans and pass signals on.",
)
@click.option("--rm", "remove", is_flag=True, help="Remove it when it ends.")
@click.option("-d", "--detach", is_flag=True, help="Run it in the background and print its id.")
@click.option("--name", metavar="NAME", default="", help="Its name.")
@click.option("-h", "--hostname", metavar="NAME", default="", help="Its host name.")
@click.option(
    "--cidfile",
    type=click.Path(dir_okay=False),
    help="A new file for its id, written before it starts.",
)
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable; without a value, this one's.",
)
@click.option(
    "--env-file", multiple=True, type=click.Path(dir_okay=False), help="Variables from a file."
)
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="A label.")
@click.option(
    "--label-file", multiple=True, type=click.Path(dir_okay=False), help="Labels from a file."
)
@click.option(
    "-v",
    "--volume",
    multiple=True,
    metavar="SOURCE:TARGET[:OPTIONS]",
    help="A path of this machine inside it; with :ro it cannot be written.",
)
@click.option(
    "--mount",
    multiple=True,
    metavar="type=bind|tmpfs,…",
    help="A mount by key and value: source, target, readonly, bind-…, tmpfs-….",
)
@click.option(
    "--device",
    multiple=True,
    metavar="HOST[:CTR][:rwm]",
    help="A device of this machine, or all in a directory.",
)
@click.option(
    "--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="An empty file system in memory."
)
@click.option("-w", "--workdir", metavar="PATH", default="", help="Where its program starts.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Who its program runs as.")
@click.option(
    "--group-add",
    multiple=True,
    metavar="GROUP",
    help="One more group, by the image's name or number.",
)
@click.option(
    "--entrypoint",
    metavar="PROGRAM|JSON",
    help="Instead of the image's entry point; an empty one is none, a JSON array has arguments.",
)
@click.option("--read-only", is_flag=True, help="Its root file system cannot be written.")
@click.option(
    "--privileged",
    is_flag=True,
    help="All capabilities, leave for every device, no filter. Not for strangers' images.",
)
@click.option(
    "-m", "--memory", metavar="SIZE", help="The most memory, such as 512m; 0 is no limit."
)
@click.option("--cpus", metavar="N", type=float, help="How many processors' time; 0 is no limit.")
@click.option("--pids-limit", metavar="N", type=int, help="The most processes.")
@click.option("--shm-size", metavar="SIZE", help="How large /dev/shm is; 64m if not said.")
@click.option(
    "--ulimit",
    multiple=True,
    metavar="NAME=SOFT[:HARD]",
    help="A limit of its program, such as nofile=1024; -1 is none.",
)
@click.option(
    "--sysctl",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the kernel for it alone, such as net.core.somaxconn=1024.",
)
@click.option("--cap-add", multiple=True, metavar="CAP", help="One capability more, or ALL.")
@click.option("--cap-drop", multiple=True, metavar="CAP", help="One capability less, or ALL.")
@click.option(
    "--security-opt", multiple=True, metavar="NAME=VALUE",
    help="seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE, label=…, systempaths=unconfined.",
)  # fmt: skip
@click.option(
    "--network",
    "--net",
    default=None,
    type=click.Choice(NETWORKS),
    help="Its network; bridge for root, pasta for others.",
)
@click.option(
    "-p",
    "--publish",
    multiple=True,
    metavar="[[ADDRESS:]PORT:]PORT[/udp]",
    help="Lead a port of this machine to one of it, as in 8080:80.",
)
@click.option(
    "-P",
    "--publish-all",
    is_flag=True,
    help="Publish all ports that the image exposes, by free ones of this machine; see argosy ps.",
)
@click.option(
    "--add-host",
    multiple=True,
    metavar="NAME:ADDRESS",
    help="One more line of /etc/hosts; host-gateway is this machine.",
)
@click.option("--dns", multiple=True, metavar="ADDRESS", help="A name server.")
@click.option("--stop-signal", metavar="SIGNAL", default="", help="What asks it to end.")
@click.option(
    "--stop-timeout",
    metavar="SECONDS",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Seconds it gets for that.",
)
@click.option("--platform", type=PLATFORM, help="The image for this platform.")
@click.option(
    "--pull",
    type=click.Choice(PULL_POLICIES),
    default="missing",
    show_default=True,
    help="When to ask the registry.",
)
@max_ratio_option
@jobs_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@progress.progress_option
@click.argument("image", type=PLACE)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(image: Location, **given: Any) -> int:
    """Run a container.

    IMAGE is pulled if it is not here, verified, unpacked once, and mounted; then its program runs in namespaces of its
    own. The exit code is the program's; 125 where argosy failed, 126 where the program cannot be run, 127 where there
    is none.

    --mount takes type=bind with source, target, readonly, bind-propagation, bind-recursive and bind-create-src, and
    type=tmpfs with target, readonly, tmpfs-size and tmpfs-mode. What is read-only is so with all that is mounted below
    its source, unless bind-recursive says otherwise: enabled (as if nothing was said), writable, readonly, or disabled,
    which leaves out what is mounted below.

    \b
    Examples:
      argosy run --rm alpine:3.20 cat /etc/os-release
      argosy run -it --rm -v "$PWD:/src:ro" -w /src debian bash
      argosy run --rm --mount type=bind,src=/srv,dst=/data,readonly debian ls /data
      argosy run --rm --device /dev/fuse --ulimit nofile=1024 debian ls -l /dev/fuse
      argosy run -d --name web -p 8080:80 nginx
      argosy run --rm oci:images:app
    """
    options = _options(given)
    if os.geteuid() != 0:
        return rootless.enter(["run", *sys.argv[sys.argv.index("run") + 1 :]])
    return _run(image, options, given)


def _run(place: Location, options: RunOptions, given: dict[str, Any]) -> int:
    made = engine.engine()
    made.check(options)
    limits = Limits(ratio=given["max_ratio"])
    made.layers.options = dataclasses.replace(made.layers.options, limits=limits)
    with _id_file(given["cidfile"]) as on_made:
        return _started(made, place, options, given, on_made)


def _started(
    made: Engine,
    place: Location,
    options: RunOptions,
    given: dict[str, Any],
    on_made: Callable[[Container], object],
) -> int:
    with progress.shown(given["progress"], quiet=given["quiet"]) as on_event:
        name, image = made.images.get(
            place,
            platform=given["platform"],
            pull=given["pull"],
            connect=_connect(place),
            jobs=given["jobs"],
            on_event=on_event,
        )
    if not given["platform"] and not given["quiet"]:
        _warn_of(image.platform)

    def unpacking(layer: Layer) -> None:
        if not given["quiet"] and given["progress"] != "none":
            print(f"unpacking {layer.name}", file=sys.stderr)

    if given["detach"]:
        print(made.run_detached(name, image, options, on_layer=unpacking, on_made=on_made))
        return 0
    containers: list[Container] = []

    def taken(container: Container) -> None:
        containers.append(container)
        on_made(container)

    code = made.run(name, image, options, on_layer=unpacking, on_made=taken)
    return contained.explained(code, containers[0])


def _warn_of(platform: Platform) -> None:
    """Say before a program fails to start for it that an image is another machine's; this one may emulate that."""
    here = Platform.host()
    runs = {here.architecture, _ALSO.get(here.architecture), ""}  # some images do not say
    if platform.os != here.os or platform.architecture not in runs:
        failure.warn(f"the image is for {platform}, and this machine is {here}")


_ALSO = {"amd64": "386", "arm64": "arm"}
"""Architectures whose processors run another one's programs."""


@contextlib.contextmanager
def _id_file(path: str | None) -> Iterator[Callable[[Container], object]]:
    """Where the container's id is written, if anywhere: a new file, gone again where a failure leaves no container."""
    if path is None:
        yield unheard
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise UsageError(
            f"--cidfile {path} is there already", hint="a container may run whose id it holds"
        ) from None
    made: list[Container] = []

    def write(container: Container) -> None:
        made.append(container)
        os.write(fd, container.id.encode())

    try:
        yield write
    except BaseException:
        if not any(os.path.exists(container.path) for container in made):
            os.unlink(path)
        raise
    finally:
        os.close(fd)


def _connect(place: Location) -> Connect | None:
    if place.reference is None:
        return None
    remotes = importlib.import_module("argosy.cli.remotes")
    connect: Connect = remotes.connect(click.get_current_context(), "src", ahead=True)
    return connect


def _options(given: dict[str, Any]) -> RunOptions:
    if given["tty"] and given["interactive"] and not given["detach"] and not sys.stdin.isatty():
        raise UsageError("the input device is not a terminal", hint="leave out -t")
    network = given["network"] or (
        "bridge" if os.geteuid() == 0 and "ARGOSY_ROOTLESS" not in os.environ else "pasta"
    )
    entrypoint, first = _entrypoint(given["entrypoint"])
    return RunOptions(
        command=(*first, *given["command"]),
        entrypoint=entrypoint,
        name=given["name"],
        hostname=given["hostname"],
        env=(*environment(_from_files(given["env_file"])), *environment(given["env"])),
        labels=(*_from_files(given["label_file"]), *given["label"]),
        workdir=given["workdir"],
        user=given["user"],
        mounts=(
            *map(Mount.volume, given["volume"]),
            *map(Mount.tmpfs, given["tmpfs"]),
            *map(Mount.parse, given["mount"]),
        ),
        tty=given["tty"],
        interactive=given["interactive"],
        init=given["init"],
        remove=given["remove"],
        read_only=given["read_only"],
        privileged=given["privileged"],
        network=network,
        published=tuple(p for text in given["publish"] for p in Published.parse(text)),
        publish_all=given["publish_all"],
        add_hosts=given["add_host"],
        dns=given["dns"],
        memory=(given["memory"] and parse_size(given["memory"])) or None,
        cpus=given["cpus"] or None,
        pids_limit=given["pids_limit"],
        shm_size=parse_size(given["shm_size"]) if given["shm_size"] else None,
        ulimits=tuple(map(Ulimit.parse, given["ulimit"])),
        sysctls=given["sysctl"],
        groups=given["group_add"],
        devices=tuple(map(Device.parse, given["device"])),
        cap_add=given["cap_add"],
        cap_drop=given["cap_drop"],
        security=tuple(map(security.read, given["security_opt"])),
        stop_signal=given["stop_signal"],
        stop_timeout=given["stop_timeout"],
    )


def _entrypoint(text: str | None) -> tuple[str | None, list[str]]:
    """The entry point that is said, if one is, and its arguments: Docker takes a program, podman JSON, too."""
    if text is None:
        return None, []
    program, *rest = arguments([text]) or [""]
    return program, rest


def _from_files(paths: Sequence[str]) -> list[str]:
    """The variables or labels of files, a line each: what precedes a name goes, what follows a value is part of it."""
    found: list[str] = []
    for path in paths:
        with open(path, encoding="utf-8-sig") as file:
            try:
                lines = [line.lstrip().removesuffix("\n") for line in file]
            except UnicodeDecodeError:
                raise UsageError(f"{path}: expected UTF-8") from None
        kept = [line for line in lines if line and not line.startswith("#")]
        for line in kept:
            if any(map(str.isspace, line.partition("=")[0])):
                raise UsageError(
                    f"{path}: {line[:64]!r}: expected NAME=value, and no space in NAME"
                )
        found += kept
    return found
