"""TLS within TLS: to a registry, by a tunnel through a proxy that is spoken to in TLS itself.

`ssl.SSLSocket` wants the operating system's socket below; here there is another TLS connection. Loaded only then.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_PIECE = 64 * 1024


class NestedTLS:
    """What `Connection` needs of a socket, over a socket that speaks TLS already.

    Args:
        sock: The connection below; it is closed with this one.
        context: How the other side is checked.
        host: Its name.

    Raises:
        ssl.SSLError: the handshake failed, or the other side is not who it should be.
        OSError: the connection below broke, or nothing came in time.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        self._do(self._tls.do_handshake)

    def _do(self, step: Callable[..., T], *args: Any) -> T:
        while True:
            try:
                result = step(*args)
            except ssl.SSLWantReadError:
                self._flush()
                data = self._sock.recv(_PIECE)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if data := self._out.read():
            self._sock.sendall(data)

    def recv_into(self, buffer: Any, /) -> int:
        """Receive into a buffer; 0 at the end."""
        try:
            return self._do(self._tls.read, len(buffer), buffer)  # type: ignore[return-value]
        except ssl.SSLZeroReturnError:
            return 0

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            view = view[self._do(self._tls.write, view[:_PIECE]) :]

    def cipher(self) -> Any:
        """The cipher in use."""
        return self._tls.cipher()

    def settimeout(self, seconds: float, /) -> None:
        """The most seconds that one reading or writing of the connection below may take."""
        self._sock.settimeout(seconds)

    def fileno(self) -> int:
        """The file descriptor at the very bottom."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the connection below."""
        self._sock.close()
