"""Calling the runtime as any engine calls one: a program with verbs, a log, and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from argosy.engine.container import Container
from argosy.errors import ContainerError

TIMEOUT = 60.0
"""Seconds a verb may take."""

RUNNING = ("running", "paused")
"""The runtime's words for a container whose program runs."""

ALIVE = (*RUNNING, "created")
"""Its words for one that has a process."""

EXIT_ENGINE, EXIT_CANNOT_INVOKE, EXIT_NOT_FOUND = 125, 126, 127
"""Docker's exit codes: the engine failed; the command cannot be invoked; there is no such command."""

_MEANINGS = (
    ("executable file not found", EXIT_NOT_FOUND),
    ("no such file or directory", EXIT_NOT_FOUND),
    ("permission denied", EXIT_CANNOT_INVOKE),
    ("is a directory", EXIT_CANNOT_INVOKE),
    ("exec format error", EXIT_CANNOT_INVOKE),
)
"""What the runtime says of a program it could not execute."""

_UNLIKE_SAYS = "move_mount: not a directory"
_UNLIKE = "a directory can be mounted on a directory, and a file on a file"


class InvocationError(ContainerError):
    """The runtime refused.

    Args:
        message: Its own words.
        exit_code: 125, 126 or 127, as Docker uses them.
    """

    def __init__(self, message: str, *, exit_code: int = EXIT_ENGINE) -> None:
        super().__init__(message, hint=_UNLIKE if _UNLIKE_SAYS in message else None)
        self.exit_code = exit_code


def meaning(message: str) -> int:
    """The exit code that stands for the runtime's complaint.

    >>> meaning('exec: "nosuch": executable file not found in $PATH')
    127
    """
    lower = message.lower()
    if "exec" not in lower:
        return EXIT_ENGINE
    return next((code for words, code in _MEANINGS if words in lower), EXIT_ENGINE)


class Runtime:
    """The runtime, for one container."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._log = container.file("runtime.log")
        self._state = os.path.join(container.places.state, container.id)
        self._base = [
            *container.places.runtime, "--root", container.places.state,
            "--log", self._log, "--log-format", "json",
        ]  # fmt: skip

    def argv(self, verb: str, *arguments: str) -> list[str]:
        """The command line of a verb."""
        return [*self._base, verb, *arguments]

    def create(
        self,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        console_socket: str | None = None,
    ) -> int:
        """Create the container; its process inherits what is given here.

        Returns:
            The process id of its init.

        Raises:
            InvocationError: the runtime refused; it left nothing.
        """
        pid_file = self._container.file("pid")
        arguments = ["--bundle", self._container.path, "--pid-file", pid_file]
        if console_socket:
            arguments += ["--console-socket", console_socket]
        argv = self.argv("create", *arguments, self._container.id)
        before = self.log_size()
        # Directories that it makes in the container are its own, whatever the caller keeps from others.
        try:
            process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, umask=0o022)
        except OSError as exc:
            raise self._missing(exc) from None
        with process:
            if not _ended(process.pid):
                process.kill()
        if process.returncode != 0:
            raise self._refused("create", before)
        with open(pid_file, encoding="ascii") as file:
            return int(file.read())

    def call(self, verb: str, *arguments: str) -> str:
        """Run a verb to its end.

        Returns:
            What it printed.

        Raises:
            InvocationError: it failed, or took too long.
        """
        before = self.log_size()
        try:
            done = subprocess.run(
                self.argv(verb, *arguments),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=TIMEOUT,
                process_group=0,  # a ^C is for the program, which may run before its start has ended
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise InvocationError(
                f"the runtime took more than {TIMEOUT:g} seconds to {verb}"
            ) from None
        except OSError as exc:
            raise self._missing(exc) from None
        if done.returncode != 0:
            raise self._refused(verb, before, done.stderr)
        return done.stdout

    def _missing(self, exc: OSError) -> InvocationError:
        told = InvocationError(f"the runtime {self._base[0]}: {str(exc.strerror).lower()}")
        told.hint = "ARGOSY_RUNTIME names the program; without it, argosy's own is used"
        return told

    def start(self) -> None:
        """Run the user's program."""
        self.call("start", self._container.id)

    def kill(self, number: int) -> None:
        """Send a signal to init."""
        self.call("kill", self._container.id, str(number))

    def delete(self) -> None:
        """Remove all the runtime has of it, whatever its status; nothing is there is fine.

        Raises:
            InvocationError: something is left.
        """
        if not self._has_any():
            return
        try:
            self.call("delete", "--force", self._container.id)
        except InvocationError as exc:
            if not self._has_any():
                return
            exc.hint = f"try again, or if nothing of it runs any more remove {self._state} first"
            raise

    def _has_any(self) -> bool:
        """Whether the runtime has anything of it, without a process: its directory is made first and removed last."""
        return os.path.lexists(self._state)

    def state(self) -> dict[str, Any] | None:
        """The runtime's state of it, or None."""
        if not self._has_any():
            return None
        try:
            found: dict[str, Any] = json.loads(self.call("state", self._container.id))
        except (InvocationError, ValueError):
            return None
        return found

    def log_size(self) -> int:
        """The bytes of the runtime's log: what it says from now on comes after them."""
        return os.path.getsize(self._log) if os.path.exists(self._log) else 0

    def _refused(self, verb: str, before: int, complaint: str = "") -> InvocationError:
        otherwise = f"the runtime failed to {verb} container {self._container.id[:12]}"
        message = self._last_error(before) or complaint.strip() or otherwise
        return InvocationError(message, exit_code=meaning(message))

    def _last_error(self, before: int) -> str:
        """The last error of the runtime's log after so many bytes; nothing where it was killed before it could tell."""
        try:
            with open(self._log, "rb") as file:
                file.seek(max(before, os.fstat(file.fileno()).st_size - 65536))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        for line in reversed(lines):
            with contextlib.suppress(ValueError, AttributeError):
                value = json.loads(line)
                if value.get("level") == "error":
                    return str(value.get("msg", ""))
        return ""


def status_of(container: Container) -> str:
    """The container's status, or `orphaned`: whoever watched it was killed, and it runs on."""
    if container.status != "dead":
        return container.status
    state = Runtime(container).state()
    return "orphaned" if state and state.get("status") in ALIVE else "dead"


def kill_forgotten(container: Container) -> bool:
    """Kill a program of which the runtime has lost all it had: it is still the child of the process that watches it.

    Returns:
        Whether there was one.
    """
    with contextlib.suppress(OSError, ValueError):
        with open(container.file("pid"), encoding="ascii") as file:
            pid = int(file.read())
        pidfd = os.pidfd_open(pid)
        try:
            if _parent(pid) == container.record.watcher:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def _ended(pid: int) -> bool:
    """Wait for a child without polling, as `subprocess` does where it has a time limit. Returns whether it ended."""
    pidfd = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return bool(poller.poll(TIMEOUT * 1000))
    finally:
        os.close(pidfd)


def exit_code_of(status: int) -> int:
    """A wait status as a shell's exit code: 128 and the signal's number for who was killed."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def words(arguments: Sequence[str]) -> str:
    """A command line for people: quoted where needed, cut where long."""
    text = " ".join(a if a and not set(a) & set(" \t\n'\"\\$") else repr(a) for a in arguments)
    return text if len(text) <= 200 else f"{text[:199]}…"
