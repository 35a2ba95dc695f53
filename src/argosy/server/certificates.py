"""A certificate's files, read once and checked before anything is begun with them."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator

from argosy.errors import InvalidConfigError
from argosy.server.auth.watched import read_limited
from argosy.server.settings import Tls

__all__ = ["Copy"]

_PROBLEMS = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in PEM",
}
"""What OpenSSL calls it. An `ssl.SSLError` is an OSError, but its number is none of the operating system's."""


class Copy:
    """The files as they are at one moment, in memory. Of files that are replaced one by one, no worker reads half.

    Args:
        tls: The files.

    `tls` are the names of the copy, for this process and those it begins, until it is let go.

    Raises:
        InvalidConfigError: one of them is not there or none, or they do not belong together.
    """

    def __init__(self, tls: Tls) -> None:
        self._held: list[int] = []
        ca = self._copied(tls.client_ca) if tls.client_ca is not None else None
        self.tls = Tls(
            certificate=self._copied(tls.certificate), key=self._copied(tls.key), client_ca=ca
        )
        _check(tls, self.tls)

    def _copied(self, file: str) -> str:
        raw = read_limited(file)
        self._held.append(fd := os.memfd_create("argosy-tls"))
        with open(fd, "wb", closefd=False) as memory:
            memory.write(raw)
        return f"/proc/{os.getpid()}/fd/{fd}"

    def __del__(self) -> None:
        for fd in self._held:
            os.close(fd)


def _check(named: Tls, tls: Tls) -> None:
    """Load certificate, key and CA as the server will, and keep nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, file in ((named.certificate, tls.certificate), (named.client_ca, tls.client_ca)):
        if file is not None:
            with _naming(name, "cannot be read"):
                context.load_verify_locations(file)
    with _naming(named.key, "no private key in PEM without a password"):
        # No password would have it asked for on the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password="")


@contextlib.contextmanager
def _naming(file: str | None, otherwise: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as exc:
        reason = exc.reason or ""
        problem = _PROBLEMS.get(reason) or reason.replace("_", " ").lower() or otherwise
        raise InvalidConfigError(f"{file}: {problem}") from None
