"""The life of a container on the real kernel: operations, states, hooks, failures that leave nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from argosy.runtime.container import Container
from tests.runtime.bundlekit import Bundle, Runtime, alive, await_end, cgroups_of

# Names of their own, since cgroups are the whole machine's.
FAILING, TORN, EARLY, FLAGS, LOGGED = (
    f"{name}{os.getpid()}" for name in ("failing", "torn", "early", "flags", "logged")
)

# The command, killed as soon as it has made a cgroup.
KILLED_AT_THE_CGROUP = """
import os, sys
from argosy.runtime import cli
from argosy.runtime.cgroups.cgroup import Cgroup
make = Cgroup._make
def torn(*words):
    make(*words)
    os.kill(os.getpid(), 9)
Cgroup._make = torn
cli.main(sys.argv)
"""


def pids_of(place: str) -> str:
    path = Path(f"{place}/cgroup.procs")
    return path.read_text() if path.exists() else ""


def nothing_left(runtime: Runtime, bundle: Bundle, cid: str) -> None:
    assert not (runtime.root / cid).exists()
    assert cgroups_of(cid) == []
    assert str(bundle.rootfs) not in Path("/proc/self/mountinfo").read_text()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                assert cid.encode() not in Path(f"/proc/{entry}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue


def test_create_start_kill_delete(runtime: Runtime, bundle: Bundle) -> None:
    os.mkfifo(bundle.rootfs / "told")
    cid = runtime.create(bundle.sh("echo started >/told; exec sleep 100"))
    state = runtime.state(cid)
    assert (state["ociVersion"], state["id"], state["status"]) == ("1.3.0", cid, "created")
    assert state["bundle"] == str(bundle.path)
    assert state["rootfs"] == str(bundle.rootfs)
    assert state["pid"] > 0
    told = os.open(bundle.rootfs / "told", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(told, 1) == b"", "nobody writes before start"
    os.close(told)
    runtime.ok("start", cid)
    assert runtime.state(cid)["status"] == "running"
    assert (bundle.rootfs / "told").read_text() == "started\n"
    runtime.ok("kill", cid, "KILL")
    await_end(state["pid"])
    assert runtime.state(cid)["status"] == "stopped"
    assert runtime.state(cid)["pid"] == 0
    runtime.ok("delete", cid)
    assert runtime("state", cid).stderr.strip().endswith('msg="container does not exist"')
    nothing_left(runtime, bundle, cid)


def test_a_changed_configuration_has_no_effect_after_create(
    runtime: Runtime, bundle: Bundle
) -> None:
    cid = runtime.create(bundle.sh("echo first"))
    bundle.sh("echo second").write()
    pid = runtime.state(cid)["pid"]
    runtime.ok("start", cid)
    await_end(pid)
    assert (bundle.path / "output").read_text() == "first\n"


@pytest.mark.parametrize("word", ["KILL", "SIGKILL", "sigkill", "9", "kill"])
def test_kill_takes_names_and_numbers(runtime: Runtime, bundle: Bundle, word: str) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    pid = runtime.state(cid)["pid"]
    runtime.ok("kill", cid, word)
    await_end(pid)
    assert runtime.state(cid)["status"] == "stopped"


def test_operations_refuse_the_wrong_state(runtime: Runtime, bundle: Bundle) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    assert "cannot start an already running container" in runtime("start", cid).stderr
    assert "that is not stopped: running" in runtime("delete", cid).stderr
    assert "container not paused" in runtime("resume", cid).stderr
    assert "already exists" in runtime("create", "-b", str(bundle.path), cid).stderr
    pid = runtime.state(cid)["pid"]
    runtime.ok("kill", cid, "KILL")
    await_end(pid)
    assert "cannot start a container that has stopped" in runtime("start", cid).stderr
    assert "container not running" in runtime("kill", cid).stderr
    runtime.ok("kill", "--all", cid)
    assert "cannot exec in a stopped container" in runtime("exec", cid, "true").stderr


def test_delete_of_a_created_container_kills_it(runtime: Runtime, bundle: Bundle) -> None:
    cid = runtime.create(bundle)
    pid = runtime.state(cid)["pid"]
    runtime.ok("delete", cid)
    assert not alive(pid)
    nothing_left(runtime, bundle, cid)


def test_delete_force_kills_and_forgives(runtime: Runtime, bundle: Bundle) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    runtime.ok("delete", "--force", cid)
    nothing_left(runtime, bundle, cid)
    runtime.ok("delete", "--force", cid)
    assert "container does not exist" in runtime("delete", cid).stderr


@pytest.fixture
def stopped(bundle: Bundle, tmp_path: Path) -> Path:
    """Where the poststop hook of the bundle writes a line."""
    script = f"echo stopped >>{tmp_path}/told"
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    return tmp_path / "told"


def test_of_many_who_delete_a_container_all_succeed(
    runtime: Runtime, bundle: Bundle, stopped: Path
) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    words = runtime.argv("delete", "--force", cid)
    callers = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    assert {(caller.communicate()[1], caller.returncode) for caller in callers} == {("", 0)}
    assert stopped.read_text() == "stopped\n"
    nothing_left(runtime, bundle, cid)


def test_who_comes_second_to_delete_a_container_has_nothing_to_do(
    runtime: Runtime, bundle: Bundle, stopped: Path
) -> None:
    cid = runtime.create(bundle)
    first, second = (Container.load(str(runtime.root), cid) for _ in range(2))
    first.delete(force=True)
    second.delete(force=True)
    assert stopped.read_text() == "stopped\n"
    nothing_left(runtime, bundle, cid)


def test_run_returns_the_status_of_the_program(runtime: Runtime, bundle: Bundle) -> None:
    assert runtime.run(bundle.sh("exit 7")).returncode == 7
    assert runtime.run(bundle.sh("kill -9 $$")).returncode in (
        0,
        137,
    )  # init ignores it inside its own PID namespace
    bundle.namespace("pid", None)
    assert runtime.run(bundle.sh("kill -9 $$")).returncode == 137


@pytest.mark.parametrize("verbs", [["kill", "delete"], ["delete --force"]])
def test_what_a_container_leaves_in_the_pid_namespace_of_another_ends_with_it(
    runtime: Runtime, bundle: Bundle, verbs: list[str]
) -> None:
    other = runtime.start(runtime.bundle().sh("exec sleep 100"))
    bundle.namespace("pid", f"/proc/{runtime.state(other)['pid']}/ns/pid")
    cid = runtime.start(bundle.sh("sleep 100 & exec sleep 100"))
    pids = {int(pid) for place in cgroups_of(cid) for pid in pids_of(place).split()}
    for verb in verbs:
        runtime.ok(*verb.split(), cid, *(["KILL"] if verb == "kill" else []))
        for pid in pids:
            await_end(pid)
    nothing_left(runtime, bundle, cid)
    assert runtime.state(other)["status"] == "running"


def test_run_forwards_signals(runtime: Runtime, bundle: Bundle) -> None:
    bundle.sh("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done").write()
    words = runtime.argv("run", "-b", str(bundle.path), "sig")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 42


def test_pause_and_resume(runtime: Runtime, bundle: Bundle) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    runtime.ok("pause", cid)
    assert runtime.state(cid)["status"] == "paused"
    assert "cannot exec in a paused container" in runtime("exec", cid, "true").stderr
    runtime.ok("resume", cid)
    assert runtime.state(cid)["status"] == "running"
    runtime.ok("pause", cid)
    pid = runtime.state(cid)["pid"]
    runtime.ok("kill", cid, "KILL")
    await_end(pid)
    assert runtime.state(cid)["status"] == "stopped"


def test_a_created_container_is_paused_before_it_is_created(
    runtime: Runtime, bundle: Bundle
) -> None:
    """`start` would wait for a process that does not run."""
    cid = runtime.create(bundle.sh("exec sleep 100"))
    runtime.ok("pause", cid)
    assert runtime.state(cid)["status"] == "paused"
    assert "cannot start a container in the paused state" in runtime("start", cid).stderr
    assert "not stopped: paused" in runtime("delete", cid).stderr
    runtime.ok("resume", cid)
    assert runtime.state(cid)["status"] == "created"
    runtime.ok("start", cid)
    assert runtime.state(cid)["status"] == "running"


def test_list_and_ps(runtime: Runtime, bundle: Bundle) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    pid = runtime.state(cid)["pid"]
    assert runtime.ok("list", "-q") == f"{cid}\n"
    [entry] = json.loads(runtime.ok("list", "--format", "json"))
    assert (entry["id"], entry["pid"], entry["status"], entry["owner"]) == (
        cid,
        pid,
        "running",
        "root",
    )
    header, row = runtime.ok("list").splitlines()
    assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert row.split()[:3] == [cid, str(pid), "running"]
    assert json.loads(runtime.ok("ps", "--format", "json", cid)) == [pid]


def test_the_pid_file_has_digits_only(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    cid = runtime.create(bundle, "--pid-file", str(tmp_path / "pid"))
    assert (tmp_path / "pid").read_bytes() == b"%d" % runtime.state(cid)["pid"]


@pytest.mark.parametrize("words", [["create"], ["run", "-d"], ["run"]])
def test_a_pid_file_that_cannot_be_written_is_named_and_nothing_is_left(
    runtime: Runtime, bundle: Bundle, stopped: Path, words: list[str]
) -> None:
    cid = runtime.name()
    bundle.write()
    place = ["-b", str(bundle.path), "--pid-file", "/nonexistent/pid"]
    done = runtime(*words, *place, cid)
    assert (done.returncode, "/nonexistent/" in done.stderr) == (1, True)
    assert stopped.read_text() == "stopped\n"
    nothing_left(runtime, bundle, cid)


def test_an_id_must_be_one(runtime: Runtime, bundle: Bundle) -> None:
    bundle.write()
    for cid in ("..", "a/b", "a b", "."):
        done = runtime("create", "-b", str(bundle.path), cid)
        assert done.returncode == 1
        assert "invalid container ID format" in done.stderr
    assert "container id cannot be empty" in runtime("create", "-b", str(bundle.path), "").stderr


def test_options_may_follow_the_id_and_have_one_dash(runtime: Runtime, bundle: Bundle) -> None:
    bundle.write()
    runtime.ok("run", FLAGS, "-bundle", str(bundle.path), "--keep")
    assert runtime.state(FLAGS)["status"] == "stopped"


def test_it_works_with_an_empty_environment(runtime: Runtime, bundle: Bundle) -> None:
    assert (
        runtime.output(bundle.sh("echo $PATH"), env={})
        == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    )


def test_errors_are_json_lines_in_the_log(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["args"] = ["nothing-like-it"]
    bundle.write()
    log = tmp_path / "log.json"
    done = runtime(
        "--log", str(log), "--log-format", "json", "create", "-b", str(bundle.path), LOGGED
    )
    assert done.returncode == 1
    entry = json.loads(log.read_text().splitlines()[-1])
    assert entry["level"] == "error"
    assert 'exec: "nothing-like-it": executable file not found in $PATH' in entry["msg"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["time"])
    assert done.stderr.strip() == entry["msg"]


def test_a_relative_log_lies_where_the_caller_is(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.process["args"] = ["nothing-like-it"]
    bundle.write()
    runtime("--log", "log", "create", "-b", str(bundle.path), LOGGED, cwd=tmp_path)
    assert "executable file not found" in (tmp_path / "log").read_text()
    assert not (bundle.path / "log").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b.process.update(args=["nothing"]), "executable file not found in $PATH"),
        (lambda b: b.process.update(args=["/etc"]), "is a directory"),
        (lambda b: b.process.update(args=["/etc/passwd"]), "permission denied"),
        (lambda b: b.process.update(args=["/none"]), "no such file or directory"),
        (lambda b: b.mount("/data", "none", "/nowhere/at/all", "bind"), "no such file or directory"),
        (lambda b: b.mount("/data", "nofs", "x"), "no such device"),
        (lambda b: b.mount("/data", "tmpfs", "tmpfs", "size=moon"), "Bad value for 'size'"),
        (lambda b: b.config["root"].update(path="none"), "invalid rootfs"),
        (lambda b: b.linux.update(sysctl={"net.ipv4.nothing": "1"}), "sys/net/ipv4/nothing"),
        (lambda b: b.namespace("network", "/proc/self/ns/uts"), "is not a network namespace"),
        (lambda b: b.config.update(hooks={"createRuntime": [{"path": "/bin/false"}]}), "createRuntime hook #0"),
        (lambda b: b.config.update(hooks={"createContainer": [{"path": "/bin/false"}]}), "createContainer hook #0"),
        (lambda b: b.config.update(hooks={"prestart": [{"path": "/bin/sleep", "args": ["s", "60"], "timeout": 1}]}), "longer"),
        (lambda b: b.linux.update(devices=[{"path": "/etc", "type": "c", "major": 1, "minor": 3}]), "/etc"),
    ],
)  # fmt: skip
def test_a_failed_create_says_why_and_leaves_nothing(
    runtime: Runtime, bundle: Bundle, change: Any, why: str
) -> None:
    change(bundle)
    bundle.write()
    done = runtime("create", "-b", str(bundle.path), FAILING)
    assert done.returncode == 1
    assert why in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    nothing_left(runtime, bundle, FAILING)


def test_a_killed_create_leaves_what_delete_force_removes(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    bundle.config["hooks"] = {
        "createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", f"echo $$ >{gate}; exec sleep 100"]}
        ]
    }
    bundle.write()
    words = runtime.argv(
        "create",
        "-b",
        str(bundle.path),
        TORN,
    )
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        hook = int(gate.read_text())
        process.kill()
        process.wait()
    os.kill(hook, signal.SIGKILL)
    assert cgroups_of(TORN)
    for pid in {int(pid) for place in cgroups_of(TORN) for pid in pids_of(place).split()}:
        await_end(pid)
    runtime.ok("delete", "--force", TORN)
    nothing_left(runtime, bundle, TORN)


def test_a_create_killed_before_there_is_a_process_leaves_no_cgroup_that_delete_does_not_know(
    runtime: Runtime, bundle: Bundle
) -> None:
    bundle.write()
    words = ["--root", str(runtime.root), "create", "-b", str(bundle.path), EARLY]
    done = subprocess.run([sys.executable, "-c", KILLED_AT_THE_CGROUP, *words], check=False)
    assert done.returncode == -signal.SIGKILL
    assert cgroups_of(EARLY)
    runtime.ok("delete", "--force", EARLY)
    nothing_left(runtime, bundle, EARLY)


@pytest.mark.parametrize("words", [["create"], ["run", "-d"]])
def test_a_create_that_is_terminated_leaves_nothing(
    runtime: Runtime, bundle: Bundle, tmp_path: Path, words: list[str]
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo $$ >{gate}; exec sleep 100"]}
    bundle.config["hooks"] = {"createRuntime": [hook]}
    bundle.write()
    cid = runtime.name()
    command = runtime.argv(*words, "-b", str(bundle.path), cid)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        pid = int(gate.read_text())
        process.terminate()
        assert process.wait() == 130
    await_end(pid)
    nothing_left(runtime, bundle, cid)


def test_start_tells_that_the_program_could_not_be_executed(
    runtime: Runtime, bundle: Bundle
) -> None:
    (bundle.rootfs / "script").write_text("#!/no/such/interpreter\n")
    (bundle.rootfs / "script").chmod(0o755)
    bundle.process["args"] = ["/script"]
    cid = runtime.create(bundle)
    assert "exec /script: no such file or directory" in runtime("start", cid).stderr


def test_update_changes_limits_and_keeps_the_others(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 20}
    cid = runtime.start(bundle.sh("exec sleep 100"))
    runtime.ok("update", "--pids-limit", "30", cid)
    runtime.ok(
        "update", "--resources", "-", cid, input=json.dumps({"cpu": {"shares": 100}}), stdin=None
    )
    saved = json.loads((runtime.root / cid / "config.json").read_text())["linux"]["resources"]
    assert (saved["pids"], saved["cpu"]) == ({"limit": 30}, {"shares": 100})
    [place] = [place for place in cgroups_of(cid) if os.path.exists(f"{place}/pids.max")]
    assert Path(f"{place}/pids.max").read_text() == "30\n"


def test_events_tell_statistics_once(runtime: Runtime, bundle: Bundle) -> None:
    cid = runtime.start(bundle.sh("exec sleep 100"))
    event = json.loads(runtime.ok("events", "--stats", cid))
    assert (event["type"], event["id"]) == ("stats", cid)
    assert event["data"]["pids"]["current"] == 1


def test_features_and_version_and_spec(runtime: Runtime, tmp_path: Path) -> None:
    assert json.loads(runtime.ok("features"))["ociVersionMax"] == "1.3.0"
    first, second, third = runtime.ok("--version").splitlines()
    assert re.fullmatch(r"argosy-runtime version \d+\.\d+\.\d+.*", first)
    assert second.startswith("commit: ")
    assert third == "spec: 1.3.0"
    runtime.ok("spec", "-b", str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["process"]["args"] == ["sh"]
    assert "File config.json exists" in runtime("spec", "-b", str(tmp_path)).stderr


def test_usage_errors_are_one_line(runtime: Runtime) -> None:
    for words, why in [
        (["state"], "requires a minimum of 1 argument"),
        (["state", "a", "b"], "requires exactly 1 argument"),
        (["create", "--nonsense", "x"], "flag provided but not defined: -nonsense"),
        (["restore", "--lsm-mount-context"], "flag needs an argument"),
        (["frobnicate"], "No help topic for 'frobnicate'"),
        (["kill", "x", "MOON"], 'unknown signal \\"MOON\\"'),
        (["--log-format", "xml", "list"], "invalid log-format: xml"),
        (["--rootless", "maybe", "run", "x"], "config.json not found"),
    ]:
        done = runtime(*words)
        assert done.returncode == 1
        assert why in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_program_only_others_may_execute_runs_with_the_capability_to_override(
    runtime: Runtime, bundle: Bundle
) -> None:
    program = bundle.rootfs / "bin/true"
    program.unlink()
    program.write_bytes((bundle.rootfs / "bin/busybox").read_bytes())
    program.chmod(0o744)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["args"] = ["/bin/true"]
    assert "permission denied" in runtime.run(bundle).stderr
    kinds = ("bounding", "effective", "inheritable", "permitted", "ambient")
    bundle.process["capabilities"] = {kind: ["CAP_DAC_OVERRIDE"] for kind in kinds}
    assert runtime.run(bundle).returncode == 0
