"""Fixtures of the runtime's tests."""

from __future__ import annotations

from tests.runtime.bundlekit import bundle, launcher_path, runtime

__all__ = ["bundle", "launcher_path", "runtime"]
