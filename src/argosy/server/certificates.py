"""Whether a certificate's files can be served, asked before anything is begun with them."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

from argosy.errors import InvalidConfigError
from argosy.server.settings import Tls

__all__ = ["check"]

_PROBLEMS = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in PEM",
}
"""What OpenSSL calls it. An `ssl.SSLError` is an OSError, but its number is none of the operating system's."""


def check(tls: Tls) -> None:
    """Load certificate, key and CA as the server will, and keep nothing.

    Raises:
        InvalidConfigError: one of them is not there or none, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for file in (tls.certificate, tls.client_ca):
        if file is not None:
            with _naming(file, "cannot be read"):
                context.load_verify_locations(file)
    with _naming(tls.key, "no private key in PEM without a password"):
        context.load_cert_chain(
            tls.certificate, tls.key, password=""
        )  # None would ask the terminal


@contextlib.contextmanager
def _naming(file: str, otherwise: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as exc:
        reason = exc.reason or ""
        problem = _PROBLEMS.get(reason) or reason.replace("_", " ").lower() or otherwise
        raise InvalidConfigError(f"{file}: {problem}") from None
    except OSError as exc:
        raise InvalidConfigError(f"{file}: {(exc.strerror or otherwise).lower()}") from None
