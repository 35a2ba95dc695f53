"""Headers that a user has sent with every request: which go, where they go, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.errors import InvalidConfigError, UsageError
from argosy.remote.config import USER_AGENT, Options
from argosy.remote.credentials import CredentialStore
from argosy.remote.repository import Repository
from argosy.remote.wire import Exchange
from tests.wire import scripted as s

Client = Callable[..., Repository]


def docker_config(path: Path, headers: object) -> CredentialStore:
    file = path / "config.json"
    file.write_text(json.dumps({"auths": {}, "HttpHeaders": headers}))
    return CredentialStore([str(path / "missing.json"), str(file)])


def test_docker_s_headers_go_to_the_registry_and_nowhere_else(
    scripted: s.Scripted, another: s.Scripted, client: Client, tmp_path: Path
) -> None:
    scripted.on("GET", ".*", s.answer(307, {"Location": f"{another.url}/elsewhere"}))
    another.on("GET", "/elsewhere", s.answer(200, {}, b'{"tags":["a"]}'))
    store = docker_config(tmp_path, {"X-Meta-Team": "blue", "user-agent": "Docker-Client/28"})
    assert list(client(credentials=store).tags()) == ["a"]
    (asked,), (led,) = scripted.requests(), another.requests()
    assert asked.headers["x-meta-team"] == "blue"
    assert asked.headers["user-agent"] == USER_AGENT
    assert "x-meta-team" not in led.headers


def test_a_given_header_replaces_the_written_one_and_argosy_s_own_however_it_is_spelled(
    scripted: s.Scripted, client: Client, tmp_path: Path
) -> None:
    scripted.on("GET", ".*", s.answer(200, {}, b'{"tags":[]}'))
    seen: list[Exchange] = []
    store = docker_config(tmp_path, {"X-Meta-Team": "blue", "X-Meta-Key": "hush"})
    given = {"x-meta-team": "red", "user-agent": "mine"}
    list(client(credentials=store, headers=given, observe=seen.append).tags())
    (asked,) = scripted.requests()
    names = [name.lower() for name, _ in seen[0].request_headers]
    assert len(set(names)) == len(names)
    assert (asked.headers["x-meta-team"], asked.headers["user-agent"]) == ("red", "mine")
    shown = dict(seen[0].request_headers)
    assert (shown["x-meta-team"], shown["X-Meta-Key"]) == ("REDACTED", "REDACTED")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (["A"], "HttpHeaders: expected an object"),
        ({"A": 1}, "HttpHeaders: A: expected a string"),
        ({"A B": "c"}, "HttpHeaders: not a header's name: 'A B'"),
        ({"A": "b\r\nC: d"}, "HttpHeaders: the value of the header A has characters that cannot"),
        ({"Host": "other"}, "HttpHeaders: Host is what each request says of itself"),
    ],
)
def test_written_headers_that_cannot_be_sent_are_refused_with_their_file(
    scripted: s.Scripted, client: Client, tmp_path: Path, headers: object, words: str
) -> None:
    repository = client(credentials=docker_config(tmp_path, headers))
    with pytest.raises(InvalidConfigError) as caught:
        list(repository.tags())
    assert f"{tmp_path}/config.json: {words}" in str(caught.value)
    assert scripted.requests() == []


def test_a_file_that_cannot_be_read_hinders_nobody_who_needs_no_credential(
    scripted: s.Scripted, client: Client, tmp_path: Path
) -> None:
    scripted.on("GET", ".*", s.answer(200, {}, b'{"tags":["a"]}'))
    broken = tmp_path / "auth.json"
    broken.write_text("{")
    assert list(client(credentials=CredentialStore([str(broken), str(tmp_path)])).tags()) == ["a"]


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Range", "", "a:"])
def test_a_given_header_that_would_spoil_each_request_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"header: (not a header's name|.* is what each request)"):
        Options(headers={name: "4"})
