"""Devices of the machine in a container."""

from __future__ import annotations

import os
import pathlib
import stat
import tarfile
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Argosy, Done, needs_containers

pytestmark = pytest.mark.xdist_group("containers")

# The device of FUSE: no container has it of itself, as it has /dev/full, and opening it does nothing.
FUSE = os.makedev(10, 229)


@pytest.fixture
def devices() -> Iterator[pathlib.Path]:
    """A directory with devices: one under two names, in a directory and not."""
    needs_containers()
    path = pathlib.Path("/var/tmp") / f"argosy-devices-{os.urandom(4).hex()}"
    (path / "below").mkdir(parents=True)
    nodes = [path / "dev", path / "below" / "dev"]
    for node in nodes:
        os.mknod(node, 0o640 | stat.S_IFCHR, FUSE)
        node.chmod(0o640)
    (path / "link").symlink_to("dev")
    (path / "file").touch()
    try:
        (path / "dev").open("rb").close()
    except OSError as exc:
        pytest.skip(f"devices: this machine lets nobody open {path}/dev: {exc.strerror}")
    yield path
    for name in ("below/dev", "dev", "link", "file"):
        (path / name).unlink()
    for folder in (path / "below", path):
        folder.rmdir()


def alone(argosy: Argosy, image: str, script: str, *options: object, code: int = 0) -> Done:
    return argosy(
        "run", "-q", "--rm", "--network", "none", *options, image, "sh", "-c", script, code=code
    )


def with_member(argosy: Argosy, image: str, folder: pathlib.Path, member: tarfile.TarInfo) -> str:
    """An image with one entry more."""
    with tarfile.open(folder / "more.tar", "w") as tar:
        tar.addfile(member)
    changed = f"oci:{folder}/changed:v1"
    argosy("append", "-b", image, "-f", folder / "more.tar", "-t", changed)
    return changed


def test_a_device_is_there_under_its_name_with_its_mode_and_may_be_used(
    argosy: Argosy, image: str, devices: pathlib.Path
) -> None:
    script = "ls -l /dev/mydev; exec 3< /dev/mydev && echo opened"
    done = alone(argosy, image, script, "--device", f"{devices}/link:/dev/mydev")
    assert done.out.startswith("crw-r-----")
    assert "10, 229" in done.out
    assert done.out.endswith("opened\n")


def test_a_device_of_the_image_is_of_use_only_if_it_was_given(
    argosy: Argosy, image: str, devices: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    node = tarfile.TarInfo("mine")
    node.type, node.mode, node.devmajor, node.devminor = tarfile.CHRTYPE, 0o666, 10, 229
    changed = with_member(argosy, image, tmp_path, node)
    script = "exec 3< /mine && echo opened"
    assert "not permitted" in alone(argosy, changed, script, code=2).err
    done = alone(argosy, changed, script, "--device", f"{devices}/dev:/dev/mine:r")
    assert done.out == "opened\n"


def test_permissions_of_a_device_hold(argosy: Argosy, image: str, devices: pathlib.Path) -> None:
    script = "exec 3< /dev/dev && echo read; (exec 3> /dev/dev) 2>/dev/null && echo written; true"
    for access, told in (("r", ["read"]), ("rw", ["read", "written"])):
        done = alone(argosy, image, script, "--device", f"{devices}/dev:/dev/dev:{access}")
        assert done.out.split() == told


def test_all_devices_of_a_directory_are_given_and_nothing_else(
    argosy: Argosy, image: str, devices: pathlib.Path
) -> None:
    script = "ls /dev/mine /dev/mine/below; exec 3< /dev/mine/below/dev"
    done = alone(argosy, image, script, "--device", f"{devices}:/dev/mine:r")
    assert done.out.split() == ["/dev/mine:", "below", "dev", "/dev/mine/below:", "dev"]


def test_no_device_is_made_in_a_directory_of_the_machine(
    argosy: Argosy, image: str, devices: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    options = ("-v", f"{mine}:/data", "--device", f"{devices}/dev:/data/dev")
    done = alone(argosy, image, "true", *options, code=125)
    assert f"device /data/dev: it would be made in {mine} of this machine" in done.err
    assert list(mine.iterdir()) == []


def test_a_device_behind_a_link_of_the_image_stays_in_the_container(
    argosy: Argosy, image: str, devices: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, f"/../../..{outside}"
    changed = with_member(argosy, image, tmp_path, link)
    done = alone(argosy, changed, f"ls {outside}", "--device", f"{devices}/dev:/link/dev")
    assert done.out == "dev\n"
    assert list(outside.iterdir()) == []
