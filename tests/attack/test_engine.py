"""Attacks of a container on the machine `argosy run` runs it on: by what is handed in, and by the network."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.engine.conftest import Argosy, argosy, asked, host_layout, launcher, root

__all__ = ["argosy", "asked", "host_layout", "launcher", "root"]

pytestmark = pytest.mark.xdist_group("containers")

REACH = """
echo pwned > /proc/self/fd/0
: > /proc/self/fd/1
: > /proc/self/fd/2
echo told
echo told >&2
"""


@pytest.fixture
def image(host_layout: pathlib.Path) -> str:
    return f"oci:{host_layout}:v1"


@pytest.fixture
def container(argosy: Argosy, image: str) -> str:
    argosy("run", "-q", "-d", "--name", "c", "--network", "none", image, "sleep", "100")
    return "c"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_container_gets_no_file_of_the_machine_as_its_streams(
    argosy: Argosy, image: str, container: str, tmp_path: pathlib.Path, verb: str
) -> None:
    options = {"run": ["-q", "--rm", "-u", "4242", "--network", "none", image], "exec": [container]}
    files = {name: tmp_path / name for name in ("in", "out", "err")}
    for path in files.values():
        path.write_text("kept\n")
    with files["in"].open() as stdin, files["out"].open("a") as out, files["err"].open("a") as err:
        subprocess.run(
            [sys.executable, "-m", "argosy", verb, "-i", *options[verb], "sh", "-c", REACH],
            env=argosy.env, stdin=stdin, stdout=out, stderr=err, check=True,  # type: ignore[attr-defined]
        )  # fmt: skip
    assert files["in"].read_text() == "kept\n"
    assert files["out"].read_text() == files["err"].read_text() == "kept\ntold\n"
    assert {path.stat().st_uid for path in files.values()} == {0}


def test_a_container_does_not_read_what_is_typed_for_others(argosy: Argosy, image: str) -> None:
    line = f"{sys.executable} -m argosy run -q --rm --network none {image} sh -c 'test -t 1 || echo none; cat <&1'"
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"],
        env=argosy.env, input="secret\n", capture_output=True, text=True, timeout=60, check=False,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert "none" in done.stdout
