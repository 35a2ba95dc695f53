"""A first process for a container, of this machine's."""

from __future__ import annotations

import json
import pathlib

import pytest

from argosy.engine import command, configure
from argosy.errors import UnsupportedError
from argosy.runtime.plan import PROGRAM
from tests.engine.conftest import Argosy, alone
from tests.engine.test_configure import made

pytestmark = pytest.mark.xdist_group("containers")


@pytest.fixture
def init() -> str:
    try:
        return command.init_program()
    except UnsupportedError as exc:
        pytest.skip(f"--init: {exc}")


def sleepers(argosy: Argosy) -> str:
    """The states of the processes called `sleep` in the container `c`: S sleeps, or is just about to, Z is a zombie."""
    script = (
        "for f in /proc/[0-9]*/stat; do read -r line < $f && echo $line; done 2>/dev/null; true"
    )
    lines = argosy("exec", "c", "sh", "-c", script).out.splitlines()
    states = (line.partition(") ")[2][0] for line in lines if "(sleep)" in line)
    return "".join(sorted("S" if state == "R" else state for state in states))


@pytest.mark.parametrize(("options", "states"), [((), "SZ"), (("--init",), "S")])
def test_orphans_are_taken_in(
    argosy: Argosy, image: str, init: str, options: tuple[str, ...], states: str
) -> None:
    script = "(sleep 0.1 &); exec sleep 100"
    argosy(
        "run", "-q", "-d", "--name", "c", "--network", "none", *options, image, "sh", "-c", script
    )
    while (found := sleepers(argosy)) != states:
        assert found in ("SS", "SZ")


def test_signals_and_exit_codes_are_passed_on(argosy: Argosy, image: str, init: str) -> None:
    argosy("run", "-q", "-d", "--init", "--name", "c", "--network", "none", image, "sleep", "100")
    argosy("stop", "-t", "60", "c")
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert (row["ExitCode"], row["Command"]) == (128 + 15, ["sleep", "100"])
    done = argosy(
        "run", "-q", "--rm", "--init", "--read-only", "--tmpfs", "/run", "--network", "none", image,
        "sh", "-c", "read -r line < /proc/1/cmdline; echo $line; echo $$; exit 9", code=9,
    )  # fmt: skip
    assert "/run/argosy-init" in done.out
    assert done.out.split()[-1] != "1"


def test_the_machines_init_cannot_be_written(argosy: Argosy, image: str, init: str) -> None:
    before = pathlib.Path(init).stat().st_mtime_ns
    script = "echo x > /run/argosy-init; echo x > /proc/1/exe; true"
    done = argosy(
        "run", "-q", "--rm", "--init", "--network", "none", image, "sh", "-c", script, code=None
    )
    assert done.err.lower().count("read-only file system") + done.err.count("Text file busy") == 2
    assert pathlib.Path(init).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found'),
        ("/etc/motd", 126, 'exec: "/etc/motd": permission denied'),
        ("/tmp", 126, 'exec: "/tmp": is a directory'),
    ],
)
def test_a_program_that_cannot_run_gives_dockers_codes_whatever_the_init_gives(
    argosy: Argosy, image: str, init: str, program: str, code: int, words: str
) -> None:
    assert words in alone(argosy, image, program, options=("--init",), code=code).err


def test_the_runtime_is_told_which_program_is_behind_the_init(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(configure, "init_program", lambda: "/bin/true")
    found = made(init=True, labels=(f"{PROGRAM}=x",))
    assert found["process"]["args"] == ["/run/argosy-init", "--", "true"]
    assert found["annotations"][PROGRAM] == "true"
    assert PROGRAM not in made()["annotations"]


def test_where_no_init_is_installed_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_INITS", ("nosuchinit",))
    with pytest.raises(UnsupportedError, match="catatonit, docker-init and tini-static"):
        command.init_program()
