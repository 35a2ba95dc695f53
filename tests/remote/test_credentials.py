"""Credentials: the order of containers-auth.json(5), what is written, and the helpers' protocol."""

from __future__ import annotations

import base64
import concurrent.futures
import errno
import fcntl
import json
import os
import pathlib
import re
import stat
import threading
from collections.abc import Iterator

import pytest

from argosy.errors import (
    ArgosyError,
    InvalidConfigError,
    NotFoundError,
    StorageError,
)
from argosy.remote import authfile
from argosy.remote.credentials import Credential, CredentialStore, credential_files
from tests.remote.credentialfiles import ADA, auth, user, write


def test_the_order_is_that_of_containers_auth_json() -> None:
    environ = {
        "HOME": "/h", "XDG_RUNTIME_DIR": "/run/u", "XDG_CONFIG_HOME": "/cfg", "DOCKER_CONFIG": "/dock",
    }  # fmt: skip
    assert credential_files(environ) == (
        "/run/u/containers/auth.json", "/cfg/containers/auth.json", "/dock/config.json", "/h/.dockercfg",
    )  # fmt: skip
    assert credential_files({**environ, "REGISTRY_AUTH_FILE": "/x"}) == ("/x",)
    assert credential_files({**environ, "REGISTRY_AUTH_FILE": "/x"}, "/y") == ("/y",)


def test_the_first_file_with_a_credential_gives_it(tmp_path: pathlib.Path) -> None:
    one = write(tmp_path / "1.json", {"auths": {"a.example": auth("one", "x")}})
    two = write(
        tmp_path / "2.json",
        {"auths": {"a.example": auth("two", "x"), "b.example": auth("two", "x")}},
    )
    store = CredentialStore([str(tmp_path / "none.json"), one, two])
    assert user(store, "a.example") == "one"
    assert user(store, "b.example") == "two"
    assert user(store, "c.example") is None
    found = store.lookup("b.example")
    assert found is not None
    assert found.place == two


def test_the_most_specific_key_wins(tmp_path: pathlib.Path) -> None:
    keys = {"r.example": "host", "r.example/team": "team", "r.example/team/app": "app"}
    path = write(tmp_path / "a.json", {"auths": {k: auth(v, "x") for k, v in keys.items()}})
    store = CredentialStore([path])
    assert user(store, "r.example", "team/app") == "app"
    assert user(store, "r.example", "team/other") == "team"
    assert user(store, "r.example", "teamwork") == "host"
    assert user(store, "r.example") == "host"


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "https://docker.io/v2/",
    ],
)
def test_docker_hub_has_many_names(tmp_path: pathlib.Path, key: str) -> None:
    store = CredentialStore([write(tmp_path / "a.json", {"auths": {key: auth("ada", "x")}})])
    assert user(store, "docker.io", "library/alpine") == "ada"


@pytest.mark.parametrize(
    "key", ["https://r.example:5000", "http://R.example:5000/v1/", "r.example:5000/v2"]
)
def test_keys_are_matched_without_scheme_and_version(tmp_path: pathlib.Path, key: str) -> None:
    store = CredentialStore([write(tmp_path / "a.json", {"auths": {key: auth("ada", "x")}})])
    assert user(store, "r.example:5000") == "ada"


def test_a_password_may_have_colons_and_the_text_zeros(tmp_path: pathlib.Path) -> None:
    text = base64.b64encode(b"ada:pass:word\0\0").decode()
    store = CredentialStore([write(tmp_path / "a.json", {"auths": {"r.example": {"auth": text}}})])
    found = store.lookup("r.example")
    assert found is not None
    assert (found.credential.username, found.credential.password) == ("ada", "pass:word")


def test_tokens_are_read_from_every_form(tmp_path: pathlib.Path) -> None:
    path = write(
        tmp_path / "a.json",
        {
            "auths": {
                "one.example": {"identitytoken": "i"},
                "two.example": auth("<token>", "j"),
                "three.example": {"registrytoken": "k"},
            }
        },
    )
    store = CredentialStore([path])
    found = [store.lookup(f"{n}.example") for n in ("one", "two", "three")]
    assert [f.credential.identity_token for f in found if f] == ["i", "j", ""]
    assert found[2] is not None
    assert found[2].credential.registry_token == "k"


def test_the_old_flat_file_is_read(tmp_path: pathlib.Path) -> None:
    store = CredentialStore([write(tmp_path / ".dockercfg", {"r.example": auth("old", "x")})])
    assert user(store, "r.example") == "old"


def test_the_old_flat_file_stays_flat_while_it_can(tmp_path: pathlib.Path) -> None:
    """Who reads it knows no `auths`."""
    path = tmp_path / ".dockercfg"
    store = CredentialStore([write(path, {"r.example": auth("old", "x")})])
    store.login("s.example", ADA)
    assert set(json.loads(path.read_text())) == {"r.example", "s.example"}
    assert (user(store, "r.example"), user(store, "s.example")) == ("old", "ada")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths": []}',
        '{"auths": {"r.example": {"auth": "!"}}}',
        '{"auths": {"r.example": {"auth": "YWRh"}}}',
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=r"a\.json"):
        CredentialStore([str(path)]).lookup("r.example")


def test_login_writes_privately_and_keeps_what_it_does_not_know(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "auth.json"
    write(
        path,
        {
            "auths": {"other.example": auth("x", "y"), "https://r.example": auth("old", "y")},
            "HttpHeaders": {"A": "b"},
            "futuristic": [1],
        },
    )
    path.chmod(0o644)
    store = CredentialStore([str(path)])
    assert store.login("r.example", ADA) == str(path)
    document = json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert document["futuristic"] == [1]
    assert document["HttpHeaders"] == {"A": "b"}
    assert set(document["auths"]) == {"other.example", "r.example"}
    found = store.lookup("r.example")
    assert found is not None
    assert found.credential == ADA
    assert os.listdir(path.parent) == ["auth.json"]


def test_an_identity_token_is_written_as_docker_writes_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.json"
    store = CredentialStore([str(path)])
    store.login("r.example", Credential(identity_token="idt"))
    entry = json.loads(path.read_text())["auths"]["r.example"]
    assert base64.b64decode(entry["auth"]) == b"<token>:"
    assert entry["identitytoken"] == "idt"
    found = store.lookup("r.example")
    assert found is not None
    assert found.credential.identity_token == "idt"


def test_login_makes_the_folder_and_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "containers" / "auth.json"
    CredentialStore([str(path)]).login("r.example", ADA)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_login_follows_a_symbolic_link(tmp_path: pathlib.Path) -> None:
    real, link = tmp_path / "real" / "auth.json", tmp_path / "auth.json"
    write(real, {})
    link.symlink_to(real)
    CredentialStore([str(link)]).login("r.example", ADA)
    assert link.is_symlink()
    assert "r.example" in real.read_text()


def test_logout_takes_the_credential_from_every_file(tmp_path: pathlib.Path) -> None:
    paths = [
        write(
            tmp_path / f"{n}.json",
            {"auths": {"r.example": auth("a", "b"), "s.example": auth("c", "d")}},
        )
        for n in "12"
    ]
    store = CredentialStore(paths)
    assert store.logout("r.example") == tuple(paths)
    assert user(store, "r.example") is None
    assert user(store, "s.example") == "c"
    with pytest.raises(NotFoundError):
        store.logout("r.example")


def test_logout_takes_away_an_entry_of_nothing(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.json", {"auths": {"r.example": {}}})
    assert CredentialStore([path]).logout("r.example") == (path,)
    assert json.loads(pathlib.Path(path).read_text()) == {"auths": {}}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_no_file_to_keep_credentials_in(tmp_path: pathlib.Path) -> None:
    """/dev/null as a file of no credentials was replaced by a file of one."""
    null = tmp_path / "null"
    os.mknod(null, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    store = CredentialStore([str(null)])
    assert store.lookup("r.example") is None
    with pytest.raises(StorageError, match="null: expected a regular file"):
        store.login("r.example", ADA)
    assert stat.S_ISCHR(null.stat().st_mode)


@pytest.mark.parametrize("name", ["auths", "credHelpers"])
def test_null_is_nothing(tmp_path: pathlib.Path, name: str) -> None:
    path = write(tmp_path / "auth.json", {name: None})
    store = CredentialStore([path])
    assert store.lookup("r.example") is None
    assert list(store.entries()) == []
    store.login("r.example", ADA)
    assert user(store, "r.example") == "ada"


def test_a_file_that_is_too_long_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "auth.json"
    path.write_bytes(b" " * (4 << 20) + b"{}")
    with pytest.raises(InvalidConfigError, match=r"auth\.json: document of"):
        CredentialStore([str(path)]).lookup("r.example")


def test_explain_says_which_place_gave_it(tmp_path: pathlib.Path) -> None:
    one = write(tmp_path / "1.json", {"auths": {"x.example": auth("x", "y")}})
    two = write(tmp_path / "2.json", {"auths": {"r.example": auth("ada", "y")}})
    store = CredentialStore([str(tmp_path / "0.json"), one, two, one])
    assert [s.outcome for s in store.explain("r.example", "app")] == [
        "absent",
        "none",
        "found",
        "not asked",
    ]
    assert "y" not in {s.detail for s in store.explain("r.example")}


def test_no_secret_shows_in_a_representation() -> None:
    assert "pass:word" not in repr(ADA)
    assert "tok" not in repr(Credential(identity_token="tok", registry_token="tok"))


def test_a_document_in_the_environment_comes_before_the_files(tmp_path: pathlib.Path) -> None:
    path = write(
        tmp_path / "1.json",
        {"auths": {"r.example": auth("file", "x"), "s.example": auth("file", "x")}},
    )
    inline = json.dumps({"auths": {"r.example": auth("inline", "x")}})
    store = CredentialStore([path], inline=inline)
    assert user(store, "r.example") == "inline"
    assert user(store, "s.example") == "file"
    outcomes = [(s.place, s.outcome) for s in store.explain("r.example")]
    assert outcomes == [("DOCKER_AUTH_CONFIG", "found"), (path, "not asked")]
    with pytest.raises(InvalidConfigError, match="DOCKER_AUTH_CONFIG"):
        CredentialStore([], inline="{").lookup("r.example")


SURROGATE = "\ud800"


"""What JSON can write, and a word of the command line with other bytes becomes, and no text in UTF-8 has."""


@pytest.mark.parametrize("name", ["username", "password", "identity_token", "registry_token"])
def test_a_secret_that_is_not_utf_8_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"{name.replace('_', ' ')}: not UTF-8"):
        Credential(**{name: f"SECRET{SURROGATE}"})


@pytest.mark.parametrize("name", ["username", "password", "identitytoken", "registrytoken"])
def test_a_file_with_a_secret_that_is_not_utf_8_is_named(tmp_path: pathlib.Path, name: str) -> None:
    path = write(tmp_path / "1.json", {"auths": {"r.example": {name: f"SECRET{SURROGATE}"}}})
    with pytest.raises(
        InvalidConfigError, match=r"1\.json: auths\['r.example'\]: .*UTF-8"
    ) as caught:
        CredentialStore([path]).lookup("r.example")
    assert "SECRET" not in str(caught.value)


def test_a_document_in_the_environment_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(InvalidConfigError, match="DOCKER_AUTH_CONFIG: not UTF-8"):
        CredentialStore([], inline='{"auths":{"\udcff":{}}}').lookup("r.example")


@pytest.mark.parametrize(
    "entry", [{"email": "x"}, {"auth": ""}, auth("", "x"), auth("<token>", "")]
)
def test_an_entry_of_nothing_hides_no_later_file(
    tmp_path: pathlib.Path, entry: dict[str, str]
) -> None:
    one = write(tmp_path / "auth.json", {"auths": {"r.example": entry, "r.example/a": entry}})
    two = write(tmp_path / "config.json", {"auths": {"r.example": auth("ada", "x")}})
    store = CredentialStore([one, two])
    assert user(store, "r.example", "a") == "ada"
    assert [entry.place for entry in store.entries()] == [two]


def test_those_who_log_in_at_once_lose_nothing(tmp_path: pathlib.Path) -> None:
    """Twelve did, and six were left."""
    path = tmp_path / "new" / "auth.json"
    start = threading.Barrier(16)

    def login(number: int) -> None:
        start.wait()
        CredentialStore([str(path)]).login(f"h{number}.example", ADA)
        if number % 2:
            CredentialStore([str(path)]).logout(f"h{number}.example")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(login, range(16)))
    known = {entry.key for entry in CredentialStore([str(path)]).entries()}
    assert known == {f"h{number}.example" for number in range(0, 16, 2)}
    assert os.listdir(path.parent) == ["auth.json"]


def test_a_file_system_without_locks_takes_logins(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockless(_fd: int, _operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", lockless)
    store = CredentialStore([str(tmp_path / "auth.json")])
    store.login("r.example", ADA)
    assert user(store, "r.example") == "ada"


ODD = {"a.example": {"auth": "***"}, "b.example": 7, "z.example": auth("a", "b")}


def test_an_entry_that_cannot_be_read_hides_no_other(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "auth.json", {"auths": ODD})
    told: list[ArgosyError] = []
    store = CredentialStore([path])
    assert [entry.key for entry in store.entries(lost=told.append)] == ["z.example"]
    assert [str(error) for error in told] == [
        f"{path}: auths['a.example'].auth: not Base 64",
        f"{path}: auths['b.example']: expected an object",
    ]
    assert set(store.keys()) == set(ODD)


@pytest.mark.parametrize("name", ["username", "password", "identitytoken", "registrytoken", "auth"])
def test_null_is_empty_and_other_types_are_refused(tmp_path: pathlib.Path, name: str) -> None:
    """A token of null was the token None."""
    path = tmp_path / "auth.json"
    write(path, {"auths": {"r.example": {**auth("ada", "x"), name: None}}})
    store = CredentialStore([str(path)])
    if name == "auth":
        assert store.lookup("r.example") is None
    else:
        found = store.lookup("r.example")
        assert found is not None
        assert found.credential == Credential(username="ada", password="x")
    write(path, {"auths": {"r.example": {name: ["ada"]}}})
    where = re.escape(f"{path}: auths['r.example'].{name}: expected a string, got an array")
    with pytest.raises(InvalidConfigError, match=where):
        store.lookup("r.example")


@pytest.mark.parametrize("text", ["YWRhOng", "YWRh\nOng=\n", " YWRhOng= ", "\tYWRh Ong"])
def test_base_64_may_have_white_space_and_no_padding(tmp_path: pathlib.Path, text: str) -> None:
    path = write(tmp_path / "auth.json", {"auths": {"r.example": {"auth": text}}})
    found = CredentialStore([path]).lookup("r.example")
    assert found is not None
    assert found.credential == Credential(username="ada", password="x")


@pytest.fixture
def closed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file that may not be made, its folder the working directory, which nobody else may write to."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield "containers/auth.json"
    finally:
        os.seteuid(os.getuid())


def test_who_may_not_write_hears_how_to_name_another_file(closed: str) -> None:
    """Who has no XDG_RUNTIME_DIR, and may make nothing in /run/containers."""
    with pytest.raises(StorageError, match=r"auth\.json: Permission denied") as caught:
        CredentialStore([closed]).login("r.example", ADA)
    assert "--authfile or REGISTRY_AUTH_FILE" in (caught.value.hint or "")


def test_who_keeps_the_lock_keeps_nobody_from_logging_in(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authfile, "_PATIENCE", 0.0)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        store = CredentialStore([str(tmp_path / "auth.json")])
        store.login("r.example", ADA)
    finally:
        os.close(held)
    assert user(store, "r.example") == "ada"
