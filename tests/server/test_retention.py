"""Retention: which tags go, which stay, and that it says the same without doing it."""

from __future__ import annotations

import pathlib
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import InvalidConfigError
from argosy.server import retention
from argosy.server.auth.policy import Policy, Retention, glob
from argosy.server.metadata.outbox import Change
from argosy.server.retention import Doomed, TagAge, beside, doomed, retain
from tests.server.client import Clock, Server

DAY = 86400.0
NOW = 1_800_000_000.0


def ages(**tags: float) -> list[TagAge]:
    return [TagAge(name, f"sha256:{name}", NOW - days * DAY) for name, days in tags.items()]


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ({"keep_last": 2}, ["c", "d"]),
        ({"keep_last": 0}, ["a", "b", "c", "d"]),
        ({"keep_days": 2.5}, ["c", "d"]),
        ({"keep_last": 3, "keep_days": 1.5}, ["d"]),
        ({"keep_last": 1, "keep": ("c",)}, ["b", "d"]),
        ({"keep_last": 0, "tags": ("b", "c")}, ["b", "c"]),
        ({"keep_last": 9}, []),
    ],
    ids=str,
)
def test_a_rule_keeps_what_it_has_a_reason_for(rule: dict[str, Any], gone: list[str]) -> None:
    tags = ages(a=1, b=2, c=3, d=4)
    found = doomed(Retention(repositories=("**",), **rule), tags, NOW)
    assert sorted(tag.name for tag in found) == gone


def test_a_rule_without_a_reason_to_keep_anything_is_refused() -> None:
    with pytest.raises(InvalidConfigError):
        Policy.decode({"retention": [{"repositories": ["**"]}]})


@pytest.fixture
def server(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    with Server(str(tmp_path)) as made:
        yield made


def fill(server: Server, name: str, *tags: str) -> dict[str, str]:
    """Push one image a tag, a day apart."""
    assert isinstance(server.clock, Clock)
    digests = {}
    for number, tag in enumerate(tags):
        server.clock.now += DAY
        digests[tag] = str(server.push_image(name, tag, annotations={"n": f"{name}{number}"}))
    return digests


def go(server: Server, policy: Policy, *, dry_run: bool = False) -> list[Doomed]:
    change = Change(server.clock())
    gone: list[Doomed] = server.run(
        retain(server.registry.metadata, policy, change, dry_run=dry_run)
    )
    return gone


def tags(server: Server, name: str) -> list[str]:
    return list(server.ask("GET", f"/v2/{name}/tags/list").json()["tags"])


def test_a_dry_run_says_what_would_go_and_keeps_it(server: Server) -> None:
    digests = fill(server, "ci/app", "a", "b", "c")
    policy = Policy.decode({"retention": [{"repositories": ["ci/*"], "keep_last": 1}]})
    expected = [Doomed("ci/app", tag, digests[tag]) for tag in ("a", "b")]
    assert sorted(go(server, policy, dry_run=True)) == expected
    assert tags(server, "ci/app") == ["a", "b", "c"]
    assert sorted(go(server, policy)) == expected
    assert tags(server, "ci/app") == ["c"]
    assert go(server, policy) == []


def test_only_the_repositories_of_a_rule_are_touched(server: Server) -> None:
    fill(server, "ci/app", "a", "b")
    fill(server, "prod/app", "a", "b")
    go(server, Policy.decode({"retention": [{"repositories": ["ci/*"], "keep_last": 1}]}))
    assert tags(server, "prod/app") == ["a", "b"]


def test_immutable_tags_stay(server: Server) -> None:
    fill(server, "ci/app", "v1", "v2", "x")
    document = {
        "retention": [{"repositories": ["**"], "keep_last": 0}],
        "immutable": [{"repositories": ["**"], "tags": ["v*"]}],
    }
    assert [one.tag for one in go(server, Policy.decode(document))] == ["x"]


def test_harbor_8717_another_tag_of_the_same_manifest_stays(server: Server) -> None:
    server.push_image("a", "old")
    assert isinstance(server.clock, Clock)
    server.clock.now += DAY
    digest = server.push_image("a", "new")
    gone = go(server, Policy.decode({"retention": [{"repositories": ["**"], "keep_last": 1}]}))
    assert gone == [Doomed("a", "old", digest)]
    assert server.ask("GET", "/v2/a/manifests/new").status == 200
    assert server.ask("GET", f"/v2/a/manifests/{digest}").status == 200


@pytest.mark.parametrize("what", ["moved", "set again", "deleted", "left alone"])
def test_a_tag_that_is_used_while_it_is_judged_stays(
    server: Server, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    digest = fill(server, "a", "x")["x"]
    [(updated,)] = server.rows("SELECT updated FROM tag")
    found = {
        "moved": TagAge("x", "sha256:another", updated),
        "set again": TagAge("x", digest, updated - 1.0),
        "deleted": TagAge("y", digest, updated),
        "left alone": TagAge("x", digest, updated),
    }
    monkeypatch.setattr(retention, "_doomed_of", lambda *_: [found[what]])
    rules = Policy.decode({"retention": [{"repositories": ["**"], "keep_last": 0}]})
    gone = [Doomed("a", "x", digest)] if what == "left alone" else []
    assert go(server, rules) == gone
    assert tags(server, "a") == ([] if gone else ["x"])


def test_what_goes_is_judged_where_no_request_waits_for_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, "a", "x")
    seen: list[int] = []

    def counted(*_: object) -> list[TagAge]:
        seen.append(threading.get_ident())
        return []

    monkeypatch.setattr(retention, "doomed", counted)
    go(server, Policy.decode({"retention": [{"repositories": ["**"], "keep_last": 0}]}))
    assert len(seen) == 1
    assert threading.get_ident() not in seen


@pytest.mark.parametrize(
    ("pattern", "fits", "not_"),
    [
        ("team/*", ["team/a"], ["team/a/b", "team", "teams/a"]),
        ("team/**", ["team/a", "team/a/b"], ["team"]),
        ("**", ["a", "a/b/c"], []),
        ("v?.*", ["v1.0", "v1."], ["v10.0", "v1"]),
        ("a.b", ["a.b"], ["axb"]),
        ("(a|b)+", ["(a|b)+"], ["a"]),
    ],
)
def test_patterns_mean_what_they_say(pattern: str, fits: list[str], not_: list[str]) -> None:
    assert all(glob(pattern).fullmatch(text) for text in fits)
    assert not any(glob(pattern).fullmatch(text) for text in not_)


def test_what_one_rule_keeps_no_other_lets_go(server: Server) -> None:
    fill(server, "app", "v1", "v2", "x1", "x2", "x3")
    rules = [
        {"repositories": ["**"], "tags": ["v*"], "keep_last": 1},
        {"repositories": ["app"], "keep_last": 1, "keep": ["x1"]},
    ]
    assert [tag.tag for tag in go(server, Policy.decode({"retention": rules}))] == ["v1", "x2"]


def test_signatures_are_no_images_and_go_after_theirs(server: Server) -> None:
    assert isinstance(server.clock, Clock)
    digests = fill(server, "app", "a", "b", f"main-{40 * 'a'}")
    names = {tag: f"sha256-{digest.removeprefix('sha256:')}" for tag, digest in digests.items()}
    for name in names.values():
        server.push_image("app", f"{name}.sig", annotations={"of": name})
        server.push_image("app", name, annotations={"list of": name})
    waiting = f"sha256-{64 * '0'}.sig"
    server.push_image("app", waiting, annotations={"of": "what may still come"})
    policy = Policy.decode({"retention": [{"repositories": ["**"], "keep_last": 2}]})
    assert [tag.tag for tag in go(server, policy)] == ["a"]
    server.clock.now += DAY + 1
    assert [tag.tag for tag in go(server, policy)] == [waiting]
    path = f"/v2/app/manifests/{digests['a']}"
    assert server.ask("DELETE", path).status == 202
    assert sorted(tag.tag for tag in go(server, policy)) == [names["a"], f"{names['a']}.sig"]
    kept = {f"{names[tag]}{end}" for tag in list(names)[1:] for end in ("", ".sig")}
    assert set(tags(server, "app")) == {*list(names)[1:], *kept}


def test_a_signature_has_no_age_of_its_own() -> None:
    tag = TagAge(f"sha256-{64 * 'a'}.sig", "d", NOW - 50 * DAY)
    rule = Retention(repositories=("**",), keep_days=30)
    assert beside(rule, [tag], [f"sha256:{64 * 'a'}"], NOW) == []
    assert beside(rule, [tag], [f"sha512:{64 * 'a'}"], NOW) == [tag]
    rule = Retention(repositories=("**",), keep_days=30, keep=("*.sig",))
    assert beside(rule, [tag], [], NOW) == []


def by_hand(pattern: str, text: str) -> bool:
    """What a pattern means, tried in all ways there are."""
    if pattern.startswith("**"):
        return any(by_hand(pattern[2:], text[at:]) for at in range(len(text) + 1))
    if pattern.startswith("*"):
        stop = (text + "/").index("/")
        return any(by_hand(pattern[1:], text[at:]) for at in range(stop + 1))
    if not pattern or not text:
        return pattern == text
    fits = text[0] != "/" if pattern[0] == "?" else pattern[0] == text[0]
    return fits and by_hand(pattern[1:], text[1:])


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?", "."]), max_size=9).map("".join),
    st.text("ab/.", max_size=9),
)
def test_a_pattern_fits_what_it_fits_however_it_is_looked_for(pattern: str, text: str) -> None:
    assert (glob(pattern).fullmatch(text) is not None) == by_hand(pattern, text)


@pytest.mark.parametrize("pattern", ["*-" * 20 + "prod", "**a" * 20 + "b", "**-*-" * 10 + "x"])
def test_no_name_takes_a_pattern_of_many_stars_for_ever(pattern: str) -> None:
    for name in ("-".join("a" * 127), "a" * 255, "a-" * 127):
        assert glob(pattern).fullmatch(name) is None


class EnoughError(Exception):
    pass


def test_a_clock_that_jumps_lets_nothing_go_before_it_has_stayed_there(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(server.clock, Clock)
    rounds: list[Policy] = []

    def rules() -> Policy:
        if not rounds:
            raise EnoughError
        return rounds.pop()

    monkeypatch.setattr(retention, "_PAUSE_SECONDS", 0.0)
    run = retention.janitor(rules)

    def tags_after(seconds: float) -> list[str]:
        server.clock.now += seconds  # type: ignore[attr-defined]
        rounds.append(Policy.decode({"retention": [{"repositories": ["**"], "keep_days": 30}]}))
        with pytest.raises(EnoughError):
            server.run(run(server.registry))
        return tags(server, "a")

    fill(server, "a", "one", "two")
    assert tags_after(3600.0) == ["one", "two"]
    assert tags_after(400 * DAY) == ["one", "two"], "it jumps"
    assert tags_after(-400 * DAY) == ["one", "two"], "it is put right"
    assert tags_after(3600.0) == ["one", "two"]
    assert tags_after(29 * DAY) == ["one", "two"], "the registry was off for a month"
    assert tags_after(3600.0) == ["two"]
