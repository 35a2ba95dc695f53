"""Which image suits a platform (image-spec, image-index.md)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import InvalidReferenceError
from argosy.spec._value import replace
from argosy.spec.platform import Platform, best


def p(text: str) -> Platform:
    return Platform.parse(text)


parts = st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True)


@given(
    parts, parts, st.just("") | parts, st.just("") | st.from_regex(r"[0-9.]{1,9}", fullmatch=True)
)
def test_what_is_written_is_read(os: str, arch: str, variant: str, version: str) -> None:
    once = p("/".join(filter(None, [os, arch, variant])) + (f":{version}" if version else ""))
    assert p(str(once)) == once


@given(parts, parts, st.just("") | parts | st.sampled_from(["v5", "v7", "v8", "v8.1", "v9", "v1"]))
def test_every_platform_suits_itself(os: str, arch: str, variant: str) -> None:
    for architecture in (arch, "amd64", "arm", "arm64", "386"):
        here = Platform(architecture=architecture, os=os, variant=variant)
        assert best(here, [None, here]) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/armhf", "linux/arm/v7"),
        ("Linux/ARM64/V8", "linux/arm64/v8"),
        ("macos/arm64", "darwin/arm64"),
    ],
)
def test_other_names_of_a_platform_are_understood(text: str, expected: str) -> None:
    assert str(p(text)) == expected


@pytest.mark.parametrize(
    ("text", "os"),
    [("linux", "linux"), ("Windows", "windows"), ("macOS", "darwin"), ("freebsd", "freebsd")],
)
def test_a_lone_operating_system_means_the_architecture_of_this_machine(text: str, os: str) -> None:
    host = Platform.host()
    assert p(text) == replace(host, os=os)
    assert p(f"{text}:10.0.1") == replace(host, os=os, os_version="10.0.1")


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "linux/amd64:", "linux/a b", ":10"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        p(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "found"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/arm/v8", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 2),
        ("linux/arm/v7", ["linux/arm/v8", "linux/arm/v6"], 1),
        ("linux/arm/v5", ["linux/arm/v6", "linux/arm/v7"], None),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm64", ["linux/arm64/v9"], None),
        ("linux/arm64/v9", ["linux/arm64/v8", "linux/arm64/v8.5"], 1),
        ("linux/amd64/v3", ["linux/amd64/v4", "linux/amd64/v2", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v2"], None),
        ("linux/amd64", ["linux/amd64/v1"], 0),
        (
            "windows/amd64:10.0.17763.1",
            ["windows/amd64:10.0.20348.2", "windows/amd64:10.0.17763.9"],
            1,
        ),
        ("windows/amd64:10.0.17763.1", ["windows/amd64:10.0.20348.2"], None),
        ("windows/amd64", ["windows/amd64:10.0.20348.2"], 0),
        ("linux/s390x", [], None),
    ],
)
def test_the_nearest_variant_that_runs_wins(
    wanted: str, offered: list[str], found: int | None
) -> None:
    assert best(p(wanted), [p(text) for text in offered]) == found


def test_the_first_of_equals_wins() -> None:
    assert best(p("linux/amd64"), [p("linux/amd64"), p("linux/amd64")]) == 0


def test_an_entry_without_a_platform_suits_last() -> None:
    assert best(p("linux/amd64"), [None, p("linux/amd64")]) == 1
    assert best(p("linux/amd64"), [None]) == 0


def test_an_entry_that_needs_more_features_does_not_suit() -> None:
    wanted = Platform(architecture="amd64", os="windows", os_features=("win32k",))
    needs = Platform(architecture="amd64", os="windows", os_features=("win32k", "more"))
    assert best(wanted, [needs]) is None


def test_the_host_runs_linux_images() -> None:
    assert Platform.host().os == "linux"
