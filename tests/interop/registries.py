"""Real registries of other projects, started on loopback, each with its own directory and port."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import ipaddress
import json
import pathlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from tests.conftest import find_peer

KINDS = ("docker-registry", "registry", "zot", "olareg", "argosy")
"""Debian's docker-registry (distribution 2.8), the CNCF distribution 3, zot, olareg, and our own."""


@dataclasses.dataclass
class Running:
    """A registry that runs."""

    name: str
    kind: str
    process: subprocess.Popen[bytes]
    folder: pathlib.Path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def _distribution(folder: pathlib.Path, port: int, http: str, extra: str) -> list[str]:
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{folder}/data'}}, "
        f"delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'{http}}}\n{extra}"
    )
    return ["serve", str(config)]


def _zot(folder: pathlib.Path, port: int) -> list[str]:
    config = folder / "config.json"
    config.write_text(
        json.dumps(
            {
                "distSpecVersion": "1.1.1",
                "storage": {"rootDirectory": f"{folder}/data", "gc": False},
                "http": {"address": "127.0.0.1", "port": str(port)},
                "log": {"level": "error"},
            }
        )
    )
    return ["serve", str(config)]


def _olareg(folder: pathlib.Path, port: int) -> list[str]:
    return [
        "serve",
        "--addr",
        "127.0.0.1",
        "--port",
        str(port),
        "--dir",
        f"{folder}/data",
        "--api-delete",
    ]


def _argosy(folder: pathlib.Path, port: int) -> list[str]:
    return [
        "-m",
        "argosy",
        "serve",
        "--port",
        str(port),
        "--data",
        f"{folder}/data",
        "--no-access-log",
    ]


@contextlib.contextmanager
def running(
    kind: str, folder: pathlib.Path, *, http: str = "", extra: str = "", port: int = 0
) -> Iterator[Running]:
    """Start a registry; the test is skipped, by name, where it is not installed.

    Args:
        kind: One of `KINDS`.
        folder: Where it keeps everything.
        http: More of `http:` in distribution's configuration, beginning with a comma.
        extra: More top-level lines of distribution's configuration.
        port: Its port; a free one if 0.
    """
    program = sys.executable if kind == "argosy" else find_peer(kind)
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    if kind in {"docker-registry", "registry"}:
        arguments = _distribution(folder, port, http, extra)
    else:
        arguments = {"zot": _zot, "olareg": _olareg, "argosy": _argosy}[kind](folder, port)
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log, cwd=folder)
    try:
        listening(port, process, folder)
        yield Running(f"localhost:{port}", kind, process, folder)
    finally:
        process.terminate()
        process.wait(10)


def listening(port: int, process: subprocess.Popen[bytes], folder: pathlib.Path) -> None:
    until = time.monotonic() + 20
    pause = threading.Event()
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError((folder / "log").read_text()[-2000:])
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        pause.wait(0.02)
    raise AssertionError("it does not listen")


@dataclasses.dataclass
class Authority:
    """A certificate authority in a directory of PEM files."""

    folder: pathlib.Path

    def __post_init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca_file = self._write("ca", self._key, None)

    def issue(self, name: str, days: int = 1) -> tuple[str, str]:
        """A certificate for this machine, and its key: two paths. Less than no days: it was valid once."""
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(name, key, "localhost", days), str(self.folder / f"{name}.key")

    def _write(self, name: str, key: object, host: str | None, days: int = 1) -> str:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.x509.oid import NameOID

        now = dt.datetime.now(dt.UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) if host else issuer
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())  # type: ignore[attr-defined]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1 if days > 0 else 9))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host:
            addresses = [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1")]
            names = [x509.DNSName(host), *addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        path = self.folder / f"{name}.crt"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.folder / f"{name}.key").write_bytes(
            key.private_bytes(  # type: ignore[attr-defined]
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(path)
