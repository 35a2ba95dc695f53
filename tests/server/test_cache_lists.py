"""Lists of tags and of referrers of a pull-through cache."""

from __future__ import annotations

from typing import Any

from argosy.errors import NameUnknownError, TransportError
from argosy.server.lists import Lists
from argosy.spec.digest import Digest
from argosy.testing import random
from tests.server.mirrors import HUB, Mirror, Upstreams, image


def referred(mirror: Mirror, path: str) -> list[dict[str, Any]]:
    """The list of referrers at a path, page by page."""
    found: list[dict[str, Any]] = []
    while path:
        answer = mirror.ask("GET", path)
        assert answer.status == 200
        found += answer.json()["manifests"]
        path = (answer.header("link") or "").partition(">")[0].removeprefix("<")
    return found


def test_lists_are_the_upstreams(mirror: Mirror, upstreams: Upstreams) -> None:
    desc, _, _ = image(upstreams)
    store = upstreams.store("app")
    store.tag(desc, "v2")
    signatures = [random.artifact(store, n, subject=desc) for n in range(3, 6)]
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 200
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1", "v2"]
    assert mirror.ask("GET", "/v2/hub/app/tags/list?last=v1").json()["tags"] == ["v2"]
    listed = referred(mirror, f"/v2/hub/app/referrers/{desc.digest}?n=2")
    assert listed == [d.encode() for d in sorted(store.referrers(desc), key=lambda d: d.digest)]
    assert {entry["digest"] for entry in listed} == {s.digest for s in signatures}
    kind = listed[0]["artifactType"]
    assert referred(mirror, f"/v2/hub/app/referrers/{desc.digest}?artifactType=x/y") == []
    typed = f"/v2/hub/app/referrers/{desc.digest}?artifactType={kind}"
    assert all(entry["artifactType"] == kind for entry in referred(mirror, typed))
    assert [asked for asked in upstreams.asked if asked in {"tags", "referrers"}] == [
        "tags",
        "referrers",
    ]


def test_lists_are_asked_for_again_after_a_while(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1"]
    image(upstreams, "v2", 2)
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1"]
    mirror.turned.now += HUB.fresh_seconds
    upstreams.fails = TransportError("offline")
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1"]
    upstreams.fails = None
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1", "v2"]


def test_lists_name_what_is_here_when_the_upstream_fails(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    desc, _, _ = image(upstreams)
    signature = random.artifact(upstreams.store("app"), 3, "sig", subject=desc)
    for reference in ("v1", "sig"):
        assert mirror.ask("GET", f"/v2/hub/app/manifests/{reference}").status == 200
    image(upstreams, "v2", 2)
    upstreams.fails = TransportError("offline")
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["sig", "v1"]
    listed = referred(mirror, f"/v2/hub/app/referrers/{desc.digest}")
    assert [entry["digest"] for entry in listed] == [signature.digest]


def test_an_unknown_repository_has_no_lists(mirror: Mirror, upstreams: Upstreams) -> None:
    upstreams.fails = NameUnknownError("repository none is not known")
    assert mirror.ask("GET", "/v2/hub/none/tags/list").status == 404
    nothing = Digest.of(b"nothing")
    assert referred(mirror, f"/v2/hub/none/referrers/{nothing}") == []


def test_empty_lists_count_too(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    mirror.cache._lists = Lists(10)
    for number in range(30):
        path = f"/v2/hub/app/referrers/{Digest.of(str(number).encode())}"
        assert mirror.ask("GET", path).json()["manifests"] == []
    assert len(mirror.cache._lists._kept) == 10
