"""Hooks: when they run, what they are given, and what their failure does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.bundlekit import Bundle, Runtime, await_end


class TestHooks:
    def hook(self, place: Path, name: str, more: str = "") -> dict[str, Any]:
        script = f"{{ echo {name}; cat; echo; }} >>{place}; {more}"
        return {"path": "/bin/sh", "args": ["sh", "-c", script]}

    def told(self, place: Path) -> list[tuple[str, dict[str, Any]]]:
        lines = place.read_text().split("\n")[:-1]
        return [(lines[index], json.loads(lines[index + 1])) for index in range(0, len(lines), 2)]

    def test_they_run_in_the_order_of_the_specification(
        self, runtime: Runtime, bundle: Bundle, tmp_path: Path
    ) -> None:
        place = tmp_path / "told"
        inside = bundle.rootfs / "told"
        bundle.config["hooks"] = {
            name: [self.hook(Path("/told") if name == "startContainer" else place, name)]
            for name in (
                "poststop",
                "poststart",
                "startContainer",
                "createContainer",
                "createRuntime",
                "prestart",
            )
        }
        bundle.config["annotations"] = {"a": "b"}
        cid = runtime.create(bundle.sh("exec sleep 100"))
        assert [name for name, _ in self.told(place)] == [
            "prestart",
            "createRuntime",
            "createContainer",
        ]
        assert not inside.exists()
        pid = runtime.state(cid)["pid"]
        runtime.ok("start", cid)
        assert [name for name, _ in self.told(inside)] == ["startContainer"]
        runtime.ok("delete", "--force", cid)
        told = self.told(place)
        assert [name for name, _ in told[3:]] == ["poststart", "poststop"]
        by_name = dict(told + self.told(inside))
        statuses = {name: state["status"] for name, state in by_name.items()}
        assert statuses == {
            "prestart": "creating", "createRuntime": "creating", "createContainer": "creating",
            "startContainer": "created", "poststart": "running", "poststop": "stopped",
        }  # fmt: skip
        assert by_name["prestart"]["pid"] == by_name["poststart"]["pid"] == pid
        assert by_name["createContainer"]["pid"] == by_name["startContainer"]["pid"] == 1
        for state in by_name.values():
            assert (state["id"], state["bundle"], state["annotations"]) == (
                cid,
                str(bundle.path),
                {"a": "b"},
            )

    def test_one_that_fails_is_told_of_with_what_it_said_on_either_stream(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        script = "echo said; echo complained >&2; exit 3"
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script]}
        bundle.config["hooks"] = {"createRuntime": [hook]}
        done = runtime.run(bundle)
        assert "exit status 3, stdout: said, stderr: complained" in done.stderr

    def test_a_failing_start_hook_fails_start(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
        cid = runtime.create(bundle.sh("echo never"))
        pid = runtime.state(cid)["pid"]
        done = runtime("start", cid)
        assert done.returncode == 1
        assert "startContainer hook #0" in done.stderr
        await_end(pid)
        assert runtime.state(cid)["status"] == "stopped"
        assert (bundle.path / "output").read_text() == ""

    def test_a_failing_poststart_hook_stops_the_container(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.config["hooks"] = {"poststart": [{"path": "/bin/false"}]}
        cid = runtime.create(bundle.sh("exec sleep 100"))
        assert "poststart hook #0" in runtime("start", cid).stderr
        assert runtime.state(cid)["status"] == "stopped"

    def test_a_failing_poststop_hook_only_warns(
        self, runtime: Runtime, bundle: Bundle, tmp_path: Path
    ) -> None:
        bundle.config["hooks"] = {
            "poststop": [{"path": "/bin/false"}, self.hook(tmp_path / "told", "second")]
        }
        cid = runtime.create(bundle)
        done = runtime("delete", cid)
        assert done.returncode == 0
        assert "level=warning" in done.stderr
        assert (tmp_path / "told").read_text().startswith("second\n")

    def test_a_hook_need_not_read_its_input(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.config["annotations"] = {"long": "x" * 200_000}
        bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/true"}]}
        runtime.output(bundle)

    def test_the_time_of_a_hook_that_does_not_read_a_long_state_is_up_as_well(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.config["annotations"] = {"long": "x" * 200_000}
        hook = {"path": "/bin/sleep", "args": ["sleep", "50"], "timeout": 1}
        bundle.config["hooks"] = {"createRuntime": [hook]}
        done = runtime.run(bundle, timeout=40)
        assert "ran longer than its timeout of 1 seconds" in done.stderr

    def test_a_timeout_longer_than_the_kernel_waits_is_no_error(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        hook = {"path": "/bin/true", "timeout": (1 << 63) - 1}
        bundle.config["hooks"] = {"createRuntime": [hook], "poststop": [hook]}
        done = runtime.run(bundle)
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_long_state_is_given_as_a_whole(
        self, runtime: Runtime, bundle: Bundle, tmp_path: Path
    ) -> None:
        bundle.config["annotations"] = {"long": "x" * 200_000}
        bundle.config["hooks"] = {"createRuntime": [self.hook(tmp_path / "told", "long")]}
        runtime.output(bundle)
        ((_, state),) = self.told(tmp_path / "told")
        assert state["annotations"] == bundle.config["annotations"]

    @pytest.mark.parametrize("point", ["createRuntime", "poststop"])
    def test_a_hook_has_the_environment_it_is_given(
        self, runtime: Runtime, bundle: Bundle, tmp_path: Path, point: str
    ) -> None:
        script = f"env >{tmp_path}/env"
        entries = ["A=0", "A=1", "B=x=y", "NONE", "=C", ""]
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": entries}
        bundle.config["hooks"] = {point: [hook]}
        runtime.output(bundle)
        found = set((tmp_path / "env").read_text().splitlines())
        assert {"A=1", "B=x=y"} <= found
        assert not any(line.startswith(("NONE", "=C")) for line in found)
        assert not any(line.startswith("PYTHON") for line in found)
