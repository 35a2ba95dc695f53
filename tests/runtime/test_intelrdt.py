"""Intel RDT on directories that look like resctrl: what is written where, made, kept and removed."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from argosy.runtime import intelrdt
from argosy.runtime.errors import ConfigError, Failure

L3, MB = "L3:0=7f0;1=1f", "MB:0=20;1=70"


@pytest.fixture
def resctrl(tmp_path: pathlib.Path) -> pathlib.Path:
    """A root with a group that an administrator made; files cannot be made by writing, as in resctrl."""
    for place in (tmp_path, tmp_path / "guaranteed"):
        (place / "mon_groups").mkdir(parents=True)
        (place / "schemata").write_text(
            "    L3:0=7f0;1=01f\n    MB:0= 20;1= 70\n".replace("= ", "=")
        )
        (place / "tasks").write_text("")
    return tmp_path


def test_a_named_group_is_joined_and_outlives_the_container(resctrl: pathlib.Path) -> None:
    group = intelrdt.create(
        {"closID": "guaranteed", "l3CacheSchema": L3, "memBwSchema": MB}, "c1", str(resctrl)
    )
    group.enter(123)
    assert (resctrl / "guaranteed" / "tasks").read_text() == "123"
    intelrdt.load(group.state()).destroy()
    assert (resctrl / "guaranteed").is_dir()


def test_a_named_group_with_other_schemata_is_refused(resctrl: pathlib.Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"closID: .*guaranteed is there, and its schemata do not have 'L3:0=1;1=1'",
    ):
        intelrdt.create({"closID": "guaranteed", "l3CacheSchema": "L3:0=1;1=1"}, "c1", str(resctrl))


def test_a_named_group_that_is_missing_needs_a_schema_to_be_made(resctrl: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"closID: there is no directory .*/gold"):
        intelrdt.create({"closID": "gold"}, "c1", str(resctrl))
    assert not (resctrl / "gold").exists()


def test_the_root_group_is_the_default_one(resctrl: pathlib.Path) -> None:
    group = intelrdt.create({"closID": "/"}, "c1", str(resctrl))
    group.enter(5)
    assert (resctrl / "tasks").read_text() == "5"
    group.destroy()
    assert resctrl.is_dir()


def test_monitoring_has_a_group_of_the_containers_own_which_goes_with_it(
    resctrl: pathlib.Path,
) -> None:
    group = intelrdt.create({"closID": "guaranteed", "enableMonitoring": True}, "c1", str(resctrl))
    place = resctrl / "guaranteed" / "mon_groups" / "c1"
    assert place.is_dir()
    intelrdt.load(group.state()).destroy()
    assert not place.exists()
    assert (resctrl / "guaranteed").is_dir()


def test_a_group_without_a_name_is_the_containers_and_goes_with_it(resctrl: pathlib.Path) -> None:
    group = intelrdt.create({}, "c1", str(resctrl))
    assert (resctrl / "c1").is_dir()
    group.destroy()
    assert not (resctrl / "c1").exists()
    group.destroy()


def test_what_fails_half_way_is_taken_back(resctrl: pathlib.Path) -> None:
    with pytest.raises(
        Failure, match=r"schemata"
    ):  # plain directories have no schemata file to write
        intelrdt.create({"l3CacheSchema": L3}, "c1", str(resctrl))
    assert not (resctrl / "c1").exists()


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, []),
        ({"memBwSchema": MB, "l3CacheSchema": L3}, [L3, MB]),
        ({"schemata": ["L2:0=f", MB], "l3CacheSchema": L3}, [L3, "L2:0=f", MB]),
    ],
)
def test_schemata_are_written_in_the_order_of_the_specification(
    settings: dict[str, Any], lines: list[str]
) -> None:
    assert intelrdt.schemata(settings) == lines


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"memBwSchema": "L3:0=1"}, r"memBwSchema: expected MB:"),
        ({"memBwSchema": "MB:0=1\nL3:0=1"}, r"holds a newline"),
        ({"schemata": ["L3:0=1\n"]}, r"schemata: .* holds a newline"),
        ({"l3CacheSchema": "L3:0=1\nMB:0=1"}, r"l3CacheSchema: has a line for memory bandwidth"),
        ({"closID": "a/b"}, r"closID: expected a name"),
        ({"closID": ".."}, r"closID: expected a name"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    settings: dict[str, Any], where: str, resctrl: pathlib.Path
) -> None:
    with pytest.raises(ConfigError, match=where):
        intelrdt.create(settings, "c1", str(resctrl))


def test_without_resctrl_the_error_says_so() -> None:
    assert (
        intelrdt.find("1 2 0:1 / /sys/fs/resctrl rw shared:1 - resctrl resctrl rw\n")
        == "/sys/fs/resctrl"
    )
    if intelrdt.find() is None and not os.path.exists("/sys/fs/resctrl/schemata"):
        with pytest.raises(Failure, match=r"no resctrl file system is mounted"):
            intelrdt.create({}, "c1")
