"""A real credential helper, `docker-credential-pass`, with a key and a store of the test's own."""

from __future__ import annotations

import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run, argosy
from tests.conftest import find_peer
from tests.interop.registries import Running, running
from tests.interop.test_client import htpasswd

__all__ = ["argosy"]

KEY = "ada@argosy.test"
HUB = "https://index.docker.io/v1/"
MISSING = "credentials not found in native keychain\n"


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Docker's configuration, which names the helper, in a home with a key and an empty store."""
    for program in ("docker-credential-pass", "pass", "gpg", "gpgconf", "gpg-connect-agent"):
        find_peer(program)
    home = pathlib.Path(tempfile.mkdtemp(prefix="pass"))  # an agent's socket takes no long name
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GNUPGHOME", str(home / "gpg"))
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "docker"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))  # nobody's /run/containers
    monkeypatch.delenv("PASSWORD_STORE_DIR", raising=False)
    (home / "gpg").mkdir(mode=0o700)
    (home / "docker").mkdir()
    path = home / "docker" / "config.json"
    path.write_text('{"credsStore": "pass"}')
    generate = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", KEY]
    try:
        run(*generate, "rsa2048", "sign,encrypt", "never")
        run("pass", "init", KEY)
        yield path
    finally:
        end_agent()
        shutil.rmtree(home)


def end_agent() -> None:
    """Stop the key agent of this home and wait: it takes its sockets away itself."""
    asked = subprocess.run(
        ["gpg-connect-agent", "--no-autostart", "getinfo pid", "/bye"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.match(r"D (\d+)\n", asked.stdout)
    if found is None:
        return  # no agent was begun
    ended = os.pidfd_open(int(found[1]))
    try:
        run("gpgconf", "--kill", "gpg-agent")
        assert select.select([ended], [], [], 30)[0]
    finally:
        os.close(ended)


def run(*words: str, text: str = "") -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def listed() -> object:
    return json.loads(run("docker-credential-pass", "list"))


@pytest.fixture
def guarded(tmp_path: pathlib.Path) -> Iterator[Running]:
    """A registry that lets in `ada` with the password `secret`."""
    with running("registry", tmp_path, extra=htpasswd(tmp_path)) as found:
        yield found


def test_credentials_are_kept_used_and_forgotten(
    argosy: Run, config: pathlib.Path, guarded: Running
) -> None:
    line = ("--authfile", config)
    argosy("registry", "ping", guarded.name, *line, code=3)
    done = argosy("login", *line, guarded.name, "-u", "ada", "-p", "secret")
    assert "kept in docker-credential-pass" in done.err
    assert listed() == {guarded.name: "ada"}
    assert "secret" not in config.read_text()
    argosy("registry", "ping", guarded.name)  # DOCKER_CONFIG has it too
    assert argosy("auth", "get", guarded.name).json == {"Username": "ada", "Secret": "secret"}
    found = {"registry": guarded.name, "username": "ada", "place": str(config)}
    assert argosy("auth", "ls", "--json").json == [{**found, "helper": "docker-credential-pass"}]
    assert (
        f"found: ada, under {guarded.name}" in argosy("auth", "ls", "--explain", guarded.name).out
    )
    argosy("logout", guarded.name)
    assert listed() == {}
    assert json.loads(config.read_text()) == {"credsStore": "pass", "auths": {}}
    assert argosy("auth", "get", guarded.name, code=2).out == MISSING
    argosy("logout", guarded.name, code=2)
    argosy("registry", "ping", guarded.name, code=3)


@pytest.mark.parametrize(
    ("typed", "key"), [("docker.io", HUB), ("r.example:5000", "r.example:5000")]
)
def test_an_identity_token_is_kept_for_the_user_of_no_name(
    argosy: Run, config: pathlib.Path, typed: str, key: str
) -> None:
    argosy("login", "--authfile", config, "--no-check", "--identity-token", "tök", typed)
    there = json.loads(run("docker-credential-pass", "get", text=key))
    assert (there["Username"], there["Secret"]) == ("<token>", "tök")
    assert argosy("auth", "get", typed).json == {"Username": "<token>", "Secret": "tök"}
    assert listed() == {key: "<token>"}
    argosy("logout", "--all")
    assert listed() == {}


def test_what_others_kept_is_found_and_forgotten_whole(argosy: Run, config: pathlib.Path) -> None:
    """Some clients keep a registry with its scheme, and a password has any characters."""
    for key in ("r.example", "https://r.example"):
        kept = {"ServerURL": key, "Username": "ada", "Secret": 'a "b\\:ü'}
        run("docker-credential-pass", "store", text=json.dumps(kept))
    assert argosy("auth", "get", "r.example").json == {"Username": "ada", "Secret": 'a "b\\:ü'}
    argosy("logout", "r.example")
    assert listed() == {}


def test_a_part_of_a_registry_is_not_kept_in_a_helper(argosy: Run, config: pathlib.Path) -> None:
    line = ("--authfile", config, "--no-check", "-u", "ada", "-p", "x")
    done = argosy("login", *line, "r.example/team", code=1)
    assert "keeps credentials of whole registries, not of r.example/team" in done.err
    argosy("login", *line, "r.example")
    argosy("logout", "r.example/team", code=2)
    assert listed() == {"r.example": "ada"}


def test_crane_and_argosy_share_a_helper(argosy: Run, config: pathlib.Path) -> None:
    crane = find_peer("crane")
    run(crane, "auth", "login", "r.example", "-u", "ada", "-p", "x")
    assert listed() == {"r.example": "ada"}
    assert argosy("auth", "get", "r.example").json == {"Username": "ada", "Secret": "x"}
    argosy("login", "--authfile", config, "--no-check", "-u", "bob", "-p", "y", "docker.io")
    told = json.loads(run(crane, "auth", "get", "docker.io"))
    assert (told["Username"], told["Secret"]) == ("bob", "y")
    run(crane, "auth", "logout", "r.example")
    assert argosy("auth", "get", "r.example", code=2).out == MISSING
