"""Completion in the shells themselves: what stands in the line after a tab."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from argosy.layout.store import LayoutStore
from argosy.testing import random

UNSET = {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb", "LC_ALL": "C.UTF-8"}

STARTS = {
    "bash": r"""
source <(argosy completion bash)
_show() { printf '%s\n' "$READLINE_LINE" >&$TOLD; READLINE_LINE=; }
bind -x '"\C-g": _show'
""",
    "zsh": r"""
autoload -Uz compinit; compinit -u -D
source <(argosy completion zsh)
_show() { print -r -u $TOLD -- "$BUFFER"; BUFFER=''; }
zle -N _show; bindkey '^G' _show; bindkey '^I' expand-or-complete; unsetopt beep
""",
}  # fmt: skip
"""What a shell is told first: Ctrl-G hands over what stands in its line."""

FLAGS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}

CASES = {
    "argosy inse": "argosy insert ",
    "argosy registry sch": "argosy registry schema ",
    "argosy cp --no-c": "argosy cp --no-clobber ",
    "argosy cp --format v": "argosy cp --format v2s2 ",
    "argosy cp --format=v": "argosy cp --format=v2s2 ",
    "argosy append -f lay": "argosy append -f layer.tar ",
    "argosy append --new_layer=lay": "argosy append --new_layer=layer.tar ",
    "argosy append -f od": r"argosy append -f odd\ name.tar ",
    "argosy append -f 'od": "argosy append -f 'odd name.tar' ",
    "argosy append -f ~/lo": "argosy append -f ~/login ",
    "argosy cp oci-": "argosy cp oci-archive:",
    "argosy cp dock": "argosy cp docker",
    "argosy cp ./im": "argosy cp ./images/",
    "argosy cp oci:im": "argosy cp oci:images/",
    "argosy cp oci:./im": "argosy cp oci:./images/",
    "argosy cp 'oci-archive:./od": "argosy cp 'oci-archive:./odd name.tar' ",
    "argosy cp oci:./lay": "argosy cp oci:./lay",
    "argosy cp oci-archive:lay": "argosy cp oci-archive:layer.tar ",
    "argosy cp --src-creds a:b oci:im": "argosy cp --src-creds a:b oci:images/",
    "argosy rm oci:im": "argosy rm oci:images/",
    "argosy rm oci:images:v1": "argosy rm oci:images:v1.0 ",
    "argosy rm ./images:v1": "argosy rm ./images:v1.0 ",
    "argosy rm 'oci:./images:v1": "argosy rm 'oci:./images:v1.0' ",
    "argosy push lay": "argosy push layer.tar ",
    "argosy nosuch --": "argosy nosuch --",
}
"""What is typed before the tab, and what stands there after it."""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("home", "bin"):
        (tmp_path / name).mkdir()
    with LayoutStore.create(str(tmp_path / "images")) as store:
        random.image(store, 1, "v1.0", "v2", "registry.example/app:v1")
    for name in ("layer.tar", "odd name.tar", "home/login"):
        (tmp_path / name).touch()
    program = tmp_path / "bin/argosy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m argosy "$@"\n')
    program.chmod(0o755)
    return tmp_path


def environment(folder: pathlib.Path) -> dict[str, str]:
    return {"HOME": f"{folder}/home", "PATH": f"{folder}/bin:{os.environ['PATH']}", **UNSET}


@contextlib.contextmanager
def interactive(shell: str, folder: pathlib.Path) -> Iterator[tuple[int, int]]:
    """A shell at a terminal: the terminal, and the pipe in which Ctrl-G hands over the line."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    hearing, telling = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        os.set_inheritable(telling, True)
        os.chdir(folder)
        os.execve(program, [shell, *FLAGS[shell]], {**environment(folder), "TOLD": str(telling)})
    os.close(telling)
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 50, 250, 0, 0))
        (folder / "start").write_text(STARTS[shell])
        os.write(terminal, b". ./start; echo ready >&$TOLD\n")
        yield terminal, hearing
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
        os.close(hearing)


def told(terminal: int, hearing: int) -> str:
    """The next line that is handed over; what the terminal shows meanwhile is read and forgotten."""
    line = b""
    while not line.endswith(b"\n"):
        ready = select.select([terminal, hearing], [], [])[0]
        if terminal in ready:
            assert os.read(terminal, 65536)
        if hearing in ready:
            got = os.read(hearing, 65536)
            assert got, "the shell has ended"
            line += got
    return line.decode().removesuffix("\n")


@pytest.mark.parametrize("shell", STARTS)
def test_a_tab_completes_commands_options_values_files_and_places(
    shell: str, folder: pathlib.Path
) -> None:
    after = {}
    with interactive(shell, folder) as (terminal, hearing):
        assert told(terminal, hearing) == "ready"
        for line in CASES:
            os.write(terminal, f"{line}\t\7".encode())
            after[line] = told(terminal, hearing)
    assert after == CASES


FISH = {
    "argosy ins": [
        "inspect\tShow what an image is: platforms, layers, configuration.",
        "insert\tPut a file or directory into an image, or remove a path.",
    ],
    "argosy cp --no-c": [
        "--no-clobber\tMove no tag that TARGET has: fail, or with --all-tags copy the others."
    ],
    "argosy cp --format=v": ["--format=v2s2"],
    "argosy cp --format v": ["v2s2"],
    "argosy append --new_layer=od": ["--new_layer=odd name.tar"],
    "argosy append -f 'od": ["odd name.tar"],
    "argosy append -f ~/lo": ["~/login"],
    "argosy cp oci": ["oci:", "oci-archive:"],
    "argosy cp oci:./im": ["oci:./images/"],
    "argosy cp oci:./lay": [],
    "argosy cp oci:./images:v": ["oci:./images:v1.0", "oci:./images:v2"],
    "argosy cp oci:images:reg": ["oci:images:registry.example/app:v1"],
    "argosy cp oci:home:": [],
    "argosy cp oci::": [],
    "argosy nosuch ": [],
}


def test_fish_is_offered_the_same_with_their_whole_help(folder: pathlib.Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("needs fish")
    script = "argosy completion fish | source; for line in $argv; complete -C $line; echo ==; end"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script, *FISH],
        env=environment(folder), cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    offered = [part.strip("\n").split("\n") for part in done.stdout.split("==\n")]
    assert dict(zip(FISH, ([x for x in one if x] for one in offered), strict=False)) == FISH


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("argosy ins", ["inspect", "insert"]),
        ("argosy registry s", ["schema", "scrub", "stats"]),
        ("argosy --v", ["--version"]),
        ("argosy cp --no-c", ["--no-clobber"]),
        ("argosy cp --format v", ["v2s2"]),
        *(
            (f"argosy {line} fi", ["file"])
            for line in (
                "append -f",
                "append --authfile",
                "artifact push x",
                "blob put x",
                "manifest put x",
                "size --ci-config",
                "spec -f",
                "sync -f",
            )
        ),
    ],
)
def test_completion_knows_commands_and_options(
    tmp_path: pathlib.Path, typed: str, completed: list[str]
) -> None:
    (tmp_path / "file").touch()
    script = "import sys; sys.modules['apsw'] = None; from argosy.cli.main import call; sys.exit(call([]))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "_ARGOSY_COMPLETE": "bash", "COMP_LINE": typed},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == completed, done.stderr
