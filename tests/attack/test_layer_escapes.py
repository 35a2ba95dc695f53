"""Published ways out of a root, each as its layer, tried with both ways of finding paths."""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from argosy.errors import ArgosyError, InvalidLayerError
from argosy.layer.rootfs import RootFS
from tests.layer.making import file, folder, link, put, symlink, take

WAYS = pytest.mark.parametrize("openat2", [True, False], ids=["openat2", "walk"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root beside things that must stay as they are."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root-sibling").mkdir(mode=0o700)
    (tmp_path / "outside").mkdir(mode=0o700)
    (tmp_path / "outside/secret").write_bytes(b"host")
    (tmp_path / "outside/secret").chmod(0o600)
    return tmp_path / "root"


def untouched(root: Path) -> bool:
    outside, secret = root.parent / "outside", root.parent / "outside/secret"
    return (
        sorted(os.listdir(root.parent)) == ["outside", "root", "root-sibling"]
        and os.listdir(outside) == ["secret"]
        and not os.listdir(root.parent / "root-sibling")
        and secret.read_bytes() == b"host"
        and stat.S_IMODE(secret.stat().st_mode) == 0o600
        and stat.S_IMODE(outside.stat().st_mode) == 0o700
        and secret.stat().st_nlink == 1
    )


@WAYS
@pytest.mark.parametrize("name", [".", "./", "/", "", "a/.."])
def test_cve_2021_29136_the_root_becomes_a_symbolic_link(
    name: str, openat2: bool, root: Path
) -> None:
    with pytest.raises(InvalidLayerError, match="root must stay a directory"):
        put(root, symlink(name, "../outside"), file("secret", b"owned"), openat2=openat2)
    assert untouched(root)


@WAYS
@pytest.mark.parametrize("target", ["../outside/secret", "{}/outside/secret"])
def test_cve_2021_32760_the_mode_of_a_host_file_is_changed(
    target: str, openat2: bool, root: Path
) -> None:
    """CVE-2026-33056: by a link, and then a directory of the same name."""
    target = target.format(root.parent)
    put(
        root,
        symlink("l", target),
        link("h", "l", mode=0o777),
        symlink("l", target, mode=0o777),
        openat2=openat2,
    )
    put(root, folder("l", mode=0o777), symlink("d", "../outside"), openat2=openat2)
    put(root, folder("d", mode=0o777), openat2=openat2, keep_dirlinks=True)
    assert untouched(root)


@WAYS
def test_cve_2026_50163_a_hard_link_is_taken_from_the_working_directory(
    openat2: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent / "outside")
    for target in ("secret", "./secret", "../outside/secret", f"{root.parent}/outside/secret"):
        with pytest.raises(InvalidLayerError, match="which is not there"):
            put(root, link("h", target), openat2=openat2)
    assert untouched(root)


@WAYS
def test_ghsa_m37j_a_chain_of_links_leads_out(openat2: bool, root: Path) -> None:
    """CVE-2024-24579 is the like of another tool."""
    # each link alone seems to stay inside; together, taken literally, they climb
    chain = [
        folder("a/b/c"),
        symlink("a/b/c/up", ".."),
        symlink("a/b/x", "c/up/.."),
        symlink("y", "a/b/x/../../outside"),
    ]
    put(root, *chain, file("y/secret", b"owned"), openat2=openat2)
    put(root, symlink("z", "y/.."), file("z/../../outside/new"), file("z/w"), openat2=openat2)
    assert untouched(root)


@WAYS
def test_ghsa_8xwf_a_sibling_whose_name_begins_like_the_root(openat2: bool, root: Path) -> None:
    """CVE-2026-28406: by a name that climbs."""
    put(
        root,
        file("../root-sibling/x"),
        symlink("s", "../root-sibling"),
        file("s/y"),
        openat2=openat2,
    )
    with pytest.raises(InvalidLayerError):
        put(root, link("h", "../root-sibling/none"), openat2=openat2)
    assert untouched(root)


@WAYS
def test_cve_2025_4517_a_path_too_long_to_be_checked(openat2: bool, root: Path) -> None:
    # the links' real path is longer than PATH_MAX, so that a check by name stops short (CVE-2025-4138, -4330, -4435)
    part = "d" * 247
    members, path = [], ""
    for letter in "abcdefghijklmnop":
        members += [folder(f"{path}{part}"), symlink(f"{path}{letter}", part)]
        path += f"{letter}/"
    deep = "/".join("abcdefghijklmnop")
    members += [
        symlink(f"{deep}/{'l' * 254}", "../" * 16),
        symlink("escape", f"{deep}/{'l' * 254}/../outside"),
    ]
    with suppress(ArgosyError):
        put(
            root,
            *members,
            file("escape/secret", b"owned"),
            link("h", "escape/secret"),
            openat2=openat2,
        )
    assert untouched(root)


@WAYS
def test_cve_2024_12718_metadata_of_what_lies_outside(openat2: bool, root: Path) -> None:
    before = (root.parent / "outside").stat().st_mtime_ns
    put(
        root,
        symlink("d", "../outside"),
        file("d/.wh.secret"),
        file("d/.wh..wh..opq"),
        openat2=openat2,
    )
    put(
        root,
        folder("../outside", mode=0o777, mtime=1),
        folder("d/../../outside", mode=0o777),
        openat2=openat2,
    )
    assert untouched(root)
    assert (root.parent / "outside").stat().st_mtime_ns == before


@contextmanager
def swapping(root: Path, name: str) -> Iterator[None]:
    """Somebody who keeps putting a link to the outside in the place of a directory, and the directory back."""
    stopped = threading.Event()

    def swap() -> None:
        here, aside, evil = root / name, root / f"{name}.aside", root / f"{name}.evil"
        evil.symlink_to("../outside")
        while not stopped.is_set():
            try:
                os.rename(here, aside)
                os.rename(evil, here)
                os.rename(here, evil)
                os.rename(aside, here)
            except OSError:
                continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@WAYS
def test_cve_2025_47290_a_directory_is_swapped_while_a_layer_is_applied(
    openat2: bool, root: Path
) -> None:
    (root / "d").mkdir()
    members = [
        folder("d/sub"),
        file("d/secret", b"owned"),
        file("d/.wh.secret"),
        symlink("d/l", "x"),
        file("d/sub/f"),
    ]
    with swapping(root, "d"):
        for _ in range(150):
            try:
                put(root, *members, openat2=openat2)
                put(
                    root,
                    file("d/.wh..wh..opq"),
                    file("d/new"),
                    link("d/h", "d/new", mode=0o777),
                    openat2=openat2,
                )
            except ArgosyError:
                continue
    assert (root.parent / "outside/secret").read_bytes() == b"host"
    assert untouched(root)


@WAYS
def test_cve_2018_15664_a_directory_is_swapped_while_a_layer_is_taken(
    openat2: bool, root: Path
) -> None:
    (root / "d").mkdir()
    (root / "d/secret").write_bytes(b"mine")
    with swapping(root, "d"):
        for _ in range(150):
            out = io.BytesIO()
            try:
                with RootFS(root, openat2=openat2) as tree:
                    tree.write_layer(tree.diff(), out)
            except ArgosyError:
                pass
            assert b"host" not in out.getvalue()
    assert untouched(root)


@WAYS
@pytest.mark.parametrize("name", ["d/", "d/.", "./d//", "d/x/.."])
def test_cve_2026_7774_a_link_whose_name_is_written_as_a_directorys(
    name: str, openat2: bool, root: Path
) -> None:
    """One that names the root itself is in the test of CVE-2021-29136."""
    with suppress(InvalidLayerError):
        put(root, folder("d"), symlink(name, "../outside"), openat2=openat2)
    with suppress(InvalidLayerError):
        put(root, file("d/secret", b"owned"), folder("d/new", mode=0o777), openat2=openat2)
    assert untouched(root)


@WAYS
def test_cve_2026_11940_a_hard_link_to_a_link_that_stays_inside_only_where_it_is(
    openat2: bool, root: Path
) -> None:
    deep = [folder("a/b"), symlink("a/b/l", "../../outside"), link("h", "a/b/l")]
    put(root, *deep, file("h/secret", b"owned"), folder("h/new", mode=0o777), openat2=openat2)
    assert untouched(root)


def test_a_link_that_was_a_file_when_it_was_listed_is_not_read_through(root: Path) -> None:
    (root / "f").write_bytes(b"mine")
    out = io.BytesIO()
    with RootFS(root) as tree:
        changes = list(tree.diff())
        (root / "f").unlink()
        (root / "f").symlink_to("../outside/secret")
        with pytest.raises(ArgosyError):
            tree.write_layer(changes, out)
    assert b"host" not in out.getvalue()
    assert b"host" not in take(root)
