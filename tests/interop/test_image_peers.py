"""What argosy makes, the tools of the field read; and what they make, argosy reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import stat
import subprocess
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from argosy.cli.main import call
from argosy.content.copy import copy
from argosy.image.validate import validate
from argosy.image.view import Image, view
from argosy.layer.tarstream import TarReader
from argosy.layout.archive import OCIArchive
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.store import LayoutStore
from argosy.spec.platform import Platform

Peer = Callable[[str], str]
Run = Callable[..., str]


@pytest.fixture
def argosy(capfd: pytest.CaptureFixture[str]) -> Run:
    """`argosy("cp", a, b)` runs a command, which must succeed, and gives what it printed."""

    def command(*argv: object) -> str:
        capfd.readouterr()
        code = call([str(word) for word in argv])
        out, err = capfd.readouterr()
        assert code == 0, err
        return out

    return command


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="root: needs root to give files away")
pytestmark = pytest.mark.peer


def run(*argv: str | pathlib.Path, **more: object) -> str:
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, timeout=120, check=False, **more
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return str(done.stdout.decode(errors="replace"))


def listing(path: pathlib.Path) -> dict[str, object]:
    """What mtree would say: type, mode, owner, time, links, attributes and content of every name."""
    found: dict[str, object] = {}
    inodes: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted((*folders, *files)):
            full = os.path.join(folder, name)
            relative = os.path.relpath(full, path)
            status = os.lstat(full)
            first = inodes.setdefault((status.st_dev, status.st_ino), relative)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(full)
            elif stat.S_ISREG(status.st_mode):
                with open(full, "rb") as opened:
                    content = hashlib.sha256(opened.read()).hexdigest()
            attributes = {
                key: os.getxattr(full, key, follow_symlinks=False)
                for key in os.listxattr(full, follow_symlinks=False)
            }
            found[relative] = (
                stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_rdev,
                int(status.st_mtime), first, content, attributes,
            )  # fmt: skip
    return found


SOURCES: dict[str, tuple[Any, str]] = {
    "busybox": (LayoutStore, "busybox"),
    "docker-save-14-layers": (DockerArchive, "docker-save-14-layers.tar"),
    "docker-save-v25": (DockerArchive, "docker-save-v25-hello-world.tar"),
    "kaniko": (DockerArchive, "kaniko-image.tar"),
    "buildkit-estargz": (OCIArchive, "buildkit-oci-estargz.tar"),
}


@pytest.fixture(params=SOURCES)
def real(
    request: pytest.FixtureRequest, images: pathlib.Path, tmp_path: pathlib.Path
) -> pathlib.Path:
    """A layout with one real image under the tag `real`."""
    kind, name = SOURCES[request.param]
    with kind.open(str(images / name)) as place:
        tags = list(place.tags())
        wanted = Platform.parse("linux/amd64") if request.param == "busybox" else None
        image = Image.open(place, tags[0] if tags else "@0", wanted)
        with LayoutStore.create(str(tmp_path / "real")) as target:
            copy(place, str(image.digest), target, "real")
    return tmp_path / "real"


@root_only
def test_unpacking_gives_what_umoci_gives(
    real: pathlib.Path,
    tmp_path: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    argosy("unpack", "-q", f"oci:{real}:real", tmp_path / "ours")
    run(peer("umoci"), "unpack", "--image", f"{real}:real", tmp_path / "theirs")
    assert listing(tmp_path / "ours/rootfs") == listing(tmp_path / "theirs/rootfs")
    ours, theirs = (
        json.loads((tmp_path / name / "config.json").read_bytes()) for name in ("ours", "theirs")
    )
    for key in ("args", "cwd", "user"):
        assert ours["process"][key] == theirs["process"][key]
    assert json.loads((tmp_path / "ours/umoci.json").read_bytes())["umoci_version"] == "2"


@root_only
def test_what_umoci_repacks_argosy_unpacks_and_the_reverse(
    real: pathlib.Path,
    tmp_path: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    umoci = peer("umoci")
    run(umoci, "unpack", "--image", f"{real}:real", tmp_path / "theirs")
    argosy("unpack", "-q", f"oci:{real}:real", tmp_path / "ours")
    for name in ("theirs", "ours"):
        rootfs = tmp_path / name / "rootfs"
        (rootfs / "new").mkdir(mode=0o700)
        (rootfs / "new/file").write_text("content")
        os.setxattr(rootfs / "new/file", "user.argosy", b"\x00\xff")
        (rootfs / "new/link").symlink_to("file")
        os.mkfifo(rootfs / "new/fifo")
        os.chown(rootfs / "new/fifo", 5, 6)
        victim = next((p for p in sorted(rootfs.iterdir()) if p.name != "new"), None)
        if victim is not None and victim.is_file() and not victim.is_symlink():
            victim.unlink()
        for path in (
            rootfs / "new/file",
            rootfs / "new/link",
            rootfs / "new/fifo",
            rootfs / "new",
            rootfs,
        ):
            os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    run(umoci, "repack", "--image", f"{real}:umoci", tmp_path / "theirs")
    argosy("repack", "-q", f"oci:{real}:real", tmp_path / "ours", "-t", "argosy")
    run(umoci, "stat", "--image", f"{real}:argosy", "--json")
    run(umoci, "unpack", "--image", f"{real}:argosy", tmp_path / "a")
    argosy("unpack", "-q", f"oci:{real}:umoci", tmp_path / "b")
    assert listing(tmp_path / "a/rootfs") == listing(tmp_path / "ours/rootfs")
    assert listing(tmp_path / "b/rootfs") == listing(tmp_path / "theirs/rootfs")
    assert listing(tmp_path / "a/rootfs") == listing(tmp_path / "b/rootfs")


@root_only
def test_argosy_repacks_what_umoci_unpacked(
    real: pathlib.Path, tmp_path: pathlib.Path, argosy: Run, peer: Peer
) -> None:
    run(peer("umoci"), "unpack", "--image", f"{real}:real", tmp_path / "b")
    assert argosy("bundle", "diff", tmp_path / "b") == ""
    (tmp_path / "b/rootfs/odd name#").write_text("x")
    found = argosy("bundle", "diff", tmp_path / "b").splitlines()
    assert "A /odd name#" in found
    assert len(found) <= 2
    argosy("repack", "-q", f"oci:{real}:real", tmp_path / "b", "-t", "packed")
    assert argosy("fs", "cat", f"oci:{real}:packed", "/odd name#") == "x"


@root_only
def test_umoci_repacks_what_argosy_unpacked_for_it(
    real: pathlib.Path, tmp_path: pathlib.Path, argosy: Run, peer: Peer
) -> None:
    umoci, bundle = peer("umoci"), tmp_path / "b"
    argosy("unpack", "-q", "--for-umoci", f"oci:{real}:real", bundle)
    run(umoci, "repack", "--image", f"{real}:same", "--refresh-bundle", bundle)
    with LayoutStore.open(str(real)) as place:
        before, after = Image.open(place, "real"), Image.open(place, "same")
        unchanged = [la.diff_id for la in after.layers[len(before.layers) :]]
    argosy("unpack", "-q", "--for-umoci", f"oci:{real}:real", tmp_path / "again")
    (tmp_path / "again/rootfs/odd name#").write_text("x")
    run(umoci, "repack", "--image", f"{real}:changed", tmp_path / "again")
    with LayoutStore.open(str(real)) as place:
        changed = Image.open(place, "changed")
        with changed.layers[-1].uncompressed() as stream:
            names = {entry.path for entry in TarReader(stream)}
            stream.drain()
    assert names - {b""} == {b"odd name#"}
    assert len(unchanged) <= 1


@root_only
def test_argosy_repacks_a_bundle_of_its_own_that_umoci_refreshed(
    real: pathlib.Path, tmp_path: pathlib.Path, argosy: Run, peer: Peer
) -> None:
    argosy("unpack", "-q", "--for-umoci", f"oci:{real}:real", tmp_path / "b")
    (tmp_path / "b/rootfs/x").touch()
    run(peer("umoci"), "repack", "--image", f"{real}:more", "--refresh-bundle", tmp_path / "b")
    assert "/x" not in argosy("bundle", "diff", tmp_path / "b")
    (tmp_path / "b/rootfs/x").unlink()
    argosy("repack", "-q", f"oci:{real}", tmp_path / "b", "-t", "less")
    assert "x" not in argosy("fs", "ls", f"oci:{real}:less", "/").split()


def test_what_umoci_configures_argosy_reads_and_the_reverse(
    real: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    umoci = peer("umoci")
    flags = [
        "--config.user", "1:2", "--config.env", "A=b", "--config.cmd", "x", "--config.cmd", "y", "--config.label",
        "l=m", "--config.workingdir", "/w", "--config.exposedports", "80/tcp", "--config.volume", "/v",
        "--config.stopsignal", "SIGINT", "--author", "me", "--created", "2020-01-01T00:00:00Z",
        "--manifest.annotation", "a=b", "--architecture", "arm64", "--os", "linux",
    ]  # fmt: skip
    history = ["--history.created", "2020-01-01T00:00:00Z", "--history.created_by", "me"]
    run(umoci, "config", "--image", f"{real}:real", "--tag", "umoci", *flags, *history)
    argosy("mutate", "-q", f"oci:{real}:real", *flags, *history, "-t", "argosy")
    with LayoutStore.open(str(real)) as place:
        theirs, ours = Image.open(place, "umoci"), Image.open(place, "argosy")
        # umoci drops the properties it does not know; they are kept here.
        known = dataclasses.replace(ours.config.execution, extra={})
        assert known == dataclasses.replace(theirs.config.execution, extra={})
        assert ours.platform == theirs.platform
        assert (ours.config.author, ours.config.created) == (
            theirs.config.author,
            theirs.config.created,
        )
        assert ours.manifest.annotations == theirs.manifest.annotations
        assert not [f for f in validate(theirs) if not f.warning]
    run(umoci, "stat", "--image", f"{real}:argosy")


@root_only
def test_what_is_inserted_is_what_umoci_inserts(
    real: pathlib.Path,
    tmp_path: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    umoci = peer("umoci")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_text("x")
    run(umoci, "insert", "--image", f"{real}:real", "--tag", "umoci", tree, "/etc/put")
    run(umoci, "insert", "--image", f"{real}:umoci", "--whiteout", "/etc/put/sub")
    argosy("insert", "-q", f"oci:{real}:real", tree, "/etc/put", "-t", "argosy")
    argosy("insert", "-q", f"oci:{real}:argosy", "--whiteout", "/etc/put/sub")
    argosy("unpack", "-q", "--rootfs-only", f"oci:{real}:umoci", tmp_path / "theirs")
    run(umoci, "raw", "unpack", "--image", f"{real}:argosy", tmp_path / "ours")
    assert listing(tmp_path / "theirs").keys() == listing(tmp_path / "ours").keys()


def test_skopeo_reads_what_is_converted_recompressed_flattened_and_indexed(
    real: pathlib.Path,
    tmp_path: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    skopeo = peer("skopeo")
    argosy(
        "convert",
        "-q",
        f"oci:{real}:real",
        "--format",
        "docker",
        "-t",
        f"dir:{tmp_path / 'docker'}",
    )
    argosy("recompress", "-q", f"oci:{real}:real", "--compress", "zstd", "-t", "zstd")
    argosy("flatten", "-q", f"oci:{real}:real", "-t", "flat")
    argosy("reproducible", "-q", f"oci:{real}:real", "-t", "repro")
    raw = run(skopeo, "inspect", "--raw", f"dir:{tmp_path / 'docker'}")
    assert json.loads(raw)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    for tag in ("zstd", "flat", "repro"):
        run(skopeo, "copy", f"oci:{real}:{tag}", f"dir:{tmp_path / tag}")
    argosy(
        "index", "create", "-q", f"oci:{real}:real", f"oci:{real}:flat", "-t", f"oci:{real}:index"
    )
    run(skopeo, "copy", "--all", f"oci:{real}:index", f"dir:{tmp_path / 'index'}")


def test_argosy_reads_what_skopeo_converts(
    real: pathlib.Path,
    tmp_path: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    skopeo = peer("skopeo")
    run(skopeo, "copy", "--format", "v2s2", f"oci:{real}:real", f"dir:{tmp_path / 'theirs'}")
    argosy("convert", "-q", f"dir:{tmp_path / 'theirs'}", "-t", f"oci:{tmp_path / 'back'}:v1")
    with LayoutStore.open(str(tmp_path / "back")) as back, LayoutStore.open(str(real)) as place:
        one, two = Image.open(back, "v1"), Image.open(place, "real")
        assert one.config.rootfs == two.config.rootfs
        assert not [f for f in validate(one) if not f.warning]


def _exported(raw: bytes, path: pathlib.Path) -> set[tuple[str, int, str]]:
    path.write_bytes(raw)
    with tarfile.open(path) as tar:
        return {
            (m.name.removeprefix("./").rstrip("/"), m.size, m.linkname if m.issym() else "")
            for m in tar
        } - {("", 0, ""), (".", 0, "")}


def test_crane_validates_what_is_appended_and_exports_the_same_files(
    real: pathlib.Path,
    tmp_path: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    crane = peer("crane")
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(__file__, "added/file")
    out = tmp_path / "out.tar"
    # crane takes the first layer's compression for that of all.
    argosy("recompress", "-q", f"oci:{real}:real", "--compress", "gzip")
    argosy(
        "append", "-q", "-b", f"oci:{real}:real", "-f", layer, "-t", "example.org/x:v1", "-o", out
    )
    run(crane, "validate", "--tarball", out)
    with out.open("rb") as stream:
        theirs = subprocess.run(
            [crane, "export", "-", "-"], stdin=stream, capture_output=True, check=True
        )
    argosy("export", f"docker-archive:{out}", tmp_path / "ours.tar")
    ours = _exported((tmp_path / "ours.tar").read_bytes(), tmp_path / "a")
    found = _exported(theirs.stdout, tmp_path / "b")
    assert {name for name, _, _ in ours} >= {name for name, _, _ in found}
    assert ("added/file", os.path.getsize(__file__), "") in ours


def test_argosy_reads_what_crane_appends(tmp_path: pathlib.Path, argosy: Run, peer: Peer) -> None:
    layer, out = tmp_path / "layer.tar", tmp_path / "out.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(__file__, "added/file")
    run(peer("crane"), "append", "-f", layer, "-t", "example.org/x:v1", "-o", out)
    assert (
        argosy("fs", "cat", f"docker-archive:{out}", "/added/file").encode()
        == pathlib.Path(__file__).read_bytes()
    )


def test_regctl_reads_images_and_indexes(
    real: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    regctl = peer("regctl")
    argosy("mutate", "-q", f"oci:{real}:real", "--label", "a=b", "-t", "labelled")
    argosy("index", "create", "-q", f"oci:{real}:labelled", "-t", f"oci:{real}:index")
    config = json.loads(run(regctl, "image", "inspect", f"ocidir://{real}:labelled"))
    assert config["config"]["Labels"]["a"] == "b"
    index = json.loads(
        run(regctl, "manifest", "get", "--format", "raw-body", f"ocidir://{real}:index")
    )
    assert len(index["manifests"]) == 1


def test_argosy_reads_what_regctl_mods(real: pathlib.Path, peer: Peer) -> None:
    run(
        peer("regctl"), "image", "mod", f"ocidir://{real}:real", "--create", "modded",
        "--label", "x=y", "--annotation", "p=q", "--time", "set=2020-01-01T00:00:00Z",
    )  # fmt: skip
    with LayoutStore.open(str(real)) as place:
        image = Image.open(place, "modded")
        assert image.config.execution.labels["x"] == "y"
        assert not [f for f in validate(image) if not f.warning]


@pytest.mark.parametrize(
    "which",
    ["--layer-rm-index 1", "--layer-rm-index 2 --layer-rm-index 0", "--layer-rm-created-by [23]$"],
)
def test_layers_are_taken_away_as_by_regctl(
    which: str, tmp_path: pathlib.Path, argosy: Run, peer: Peer
) -> None:
    place = f"{tmp_path}/l:v1"
    argosy("new", "-q", f"oci:{place}")
    for n in (1, 2, 3):
        (tmp_path / f"layer-{n}").write_text("x" * n)
        with tarfile.open(tmp_path / f"{n}.tar", "w") as tar:
            tar.add(tmp_path / f"layer-{n}", f"layer-{n}")
        step = ["--history.created_by", f"layer {n}"]
        argosy(
            "append",
            "-q",
            "-b",
            f"oci:{place}",
            "-f",
            tmp_path / f"{n}.tar",
            "-t",
            f"oci:{place}",
            *step,
        )
        argosy("mutate", "-q", f"oci:{place}", "-l", f"step={n}")
    argosy("mutate", "-q", f"oci:{place}", *which.split(), "--no-history", "-t", "ours")
    run(peer("regctl"), "image", "mod", f"ocidir://{place}", *which.split(), "--create", "theirs")
    for verb in (("manifest", "get"), ("config",)):
        ours, theirs = (
            json.loads(argosy(*verb, f"oci:{tmp_path}/l:{tag}")) for tag in ("ours", "theirs")
        )
        assert ours == theirs


@root_only
def test_runc_runs_an_unpacked_bundle(
    images: pathlib.Path,
    tmp_path: pathlib.Path,
    argosy: Run,
    peer: Peer,
) -> None:
    runc = peer("runc")
    bundle = tmp_path / "bundle"
    argosy("unpack", "-q", "--platform", "linux/amd64", f"oci:{images / 'busybox'}", bundle)
    config = json.loads((bundle / "config.json").read_bytes())
    config["process"].update(terminal=False, args=["sh", "-c", "echo it runs as $(id -u)"])
    (bundle / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [runc, "--root", str(tmp_path / "state"), "run", "--bundle", str(bundle), f"argosy-test-{os.getpid()}"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode and b"cgroup" in done.stderr:
        pytest.skip(f"peer runc: cannot run here: {done.stderr.decode()[:200]}")
    assert done.stdout == b"it runs as 0\n", done.stderr


def test_every_real_image_is_sound(images: pathlib.Path) -> None:
    for kind, name in SOURCES.values():
        with kind.open(str(images / name)) as place:
            for tag in list(place.tags()) or ["@0"]:
                found = [str(f) for f in validate(view(place, tag)) if not f.warning]
                assert found == [], (name, tag)
