"""Compiled filters that are kept: the same ones, none damaged, nobody else's, and not without end."""

from __future__ import annotations

import os
import pathlib

from argosy.runtime import filtercache, libseccomp, seccomp
from tests.runtime.seccompkit import profile, rule


def test_the_cache_gives_back_what_was_compiled_and_nothing_damaged(
    library: libseccomp.Library, tmp_path: pathlib.Path
) -> None:
    place = tmp_path / "cache"
    given = profile("SCMP_ACT_ERRNO", rule("read", "SCMP_ACT_ALLOW"))
    first = seccomp.prepare(given, str(place))
    assert place.stat().st_mode & 0o777 == 0o700
    (kept,) = place.iterdir()
    assert seccomp.prepare(given, str(place)).program == first.program
    data = kept.read_bytes()
    for damaged in (data[:-8], b"", data[:8] + b"\xff" * 8 + data[16:], data + b"x" * 8):
        kept.write_bytes(damaged)
        assert seccomp.prepare(given, str(place)).program == first.program
    other = seccomp.prepare({**given, "defaultErrnoRet": 2}, str(place))
    assert other.program != first.program
    assert len(list(place.iterdir())) == 2


def test_a_file_of_another_profile_is_not_taken(tmp_path: pathlib.Path) -> None:
    place = str(tmp_path / "cache")
    filtercache.put(place, b"one", b"12345678")
    filtercache.put(place, b"two", b"87654321")
    one, two = (filtercache._hash(key).hex() for key in (b"one", b"two"))
    os.replace(f"{place}/{one}", f"{place}/{two}")
    assert filtercache.get(place, b"two") is None
    assert filtercache.get(place, b"one") is None


def test_a_cache_others_can_enter_is_not_used(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "cache"
    filtercache.put(str(place), b"key", b"12345678")
    assert filtercache.get(str(place), b"key") == b"12345678"
    place.chmod(0o750)
    assert filtercache.get(str(place), b"key") is None
    place.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(place)
    assert filtercache.get(str(link), b"key") is None
    if os.geteuid() == 0:
        os.chown(place, 1234, 1234)
        assert filtercache.get(str(place), b"key") is None


def test_the_cache_is_bounded(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "cache"
    for n in range(filtercache.MOST + 20):
        filtercache.put(str(place), b"%d" % n, b"12345678")
    assert len(list(place.iterdir())) <= filtercache.MOST
