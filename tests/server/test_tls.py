"""Certificates that change while the registry serves."""

from __future__ import annotations

import pathlib
import socket
import ssl
import threading

from tests.server.certificates import certificate
from tests.server.replicas import running


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


def test_a_new_certificate_is_served_without_a_restart(tmp_path: pathlib.Path) -> None:
    files = certificate(tmp_path)
    first = ssl.PEM_cert_to_DER_cert(pathlib.Path(files["certificate"]).read_text())
    with running(tmp_path / "server", {"listen": {"port": 0, "tls": files}}) as server:
        assert served(server.address) == first
        certificate(tmp_path)
        second = ssl.PEM_cert_to_DER_cert(pathlib.Path(files["certificate"]).read_text())
        assert second != first
        patience, in_a_row = threading.Event(), 0
        for _ in range(600):  # the old worker finishes beside the new one for a moment
            in_a_row = in_a_row + 1 if served(server.address) == second else 0
            if in_a_row == 20:
                break
            patience.wait(0.05)
        assert in_a_row == 20
        assert server.process.poll() is None
