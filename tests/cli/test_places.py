"""Places, as they are typed and as they are printed."""

from __future__ import annotations

import pathlib

import pytest

from argosy.errors import InvalidReferenceError, NotFoundError
from argosy.locate import Location
from argosy.spec.digest import Digest
from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("docker://alpine", "docker.io/library/alpine"),
        ("localhost:5000/app:v1@{}", "localhost:5000/app:v1@{}"),
        ("docker://oci:5000/app:v1", "docker://oci:5000/app:v1"),
        ("oci:a:v1@{}", "oci:a:v1@{}"),
        ("oci:a:@2", "oci:a:@2"),
        ("oci:a@b:v1", "oci:a@b:v1"),
        ("oci:a@b:v1@{}", "oci:a@b:v1@{}"),
        ("oci:a@{}", "oci:a@{}"),
    ],
)
def test_a_place_is_printed_as_other_tools_take_it(text: str, shown: str) -> None:
    digest = "sha256:" + 64 * "0"
    place = Location.parse(text.format(digest))
    assert str(place) == shown.format(digest)
    assert str(Location.parse(str(place))) == str(place)


@pytest.mark.parametrize("text", ["registry.example/app", "oci:a"])
def test_what_a_digest_names_is_printed_without_the_tag(text: str) -> None:
    digest = Digest("sha256:" + 64 * "0")
    for typed in (text, f"{text}:v1", f"{text}:v1@sha256:{64 * '1'}"):
        assert str(Location.parse(typed).at(digest)) == f"{text}@{digest}"
        assert str(Location.parse(typed).at("v2")) == f"{text}:v2"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("", ""),
        (":v1", ":v1"),
        (":@0", ":@0"),
        ("@0", ":@0"),
        ("@{}", "@{}"),
        (":v1@{}", ":v1@{}"),
        (":r.example/app:v1", ":r.example/app:v1"),
    ],
)
@pytest.mark.parametrize("folder", ["layout", "a:b@c"])
def test_a_bare_path_takes_what_a_place_with_its_kind_takes(
    layout: pathlib.Path, folder: str, typed: str, shown: str
) -> None:
    path = layout.rename(layout.parent / folder)
    digest = "sha256:" + 64 * "0"
    place = Location.parse(f"{path}{typed.format(digest)}")
    assert (place.transport, place.path) == ("oci", str(path))
    assert str(place) == f"oci:{path}{shown.format(digest)}"
    assert place.digest == (digest if "{" in typed else None)


def test_a_path_of_pathlib_is_a_bare_path(
    layout: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(layout.parent)
    for path in (layout, pathlib.Path(layout.name)):
        assert Location.parse(path) == Location(transport="oci", path=str(path))


def test_a_stream_is_of_some_kind() -> None:
    with pytest.raises(InvalidReferenceError, match=r"^- does not say") as caught:
        Location.parse("-")
    assert "oci-archive:- or docker-archive:-" in str(caught.value.hint)


def test_a_path_where_nothing_is_differs_from_one_of_no_known_kind(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFoundError, match=f"^{tmp_path}/none.tar: no such file"):
        Location.parse(f"{tmp_path}/none.tar")
    with pytest.raises(InvalidReferenceError, match=f"^{tmp_path}: neither an image"):
        Location.parse(str(tmp_path))


@pytest.mark.parametrize("words", [("catalog",), ("registry", "ping")])
def test_a_registry_that_is_none_is_wrong_usage(argosy: Run, words: tuple[str, ...]) -> None:
    assert "expected host or host:port" in argosy(*words, "localhost:5000/team", code=64).err


@pytest.mark.parametrize("typed", ["app.tar", "app.tgz", "images/app.tar.gz", "app.tar:v1"])
def test_the_name_of_an_archive_is_no_repository_of_docker_hub(typed: str) -> None:
    with pytest.raises(InvalidReferenceError, match="may be a file or a repository") as caught:
        Location.parse(typed)
    assert f"./{typed} or docker://{typed}" in str(caught.value.hint)
    for meant in (f"docker://{typed}", f"registry.example/{typed}", f"docker.io/{typed}"):
        assert Location.parse(meant).reference is not None


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("ls", ["--full-ref", "-O", "--omit-digest-tags", "--exclude-digest-tags"]),
        ("digest", ["--full-ref", "-l", "--full-reference"]),
        ("cp", ["--digestfile", "--additional-tag", "--recursive", "--concurrency", "-n", "--no-clobber"]),
        ("backup", ["--include-referrers", "--concurrency"]),
        ("restore", ["--exclude-referrers", "--concurrency"]),
        ("sync", ["--scoped", "--keep-going", "--dry-run"]),
    ],
)  # fmt: skip
def test_options_of_other_tools_are_known(argosy: Run, command: str, names: list[str]) -> None:
    shown = argosy(command, "--help").out
    assert [name for name in names if name not in shown] == []


def test_skopeos_name_for_attempts_is_known(argosy: Run, tmp_path: pathlib.Path) -> None:
    argosy("digest", "--retry-times", "0", f"oci:{tmp_path}/none:v1", code=2)


def test_an_address_of_ipv6_is_told_apart_from_its_port(argosy: Run) -> None:
    told = argosy("ls", "--retry", "0", "[::1]:9/app", code=1).err
    assert told.startswith("argosy: [::1]:9: ")


@pytest.mark.parametrize(
    "line",
    [
        "append -f layer.tar -t x/{}",
        "auth get {}",
        "auth ls --explain {}",
        "auth token {}",
        "backup {} -o new.tar",
        "login {} -u ada -p secret",
        "logout {}",
        "mutate oci:{layout}:v1 -t x/{}",
        "restore -i oci:{layout} {}",
        "sync oci:{layout} {}",
        "sync {} oci:new",
    ],
)
def test_what_is_no_name_is_wrong_usage_wherever_it_is_typed(
    argosy: Run,
    layout: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layer.tar").write_bytes(bytes(1024))
    words = [word.format("Bad,Name?", layout=layout) for word in line.split()]
    done = argosy(*words, code=64)
    assert ": expected " in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"layer.tar", "layout"}


def test_short_names_are_what_the_configuration_says_also_to_sync_and_backup(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOSY_SHORT_NAMES", "1")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    (tmp_path / "registries.conf").write_text('unqualified-search-registries = ["127.0.0.1:1"]')
    for words in (("ls", "app"), ("sync", "app", "oci:new"), ("backup", "app", "-o", "new.tar")):
        assert "argosy: 127.0.0.1:1: connection refused" in argosy(*words, code=1).err


@pytest.mark.parametrize("kind", ["docker-archive", "oci", "oci-archive"])
def test_one_image_with_several_tags_is_the_only_one(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, kind: str
) -> None:
    place = f"{kind}:{tmp_path}/two"
    argosy("cp", "-q", f"oci:{layout}:v1", f"{place}:app:v1" if kind[0] == "d" else f"{place}:v1")
    argosy("tag", f"{place}:app:v1" if kind[0] == "d" else f"{place}:v1", "v2")
    assert argosy("digest", place).out == argosy("digest", f"oci:{layout}:v1").out
    argosy("cp", "-q", place, f"oci:{tmp_path}/other:v1")
    assert argosy("digest", f"oci:{tmp_path}/other:v1").out == argosy("digest", place).out
