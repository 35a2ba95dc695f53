"""Who is meant by a rule, a password file, a scope and a key, each asked by itself."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
from typing import Any

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import OKPAlgorithm

from argosy.errors import InvalidConfigError, UnauthorizedError, UsageError
from argosy.server import outbound
from argosy.server.auth.htpasswd import parse
from argosy.server.auth.issuers import Issuers
from argosy.server.auth.policy import Policy
from argosy.server.auth.scope import CATALOG, covers, decode_access, parse_scopes
from argosy.server.auth.tokens import TokenSigner, load_key
from argosy.server.config import rights_of_everybody
from argosy.server.settings import AccessSettings, Issuer, Listen, Settings
from tests.attack.test_server_auth_tokens import NOW, issuer, theirs
from tests.server.doors import Door, basic, bearer, htpasswd, rule

NONE = frozenset[str]()
ISSUER = Issuer(issuer="https://ci.example", audience="registry", jwks="https://keys.example/jwks")


@pytest.mark.parametrize("more", [{"htpasswd": "f"}, {"policy": "f"}, {"issuers": (ISSUER,)}])
def test_where_people_are_told_apart_strangers_may_nothing_on_loopback_either(
    more: dict[str, Any],
) -> None:
    assert rights_of_everybody(Settings()) == "all"
    assert rights_of_everybody(Settings(listen=Listen(host="0.0.0.0"))) == "none"
    assert rights_of_everybody(Settings(access=AccessSettings(**more))) == "none"


# -- credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status"), [(":", 404), ("ann:", 401), (":x", 401), ("", 401), ("ann", 401)]
)
def test_nobody_is_neither_a_user_nor_a_password(
    tmp_path: pathlib.Path, text: str, status: int
) -> None:
    """What skopeo and podman send for nobody is for what everybody may; half of it is a mistake."""
    header = {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}
    with Door(tmp_path, anonymous=frozenset({"pull"})) as door:
        assert door.ask("GET", "/v2/a/tags/list", headers=header).status == status


def test_what_everybody_may_needs_no_asking_where_nobody_is_known(tmp_path: pathlib.Path) -> None:
    for users, status in ((("ann",), 401), ((), 200)):
        with Door(tmp_path, users=users, anonymous=frozenset({"pull"})) as door:
            assert door.ask("GET", "/v2/").status == status
            assert door.ask("GET", "/v2/_catalog").status == 200


def test_a_password_that_was_right_is_not_worked_out_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Door(tmp_path) as door:
        assert door.ask("GET", "/v2/", headers=basic("ann")).status == 200
        monkeypatch.delattr(bcrypt, "checkpw")
        assert door.ask("GET", "/v2/", headers=basic("ann")).status == 200


def test_a_bearer_where_no_tokens_are_given_out_is_nobodys(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, tokens=False) as door:
        assert door.ask("GET", "/v2/", headers=bearer("a.b.c")).status == 401


def test_a_token_outlives_the_password_file(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, {"rules": [rule(["pull"], "ann")]}, users=()) as door:
        token, _ = door.signer.issue("ann", NONE, {"a": frozenset({"pull"})})
        assert door.ask("GET", "/v2/a/tags/list", headers=bearer(token)).status == 404


def test_users_of_a_file_and_of_an_issuer_are_told_apart(tmp_path: pathlib.Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    rules = {"rules": [rule(["pull"], "job", "ann")]}
    issuers = [issuer(tmp_path, {"one": jwk_of(key)})]
    with Door(tmp_path, rules, issuers=issuers) as door:
        bought = door.ask(
            "GET", "/token?scope=repository:a:pull", headers=bearer(theirs(key))
        ).json()["token"]
        assert door.ask("GET", "/v2/a/tags/list", headers=bearer(bought)).status == 404
        htpasswd(tmp_path, "ann", password="a.b.c")
        assert door.ask("GET", "/v2/", headers=basic("ann", "a.b.c")).status == 200
        strange = jwt.PyJWS().encode(b'{"iss": ["https://ci.example"]}', "k" * 32, "HS256")
        for headers in (bearer(strange), basic("ann", strange)):
            assert door.ask("GET", "/v2/", headers=headers).status == 401


# -- rules -----------------------------------------------------------------------------------------


def test_a_rule_is_about_those_it_names() -> None:
    document = {
        "groups": {"devs": ["ann"]},
        "rules": [
            {"repositories": ["mine"], "groups": ["devs"], "allow": ["delete"]},
            rule(["push"], "*", repositories=["everybodys"]),
            rule(["pull"], repositories=["open"], anonymous=True),
        ],
    }
    policy = Policy.decode(document)
    for user, groups, expected in (
        ("ann", NONE, {"mine", "everybodys", "open"}),
        ("bob", frozenset({"devs"}), {"mine", "everybodys", "open"}),
        ("bob", NONE, {"everybodys", "open"}),
        ("", NONE, {"open"}),
        ("", frozenset({"devs"}), {"open"}),
    ):
        found = {n for n in ("mine", "everybodys", "open") if policy.rights(user, groups, n)}
        assert found == expected, user


def test_an_admin_is_one_of_everything_and_has_a_name() -> None:
    rules = [
        rule(["admin"], "some", repositories=["team/**"]),
        rule(["admin"], "all"),
        rule(["admin"], anonymous=True),
    ]
    assert [Policy.decode({"rules": rules[:2]}).is_admin(u, NONE) for u in ("some", "all")] == [
        False,
        True,
    ]
    assert not Policy.decode({"rules": rules}).is_admin("", NONE)


# -- passwords -------------------------------------------------------------------------------------

HASH = "$2b$04$" + "." * 22 + "u" * 31


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f":{HASH}", ":1: expected user:hash"),
        (f"ann:{HASH}\nann:{HASH}", ":2: user 'ann' is there twice"),
        (f"ann:{HASH}u", "expected a bcrypt hash"),
        (f"ann:{HASH[:-1]}", "expected a bcrypt hash"),
        (f"ann:{HASH.replace('2b', '2x')}", "expected a bcrypt hash"),
        (f"ann:{HASH.replace('04', '03')}", "expected a bcrypt hash"),
        (f"ann:{HASH.replace('04', '32')}", "expected a bcrypt hash"),
        (f"ann:{HASH.replace('04', 'x4')}", "expected a bcrypt hash"),
    ],
)
def test_a_line_that_is_no_user_of_bcrypt_is_refused(
    tmp_path: pathlib.Path, text: str, message: str
) -> None:
    (tmp_path / "users").write_text(text)
    with pytest.raises(InvalidConfigError, match=message):
        parse(str(tmp_path / "users"))


def test_empty_lines_and_comments_are_no_users(tmp_path: pathlib.Path) -> None:
    (tmp_path / "users").write_text(f"\n# nobody:x\n  \nann:{HASH}\n")
    assert parse(str(tmp_path / "users")) == {"ann": HASH.encode()}


# -- scopes ----------------------------------------------------------------------------------------


def test_a_repository_called_catalog_is_not_the_catalog() -> None:
    assert parse_scopes(["repository:catalog:pull"]) == {"catalog": frozenset({"pull"})}
    assert parse_scopes(["registry:catalog:*"]) == {CATALOG: frozenset({"*"})}
    assert parse_scopes(["registry:other:*"]) == {}
    assert not covers({CATALOG: frozenset({"*"})}, "admin", None)


def test_scopes_have_a_limit_in_all() -> None:
    with pytest.raises(UsageError):
        parse_scopes(["repository:a:" + "pull," * 4000])


def test_actions_that_are_no_list_grant_nothing() -> None:
    claim = [
        {"type": "repository", "name": "a", "actions": "*"},
        {"type": "repository", "name": "b", "actions": ["*", "format", 7]},
        "repository",
    ]
    assert decode_access(claim) == {"b": frozenset({"*"})}
    assert decode_access("*") == {}


def test_every_action_is_in_a_star() -> None:
    grants = {"a": frozenset({"*"})}
    assert covers(grants, "delete", "a")
    assert not covers(grants, "pull", "b")


# -- keys ------------------------------------------------------------------------------------------


def jwk_of(key: ed25519.Ed25519PrivateKey) -> dict[str, Any]:
    return OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)


def test_a_key_for_something_else_signs_nothing(tmp_path: pathlib.Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    listed = [
        jwk_of(key) | {"kid": "one", "use": "enc"},
        {"kty": "AKP", "kid": "two"},
    ]
    (tmp_path / "keys").write_text(json.dumps({"keys": listed}))
    known = Issuers(
        [Issuer(issuer="https://ci.example", audience="registry", jwks=str(tmp_path / "keys"))],
        lambda: NOW,
    )
    with pytest.raises(UnauthorizedError, match="key that is not known"):
        known.verify(theirs(key))


def test_without_a_keys_name_there_must_be_one_alone(tmp_path: pathlib.Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    other = jwk_of(ed25519.Ed25519PrivateKey.generate())
    known = Issuers([issuer(tmp_path, {"one": jwk_of(key), "two": other})], lambda: NOW)
    assert known.verify(theirs(key, kid="one")).user == "job"
    with pytest.raises(UnauthorizedError, match="key that is not known"):
        known.verify(theirs(key, kid=None))


@pytest.mark.parametrize("name", [7, ["ann"], "", "a\nb", None])
def test_a_name_that_is_none_is_nobodys(tmp_path: pathlib.Path, name: object) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    known = Issuers([issuer(tmp_path, {"one": jwk_of(key)}, user_claim="login")], lambda: NOW)
    assert known.verify(theirs(key, login="ann")).user == "ann"
    with pytest.raises(UnauthorizedError, match="names no user"):
        known.verify(theirs(key, login=name))


def test_keys_come_by_https_and_each_issuer_once() -> None:
    with pytest.raises(InvalidConfigError, match="expected https"):
        Issuers([Issuer(issuer="https://a", audience="r", jwks="http://keys.example/jwks")])
    assert Issuers([Issuer(issuer="https://a", audience="r", jwks="http://127.0.0.1:1/jwks")])
    with pytest.raises(InvalidConfigError, match="one issuer is there twice"):
        Issuers([ISSUER, ISSUER])


def test_keys_are_asked_for_when_they_are_old_or_one_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    now, asked = [float(NOW)], [0]

    def answer(*_: object, **__: object) -> outbound.Answer:
        asked[0] += 1
        return outbound.Answer(
            200, {}, json.dumps({"keys": [jwk_of(key) | {"kid": "one"}]}).encode()
        )

    monkeypatch.setattr(outbound, "request", answer)
    known = Issuers([ISSUER], lambda: now[0])

    def comes(kid: str | None, after: float) -> int:
        now[0] += after
        with contextlib.suppress(UnauthorizedError):
            known.verify(theirs(key, kid=kid, exp=now[0] + 60))
        return asked[0]

    assert comes("one", 0) == 1
    assert comes("one", 20) == 1
    assert comes(None, 20) == 1
    assert comes("two", 20) == 2
    assert comes("two", 9) == 2, "who makes names up has the issuer asked for each"
    assert comes("two", 1) == 3
    assert comes("one", ISSUER.refresh_seconds + 1) == 4


def private(key: Any, path: pathlib.Path) -> str:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    return str(path)


def test_tokens_are_signed_with_ed25519_or_p_256_and_are_short(tmp_path: pathlib.Path) -> None:
    for number, good in enumerate(
        (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()))
    ):
        key = load_key(private(good, tmp_path / f"good{number}"))
        signer = TokenSigner(key, issuer="argosy", service="argosy", clock=lambda: NOW)
        assert signer.verify(signer.issue("ann", NONE, {})[0]).user == "ann"
        with pytest.raises(UnauthorizedError, match="over the limit of 16384 characters"):
            signer.verify("a." + "b" * 16_384 + ".c")
    for number, other in enumerate(
        (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048))
    ):
        with pytest.raises(InvalidConfigError, match="expected an Ed25519 or P-256 key"):
            load_key(private(other, tmp_path / f"other{number}"))
