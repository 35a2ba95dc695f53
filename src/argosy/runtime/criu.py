"""``checkpoint`` and ``restore`` by the program criu, where it is installed.

criu does the work; this module gives it the container: its mounts as external ones, its cgroups, the file names it
reads and writes, and the state that `create` would have written.
"""

from __future__ import annotations

import posix

from argosy.runtime import state as states
from argosy.runtime.errors import Failure, StatusError
from argosy.runtime.jsonio import decode, encode, read_file, write_file
from argosy.runtime.mountplan import parse
from argosy.runtime.options import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.cli import Command
    from argosy.runtime.container import Container

_PLACES = (
    "/usr/sbin/criu",
    "/usr/bin/criu",
    "/usr/local/sbin/criu",
    "/usr/local/bin/criu",
    "/sbin/criu",
)
_SHARED_FLAGS = (
    "tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup", "lazy-pages", "link-remap",
)  # fmt: skip
_DUMP_FLAGS = ("leave-running", "tcp-skip-in-flight")
_DESCRIPTORS = "descriptors.json"
_MODES = ("", "soft", "full", "strict", "ignore")


def _program() -> str:
    """Where criu is.

    Raises:
        Failure: it is not installed.
    """
    path = next((path for path in _PLACES if posix.access(path, posix.X_OK)), None)
    if path is None:
        raise Failure("checkpoint and restore need criu, which is not installed")
    return path


def _run(words: list[str], work: str, log: str) -> None:
    pid = posix.fork()
    if pid == 0:
        try:
            posix.execve(words[0], words, {b"PATH": b"/usr/sbin:/usr/bin:/sbin:/bin"})
        finally:
            posix._exit(127)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    if status:
        raise Failure(
            f"criu failed: exit status {status}: {_reason(f'{work}/{log}')} (log file: {work}/{log})"
        )


def _reason(log: str) -> str:
    """The first line of criu's log that is an error."""
    try:
        lines = read_file(log).decode("utf-8", "replace").splitlines()
    except (OSError, Failure):
        return "no log"
    return next((line.strip() for line in lines if "Error" in line), "no reason given")


def _arguments(options: dict[str, Any], verb: str, images: str, work: str) -> list[str]:
    mode = options.get("manage-cgroups-mode", "")
    if mode not in _MODES:
        raise Failure(
            f"Invalid manage-cgroups-mode value: {mode} (known: soft, full, strict, ignore)"
        )
    words = [
        _program(),
        verb,
        "--images-dir",
        images,
        "--work-dir",
        work,
        "--log-file",
        f"{verb}.log",
        "-v4",
    ]
    words.append(f"--manage-cgroups={mode or 'soft'}")
    for name in _SHARED_FLAGS + (_DUMP_FLAGS if verb != "restore" else ()):
        if options.get(name):
            words.append(f"--{name}")  # noqa: PERF401 - reads better
    for name in options.get("empty-ns", ()):
        if name != "network":
            raise Failure(f"namespace {name} is not supported")
        words += ["--empty-ns", "net"]
    return words


def _externals(config: dict[str, Any], *, restoring: bool) -> list[str]:
    """Bind mounts and cgroups are not in the images: they are named on both sides."""
    words = []
    for index, mount in enumerate(config.get("mounts", ())):
        entry = parse(mount, f"mounts[{index}]")
        if entry["type"] == "bind":
            place = entry["destination"]
            words += ["--external", f"mnt[{place}]:{entry['source'] if restoring else place}"]
    return words


def _directories(options: dict[str, Any], container_directory: str) -> tuple[str, str]:
    images = options.get("image-path") or f"{posix.getcwd()}/checkpoint"
    work = options.get("work-path") or f"{container_directory}/criu.work"
    for path in (images, work):
        try:
            posix.mkdir(path, 0o700)
        except FileExistsError:
            pass
    return images, work


def checkpoint_verb(command: Command) -> int:
    """``checkpoint``."""
    container, options = command.container(), command.options
    status = container.status()
    if status in ("created", "stopped", "creating"):
        raise StatusError(f"Container cannot be checkpointed in {status} state")
    images, work = _directories(options, container.directory)
    config = container.config()
    verb = "pre-dump" if options.get("pre-dump") else "dump"
    words = [*_arguments(options, verb, images, work), "--tree", str(container.state["pid"])]
    words += _externals(config, restoring=False)
    words += ["--root", container.state["rootfs"]]
    if options.get("parent-path"):
        _check_parent(options["parent-path"], images)
        words += ["--prev-images-dir", options["parent-path"], "--track-mem"]
    elif verb == "pre-dump":
        words.append("--track-mem")
    if options.get("page-server"):
        address, _, port = options["page-server"].rpartition(":")
        words += ["--page-server", "--address", address, "--port", port]
    if options.get("status-fd", -1) >= 0:
        words += ["--status-fd", str(options["status-fd"])]
    _remember_descriptors(container, images)
    _run(words, work, f"{verb}.log")
    if verb == "dump" and not options.get("leave-running"):
        container.delete(force=True)
    return 0


def _check_parent(path: str, images: str) -> None:
    if path.startswith("/"):
        raise Failure(f"--parent-path must be relative to --image-path: {path}")
    try:
        posix.stat(f"{images}/{path}")
    except OSError as error:
        raise Failure(f"invalid --parent-path {path}: {(error.strerror or '').lower()}") from error


def _remember_descriptors(container: Container, images: str) -> None:
    """Pipes of the standard streams are inherited at restore by these names."""
    names = []
    for stream in range(3):
        try:
            names.append(posix.readlink(f"/proc/{container.state['pid']}/fd/{stream}"))
        except OSError:
            names.append("")
    write_file(f"{images}/{_DESCRIPTORS}", encode(names).encode())


def restore_verb(command: Command) -> int:
    """``restore``: a container of this name must not exist."""
    from argosy.runtime.verbs import write_pid_file

    options = command.options
    _program()
    states.check_id(command.arguments[0])
    bundle = absolute(options.get("bundle")) or posix.getcwd()
    restored = _restored(command, bundle)
    pid_file = absolute(options.get("pid-file"))
    if pid_file:
        write_pid_file(pid_file, restored.state["pid"])
    if options.get("detach"):
        return 0
    from argosy.runtime.foreground import Signals, attend

    status = attend(restored.state["pid"], Signals(), None)
    restored.delete(force=True)
    return status


def _restored(command: Command, bundle: str) -> Container:
    from argosy.runtime.create import Creation
    from argosy.runtime.request import Request, read_config

    options = command.options
    config, _ = read_config(bundle)
    request = Request(command.root, command.arguments[0], bundle)
    request.systemd = bool(command.settings.get("systemd-cgroup"))
    creation = Creation(request, config)
    container = creation.prepare_only()
    try:
        images, work = _directories(options, container.directory)
        words = _arguments(options, "restore", images, work)
        words += ["--root", container.state["rootfs"], "--restore-detached", "--restore-sibling"]
        words += [
            "--pidfile",
            f"{container.directory}/restored.pid",
            *_externals(config, restoring=True),
        ]
        for stream, name in enumerate(decode(read_file(f"{images}/{_DESCRIPTORS}"))):
            if name.startswith("pipe:"):
                words += ["--inherit-fd", f"fd[{stream}]:{name}"]
        for name in ("lsm-profile", "lsm-mount-context"):
            if options.get(name):
                words += [f"--{name}", options[name]]
        _run(words, work, "restore.log")
        pid = int(read_file(f"{container.directory}/restored.pid"))
    except BaseException:
        container.destroy()
        raise
    container.state.update(pid=pid, start_time=states.start_time(pid) or 0, ready=True)
    container.save()
    return container
