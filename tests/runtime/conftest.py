"""Fixtures of the runtime's tests."""

from __future__ import annotations

from tests.runtime.bundlekit import bundle, launcher_path, runtime
from tests.runtime.seccompkit import library

__all__ = ["bundle", "launcher_path", "library", "runtime"]
