"""The runtime's own record of a container, where it was damaged."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.runtime.bundlekit import Bundle, Runtime


@pytest.mark.parametrize("damage", ["[]", "{", '{"id": "x"}', '{"pid": "1"}'])
def test_a_damaged_state_is_named_and_hides_no_other_container(
    runtime: Runtime, bundle: Bundle, damage: str
) -> None:
    cid = runtime.create(bundle)
    (runtime.root / "odd").mkdir()
    state = runtime.root / "odd/state.json"
    state.write_text(damage)
    done = runtime("list", "-q")
    assert done.stdout == f"{cid}\n"
    [warning] = done.stderr.splitlines()
    assert "level=warning" in warning
    assert str(state) in warning
    failed = runtime("state", "odd")
    assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
    assert str(state) in failed.stderr
    state.unlink()


@pytest.mark.parametrize("damage", ["", '{"id": "odd"', "[]"])
def test_what_to_do_about_a_damaged_state_is_told_and_helps(
    runtime: Runtime, bundle: Bundle, damage: str
) -> None:
    cid = f"odd{os.getpid()}"  # its cgroup is one of the machine's
    state = runtime.root / cid / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(damage)
    failed = runtime("delete", "--force", cid)
    assert failed.returncode == 1
    told = re.search(rf"{state} is damaged: [^;]+; if nothing .* remove that file", failed.stderr)
    assert told, failed.stderr
    assert state.exists()
    state.unlink()
    runtime.ok("delete", "--force", cid)
    runtime.ok("delete", "--force", runtime.create(bundle, cid=cid))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("pid", -5, "pid: expected an integer from -1 to 4194304, got -5"),
        ("pid", 1 << 40, "pid: expected an integer"),
        ("start_time", True, "start_time: expected an integer"),
        ("id", "another", "id: expected odd, got 'another'"),
        ("bundle", "here", "bundle: must be absolute, got 'here'"),
        ("cgroup", {"driver": "v1", "paths": []}, "cgroup.paths: expected an object, got []"),
        ("cgroup", {}, "cgroup.driver: is missing"),
        ("annotations", {"a": 1}, "annotations.a: expected a string, got 1"),
        ("hooks", {"poststop": [1]}, "hooks.poststop[0]: expected an object, got 1"),
        ("shared_mounts", 7, "shared_mounts: expected an array, got 7"),
        ("rdt", {}, "rdt.directory: is missing"),
        ("creator", "1", "creator: expected an integer"),
        ("rootless", None, "rootless: is missing"),
    ],
)
def test_a_state_that_makes_no_sense_is_damaged(
    runtime: Runtime, bundle: Bundle, name: str, value: object, told: str
) -> None:
    cid = runtime.create(bundle)
    written = json.loads((runtime.root / cid / "state.json").read_text())
    (runtime.root / "odd").mkdir()
    state = runtime.root / "odd/state.json"
    state.write_text(json.dumps({**written, "id": "odd", name: value}))
    for verb in ("state", "kill", "delete"):
        failed = runtime(verb, "odd")
        assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
        assert f"{state} is damaged: {told}" in failed.stderr
    assert runtime.ok("list", "-q").splitlines() == [cid]
    state.unlink()
