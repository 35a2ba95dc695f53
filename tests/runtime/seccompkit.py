"""Seccomp profiles, briefly said."""

from __future__ import annotations

import os
from typing import Any

import pytest

from argosy.runtime import enosys, libseccomp
from argosy.runtime.errors import Failure

ALLOW, KILL = 0x7FFF0000, 0
X86_64 = enosys.AUDIT["SCMP_ARCH_X86_64"]
GETPID, SOCKET, PERSONALITY = 39, 41, 135


@pytest.fixture
def library() -> libseccomp.Library:
    if os.uname().machine != "x86_64":
        pytest.skip("seccomp: the numbers in these tests are those of x86_64")
    try:
        return libseccomp.Library()
    except Failure as failure:
        pytest.skip(str(failure))


def profile(default: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(rules), **more}


def rule(names: str, action: str, *args: tuple[int, str, int, int], **more: Any) -> dict[str, Any]:
    listed = [{"index": i, "op": op, "value": v, "valueTwo": w} for i, op, v, w in args]
    return {"names": names.split(), "action": action, "args": listed, **more}
