"""Past incidents of registries, one test each, and the proof that it bites: without the guard the attack works."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argosy.errors import DeniedError
from argosy.server import app as app_module
from argosy.server import http, routes
from argosy.server.access import Anonymous, Principal, TagGuard, Verb
from argosy.server.handlers import manifests as manifest_handlers
from argosy.server.metadata import manifests as manifest_queries
from argosy.server.metadata import uploads as upload_queries
from argosy.server.registry import Registry
from argosy.server.settings import Content, Limits, Settings
from argosy.spec import manifest as spec_manifest
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from tests.server import client
from tests.server.client import Answer, Server, image

server = client.server

SECRET = b"somebody else's layer"
DIGEST = Digest.of(SECRET)

both = pytest.mark.parametrize("guarded", [True, False])


class Tenants(Anonymous):
    """Mallory may write below `mallory/` and read nothing of anybody else; who asks is a header."""

    async def authenticate(self, headers: Any) -> Principal:
        return Principal(name=headers.get(b"x-user", b"").decode())

    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        if principal.name == "mallory" and not (repository or "mallory/").startswith("mallory/"):
            raise DeniedError("not yours")


MALLORY = {"x-user": "mallory"}


@pytest.fixture
def tenants(tmp_path: Path) -> Any:
    with Server(str(tmp_path), access=Tenants()) as server:
        server.push_image("alice/app", "t", SECRET)
        yield server


@both
@pytest.mark.parametrize("source", ["&from=alice/app", ""])
def test_cve_2024_39897_a_known_digest_does_not_open_another_repository(
    tenants: Server, source: str, guarded: bool
) -> None:
    if not guarded:
        tenants.registry.access = Anonymous()
    target = f"/v2/mallory/x/blobs/uploads/?mount={DIGEST}{source}"
    mounted = tenants.ask("POST", target, b"", MALLORY).status
    found = tenants.ask("GET", f"/v2/mallory/x/blobs/{DIGEST}", headers=MALLORY).status
    assert (mounted, found) == ((202, 404) if guarded else (201, 200))


def test_cve_2024_39897_deduplication_gives_nothing_without_the_bytes(tenants: Server) -> None:
    for body in (b"", b"x", SECRET[:-1]):
        target = f"/v2/mallory/x/blobs/uploads/?digest={DIGEST}"
        assert tenants.ask("POST", target, body, MALLORY).status == 400
    raw = image(DIGEST)
    kind = {"content-type": mediatypes.OCI_MANIFEST}
    refused = tenants.ask("PUT", "/v2/mallory/x/manifests/t", raw, MALLORY | kind)
    assert refused.code == "MANIFEST_BLOB_UNKNOWN"


class CreateOnly(Anonymous):
    def guard(self, principal: Principal, repository: str) -> TagGuard | None:
        def check(tag: str, old: str | None, new: str | None) -> None:
            if old is not None and new != old:
                raise DeniedError(f"tag {tag} may not change")

        return check


def put(server: Server, tags: str, note: str) -> Answer:
    raw = image(annotations={"note": note})
    return server.put_manifest("a", raw, f"{Digest.of(raw)}?{tags}")


@both
def test_cve_2026_31801_who_may_create_may_not_overwrite(tmp_path: Path, guarded: bool) -> None:
    access = CreateOnly() if guarded else Anonymous()
    with Server(str(tmp_path), access=access) as server:
        server.push_blob("a", b"{}")
        first = image(annotations={"note": "first"})
        assert server.put_manifest("a", first, "latest").status == 201
        second = image(annotations={"note": "second"})
        assert server.put_manifest("a", second, "latest").status == (403 if guarded else 201)
        found = server.ask("GET", "/v2/a/manifests/latest").body
        assert found == (first if guarded else second)


def test_who_may_create_may_not_change_the_type_a_tag_serves(tmp_path: Path) -> None:
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    with Server(str(tmp_path), access=CreateOnly()) as server:
        server.push_blob("a", b"{}")
        document = json.loads(image())
        del document["mediaType"]
        raw = json.dumps(document).encode()
        assert server.put_manifest("a", raw, "v1").status == 201
        for reference in (Digest.of(raw), "v2", f"{Digest.of(raw)}?tag=v3"):
            answer = server.put_manifest("a", raw, reference, docker)
            assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
        found = server.ask("HEAD", "/v2/a/manifests/v1").header("content-type")
        assert found == mediatypes.OCI_MANIFEST
        assert server.ask("GET", "/v2/a/tags/list").json()["tags"] == ["v1"]


@both
def test_zot_4266_every_tag_of_a_push_is_checked(
    tmp_path: Path, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(str(tmp_path), access=CreateOnly()) as server:
        server.push_blob("a", b"{}")
        assert put(server, "tag=old", "1").status == 201
        if not guarded:
            set_tag = manifest_queries.set_tag

            def first_only(
                tx: Any, change: Any, repo: Any, tag: str, digest: str, guard: Any
            ) -> None:
                set_tag(tx, change, repo, tag, digest, guard if tag == "a-new" else None)

            monkeypatch.setattr(manifest_queries, "set_tag", first_only)
        status = put(server, "tag=a-new&tag=old", "2").status
        assert status == (403 if guarded else 201)
        created = server.ask("HEAD", "/v2/a/manifests/a-new").status
        assert created == (404 if guarded else 200)


@both
def test_projquay_10504_an_immutable_tag_is_not_deleted_by_its_digest(
    tmp_path: Path, guarded: bool
) -> None:
    access = CreateOnly() if guarded else Anonymous()
    with Server(str(tmp_path), access=access) as server:
        digest = server.push_image("a", "release")
        for reference in ("release", digest):
            answer = server.ask("DELETE", f"/v2/a/manifests/{reference}")
            if guarded:
                assert answer.code == "DENIED"
        found = server.ask("HEAD", "/v2/a/manifests/release").status
        assert found == (200 if guarded else 404)


@both
def test_cve_2017_11468_a_huge_manifest_is_refused_before_it_is_in_memory(
    server: Server, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        monkeypatch.setattr(
            manifest_handlers, "Limits", lambda idle, total, _: http.Limits(idle, total)
        )
    taken = 0

    async def endless() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b" " * 1_000_000, "more_body": taken < 64}

    request = http.Request(
        {"method": "PUT", "headers": [(b"transfer-encoding", b"chunked")], "query_string": b""},
        endless,
        "id",
    )
    request.name, request.argument = "a", "t"
    with pytest.raises(Exception):  # noqa: B017
        server.run(manifest_handlers.put(server.registry, request))
    assert (taken < 12) == guarded


def test_cve_2017_11468_a_length_over_the_limit_is_refused_unread(server: Server) -> None:
    answer = server.ask("PUT", "/v2/a/manifests/t", [b"{"], {"content-length": "99999999999"})
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")


AMBIGUOUS = {
    "schemaVersion": 2,
    "config": {"mediaType": mediatypes.OCI_CONFIG, "digest": Digest.of(b"{}"), "size": 2},
    "layers": [],
    "manifests": [],
}


@both
@pytest.mark.parametrize("kind", [mediatypes.OCI_MANIFEST, mediatypes.OCI_INDEX])
def test_cve_2021_41190_one_document_is_not_two_things(
    server: Server, kind: str, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        monkeypatch.setattr(spec_manifest, "_SHAPES", {})
    server.push_blob("a", b"{}")
    raw = json.dumps(AMBIGUOUS).encode()
    answer = server.put_manifest("a", raw, "t", kind)
    assert (answer.status == 400) == guarded


def test_cve_2021_41190_the_content_type_must_be_the_media_type(server: Server) -> None:
    server.push_blob("a", b"{}")
    answer = server.put_manifest("a", image(), "t", mediatypes.OCI_INDEX)
    assert answer.code == "MANIFEST_INVALID"


@both
@pytest.mark.parametrize(
    "target", ["/v2/_catalog", "/v2/r0/tags/list", "/v2/r0/referrers/" + DIGEST]
)
def test_cve_2023_2253_a_page_is_never_larger_than_allowed(
    tmp_path: Path, target: str, guarded: bool
) -> None:
    limits = Limits(page=3) if guarded else Limits(page=10_000)
    with Server(str(tmp_path), settings=Settings(limits=limits)) as server:
        for number in range(6):
            server.push_image(f"r{number}", "t")
            server.push_image("r0", f"t{number}")
            note = {"n": str(number)}
            of = {"mediaType": mediatypes.OCI_MANIFEST, "digest": DIGEST, "size": 1}
            server.push_manifest("r0", image(subject=of, annotations=note))
        found = server.ask("GET", f"{target}?n=4611686018427387904").json()
        entries = next(value for value in found.values() if isinstance(value, list))
        assert (len(entries) == 3) == guarded


@both
@pytest.mark.parametrize("what", ["tag", "manifest", "blob"])
def test_cve_2026_41888_deleting_is_off_for_everything(
    tmp_path: Path, what: str, guarded: bool
) -> None:
    settings = Settings(content=Content(delete=not guarded))
    with Server(str(tmp_path), settings=settings) as server:
        digest = server.push_image("a", "t")
        blob = server.push_blob("a", b"loose")
        target = {
            "tag": "/v2/a/manifests/t",
            "manifest": f"/v2/a/manifests/{digest}",
            "blob": f"/v2/a/blobs/{blob}",
        }[what]
        assert server.ask("DELETE", target).status == (405 if guarded else 202)
        assert server.ask("HEAD", target).status == (200 if guarded else 404)


@both
def test_cve_2026_35172_a_cache_grants_nothing(
    server: Server, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = server.push_image("a", "t")
    assert server.ask("GET", f"/v2/a/manifests/{digest}").status == 200
    server.ask("DELETE", f"/v2/a/manifests/{digest}")
    if not guarded:  # a cache that is asked first

        def cached(tx: Any, name: str, reference: str) -> Any:
            kept = server.registry.manifests.get(reference)
            return manifest_queries.Stored(1, reference, "x/y", len(kept)) if kept else None

        monkeypatch.setattr(manifest_queries, "find", cached)
    for name in ("a", "b"):
        status = server.ask("GET", f"/v2/{name}/manifests/{digest}").status
        assert status == (404 if guarded else 200)


@both
@pytest.mark.parametrize("other", ["repository", "principal"])
def test_cve_2026_32589_an_upload_belongs_to_its_repository_and_principal(
    tmp_path: Path, other: str, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(str(tmp_path), access=Tenants()) as server:
        location = server.ask("POST", "/v2/mallory/a/blobs/uploads/", b"").location
        headers = MALLORY if other == "principal" else {}
        if other == "repository":
            server.push_blob("mallory/b", b"x")
            location = location.replace("/mallory/a/", "/mallory/b/")
        if not guarded:
            monkeypatch.setattr(Registry, "sign", lambda *_: location.rpartition(".")[2])
            find = upload_queries.find
            monkeypatch.setattr(
                upload_queries, "find", lambda tx, _n, u, _p: find(tx, "mallory/a", u, "")
            )
        status = server.ask("GET", location, headers=headers).status
        assert status == (404 if guarded else 204)
        if guarded:
            for method in ("PATCH", "PUT", "DELETE"):
                target = f"{location}?digest={DIGEST}"
                assert server.ask(method, target, b"x", headers).status == 404


def test_cve_2026_32589_a_signature_that_was_made_up_is_refused(server: Server) -> None:
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
    head, _, signature = location.rpartition(".")
    for forged in (signature[::-1], "0" * 32, "", signature[:-1], signature + "0"):
        assert server.ask("GET", f"{head}.{forged}").status == 404


def test_cve_2026_32590_nothing_of_the_registry_is_pickled() -> None:
    folder = Path(app_module.__file__).parent
    forbidden = re.compile(
        r"\b(pickle|marshal|shelve|dill|eval|exec)\b\s*[(.]|import (pickle|marshal)"
    )
    for source in folder.rglob("*.py"):
        assert not forbidden.search(source.read_text()), source


class Nobody(Anonymous):
    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        raise DeniedError("no")


@both
def test_cve_2022_31666_every_route_asks_before_it_answers(tmp_path: Path, guarded: bool) -> None:
    with Server(str(tmp_path), access=Nobody() if guarded else Anonymous()) as server:
        for route in server.app.routes:
            target = route.pattern.format(name="a/b", argument=DIGEST)
            for method in route.methods:
                answer = server.ask(method, target, b"")
                denied = answer.status == 403
                assert denied == (guarded and route.verb != "open"), (method, target)


def test_cve_2022_31666_what_is_not_in_the_table_does_not_exist(server: Server) -> None:
    known = {method for route in routes.ROUTES for method in route.methods}
    for method in [*known, "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", ""]:
        for target in (
            "/",
            "/v1/",
            "/v2/a",
            "/v2/a/manifests/",
            "/v2/a/blobs/x/y",
            "/metrics",
            "/admin",
        ):
            assert server.ask(method, target).status in {404, 405}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/a%2Fb/tags/list",
        "/v2/a%2f..%2fb/tags/list",
        "/v2/a/../b/tags/list",
        "/v2/%2e%2e/b/tags/list",
        "/v2//a/tags/list",
        "/v2/a//tags/list",
        "/v2/a/tags/list%00",
        "/v2/a/tags/list\\",
        "/v2/a/tags/list;x",
        "/v2/a%252Fb/tags/list",
        "/v2/a/manifests/..",
        "//v2/a/tags/list",
        "/v2/ä/tags/list",
    ],
)
def test_cve_2026_48710_a_path_has_one_reading(server: Server, path: str) -> None:
    server.push_image("a/b", "t")
    assert server.ask("GET", path).status in {400, 404}


@both
def test_cve_2026_48710_only_the_raw_path_decides(
    tenants: Server, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v2/alice/app/manifests/t",
        "raw_path": b"/v2/mallory/x/manifests/t",
        "query_string": b"",
        "headers": [(b"x-user", b"mallory"), (b"host", b"h/v2/alice/app/manifests/t?")],
    }
    if not guarded:  # authorised by one reading, routed by another
        answer_ = app_module.App._answer

        async def confused(self: Any, match: Any, request: Any) -> Any:
            other = self._table.match("GET", request.scope["path"].encode())
            self.registry.access.authorize(request.principal, "pull", match.name)
            monkeypatch.setattr(self.registry, "access", Anonymous())
            return await answer_(self, other, request)

        monkeypatch.setattr(app_module.App, "_answer", confused)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    run: Callable[..., Any] = tenants.app
    tenants.run(run(scope, receive, send))
    assert sent[0]["status"] == (404 if guarded else 200)


def test_content_is_never_a_page_of_this_origin(server: Server) -> None:
    page = b"<html><script>alert(1)</script>"
    digest = server.push_blob("a", page)
    answer = server.ask("GET", f"/v2/a/blobs/{digest}", headers={"accept": "text/html"})
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("x-content-type-options") == "nosniff"


def test_an_object_key_has_nothing_of_what_a_client_sent(server: Server) -> None:
    digest = server.push_blob("a/b", b"content")
    for key in server.registry.storage.keys("b/"):
        assert digest.encoded[:12] not in key
        assert re.fullmatch(r"b/\d{8}/[0-9a-f-]{36}-\d+", key)


def test_a_bug_tells_nothing_but_its_request(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(manifest_queries, "find", broken)
    answer = server.ask("GET", "/v2/a/manifests/t")
    assert (answer.status, b"hunter2" in answer.body) == (500, False)
    assert (answer.header("x-request-id") or "?") in caplog.text
