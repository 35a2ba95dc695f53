"""Options that give one value a key, each time they are given."""

from __future__ import annotations

import pathlib

import pytest

from tests.cli.conftest import Run

TWICE = [
    (("mutate", "PLACE", "-l", "a=1", "-l", "a=2"), "--label: 'a' comes twice"),
    (("mutate", "PLACE", "-a", "a=1", "-a", "a-"), "--annotation: 'a' comes twice"),
    (("mutate", "PLACE", "-e", "A=1", "--env", "A=1"), "--env: 'A' comes twice"),
    (("mutate", "PLACE", "--set", "config.X=1", "--set", "config.X=2"), "--set: 'config.X' comes twice"),
    (("index", "create", "PLACE", "-t", "new", "-a", "a=1", "-a", "a=2"), "--annotation: 'a' comes twice"),
    (("index", "add", "PLACE", "PLACE", "-a", "a=1", "-a", "a=2"), "--annotation: 'a' comes twice"),
    (("index", "annotate", "PLACE", "-a", "a=1", "-a", "a=2"), "--annotation: 'a' comes twice"),
    (("artifact", "push", "-q", "PLACE", "-a", "k=1", "-a", "k=2"), "--annotation: 'k' comes twice"),
    (("attach", "-q", "PLACE", "--artifact-type", "a/b", "-a", "k=1", "-a", "k=2"), "--annotation: 'k' comes twice"),
    (("spec", "-o", "-", "--annotation", "k=1", "--annotation", "k=2"), "--annotation: 'k' comes twice"),
    (("spec", "-o", "-", "-e", "k=1", "-e", "k=2"), "--env: 'k' comes twice"),
    (("spec", "-o", "-", "--sysctl", "k=1", "--sysctl", "k=2"), "--sysctl: 'k' comes twice"),
]  # fmt: skip
WRONG = [
    (("mutate", "PLACE", "-l", "a"), "--label: expected KEY=VALUE, or KEY- to remove it, got 'a'"),
    (("mutate", "PLACE", "-e", "=a"), "--env: expected NAME=VALUE, or NAME- to remove it, got '=a'"),
    (("mutate", "PLACE", "--set", "a"), "--set: expected NAME=JSON, got 'a'"),
    (("index", "create", "PLACE", "-t", "new", "-a", "a-"), "--annotation: expected KEY=VALUE, got 'a-'"),
    (("attach", "PLACE", "--artifact-type", "a/b", "-a", "k"), "--annotation: expected KEY=VALUE, got 'k'"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), [*TWICE, *WRONG])
def test_a_key_that_comes_twice_or_has_no_value_is_refused(
    argosy: Run, layout: pathlib.Path, words: tuple[str, ...], said: str
) -> None:
    before = (layout / "index.json").read_bytes()
    place = f"oci:{layout}:{'multi' if words[0] == 'index' else 'v1'}"
    told = argosy(*(place if word == "PLACE" else word for word in words), code=64)
    assert said in told.err
    assert told.out == ""
    assert (layout / "index.json").read_bytes() == before
