"""Certificates that change while the registry serves."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import ssl
import threading

import pytest

from argosy.errors import InvalidConfigError
from argosy.server import certificates
from argosy.server.settings import Tls
from tests.server.certificates import certificate
from tests.server.replicas import Running, ask, running

PATIENCE = threading.Event()


def served(address: str) -> bytes | None:
    """The certificate a registry shows, in DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None  # the old worker's last moment


def wait_to_be_served(server: Running, wanted: bytes) -> None:
    in_a_row = 0
    for _ in range(2400):  # the old worker finishes beside the new one, for half a minute at most
        in_a_row = in_a_row + 1 if served(server.address) == wanted else 0
        if in_a_row == 20:
            return
        PATIENCE.wait(0.05)
    raise AssertionError(server.log())


def test_a_new_certificate_is_served_without_a_restart(tmp_path: pathlib.Path) -> None:
    files = certificate(tmp_path)
    first = ssl.PEM_cert_to_DER_cert(pathlib.Path(files["certificate"]).read_text())
    with running(tmp_path / "server", {"listen": {"port": 0, "tls": files}}) as server:
        assert served(server.address) == first
        certificate(tmp_path)
        second = ssl.PEM_cert_to_DER_cert(pathlib.Path(files["certificate"]).read_text())
        assert second != first
        wait_to_be_served(server, second)
        assert server.process.poll() is None


def wait_for(server: Running, said: str) -> None:
    for _ in range(600):
        if said in server.log():
            return
        PATIENCE.wait(0.05)
    raise AssertionError(server.log())


def kill_workers(server: Running) -> None:
    """What is begun instead reads files and certificate anew."""
    folder = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}")
    workers = [int(pid) for pid in (folder / "children").read_text().split()]
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(server, "Unexpected exit")


def test_half_a_new_certificate_is_not_taken_up_and_the_whole_one_is(
    tmp_path: pathlib.Path,
) -> None:
    files = certificate(tmp_path)
    (tmp_path / "new").mkdir()
    new = certificate(tmp_path / "new")
    first, second = (
        ssl.PEM_cert_to_DER_cert(pathlib.Path(one["certificate"]).read_text())
        for one in (files, new)
    )
    listen = {"port": 0, "workers": 2, "tls": files}
    with running(tmp_path / "server", {"listen": listen}) as server:
        shutil.copy(new["certificate"], files["certificate"])
        wait_for(server, "the key does not belong to the certificate")
        assert {served(server.address) for _ in range(20)} == {first}, server.log()
        kill_workers(server)
        wait_to_be_served(server, first)
        shutil.copy(new["key"], files["key"])
        wait_to_be_served(server, second)
        assert server.process.poll() is None


def test_a_reload_that_could_not_serve_leaves_the_registry_as_it_is(tmp_path: pathlib.Path) -> None:
    users = tmp_path / "users"
    users.write_text("")
    document = {"listen": {"port": 0}, "access": {"anonymous": "pull", "htpasswd": str(users)}}
    with running(tmp_path / "server", document) as server:
        users.write_text("bob:$apr1$not$bcrypt\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "going on as before")
        assert {ask(server.address, "GET", "/livez").status for _ in range(20)} == {200}
        kill_workers(server)
        wait_for(server, "a worker waits")
        users.write_text("")
        for _ in range(600):
            with contextlib.suppress(OSError):
                assert ask(server.address, "GET", "/livez").status == 200
                break
            PATIENCE.wait(0.05)
        else:
            raise AssertionError(server.log())
        assert server.process.poll() is None


def test_what_is_wrong_with_a_certificate_is_said_in_words(tmp_path: pathlib.Path) -> None:
    (tmp_path / "other").mkdir()
    files, other = certificate(tmp_path), certificate(tmp_path / "other")
    junk = tmp_path / "junk"
    junk.write_text("junk")
    certificates.Copy(Tls(**files, client_ca=other["certificate"]))
    for change, message in [
        ({"key": other["key"]}, "tls.key: the key does not belong to the certificate"),
        ({"key": str(junk)}, "junk: no private key in PEM without a password"),
        ({"key": "nowhere"}, "nowhere: No such file"),
        ({"certificate": str(junk)}, "junk: no certificate in PEM"),
        ({"certificate": "nowhere"}, "nowhere: No such file"),
        ({"client_ca": str(junk)}, "junk: no certificate in PEM"),
        ({"client_ca": "nowhere"}, "nowhere: No such file"),
    ]:
        with pytest.raises(InvalidConfigError, match=message):
            certificates.Copy(Tls(**(files | change)))
