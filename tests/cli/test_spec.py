"""`argosy spec` and `argosy runtime-check` on the command line."""

from __future__ import annotations

import json
import pathlib

from tests.cli.conftest import Run


def test_spec_writes_the_default_once_and_edits_it_in_place(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    argosy("spec", "-b", tmp_path)
    written = tmp_path / "config.json"
    first = json.loads(written.read_text())
    done = argosy("spec", "-b", tmp_path, code=1)
    assert "exists" in done.err
    argosy(
        "spec", "-b", tmp_path, "-f", written, "--no-terminal", "-m", "64m", "--memory-swap", "-1", "--cpus", "0.5",
        "-u", "5:6:7,8", "-e", "A=b", "--env-rm", "TERM", "--rlimit", "nofile=5:6", "--cap-drop", "all", "--uidmap",
        "0:1000:10", "--hook", "poststop=/bin/clean -a", "--set", "process.umask=1", "--", "sleep", "9", code=1,
    )  # fmt: skip
    assert json.loads(written.read_text()) == first
    argosy(
        "spec", "-b", tmp_path, "-f", written, "--no-terminal", "-m", "64m", "--memory-swap", "-1", "--cpus", "0.5",
        "-u", "5:6:7,8", "-e", "A=b", "--env-rm", "TERM", "--rlimit", "nofile=5:6", "--cap-drop", "all", "--uidmap",
        "0:1000:10", "--hook", "poststop=/bin/clean -a", "--set", "process.user.umask=18", "--", "sleep", "9",
    )  # fmt: skip
    made = json.loads(written.read_text())
    assert made["process"]["args"] == ["sleep", "9"]
    assert made["process"]["terminal"] is False
    assert made["process"]["user"] == {"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 18}
    assert made["process"]["env"][-1] == "A=b"
    assert made["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": 6, "soft": 5}]
    assert made["linux"]["resources"]["memory"] == {"limit": 64 << 20, "swap": -1}
    assert made["linux"]["resources"]["cpu"] == {"quota": 50000, "period": 100000}
    assert made["linux"]["uidMappings"] == made["linux"]["gidMappings"]
    assert made["hooks"] == {"poststop": [{"path": "/bin/clean", "args": ["/bin/clean", "-a"]}]}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config.json"]


def test_spec_goes_to_stdout_for_somebody_without_rights(argosy: Run) -> None:
    made = argosy("spec", "-o", "-", "--rootless", "--seccomp", "default").json
    assert {"type": "user"} in made["linux"]["namespaces"]
    assert made["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


def test_an_option_that_makes_no_sense_is_named(argosy: Run) -> None:
    for words, why in (
        (("-e", "A"), "--env: expected NAME=VALUE, got 'A'"),
        (("-m", "lots"), "--memory: expected a size"),
        (("-u", "root"), "--user: expected UID"),
        (("--uidmap", "0:1"), "--uidmap: expected CONTAINER:HOST:SIZE"),
        (("--rlimit", "cpu=x"), "--rlimit: expected SOFT:HARD"),
        (("--device", "/etc/passwd"), "--device: /etc/passwd is no device"),
    ):
        assert why in argosy("spec", "-o", "-", *words, code=64).err


def test_runtime_check_says_what_would_be_refused(argosy: Run, tmp_path: pathlib.Path) -> None:
    argosy("spec", "-b", tmp_path)
    assert "rootfs is no directory" in argosy("runtime-check", tmp_path, code=1).out
    (tmp_path / "rootfs").mkdir()
    config = json.loads((tmp_path / "config.json").read_text())
    config["linux"]["rootfsPropogation"] = "shared"
    (tmp_path / "config.json").write_text(json.dumps(config))
    findings = argosy("runtime-check", "--json", tmp_path).json
    assert {"verdict", "where", "why", "source"} == set(findings[-1])
    assert findings[-1]["where"] == "linux.rootfsPropogation"
    argosy("runtime-check", "--strict", tmp_path, code=1)
