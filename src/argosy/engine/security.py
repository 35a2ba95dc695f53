"""`--security-opt`: read when it is typed, for what it names may be gone when the container is started again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

from argosy.bundle.seccompprofile import for_container
from argosy.errors import InvalidConfigError, UsageError
from argosy.spec import _json
from argosy.spec.platform import Platform

MAX_PROFILE = 1 << 20
"""The most bytes a seccomp profile may have."""

UNCONFINED = "unconfined"


def read(text: str) -> str:
    """A security option as `name=value`, with the profile itself where a file of one was named.

    Raises:
        UsageError: there is no such option, or no such file, or it has no such value.
        InvalidConfigError: the file holds no profile.
    """
    name, _, value = re.sub("[=:]", "=", text, count=1).partition("=")
    if name not in _SETTINGS:
        raise UsageError(
            f"security option {text[:100]!r} is not known",
            hint=f"expected one of {', '.join(_SETTINGS)}",
        )
    _, values = _SETTINGS[name]
    if values and value not in values:
        words = " or ".join(repr(word) for word in values)
        raise UsageError(f"security option {text[:100]!r}: expected {words}")
    if not values and not value:
        raise UsageError(f"security option {text[:100]!r}: expected {name}=VALUE")
    if name == "seccomp" and value != UNCONFINED:
        value = json.dumps(_profile(value))
    return f"{name}={value}"


def _profile(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_PROFILE + 1)
    except OSError as exc:
        raise UsageError(f"seccomp profile {path}: {os.strerror(exc.errno or 0).lower()}") from exc
    try:
        found = _json.loads_object(raw, limit=MAX_PROFILE, error=InvalidConfigError)
        if not isinstance(found.get("defaultAction"), str):
            raise InvalidConfigError("expected a defaultAction")
        return found
    except InvalidConfigError as exc:
        exc.add_note(f"seccomp profile {path}")
        raise


def apply(made: dict[str, Any], setting: str) -> None:
    """Put one that was read into a runtime configuration."""
    name, _, value = setting.partition("=")
    change, _ = _SETTINGS[name]
    change(made, value)


def _seccomp(made: dict[str, Any], value: str) -> None:
    if value == UNCONFINED:
        made["linux"].pop("seccomp", None)
        return
    found = json.loads(value)
    if "archMap" in found:
        major, minor = os.uname().release.split(".")[:2]
        found = for_container(
            found,
            architecture=Platform.host().architecture,
            capabilities=made["process"]["capabilities"]["bounding"],
            kernel=(int(major), int(minor)),
        )
    made["linux"]["seccomp"] = found


def _no_new_privileges(made: dict[str, Any], value: str) -> None:
    made["process"]["noNewPrivileges"] = value != "false"


def _apparmor(made: dict[str, Any], value: str) -> None:
    if value != UNCONFINED:
        made["process"]["apparmorProfile"] = value


def _label(made: dict[str, Any], value: str) -> None:
    if value != "disable":
        made["process"]["selinuxLabel"] = value


def _system_paths(made: dict[str, Any], _value: str) -> None:
    made["linux"]["maskedPaths"] = made["linux"]["readonlyPaths"] = []


_SETTINGS: dict[str, tuple[Callable[[dict[str, Any], str], None], tuple[str, ...]]] = {
    "seccomp": (_seccomp, ()),
    "no-new-privileges": (_no_new_privileges, ("", "true", "false")),
    "apparmor": (_apparmor, ()),
    "label": (_label, ()),
    "systempaths": (_system_paths, (UNCONFINED,)),
}
"""How an option changes the configuration, and the values it has if they are few."""
