"""Who asks, and what they may, asked of a registry through HTTP."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from argosy.errors import AccessError, DeniedError, InvalidConfigError
from argosy.server.access import Anonymous, Principal
from argosy.server.assemble import build
from argosy.server.auth.gate import Gate, open_gate
from argosy.server.auth.htpasswd import parse
from argosy.server.auth.tokens import TokenSigner
from argosy.server.front import Metered
from argosy.server.loopback import Loopback
from argosy.server.settings import (
    AccessSettings,
    Listen,
    MetadataStore,
    Postgresql,
    Settings,
    Tokens,
)
from argosy.spec.digest import Digest
from tests.server.client import Server, image
from tests.server.doors import PASSWORD, As, Door, basic, bearer, htpasswd, rule

EVERYTHING = {"rules": [rule(["pull", "push", "delete"], "ann"), rule(["pull"], "bob")]}


@pytest.fixture
def door(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    with Door(tmp_path, EVERYTHING) as made:
        yield made


# -- who -------------------------------------------------------------------------------------------


def test_a_stranger_is_asked_for_a_token_for_just_this(door: Door) -> None:
    answer = door.ask("GET", "/v2/team/app/tags/list", headers={"host": "registry.example:5000"})
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert answer.header("www-authenticate") == (
        'Bearer realm="http://registry.example:5000/token",service="argosy",'
        'scope="repository:team/app:pull"'
    )
    pushing = door.ask("POST", "/v2/team/app/blobs/uploads/", b"")
    assert 'scope="repository:team/app:pull,push"' in (pushing.header("www-authenticate") or "")


def test_the_version_check_asks_who_it_is_and_takes_an_anonymous_token(door: Door) -> None:
    assert door.ask("GET", "/v2/").status == 401
    assert door.ask("GET", "/v2/", headers=basic("ann")).status == 200
    assert door.ask("GET", "/v2/", headers=bearer(door.token(None))).status == 200


def test_where_there_are_users_a_version_check_asks_who_it_is(tmp_path: pathlib.Path) -> None:
    """Or no client would ever say who it is, and push as nobody."""
    with Door(tmp_path, anonymous=frozenset({"pull"})) as door:
        assert door.ask("GET", "/v2/").status == 401
        assert door.ask("GET", "/v2/a/tags/list").status == 404


def test_the_challenge_names_the_registry_as_it_is_called(tmp_path: pathlib.Path) -> None:
    signer = TokenSigner(ed25519.Ed25519PrivateKey.generate(), issuer="argosy", service="argosy")
    gate = Gate(signer=signer, public_url="https://registry.example/")
    with Server(str(tmp_path), access=gate) as server:
        answer = server.ask("GET", "/v2/", headers={"host": "elsewhere.example"})
    assert (answer.header("www-authenticate") or "").startswith(
        'Bearer realm="https://registry.example/token",'
    )


def test_without_a_signer_basic_credentials_are_asked_for(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, EVERYTHING, tokens=False) as door:
        answer = door.ask("GET", "/v2/")
        assert (answer.header("www-authenticate") or "").startswith('Basic realm="argosy"')
        assert door.ask("GET", "/token").status == 404


@pytest.mark.parametrize(
    "header",
    [
        "Basic !!!",
        "Basic YW5u",
        "Bearer x",
        "Bearer a.b.c",
        "Digest x",
        "Basic " + "A" * 30000,
    ],
)
def test_credentials_that_are_wrong_cost_the_delay(door: Door, header: str) -> None:
    assert door.ask("GET", "/v2/", headers={"authorization": header}).status == 401
    assert door.delays.seconds == [1.0]


def test_credentials_over_the_limit_are_not_looked_at(door: Door) -> None:
    answer = door.ask("GET", "/v2/", headers=basic("ann", PASSWORD + " " * 20_000))
    assert answer.status == 401
    assert b"over the limit of 20480 bytes" in answer.body


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(door: Door) -> None:
    wrong = door.ask("GET", "/v2/", headers=basic("ann", "x"))
    unknown = door.ask("GET", "/v2/", headers=basic("nobody", "x"))
    assert wrong.status == unknown.status == 401
    assert wrong.body == unknown.body
    assert door.delays.seconds == [1.0, 1.0]


def test_the_password_file_is_taken_up_when_it_changes(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, EVERYTHING, users=["ann"]) as door:
        assert door.ask("GET", "/v2/", headers=basic("ann")).status == 200
        htpasswd(tmp_path, "ann", "bob", password="another one")
        assert door.ask("GET", "/v2/", headers=basic("ann")).status == 401
        assert door.ask("GET", "/v2/", headers=basic("bob", "another one")).status == 200


def test_a_password_file_caught_half_written_changes_nothing(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, EVERYTHING, users=["ann"]) as door:
        (tmp_path / "htpasswd").write_text("ann:$2b$10$half")
        assert door.ask("GET", "/v2/", headers=basic("ann")).status == 200
        os.unlink(tmp_path / "htpasswd")
        assert door.ask("GET", "/v2/", headers=basic("ann")).status == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ann\n", ":1: expected user:hash"),
        ("# users\nann:$apr1$x$y\n", ":2: user 'ann': expected a bcrypt hash"),
        ("ann:{SHA}x\n", "expected a bcrypt hash"),
        ("ann:plain\n", "expected a bcrypt hash"),
    ],
)
def test_a_password_file_that_is_not_bcrypt_is_refused(
    tmp_path: pathlib.Path, text: str, message: str
) -> None:
    (tmp_path / "htpasswd").write_text(text)
    with pytest.raises(InvalidConfigError, match=message):
        parse(str(tmp_path / "htpasswd"))


# -- what ------------------------------------------------------------------------------------------

_D = Digest.of(b"x")
REQUESTS = {
    "pull": ("GET", f"/v2/team/app/blobs/{_D}"),
    "push": ("POST", "/v2/team/app/blobs/uploads/"),
    "delete": ("DELETE", f"/v2/team/app/manifests/{_D}"),
}
"""One request for each verb; 404 and 202 mean that it was let through."""
SETTINGS: dict[str, tuple[list[str], set[str]]] = {
    "nothing": ([], set()),
    "pull": (["pull"], {"pull"}),
    "push": (["push"], {"push"}),
    "create": (["create"], {"push"}),
    "update": (["update"], {"push"}),
    "delete": (["delete"], {"delete"}),
    "pull-push": (["pull", "push"], {"pull", "push"}),
    "admin": (["admin"], {"pull", "push", "delete"}),
}


@pytest.mark.parametrize("verb", sorted(REQUESTS))
@pytest.mark.parametrize("name", sorted(SETTINGS))
@pytest.mark.parametrize("how", ["basic", "token", "anonymous"])
def test_each_verb_is_allowed_by_its_setting_alone(
    tmp_path: pathlib.Path, verb: str, name: str, how: str
) -> None:
    allow, expected = SETTINGS[name]
    rules = [rule(allow, "ann", anonymous=how == "anonymous")] if allow else []
    method, target = REQUESTS[verb]
    with Door(tmp_path, {"rules": rules}) as door:
        headers = {}
        if how == "basic":
            headers = basic("ann")
        elif how == "token":
            headers = bearer(door.token("ann", "repository:team/app:pull,push,delete"))
        status = door.ask(method, target, b"" if method == "POST" else None, headers).status
    if verb in expected:
        assert status in {202, 404}
    else:
        assert status == (401 if how == "anonymous" else 403)


def test_a_token_is_good_for_its_scope_alone(door: Door) -> None:
    token = bearer(door.token("ann", "repository:team/app:pull"))
    assert door.ask("GET", "/v2/team/app/tags/list", headers=token).status == 404
    other = door.ask("GET", "/v2/team/other/tags/list", headers=token)
    assert other.status == 401
    assert 'scope="repository:team/other:pull"' in (other.header("www-authenticate") or "")
    assert door.ask("POST", "/v2/team/app/blobs/uploads/", b"", token).status == 401


def test_a_token_ends(door: Door) -> None:
    token = bearer(door.token("ann", "repository:team/app:pull"))
    door.clock.now += 309
    assert door.ask("GET", "/v2/team/app/tags/list", headers=token).status == 404
    door.clock.now += 3
    assert door.ask("GET", "/v2/team/app/tags/list", headers=token).status == 401


def test_a_right_that_is_taken_away_ends_before_the_token(door: Door) -> None:
    token = bearer(door.token("ann", "repository:team/app:pull,push"))
    assert door.ask("POST", "/v2/team/app/blobs/uploads/", b"", token).status == 202
    from argosy.server.auth.policy import Policy

    door.policy = Policy.decode({"rules": [rule(["pull"], "ann")]})
    assert door.ask("POST", "/v2/team/app/blobs/uploads/", b"", token).status == 403


def test_a_user_who_is_no_more_takes_the_token_along(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, EVERYTHING, users=["ann", "bob"]) as door:
        token = bearer(door.token("ann", "repository:a:pull"))
        htpasswd(tmp_path, "bob")
        assert door.ask("GET", "/v2/a/tags/list", headers=token).status == 401


def test_a_token_is_granted_no_more_than_the_policy_says(door: Door) -> None:
    claims = door.signer.verify(
        door.token("bob", "repository:a:pull,push,delete,*", "registry:catalog:*")
    )
    assert claims.grants == {"a": frozenset({"pull"}), "registry:catalog": frozenset({"*"})}
    assert door.signer.verify(door.token(None, "repository:a:pull")).grants == {}


def test_the_endpoint_takes_a_form_too(door: Door) -> None:
    form = f"grant_type=password&service=argosy&scope=repository%3Aa%3Apull&username=bob&password={PASSWORD}"
    answer = door.ask(
        "POST", "/token", form.encode(), {"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status == 200
    assert answer.header("cache-control") == "no-store"
    body = answer.json()
    assert body["token"] == body["access_token"]
    assert body["expires_in"] == 300
    assert door.signer.verify(body["token"]).user == "bob"
    refresh = door.ask("POST", "/token", b"grant_type=refresh_token&refresh_token=x")
    assert refresh.status == 400
    wrong = door.ask("POST", "/token", b"grant_type=password&username=bob&password=x")
    assert wrong.status == 401


def test_the_public_key_is_published_and_the_private_one_is_not(door: Door) -> None:
    (key,) = door.ask("GET", "/.well-known/jwks.json").json()["keys"]
    assert set(key) == {"crv", "kty", "x", "kid", "use", "alg"}
    assert (key["kty"], key["alg"]) == ("OKP", "EdDSA")


def test_the_catalog_is_for_those_who_may_read_something_and_shows_no_more(
    tmp_path: pathlib.Path,
) -> None:
    rules = [rule(["admin"], "admin"), rule(["pull"], "bob", repositories=["open/*"])]
    with Door(tmp_path, {"rules": rules}) as door:
        for name in ("open/a", "closed/b"):
            As(door, "admin").push_image(name, "v1")
        assert door.ask("GET", "/v2/_catalog").status == 401
        listed = door.ask("GET", "/v2/_catalog", headers=basic("bob"))
        assert listed.json() == {"repositories": ["open/a"]}
        ruled_out = door.ask("GET", "/v2/_catalog", headers=basic("ann"))
        assert (ruled_out.status, ruled_out.json()) == (200, {"repositories": []})
        by_token = bearer(door.token("bob", "registry:catalog:*"))
        assert door.ask("GET", "/v2/_catalog", headers=by_token).json() == listed.json()
        narrow = bearer(door.token("bob", "repository:open/a:pull"))
        assert door.ask("GET", "/v2/_catalog", headers=narrow).status == 401


def test_the_catalog_is_open_where_a_rule_is_about_everybody(tmp_path: pathlib.Path) -> None:
    rules = [
        rule(["admin"], "admin"),
        rule(["pull"], repositories=["open/*"], anonymous=True),
    ]
    with Door(tmp_path, {"rules": rules}) as door:
        for name in ("open/a", "closed/b"):
            As(door, "admin").push_image(name, "v1")
        for headers in ({}, bearer(door.token(None, "registry:catalog:*"))):
            listed = door.ask("GET", "/v2/_catalog", headers=headers)
            assert listed.json() == {"repositories": ["open/a"]}


@pytest.mark.parametrize(
    ("user", "anonymous", "granted"),
    [(None, set(), False), (None, {"pull"}, True), ("bob", set(), True)],
)
def test_a_token_for_the_catalog_is_for_those_who_may_see_it(
    tmp_path: pathlib.Path, user: str | None, anonymous: set[str], granted: bool
) -> None:
    rules = {"rules": [rule(["pull"], "ann")]}
    with Door(tmp_path, rules, anonymous=frozenset(anonymous)) as door:
        claims = door.signer.verify(door.token(user, "registry:catalog:*"))
    assert claims.grants == ({"registry:catalog": frozenset({"*"})} if granted else {})


def test_who_is_an_admin_is_none_with_a_token_for_less(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, {"rules": [rule(["admin"], "admin"), rule(["pull"], "ann")]}) as door:
        gate = door.gate
        gate.authorize(Principal(name="admin"), "admin", None)
        cut_down = Principal(name="admin", grants={"a": frozenset({"*"})})
        for who in (cut_down, Principal(name="ann"), Principal()):
            assert not gate.is_admin(who)
            with pytest.raises(AccessError):
                gate.authorize(who, "admin", None)


@pytest.mark.parametrize("repository", [None, "a"])
def test_what_the_table_of_rights_does_not_name_is_refused_to_all(
    tmp_path: pathlib.Path, repository: str | None
) -> None:
    with Door(tmp_path, {"rules": [rule(["admin"], "admin")]}) as door:
        unknown: Any = "format"
        with pytest.raises(DeniedError):
            door.gate.authorize(Principal(name="admin"), unknown, repository)


# -- tags ------------------------------------------------------------------------------------------


def test_who_may_create_may_not_move(tmp_path: pathlib.Path) -> None:
    with Door(
        tmp_path, {"rules": [rule(["pull", "create"], "ann"), rule(["pull", "update"], "bob")]}
    ) as door:
        ann, bob = As(door, "ann"), As(door, "bob")
        ann.push_image("a", "v1")
        ann.push_blob("a", b"{}")
        other = image(annotations={"n": "2"})
        assert ann.put_manifest("a", other, "v1").status == 403
        assert ann.put_manifest("a", other, "v2").status == 201
        assert bob.put_manifest("a", image(annotations={"n": "3"}), "v1").status == 201
        assert bob.put_manifest("a", other, "v3").status == 403


def test_who_may_all_but_update_moves_no_tag(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, {"rules": [rule(["pull", "create", "delete"], "ann")]}) as door:
        ann = As(door, "ann")
        ann.push_image("a", "v1")
        assert ann.put_manifest("a", image(annotations={"n": "2"}), "v1").status == 403
        assert ann.ask("DELETE", "/v2/a/manifests/v1").status == 202


def test_a_tag_that_stays_where_it_is_is_no_move(tmp_path: pathlib.Path) -> None:
    document = {
        "rules": [rule(["pull", "create"], "ann")],
        "immutable": [{"repositories": ["**"], "tags": ["v*"]}],
    }
    with Door(tmp_path, document) as door:
        for _ in range(2):
            As(door, "ann").push_image("a", "v1")


def test_immutable_tags_neither_move_nor_go(tmp_path: pathlib.Path) -> None:
    document = {
        "rules": [rule(["admin"], "admin")],
        "immutable": [{"repositories": ["*"], "tags": ["v*"], "exclude": ["v-test"]}],
    }
    with Door(tmp_path, document) as door:
        admin = As(door, "admin")
        digest = admin.push_image("a", "v1")
        admin.push_image("a", "latest")
        admin.push_image("a", "v-test")
        other = image(annotations={"n": "2"})
        assert admin.put_manifest("a", other, "v1").status == 403
        assert admin.put_manifest("a", other, "v-test").status == 201
        assert admin.ask("DELETE", "/v2/a/manifests/v1").status == 403
        assert admin.ask("DELETE", f"/v2/a/manifests/{digest}").status == 403
        assert admin.ask("DELETE", "/v2/a/manifests/latest").status == 202
        assert admin.ask("GET", "/v2/a/manifests/v1").status == 200
        admin.push_image("other/a", "v1")
        assert admin.put_manifest("other/a", other, "v1").status == 201


# -- the settings ----------------------------------------------------------------------------------


def test_loopback_without_rules_is_open_and_anything_else_is_closed(tmp_path: pathlib.Path) -> None:
    anywhere = Listen(host="0.0.0.0")
    assert access_of(Settings(), tmp_path) is Loopback
    assert access_of(Settings(listen=anywhere), tmp_path) is Metered
    users = htpasswd(tmp_path, "ann")
    assert access_of(Settings(access=AccessSettings(htpasswd=users)), tmp_path) is Metered
    everybody = AccessSettings(anonymous="all")
    assert access_of(Settings(listen=anywhere, access=everybody), tmp_path) is Anonymous
    both = AccessSettings(anonymous="all", htpasswd=users)
    assert access_of(Settings(access=both), tmp_path) is Metered


def access_of(settings: Settings, data: pathlib.Path) -> type[object]:
    app = build(dataclasses.replace(settings, data=str(data)))
    app.registry.metadata.close()
    return type(app.registry.access)


@pytest.mark.parametrize(
    ("anonymous", "expected"),
    [
        ("none", set()),
        ("pull", {"pull"}),
        ("push", {"pull", "push"}),
        ("all", {"pull", "push", "delete"}),
    ],
)
def test_anonymous_may_what_is_configured(
    tmp_path: pathlib.Path, anonymous: str, expected: set[str]
) -> None:
    access = AccessSettings(htpasswd=htpasswd(tmp_path, "ann"), anonymous=anonymous)  # type: ignore[arg-type]
    gate = open_gate(Settings(access=access), str(tmp_path))
    with Server(str(tmp_path), access=gate) as server:
        for verb, (method, target) in REQUESTS.items():
            status = server.ask(method, target, b"" if method == "POST" else None).status
            assert (status != 401) == (verb in expected), verb


def test_the_signing_key_is_made_once_and_for_its_owner_alone(tmp_path: pathlib.Path) -> None:
    settings = Settings(access=AccessSettings(htpasswd=htpasswd(tmp_path, "ann")))
    first, second = (open_gate(settings, str(tmp_path / "data")) for _ in range(2))
    assert isinstance(first, Gate)
    assert isinstance(second, Gate)
    assert first.signer is not None
    assert second.signer is not None
    assert first.signer.jwks() == second.signer.jwks()
    path = tmp_path / "data" / "token.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(InvalidConfigError, match="mode 0640, expected 0600"):
        open_gate(settings, str(tmp_path / "data"))


def test_replicas_must_be_given_one_key(tmp_path: pathlib.Path) -> None:
    shared = MetadataStore(type="postgresql", postgresql=Postgresql(dsn="host=/nowhere"))
    access = AccessSettings(htpasswd=htpasswd(tmp_path, "ann"))
    with pytest.raises(InvalidConfigError, match=r"access\.tokens\.key"):
        open_gate(Settings(access=access, metadata=shared), str(tmp_path))
    without = dataclasses.replace(access, tokens=Tokens(enabled=False))
    assert isinstance(open_gate(Settings(access=without, metadata=shared), str(tmp_path)), Gate)


def test_a_key_that_is_no_key_is_refused(tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("hello")
    key.chmod(0o600)
    access = AccessSettings(htpasswd=htpasswd(tmp_path, "ann"), tokens=Tokens(key=str(key)))
    with pytest.raises(InvalidConfigError, match="not a private key"):
        open_gate(Settings(access=access), str(tmp_path))


def test_every_route_of_a_configured_registry_names_what_it_needs(tmp_path: pathlib.Path) -> None:
    access = AccessSettings(htpasswd=htpasswd(tmp_path, "ann"))
    app = build(Settings(data=str(tmp_path / "d"), access=access))
    try:
        open_ = {route.pattern for route in app.routes if route.verb == "open"}
        assert open_ == {"/livez", "/readyz", "/token", "/.well-known/jwks.json", "/metrics"}
        named = {route.verb for route in app.routes} - {"open"}
        assert named <= {"ping", "catalog", "pull", "push", "delete", "admin"}
    finally:
        app.registry.metadata.close()


def test_without_a_policy_users_may_everything_but_be_admins(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path) as door:
        digest = As(door, "ann").push_image("a", "v1")
        assert As(door, "bob").ask("DELETE", f"/v2/a/manifests/{digest}").status == 202
        assert (
            json.loads(door.ask("GET", "/v2/_catalog").body)["errors"][0]["code"] == "UNAUTHORIZED"
        )


def test_a_token_takes_nothing_from_what_everybody_may(tmp_path: pathlib.Path) -> None:
    rules = [
        rule(["pull", "push"], "ann"),
        rule(["pull"], repositories=["public/*"], anonymous=True),
    ]
    with Door(tmp_path, {"rules": rules}) as door:
        layer = As(door, "ann").push_blob("public/base", b"layer")
        hidden = As(door, "ann").push_blob("private/base", b"hidden")
        token = bearer(door.token("ann", "repository:app:pull,push"))
        for source in ("&from=public/base", ""):
            mounted = door.ask("POST", f"/v2/app/blobs/uploads/?mount={layer}{source}", b"", token)
            assert mounted.status == 201
        for source in ("&from=private/base", ""):
            kept = door.ask("POST", f"/v2/app/blobs/uploads/?mount={hidden}{source}", b"", token)
            assert kept.status == 202, "a token for one repository reached into another"
        both = bearer(door.token("ann", "repository:app:pull,push", "repository:private/base:pull"))
        target = f"/v2/app/blobs/uploads/?mount={hidden}&from=private/base"
        assert door.ask("POST", target, b"", both).status == 201
