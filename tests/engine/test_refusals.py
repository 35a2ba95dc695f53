"""What is typed wrongly after `argosy run` is told before the image is looked for."""

from __future__ import annotations

import os
import pathlib

import pytest

from argosy.cli.main import call
from argosy.cli.options import environment
from argosy.cli.run import _from_files


@pytest.fixture(autouse=True)
def engine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of its own, whose runtime is never called."""
    if os.geteuid() != 0:
        pytest.skip("refusals: who is not root is told by a process in a user namespace")
    monkeypatch.setenv("ARGOSY_ROOT", str(tmp_path / "engine"))
    monkeypatch.setenv("ARGOSY_RUNTIME", "/nonexistent-runtime")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--stop-signal", "NOPE", "signal 'NOPE'"),
        ("--memory", "1k", "memory of 1024 bytes"),
        ("--memory", "99999999t", "size '99999999t'"),
        ("--cpus", "nan", "cpus nan"),
        ("--cpus", "inf", "cpus inf"),
        ("--pids-limit", "9" * 20, "pids limit"),
        ("--shm-size", "0", "expected more than 0"),
        ("--shm-size", "much", "size 'much'"),
        ("--ulimit", "nofile", "ulimit 'nofile'"),
        ("--ulimit", "nosuch=1", "ulimit 'nosuch=1'"),
        ("--ulimit", "nofile=2:1", "above the hard one"),
        ("--ulimit", "nofile=-1:1", "above the hard one"),
        ("--group-add", "", "group ''"),
        ("--group-add", "99999999999", "group 99999999999"),
        ("--sysctl", "net.core.somaxconn", "expected NAME=value"),
        ("--sysctl", "=1", "sysctl '=1'"),
        ("--sysctl", "vm.swappiness=1", '"vm.swappiness" is not in a separate kernel namespace'),
        ("--sysctl", "kernel.hostname=x", "kernel.hostname"),
        ("--sysctl", "user.max_user_namespaces=1", "user.max_user_namespaces"),
        ("--sysctl", "net.//.kernel.panic=1", "is not the name of a sysctl"),
        ("--sysctl", "net/../kernel/panic=1", "is not the name of a sysctl"),
        ("--mount", "type=volume,src=v,dst=/v", "has no 'volume'"),
        ("--mount", "type=tmpfs,dst=/tmp", "/tmp: two mounts"),
        ("--device", "fuse", "device 'fuse': expected /HOST"),
        ("--device", "/dev/null:fuse", "absolute path"),
        ("--device", "/dev/null:/dev/x:rr", "PERMISSIONS"),
        ("--device", "/dev/null:/dev/x:r:w", "PERMISSIONS"),
        ("--device", "/nonexistent", "device /nonexistent: no such file"),
        ("--device", "/etc/passwd", "it is no device"),
        ("--device", "/etc/ssl", "it is no device"),
        ("--cap-add", "nosuch", "capability 'nosuch'"),
        ("--cap-drop", "nosuch", "capability 'nosuch'"),
        ("--security-opt", "nosuch=1", "security option 'nosuch=1'"),
        ("--security-opt", "no-new-privileges=perhaps", "'true' or 'false'"),
        ("--security-opt", "systempaths", "'unconfined'"),
        ("--security-opt", "label=", "label=VALUE"),
        ("--security-opt", "seccomp=/nonexistent", "/nonexistent: no such file"),
        ("--security-opt", "seccomp:/bin/sh", "seccomp profile /bin/sh"),
        ("--env", "=x", "env '=x'"),
        ("--label", "=x", "label '=x'"),
        ("--workdir", "relative", "an absolute path"),
        ("--user", "a:b:c", "user 'a:b:c'"),
        ("--user", "99999999999", "user 99999999999"),
        ("--hostname", "two words", "host name 'two words'"),
        ("--name", "-", "container name"),
        ("--tmpfs", "relative", "an absolute path"),
        ("--tmpfs", "/t:size=much", "'size=much'"),
        ("--tmpfs", "/t:bind", "'bind'"),
        ("--volume", "/a:/b:maybe", "'maybe'"),
        ("--volume", "/a:/tmp", "/tmp: two mounts"),
        ("--add-host", "name", "IP address"),
        ("--add-host", "name=", "IP address"),
        ("--add-host", "a b:1.2.3.4", "NAME:ADDRESS"),
        ("--add-host", "a=b", "IP address"),
        ("--dns", "name", "IP address"),
        ("--publish", "99999", "port '99999'"),
        ("--network", "pasta", "network pasta is for users other than root"),
        ("--platform", "linux/", "linux/"),
    ],
)
def test_what_is_typed_wrongly_is_told_before_the_image_is_looked_for(
    capsys: pytest.CaptureFixture[str], option: str, value: str, words: str
) -> None:
    argv = ["run", "--tmpfs", "/tmp", option, value, "oci:/nonexistent-image:v1", "true"]
    assert call(argv) == 125
    told = capsys.readouterr().err
    assert words in told
    assert "nonexistent-image" not in told
    assert len([line for line in told.splitlines() if not line.startswith("hint: ")]) == 1


def test_what_is_typed_rightly_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "--tmpfs", "/tmp", "oci:/nonexistent-image:v1", "true"]) == 125
    assert "/nonexistent-image" in capsys.readouterr().err


def test_a_file_that_holds_no_seccomp_profile_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "profile").write_text("{}")
    option = f"seccomp={tmp_path}/profile"
    assert call(["run", "--security-opt", option, "oci:/nonexistent-image:v1"]) == 125
    assert f"expected a defaultAction (seccomp profile {tmp_path}" in capsys.readouterr().err


def test_this_machine_has_no_address_where_there_is_no_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = ["--add-host", "machine:host-gateway"]
    assert call(["run", "--network", "none", *host, "oci:/nonexistent-image:v1"]) == 125
    assert "no address with --network none\nhint: --network bridge" in capsys.readouterr().err


def test_a_file_of_variables_keeps_what_follows_a_value_and_has_no_space_in_a_name(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "1")
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbfA=1\r\n  # no\n\n\tB= x=y \nOURS\nNOSUCH\n")
    assert _from_files([str(file)]) == ["A=1", "B= x=y ", "OURS", "NOSUCH"]
    assert environment(_from_files([str(file)])) == ["A=1", "B= x=y ", "OURS=1"]
    file.write_text("A B=1\n")
    assert call(["run", "--env-file", str(file), "oci:/nonexistent-image:v1"]) == 125
    assert "'A B=1': expected NAME=value" in capsys.readouterr().err
