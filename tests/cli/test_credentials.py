"""`argosy auth get`: credentials for other programs."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import click
import pytest

from argosy.cli import connections, remotes
from tests.cli.conftest import Run
from tests.wire import scripted as s
from tests.wire.conftest import scripted

__all__ = ["scripted"]


@pytest.fixture
def authfile(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "auth.json"
    auths = {
        "registry.example": {"auth": "YWRhOnPDqWNyZXQ="},  # ada:sécret
        "registry.example/team": {"auth": "cm9ib3Q6Yg=="},  # robot:b
        "docker.io": {"auth": "aHViOmM="},  # hub:c
        "token.example": {"identitytoken": "abc"},
    }
    path.write_text(json.dumps({"auths": auths}))
    return path


@pytest.mark.parametrize(
    ("asked", "user", "secret"),
    [
        ("registry.example", "ada", "sécret"),
        ("https://registry.example/v2/", "ada", "sécret"),
        ("registry.example/team/app", "robot", "b"),
        ("https://index.docker.io/v1/", "hub", "c"),
        ("token.example", "<token>", "abc"),
    ],
)
def test_credentials_are_printed_as_a_helper_does(
    argosy: Run, authfile: pathlib.Path, asked: str, user: str, secret: str
) -> None:
    line = ("auth", "get", "--authfile", str(authfile))
    assert argosy(*line, asked).json == {"Username": user, "Secret": secret}
    words = [sys.executable, "-m", "argosy", *line]
    done = subprocess.run(words, input=f"{asked}\n".encode(), capture_output=True, check=True)
    assert json.loads(done.stdout) == {"Username": user, "Secret": secret}


def test_where_there_are_no_credentials_clients_hear_the_words_they_know(
    argosy: Run, authfile: pathlib.Path
) -> None:
    done = argosy("auth", "get", "--authfile", authfile, "other.example", code=2)
    assert done.out == "credentials not found in native keychain\n"
    assert done.err == "argosy: no credentials for other.example\n"
    for wrong in ("", "a b"):
        done = argosy("auth", "get", "--authfile", authfile, wrong, code=64)
        assert done.out == ""


def test_an_authfile_that_is_not_there_is_said_before_anybody_is_asked(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    nowhere = str(tmp_path / "none.json")
    for words in (["ls"], ["cp", "--src-authfile"]):
        option = words[1:] or ["--authfile"]
        rest = [f"oci:{tmp_path / 'to'}"] if words[0] == "cp" else []
        done = argosy(words[0], *option, nowhere, "localhost:1/a", *rest, code=2)
        assert done.err.splitlines()[0] == f"argosy: --authfile: {nowhere}: no such file"
    argosy("login", "localhost:1", "--authfile", nowhere, "-u", "a", "-p", "b", "--no-check")
    assert pathlib.Path(nowhere).exists()


@pytest.mark.parametrize(
    ("line", "side", "expected"),
    [
        (["--creds", "ada:x", "--src-no-creds"], "src", {"no_creds": True}),
        (["--no-creds", "--src-creds", "ada:x"], "src", {"creds": "ada:x"}),
        (["--no-creds", "--src-creds", "ada:x"], "dest", {"no_creds": True}),
        (["--insecure", "--src-tls-verify"], "src", {"tls_verify": True}),
        (["--tls-verify=0", "--ca-file", "c"], "dest", {"tls_verify": False, "ca_file": "c"}),
    ],
)
def test_what_is_said_of_one_side_stands_for_what_is_said_of_both(
    line: list[str], side: str, expected: dict[str, object]
) -> None:
    command = connections.added(connections.two_ended(click.Command("x")))
    with command.make_context("x", line) as ctx:
        assert remotes.settings(ctx, side) == expected


def test_advice_to_log_in_is_given_only_where_that_would_help(
    argosy: Run, scripted: s.Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    scripted.on("*", ".*", s.answer(401, {"WWW-Authenticate": 'Basic realm="r"'}))
    line = ("registry", "ping", scripted.name)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    assert "hint" not in argosy(*line, "--creds", "ada:x", code=3).err
    argosy("login", "--no-check", "-u", "ada", "-p", "x", scripted.name)
    assert "hint: log in again" in argosy(*line, code=3).err
    document = (tmp_path / "auth.json").read_text()
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", document)
    assert "hint" not in argosy(*line, code=3).err


def test_a_certificate_and_its_key_are_given_together(argosy: Run, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "x.key"
    key.touch()
    line = ("registry", "ping", "r.example:1")
    done = argosy(*line, "--key-file", key, code=64)
    assert "--cert-file" in done.err
    done = argosy(*line, "--cert-dir", tmp_path, code=1)
    assert f"{key}: there is no x.cert beside it" in done.err


def test_explain_ends_where_the_search_ends(
    argosy: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A helper that is not installed ends every command: nobody is asked as anybody."""
    first = tmp_path / "containers" / "auth.json"
    first.parent.mkdir()
    first.write_text('{"credsStore": "not-there"}')
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    told = argosy("auth", "ls", "--explain", "r.example").out.splitlines()
    assert told[0] == f"{first} unreadable: docker-credential-not-there is not installed"
    assert {line.partition(" ")[2] for line in told[1:]} == {"is not asked any more"}
    argosy("auth", "get", "r.example", code=3)


@pytest.fixture
def homes(
    argosy: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> list[pathlib.Path]:
    """Two files with credentials; the first names a helper for all that is not installed, and one that has nothing."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    program = tmp_path / "bin" / "docker-credential-empty"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    first, second = (tmp_path / name / "containers" / "auth.json" for name in ("run", "config"))
    inline = {"auth": "YWRhOng="}  # ada:x
    documents = [
        {
            "auths": {"a.example": inline},
            "credHelpers": {"e.example": "empty"},
            "credsStore": "gone",
        },
        {"auths": {"b.example": inline, "https://b.example": inline}},
    ]
    for path, document in zip((first, second), documents, strict=True):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(document))
    return [first, second]


GONE = """argosy: docker-credential-gone is not installed
hint: install it, or remove it from the configuration
"""


def test_a_helper_that_is_not_installed_hides_nothing_else(
    argosy: Run, homes: list[pathlib.Path]
) -> None:
    done = argosy("auth", "ls", "--json", code=3)
    known = [entry["registry"] for entry in done.json]
    assert known == ["a.example", "e.example", "b.example", "https://b.example"]
    assert done.err == GONE


def test_all_is_forgotten_but_what_a_missing_helper_has(
    argosy: Run, homes: list[pathlib.Path]
) -> None:
    done = argosy("logout", "--all", code=3)
    told = [
        f"logged out of a.example in {homes[0]}",
        f"logged out of b.example in {homes[1]}",
    ]
    assert done.err == "\n".join(told) + "\n" + GONE
    assert [json.loads(path.read_text())["auths"] for path in homes] == [{}, {}]


def test_a_registry_is_forgotten_in_the_files_after_a_missing_helper(
    argosy: Run, homes: list[pathlib.Path]
) -> None:
    done = argosy("logout", "b.example", code=3)
    assert done.err == f"logged out of b.example in {homes[1]}\n{GONE}"
    assert json.loads(homes[1].read_text())["auths"] == {}


def test_logging_out_of_all_leaves_what_is_no_registry_and_says_so(
    argosy: Run, authfile: pathlib.Path
) -> None:
    document = json.loads(authfile.read_text())
    document["auths"][" x"] = document["auths"]["docker.io"]
    authfile.write_text(json.dumps(document))
    done = argosy("logout", "--all", "--authfile", authfile, code=64)
    assert "argosy: registry ' x'" in done.err
    assert [*json.loads(authfile.read_text())["auths"]] == [" x"]


def test_credentials_beside_a_helper_that_has_none_are_forgotten(
    argosy: Run, authfile: pathlib.Path, homes: list[pathlib.Path]
) -> None:
    """They were, and the answer was that nobody was logged in."""
    document = {**json.loads(authfile.read_text()), "credsStore": "empty"}
    authfile.write_text(json.dumps(document))
    done = argosy("logout", "--authfile", authfile, "registry.example")
    assert done.err == f"logged out of registry.example in {authfile}\n"


def test_entries_that_cannot_be_read_are_told_and_forgotten(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    """One of them kept `logout --all` from forgetting any."""
    path = tmp_path / "auth.json"
    auths = {"a.example": {"auth": "***"}, "z.example": {"auth": "YTpi"}}
    path.write_text(json.dumps({"auths": auths}))
    done = argosy("auth", "ls", "--authfile", path, code=1)
    assert "z.example" in done.out
    assert done.err == f"argosy: {path}: auths['a.example'].auth: not Base 64\n"
    argosy("logout", "--all", "--authfile", path)
    assert json.loads(path.read_text()) == {"auths": {}}


@pytest.mark.parametrize("word", ["login", "creds"])
def test_the_user_token_has_an_identity_token(
    argosy: Run, scripted: s.Scripted, tmp_path: pathlib.Path, word: str
) -> None:
    """As in files and helpers; Docker's words."""
    path, line = tmp_path / "auth.json", ["--creds", "<token>:abc"]
    if word == "login":
        line = ["--authfile", str(path)]
        argosy("login", scripted.name, "-u", "<token>", "-p", "abc", "--no-check", *line)
        entry = json.loads(path.read_text())["auths"][scripted.name]
        assert entry["identitytoken"] == "abc"
        assert argosy("login", "--get-login", scripted.name, *line).out == "<token>\n"
    challenge = f'Bearer realm="http://{scripted.name}/token"'
    scripted.on("GET", "/v2/", s.answer(401, {"WWW-Authenticate": challenge}), s.answer(200))
    scripted.on("POST", "/token", s.answer(200, body=b'{"token": "t"}'))
    argosy("registry", "ping", scripted.name, *line)
    [asked] = scripted.requests("POST")
    assert b"refresh_token=abc" in asked.body


@pytest.mark.parametrize("scheme", ["oci://", "docker://", "https://", "HTTPS://", "Http://"])
def test_a_registry_may_be_typed_as_a_url(
    argosy: Run, scripted: s.Scripted, tmp_path: pathlib.Path, scheme: str
) -> None:
    scripted.on("GET", "/v2/", s.answer(200))
    path = tmp_path / "auth.json"
    argosy("login", "--authfile", path, f"{scheme}{scripted.name}", "-uada", "-px", "--no-check")
    assert [*json.loads(path.read_text())["auths"]] == [scripted.name]
    for rest in ("", "/", "/v2/"):
        code = 1 if scheme.lower() == "https://" else 0  # here is no TLS
        argosy("registry", "ping", f"{scheme}{scripted.name}{rest}", "--retry", 0, code=code)
    done = argosy("registry", "ping", f"{scheme}{scripted.name}/team", code=64)
    assert done.err.endswith("expected host or host:port\n")


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """A file, and DOCKER_AUTH_CONFIG with an entry for r.example, which comes before it."""
    path = tmp_path / "auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", '{"auths": {"r.example": {"auth": "aW46eA=="}}}')
    return path


WARNING = "warning: DOCKER_AUTH_CONFIG has credentials for {}, and is asked before all files\n"


def test_credentials_in_the_environment_are_listed(argosy: Run, inline: pathlib.Path) -> None:
    argosy("login", "--no-check", "s.example", "-uada", "-px")
    found = [
        (e["registry"], e["username"], e["place"]) for e in argosy("auth", "ls", "--json").json
    ]
    assert found == [
        ("r.example", "in", "DOCKER_AUTH_CONFIG"),
        ("s.example", "ada", str(inline)),
    ]


def test_who_logs_in_or_out_hears_of_credentials_in_the_environment(
    argosy: Run, inline: pathlib.Path
) -> None:
    for name in ("r.example", "r.example/team"):
        warning = WARNING.format(name)
        done = argosy("login", "--no-check", name, "-uada", "-px")
        assert done.err == f"logged in to {name}, kept in {inline}\n{warning}"
        done = argosy("logout", name)
        assert done.err == f"logged out of {name} in {inline}\n{warning}"
        done = argosy("logout", name, code=2)
        assert done.err == f"{warning}argosy: not logged in to {name}\n"
    done = argosy("logout", "--all")
    assert done.err == WARNING.format("r.example")
    done = argosy("login", "--no-check", "s.example", "-uada", "-px")
    assert "warning" not in done.err
    done = argosy("login", "--no-check", "r.example", "-uada", "-px", "--authfile", inline)
    assert "warning" not in done.err


def test_a_broken_document_in_the_environment_keeps_nobody_from_logging_out(
    argosy: Run, inline: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("r.example", "s.example"):
        argosy("login", "--no-check", name, "-uada", "-px")
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", "{")
    done = argosy("logout", "--all", code=1)
    assert done.err.count("argosy: DOCKER_AUTH_CONFIG: not JSON") == 1
    assert json.loads(inline.read_text()) == {"auths": {}}
    argosy("login", "--no-check", "r.example", "-uada", "-px", code=1)
    assert json.loads(inline.read_text()) == {"auths": {}}


@pytest.mark.parametrize(("status", "code"), [(401, 3), (403, 3), (200, 0)])
@pytest.mark.parametrize("challenge", ['Basic realm="r"', ""])
def test_a_password_is_tried_where_the_registry_lets_anybody_in(
    argosy: Run,
    scripted: s.Scripted,
    tmp_path: pathlib.Path,
    status: int,
    code: int,
    challenge: str,
) -> None:
    """Some only ask who wants a repository."""
    path = tmp_path / "auth.json"
    refusal = s.answer(status, {"WWW-Authenticate": challenge} if challenge else {})

    def answer(seen: s.Seen, peer: s.Peer) -> bool:
        return (refusal if "authorization" in seen.headers else s.answer(200))(seen, peer)

    scripted.on("GET", "/v2/", answer)
    argosy("login", "--authfile", path, scripted.name, "-uada", "-px", code=code)
    assert path.exists() == (status == 200)
    assert scripted.requests()[-1].headers.get("authorization", "") == (
        "" if status == 401 and not challenge else "Basic YWRhOng="
    )
