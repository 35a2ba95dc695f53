"""Names without a registry, as containers-registries.conf(5) has them."""

from __future__ import annotations

import pathlib

import pytest

from argosy.cli.options import PLACE
from argosy.errors import InvalidConfigError, InvalidReferenceError
from argosy.remote.shortnames import ShortNames


def test_a_later_file_wins_and_an_empty_alias_takes_one_away(tmp_path: pathlib.Path) -> None:
    one, two = tmp_path / "one.conf", tmp_path / "two.conf"
    one.write_text(
        'unqualified-search-registries = ["a.example", "b.example"]\n[aliases]\n"x" = "c.example/x"\n"y" = "c.example/y"\n'
    )
    two.write_text('unqualified-search-registries = ["d.example"]\n[aliases]\n"x" = ""\n')
    names = ShortNames.read([str(one), str(two)])
    assert names.expand("y@sha256:" + "0" * 64) == "c.example/y@sha256:" + "0" * 64
    assert names.expand("x:1") == "d.example/x:1"


@pytest.mark.parametrize("text", ["localhost/a", "host:5000/a:1", "a.b/c", "docker.io/library/x"])
def test_a_name_with_its_registry_stays(text: str) -> None:
    assert ShortNames({"a": "b.example/a"}, ["c.example"]).expand(text) == text


def test_what_several_registries_could_mean_is_not_guessed() -> None:
    with pytest.raises(InvalidReferenceError, match=r"a\.example, b\.example"):
        ShortNames({}, ["a.example", "b.example"]).expand("app")
    with pytest.raises(InvalidReferenceError, match="no registries are searched"):
        ShortNames({}, []).expand("app")


@pytest.mark.parametrize(
    "text", ["aliases = 1", "[aliases]\na = 1", f"{'unqualified'}-search-registries = 1"]
)
def test_a_file_of_the_wrong_kind_is_named(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "bad.conf"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=r"bad\.conf"):
        ShortNames.read([str(path)])


def test_short_names_are_docker_hubs_unless_it_is_asked_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "registries.conf"
    path.write_text('[aliases]\n"app" = "quay.io/team/app"\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path))
    assert str(PLACE.convert("app:1", None, None)) == "docker.io/library/app:1"
    monkeypatch.setenv("ARGOSY_SHORT_NAMES", "1")
    assert str(PLACE.convert("app:1", None, None)) == "quay.io/team/app:1"
    assert str(PLACE.convert("docker://app:1", None, None)) == "docker.io/library/app:1"
    assert str(PLACE.convert("oci:app", None, None)) == "oci:app"
