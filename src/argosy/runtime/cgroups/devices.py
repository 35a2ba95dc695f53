"""Device rules: what the ordered list of `linux.resources.devices` comes to.

The rules start from "nothing is allowed", whatever the list begins with, and end with what every container may use.
"""

from __future__ import annotations

from argosy.runtime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Device = tuple[str, int, int]
    """Type `b` or `c`, major and minor; ANY stands for all."""

ANY = -1

READ, WRITE, MKNOD = 2, 4, 1
_BITS = {"r": READ, "w": WRITE, "m": MKNOD}
ALL = READ | WRITE | MKNOD

DEFAULTS = (
    ("c", ANY, ANY, MKNOD),  # any node may be made, not opened
    ("b", ANY, ANY, MKNOD),
    ("c", 1, 3, ALL),  # null
    ("c", 1, 5, ALL),  # zero
    ("c", 1, 7, ALL),  # full
    ("c", 1, 8, ALL),  # random
    ("c", 1, 9, ALL),  # urandom
    ("c", 5, 0, ALL),  # tty
    ("c", 5, 2, ALL),  # ptmx
    ("c", 136, ANY, ALL),  # pts
    ("c", 10, 200, ALL),  # net/tun; once removed by a runtime, and asked back at once
)


class Policy:
    """The state a list of rules leads to, in the kernel's own terms: a default and its exceptions.

    Attributes:
        allow: What happens to a device without an exception.
        exceptions: Access bits by device: allowed ones below a denying default, denied ones below an allowing one.
    """

    __slots__ = ("allow", "exceptions")

    def __init__(self, *, allow: bool = False) -> None:
        self.allow = allow
        self.exceptions: dict[Device, int] = {}

    def rule(self, allow: bool, kind: str, major: int, minor: int, access: int) -> None:
        """Apply one rule on top of those before.

        Raises:
            ConfigError: It takes a part out of an exception for more devices. The kernel ignores that without a word.
        """
        if kind == "a":
            self.allow = allow
            self.exceptions.clear()
            return
        device = (kind, major, minor)
        if allow != self.allow:
            self.exceptions[device] = self.exceptions.get(device, 0) | access
            return
        met = [other for other in self._overlapping(device) if self.exceptions[other] & access]
        for other in met:
            if not _covers(device, other):
                before = f"{('deny', 'allow')[allow]} {line(device, access)}"
                whole = line(other, self.exceptions[other])
                raise ConfigError("", f"{before} cannot punch a hole in {whole}")
        for other in met:
            self.exceptions[other] &= ~access
            if not self.exceptions[other]:
                del self.exceptions[other]

    def _overlapping(self, device: Device) -> list[Device]:
        """The exceptions that a device, or what stands for several, has a part of: one device is of four at most."""
        if ANY in device:
            return [other for other in self.exceptions if _overlap(device, other)]
        kind, major, minor = device
        wider = [(kind, a, b) for a in (major, ANY) for b in (minor, ANY)]
        return [other for other in wider if other in self.exceptions]


def _overlap(one: Device, other: Device) -> bool:
    return all(a == b or ANY in (a, b) for a, b in zip(one, other, strict=True))


def _covers(wide: Device, narrow: Device) -> bool:
    return all(a in (ANY, b) for a, b in zip(wide, narrow, strict=True))


def policy(rules: list[dict[str, Any]]) -> Policy:
    """Return what `rules` come to, the defaults added.

    Raises:
        ConfigError: A rule has a type, number or access there is none of, or asks for what no exceptions can say.
    """
    result = Policy()
    for n, rule in enumerate(rules):
        where = f"linux.resources.devices[{n}]"
        parsed = parse(rule, where)
        try:
            result.rule(*parsed)
        except ConfigError as error:
            raise ConfigError(where, str(error)) from None
    for device in DEFAULTS:
        try:
            result.rule(True, *device)
        except ConfigError:  # what was denied with more stays denied
            pass
    return result


def parse(rule: dict[str, Any], where: str) -> tuple[bool, str, int, int, int]:
    """Return one rule of the configuration as arguments of `Policy.rule`.

    Raises:
        ConfigError: It has a type, number or access there is none of.
    """
    kind = rule.get("type") or "a"
    if kind not in ("a", "b", "c"):
        raise ConfigError(where + ".type", f"expected a, b or c, got {kind!r}")
    access = 0
    for letter in rule.get("access") or "rwm":
        if letter not in _BITS:
            raise ConfigError(where + ".access", f"expected letters of rwm, got {rule['access']!r}")
        access |= _BITS[letter]
    return (
        bool(rule.get("allow")),
        kind,
        _number(rule, "major", where),
        _number(rule, "minor", where),
        access,
    )


def _number(rule: dict[str, Any], name: str, where: str) -> int:
    value = rule.get(name)
    if value is None or value == ANY:
        return ANY
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise ConfigError(f"{where}.{name}", f"expected a device number, got {value!r}")
    return value


def letters(access: int) -> str:
    """Return access bits as the kernel writes them.

    >>> letters(READ | MKNOD)
    'rm'
    """
    return "".join(letter for letter, bit in _BITS.items() if access & bit)


def line(device: Device, access: int) -> str:
    """Return one exception as a line of `devices.list`.

    >>> line(("c", 136, ANY), ALL)
    'c 136:* rwm'
    """
    kind, major, minor = device
    shown = [str(n) if n != ANY else "*" for n in (major, minor)]
    return f"{kind} {shown[0]}:{shown[1]} {letters(access)}"


def parse_list(text: str) -> Policy:
    """Return the policy a version 1 `devices.list` shows.

    A list of "everything" hides its exceptions: the kernel shows none of them.
    """
    found = Policy()
    for each in text.splitlines():
        kind, numbers, access = each.split(" ")
        major, minor = (ANY if n == "*" else int(n) for n in numbers.split(":"))
        found.rule(True, kind, major, minor, sum(_BITS[letter] for letter in access))
    return found


def transition(now: Policy, wanted: Policy) -> list[tuple[str, str]]:
    """Return the writes `(file, line)` that lead from one policy to another.

    Between two denying policies only the difference is written, so that a running container never loses a device it
    keeps.
    """
    if now.allow or wanted.allow:
        reset = ("devices.allow" if wanted.allow else "devices.deny", "a")
        return [reset, *_differences(Policy(allow=wanted.allow), wanted)]
    return _differences(now, wanted)


def _differences(now: Policy, wanted: Policy) -> list[tuple[str, str]]:
    add, take = (
        ("devices.deny", "devices.allow") if wanted.allow else ("devices.allow", "devices.deny")
    )
    writes = []
    for device, access in wanted.exceptions.items():
        missing = access & ~now.exceptions.get(device, 0)
        if missing:
            writes.append((add, line(device, missing)))
    for device, access in now.exceptions.items():
        surplus = access & ~wanted.exceptions.get(device, 0)
        if surplus:
            writes.append((take, line(device, surplus)))
    return writes
