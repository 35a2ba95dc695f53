"""The filter of system calls at work; `test_seccomp_filter` has what it is made of."""

from __future__ import annotations

import array
import json
import os
from pathlib import Path

from tests.runtime.bundlekit import Bundle, Runtime, listener


def test_seccomp_stops_a_call(runtime: Runtime, bundle: Bundle) -> None:
    for no_new_privileges in (True, False):
        bundle.process["noNewPrivileges"] = no_new_privileges
        bundle.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
            ],
        }
        assert "not supported" in runtime.output(
            bundle.sh("mkdir /x 2>&1 || true; grep Seccomp: /proc/self/status")
        )


def test_a_seccomp_listener_is_sent_with_the_state(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(tmp_path / "agent"), "listenerMetadata": "mine",
        "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_NOTIFY"}],
    }  # fmt: skip
    for index, no_new_privileges in enumerate((True, False)):
        bundle.process["noNewPrivileges"] = no_new_privileges
        (tmp_path / "agent").unlink(missing_ok=True)
        with listener(tmp_path / "agent") as end:
            cid = runtime.create(bundle.sh("exec sleep 100"), cid=f"notify{os.getpid()}-{index}")
            connection, _ = end.accept()
            with connection:
                text, ancillary, _, _ = connection.recvmsg(65536, 1024)
            told = json.loads(text)
            assert (told["metadata"], told["fds"], told["state"]["id"]) == (
                "mine",
                ["seccompFd"],
                cid,
            )
            assert told["pid"] == runtime.state(cid)["pid"]
            assert (
                os.readlink(f"/proc/self/fd/{array.array('i', ancillary[0][2])[0]}")
                == "anon_inode:seccomp notify"
            )
            os.close(array.array("i", ancillary[0][2])[0])


def test_a_filter_of_an_older_time_does_not_stop_the_set_up(
    runtime: Runtime, bundle: Bundle
) -> None:
    """Without no_new_privs the filter is loaded early: what init does after it must do without newer calls."""
    newer = [
        "faccessat2",
        "close_range",
        "openat2",
        "clone3",
        "statx",
        "fsopen",
        "open_tree",
        "move_mount",
    ]
    bundle.process["noNewPrivileges"] = False
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    for errno_ret in (1, 38):
        rule = {"names": newer, "action": "SCMP_ACT_ERRNO", "errnoRet": errno_ret}
        bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        assert runtime.output(bundle.sh("echo $HOME; ls /proc/self/fd | wc -l")) == "/home\n4\n"


def test_the_filter_holds_for_hooks_in_the_container(runtime: Runtime, bundle: Bundle) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/x"]}]}
    assert "error running startContainer hook #0: exit status 1" in runtime.run(bundle).stderr
