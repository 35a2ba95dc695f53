"""Credential helpers: programs that keep credentials (the protocol of docker-credential-helpers).

Loaded only where a configuration names one: to start a program costs more than all the rest of a credential.
"""

from __future__ import annotations

import os
import re
import select
import selectors
import subprocess
import time
from collections.abc import Mapping

from argosy.errors import InvalidConfigError, LimitExceededError, UnauthorizedError
from argosy.remote import authfile
from argosy.spec import _json

_NAME = r"[A-Za-z0-9._-]+"
_NOT_FOUND = "credentials not found"
TIMEOUT = 60.0
"""Seconds it has for all it does."""
MOST = 1 << 20
"""Bytes it may say."""
_TICK = 0.05
"""Seconds after which it is looked at whether it has ended, where it neither reads nor says anything."""
_PIECE = 64 * 1024
_EVENTS = (selectors.EVENT_WRITE, selectors.EVENT_READ, selectors.EVENT_READ)


def get(helper: str, key: str, environ: Mapping[str, str] | None) -> tuple[str, str]:
    """The user name and secret that a helper has for a key; both empty where it has none.

    Raises:
        InvalidConfigError: its name is none, or it answered something else.
        UnauthorizedError: it failed, or said too much.
    """
    answer = _decoded(ask(helper, "get", key, environ, missing_ok=True), f"{_program(helper)} get")
    username, secret = (
        authfile.text(answer.get(name), f"{_program(helper)} get: {name}")
        for name in ("Username", "Secret")
    )
    return (username, secret) if secret else ("", "")  # pass answers also where it has nothing


def names(helper: str, environ: Mapping[str, str] | None) -> dict[str, str]:
    """The keys that a helper has secrets for, and their user names.

    Raises:
        InvalidConfigError: its name is none, or it answered something else.
        UnauthorizedError: it failed, or said too much.
    """
    where = f"{_program(helper)} list"
    answer = _decoded(ask(helper, "list", "", environ), where)
    return {key: authfile.text(user, f"{where}: [{key!r}]") for key, user in answer.items()}


def _decoded(answer: bytes | None, where: str) -> dict[str, object]:
    try:
        return _json.loads_object(answer, error=InvalidConfigError) if answer else {}
    except InvalidConfigError as exc:
        raise InvalidConfigError(f"{where}: {exc}") from None


def _program(helper: str) -> str:
    return f"docker-credential-{helper}"


def ask(
    helper: str,
    action: str,
    text: str,
    environ: Mapping[str, str] | None,
    *,
    missing_ok: bool = False,
) -> bytes | None:
    """What a helper answers, at most a MiB in at most a minute; None where it has nothing and that is well.

    Args:
        helper: Its name, the program's after `docker-credential-`.
        action: `get`, `store`, `erase` or `list`.
        text: What it is given to read.
        environ: Its environment; this process's if None.
        missing_ok: Whether to know nothing is no failure.

    Raises:
        InvalidConfigError: the helper's name is none.
        UnauthorizedError: it failed, or said too much.
    """
    if not re.fullmatch(_NAME, helper):
        raise InvalidConfigError(f"credential helper {helper!r}: not a name of a program")
    program = _program(helper)
    try:
        code, out, err = _run([program, action], text.encode(), environ)
    except FileNotFoundError:
        raise UnauthorizedError(
            f"{program} is not installed",
            hint="install it, or remove it from the configuration",
        ) from None
    except (TimeoutError, subprocess.TimeoutExpired):
        raise UnauthorizedError(f"{program} {action}: not done after {TIMEOUT:g} seconds") from None
    except (OSError, LimitExceededError) as exc:
        raise UnauthorizedError(f"{program} {action}: {exc}") from None
    if code == 0:
        return out
    told = (out or err).decode("utf-8", "replace").strip()
    if missing_ok and _NOT_FOUND in told.lower():
        return None
    raise UnauthorizedError(f"{program} {action}: {told[:300] or 'failed'}")


def _run(
    words: list[str], text: bytes, environ: Mapping[str, str] | None
) -> tuple[int, bytes, bytes]:
    """Run a program on an input; its exit code and what it wrote to stdout and to stderr."""
    pipe = subprocess.PIPE
    deadline = time.monotonic() + TIMEOUT
    # in this process's session and group: it may ask for a passphrase on the terminal
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environ) as process:
        try:
            out, err = _talk(process, text, deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except BaseException:
            process.kill()
            raise
    return code, out, err


def _talk(process: subprocess.Popen[bytes], text: bytes, deadline: float) -> tuple[bytes, bytes]:
    """Write the input and read the output, as either goes on; `communicate` would take an output without end, and wait
    for who else holds the pipes when the program is gone.
    """
    said: dict[object, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe, event in zip((process.stdin, *said), _EVENTS, strict=True):
            selector.register(pipe, event)  # type: ignore[arg-type]
        while selector.get_map():
            ended = process.poll() is not None
            left = max(0.0, deadline - time.monotonic())
            ready = selector.select(0.0 if ended else min(left, _TICK))
            if ended and not ready:
                break
            if not (ended or left):
                raise TimeoutError
            for key, event in ready:
                if event == selectors.EVENT_WRITE:
                    text = _written(key.fd, text)
                    over = not text
                else:
                    said[key.fileobj] += (piece := os.read(key.fd, _PIECE))
                    over = not piece
                if len(said.get(key.fileobj, b"")) > MOST:
                    raise LimitExceededError(f"more than {MOST} bytes in answer")
                if over:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
    return bytes(said[process.stdout]), bytes(said[process.stderr])


def _written(fd: int, text: bytes) -> bytes:
    """What is left to write after as much as never blocks; nothing, where nobody reads it."""
    try:
        return text[os.write(fd, text[: select.PIPE_BUF]) :]
    except BrokenPipeError:
        return b""
