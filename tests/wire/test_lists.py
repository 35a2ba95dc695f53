"""Lists from a registry that misbehaves: pages that end, and hosts that are not left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from argosy.errors import RegistryError
from argosy.remote.repository import Repository
from tests.wire import scripted as s

Client = Callable[..., Repository]


def test_pages_are_followed_relative_or_absolute(scripted: s.Scripted, client: Client) -> None:
    one = s.answer(200, {"Link": '</v2/app/tags/list?last=b>; rel="next"'}, b'{"tags":["a","b"]}')
    link = [
        ("Link", '<https://docs.example>; rel="help"'),
        ("Link", f"<{scripted.url}/v2/app/tags/list?last=d>; rel=next"),
    ]
    scripted.on("GET", r"/v2/app/tags/list\?n=1000", one)
    scripted.on("GET", r"/v2/app/tags/list\?last=b", s.answer(200, link, b'{"tags":["c","d","a"]}'))
    scripted.on("GET", r"/v2/app/tags/list\?last=d", s.answer(200, {}, b'{"tags":null}'))
    assert list(client().tags()) == ["a", "b", "c", "d"]


def test_pages_that_repeat_end(scripted: s.Scripted, client: Client) -> None:
    page = s.answer(200, {"Link": '</v2/app/tags/list?n=1000>; rel="next"'}, b'{"tags":["a"]}')
    scripted.on("GET", ".*", page)
    assert list(client().tags()) == ["a"]
    assert len(scripted.requests()) <= 2


def test_pages_without_end_or_news_end(scripted: s.Scripted, client: Client) -> None:
    """CVE-2023-33957, CVE-2023-46737: a registry could keep a client busy for ever."""
    count = iter(range(10**9))

    def page(seen: s.Seen, peer: s.Peer) -> bool:
        link = f'</v2/app/tags/list?last={next(count)}>; rel="next"'
        return s.answer(200, {"Link": link}, b'{"tags":["a"]}')(seen, peer)

    scripted.on("GET", ".*", page)
    assert list(client().tags()) == ["a"]


def test_a_next_page_at_another_host_is_refused(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    link = {"Link": f'<{another.url}/v2/app/tags/list>; rel="next"'}
    scripted.on("GET", ".*", s.answer(200, link, b'{"tags":["a"]}'))
    with pytest.raises(RegistryError, match="another host"):
        list(client().tags())
    assert not another.requests()


def test_a_list_that_is_at_another_host_has_its_next_page_there(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    """As registry.k8s.io has it, which keeps nothing itself; no credential goes there."""
    scripted.on("GET", ".*", s.answer(307, {"Location": f"{another.url}/v2/k8s/app/tags/list"}))
    link = {"Link": '</v2/k8s/app/tags/list?last=a>; rel="next"'}
    another.on("GET", ".*last=a", s.answer(200, {}, b'{"tags":["b"]}'))
    another.on("GET", ".*", s.answer(200, link, b'{"tags":["a"]}'))
    repository = client(headers={"X-Wish": "1"})
    assert list(repository.tags()) == ["a", "b"]
    assert not any("x-wish" in seen.headers for seen in another.requests())


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"tags":"a"}', b'{"tags":{"a":1}}'])
def test_what_is_no_list_is_an_error(scripted: s.Scripted, client: Client, body: bytes) -> None:
    scripted.on("GET", ".*", s.answer(200, {}, body))
    with pytest.raises(RegistryError):
        list(client().tags())
