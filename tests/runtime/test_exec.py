"""One more process in a container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runtime.bundlekit import Bundle, Runtime


class TestExec:
    @pytest.fixture
    def cid(self, runtime: Runtime, bundle: Bundle) -> str:
        return runtime.start(bundle.sh("exec sleep 1000"))

    def test_it_is_inside(self, runtime: Runtime, cid: str) -> None:
        script = "cat /proc/1/cmdline; readlink /proc/self/ns/pid /proc/1/ns/pid; hostname; ls /"
        output = runtime.ok("exec", cid, "sh", "-c", script)
        assert output.startswith("sleep")
        assert "\nbin\n" in output

    def test_its_status_is_ours(self, runtime: Runtime, cid: str) -> None:
        assert runtime("exec", cid, "sh", "-c", "exit 9").returncode == 9
        assert runtime("exec", cid, "sh", "-c", "kill -9 $$").returncode == 137

    def test_a_failure_of_ours_is_255(self, runtime: Runtime, cid: str) -> None:
        done = runtime("exec", cid, "nothing")
        assert done.returncode == 255
        why = (
            'unable to start container process: exec: "nothing": executable file not found in $PATH'
        )
        assert f"exec failed: {why}" in done.stderr.replace("\\", "")

    def test_options(self, runtime: Runtime, cid: str) -> None:
        script = "pwd; id -u; id -g; id -G; echo $A"
        words = ("--cwd", "/tmp", "-u", "1000:1001", "-g", "7", "-e", "A=b")
        assert runtime.ok("exec", *words, cid, "sh", "-c", script).split() == [
            "/tmp",
            "1000",
            "1001",
            "1001",
            "7",
            "b",
        ]

    def test_options_after_the_id_are_the_commands(self, runtime: Runtime, cid: str) -> None:
        assert runtime.ok("exec", cid, "echo", "-e", "x", "--tty") == "x --tty\n"

    def test_a_process_file(self, runtime: Runtime, cid: str, tmp_path: Path) -> None:
        process = {
            "args": ["sh", "-c", "id -u; pwd"],
            "cwd": "/tmp",
            "user": {"uid": 5},
            "env": ["PATH=/bin"],
        }
        (tmp_path / "process.json").write_text(json.dumps(process))
        assert runtime.ok("exec", "-p", str(tmp_path / "process.json"), cid) == "5\n/tmp\n"

    def test_capabilities_are_added_but_never_inheritable(self, runtime: Runtime, cid: str) -> None:
        output = runtime.ok(
            "exec", "--cap", "CAP_SYS_TIME", cid, "grep", "Cap", "/proc/self/status"
        )
        found = dict(text.split() for text in output.splitlines())
        assert int(found["CapEff:"], 16) >> 25 & 1
        assert int(found["CapInh:"], 16) == int(found["CapAmb:"], 16) == 0

    def test_it_is_in_the_containers_cgroups(self, runtime: Runtime, cid: str) -> None:
        output = runtime.ok("exec", cid, "cat", "/proc/self/cgroup")
        assert all(cid in text for text in output.splitlines() if text.split(":")[1] != "cpuset")

    def test_detached_it_stays(self, runtime: Runtime, cid: str, tmp_path: Path) -> None:
        runtime.ok(
            "exec",
            "-d",
            "--pid-file",
            str(tmp_path / "pid"),
            cid,
            "sleep",
            "500",
            capture_output=False,
        )
        assert int((tmp_path / "pid").read_text()) in json.loads(
            runtime.ok("ps", "--format", "json", cid)
        )

    def test_in_a_user_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        other = runtime.bundle()
        other.userns()
        cid = runtime.start(other.sh("exec sleep 1000"))
        assert runtime.ok("exec", cid, "sh", "-c", "id -u; cat /proc/self/uid_map").split()[:3] == [
            "0",
            "0",
            "100000",
        ]

    def test_limits_and_privileges_of_the_configuration_hold(
        self, runtime: Runtime, cid: str
    ) -> None:
        output = runtime.ok(
            "exec", cid, "sh", "-c", "grep NoNew /proc/self/status; grep files /proc/self/limits"
        )
        assert output.split()[:2] == ["NoNewPrivs:", "1"]
        assert "1024" in output

    def test_an_affinity_that_the_machine_does_not_have_is_named(
        self, runtime: Runtime, cid: str, tmp_path: Path
    ) -> None:
        for which in ("initial", "final"):
            process = {"args": ["true"], "cwd": "/", "execCPUAffinity": {which: "1023"}}
            (tmp_path / "p").write_text(json.dumps(process))
            done = runtime("exec", "-p", str(tmp_path / "p"), cid)
            assert f"error setting the {which} CPU affinity" in done.stderr

    def test_cpu_affinity(self, runtime: Runtime, cid: str, tmp_path: Path) -> None:
        process = {
            "args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
            "cwd": "/",
            "env": ["PATH=/bin"],
        }
        process["execCPUAffinity"] = {"initial": "0", "final": "0"}  # type: ignore[assignment]
        (tmp_path / "p").write_text(json.dumps(process))
        assert runtime.ok("exec", "-p", str(tmp_path / "p"), cid).split() == [
            "Cpus_allowed_list:",
            "0",
        ]
