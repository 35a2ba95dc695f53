"""A container's systemd unit: its name, its slice, and what it starts with."""

from __future__ import annotations

from argosy.runtime.cgroups import gvariant
from argosy.runtime.errors import ConfigError, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.runtime.cgroups.unitprops import Property

ANNOTATION = "org.systemd.property."


def parse_path(cgroups_path: str | None, cid: str) -> tuple[str, str, str]:
    """Return slice, prefix and name of `linux.cgroupsPath`.

    Raises:
        ConfigError: It has not these three.

    >>> parse_path("machine.slice:libpod:1f", "c")
    ('machine.slice', 'libpod', '1f')
    """
    if not cgroups_path:
        return "", "argosy", cid
    parts = cgroups_path.split(":")
    if len(parts) != 3 or not parts[2] or "/" in cgroups_path:
        raise ConfigError(
            "linux.cgroupsPath",
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f'got "{cgroups_path}" instead',
        )
    return parts[0], parts[1], parts[2]


def unit_name(prefix: str, name: str) -> str:
    """Return the unit's name: a scope, unless a slice is asked for.

    >>> unit_name("libpod", "1f"), unit_name("", "a.slice")
    ('libpod-1f.scope', 'a.slice')
    """
    if name.endswith(".slice"):
        return name
    return f"{prefix}-{name}.scope" if prefix else f"{name}.scope"


def expand_slice(name: str) -> str:
    """Return the path of a slice, whose name holds those above it.

    Raises:
        ConfigError: It is no slice's name.

    >>> expand_slice("a-b.slice"), expand_slice("-.slice")
    ('/a.slice/a-b.slice', '')
    """
    stem = name.removesuffix(".slice")
    if stem == name or "/" in name or not stem:
        raise ConfigError("linux.cgroupsPath", f"invalid slice name: {name}")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if "" in parts:
        raise ConfigError("linux.cgroupsPath", f"invalid slice name: {name}")
    return "".join(f"/{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


def start_properties(unit: str, parent: str, cid: str, unified: bool) -> list[Property]:
    """Return what a unit starts with, but for its first process and its limits."""
    found: list[Property] = [("Description", ("s", f"argosy container {cid}"))]
    if unit.endswith(".slice"):
        found.append(("Wants", ("as", [parent])))
    else:
        found += [("Slice", ("s", parent)), ("Delegate", ("b", True))]
    io = "IOAccounting" if unified else "BlockIOAccounting"
    found += [
        (name, ("b", True)) for name in ("MemoryAccounting", "CPUAccounting", io, "TasksAccounting")
    ]
    found.append(("DefaultDependencies", ("b", False)))
    return found


def annotation_properties(annotations: dict[str, str]) -> list[Property]:
    """Return the properties that annotations `org.systemd.property.NAME` ask for.

    A name that ends in `Sec` takes seconds, for the property of microseconds that systemd really has.

    Raises:
        ConfigError: A name or a value is none of systemd's.
    """
    found: list[Property] = []
    for key, text in annotations.items():
        if not key.startswith(ANNOTATION):
            continue
        name = key[len(ANNOTATION) :]
        if len(name) < 3 or not (name.isascii() and name.isalpha() and name[0].isupper()):
            raise ConfigError(f"annotations.{key}", f"invalid property name {name!r}")
        found.append(_annotation(key, name, text))
    return found


def _annotation(key: str, name: str, text: str) -> Property:
    try:
        kind, value = gvariant.parse(text)
    except Failure as failure:
        raise ConfigError(f"annotations.{key}", f"invalid value: {failure}") from None
    if not name.endswith("Sec") or not name[-4:-3].islower():
        return name, (kind, value)
    if kind not in ("n", "q", "i", "u", "x", "t", "d") or value < 0:
        raise ConfigError(f"annotations.{key}", f"expected seconds, got {text!r}")
    return name[:-3] + "USec", ("t", int(value * 1000000))
