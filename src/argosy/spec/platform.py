"""Platforms and which of several images suits one (image-spec, image-index.md, "platform" and "Platform Variants").

An entry suits a wanted platform when its `os` and `architecture` are the same and its variant is one the wanted
machine can run. Among entries that suit, the nearest variant wins; among equals the first, as the specification says.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Self

from argosy.errors import InvalidReferenceError
from argosy.spec import _json
from argosy.spec._value import Value, replace

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)

_ARCHITECTURES: dict[str, tuple[str, str]] = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"), "armel": ("arm", "v6"), "armv8l": ("arm", "v8"), "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"), "armv5tel": ("arm", "v5"), "i386": ("386", ""), "i486": ("386", ""),
    "i586": ("386", ""), "i686": ("386", ""), "loongarch64": ("loong64", ""),
}  # fmt: skip
_OSES = {"macos": "darwin"}
_KNOWN_OSES = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "linux", "netbsd", "openbsd", "plan9",
    "solaris", "windows",
})  # fmt: skip

# The variants a machine of a variant runs, the nearest first. An absent variant is the architecture's baseline.
_RUNS: dict[str, dict[str, tuple[str, ...]]] = {
    "arm": {
        "": ("v7", "", "v6", "v5"),
        "v8": ("v8", "v7", "v6", "v5", ""),
        "v7": ("v7", "v6", "v5", ""),
        "v6": ("v6", "v5", ""),
        "v5": ("v5", ""),
    },
    "amd64": {
        "": ("", "v1"),
        "v1": ("v1", ""),
        "v2": ("v2", "v1", ""),
        "v3": ("v3", "v2", "v1", ""),
        "v4": ("v4", "v3", "v2", "v1", ""),
    },
}
_ARM64 = r"(?a)v(8|9)(?:\.(\d{1,2}))?"


class Platform(Value, kw_only=True):
    """Where an image runs.

    Example:
        >>> str(Platform.parse("linux/arm/v7"))
        'linux/arm/v7'
        >>> Platform.parse("windows/amd64:10.0.17763").os_version
        '10.0.17763'
    """

    architecture: str = _json.prop("architecture", _json.STRING)
    os: str = _json.prop("os", _json.STRING)
    os_version: str = _json.prop("os.version", _json.STRING, "")
    os_features: tuple[str, ...] = _json.prop("os.features", _json.STRINGS, ())
    variant: str = _json.prop("variant", _json.STRING, "")
    extra: Mapping[str, object] = _json.extra()

    def __str__(self) -> str:
        """`os/architecture[/variant][:os.version]`, as `parse` takes it."""
        text = f"{self.os}/{self.architecture}"
        if self.variant:
            text += f"/{self.variant}"
        return f"{text}:{self.os_version}" if self.os_version else text

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `os/architecture[/variant][:os.version]`.

        A lone architecture means Linux, and a lone operating system the architecture of this machine.

        Raises:
            InvalidReferenceError: the text has another shape.
        """
        body, colon, version = text.partition(":")
        parts = body.split("/")
        if len(parts) > 3 or (colon and not version) or not all(map(_PART.fullmatch, parts)):
            raise InvalidReferenceError(
                f"platform {text[:100]!r}: expected os/architecture[/variant][:os.version]",
                hint="for example linux/amd64, linux/arm/v7 or windows/amd64:10.0.17763",
            )
        first, *rest = (part.lower() for part in parts)
        system = _OSES.get(first, first)
        if not rest and system in _KNOWN_OSES:
            return replace(cls.host(), os=system, os_version=version)
        machine = rest[0] if rest else first
        architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
        return cls(
            architecture=architecture,
            os=system if rest else "linux",
            variant=rest[1] if len(rest) == 2 else variant,
            os_version=version,
        )

    @classmethod
    def decode(cls, value: object) -> Self:
        """Make a platform from a decoded JSON object.

        Raises:
            InvalidConfigError: a property is missing or of the wrong kind.
        """
        return _json.decode_object(cls, value, "platform")

    @classmethod
    @functools.cache
    def host(cls) -> Self:
        """The platform whose images this machine runs: Linux, whatever the operating system of the machine is."""
        machine = os.uname().machine
        architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
        if architecture == "amd64" and sys.maxsize < 1 << 32:
            architecture = "386"
        return cls(architecture=architecture, os="linux", variant=variant)

    def distance(self, entry: Platform | None) -> int | None:
        """How far an entry is from this wanted platform: 0 is best, None does not suit.

        What is best for `linux/arm` is `linux/arm/v7`. An entry without a platform suits any, and is the farthest.
        """
        if entry is None:
            return 1000
        if (entry.os, entry.architecture) != (self.os, self.architecture):
            return None
        if self.os == "windows" and not _same_windows(self.os_version, entry.os_version):
            return None
        if self.os_features and not set(entry.os_features) <= set(self.os_features):
            return None
        return _variant_distance(self.architecture, self.variant, entry.variant)


def _same_windows(wanted: str, offered: str) -> bool:
    """Windows images run where major, minor and build agree; the revision does not count."""
    if not wanted or not offered:
        return True
    return wanted.split(".")[:3] == offered.split(".")[:3]


def _variant_distance(architecture: str, wanted: str, offered: str) -> int | None:
    if architecture == "arm64":
        return _arm64_distance(wanted, offered)
    runs = _RUNS.get(architecture, {}).get(wanted)
    if runs is not None:
        return runs.index(offered) if offered in runs else None
    if not wanted or not offered:
        return 0 if wanted == offered else 1
    return 0 if wanted == offered else None


def _arm64_distance(wanted: str, offered: str) -> int | None:
    ours, theirs = (re.fullmatch(_ARM64, variant or "v8") for variant in (wanted, offered))
    if not ours or not theirs:
        return 0 if wanted == offered else None
    # v9.n has all that v8.(n+5) has (the Arm Architecture Reference Manual).
    have = (int(ours[1]) - 8) * 5 + int(ours[2] or 0)
    need = (int(theirs[1]) - 8) * 5 + int(theirs[2] or 0)
    return have - need if need <= have else None


def best(wanted: Platform, offered: Iterable[Platform | None]) -> int | None:
    """The position of the entry that suits best, or None where none does.

    >>> arm = [Platform.parse("linux/arm/v5"), Platform.parse("linux/arm/v7")]
    >>> best(Platform.parse("linux/arm/v8"), arm)
    1
    """
    found: tuple[int, int] | None = None
    for position, entry in enumerate(offered):
        distance = wanted.distance(entry)
        if distance is not None and (found is None or distance < found[0]):
            found = (distance, position)
    return None if found is None else found[1]


PLATFORM = _json.object_of(Platform)
