"""What the runtime refuses, the check has said before: the same configurations, asked of both."""

from __future__ import annotations

from typing import Any

import pytest

from argosy.bundle.check import check_config
from argosy.runtime.errors import ConfigError
from argosy.runtime.validate import validate
from tests.bundle.test_check import HERE, changed, said
from tests.runtime.bundlekit import MAPPED, starting
from tests.runtime.test_validate import BAD, RIGHT, put

KNOWN_LATER = ("surrogate pair", "root.path: is missing")
"""No text at all, and a directory: both are found where the bundle is read."""


@pytest.mark.parametrize(
    ("place", "value"),
    [(place, value) for place, value, why in BAD if not any(word in why for word in KNOWN_LATER)],
    ids=ascii,
)
def test_what_the_runtime_refuses_is_found(place: str, value: Any) -> None:
    found = check_config(put(starting(), place, value), host=HERE)
    assert any(each.verdict == "refused" for each in found), found


@pytest.mark.parametrize(
    ("place", "value"),
    [(place, value) for place, value in RIGHT if place != "linux.namespaces"],
    ids=ascii,
)
def test_what_the_runtime_takes_is_not_refused(place: str, value: Any) -> None:
    found = check_config(put(starting(), place, value), host=HERE)
    refused = [each for each in found if each.verdict == "refused"]
    assert not [str(each) for each in refused if each.source == "specification"]


@pytest.mark.parametrize("kept", ["uidMappings", "gidMappings"])
def test_a_new_user_namespace_needs_both_mappings(kept: str) -> None:
    config = starting()
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"][kept] = [MAPPED]
    with pytest.raises(ConfigError):
        validate(config)
    (missing,) = {"uidMappings", "gidMappings"} - {kept}
    found = [str(each) for each in check_config(config, host=HERE)]
    assert f"refused: linux.{missing}: a new user namespace needs mappings" in found


def test_numbers_of_any_length_are_read_or_refused() -> None:
    for text in ("9" * 5000, "0-" + "9" * 5000):
        assert any(
            "expected numbers like 0-3,7" in each
            for each in said(changed("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": text}))
        )
