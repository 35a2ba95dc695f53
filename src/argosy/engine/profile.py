"""What a container may do and see unless told otherwise: Docker's set of capabilities, and what Docker masks.

The list of system calls is `argosy.bundle.seccompprofile`'s.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence

from argosy.bundle.rules import CAPABILITIES as KNOWN
from argosy.errors import UsageError

DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)  # fmt: skip
"""Docker's default set."""


def capabilities(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """Docker's default set with `--cap-add` and `--cap-drop`; `ALL` stands for all.

    Raises:
        UsageError: there is no such capability.

    >>> capabilities(["net_admin"], ["ALL"])
    ['CAP_NET_ADMIN']
    """
    added, dropped = named(add), named(drop)
    if "CAP_ALL" in added:
        return sorted(KNOWN - set(dropped))
    base = () if "CAP_ALL" in dropped else DEFAULT
    return sorted({*base, *added} - (set(dropped) - set(added)))


def named(names: Sequence[str]) -> list[str]:
    """Capabilities by their whole names, with or without `CAP_` in any case; `ALL` becomes `CAP_ALL`.

    Raises:
        UsageError: there is no such capability.
    """
    found = []
    for text in names:
        name = "CAP_" + text.upper().removeprefix("CAP_")
        if name != "CAP_ALL" and name not in KNOWN:
            raise UsageError(f"capability {text[:60]!r} is not known")
        found.append(name)
    return found


def heat(cpus: str = "/sys/devices/system/cpu") -> list[str]:
    """Where it is counted how often each CPU was too hot: that tells what others compute (GHSA-6fw5-f8r9-fgfm)."""
    return sorted(glob.glob(f"{glob.escape(cpus)}/cpu*/thermal_throttle"))
