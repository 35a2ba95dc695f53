"""Whom clients believe that speak TLS: one policy for the registry's client and for what a registry itself asks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

__all__ = ["client_context"]


def client_context() -> ssl.SSLContext:
    """A context that trusts the system's authorities, and asks for a name that fits.

    The module `ssl` is loaded here: only who speaks TLS pays for it.

    >>> client_context().check_hostname
    True
    """
    tls: Any = importlib.import_module("ssl")
    context: ssl.SSLContext = tls.create_default_context()
    # As other clients do, and every Python alike: 3.13 refuses authorities that lack an extension, as many do that
    # people make for themselves, and those before it an authority that is given without the one that signed it.
    context.verify_flags |= tls.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~tls.VERIFY_X509_STRICT
    return context
