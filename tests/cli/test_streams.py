"""Standard streams that are closed, full or read by nobody, and what may go to a terminal."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.image.view import Image
from argosy.layout.store import LayoutStore
from argosy.spec.descriptor import Descriptor
from argosy.spec.mediatypes import OCI_INDEX
from argosy.testing import random
from tests.cli.conftest import Run


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, where `argosy` is this one."""
    argosy = f'argosy() {{ {shlex.quote(sys.executable)} -m argosy "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", argosy + line], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("argosy ls oci:{0} >&-", 1),
        ("argosy ls oci:{0} 2>&-", 0),
        ("argosy ls oci:{0} <&-", 0),
        ("argosy ls oci:{0}/none >&- 2>&-", 2),
        ("argosy cp oci:{0}:v1 oci:{0}-copy:v1 <&- >&- 2>&-", 0),
        ("argosy blob put oci:{0} <&-", 1),
        (r"printf '\xff' | argosy login -u ada --no-check --password-stdin r.example", 64),
        ("argosy ls oci:{0} >/dev/full", 1),
        ("argosy --help >/dev/full", 1),
        ("argosy --version >/dev/full", 1),
        ("argosy --version >&-", 1),
        ("argosy cp oci:{0}:v1 oci:{0}-copy:v1 2>/dev/full && argosy digest oci:{0}-copy:v1", 0),
        ("argosy ls oci:{0}/none 2>/dev/full", 2),
        ("argosy ls >/dev/full 2>/dev/full", 64),
        (
            "argosy cp oci:{0}:v1 oci:{0}-copy:v1 2>&1 >/dev/null | true; exit ${{PIPESTATUS[0]}}",
            141,
        ),
        ("argosy ls oci:{0}/none 2>&1 | true; exit ${{PIPESTATUS[0]}}", 2),
        ("ARGOSY_DEBUG=1 argosy ls oci:{0}/none 2>&1 | true; exit ${{PIPESTATUS[0]}}", 2),
        ("argosy ls 2>&1 | true; exit ${{PIPESTATUS[0]}}", 64),
        ("argosy manifest 2>&1 | true; exit ${{PIPESTATUS[0]}}", 64),
        ("argosy cp -q oci:{0}:v1 oci-archive:- | true; exit ${{PIPESTATUS[0]}}", 141),
    ],
)
def test_a_closed_stream_is_no_defect(line: str, code: int, tmp_path: Path) -> None:
    store = LayoutStore.create(str(tmp_path / "layout"))
    random.image(store, 1, "v1", size=300_000)
    done = shell(line.format(tmp_path / "layout"))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "defect" not in done.stdout + done.stderr
    if "2>&-" in line:
        assert "argosy:" not in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "artifact push -q oci-archive:-:v1 f",
        "sync -q oci:{} oci-archive:-",
        "flatten -q oci:{}:v1 -t oci-archive:-",
    ],
)
def test_an_archive_on_stdout_has_stdout_for_itself(line: str, layout: Path) -> None:
    (layout.parent / "f").write_text("x")
    done = shell(f"cd {layout.parent}; argosy {line.format(layout)} | tail -c 1024")
    assert done.stdout == "\0" * 1024
    assert "sha256:" in done.stderr


def test_no_control_characters_reach_a_terminal(argosy: Run, layout: Path) -> None:
    argosy("mutate", f"oci:{layout}:v1", "-l", "k=\x1b[31mred\x9b2J", "-t", "red")
    shown = argosy("inspect", f"oci:{layout}:red").out
    assert "k= [31mred 2J" in shown
    told = argosy("inspect", "--json", f"oci:{layout}:red")
    assert "\x9b" not in told.out
    assert told.json["Labels"]["k"] == "\x1b[31mred\x9b2J"


@pytest.mark.parametrize("form", ["tree", "dot", "mermaid", "svg"])
def test_a_picture_holds_no_control_characters(argosy: Run, layout: Path, form: str) -> None:
    store = LayoutStore.open(str(layout))
    odd = {**store.resolve("v1").encode(), "platform": {"os": "li\x1b[1mx", "architecture": "a\n6"}}
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [odd]}).encode()
    store.push(Descriptor.of(OCI_INDEX, raw), io.BytesIO(raw), tags=["odd"])
    drawn = argosy("graph", "-f", form, f"oci:{layout}:odd").out
    assert "manifest li [1mx/a 6" in drawn
    assert all(line.isprintable() for line in drawn.split("\n"))


def test_a_sound_image_with_an_odd_tag_is_told_of_safely(argosy: Run, layout: Path) -> None:
    path = layout / "index.json"
    path.write_text(path.read_text().replace('"v1"', '"v\\u001b[31m1"'))
    said = argosy("validate", "--all-tags", f"oci:{layout}").err
    assert "v [31m1: sha256" in said
    assert "\x1b" not in said


def hostile(layout: Path, *, number: bytes = b"1", value: str = "\ud800") -> str:
    """An image whose configuration holds a number and a lone surrogate."""
    store = LayoutStore.open(str(layout))
    image = Image.open(store, "v1")
    document = json.loads(image.raw_config)
    document |= {"author": value, "x": 0}
    document["config"] = {"Labels": {"k": value}, "Env": [f"K={value}"]}
    raw = json.dumps(document).encode().replace(b'"x": 0', b'"x": ' + number)
    config = Descriptor.of(image.manifest.config.media_type, raw)
    store.push(config, io.BytesIO(raw))
    changed = dataclasses.replace(image.manifest, config=config).encode()
    store.push(Descriptor.of(image.descriptor.media_type, changed), io.BytesIO(changed), tags=["h"])
    return f"oci:{layout}:h"


def test_a_lone_surrogate_is_shown_by_its_number(layout: Path) -> None:
    place = hostile(layout)
    for line in ("inspect --json {}", "bundle config {}", "inspect -f '{{{{json .Labels}}}}' {}"):
        done = shell("argosy " + line.format(place))
        assert (done.returncode, done.stderr) == (0, "")
        assert "\\ud800" in done.stdout
        json.loads(done.stdout)
    for line in (
        "inspect {}",
        "inspect -f '{{{{.Labels.k}}}}' {}",
        "history {}",
        "explain {}",
        f"ls oci:{layout}",
    ):
        done = shell("argosy " + line.format(place))
        assert (done.returncode, done.stderr) == (0, ""), line
    edited = shell(f"argosy edit config {place} </dev/null")
    assert "defect" not in edited.stderr


def test_a_document_is_json_whatever_the_encoding_of_the_terminal(layout: Path) -> None:
    for value, encoding in (("ä😀", "ascii"), ("ä", "latin-1")):
        place = hostile(layout, value=value)
        done = shell(f"PYTHONIOENCODING={encoding} argosy inspect --json {place}")
        assert json.loads(done.stdout)["Labels"] == {"k": value}
    place = hostile(layout, value="ä😀")
    assert "\\xe4" in shell(f"PYTHONIOENCODING=ascii argosy inspect {place}").stdout


def test_a_number_that_is_infinite_is_no_defect(argosy: Run, layout: Path) -> None:
    place = hostile(layout, number=b"1e999")
    for words in (["mutate", place, "--author", "me"], ["flatten", place], ["inspect", place]):
        assert "the number 1e999 is too large" in argosy(*words, code=1).err
    argosy("mutate", f"oci:{layout}:v1", "--set", "config.X=1e999", code=64)


@pytest.mark.parametrize(
    "words",
    [
        "mutate {} --env $'A=\\xff'",
        "mutate {} --cmd $'\\xff'",
        "mutate {} --cmd $'[\"\\xff\"]'",
        "mutate {} --author $'\\xff'",
        "mutate {} -u $'\\xff'",
        "mutate {} --set $'config.X=\"\\xff\"'",
        "mutate {} --history.comment $'\\xff'",
        "mutate {} -a $'a=\\xff'",
        "new {}-2 --author $'\\xff'",
        "index create {} -a $'a=\\xff' -t i",
        "artifact push {}-3 /dev/null:text/plain --disable-path-validation -a $'a=\\xff'",
    ],
)
def test_what_is_no_utf8_is_not_put_into_a_document(words: str, layout: Path) -> None:
    before = (layout / "index.json").read_bytes()
    done = shell("argosy " + words.format(f"oci:{layout}:v1"))
    assert (done.returncode, done.stdout) == (64, ""), done.stderr
    assert "expected UTF-8" in done.stderr
    assert (layout / "index.json").read_bytes() == before


def test_a_file_whose_name_is_no_utf8_can_be_inserted(layout: Path, tmp_path: Path) -> None:
    done = shell(
        f"cd {tmp_path} && echo hi >$'\\xff' && argosy insert oci:{layout}:v1 $'\\xff' /f -t i && "
        f"argosy inspect --config oci:{layout}:i"
    )
    assert done.returncode == 0, done.stderr
    assert "argosy insert ? /f" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "mutate oci:{0}:v1 -e A=b -o {1}",
        "mutate oci:{0}:v1 -e A=b -t oci-archive:{1}:v2",
        "index create oci:{0}:v1 -t oci-archive:{1}:v2",
        "new oci-archive:{1}:empty",
    ],
)
def test_an_archive_on_stdout_is_the_archive_and_nothing_else(
    words: str, layout: Path, tmp_path: Path
) -> None:
    to_file = shell(f"argosy {words.format(layout, tmp_path / 'file.tar')} -q")
    assert to_file.stdout.startswith(("oci-archive:", "docker-archive:"))
    to_pipe = shell(f"argosy {words.format(layout, '-')} -q > {tmp_path / 'pipe.tar'}")
    assert "-archive:-" in to_pipe.stderr
    assert (tmp_path / "pipe.tar").read_bytes() == (tmp_path / "file.tar").read_bytes()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("FileNotFoundError(2, 'No usable temporary directory found in /t')", "found in /t"),
        ("MemoryError()", "out of memory"),
        ('RuntimeError("can\'t start new thread")', "no thread can be"),
    ],
)
def test_what_the_machine_does_not_have_is_no_defect(error: str, told: str) -> None:
    script = f"from argosy.cli import failure; import sys; sys.exit(failure.report({error}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert "hint: " in done.stderr
    assert "defect" not in done.stderr


HOMELESS = """
import pwd, sys, types
home = types.SimpleNamespace(pw_dir=sys.argv.pop())
pwd.getpwuid = lambda _: home
from argosy.cli.main import run
run(sys.argv[1:])
"""


@pytest.mark.parametrize("home", [{}, {"HOME": ""}])
def test_who_has_no_home_in_the_environment_has_that_of_the_users_database(
    tmp_path: Path, home: dict[str, str]
) -> None:
    docker = tmp_path / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text('{"auths": {"r.example": {"auth": "YWRhOnNlY3JldA=="}}}')
    env = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS, "auth", "ls", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120, env=env | home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "r.example" in done.stdout


NOBODY = """
import os, pwd, sys
os.geteuid = os.getuid = lambda: 4242
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown
from argosy.cli.main import run
run(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [["images"], ["ps"], ["serve", "--port", "0"]])
def test_who_has_no_home_at_all_gets_no_directory_called_tilde(
    tmp_path: Path, words: list[str]
) -> None:
    homes = {"HOME", "XDG_DATA_HOME", "ARGOSY_ROOT", "ARGOSY_REGISTRY_DATA"}
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, *words],
        capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in homes},
    )  # fmt: skip
    assert done.returncode == 1
    assert "HOME is not set" in done.stderr
    assert "hint: " in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("argosy export oci:{0} /dev/full", "/dev/full: no space left on device"),
        ("ulimit -f 200; argosy export oci:{0} {0}.tar", "{0}.tar: file too large"),
        (
            "f=$(argosy fs ls -R oci:{0} | tail -1); ulimit -f 20; argosy fs cp oci:{0} $f {1}/f",
            "{1}/f: file too large",
        ),
        ("ulimit -f 200; argosy fs cp oci:{0} / {1}/f", "hint: TMPDIR names another place"),
        (
            "ulimit -f 200; TMPDIR={1} argosy flatten -q oci:{0} -t oci:{0}-flat:v1",
            "temporary file in {1}: file too large",
        ),
        (
            "head -c 20000000 /dev/urandom >{0}/b; ulimit -f 200; TMPDIR={1} argosy insert oci:{0} {0}/b /x",
            "temporary file in {1}: file too large",
        ),
    ],
)
def test_where_there_is_no_room_is_told(line: str, told: str, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    random.image(LayoutStore.create(str(layout)), 1, "v1", size=300_000)
    done = shell(line.format(layout, tmp_path))
    assert done.returncode == 1
    assert told.format(layout, tmp_path) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["layout"]
