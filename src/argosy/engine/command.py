"""Running a program of the host: absolute path, no shell, a time limit, its complaint as one line."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from argosy.errors import StorageError, UnsupportedError

TIMEOUT = 30.0
"""Seconds a helper program may take."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def program(name: str, why: str) -> str:
    """The path of a program, from the system's directories only.

    Raises:
        UnsupportedError: it is not installed.
    """
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise UnsupportedError(f"the program {name} is not installed, and {why} needs it")
    return found


_INITS = (
    "catatonit", "/usr/libexec/podman/catatonit", "docker-init", "/usr/libexec/docker/docker-init", "tini-static",
)  # fmt: skip
"""Small programs that pass signals on and take in orphans, each one file that needs no library."""


def init_program() -> str:
    """The path of a program that can be a container's first process.

    Raises:
        UnsupportedError: none is installed.
    """
    for name in _INITS:
        found = shutil.which(name, path=_PATH)
        if found is not None:
            return os.path.realpath(found)
    raise UnsupportedError(
        "none of the programs catatonit, docker-init and tini-static is installed, and --init needs one"
    )


def run(argv: Sequence[str], text: str = "") -> str:
    """Run it and return what it printed.

    Raises:
        StorageError: it failed or took too long; the message is its own last line.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise StorageError(
            f"{os.path.basename(argv[0])} took more than {TIMEOUT:g} seconds"
        ) from None
    if done.returncode != 0:
        told = [line.strip() for line in (done.stderr or done.stdout).splitlines()]
        why = [line for line in told if line and "syslog" not in line] or [
            f"exit code {done.returncode}"
        ]
        raise StorageError(f"{os.path.basename(argv[0])}: {why[-1][:300]}")
    return done.stdout
