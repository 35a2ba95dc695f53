"""Attacks on who may do what: one test an incident. Each is shown to succeed when its guard is taken away."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import bcrypt
import pytest

from argosy.errors import InvalidConfigError
from argosy.server.auth import gate as gates
from argosy.server.auth import htpasswd as passwords
from argosy.server.auth.policy import Policy
from argosy.server.handlers import catalog, uploads
from argosy.server.settings import Content, Settings
from argosy.spec.digest import Digest
from tests.server.client import image, index
from tests.server.doors import As, Door, basic, bearer, htpasswd, rule

MINE_AND_YOURS = {
    "rules": [
        rule(["pull", "push", "delete"], "ann", repositories=["ann/**"]),
        rule(["pull", "push", "delete"], "bob", repositories=["bob/**"]),
        rule(["admin"], "admin"),
    ]
}


@pytest.fixture
def door(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    with Door(tmp_path, MINE_AND_YOURS) as made:
        yield made


def allow_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates.Gate, "authorize", lambda *_: None)


def test_who_may_write_and_not_read_is_not_told_what_a_tag_is(tmp_path: pathlib.Path) -> None:
    rules = [rule(["create", "delete"], "bob"), rule(["admin"], "admin")]
    with Door(tmp_path, {"rules": rules}) as door:
        digest = As(door, "admin").push_image("a", "t")
        bob = As(door, "bob")
        for method in ("PUT", "DELETE"):
            answer = bob.ask(method, "/v2/a/manifests/t", image(), {"if-match": '"x"'})
            assert answer.status == 412
            assert digest.partition(":")[2] not in answer.body.decode() + str(answer.headers)


# -- CVE-2024-39897 (zot): blobs of others by their digest -----------------------------------------


def mount(door: Door, digest: Digest, source: str | None) -> int:
    query = f"?mount={digest}" + (f"&from={source}" if source else "")
    status: int = As(door, "bob").ask("POST", f"/v2/bob/b/blobs/uploads/{query}", b"").status
    return status


def test_cve_2024_39897_a_blob_is_mounted_only_from_where_one_may_read(door: Door) -> None:
    secret = As(door, "ann").push_blob("ann/a", b"secret")
    assert mount(door, secret, "ann/a") == 202
    assert mount(door, secret, None) == 202
    assert As(door, "bob").ask("GET", f"/v2/bob/b/blobs/{secret}").status == 404
    assert As(door, "bob").ask("GET", f"/v2/ann/a/blobs/{secret}").status == 403


@pytest.mark.parametrize("source", ["ann/a", None])
def test_cve_2024_39897_the_mount_succeeds_without_the_guard(
    door: Door, monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    secret = As(door, "ann").push_blob("ann/a", b"secret")
    allow_everything(monkeypatch)
    assert mount(door, secret, source) == 201


# -- CVE-2026-31801, zot#4266 (zot): who may create must not move -----------------------------------


def moved(directory: pathlib.Path, tags: str) -> Any:
    rules = {"rules": [rule(["pull", "create"], "ann"), rule(["admin"], "admin")]}
    with Door(directory, rules) as door:
        As(door, "admin").push_image("a", "latest")
        raw = image(annotations={"evil": "yes"})
        digest = Digest.of(raw)
        target = f"/v2/a/manifests/{digest}?{tags}" if "&" in tags else f"/v2/a/manifests/{tags}"
        kind = {"content-type": "application/vnd.oci.image.manifest.v1+json"}
        answer = As(door, "ann").ask("PUT", target, raw, kind)
        now = As(door, "admin").ask("GET", "/v2/a/manifests/latest").header("docker-content-digest")
        return (
            answer.status,
            now == digest,
            As(door, "admin").ask("GET", "/v2/a/tags/list").json()["tags"],
        )


def test_cve_2026_31801_a_creator_does_not_overwrite_latest(tmp_path: pathlib.Path) -> None:
    assert moved(tmp_path, "latest") == (403, False, ["latest"])


def test_zot_4266_each_tag_of_a_push_is_checked_and_none_is_set(tmp_path: pathlib.Path) -> None:
    assert moved(tmp_path, "tag=fresh&tag=latest") == (403, False, ["latest"])


def test_cve_2026_31801_latest_is_overwritten_without_the_guard(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Policy, "check_tag", lambda *_: None)
    assert moved(tmp_path, "latest") == (201, True, ["latest"])


# -- CVE-2026-41888 (distribution): one gate for deleting -------------------------------------------


@pytest.mark.parametrize("switched", ["off", "no-right"])
def test_cve_2026_41888_nothing_is_deleted_where_deleting_is_not_allowed(
    tmp_path: pathlib.Path, switched: str
) -> None:
    allow = ["pull", "push"] + (["delete"] if switched == "off" else [])
    settings = Settings(content=Content(delete=switched != "off"))
    with Door(tmp_path, {"rules": [rule(allow, "ann")]}, settings=settings) as door:
        ann = As(door, "ann")
        digest = ann.push_image("a", "v1", b"layer")
        blob = Digest.of(b"layer")
        for target in (f"manifests/{digest}", "manifests/v1", f"blobs/{blob}", "manifests/none"):
            status = ann.ask("DELETE", f"/v2/a/{target}").status
            assert status == (405 if switched == "off" else 403), target
        assert ann.ask("GET", "/v2/a/manifests/v1").status == 200


# -- CVE-2026-32589 (Quay): an upload of somebody else ----------------------------------------------


def test_cve_2026_32589_an_upload_belongs_to_its_repository_and_user(
    tmp_path: pathlib.Path,
) -> None:
    with Door(tmp_path, {"rules": [rule(["pull", "push"], "ann", "bob")]}) as door:
        location = As(door, "ann").ask("POST", "/v2/a/blobs/uploads/", b"").location
        elsewhere = location.replace("/v2/a/", "/v2/b/")
        for user, target in (("bob", location), ("ann", elsewhere), ("bob", elsewhere)):
            one = As(door, user)
            assert one.ask("GET", target).status == 404
            assert one.ask("PATCH", target, b"x").status == 404
            assert one.ask("PUT", f"{target}?digest={Digest.of(b'x')}", b"x").status == 404
            assert one.ask("DELETE", target).status == 404
        assert As(door, "ann").ask("PATCH", location, b"x").status == 202


def test_cve_2026_32589_the_row_refuses_even_where_the_signature_does_not(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Door(tmp_path, {"rules": [rule(["pull", "push"], "ann", "bob")]}) as door:
        location = As(door, "ann").ask("POST", "/v2/a/blobs/uploads/", b"").location
        identity = location.rpartition("/")[2].partition(".")[0]
        monkeypatch.setattr(uploads, "_identity", lambda *_: identity)
        assert As(door, "bob").ask("PATCH", location, b"x").status == 404
        assert As(door, "ann").ask("PATCH", location, b"x").status == 202


# -- PROJQUAY-10504 (Quay): immutable tags by way of their digest ------------------------------------

_FROZEN = {
    "rules": [rule(["admin"], "admin")],
    "immutable": [{"repositories": ["**"], "tags": ["v*"]}],
}


def thaw(directory: pathlib.Path) -> list[int]:
    with Door(directory, _FROZEN) as door:
        admin = As(door, "admin")
        child = admin.push_image("a")
        top = admin.push_manifest("a", index(child), "v1")
        gone = [f"manifests/{child}", f"manifests/{top}", "manifests/v1"]
        return [admin.ask("DELETE", f"/v2/a/{target}").status for target in gone]


def test_projquay_10504_an_immutable_tag_keeps_its_digest_and_what_that_lists(
    tmp_path: pathlib.Path,
) -> None:
    assert thaw(tmp_path) == [403, 403, 403]


def test_projquay_10504_all_goes_without_the_guard(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates.Gate, "guard", lambda *_: None)
    assert thaw(tmp_path)[0] == 202


# -- Harbor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"rules": [{"repositories": ["**"], "allow": ["pull"], "is_admin": True}]},
        {"rules": [{"repositories": ["**"], "allow": ["root"]}]},
        {"rules": [{"allow": ["pull"]}]},
        {"admins": ["ann"]},
        {"immutable": [{"repositories": ["**"]}]},
        {"retention": [{"repositories": ["**"], "keep_last": -1}]},
    ],
    ids=lambda d: json.dumps(d)[:60],
)
def test_cve_2019_16097_unknown_fields_of_a_policy_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError):
        Policy.decode(document)


def test_cve_2022_31666_every_route_is_closed_to_strangers(door: Door) -> None:
    """CVE-2020-29662, CVE-2022-31668, CVE-2024-22278."""
    digest = Digest.of(b"x")
    for route in door.server.app.routes:
        if route.verb == "open":
            continue
        target = route.pattern.replace("{name}", "ann/a").replace("{argument}", digest)
        for method in route.methods:
            assert door.ask(method, target).status == 401, (method, target)
            if "{name}" in route.pattern:
                answer = door.ask(method, target, headers=basic("bob"))
                assert answer.status == 403, (method, target)


def test_cve_2022_46463_names_one_may_not_read_are_not_listed(door: Door) -> None:
    As(door, "ann").push_image("ann/secret", "v1")
    listed = As(door, "bob").ask("GET", "/v2/_catalog")
    assert (listed.status, listed.json()) == (200, {"repositories": []})
    assert door.ask("GET", "/v2/_catalog").status == 401


def test_a_token_for_the_catalog_reads_nothing_that_is_listed_there(door: Door) -> None:
    As(door, "ann").push_image("ann/secret", "v1")
    token = bearer(door.token("ann", "registry:catalog:*"))
    assert door.ask("GET", "/v2/_catalog", headers=token).json()["repositories"] == ["ann/secret"]
    for target in ("tags/list", "manifests/v1"):
        assert door.ask("GET", f"/v2/ann/secret/{target}", headers=token).status == 401


def test_cve_2022_46463_the_name_is_listed_without_the_guard(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    As(door, "ann").push_image("ann/secret", "v1")
    allow_everything(monkeypatch)
    assert As(door, "bob").ask("GET", "/v2/_catalog").json() == {"repositories": ["ann/secret"]}


def test_cve_2022_46463_a_page_that_stops_among_hidden_names_tells_none_of_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_BUDGET", 1)
    rules = [
        rule(["admin"], "admin"),
        rule(["pull"], "bob", "ann", repositories=["alone/*", "zoo/*"]),
    ]
    with Door(tmp_path, {"rules": rules}) as door:
        everybody = As(door, "admin")
        for name in ("alone/a", *(f"hidden/{number:03}" for number in range(150)), "zoo/a"):
            everybody.push_image(name, "v1")

        def page(target: str, user: str = "bob") -> tuple[list[str], str]:
            answer = As(door, user).ask("GET", target)
            link = answer.header("link") or ""
            assert "hidden" not in link + answer.body.decode()
            return answer.json()["repositories"], link.partition(">")[0].removeprefix("<")

        first, more = page("/v2/_catalog?n=2")
        assert first == ["alone/a"]
        assert page(more) == (["zoo/a"], "")
        assert page(more, "ann")[0] == []  # that place is bob's: ann goes on behind `last`
        place = more.rpartition("=")[2]
        for other in ("0" + place[1:], place[:-1], "1." + "0" * 32):
            assert page(more.replace(place, other))[0] == []


def test_cve_2026_4404_there_is_no_password_that_everybody_knows(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, users=()) as door:
        for user, password in (
            ("admin", "Harbor12345"),
            ("admin", "admin"),
            ("admin", ""),
            ("", ""),
        ):
            assert door.ask("GET", "/v2/", headers=basic(user, password)).status == 401


# -- Starlette CVE-2026-48710: the path that is judged is the path that is served --------------------


@pytest.mark.parametrize(
    "path",
    ["/v2/ann%2Fsecret/tags/list", "/v2/bob/../ann/secret/tags/list", "/v2//ann/secret/tags/list",
     "/v2/bob/x/../../ann/secret/tags/list", "/v2/ann/secret/tags/list%00", "/V2/ann/secret/tags/list"],
)  # fmt: skip
def test_cve_2026_48710_a_path_that_can_be_read_in_two_ways_leads_nowhere(
    door: Door, path: str
) -> None:
    As(door, "ann").push_image("ann/secret", "v1")
    for host in ("127.0.0.1", "x/v2/bob/b/tags/list?", "evil#"):
        answer = As(door, "bob").ask("GET", path, headers={"host": host})
        assert answer.status in {403, 404}
        assert b"v1" not in answer.body


def test_a_host_header_that_is_none_does_not_reach_the_challenge(door: Door) -> None:
    for host in ('x",scope="y', "evil.example/\\", "a b", ""):
        challenge = door.ask("GET", "/v2/", headers={"host": host}).header("www-authenticate")
        assert challenge == 'Bearer realm="http://localhost/token",service="argosy"'


# -- guessing ----------------------------------------------------------------------------------------


def test_an_unknown_user_costs_a_whole_comparison(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2023-20902: users are not guessed by the time an answer takes."""
    compared: list[int] = []
    real: Callable[[bytes, bytes], bool] = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        compared.append(int(hashed[4:6]))
        return real(password, hashed)

    known = passwords.Htpasswd(htpasswd(tmp_path, "ann"))
    monkeypatch.setattr(bcrypt, "checkpw", counted)
    assert not known.check("ann", "wrong")
    assert not known.check("nobody", "wrong")
    assert compared == [4, 4]


def test_a_remembered_password_opens_no_other_door(tmp_path: pathlib.Path) -> None:
    known = passwords.Htpasswd(htpasswd(tmp_path, "ann", password="c"))
    assert known.check("ann", "c")
    assert known.remembered("ann", "c")
    for user, password in (("ann", "cc"), ("an", "nc"), ("annc", ""), ("bob", "c"), ("ann:b", "c")):
        assert not known.remembered(user, password)
