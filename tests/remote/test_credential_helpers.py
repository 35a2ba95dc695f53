"""Credential helpers: their protocol, and what they do that they should not."""

from __future__ import annotations

import json
import os
import pathlib
import signal

import pytest

from argosy.errors import (
    InvalidConfigError,
    NotFoundError,
    UnauthorizedError,
    UnsupportedError,
)
from argosy.remote import credentialhelper
from argosy.remote.credentialkeys import HUB_KEY
from argosy.remote.credentials import Credential, CredentialStore
from tests.remote.credentialfiles import ADA, auth, user, write

HELPER = """#!/bin/sh
read text
case "$1" in
  get) case "$text" in
         r.example) printf '{"ServerURL":"r.example","Username":"helped","Secret":"s"}' ;;
         t.example) printf '{"ServerURL":"t.example","Username":"<token>","Secret":"idt"}' ;;
         docker.io) printf '{"ServerURL":"docker.io","Username":"hub","Secret":"s"}' ;;
         empty.example) printf '{"ServerURL":"empty.example","Username":"","Secret":""}' ;;
         broken.example) echo "keychain is locked"; exit 1 ;;
         *) echo "credentials not found in native keychain"; exit 1 ;;
       esac ;;
  store) printf '%s' "$text" > "$STORE" ;;
  erase) [ "$text" = "https://r.example" ] && echo "is not in the password store" && exit 1
         printf 'erased %s' "$text" > "$STORE" ;;
  list) printf '{"r.example":"helped"}' ;;
esac
"""


@pytest.fixture
def helper(tmp_path: pathlib.Path) -> dict[str, str]:
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin", "STORE": str(tmp_path / "stored")}


@pytest.fixture
def helped(
    tmp_path: pathlib.Path, helper: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> CredentialStore:
    monkeypatch.setenv("PATH", helper["PATH"])
    path = write(
        tmp_path / "config.json", {"credsStore": "test", "auths": {"q.example": auth("plain", "x")}}
    )
    return CredentialStore([path], environ=helper)


def test_a_store_for_all_is_asked(helped: CredentialStore) -> None:
    assert user(helped, "r.example") == "helped"
    found = helped.lookup("t.example")
    assert found is not None
    assert found.credential.identity_token == "idt"
    assert "docker-credential-test" in found.place


def test_not_found_is_no_error_and_the_file_is_next(helped: CredentialStore) -> None:
    assert user(helped, "q.example") == "plain"
    assert user(helped, "none.example") is None


def test_a_helper_that_fails_says_why(helped: CredentialStore) -> None:
    with pytest.raises(UnauthorizedError, match="keychain is locked"):
        helped.lookup("broken.example")


def test_a_helper_that_could_not_store_is_not_believed_to_have(
    tmp_path: pathlib.Path, helped: CredentialStore
) -> None:
    (tmp_path / "bin/docker-credential-test").write_text(
        "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n"
    )
    with pytest.raises(UnauthorizedError, match="test store: credentials not found"):
        helped.login("r.example", ADA)


@pytest.mark.parametrize("where", ["", ">&2"])
def test_a_helper_that_never_ends_its_answer_is_cut_off(
    tmp_path: pathlib.Path, where: str, helped: CredentialStore
) -> None:
    (tmp_path / "bin/docker-credential-test").write_text(f"#!/bin/sh\nexec yes {where}\n")
    with pytest.raises(UnauthorizedError, match="test get: more than 1048576 bytes in answer"):
        helped.lookup("r.example")


def test_a_helper_that_does_not_come_to_an_end_is_not_waited_for(
    tmp_path: pathlib.Path, helped: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentialhelper, "TIMEOUT", 0.1)
    for program in ("exec sleep 600", "exec sleep 600 <&- >&- 2>&-"):
        (tmp_path / "bin/docker-credential-test").write_text(f"#!/bin/sh\n{program}\n")
        with pytest.raises(UnauthorizedError, match=r"test get: not done after 0\.1 seconds"):
            helped.lookup("r.example")


def test_a_helper_may_leave_what_it_is_given_unread(
    tmp_path: pathlib.Path, helped: CredentialStore
) -> None:
    (tmp_path / "bin/docker-credential-test").write_text("#!/bin/sh\nexit 0\n")
    helped.login("n.example", Credential(username="ada", password="x" * 1_000_000))


def test_login_and_logout_go_to_the_helper(helped: CredentialStore, tmp_path: pathlib.Path) -> None:
    helped.login("n.example", ADA)
    assert json.loads((tmp_path / "stored").read_text()) == {
        "ServerURL": "n.example",
        "Username": "ada",
        "Secret": "pass:word",
    }
    assert "pass:word" not in (tmp_path / "config.json").read_text()
    helped.logout("r.example")
    assert (tmp_path / "stored").read_text() == "erased r.example"


def test_a_helper_has_credentials_of_whole_registries(
    helped: CredentialStore, tmp_path: pathlib.Path
) -> None:
    """As for podman: who asks for a repository asks a helper for its registry."""
    with pytest.raises(UnsupportedError, match=r"test, named by .*, not of r\.example/team"):
        helped.login("r.example", ADA, name="team")
    with pytest.raises(NotFoundError):
        helped.logout("r.example", name="team")
    assert not (tmp_path / "stored").exists()
    assert user(helped, "r.example", "team/app") == "helped"


def test_an_empty_answer_of_a_helper_is_none(helped: CredentialStore) -> None:
    assert user(helped, "empty.example") is None


def test_docker_hub_has_two_names_in_helpers(
    tmp_path: pathlib.Path, helped: CredentialStore, helper: dict[str, str]
) -> None:
    assert user(helped, "docker.io") == "hub"
    path = write(tmp_path / "auth.json", {"credsStore": "test"})
    CredentialStore([path], environ=helper).login("docker.io", ADA)
    assert json.loads((tmp_path / "stored").read_text())["ServerURL"] == HUB_KEY


def test_a_helper_for_one_registry_comes_first(
    tmp_path: pathlib.Path, helper: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", helper["PATH"])
    path = write(
        tmp_path / "c.json",
        {
            "credHelpers": {"r.example": "test"},
            "auths": {"r.example": {}, "s.example": auth("s", "x")},
        },
    )
    store = CredentialStore([path], environ=helper)
    assert user(store, "r.example") == "helped"
    assert user(store, "s.example") == "s"


def test_a_helper_that_is_not_installed_is_named(tmp_path: pathlib.Path) -> None:
    """CVE-2021-41092: in its stead, credentials went to another registry."""
    path = write(tmp_path / "c.json", {"credsStore": "nowhere"})
    with pytest.raises(UnauthorizedError, match="docker-credential-nowhere is not installed"):
        CredentialStore([path]).lookup("r.example")


@pytest.mark.parametrize("name", ["../evil", "a b", "x;y", "x/y"])
def test_a_helper_is_a_name_and_no_path(tmp_path: pathlib.Path, name: str) -> None:
    path = write(tmp_path / "c.json", {"credsStore": name})
    with pytest.raises(InvalidConfigError, match="not a name"):
        CredentialStore([path]).lookup("r.example")


def test_a_helper_of_null_is_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "auth.json"
    helpers = {"credHelpers": {"r.example": None}, "credsStore": None}
    write(path, {**helpers, "auths": {"r.example": auth("ada", "x")}})
    store = CredentialStore([str(path)])
    assert user(store, "r.example") == "ada"
    assert [entry.via for entry in store.entries()] == [""]
    for name, value in {"credHelpers": {"r.example": 1}, "credsStore": 1}.items():
        write(path, {name: value})
        with pytest.raises(InvalidConfigError, match=rf"auth\.json: {name}.*: expected a string"):
            store.lookup("r.example")
        with pytest.raises(InvalidConfigError, match=rf"auth\.json: {name}.*: expected a string"):
            list(store.entries())


def answering(tmp_path: pathlib.Path, script: str) -> None:
    (tmp_path / "bin/docker-credential-test").write_text(f"#!/bin/sh\n{script}\n")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("Please log in", "not JSON at byte 0"),
        ('{"Username": 1, "Secret": "x"}', "Username: expected a string, got a number"),
        ('{"Username": "a", "Secret": ["x"]}', "Secret: expected a string, got an array"),
    ],
)
def test_a_helper_that_does_not_answer_in_its_protocol_is_named(
    tmp_path: pathlib.Path, helped: CredentialStore, answer: str, told: str
) -> None:
    answering(tmp_path, f"echo '{answer}'")
    with pytest.raises(InvalidConfigError, match=f"^docker-credential-test get: {told}"):
        helped.lookup("r.example")


@pytest.mark.parametrize(
    ("answer", "told"),
    [("Hello", "not JSON at byte 0"), ('{"r": 1}', r"\['r'\]: expected a string, got a number")],
)
def test_a_helper_that_lists_something_else_is_named(
    tmp_path: pathlib.Path, helped: CredentialStore, answer: str, told: str
) -> None:
    answering(tmp_path, f"echo '{answer}'")
    with pytest.raises(InvalidConfigError, match=f"^docker-credential-test list: ?{told}"):
        list(helped.entries())


def test_null_in_an_answer_of_a_helper_is_empty(
    tmp_path: pathlib.Path, helped: CredentialStore
) -> None:
    answering(tmp_path, """echo '{"Username": null, "Secret": null, "r.example": null}'""")
    assert helped.lookup("r.example") is None
    assert {e.username for e in helped.entries() if e.key == "r.example"} == {""}


def test_what_a_helper_leaves_running_is_not_waited_for(
    tmp_path: pathlib.Path, helped: CredentialStore
) -> None:
    """It holds the pipes; the answer was there, and nobody took it before the time was over."""
    child = tmp_path / "child"
    answering(
        tmp_path,
        f"""sleep 600 & echo $! > {child}
            echo '{{"Username": "ada", "Secret": "x"}}'""",
    )
    try:
        assert user(helped, "r.example") == "ada"
    finally:
        os.kill(int(child.read_text()), signal.SIGKILL)
