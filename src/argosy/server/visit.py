"""Where a request came from, as far as it can be believed: known to the front, read wherever it matters."""

from __future__ import annotations

import contextvars
import dataclasses

__all__ = ["VISIT", "Visit"]


@dataclasses.dataclass(slots=True)
class Visit:
    """One request's origin.

    Args:
        address: The client's address: the connection's, or the one a trusted proxy tells.
        scheme: `http` or `https`, as the client sees it.
        client: What limits are counted for: the address, of IPv6 its /64, until the client has said who it is.
    """

    address: str = ""
    scheme: str = "http"
    client: str = ""


VISIT: contextvars.ContextVar[Visit | None] = contextvars.ContextVar("visit", default=None)
