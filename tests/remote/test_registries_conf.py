"""The rules of registries.conf: prefixes, mirrors, what is blocked, and files that are wrong."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from argosy.errors import DeniedError, InvalidConfigError, UsageError
from argosy.remote.config import HUB_HOST, Options, Registries, certificates


def test_the_longest_prefix_decides_and_rewrites() -> None:
    rules = Registries(
        [
            {"prefix": "r.example", "location": "all.example"},
            {
                "prefix": "r.example/team",
                "location": "team.example/x",
                "mirror": [
                    {"location": "m.example", "pull-from-mirror": "digest-only", "insecure": True}
                ],
            },
            {"prefix": "*.wild.example", "location": ""},
            {"location": "bad.example", "blocked": True},
        ]
    )
    shown = [
        (e.registry, e.name, e.insecure, e.mirror) for e in rules.endpoints("r.example", "team/app")
    ]
    assert shown == [("m.example", "app", True, True), ("team.example", "x/app", False, False)]
    assert [e.registry for e in rules.endpoints("r.example", "teams/app")] == ["all.example"]
    assert [e.registry for e in rules.endpoints("other.example", "app")] == ["other.example"]
    mirror = rules.endpoints("r.example", "team/app")[0]
    assert mirror.serves(by_digest=True)
    assert not mirror.serves(by_digest=False)
    with pytest.raises(Exception, match="blocked"):
        rules.endpoints("bad.example", "app")


def test_of_wildcards_too_the_longest_decides() -> None:
    table: list[dict[str, Any]] = [
        {"prefix": "*.example", "mirror": [{"location": "m.example"}]},
        {"prefix": "*.bad.example", "blocked": True},
        {"prefix": "*.moved.example", "location": "new.example/x", "insecure": True},
        {"prefix": "a.moved.example/own", "location": "a.moved.example/own"},
    ]
    for rules in (Registries(table), Registries(table[::-1])):
        with pytest.raises(DeniedError):
            rules.endpoints("a.bad.example", "app")
        shown = [(e.registry, e.name, e.insecure) for e in rules.endpoints("b.example", "app")]
        assert shown == [("m.example", "app", False), ("b.example", "app", False)]
        shown = [(e.registry, e.name, e.insecure) for e in rules.endpoints("a.moved.example", "t")]
        assert shown == [("new.example", "x/t", True)]
        assert [e.name for e in rules.endpoints("a.moved.example", "own/app")] == ["own/app"]


@pytest.mark.parametrize("rule", [{"location": "bad.example"}, {"prefix": "*.example"}])
def test_a_blocked_host_is_blocked_on_every_port(rule: dict[str, str]) -> None:
    rules = Registries([{**rule, "blocked": True}, {"location": "bad.example:5001"}])
    for registry in ("bad.example", "bad.example:5000"):
        with pytest.raises(DeniedError):
            rules.endpoints(registry, "app")
    assert len(rules.endpoints("bad.example:5001", "app")) == 1
    assert len(rules.endpoints("verybad.test", "bad.example")) == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('unqualified-search-registries = ["docker.io"]\n# [[registry]]\n', 1),
        ('[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "m.example"\n', 2),
        ('registry = [{location = "quay.io", mirror = [{location = "m.example"}]}]\n', 2),
        ('  [[ "registry" ]]\nlocation = "quay.io"\nmirror = [{location = "m.example"}]\n', 2),
    ],
)
def test_registries_conf_is_read(tmp_path: pathlib.Path, text: str, count: int) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    rules = Registries.read([str(path)])
    assert len(rules.endpoints("quay.io", "app")) == count


@pytest.mark.parametrize(
    "text",
    [
        "[[registry]\n",
        "[registries.search]\nregistries = []\n",
        "registry = 5\n",
        "[[registry]]\ninsecure = true\n",
        '[[registry]]\nlocation = "http://a"\n',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "https://b"\n',
        '[[registry]]\nprefix = "*.example/team"\nblocked = true\n',
        '[[registry]]\nlocation = "*.example"\nblocked = true\n',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\n',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "x"\n',
    ],
)
def test_a_registries_conf_that_is_none_is_named(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=r"registries\.conf"):
        Registries.read([str(path)])


@pytest.mark.parametrize(
    "wrong",
    [
        'insecure = "false"',
        "insecure = 0",
        'blocked = "no"',
        'mirror-by-digest-only = ""',
        "prefix = 5",
    ],
)
@pytest.mark.parametrize("table", ["", '[[registry.mirror]]\nlocation = "b"\n'])
def test_a_property_of_another_kind_is_named_and_not_taken_for_true(
    tmp_path: pathlib.Path, table: str, wrong: str
) -> None:
    """`insecure = "false"` would switch the check of certificates off."""
    path = tmp_path / "registries.conf"
    path.write_text(f'[[registry]]\nlocation = "a"\n{table}{wrong}\n')
    with pytest.raises(
        InvalidConfigError, match=rf"registries\.conf: {wrong.partition(' ')[0]}: expected"
    ):
        Registries.read([str(path)])


def test_a_slash_at_the_end_of_a_location_is_no_part_of_names() -> None:
    mirror = {"location": "mirror.example/quay/"}
    rules = Registries([{"prefix": "quay.io", "location": "a.example/", "mirror": [mirror]}])
    places = [f"{e.registry}/{e.name}" for e in rules.endpoints("quay.io", "org/app")]
    assert places == ["mirror.example/quay/org/app", "a.example/org/app"]


def test_a_repository_is_not_read_from_a_registry_as_a_whole() -> None:
    rules = Registries([{"prefix": "quay.io/org/app", "location": "a.example"}])
    with pytest.raises(InvalidConfigError, match=r"'a\.example' is a registry"):
        rules.endpoints("quay.io", "org/app")


@pytest.mark.parametrize("which", [":v1", "@sha256:" + "0" * 64])
@pytest.mark.parametrize(
    "more",
    [
        {"location": "m.example/app"},
        {"mirror": [{"location": "m.example/app"}]},
        {"insecure": True},
    ],
)
def test_one_tag_or_digest_can_only_be_blocked(which: str, more: dict[str, Any]) -> None:
    """podman and skopeo read over such a table: nobody may believe that it is followed."""
    prefix = f"r.example:5000/team/app{which}"
    rules = Registries([{"prefix": prefix, "location": prefix, **more}])
    with pytest.raises(InvalidConfigError, match=f"prefix '{prefix}': .*only"):
        rules.check("r.example:5000", "team/app", which[1:])
    rules.check("r.example:5000", "team/app", "v2")
    assert len(rules.endpoints("r.example:5000", "team/app")) == 1


def test_a_table_for_one_tag_that_says_nothing_is_nothing() -> None:
    rules = Registries([{"location": "r.example/app:v1"}])
    rules.check("r.example", "app", "v1")


@pytest.mark.parametrize(
    ("prefix", "registry"),
    [
        ("index.docker.io", "docker.io"),
        ("Registry-1.docker.io", "docker.io"),
        ("Quay.IO", "quay.io"),
        ("*.Quay.IO", "a.quay.io"),
    ],
)
def test_a_host_is_the_same_however_it_is_written(prefix: str, registry: str) -> None:
    rules = Registries([{"prefix": prefix, "location": "mirror.example/x"}])
    (found,) = rules.endpoints(registry, "org/app")
    assert (found.registry, found.name) == ("mirror.example", "x/org/app")


@pytest.mark.parametrize("folder", ["docker.io", "registry-1.docker.io"])
def test_certificates_of_docker_hub_stand_under_either_of_its_names(
    tmp_path: pathlib.Path, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "ca.crt").write_text("")
    found = certificates((str(tmp_path),), HUB_HOST)
    assert found.ca_files == (f"{tmp_path}/{folder}/ca.crt",)


def test_a_user_agent_that_cannot_be_sent_is_refused_before_anything_is() -> None:
    with pytest.raises(UsageError, match="User-Agent"):
        Options(user_agent="a\nb")
