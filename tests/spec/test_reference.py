"""References as people type them; `parse(str(r)) == r`."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import ArgosyError, InvalidNameError, InvalidReferenceError
from argosy.spec.digest import Digest
from argosy.spec.reference import Reference, parse_name, parse_registry, parse_tag

D = str(Digest.of(b"{}"))

component = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,2})[a-z0-9]{1,4}){0,2}", fullmatch=True)
names = st.lists(component, min_size=1, max_size=4).map("/".join)
hosts = st.sampled_from(
    [
        "docker.io",
        "localhost",
        "localhost:5000",
        "registry.example",
        "127.0.0.1:80",
        "[::1]:5000",
        "[fe80::1]",
        "a.b-c.d:65535",
        "intranet",
    ]
)
tags = st.none() | st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True)
digests = st.none() | st.binary().map(Digest.of)


@given(hosts, names, tags, digests)
def test_what_is_written_is_read(
    host: str, name: str, tag: str | None, digest: Digest | None
) -> None:
    reference = Reference(registry=host, name=name, tag=tag, digest=digest)
    if host == "docker.io" and "/" not in name:
        reference = Reference(registry=host, name=f"library/{name}", tag=tag, digest=digest)
    assert Reference.parse(str(reference)) == reference


@given(st.text(alphabet=string.printable, max_size=60))
def test_no_text_crashes(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except ArgosyError:
        return
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", "docker.io/library/alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("user/app", "docker.io/user/app"),
        ("docker.io/alpine", "docker.io/library/alpine"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine"),
        ("registry-1.docker.io/a/b", "docker.io/a/b"),
        ("localhost/app", "localhost/app"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("Registry.Example/App".replace("App", "app"), "registry.example/app"),
        ("Foo/bar", "FOO/bar"),
        ("[::1]:5000/app", "[::1]:5000/app"),
        ("[0:0:0:0:0:0:0:1]:5000/app", "[::1]:5000/app"),
        (f"app:v1@{D}", f"docker.io/library/app:v1@{D}"),
        (f"app@{D}", f"docker.io/library/app@{D}"),
        ("https://quay.example/a/b:1", "quay.example/a/b:1"),
        ("http://localhost:5000/a", "localhost:5000/a"),
        ("docker://quay.example/a", "quay.example/a"),
        ("oci://quay.example/a", "quay.example/a"),
    ],
)
def test_short_forms_are_those_of_docker(text: str, expected: str) -> None:
    assert str(Reference.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":", "@", "/", "app:", "app@", "app:v1:v2", "app@sha256:short", "-app", "App", "a//b", "quay.example/", "quay.example/a/",
        "quay.example", "quay.example:99999/a", "quay.example:0/a", "[::1/app", "[gg::1]/app", "a_b.example/x y",
        "app:" + "x" * 129, "../app", "app/../x", "a" * 300, "quay.example/" + "a" * 250, "app\x00", "app\n",
        "-bad.example/app", "app:..",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_in_one_line(text: str) -> None:
    if text in {"quay.example", "app\n"}:  # a name with a dot; white space around is dropped
        assert Reference.parse(text)
        return
    with pytest.raises(ArgosyError) as caught:
        Reference.parse(text)
    assert len(str(caught.value)) < 400


def test_a_name_that_is_none_is_told_as_it_was_typed() -> None:
    with pytest.raises(InvalidNameError, match=r"^name 'App': expected lower-case letters"):
        Reference.parse("App")


def test_the_digest_decides_over_the_tag() -> None:
    assert Reference.parse(f"app:v1@{D}").tag_or_digest == D
    assert Reference.parse("app:v1").tag_or_digest == "v1"
    assert Reference.parse("app").tag_or_digest == "latest"


def test_a_default_registry_takes_the_place_of_docker_hub() -> None:
    reference = Reference.parse("app", default_registry="localhost:5000")
    assert str(reference) == "localhost:5000/app"


@pytest.mark.parametrize("text", ["quay.example/", "quay.example/:v1", ":v1"])
def test_a_reference_without_a_repository_is_told_as_one(text: str) -> None:
    with pytest.raises(InvalidReferenceError, match="names no repository") as caught:
        Reference.parse(text)
    assert "expected [registry/]name" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "name", ["a", "a/b/c", "a.b", "a_b", "a__b", "a-b", "a--b", "0", "a" * 255]
)
def test_names_of_the_grammar_are_names(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "a/", "/a", "a..b", "a___b", "a_-b", ".a", "a.", "a b", "ä", "a" * 256]
)
def test_names_outside_the_grammar_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_name(name)


def test_tags_and_registries_have_their_grammar() -> None:
    assert parse_tag("_A.b-C" + "x" * 122)
    assert parse_registry("LOCALHOST:05000") == "localhost:5000"
