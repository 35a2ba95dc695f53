"""Attacks on tokens: keys of the attacker's own, confusion of algorithms, of audiences, of kinds."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import pathlib
import queue
import threading
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from argosy.errors import InvalidConfigError, UnauthorizedError
from argosy.server.auth.issuers import Issuers
from argosy.server.auth.tokens import TokenSigner
from argosy.server.settings import Issuer
from tests.server.doors import Door, bearer, rule

NOW = 1_800_000_000
ALL = [{"type": "repository", "name": "a", "actions": ["pull", "push", "delete"]}]
GOOD: dict[str, Any] = {
    "iss": "argosy", "aud": "argosy", "sub": "ann", "exp": NOW + 60, "nbf": NOW - 5, "access": ALL,
}  # fmt: skip


@pytest.fixture
def door(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    with Door(tmp_path, {"rules": [rule(["pull", "push", "delete"], "ann")]}) as made:
        yield made


def ask(door: Door, token: str) -> int:
    status: int = door.ask("GET", "/v2/a/tags/list", headers=bearer(token)).status
    return status


def forge(door: Door, *, key: Any = None, headers: Any = None, **claims: Any) -> str:
    """A token like the registry's own, but for what is given."""
    kid = door.signer.jwks()["keys"][0]["kid"]  # type: ignore[index]
    made = {k: v for k, v in (GOOD | claims).items() if v is not None}
    return jwt.encode(
        made, key or door.key, "EdDSA", headers={"typ": "at+jwt", "kid": kid} | (headers or {})
    )


def test_the_forger_can_make_a_good_token_with_the_real_key(door: Door) -> None:
    assert ask(door, forge(door)) == 404


def test_cve_2025_24976_a_key_embedded_in_the_token_is_not_believed(door: Door) -> None:
    mine = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    kid = door.signer.jwks()["keys"][0]["kid"]  # type: ignore[index]
    for headers in (
        {"jwk": jwk | {"kid": kid}},
        {"jku": "http://127.0.0.1:1/jwks"},
        {"x5c": ["AA=="]},
    ):
        assert ask(door, forge(door, key=mine, headers=headers)) == 401


def test_a_token_without_a_signature_is_not_believed(door: Door) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for algorithm in ("none", "None", "NONE", ""):
        assert ask(door, f"{part({'alg': algorithm, 'typ': 'at+jwt'})}.{part(GOOD)}.") == 401
    unsigned = forge(door).rpartition(".")[0] + "."
    assert ask(door, unsigned) == 401


def test_the_public_key_is_no_shared_secret(door: Door) -> None:
    """CVE-2017-11424, CVE-2022-29217."""
    public = door.key.public_key()
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    token = jwt.encode(GOOD, base64.b64encode(raw), "HS256", headers={"typ": "at+jwt"})
    assert ask(door, token) == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "somebody"}, {"iss": None}, {"aud": "other"}, {"aud": None}, {"aud": []},
        {"exp": NOW - 11}, {"exp": None}, {"exp": "never"}, {"exp": True}, {"nbf": NOW + 60}, {"nbf": True}, {"sub": None},
    ],
    ids=str,
)  # fmt: skip
def test_each_claim_is_checked(door: Door, claims: dict[str, Any]) -> None:
    assert ask(door, forge(door, **claims)) == 401


@pytest.mark.parametrize("headers", [{"typ": "JWT"}, {"typ": "id+jwt"}, {"typ": "refresh"}])
def test_a_token_of_another_kind_is_not_believed(door: Door, headers: dict[str, str]) -> None:
    assert ask(door, forge(door, headers=headers)) == 401


def test_a_token_that_demands_an_unknown_extension_is_not_believed(door: Door) -> None:
    """CVE-2026-32597: PyJWT before 2.12 did."""
    assert ask(door, forge(door, headers={"crit": ["exp2"], "exp2": 1})) == 401


def test_a_token_does_not_buy_another_one(door: Door) -> None:
    token = door.token("ann", "repository:a:pull")
    answer = door.ask("GET", "/token?scope=repository:a:pull,push", headers=bearer(token))
    assert answer.status == 401
    assert (answer.header("www-authenticate") or "").startswith("Basic")


def test_an_enormous_token_is_not_even_read(door: Door) -> None:
    assert ask(door, "a." + "b" * 17_000 + ".c") == 401


def test_many_scopes_are_refused(door: Door) -> None:
    scopes = "&".join(f"scope=repository:a{n}:pull" for n in range(101))
    assert door.ask("GET", f"/token?{scopes}").status == 400


def test_a_scope_of_another_kind_grants_nothing_of_a_repository(door: Door) -> None:
    token = door.token("ann", "plugin:a:pull", "registry:a:pull")
    assert door.signer.verify(token).grants == {}
    claim = [{"type": "plugin", "name": "a", "actions": ["pull"]}]
    assert ask(door, forge(door, access=claim)) == 401


# -- others' tokens --------------------------------------------------------------------------------


def issuer(directory: pathlib.Path, keys: dict[str, Any], **more: Any) -> Issuer:
    path = directory / "jwks.json"
    listed = [jwk | {"kid": kid, "use": "sig"} for kid, jwk in keys.items()]
    path.write_text(json.dumps({"keys": listed}))
    settings = {"issuer": "https://ci.example", "audience": "registry", "jwks": str(path)} | more
    return Issuer(**settings)


def theirs(key: Any, algorithm: str = "EdDSA", kid: str | None = "one", **claims: Any) -> str:
    made = {"iss": "https://ci.example", "aud": "registry", "sub": "job", "exp": NOW + 60} | claims
    return jwt.encode(made, key, algorithm, headers={"kid": kid} if kid else {})


def test_an_issuers_token_is_believed_and_says_who(tmp_path: pathlib.Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    known = Issuers([issuer(tmp_path, {"one": jwk}, prefix="ci:")], lambda: NOW)
    claims = known.verify(theirs(key, groups=["builders", 7]))
    assert (claims.user, claims.groups, claims.grants) == (
        "ci:job",
        frozenset({"ci:builders"}),
        None,
    )
    assert known.verify(theirs(key, kid=None)).user == "ci:job"


def test_an_issuer_that_hangs_keeps_nobody_waiting_whose_key_is_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "one", "use": "sig"}
    now, over = [float(NOW)], threading.Event()
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    class Hanging(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.put(None)
            status = 200 if now[0] == NOW else 503
            if status != 200:
                over.wait(20)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": [jwk]}).encode())

        def log_message(self, *_: object) -> None:
            return

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hanging) as server,
        contextlib.ExitStack() as stack,
    ):
        threading.Thread(target=server.serve_forever).start()
        stack.callback(server.shutdown)
        stack.callback(over.set)
        url = f"http://127.0.0.1:{server.server_port}/hush"
        one = Issuer(issuer="https://ci.example", audience="registry", jwks=url)
        known = Issuers([one], lambda: now[0])
        assert known.verify(theirs(key)).user == "job"
        asked.get()
        now[0] += 20
        stranger = threading.Thread(target=refused, args=(known, theirs(key, kid="unknown")))
        stranger.start()
        asked.get()
        assert known.verify(theirs(key)).user == "job", "it waits for the stranger's"
        assert stranger.is_alive()
        over.set()
        stranger.join()
    assert "keys of issuer https://ci.example: status 503" in caplog.text
    assert "hush" not in caplog.text


def refused(known: Issuers, token: str) -> None:
    with pytest.raises(UnauthorizedError):
        known.verify(token)


@pytest.mark.parametrize(
    "claims", [{"aud": "other"}, {"iss": "https://evil.example"}, {"exp": NOW - 60}, {"sub": ""}]
)
def test_an_issuers_token_for_somebody_else_is_not_believed(
    tmp_path: pathlib.Path, claims: dict[str, Any]
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    known = Issuers([issuer(tmp_path, {"one": jwk})], lambda: NOW)
    with pytest.raises(UnauthorizedError):
        known.verify(theirs(key, **claims))


def test_an_algorithm_the_issuer_does_not_use_is_not_believed(tmp_path: pathlib.Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    only = issuer(tmp_path, {"one": jwk}, algorithms=("EdDSA", "RS256"))
    assert Issuers([only], lambda: NOW).verify(theirs(key, "RS256")).user == "job"
    for algorithm in ("PS256", "RS384"):
        with pytest.raises(UnauthorizedError, match="algorithm"):
            Issuers([only], lambda: NOW).verify(theirs(key, algorithm))


def test_a_key_is_used_for_its_own_kind_alone(tmp_path: pathlib.Path) -> None:
    mine = ec.generate_private_key(ec.SECP256R1())
    jwk = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True)
    known = Issuers([issuer(tmp_path, {"one": jwk}, algorithms=("EdDSA", "ES256"))], lambda: NOW)
    with pytest.raises(UnauthorizedError, match="key"):
        known.verify(theirs(mine, "ES256"))
    with pytest.raises(UnauthorizedError, match="key"):
        known.verify(theirs(mine, "ES256", kid="two"))


@pytest.mark.parametrize("keys", [["x"], [None], {}, [{"kty": "EC"}] * 101])
def test_a_key_set_that_is_none_is_refused_in_one_line(tmp_path: pathlib.Path, keys: Any) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": keys}))
    one = Issuer(issuer="https://ci.example", audience="registry", jwks=str(path))
    with pytest.raises(InvalidConfigError, match="not a key set"):
        Issuers([one])


def test_a_key_set_with_a_shared_secret_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidConfigError, match="symmetric"):
        Issuers([issuer(tmp_path, {"one": {"kty": "oct", "k": "AAAA"}})])


def test_a_key_for_no_signature_at_all_is_left_out(tmp_path: pathlib.Path) -> None:
    mine = rsa.generate_private_key(65537, 2048)
    keys = {"one": RSAAlgorithm.to_jwk(mine.public_key(), as_dict=True) | {"alg": "none"}}
    keys["two"] = {k: v for k, v in keys["one"].items() if k != "alg"}
    known = Issuers([issuer(tmp_path, keys, algorithms=("RS256",))], lambda: NOW)
    with pytest.raises(UnauthorizedError, match="key"):
        known.verify(theirs(mine, "RS256"))
    assert known.verify(theirs(mine, "RS256", kid="two")).user == "job"


def test_cve_2025_23208_groups_are_those_of_this_token_alone(tmp_path: pathlib.Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    rules = {"rules": [{"repositories": ["**"], "groups": ["devs"], "allow": ["pull"]}]}
    with Door(tmp_path, rules, issuers=[issuer(tmp_path, {"one": jwk})]) as door:
        assert ask(door, theirs(key, groups=["devs"])) == 404
        assert ask(door, theirs(key, groups=[])) == 403
        assert ask(door, theirs(key)) == 403


def test_an_issuers_token_without_a_policy_grants_only_its_access_claim(
    tmp_path: pathlib.Path,
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    with Door(tmp_path, issuers=[issuer(tmp_path, {"one": jwk})]) as door:
        assert ask(door, theirs(key)) == 401
        assert ask(door, theirs(key, access=ALL)) == 404
        bought = door.ask(
            "GET",
            "/token?scope=registry:catalog:*&scope=repository:a:pull&scope=repository:b:pull",
            headers=bearer(theirs(key, access=ALL)),
        )
        grants = door.signer.verify(bought.json()["token"]).grants
        assert grants == {"a": frozenset({"pull"})}, "a token bought more than it was made for"
        broken = [{"type": "repository", "name": "../a", "actions": ["*"]}, "x", {"actions": None}]
        assert ask(door, theirs(key, access=broken)) == 401


def test_an_identity_token_is_a_password_at_the_token_endpoint_and_buys_its_own_rights(
    tmp_path: pathlib.Path,
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    rules = {"rules": [{"repositories": ["a"], "groups": ["devs"], "allow": ["pull"]}]}
    with Door(tmp_path, rules, issuers=[issuer(tmp_path, {"one": jwk})]) as door:
        token = theirs(key, groups=["devs"])
        basic = base64.b64encode(f"x:{token}".encode()).decode()
        for credentials in (f"Basic {basic}", f"Bearer {token}"):
            answer = door.ask(
                "GET",
                "/token?scope=repository:a:pull,push",
                headers={"authorization": credentials},
            )
            claims = door.signer.verify(answer.json()["token"])
            assert (claims.user, claims.grants) == ("job", {"a": frozenset({"pull"})})
            assert ask(door, answer.json()["token"]) == 404


def test_a_registry_that_knows_issuers_alone_asks_who_it_is(tmp_path: pathlib.Path) -> None:
    pulling = frozenset({"pull"})
    with Door(tmp_path, users=(), issuers=[issuer(tmp_path, {})], anonymous=pulling) as door:
        assert door.ask("GET", "/v2/").status == 401
        assert door.ask("GET", "/v2/a/tags/list").status == 404


def test_the_guards_hold_and_not_the_library_alone(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check of the type, a token of another kind would be let in: the test above sees the guard."""
    from argosy.server.auth import tokens

    monkeypatch.setattr(tokens, "_TYPE", "id+jwt")
    assert ask(door, forge(door, headers={"typ": "id+jwt"})) == 404


def test_a_signer_takes_only_its_own_algorithm() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = TokenSigner(key, issuer="argosy", service="argosy", clock=lambda: NOW)
    token, _ = signer.issue("ann", frozenset(), {})
    assert signer.verify(token).user == "ann"
    assert jwt.get_unverified_header(token)["alg"] == "ES256"
    other = jwt.encode(
        GOOD, ed25519.Ed25519PrivateKey.generate(), "EdDSA", headers={"typ": "at+jwt"}
    )
    with pytest.raises(UnauthorizedError):
        signer.verify(other)
