from __future__ import annotations

import pathlib
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.bundle.inside import read_inside
from argosy.bundle.users import MAX_ID, MAX_SIZE, User, resolve_user
from argosy.errors import ArgosyError, InvalidConfigError
from tests.layer.making import as_nobody, needs_root

PASSWD = b"""\
# a comment
root:x:0:0:root:/root:/bin/sh
www:x:33:34:www:/srv/www:/bin/false
broken line
neg:x:-5:-5::/:
huge:x:4294967296:0::/:
1234:x:5:6::/numeric-name:
+nis
"""
GROUP = b"""\
root:x:0:
web:x:34:
logs:x:4:www,other
adm:x:5:other,www
huge:x:99999999999:www
"""
FILES = {"/etc/passwd": PASSWD, "/etc/group": GROUP}


def _resolve(text: str) -> User:
    return resolve_user(text, lambda path, _limit: FILES.get(path))


@pytest.mark.parametrize(
    ("text", "uid", "gid", "additional"),
    [
        ("", 0, 0, ()),
        ("root", 0, 0, ()),
        ("www", 33, 34, (4, 5)),
        ("33", 33, 34, ()),
        ("www:", 33, 34, (4, 5)),
        ("33:", 33, 34, ()),
        ("www:web", 33, 34, ()),
        ("www:4", 33, 4, ()),
        ("33:logs", 33, 4, ()),
        ("77", 77, 0, ()),
        ("77:88", 77, 88, ()),
        ("1234", 1234, 0, ()),
        (str(MAX_ID), MAX_ID, 0, ()),
    ],
)
def test_every_form_of_a_user(text: str, uid: int, gid: int, additional: tuple[int, ...]) -> None:
    found = _resolve(text)
    assert (found.uid, found.gid, found.additional_gids) == (uid, gid, additional)


@pytest.mark.parametrize(
    "text",
    ["nobody", "www:nobody", "neg", "huge", ":", "a:b:c", "www:huge", "-1", "+5", "www\n"],
)
def test_a_user_that_is_not_there_is_an_error_and_never_root(text: str) -> None:
    with pytest.raises(InvalidConfigError):
        _resolve(text)


def test_numbers_need_no_database() -> None:
    assert resolve_user("5:6", lambda _path, _limit: None) == User(uid=5, gid=6)


@given(st.text(max_size=30), st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_the_image_says_an_id_is_in_range_or_it_is_an_error(
    text: str, passwd: bytes, group: bytes
) -> None:
    files = {"/etc/passwd": passwd, "/etc/group": group}
    try:
        user = resolve_user(text, lambda path, _limit: files.get(path))
    except ArgosyError:
        return
    assert all(0 <= number <= MAX_ID for number in (user.uid, user.gid, *user.additional_gids))


@needs_root
def test_looking_for_a_user_leaves_closed_directories_closed(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"

    def work() -> None:
        (root / "etc").mkdir(parents=True)
        (root / "etc/passwd").write_bytes(b"here")
        (root / "etc").chmod(0)
        root.chmod(0)
        assert read_inside(str(root), "/etc/passwd", MAX_SIZE) == b"here"

    as_nobody(tmp_path, work)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "etc")]
    assert modes == [0, 0]
