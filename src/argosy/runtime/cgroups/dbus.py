"""A D-Bus client of the size systemd needs: connect, call a method, wait for a signal.

Everything that comes from the bus is bounded in size and time, and read with its lengths checked. The wire format is
that of the D-Bus specification 0.43, always written little endian. A variant is a tuple of signature and value.
"""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket
from _struct import Struct
from time import monotonic

from argosy.runtime.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATIENCE = 30.0
"""How long an answer may take, in seconds."""

MOST = 8 << 20
"""The largest message that is read, in bytes; the specification allows 128 MiB."""

DEEPEST = 32
"""How deep containers may lie in each other, as in the specification."""

_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
)
_FIELD_TYPES = {_PATH: "o", _INTERFACE: "s", _MEMBER: "s", _DESTINATION: "s", _SIGNATURE: "g"}

# Type code: struct format without its byte order, which is also its alignment.
_FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_ALIGN = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}
_STRUCTS = {(order, code): Struct(order + fmt) for code, fmt in _FIXED.items() for order in "<>"}


class BusError(Failure):
    """The other side answered with an error.

    Attributes:
        name: The error's D-Bus name.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{message} ({name})" if message else name)
        self.name = name


def split(signature: str) -> list[str]:
    """Return the complete types of a signature.

    Raises:
        Failure: It is no signature.

    >>> split("sa(sv)u")
    ['s', 'a(sv)', 'u']
    """
    types = []
    at = 0
    while at < len(signature):
        end = _end(signature, at, 0)
        types.append(signature[at:end])
        at = end
    return types


def _end(signature: str, at: int, depth: int) -> int:
    """Return where the complete type at `at` ends."""
    code = signature[at : at + 1]
    if depth > DEEPEST:
        raise Failure("bus: a signature is nested too deeply")
    if code == "a":
        return _end(signature, at + 1, depth + 1)
    if code in ("(", "{"):
        close = ")" if code == "(" else "}"
        at += 1
        while signature[at : at + 1] != close:
            at = _end(signature, at, depth + 1)
        return at + 1
    if code and code in "ybnqiuxtdhsogv":
        return at + 1
    raise Failure(f"bus: {signature!r} is no signature")


class Writer:
    """Values on their way out: little endian, each aligned from the start of the buffer."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, to: int) -> None:
        """Fill up with zeros to a multiple of `to` bytes."""
        self.data += bytes(-len(self.data) % to)

    def put(self, kind: str, value: Any) -> None:
        """Write one complete type."""
        code = kind[0]
        self.align(_ALIGN.get(code, 4))
        if code in _FIXED:
            self.data += _STRUCTS["<", code].pack(value)
        elif code in "so":
            raw = value.encode()
            self.data += _STRUCTS["<", "u"].pack(len(raw)) + raw + b"\0"
        elif code == "g":
            raw = value.encode()
            self.data += bytes((len(raw),)) + raw + b"\0"
        elif code == "v":
            self.put("g", value[0])
            self.put(value[0], value[1])
        elif code == "a":
            self._array(kind[1:], value)
        else:
            for each, part in zip(split(kind[1:-1]), value, strict=True):
                self.put(each, part)

    def _array(self, kind: str, values: Any) -> None:
        start = len(self.data)
        self.data += bytes(4)
        self.align(_ALIGN.get(kind[0], 4))
        first = len(self.data)
        if kind == "y":
            self.data += bytes(values)
        else:
            for value in values:
                self.put(kind, value)
        _STRUCTS["<", "u"].pack_into(self.data, start, len(self.data) - first)


class Reader:
    """Values on their way in, never read past the end of what came."""

    def __init__(self, data: bytes, order: str = "<") -> None:
        self.data = data
        self.order = order
        self.at = 0

    def align(self, to: int) -> None:
        """Step to a multiple of `to` bytes."""
        self.at += -self.at % to

    def take(self, count: int) -> bytes:
        """Return the next bytes.

        Raises:
            Failure: There are not so many.
        """
        end = self.at + count
        if end > len(self.data):
            raise Failure(f"bus: message ends at {len(self.data)}, but {end} bytes are announced")
        part = self.data[self.at : end]
        self.at = end
        return part

    def get(self, kind: str, depth: int = 0) -> Any:
        """Read one complete type; a variant comes as its value alone."""
        if depth > DEEPEST * 2:
            raise Failure("bus: a value is nested too deeply")
        code = kind[0]
        self.align(_ALIGN.get(code, 4))
        if code in _FIXED:
            layout = _STRUCTS[self.order, code]
            value = layout.unpack(self.take(layout.size))[0]
            return bool(value) if code == "b" else value
        if code in "so":
            return self.take(self.get("u") + 1)[:-1].decode("utf-8", "replace")
        if code == "g":
            return self.take(self.get("y") + 1)[:-1].decode("ascii", "replace")
        if code == "v":
            types = split(self.get("g"))
            if len(types) != 1:
                raise Failure("bus: a variant must have one type")
            return self.get(types[0], depth + 1)
        if code == "a":
            return self._array(kind[1:], depth)
        if code == "h":
            return self.get("u")
        return tuple(self.get(each, depth + 1) for each in split(kind[1:-1]))

    def _array(self, kind: str, depth: int) -> list[Any]:
        length = self.get("u")
        self.align(_ALIGN.get(kind[0], 4))
        end = self.at + length
        if end > len(self.data):
            raise Failure("bus: an array is longer than its message")
        values = []
        while self.at < end:
            values.append(self.get(kind, depth + 1))
        return values


class Message:
    """A message that came: its type, serial number, header fields by number, and body."""

    __slots__ = ("body", "fields", "kind", "serial")

    def __init__(self, kind: int, serial: int, fields: dict[int, Any], body: list[Any]) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.body = body


def message(serial: int, fields: dict[int, str], body: bytes) -> bytes:
    """Return a method call as bytes."""
    head = Writer()
    head.data += bytes((ord("l"), _CALL, 0, 1))
    head.put("u", len(body))
    head.put("u", serial)
    head.put("a(yv)", [(number, (_FIELD_TYPES[number], value)) for number, value in fields.items()])
    head.align(8)
    return bytes(head.data) + body


def parse(data: bytes) -> Message:
    """Return the message that `data` holds wholly.

    Raises:
        Failure: It is broken.
    """
    reader = Reader(data, "<" if data[:1] == b"l" else ">")
    kind = data[1]
    reader.at = 8
    serial = reader.get("u")
    fields = dict(reader.get("a(yv)"))
    reader.align(8)
    body = Reader(data[reader.at :], reader.order)
    values = [body.get(each) for each in split(fields.get(_SIGNATURE, ""))]
    return Message(kind, serial, fields, values)


class Bus:
    """A connection to a bus, or to one peer that speaks as a bus does.

    Args:
        address: A D-Bus address such as `unix:path=/run/dbus/system_bus_socket`; several are tried in turn.
        peer: Whether there is no bus at the other end but the one that is called (systemd's private socket).

    Raises:
        Failure: Nobody answers there, or not in D-Bus.
    """

    def __init__(self, address: str, *, peer: bool = False) -> None:
        self.serial = 0
        self.signals: list[Message] = []
        self.peer = peer
        self.socket = connect(address)
        try:
            self._authenticate()
            if not peer:
                self.call(
                    "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _authenticate(self) -> None:
        """Let the kernel say who we are: the other end reads it from the socket.

        No user id is sent, since ours may be another one in the namespace of the other end. All is sent at once:
        systemd's private socket waits forever for a BEGIN that comes by itself.
        """
        self._send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        answer = self._line()
        if answer == b"DATA":
            answer = self._line()
        if not answer.startswith(b"OK "):
            raise Failure(f"bus: authentication refused: {answer[:80].decode('ascii', 'replace')}")

    def _line(self) -> bytes:
        line = bytearray()
        end = monotonic() + PATIENCE
        while not line.endswith(b"\r\n"):
            if len(line) > 512:
                raise Failure("bus: the answer to the authentication is too long")
            line += self._receive(1, end)
        return bytes(line[:-2])

    def _send(self, data: bytes) -> None:
        try:
            self.socket.settimeout(PATIENCE)
            self.socket.sendall(data)
        except OSError as error:
            raise Failure(f"bus: cannot send: {error}") from None

    def _receive(self, count: int, end: float) -> bytes:
        parts = []
        while count:
            left = end - monotonic()
            if left <= 0:
                raise Failure("bus: no answer in time")
            try:
                self.socket.settimeout(left)
                part = self.socket.recv(min(count, 1 << 16))
            except TimeoutError:
                continue
            except OSError as error:
                raise Failure(f"bus: cannot receive: {error}") from None
            if not part:
                raise Failure("bus: the other end closed the connection")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _next(self, end: float) -> Message:
        head = self._receive(16, end)
        order = {b"l": "<", b"B": ">"}.get(head[:1])
        if order is None:
            raise Failure("bus: the other end does not speak D-Bus")
        body, _serial, fields = Struct(order + "III").unpack(head[4:])
        rest = -(-fields // 8) * 8 + body
        if fields > MOST or body > MOST:
            raise Failure(f"bus: a message of {rest} bytes is larger than {MOST}")
        return parse(head + self._receive(rest, end))

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *values: Any,
    ) -> list[Any]:
        """Call a method and return the values of its answer.

        Signals that come meanwhile are kept for `wait`.

        Raises:
            BusError: The answer is an error.
            Failure: There is no answer, or it is broken.
        """
        self.serial += 1
        body = Writer()
        for kind, value in zip(split(signature), values, strict=True):
            body.put(kind, value)
        fields = {_PATH: path, _INTERFACE: interface, _MEMBER: member}
        if not self.peer:
            fields[_DESTINATION] = destination
        if signature:
            fields[_SIGNATURE] = signature
        self._send(message(self.serial, fields, bytes(body.data)))
        return self._answer(monotonic() + PATIENCE)

    def _answer(self, end: float) -> list[Any]:
        while True:
            came = self._next(end)
            if came.kind == _SIGNAL:
                self.signals.append(came)
            elif came.fields.get(_REPLY_SERIAL) != self.serial:
                continue
            elif came.kind == _ERROR:
                text = came.body[0] if came.body and isinstance(came.body[0], str) else ""
                raise BusError(str(came.fields.get(_ERROR_NAME, "")), text)
            else:
                return came.body

    def wait(self, member: str, patience: float = PATIENCE) -> list[Any]:
        """Return the body of the next signal of that name.

        Raises:
            Failure: None came in time.
        """
        end = monotonic() + patience
        while True:
            while self.signals:
                came = self.signals.pop(0)
                if came.fields.get(_MEMBER) == member:
                    return came.body
            came = self._next(end)
            if came.kind == _SIGNAL:
                self.signals.append(came)


def connect(address: str) -> socket:
    """Return a socket connected to the first address that answers.

    Raises:
        Failure: None does.
    """
    why = f"bus: {address!r} has no unix address"
    for each in address.split(";"):
        transport, _, rest = each.partition(":")
        keys = dict(part.partition("=")[::2] for part in rest.split(",") if "=" in part)
        place: str | bytes | None = None
        if "path" in keys:
            place = unescape(keys["path"])
        elif "abstract" in keys:
            place = b"\0" + unescape(keys["abstract"])
        if transport != "unix" or place is None:
            continue
        link = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            link.settimeout(PATIENCE)
            link.connect(place)
            return link
        except OSError as error:
            link.close()
            why = f"bus: cannot connect to {each}: {posix.strerror(error.errno or 0).lower()}"
    raise Failure(why)


def unescape(value: str) -> bytes:
    """Return a value of an address with its `%xx` undone.

    >>> unescape("/run/a%20b")
    b'/run/a b'
    """
    head, *parts = value.encode().split(b"%")
    return head + b"".join(bytes((int(part[:2], 16),)) + part[2:] for part in parts)
