"""Who a container runs as is looked up in files that a stranger wrote."""

from __future__ import annotations

import os
import pathlib

import pytest

from argosy.bundle.inside import read_inside
from argosy.bundle.unpack import generate_config, unpack
from argosy.bundle.users import MAX_SIZE, resolve_user
from argosy.errors import InvalidConfigError, LimitExceededError
from argosy.layer.options import Options
from tests.image.kit import file, folder, image_of, link, tar_of

OPTIONS = Options(rootless=os.geteuid() != 0)


@pytest.mark.parametrize(
    "user",
    ["4294967296", "2147483648", "18446744073709551616", "0:4294967296", "-1", "99999999999999999999:1"],
)  # fmt: skip
def test_cve_2024_40635_a_user_id_that_overflows_is_refused_and_not_root(user: str) -> None:
    with pytest.raises(InvalidConfigError, match="expected an id from 0"):
        resolve_user(user, lambda _path, _limit: None)


@pytest.mark.parametrize("user", ["1000", "1000:1000"])
def test_cve_2016_3697_a_number_is_never_the_name_of_another_user(user: str) -> None:
    passwd = b"1000:x:0:0::/root:/bin/sh\n"
    found = resolve_user(user, lambda path, _limit: passwd if path == "/etc/passwd" else None)
    assert found.uid == 1000


def test_cve_2026_46680_a_number_that_is_no_id_is_not_looked_up_as_a_name() -> None:
    passwd = b"4294967296:x:0:0::/root:/bin/sh\n"
    with pytest.raises(InvalidConfigError, match="expected an id from 0"):
        resolve_user("4294967296", lambda _path, _limit: passwd)


@pytest.mark.parametrize("field", ["4294967296", "-0", "0x0", " 0", "٠", "00000000000000000000"])  # noqa: RUF001
def test_cve_2024_40635_an_id_of_the_database_that_is_no_number_is_no_user(field: str) -> None:
    passwd = f"evil:x:{field}:0::/:/bin/sh\n".encode()
    with pytest.raises(InvalidConfigError, match="evil"):
        resolve_user("evil", lambda _path, _limit: passwd)


def _rootfs(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    return root


@pytest.mark.parametrize("target", ["{host}", "../../../../../../../..{host}"])
def test_cve_2024_9676_passwd_as_a_link_does_not_read_the_host(
    tmp_path: pathlib.Path, target: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("evil:x:0:0::/:/bin/sh\n")
    root = _rootfs(tmp_path)
    (root / "etc/passwd").symlink_to(target.format(host=secret))
    assert read_inside(str(root), "/etc/passwd", MAX_SIZE) is None


def test_cve_2024_9676_a_directory_above_passwd_as_a_link_does_not_read_the_host(
    tmp_path: pathlib.Path,
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "passwd").write_text("evil:x:0:0::/:/bin/sh\n")
    root = tmp_path / "rootfs"
    root.mkdir()
    (root / "etc").symlink_to(host)
    assert read_inside(str(root), "/etc/passwd", MAX_SIZE) is None


def test_cve_2024_9676_passwd_as_a_fifo_does_not_hang(tmp_path: pathlib.Path) -> None:
    root = _rootfs(tmp_path)
    os.mkfifo(root / "etc/passwd")
    with pytest.raises(InvalidConfigError, match="regular file"):
        read_inside(str(root), "/etc/passwd", MAX_SIZE)


def test_cve_2024_9676_passwd_as_a_loop_of_links_ends(tmp_path: pathlib.Path) -> None:
    root = _rootfs(tmp_path)
    (root / "etc/passwd").symlink_to("group")
    (root / "etc/group").symlink_to("passwd")
    with pytest.raises(InvalidConfigError, match="links"):
        read_inside(str(root), "/etc/passwd", MAX_SIZE)


@pytest.mark.skipif(os.geteuid() != 0, reason="root: needs root to make a device")
def test_cve_2024_9676_passwd_as_an_endless_device_is_not_read(tmp_path: pathlib.Path) -> None:
    root = _rootfs(tmp_path)
    os.mknod(root / "etc/passwd", 0o20666, os.makedev(1, 5))
    with pytest.raises(InvalidConfigError, match="regular file"):
        read_inside(str(root), "/etc/passwd", MAX_SIZE)


def test_links_inside_the_image_still_work(tmp_path: pathlib.Path) -> None:
    root = _rootfs(tmp_path)
    (root / "usr").mkdir()
    (root / "usr/passwd").write_bytes(b"here")
    (root / "etc/passwd").symlink_to("/usr/passwd")
    assert read_inside(str(root), "/etc/passwd", MAX_SIZE) == b"here"


def test_cve_2026_47262_a_huge_passwd_is_not_taken_into_memory(tmp_path: pathlib.Path) -> None:
    root = _rootfs(tmp_path)
    with open(root / "etc/passwd", "wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(LimitExceededError, match="limit"):
        read_inside(str(root), "/etc/passwd", MAX_SIZE)


def test_cve_2026_47262_a_user_in_a_hundred_thousand_groups_is_refused(
    tmp_path: pathlib.Path,
) -> None:
    group = b"".join(b"g:x:%d:u\n" % number for number in range(70_000))
    files = {"/etc/passwd": b"u:x:1:1::/:/bin/sh\n", "/etc/group": group}
    with pytest.raises(InvalidConfigError, match="groups"):
        resolve_user("u", lambda path, _limit: files[path])


def test_an_image_whose_passwd_is_a_trap_is_not_unpacked(tmp_path: pathlib.Path) -> None:
    trap = image_of(tar_of(folder("etc/"), link("etc/passwd", "/proc/self/environ")), user="www")
    with pytest.raises(InvalidConfigError, match="www"):
        unpack(trap, str(tmp_path / "b"), OPTIONS)
    assert not (tmp_path / "b").exists()


def test_a_home_directory_cannot_add_variables(tmp_path: pathlib.Path) -> None:
    root = _rootfs(tmp_path)
    (root / "etc/passwd").write_bytes(b"u:x:1:1::not/absolute:/bin/sh\n")
    made = generate_config(image_of(tar_of(file("a")), user="u").config, str(root))
    assert "HOME=/" in made["process"]["env"]
