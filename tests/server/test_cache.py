"""The pull-through cache, over an upstream that is a real registry of ours and one that misbehaves: manifests, and
whose names they have."""

from __future__ import annotations

import asyncio
import pathlib
import threading

import pytest

from argosy.errors import (
    ArgosyError,
    DeniedError,
    TooManyRequestsError,
    TransportError,
    UnauthorizedError,
)
from argosy.server import gc
from argosy.server.assemble import build
from argosy.server.auth.policy import Policy
from argosy.server.cache import Cache
from argosy.server.handlers.manifests import parse
from argosy.server.metadata import Transaction, manifests, repositories
from argosy.server.namespaces import Namespaces
from argosy.server.settings import AccessSettings, Collection, Settings, Tokens
from argosy.spec.digest import Digest
from tests.server.mirrors import HUB, Mirror, Upstreams, image


def test_an_image_is_pulled_through_and_then_served_without_the_upstream(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    desc, parsed, raw = image(upstreams)
    answer = mirror.ask("GET", "/v2/hub/app/manifests/v1")
    assert (answer.status, answer.body) == (200, raw)
    assert answer.header("docker-content-digest") == desc.digest
    for child in parsed.children():
        got = mirror.ask("GET", f"/v2/hub/app/blobs/{child.digest}")
        assert got.status == 200
        assert Digest.of(got.body) == child.digest
    mirror.settle()
    upstreams.fails = TransportError("offline")
    before = len(upstreams.asked)
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == raw
    for child in parsed.children():
        assert (
            Digest.of(mirror.ask("GET", f"/v2/hub/app/blobs/{child.digest}").body) == child.digest
        )
    assert len(upstreams.asked) == before


def test_a_tag_is_compared_again_after_a_while_and_follows_the_upstream(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    first, _, _ = image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    second, _, _ = image(upstreams, seed=9)
    assert (
        mirror.ask("HEAD", "/v2/hub/app/manifests/v1").header("docker-content-digest")
        == first.digest
    )
    mirror.turned.now += 61
    assert (
        mirror.ask("HEAD", "/v2/hub/app/manifests/v1").header("docker-content-digest")
        == second.digest
    )
    asked = len(upstreams.asked)
    mirror.turned.now += 61
    mirror.ask("HEAD", "/v2/hub/app/manifests/v1")
    assert upstreams.asked[asked:] == ["resolve v1"], "an unchanged manifest was fetched again"


def test_a_clock_that_was_wrong_makes_no_tag_fresh_and_nothing_missing_for_years(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    image(upstreams)
    targets = ("manifests/v1", "manifests/late", "tags/list")

    def ask_for_all() -> list[str]:
        before = len(upstreams.asked)
        for target in targets:
            mirror.ask("GET", f"/v2/hub/app/{target}")
        return [one for one in upstreams.asked[before:] if not one.startswith("fetch")]

    mirror.turned.now += 1e9
    assert ask_for_all() == ["resolve v1", "resolve late", "tags"]
    assert ask_for_all() == []
    mirror.turned.now -= 1e9
    assert ask_for_all() == ["resolve v1", "resolve late", "tags"]
    assert ask_for_all() == []


def test_a_rate_limit_of_a_clock_that_was_wrong_is_over(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    image(upstreams)
    mirror.turned.now += 1e9
    upstreams.fails = TooManyRequestsError("slow", retry_after=30)
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 429
    mirror.turned.now -= 1e9
    upstreams.fails = None
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 200


def test_a_digest_never_changes_and_is_never_asked_for_again(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    desc, _, _ = image(upstreams)
    for _ in range(3):
        mirror.turned.now += 1000
        assert mirror.ask("GET", f"/v2/hub/app/manifests/{desc.digest}").status == 200
    assert len(upstreams.asked) == 2


@pytest.mark.parametrize(
    "error", [TransportError("offline"), TooManyRequestsError("slow", retry_after=30)]
)
def test_what_is_here_is_served_when_the_upstream_fails(
    mirror: Mirror, upstreams: Upstreams, error: ArgosyError
) -> None:
    _, _, raw = image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    mirror.turned.now += 61
    upstreams.fails = error
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == raw


@pytest.mark.parametrize("path", ["manifests/v1", "tags/list"])
def test_who_asks_for_what_is_here_does_not_wait_for_a_silent_upstream(
    mirror: Mirror, upstreams: Upstreams, path: str
) -> None:
    mirror.cache._patience = 0.05
    image(upstreams)
    old = mirror.ask("GET", f"/v2/hub/app/{path}").body
    mirror.turned.now += 61
    image(upstreams, seed=2)
    image(upstreams, "v2", seed=3)
    upstreams.silence = threading.Event()
    assert mirror.ask("GET", f"/v2/hub/app/{path}").body == old
    upstreams.silence.set()
    mirror.settle()
    assert mirror.ask("GET", f"/v2/hub/app/{path}").body != old


def test_after_one_has_waited_in_vain_nobody_else_waits_until_there_is_an_answer(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    _, _, one = image(upstreams)
    _, _, two = image(upstreams, "v2", seed=2)
    for tag in ("v1", "v2"):
        mirror.ask("GET", f"/v2/hub/app/manifests/{tag}")
    mirror.turned.now += 61
    _, _, new = image(upstreams, "v2", seed=3)
    upstreams.silence = threading.Event()
    mirror.cache._patience = 0.05
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == one
    mirror.cache._patience = 3600.0  # nobody would see the end of the test
    assert mirror.ask("GET", "/v2/hub/app/manifests/v2").body == two
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == one
    upstreams.silence.set()
    mirror.settle()
    assert mirror.ask("GET", "/v2/hub/app/manifests/v2").body == new
    mirror.turned.now += 61
    _, _, newer = image(upstreams, "v1", seed=4)
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == newer


@pytest.mark.parametrize("error", [UnauthorizedError("who"), DeniedError("no")])
@pytest.mark.parametrize("path", ["manifests/v1", "tags/list"])
def test_what_the_upstream_refuses_is_refused_although_it_is_here_and_the_log_says_so(
    mirror: Mirror,
    upstreams: Upstreams,
    error: ArgosyError,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    desc, _, raw = image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    mirror.ask("GET", "/v2/hub/app/tags/list")
    mirror.turned.now += 61
    upstreams.fails = error
    answer = mirror.ask("GET", f"/v2/hub/app/{path}")
    assert (answer.status, answer.code) == (403, "DENIED")
    assert f"upstream.example refuses what is asked for its clients: {error}" in caplog.text
    assert mirror.ask("GET", f"/v2/hub/app/manifests/{desc.digest}").body == raw


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TransportError("offline"), 502),
        (UnauthorizedError("who"), 403),
        (DeniedError("no"), 403),
        (TooManyRequestsError("slow", retry_after=30), 429),
    ],
)
def test_harbor_23750_the_upstreams_failures_keep_their_meaning(
    mirror: Mirror, upstreams: Upstreams, error: ArgosyError, status: int
) -> None:
    image(upstreams)
    upstreams.fails = error
    answer = mirror.ask("GET", "/v2/hub/app/manifests/v1")
    assert answer.status == status
    assert answer.header("www-authenticate") is None
    assert answer.header("retry-after") == ("30" if status == 429 else None)


def test_an_upstream_that_asks_for_silence_gets_it(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    upstreams.fails = TooManyRequestsError("slow", retry_after=30)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    upstreams.fails = None
    mirror.turned.now += 10
    answer = mirror.ask("GET", "/v2/hub/app/manifests/v1")
    assert (answer.status, answer.header("retry-after")) == (429, "20")
    assert len(upstreams.asked) == 1
    mirror.turned.now += 21
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 200


def test_what_is_missing_upstream_is_remembered_for_a_moment(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    for _ in range(3):
        answer = mirror.ask("GET", "/v2/hub/app/manifests/none")
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert upstreams.asked == ["resolve none"]
    mirror.turned.now += 11
    image(upstreams, "none")
    assert mirror.ask("GET", "/v2/hub/app/manifests/none").status == 200


def test_names_that_are_missing_upstream_are_not_remembered_for_ever(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    for number in range(300):
        mirror.ask("GET", f"/v2/hub/x{number}/manifests/none")
    mirror.turned.now += HUB.missing_seconds + 1
    assert mirror.run(mirror.upkeep.forget([HUB])) == 0, "a tag is still fresh"
    mirror.turned.now += HUB.fresh_seconds
    assert mirror.run(mirror.upkeep.forget([HUB])) == 301
    assert mirror.rows("SELECT count(*) FROM upstream") == [(0,)]
    asked = len(upstreams.asked)
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 200
    assert upstreams.asked[asked:] == ["resolve v1"]


def test_upkeep_forgets_what_a_cache_knew_that_is_configured_no_more(mirror: Mirror) -> None:
    mirror.ask("GET", "/v2/hub/app/manifests/none")
    mirror.turned.now += HUB.missing_seconds + 1
    mirror.registry.settings = Settings(gc=Collection(enabled=False, interval_seconds=0.01))

    async def beside() -> None:
        upkeep = asyncio.create_task(gc.run(mirror.registry))
        async with asyncio.timeout(30):
            while await mirror.registry.metadata.read(lambda tx: tx.rows("SELECT 1 FROM upstream")):
                await asyncio.sleep(0.01)
        upkeep.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upkeep

    mirror.run(beside())


def test_a_tag_deleted_upstream_is_gone_here(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    upstreams.store("app").untag("v1")
    mirror.turned.now += 61
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 404


def _pinned(mirror: Mirror) -> None:
    policy = Policy.decode({"immutable": [{"repositories": ["hub/**"], "tags": ["v*"]}]})
    mirror.cache.is_immutable = policy.is_immutable


def test_an_immutable_tag_stays_as_it_came_in_though_the_upstream_moves_or_deletes_it(
    mirror: Mirror, upstreams: Upstreams, caplog: pytest.LogCaptureFixture
) -> None:
    _pinned(mirror)
    first, _, raw = image(upstreams)
    image(upstreams, tag="latest")
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    mirror.ask("GET", "/v2/hub/app/manifests/latest")
    image(upstreams, seed=9)
    second, _, _ = image(upstreams, tag="latest", seed=9)
    mirror.turned.now += 61
    asked = len(upstreams.asked)
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == raw
    assert upstreams.asked[asked:] == ["resolve v1"], "what is not taken was fetched"
    assert f"tag v1 of hub/app is immutable: its upstream has {second.digest}" in caplog.text
    moved = mirror.ask("HEAD", "/v2/hub/app/manifests/latest")
    assert moved.header("docker-content-digest") == second.digest, "others follow"
    upstreams.store("app").untag("v1")
    mirror.turned.now += 61
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == raw
    assert "tag v1 of hub/app is immutable: its upstream has none any more" in caplog.text
    held = mirror.rows("SELECT digest FROM tag WHERE name = 'v1'")
    assert held == [(first.digest,)]


def test_an_immutable_tag_is_refused_where_the_upstream_refuses_and_may_be_missing_before_it_comes(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    _pinned(mirror)
    image(upstreams)
    assert mirror.ask("GET", "/v2/hub/app/manifests/v2").status == 404
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 200
    mirror.turned.now += 61
    upstreams.fails = UnauthorizedError("expired")
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 403


def test_an_immutable_tag_that_somebody_else_brought_in_meanwhile_is_not_moved(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    _pinned(mirror)
    _, _, raw = image(upstreams)
    came: list[bytes] = []

    def meanwhile(data: bytes) -> bytes:
        if not came:
            came.append(data)
            _, parsed, other = image(Upstreams(), seed=9)
            new = parse(other, parsed.media_type)
            change = mirror.cache._change()

            def work(tx: Transaction) -> None:
                repo = (repositories.ensure(tx, "hub/app", change), "hub/app")
                manifests.put(tx, change, repo, new, ["v1"], sparse=True)

            loop = mirror.runner.get_loop()
            asyncio.run_coroutine_threadsafe(mirror.registry.write(work), loop).result(20)
            came.append(other)
        return data

    upstreams.tamper = meanwhile
    served = mirror.ask("GET", "/v2/hub/app/manifests/v1").body
    assert came[0] == raw, "nothing came in meanwhile"
    assert served == came[1]


def test_what_is_immutable_in_a_cache_says_the_policy_that_holds_now(
    tmp_path: pathlib.Path, upstreams: Upstreams
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("immutable: [{repositories: [hub/**], tags: [v*]}]")
    access = AccessSettings(policy=str(policy), tokens=Tokens(enabled=False))
    app = build(
        Settings(data=str(tmp_path / "d"), access=access, cache=(HUB,)), source_for=upstreams
    )
    mirror = app.registry.mirror
    assert isinstance(mirror, Cache)
    assert mirror.is_immutable("hub/app", "v1")
    assert not mirror.is_immutable("hub/app", "latest")
    app.registry.metadata.close()


def test_many_who_ask_at_once_ask_the_upstream_once(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)

    async def all_at_once() -> list[int]:
        asks = [mirror.asking("GET", "/v2/hub/app/manifests/v1") for _ in range(20)]
        return [answer.status for answer in await asyncio.gather(*asks)]

    assert mirror.run(all_at_once()) == [200] * 20
    assert len(upstreams.asked) == 2


def test_other_repositories_are_our_own_and_mirrored_ones_take_no_push(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    mirror.push_image("mine", "v1")
    mirror.push_image("hubble/app", "v1")
    assert upstreams.asked == []
    assert mirror.ask("POST", "/v2/hub/app/blobs/uploads/", b"").status == 405
    assert mirror.ask("GET", "/v2/mine/manifests/none").status == 404
    assert upstreams.asked == []


def test_a_client_that_says_whose_proxy_it_wants_uses_the_names_there(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    mirror.app = Namespaces(mirror.app, [HUB])  # type: ignore[assignment]
    _, parsed, raw = image(upstreams)
    answer = mirror.ask("GET", "/v2/app/manifests/v1?ns=upstream.example")
    assert (answer.body, answer.header("oci-namespace")) == (raw, "upstream.example")
    blob = mirror.ask("GET", f"/v2/app/blobs/{parsed.config.digest}?ns=upstream.example")
    assert Digest.of(blob.body) == parsed.config.digest
    for target in (
        "/v2/app/manifests/v1",
        "/v2/app/manifests/v1?ns=other.example",
        "/v2/app/manifests/v1?ns=upstream.example&ns=other.example",
        "/v2/app/manifests/none?ns=upstream.example",
    ):
        missing = mirror.ask("GET", target)
        assert (missing.status, missing.header("oci-namespace")) == (404, None), target
    assert mirror.ask("GET", "/v2/?ns=upstream.example").status == 200
    assert mirror.ask("POST", "/v2/app/blobs/uploads/?ns=upstream.example", b"").status == 202
