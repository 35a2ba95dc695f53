"""The command ``argosy-runtime``: runc's verbs, options, outputs, exit codes and words.

Only what a verb needs is imported, by the verb.
"""

from __future__ import annotations

import posix
import sys
from _signal import SIG_DFL, SIGCHLD, signal

from argosy.runtime import log
from argosy.runtime.errors import ExecError, Failure, UnknownError, UsageError, describe
from argosy.runtime.options import GLOBAL, VERBS, absolute, is_number, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from argosy.runtime.container import Container

_EXEC_FAILED = 255
_SELF = "argosy-runtime"


class Command:
    """One command line, parsed.

    Attributes:
        program: the name it was called by.
        settings: global options.
        verb: the verb.
        options: its options.
        arguments: its positional arguments.
    """

    def __init__(
        self,
        program: str,
        settings: dict[str, Any],
        verb: str,
        options: dict[str, Any],
        arguments: list[str],
    ) -> None:
        self.program = program
        self.settings = settings
        self.verb = verb
        self.options = options
        self.arguments = arguments

    @property
    def root(self) -> str:
        """The state root, absolute."""
        given = absolute(self.settings.get("root"))
        if given:
            return given
        runtime_directory = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode()
        if posix.geteuid() and runtime_directory:
            return f"{runtime_directory}/{_SELF}"
        return f"/run/{_SELF}"

    def container(self) -> Container:
        """The container that the first argument names.

        Raises:
            UnknownError: there is none.
        """
        from argosy.runtime.container import Container

        return Container.load(self.root, self.arguments[0])


def main(words: list[str]) -> int:
    """Run one command line.

    Args:
        words: the program's name and its arguments.

    Returns:
        The exit status.
    """
    program = words[0].rsplit("/", 1)[-1]
    if program in ("", "boot.py"):  # the console script of an installation without a launcher
        program = _SELF
    signal(SIGCHLD, SIG_DFL)  # a caller that ignores its children's ends hands that on
    settings: dict[str, Any] = {}
    verb = ""
    try:
        settings, rest = parse(words[1:], GLOBAL, stops=True)
        file = absolute(settings.get("log")) or ""
        log.configure(file, _log_format(settings), debug=_wants_debug(settings))
        verb = rest[0] if rest else ""
        shown = _answer(program, settings, rest)
        if shown is not None:
            _print(shown)
            return 0
        command = _command(program, settings, verb, rest[1:])
        if command.options.get("help"):
            from argosy.runtime.help import verb_help

            _print(verb_help(program, verb))
            return 0
        log.debug(f"{verb} {' '.join(command.arguments)}: parsed, state root {command.root}")
        return _HANDLERS[verb](command)
    except (Failure, OSError) as error:
        return _fail(program, verb, error)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - one line for the caller, whatever is wrong here
        return _fail(program, verb, error)


def _fail(program: str, verb: str, error: BaseException) -> int:
    text = describe(error)
    if isinstance(error, ExecError) and verb == "run":
        log.plain(text)
        return error.status
    if verb in ("create", "run", "restore") and not isinstance(error, UsageError):
        text = f"{program} {verb} failed: {text}"
    elif verb == "exec" and not isinstance(error, UsageError):
        text = f"exec failed: {text}"
    log.error(text)
    return _EXEC_FAILED if verb == "exec" and not isinstance(error, UsageError) else 1


def _log_format(settings: dict[str, Any]) -> str:
    style = settings.get("log-format") or "text"
    if style not in ("text", "json"):
        raise UsageError(f"invalid log-format: {style}")
    return str(style)


def _wants_debug(settings: dict[str, Any]) -> bool:
    return bool(settings.get("debug") or settings.get("log-level") == "debug")


def _answer(program: str, settings: dict[str, Any], rest: list[str]) -> str | None:
    """What is printed without a verb; None where there is one."""
    if settings.get("version"):
        from argosy.runtime.help import version

        return version(program)
    if not rest or settings.get("help") or rest[0] in ("help", "h"):
        from argosy.runtime.help import overview, verb_help

        named = rest[1:2] or (rest[:1] if settings.get("help") else [])
        return verb_help(program, named[0]) if named and named[0] in VERBS else overview(program)
    return None


def _command(program: str, settings: dict[str, Any], verb: str, words: list[str]) -> Command:
    found = VERBS.get(verb)
    if found is None:
        raise UsageError(f"No help topic for '{verb}'")
    options, arguments = parse(words, found.options, stops=found.stops)
    if not options.get("help"):
        if len(arguments) < found.least:
            raise UsageError(f'{program}: "{verb}" requires a minimum of {found.least} argument')
        if found.most is not None and len(arguments) > found.most:
            raise UsageError(f'{program}: "{verb}" requires exactly {found.most} argument(s)')
    return Command(program, settings, verb, options, arguments)


def _print(text: str) -> None:
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    while data:
        data = data[posix.write(1, data) :]


# --- short verbs ---


def _state(command: Command) -> int:
    from argosy.runtime.jsonio import pretty

    _print(pretty(command.container().public_state()) + "\n")
    return 0


def _start(command: Command) -> int:
    container = command.container()
    host = posix.environ.get(b"NOTIFY_SOCKET")
    if not host:
        container.start()
        return 0
    from argosy.runtime.notify import Relay

    relay = Relay(f"{container.directory}/notify/notify.sock", host)
    container.start()
    relay.run(container.state["pid"])
    return 0


def _kill(command: Command) -> int:
    signal = parse_signal(command.arguments[1] if len(command.arguments) > 1 else "TERM")
    command.container().kill(signal, everything=bool(command.options.get("all")))
    return 0


def parse_signal(text: str) -> int:
    """A signal by its number or its name, with or without SIG, in any case.

    Raises:
        Failure: there is no such signal.

    Example:
        >>> parse_signal("sigterm"), parse_signal("KILL"), parse_signal("9")
        (15, 9, 9)
    """
    from argosy.runtime.tables import SIGNALS

    if is_number(text) and int(text) <= 64:
        return int(text)
    number = SIGNALS.get(text.upper().removeprefix("SIG"))
    if number is None:
        raise Failure(f'unknown signal "{text}"')
    return number


def _delete(command: Command) -> int:
    force = bool(command.options.get("force"))
    try:
        container = command.container()
    except UnknownError:
        from argosy.runtime.state import check_id, remove

        check_id(command.arguments[0])
        remove(f"{command.root}/{command.arguments[0]}")
        if force:
            return 0
        raise
    container.delete(force=force)
    return 0


def _pause(command: Command) -> int:
    command.container().pause()
    return 0


def _resume(command: Command) -> int:
    command.container().resume()
    return 0


# --- verbs in modules of their own ---


def _lazily(module: str, name: str) -> Callable[[Command], int]:
    def handler(command: Command) -> int:
        __import__(f"argosy.runtime.{module}")
        function: Callable[[Command], int] = getattr(sys.modules[f"argosy.runtime.{module}"], name)
        return function(command)

    return handler


_HANDLERS: dict[str, Callable[[Command], int]] = {
    "checkpoint": _lazily("criu", "checkpoint_verb"),
    "create": _lazily("verbs", "create_verb"),
    "delete": _delete,
    "events": _lazily("events", "events_verb"),
    "exec": _lazily("verbs", "exec_verb"),
    "features": _lazily("reports", "features_verb"),
    "kill": _kill,
    "list": _lazily("reports", "list_verb"),
    "pause": _pause,
    "ps": _lazily("reports", "ps_verb"),
    "restore": _lazily("criu", "restore_verb"),
    "resume": _resume,
    "run": _lazily("verbs", "run_verb"),
    "spec": _lazily("reports", "spec_verb"),
    "start": _start,
    "state": _state,
    "update": _lazily("update", "update_verb"),
}
