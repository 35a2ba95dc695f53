"""Every mount option, devices, the root file system: on the real kernel."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from argosy.runtime import kernel as k
from argosy.runtime import mountplan, mounts
from argosy.runtime.errors import Failure
from argosy.runtime.kernel import KernelError, LinuxKernel
from tests.runtime.bundlekit import Bundle, Runtime, needs_root


def line(output: str, destination: str) -> list[str]:
    """Fields of the mountinfo line of a mount point (the last one there)."""
    found = [text.split() for text in output.splitlines() if text.split()[4] == destination]
    return found[-1]


def mounted(runtime: Runtime, bundle: Bundle, destination: str) -> list[str]:
    return line(runtime.output(bundle.sh("cat /proc/self/mountinfo")), destination)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    (place / "sub").mkdir(parents=True)
    (place / "file").write_text("content\n")
    return place


@pytest.mark.parametrize(
    "option", ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"]
)
def test_attributes_of_a_bind(runtime: Runtime, bundle: Bundle, source: Path, option: str) -> None:
    bundle.mount("/data", "none", str(source), "bind", option)
    assert option in mounted(runtime, bundle, "/data")[5].split(",")


def test_a_bind_that_asks_for_nothing_is_as_its_source(
    runtime: Runtime, bundle: Bundle, source: Path
) -> None:
    assert os.system(f"mount -t tmpfs -o ro,nosuid,nodev,noexec tmpfs {source}/sub") == 0
    try:
        bundle.mount("/data", "none", f"{source}/sub", "bind", "private")
        found = mounted(runtime, bundle, "/data")[5].split(",")
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(found)
    finally:
        os.system(f"umount {source}/sub")


@needs_root
def test_an_attribute_that_is_locked_is_named_where_it_is_asked_away() -> None:
    """What a mount namespace of others has made nosuid stays so; that the source is not is not pretended."""

    class Locking(LinuxKernel):
        def mount_setattr(self, *_: object, **__: object) -> None:
            raise KernelError(errno.EPERM, "Operation not permitted", "mount_setattr")

    entry = mountplan.parse(
        {"destination": "/d", "source": "/", "options": ["bind", "suid", "dev"]}, "mounts[0]"
    )
    tree = mounts.new(LinuxKernel(), "tmpfs", "tmpfs", {}, [], k.MOUNT_ATTR_NOSUID)
    try:
        with pytest.raises(Failure, match="cannot clear locked flags nosuid: mount_setattr"):
            mounts.set_attributes(Locking(), entry, tree)
    finally:
        os.close(tree)


def test_strictatime_is_neither_relatime_nor_noatime(runtime: Runtime, bundle: Bundle) -> None:
    bundle.mount("/data", "tmpfs", "tmpfs", "strictatime")
    options = mounted(runtime, bundle, "/data")[5].split(",")
    assert not {"relatime", "noatime"} & set(options)


def test_a_bind_of_a_file_makes_a_file(runtime: Runtime, bundle: Bundle, source: Path) -> None:
    bundle.mount("/etc/deep/file", "none", str(source / "file"), "bind", "ro")
    assert runtime.output(
        bundle.sh("cat /etc/deep/file; touch /etc/deep/file 2>&1 || true")
    ).startswith("content\n")
    assert (bundle.rootfs / "etc/deep/file").read_bytes() == b""


@pytest.mark.parametrize(("destination", "fstype"), [("/etc", "bind"), ("/etc/passwd", "tmpfs")])
def test_a_file_and_a_directory_do_not_cover_each_other(
    runtime: Runtime, bundle: Bundle, source: Path, destination: str, fstype: str
) -> None:
    (source / "file").touch()
    bundle.mount(destination, fstype, str(source / "file"))
    done = runtime.run(bundle)
    assert f'to rootfs at \\"{destination}\\": move_mount: not a directory' in done.stderr


def test_a_relative_source_is_below_the_bundle(runtime: Runtime, bundle: Bundle) -> None:
    (bundle.path / "here").mkdir()
    (bundle.path / "here/x").write_text("found\n")
    bundle.mount("/data", "none", "here", "rbind")
    assert runtime.output(bundle.sh("cat /data/x")) == "found\n"


def test_mounts_are_made_in_their_order(runtime: Runtime, bundle: Bundle, source: Path) -> None:
    bundle.mount("/data", "tmpfs", "tmpfs")
    bundle.mount("/data/inner", "none", str(source), "bind")
    bundle.mount("/over", "none", str(source), "bind")
    bundle.mount("/over", "tmpfs", "tmpfs")
    assert runtime.output(bundle.sh("cat /data/inner/file; ls /over | wc -l")).split() == [
        "content",
        "0",
    ]


class TestRecursive:
    def tree(self, bundle: Bundle, source: Path, *options: str) -> None:
        inner = source / "sub"
        assert os.system(f"mount -t tmpfs tmpfs {inner}") == 0
        bundle.mount("/data", "none", str(source), "rbind", *options)

    def test_recursive_attributes_reach_below(
        self, runtime: Runtime, bundle: Bundle, source: Path
    ) -> None:
        self.tree(bundle, source, "rro", "rnosuid", "rnoexec", "rnodev", "rnoatime")
        try:
            output = runtime.output(bundle.sh("cat /proc/self/mountinfo"))
            for place in ("/data", "/data/sub"):
                assert {"ro", "nosuid", "noexec", "nodev", "noatime"} <= set(
                    line(output, place)[5].split(",")
                )
        finally:
            os.system(f"umount {source}/sub")

    def test_plain_attributes_do_not(self, runtime: Runtime, bundle: Bundle, source: Path) -> None:
        self.tree(bundle, source, "ro")
        try:
            output = runtime.output(bundle.sh("cat /proc/self/mountinfo"))
            assert "ro" in line(output, "/data")[5].split(",")
            assert "rw" in line(output, "/data/sub")[5].split(",")
        finally:
            os.system(f"umount {source}/sub")

    def test_what_the_source_has_below_can_be_taken_away(
        self, runtime: Runtime, bundle: Bundle, source: Path
    ) -> None:
        self.tree(bundle, source, "rrw", "rexec")
        try:
            assert os.system(f"mount -o remount,bind,ro,noexec {source}/sub") == 0
            output = runtime.output(bundle.sh("cat /proc/self/mountinfo"))
            assert not {"ro", "noexec"} & set(line(output, "/data/sub")[5].split(","))
        finally:
            os.system(f"umount {source}/sub")

    def test_they_can_be_taken_away_below(
        self, runtime: Runtime, bundle: Bundle, source: Path
    ) -> None:
        self.tree(bundle, source, "rro", "rrw", "ratime", "rexec", "rsuid", "rdev")
        try:
            output = runtime.output(bundle.sh("cat /proc/self/mountinfo"))
            assert "rw" in line(output, "/data/sub")[5].split(",")
        finally:
            os.system(f"umount {source}/sub")


class TestRemount:
    def test_one_that_is_there_is_changed_by_remount_and_not_covered(
        self, runtime: Runtime, bundle: Bundle, source: Path
    ) -> None:
        bundle.mount("/data", "bind", str(source), "bind", "nosuid")
        bundle.mount("/data", "none", str(source), "remount", "bind", "ro")
        output = runtime.output(bundle.sh("cat /proc/self/mountinfo"))
        (flags,) = [row.split()[5].split(",") for row in output.splitlines() if " /data " in row]
        assert ("ro" in flags, "nosuid" in flags) == (True, False)

    def test_what_is_not_mounted_is_not_remounted(
        self, runtime: Runtime, bundle: Bundle, source: Path
    ) -> None:
        bundle.mount("/etc", "none", str(source), "remount", "bind", "ro")
        done = runtime.run(bundle)
        assert done.returncode == 1
        assert r"at \"/etc\": mount_setattr: invalid argument" in done.stderr


class TestTmpfs:
    def test_options_go_to_the_file_system(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.mount("/data", "tmpfs", "tmpfs", "size=64k", "mode=0751,nr_inodes=99")
        fields = mounted(runtime, bundle, "/data")
        assert "size=64k" in fields[-1]
        assert "mode=751" in fields[-1]
        assert "nr_inodes=99" in fields[-1]

    def test_it_takes_the_mode_of_the_directory_it_covers(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        (bundle.rootfs / "data").mkdir()
        (bundle.rootfs / "data").chmod(0o710)
        bundle.mount("/data", "tmpfs", "tmpfs")
        assert runtime.output(bundle.sh("stat -c %a /data")) == "710\n"

    def test_a_read_only_one_is_so_only_at_the_end(
        self, runtime: Runtime, bundle: Bundle, source: Path
    ) -> None:
        bundle.mount("/data", "tmpfs", "tmpfs", "ro")
        bundle.mount("/data/inner", "none", str(source), "bind")
        assert runtime.output(
            bundle.sh("cat /data/inner/file; touch /data/x 2>/dev/null || echo refused")
        ) == ("content\nrefused\n")

    def test_copy_up_keeps_everything(self, runtime: Runtime, bundle: Bundle) -> None:
        place = bundle.rootfs / "data"
        (place / "inner").mkdir(parents=True)
        (place / "inner/file").write_text("deep\n")
        os.chown(place / "inner/file", 1000, 1000)
        (place / "inner/file").chmod(0o4644)
        os.symlink("inner/file", place / "link")
        os.mkfifo(place / "fifo")
        os.utime(place / "inner", (1, 1))
        bundle.mount("/data", "tmpfs", "tmpfs", "tmpcopyup")
        script = "cat /data/link; stat -c '%a %u %g' /data/inner/file; stat -c '%F %Y' /data/fifo /data/inner; echo x >/data/new"
        output = runtime.output(bundle.sh(script)).splitlines()
        assert output[:2] == ["deep", "4644 1000 1000"]
        assert output[2].startswith("fifo")
        assert output[3] == "directory 1"
        assert not (place / "new").exists()


class TestIdMapped:
    def owner(self, runtime: Runtime, bundle: Bundle, path: str = "/data/file") -> str:
        return runtime.output(bundle.sh(f"stat -c '%u %g' {path}")).strip()

    def mapping(self, container: int, host: int) -> dict[str, list[dict[str, int]]]:
        entry = [{"containerID": container, "hostID": host, "size": 65536}]
        return {"uidMappings": entry, "gidMappings": entry}

    def test_with_mappings_of_its_own(self, runtime: Runtime, bundle: Bundle, source: Path) -> None:
        bundle.mount("/data", "none", str(source), "bind", **self.mapping(0, 5000))
        assert self.owner(runtime, bundle) == "5000 5000"

    def test_with_the_containers_mappings(
        self, runtime: Runtime, bundle: Bundle, source: Path
    ) -> None:
        bundle.userns(200000)
        bundle.mount("/data", "none", str(source), "bind", "idmap")
        assert self.owner(runtime, bundle) == "0 0"

    def test_recursively_or_not(self, runtime: Runtime, bundle: Bundle, source: Path) -> None:
        assert os.system(f"mount -t tmpfs tmpfs {source}/sub && touch {source}/sub/f") == 0
        try:
            bundle.mount("/one", "none", str(source), "rbind", "idmap", **self.mapping(0, 5000))
            bundle.mount("/all", "none", str(source), "rbind", "ridmap", **self.mapping(0, 5000))
            script = "stat -c %u /one/file /one/sub/f /all/file /all/sub/f"
            assert runtime.output(bundle.sh(script)).split() == ["5000", "0", "5000", "5000"]
        finally:
            os.system(f"umount {source}/sub")

    def test_without_any_mapping_it_is_refused(
        self, runtime: Runtime, bundle: Bundle, source: Path
    ) -> None:
        bundle.mount("/data", "none", str(source), "bind", "idmap")
        assert "must have both uid and gid mappings" in runtime.run(bundle).stderr


class TestPropagation:
    @pytest.mark.parametrize("place", ["/proc", "/sys"])
    def test_of_proc_and_sys(self, runtime: Runtime, bundle: Bundle, place: str) -> None:
        (entry,) = [one for one in bundle.config["mounts"] if one["destination"] == place]
        entry["options"] = [*entry.get("options", ()), "shared"]
        assert mounted(runtime, bundle, place)[6].startswith("shared:")

    @pytest.mark.parametrize(
        ("option", "mark"),
        [
            ("shared", "shared:"),
            ("rshared", "shared:"),
            ("private", ""),
            ("unbindable", "unbindable"),
        ],
    )
    def test_of_a_mount(
        self, runtime: Runtime, bundle: Bundle, source: Path, option: str, mark: str
    ) -> None:
        bundle.mount("/data", "none", str(source), "bind", option)
        fields = mounted(runtime, bundle, "/data")
        optional = fields[6 : fields.index("-")]
        assert (not optional) if not mark else any(entry.startswith(mark) for entry in optional)

    @pytest.mark.parametrize(
        ("word", "mark"), [("private", ""), ("shared", "shared:"), ("unbindable", "unbindable")]
    )
    def test_of_the_root(self, runtime: Runtime, bundle: Bundle, word: str, mark: str) -> None:
        bundle.linux["rootfsPropagation"] = word
        fields = mounted(runtime, bundle, "/")
        optional = fields[6 : fields.index("-")]
        assert (not optional) if not mark else any(entry.startswith(mark) for entry in optional)

    def test_nothing_the_container_mounts_is_seen_outside(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.linux["rootfsPropagation"] = "rshared"
        bundle.process["capabilities"] = {
            name: ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")
        }
        runtime.output(bundle.sh("mount -t tmpfs tmpfs /tmp"))
        assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()


class TestRoot:
    def test_read_only(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.config["root"]["readonly"] = True
        assert runtime.output(bundle.sh("touch /x 2>/dev/null || echo refused")) == "refused\n"

    def test_a_rootfs_behind_a_symbolic_link_is_resolved_on_the_host(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        (bundle.path / "link").symlink_to(bundle.rootfs)
        bundle.config["root"]["path"] = "link"
        assert runtime.output(bundle.sh("echo here")) == "here\n"

    def test_without_pivot(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.write()
        bundle.sh("ls / | head -3; echo $$").write()
        output = runtime.ok("run", "--no-pivot", "-b", str(bundle.path), "nopivot")
        assert output.split() == ["bin", "dev", "etc", "1"]

    def test_without_a_mount_namespace_everything_is_unmounted_again(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.namespace("mount", None)
        bundle.linux.pop("maskedPaths")
        bundle.linux.pop("readonlyPaths")
        assert runtime.output(bundle.sh("ls /dev/pts/ptmx")) == "/dev/pts/ptmx\n"
        assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()


class TestDevices:
    def test_the_default_ones_and_links(self, runtime: Runtime, bundle: Bundle) -> None:
        script = "stat -c '%n %F %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; readlink /dev/fd; readlink /dev/ptmx"
        found = runtime.output(bundle.sh(script))
        assert "/dev/null character special file 1:3 666" in found
        assert "/dev/tty character special file 5:0 666" in found
        assert found.endswith("/proc/self/fd\npts/ptmx\n")

    def test_those_of_the_configuration(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.linux["devices"] = [
            {
                "path": "/dev/deep/fuse",
                "type": "c",
                "major": 10,
                "minor": 229,
                "fileMode": 432,
                "uid": 3,
                "gid": 4,
            },
            {"path": "/dev/pipe", "type": "p", "fileMode": 384},
            {"path": "/there", "type": "p"},
        ]
        os.mkfifo(bundle.rootfs / "there")
        script = "stat -c '%F %t:%T %a %u %g' /dev/deep/fuse; stat -c '%F %a' /dev/pipe"
        assert runtime.output(bundle.sh(script)).splitlines() == [
            "character special file a:e5 660 3 4",
            "fifo 600",
        ]

    def test_in_a_user_namespace_the_hosts_nodes_are_bound(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.userns()
        assert (
            runtime.output(bundle.sh("stat -c '%t:%T' /dev/null; echo x >/dev/null; echo ok"))
            == "1:3\nok\n"
        )

    def test_an_existing_file_that_is_no_such_device_is_an_error(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        (bundle.rootfs / "data").write_text("mine")
        bundle.linux["devices"] = [{"path": "/data", "type": "c", "major": 1, "minor": 3}]
        done = runtime.run(bundle)
        assert "not the requested device exists there" in done.stderr
        assert (bundle.rootfs / "data").read_text() == "mine"

    @pytest.mark.parametrize(
        ("kind", "major", "minor"), [("c", 1, 5), ("b", 1, 3), ("p", 0, 0)], ids=str
    )
    def test_nor_does_a_node_of_another_kind_or_number_stand_in_for_one(
        self, runtime: Runtime, bundle: Bundle, kind: str, major: int, minor: int
    ) -> None:
        os.mknod(bundle.rootfs / "data", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        bundle.linux["devices"] = [{"path": "/data", "type": kind, "major": major, "minor": minor}]
        done = runtime.run(bundle)
        assert "not the requested device exists there" in done.stderr

    def test_a_node_of_the_host_is_bound_where_it_is_the_device_alone(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.userns()
        bundle.linux["devices"] = [{"path": "/dev/full", "type": "c", "major": 1, "minor": 3}]
        done = runtime.run(bundle)
        assert "the host's /dev/full is not the device c 1:3" in done.stderr

    def test_block_devices_are_made(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.linux["devices"] = [{"path": "/dev/disk", "type": "b", "major": 7, "minor": 3}]
        output = runtime.output(bundle.sh("stat -c '%F %t:%T' /dev/disk"))
        assert output == "block special file 7:3\n"


class TestCgroupMount:
    def test_every_hierarchy_is_there_and_read_only(self, runtime: Runtime, bundle: Bundle) -> None:
        output = runtime.output(bundle.sh("cat /proc/self/mountinfo"))
        places = [text.split()[4] for text in output.splitlines() if " - cgroup" in text]
        assert places
        assert all("ro" in line(output, place)[5].split(",") for place in places)

    def test_with_a_cgroup_namespace_the_container_is_its_root(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.namespace("cgroup")
        lines = runtime.output(bundle.sh("cat /proc/self/cgroup")).splitlines()
        assert {text.split(":", 2)[2] for text in lines} == {"/"}
        output = runtime.output(bundle.sh("cat /proc/self/mountinfo"))
        mounts = [text.split() for text in output.splitlines() if " - cgroup" in text]
        assert mounts
        assert all(fields[3] == "/" and "ro" in fields[5].split(",") for fields in mounts)


def test_sysfs_in_a_user_namespace_without_network_is_the_hosts(
    runtime: Runtime, bundle: Bundle
) -> None:
    bundle.userns()
    bundle.namespace("network", None)
    assert "kernel" in runtime.output(bundle.sh("ls /sys"))


def test_in_a_user_namespace_locked_flags_of_the_source_stay_and_others_go(
    runtime: Runtime, bundle: Bundle
) -> None:
    source = bundle.path / "source"
    source.mkdir()
    subprocess.run(["mount", "--bind", source, source], check=True)
    try:
        flags = "remount,bind,noexec,nosymfollow"
        subprocess.run(["mount", "-o", flags, source], check=True)
        bundle.userns()
        bundle.mount("/mnt", "none", str(source), "bind", "dev")
        shown = runtime.output(bundle.sh("grep ' /mnt ' /proc/self/mounts")).split()[3].split(",")
        assert "noexec" in shown
        assert "nosymfollow" not in shown
    finally:
        subprocess.run(["umount", source], check=True)


def test_the_bundles_root_is_left_as_it_was(runtime: Runtime, bundle: Bundle) -> None:
    before = sorted(
        (entry.name, stat.S_IMODE(entry.lstat().st_mode)) for entry in bundle.rootfs.iterdir()
    )
    runtime.output(bundle)
    after = sorted(
        (entry.name, stat.S_IMODE(entry.lstat().st_mode)) for entry in bundle.rootfs.iterdir()
    )
    assert before == after
