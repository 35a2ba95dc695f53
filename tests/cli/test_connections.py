"""Options for talking to registries, as they are typed."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Run
from tests.wire import scripted as s
from tests.wire.conftest import scripted

__all__ = ["scripted"]


@pytest.mark.parametrize(
    ("host", "port", "registry"),
    [
        ("docker.io", 80, "docker.io"),
        ("index.docker.io", 80, "docker.io"),
        ("registry-1.docker.io", 80, "docker.io"),
        ("Registry.Example", 80, "registry.example"),
        ("[2001:db8::1]", 5000, "[2001:db8::1]:5000"),
        ("[2001:db8:0::1]", 80, "[2001:DB8::1]"),
    ],
)
def test_a_registry_is_asked_where_resolve_says(
    argosy: Run, scripted: s.Scripted, host: str, port: int, registry: str
) -> None:
    """Docker Hub answers under another name than it is called by; an IPv6 address was no host."""
    scripted.on("GET", "/v2/", s.answer(200))
    where = f"{host}:{port}:{scripted.name}"
    argosy("registry", "ping", registry, "--plain-http", "--resolve", where)


@pytest.mark.parametrize(
    "text",
    ["x", "r:443", "r:443:", ":443:a", "r:x:a", "r:443:a:b", "r:443:a:65536", "[::1:443:a", "::1:5000:127.0.0.1"],
)  # fmt: skip
def test_what_resolve_cannot_mean_is_wrong_usage(argosy: Run, text: str) -> None:
    told = argosy("registry", "ping", "r.example", "--resolve", text, code=64).err
    assert text in told
    assert "hint: an IPv6 address stands in brackets" in told


@pytest.mark.parametrize(
    "words",
    [
        ("registry", "ping", "https://{}"),
        ("ls", "HTTPS://{}/app"),
        ("login", "-u", "jane", "-p", "secret", "https://{}"),
        ("manifest", "head", "https://{}/app"),
        ("sync", "https://{}/app", "oci:mirror"),
        ("auth", "token", "https://{}/app"),
    ],
)
def test_who_writes_https_gets_nothing_else_also_on_this_machine(
    argosy: Run, scripted: s.Scripted, words: tuple[str, ...]
) -> None:
    """A password went over http, because a registry on this machine may do without TLS."""
    scripted.on("GET", "/v2/", s.answer(200))
    told = argosy(*(word.format(scripted.name) for word in words), "--retry", 0, code=1).err
    assert "TLS" in told
    assert not scripted.seen


def test_https_and_plain_http_exclude_each_other(argosy: Run) -> None:
    told = argosy("ls", "https://localhost:1/app", "--plain-http", code=64).err
    assert "https://localhost:1 and --plain-http exclude each other" in told


def test_a_token_that_cannot_be_sent_is_wrong_usage(argosy: Run, scripted: s.Scripted) -> None:
    """It failed only once it was to be sent. A file's last newline is no part of it."""
    for token in ("a\nb", "a b", "\u00e9", "a\x00"):
        told = argosy("ls", f"{scripted.name}/app", "--registry-token", token, code=64).err
        assert "--registry-token: it has characters" in told
    assert not scripted.seen
    scripted.on("GET", "/v2/", s.answer(200))
    argosy("registry", "ping", scripted.name, "--registry-token", "abc.d-e\n")
