"""The advice after an error can be typed as it stands."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions

import pytest

from argosy.cli import failure, peers
from argosy.cli.table import COMMANDS
from argosy.spec.platform import Platform
from tests.cli.conftest import Run

ROOT = pathlib.Path(__file__).parents[2]


class _Refusing(BaseHTTPRequestHandler):
    """A registry that lets nobody in: there is no token, or every token is a new one and not taken."""

    tokens = True
    given = itertools.count()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        for_token = self.path.startswith("/token") and self.tokens
        given = f'{{"token": "t{next(self.given)}"}}'.encode() if for_token else b""
        self.send_response(200 if given else 401)
        self.send_header("Content-Length", str(len(given)))
        port = self.headers["Host"].rpartition(":")[2]
        self.send_header("WWW-Authenticate", f'Bearer realm="http://localhost:{port}/token"')
        self.end_headers()
        self.wfile.write(given)

    def do_HEAD(self) -> None:
        self.do_GET()


@pytest.mark.parametrize("tokens", [True, False])
def test_the_advice_after_401_can_be_typed_as_it_stands(
    argosy: Run, monkeypatch: pytest.MonkeyPatch, tokens: bool
) -> None:
    monkeypatch.setattr(_Refusing, "tokens", tokens)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_address[1]}"
    try:
        done = argosy("digest", "--plain-http", f"{host}/app:v1", code=3)
    finally:
        server.shutdown()
        server.server_close()
    login, explain = re.findall("`argosy ([^`]*)`", done.err)
    assert login == f"login {host}"
    argosy(*explain.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["manifest", "alpine:3.20"],
            "Expected one of get, head, put, rm, as in argosy manifest get alpine:3.20.",
        ),
        (["index", "show"], "Expected one of create, add, rm, filter, annotate."),
        (["index", "ad"], "Did you mean add?"),
        (["inspekt"], "Did you mean inspect or insert?"),
        (["list-tag"], "Did you mean list-tags?"),
        (["manifest", "fetch", "alpine:3.20"], "Here it is argosy manifest get."),
        (["repo", "tags", "alpine"], "Here it is argosy ls."),
        (["auth", "nothing"], "Expected one of ls, get, token."),
    ],
)
def test_a_command_that_is_none_is_told_of_those_that_can_be_typed_there(
    argosy: Run, words: list[str], told: str
) -> None:
    assert told in argosy(*words, code=64).err


@pytest.mark.parametrize("typed", peers.OPTIONS)
def test_an_option_of_another_tool_is_refused_with_ours(argosy: Run, typed: str) -> None:
    words = typed.split() if " " in typed else ["cp", typed]
    done = argosy(*words, code=64)
    assert done.err == f"argosy: No such option '{words[-1]}'.\nhint: {peers.OPTIONS[typed]}\n"


@pytest.mark.parametrize("typed", peers.COMMANDS)
def test_a_command_of_another_tool_is_refused_with_ours(argosy: Run, typed: str) -> None:
    assert f"Here it is {peers.COMMANDS[typed]}." in argosy(*typed.split(), code=64).err


def test_what_is_advised_is_there() -> None:
    for advice in (*peers.COMMANDS.values(), *peers.OPTIONS.values()):
        for one, two in re.findall(r"argosy (?!neither)([a-z-]+)(?: ([a-z-]+))?", advice):
            assert COMMANDS[one].module or f"{one} {two}" in COMMANDS


@pytest.mark.parametrize("words", [["ls", "--format", "json", "a"], ["ps", "-o", "json"]])
def test_who_asks_for_json_in_another_way_is_told_ours(argosy: Run, words: list[str]) -> None:
    assert "hint: --json\n" in argosy(*words, code=64).err


def test_advice_is_for_the_command_that_was_typed(argosy: Run) -> None:
    assert "hint: --compress" in argosy("copy", "--dest-compress", code=64).err
    assert "hint: argosy ps --help" in argosy("ps", "-u", "me", code=64).err
    assert "hint: options stand behind" in argosy("--tls-verify=false", "ls", code=64).err
    assert "Did you mean '--version'?" in argosy("--versoin", code=64).err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("all", "leave --platform out"),
        ("local", f"this machine's is {Platform.host()}"),
        ("linux/amd64,linux/arm64", "repeat the option for each"),
    ],
)
def test_a_word_that_is_no_platform_is_told_of(argosy: Run, typed: str, told: str) -> None:
    assert told in argosy("digest", "--platform", typed, "oci:a:b", code=64).err


def test_another_name_is_told_from_a_tag(argosy: Run, layout: pathlib.Path) -> None:
    assert "`argosy cp`" in argosy("tag", f"oci:{layout}:v1", "mirror.example/app:v1", code=64).err


@pytest.mark.parametrize("words", [["cp"], ["manifest", "get"], []])
def test_help_is_a_command_too(argosy: Run, words: list[str]) -> None:
    assert argosy("help", *words).out == argosy(*words, "--help").out


@pytest.mark.parametrize("missing", ["apsw", "jsonschema"])
def test_a_registry_that_is_not_installed_is_no_defect(missing: str) -> None:
    script = "import sys; sys.modules[sys.argv[1]] = None; from argosy.cli.main import call; sys.exit(call(sys.argv[2:]))"
    words = [sys.executable, "-c", script, missing, "registry", "check-config", os.devnull]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the registry needs {missing}" in done.stderr
    assert "hint: install argosy[server]" in done.stderr


def test_what_the_registry_needs_is_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.match(r"[a-z-]+", line)[0] for line in project["optional-dependencies"]["server"]}  # type: ignore[index]
    modules = {
        module
        for module, names in packages_distributions().items()
        if wanted & {name.lower().replace("_", "-") for name in names} and module[0] != "_"
    }
    assert modules | {"cryptography"} == failure.SERVER  # of pyjwt[crypto]


def test_platforms_are_to_be_chosen_only_where_there_are_some(
    argosy: Run, layout: pathlib.Path
) -> None:
    words = ("digest", "--platform", "plan9/386")
    assert "hint: choose one of these" in argosy(*words, f"oci:{layout}:multi", code=2).err
    argosy("index", "create", "-q", "-t", f"oci:{layout}:empty")
    assert "hint" not in argosy(*words, f"oci:{layout}:empty", code=2).err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["ls", "localhost:5000"], "`argosy catalog localhost:5000` lists"),
        (["ls", "registry.example:5000"], "`argosy catalog registry.example:5000` lists"),
        (["ls", "alpine:3"], "`argosy digest docker.io/library/alpine:3` says"),
        (["cp", "--quiet=true", "a", "b"], "--quiet stands alone, without =true or =false"),
        (["ls", "--insecure=false", "a"], "--insecure stands alone, without =true or =false"),
        (["pull", "alpine", "alpine.tar"], "argosy pull -o alpine.tar PLACE writes a file"),
    ],
)
def test_what_other_tools_take_is_refused_with_what_to_type(
    argosy: Run, words: list[str], hint: str
) -> None:
    assert hint in argosy(*words, code=64).err


def test_a_file_behind_what_is_pulled_is_told_how_to_be_written(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    told = argosy("pull", "alpine", tmp_path / "alpine.tar", code=2).err
    assert f"hint: argosy pull -o {tmp_path}/alpine.tar PLACE writes a file" in told


def test_a_layout_named_without_its_transport_is_found(
    argosy: Run, layout: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """umoci's way to name one: it was looked for at Docker Hub, and the advice was a log-in."""
    monkeypatch.chdir(layout.parent)
    refused = ["--retry", "0", "--resolve", "docker.io:443:127.0.0.1:9"]
    for name in ("layout:v1", "layout"):
        told = argosy("unpack", *refused, name, "bundle", code=1).err
        assert f"hint: oci:{name} is the layout here" in told
    assert "layout here" not in argosy("unpack", *refused, "other:v1", "bundle", code=1).err
