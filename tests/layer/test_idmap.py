"""Id maps."""

from __future__ import annotations

import pytest

from argosy.errors import InvalidLayerError, UsageError
from argosy.layer.idmap import IDENTITY, IdMap


def test_ids_go_both_ways() -> None:
    ids = IdMap.parse("0:100000:1000", "1000:1000")
    assert [ids.to_host(n) for n in (0, 999, 1000)] == [100000, 100999, 1000]
    assert [ids.to_container(n) for n in (100000, 100999, 1000)] == [0, 999, 1000]
    assert IDENTITY.to_host(7) == IDENTITY.to_container(7) == 7


def test_an_id_outside_is_named() -> None:
    with pytest.raises(InvalidLayerError, match="gid 5 of the container is not in the id map"):
        IdMap.parse("0:0:5").to_host(5, "gid")
    with pytest.raises(InvalidLayerError, match="uid 5 of the host"):
        IdMap.parse("0:0:5").to_container(5, "uid")


@pytest.mark.parametrize(
    "text", ["", "0", "0:0:0", "a:0:1", "0:0:1:1", "-1:0:1", "0:4294967295:2", "0:²:1"]
)
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        IdMap.parse(text)


@pytest.mark.parametrize("texts", [("0:0:10", "5:100:10"), ("0:0:10", "100:5:10")])
def test_ranges_must_not_overlap(texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="overlap"):
        IdMap.parse(*texts)
