"""Layers that cost their reader more than they are worth: bombs, endless loops, headers without bound."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from argosy.cli.main import call
from argosy.content.copy import copy
from argosy.errors import InvalidLayerError, LimitExceededError
from argosy.image.contents import Contents, write_flat
from argosy.image.differences import file_differences
from argosy.image.flatten import flatten
from argosy.image.reproducible import reproducible
from argosy.image.view import Image
from argosy.layer import kept, pump
from argosy.layer.entry import Entry, EntryType, Limits
from argosy.layer.options import Options, Overlay
from argosy.layer.rootfs import RootFS
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import header
from argosy.layer.tree import MergedTree
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.store import LayoutStore
from tests.engine.conftest import needs_containers
from tests.image.kit import image_of
from tests.layer.making import file, gzip, tar
from tests.layer.test_tarstream import patched, pax

SMALL = Limits(grace=1 << 20, ratio=50)


def apply(root: Path, data: bytes, limits: Limits = SMALL) -> None:
    with RootFS(root, Options(limits=limits)) as tree:
        tree.apply(io.BytesIO(data), layer="layer 1")


def test_cve_2017_14992_a_gzip_bomb(tmp_path: Path) -> None:
    with pytest.raises(InvalidLayerError, match=r"^layer 1: entry 'bomb': .* is a bomb$") as caught:
        apply(tmp_path, gzip(tar(file("bomb", bytes(32 << 20)))))
    assert "--max-ratio" in (caught.value.hint or "")
    assert (tmp_path / "bomb").stat().st_size < 4 << 20


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (["unpack"], ["{}/b"], "b/rootfs/holes"),
        (["run", "--network", "none"], ["nosuch"], "engine/layers/*/holes"),
    ],
)
def test_how_much_may_come_out_of_a_layer_can_be_said(
    before: list[str],
    after: list[str],
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file of holes becomes a thousandth in gzip, and is no bomb."""
    needs_containers()
    for module in ("argosy.cli.unpack", "argosy.cli.run"):
        monkeypatch.setattr(f"{module}.Limits", partial(Limits, grace=1 << 20))
    monkeypatch.setenv("ARGOSY_ROOT", str(tmp_path / "engine"))
    monkeypatch.setenv("ARGOSY_RUNTIME", "/nonexistent")
    image = image_of(tar(file("holes", bytes(32 << 20))))
    copy(image.source, str(image.digest), LayoutStore.create(str(tmp_path / "oci")), "v1")

    def told(ratio: int) -> str:
        place = [f"oci:{tmp_path}/oci:v1", *(text.format(tmp_path) for text in after)]
        call([*before, "-q", "--max-ratio", str(ratio), *place])
        return capsys.readouterr().err

    assert "more than 300 for one is a bomb" in told(300)
    assert "bomb" not in told(1200)
    assert list(tmp_path.glob(found))


def test_cve_2017_14992_a_bomb_behind_the_end_of_the_archive(tmp_path: Path) -> None:
    with pytest.raises(InvalidLayerError, match="is a bomb"):
        apply(tmp_path, gzip(tar(file("a")) + bytes(32 << 20)))


def test_a_file_that_is_huge_by_its_header_is_refused_before_it_is_made(tmp_path: Path) -> None:
    big = patched(tar(file("big")), 124, b"\x80" + (1 << 60).to_bytes(11, "big"))
    with pytest.raises(InvalidLayerError, match=r"size \d+ is outside"):
        apply(tmp_path, big)
    assert os.listdir(tmp_path) == []


_WHITEOUTS: dict[str, Callable[[int], list[tuple[Entry, bytes]]]] = {
    "opaque": lambda n: [file(name) for i in range(n) for name in (f"a/{i}", "a/.wh..wh..opq")],
    "opaque at the end": lambda n: [
        *(file(f"a/{i}") for i in range(n)),
        *(file("a/.wh..wh..opq") for _ in range(n)),
    ],
    "opaque in many depths": lambda n: [
        *(file("d/" * 20 + f"{i}/x") for i in range(n)),
        *(file("d/" * (i % 20) + ".wh..wh..opq") for i in range(n)),
    ],
    "plain": lambda n: [file(name) for i in range(n) for name in (f"a/b/{i}", ".wh.a")],
}


@pytest.mark.parametrize("way", ["apply", "overlay", "merge"])
@pytest.mark.parametrize("kind", _WHITEOUTS)
def test_many_whiteouts_of_one_directory_do_not_cost_its_files_each(
    kind: str, way: str, tmp_path: Path
) -> None:
    """A directory was looked through for every whiteout of it: a layer of a megabyte took hours."""

    def calls(count: int) -> int:
        data = tar(*_WHITEOUTS[kind](count))
        root = tmp_path / str(count)
        root.mkdir()
        counted = 0

        def count_one(*_: object) -> None:
            nonlocal counted
            counted += 1

        before = sys.getprofile()
        sys.setprofile(count_one)
        try:
            if way == "merge":
                MergedTree().lay(TarReader(io.BytesIO(data)))
            else:
                overlay = Overlay.USER if way == "overlay" else None
                with RootFS(root, Options(overlay=overlay)) as tree:
                    tree.apply(io.BytesIO(data))
        finally:
            sys.setprofile(before)
        return counted

    calls(8)  # what is made once is made
    assert calls(160) < 3 * calls(80)


def test_cve_2023_25153_headers_without_bound_are_not_read_into_memory(tmp_path: Path) -> None:
    """CVE-2022-2879 is the same of another reader."""
    for flag in (b"x", b"g", b"L", b"K"):
        block = patched(header(Entry(name=b"h", size=1 << 32)), 156, flag)
        with pytest.raises(InvalidLayerError, match="extended headers of more than 1048576 bytes"):
            apply(tmp_path, block)


def test_cve_2019_20907_a_record_of_length_zero_does_not_go_on_for_ever(tmp_path: Path) -> None:
    block = patched(header(Entry(name=b"h", size=512)), 156, b"x")
    with pytest.raises(InvalidLayerError, match="PAX record"):
        apply(tmp_path, block + b"0 path=x\n".ljust(512, b"\0") + tar(file("f")))


def test_cve_2025_8194_a_negative_size_does_not_lead_back(tmp_path: Path) -> None:
    for value in (b"\xff" * 11 + b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfc\x00"):
        for flag in (b"0", b"x", b"L", b"g"):
            with pytest.raises(InvalidLayerError):
                apply(tmp_path, patched(patched(tar(file("f")), 124, value), 156, flag))


def test_negative_sparse_regions_do_not_lead_back(tmp_path: Path) -> None:  # cpython #137395
    for regions in (b"-512,512", b"0,-512", b"512,-1,0,513"):
        records = (
            (b"GNU.sparse.map", regions),
            (b"GNU.sparse.size", b"512"),
            (b"GNU.sparse.name", b"f"),
        )
        with pytest.raises(InvalidLayerError):
            apply(tmp_path, pax(*records) + tar(file("f", b"x" * 512)))


def test_negative_regions_in_an_old_header_do_not_lead_back(tmp_path: Path) -> None:
    minus = b"\xff" * 10 + b"\xfe\0"
    for offset, length in ((minus, b"00000001000\0"), (b"00000001000\0", minus)):
        block = patched(tar(file("f", b"x" * 512)), 386, offset + length)
        sized = patched(block, 483, b"00000001000\0")
        with pytest.raises(InvalidLayerError):
            apply(tmp_path, patched(sized, 156, b"S"))


def test_a_sparse_map_without_end_is_refused(tmp_path: Path) -> None:
    """CVE-2025-58183: the regions of a map were kept, however many."""
    for body in (
        b"999999999999\n".ljust(512, b"0"),
        b"1" * 512 * 40,
        b"2\n0\n".ljust(512, b"\0") * 4,
    ):
        records = (
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"1"),
        )
        with pytest.raises(InvalidLayerError):
            apply(tmp_path, pax(*records) + tar(file("f", body)))


def test_cve_2026_32288_an_old_sparse_map_without_end_is_refused(tmp_path: Path) -> None:
    regions = b"".join(b"%011o\0%011o\0" % (n, 0) for n in range(21)) + b"\1".ljust(8, b"\0")
    block = patched(patched(tar(file("f"))[:512], 386, regions[:96] + b"\1"), 156, b"S")
    with pytest.raises(InvalidLayerError, match="more than 100 sparse regions"):
        apply(tmp_path, block + regions * 8, Limits(sparse=100))


def test_cve_2025_62518_two_readers_see_one_archive() -> None:
    # the size of the PAX header counts: what it covers is content, not entries
    inner = tar(file("smuggled"))[:512]
    outer = (
        pax((b"size", b"512"))
        + patched(tar(file("f")), 124, b"0" * 11 + b"\0")[:512]
        + inner
        + bytes(1024)
    )
    assert [entry.name for entry in TarReader(io.BytesIO(outer))] == [b"f"]


def test_cve_2026_33055_the_size_of_pax_counts_beside_another_one() -> None:
    inner = tar(file("smuggled"))[:512]
    longer = pax((b"size", b"1024")) + tar(file("f", bytes(512)))[:1024] + inner + bytes(1024)
    assert [entry.name for entry in TarReader(io.BytesIO(longer))] == [b"f"]
    shorter = pax((b"size", b"0")) + tar(file("f", inner))
    assert [entry.name for entry in TarReader(io.BytesIO(shorter))] == [b"f", b"smuggled"]


@pytest.mark.parametrize("by", ["GNU", "PAX"])
def test_cve_2025_13462_an_old_directory_is_one_by_its_whole_name(by: str) -> None:
    """What the header has room for ends with a slash: the content of such a file would be entries."""
    inner = tar(file("smuggled"))[:512]
    for name, found in ((b"d" * 99 + b"/f", [b"f"]), (b"d" * 120 + b"/", [b"d/", b"smuggled"])):
        block = patched(tar(file(name[:100], inner)), 156, b"\0")
        if by == "PAX":
            data = pax((b"path", name)) + block
        else:
            long = patched(header(Entry(name=b"long", size=len(name) + 1)), 156, b"L")
            data = long + name.ljust(512, b"\0") + block
        entries = [*TarReader(io.BytesIO(data))]
        assert [entry.name[-len(end) :] for entry, end in zip(entries, found, strict=True)] == found


def test_many_tiny_members_do_not_cost_more_than_their_bytes(tmp_path: Path) -> None:
    """CVE-2022-30631: a call within a call for each member was the end of the stack."""
    empty = b"\x1f\x8b\x08" + bytes(7) + b"\x03\0" + bytes(8)
    assert zlib.decompress(empty, 31) == b""
    apply(tmp_path, gzip(tar(file("a")))[:0] + empty * 20_000 + gzip(tar(file("a"))))
    assert (tmp_path / "a").exists()


MEASURE = """
import resource, sys
from argosy.layer.options import Options, Overlay
from argosy.layer.entry import Limits
from argosy.layer.rootfs import RootFS
with RootFS(sys.argv[1], Options(limits=Limits(ratio=1 << 20))) as root, open(sys.argv[2], "rb") as layer:
    root.apply(layer)
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.parametrize("kind", ["one file", "many files", "many folders", "long names"])
def test_memory_stays_small_whatever_the_layer(kind: str, tmp_path: Path) -> None:
    if kind == "one file":
        data = tar(file("big", bytes(200 << 20)))
    elif kind == "many files":
        data = tar(*(file(f"d/{n}") for n in range(20_000)))
    elif kind == "many folders":
        data = tar(*(file(f"d{n}/e/f") for n in range(5_000)))
    else:
        data = tar(*(file(f"{'x' * 250}/{n}") for n in range(5_000)))
    (tmp_path / "layer").write_bytes(gzip(data))
    (tmp_path / "root").mkdir()
    del data
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "root", tmp_path / "layer"],
        capture_output=True,
        check=True,
    )
    assert int(done.stdout) < 120


def heavy(kind: str, number: int) -> Entry:
    """An entry of about 4000 bytes that are kept."""
    much, name = b"x" * 4000, b"f%d" % number
    return {
        "record": Entry(name=name, records={b"X.big": much}),
        "records": Entry(name=name, records={b"X.%d" % n: b"" for n in range(20)}),
        "attribute": Entry(name=name, xattrs={b"user.big": much}),
        "name": Entry(name=name + much),
        "link": Entry(name=name, type=EntryType.SYMLINK, linkname=much),
        "map": Entry(name=name, sparse=tuple((n * 2, 1) for n in range(34))),
        "parents": Entry(name=b"%d/" % number + b"d/" * 61 + b"f"),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["record", "records", "attribute", "name", "link", "map", "parents"]
)
def test_headers_that_are_kept_have_one_budget_for_all_layers(kind: str) -> None:
    tree = MergedTree(Limits(kept=1_000_000))
    tree.lay(heavy(kind, number) for number in range(150))
    with pytest.raises(LimitExceededError, match=r"layer 1: entry .*more than 1000000 bytes"):
        tree.lay(heavy(kind, 150 + number) for number in range(150))


def test_what_was_removed_has_a_budget_too() -> None:
    tree = MergedTree(Limits(kept=1_000_000))
    deep = Entry(name=b"d" * 4000, type=EntryType.DIRECTORY)
    short = Entry(name=b"s", type=EntryType.SYMLINK, linkname=deep.name)
    tree.lay([deep, short, *(Entry(name=b"s/%d" % n, size=1) for n in range(1000))])
    with pytest.raises(LimitExceededError, match="more than 1000000 bytes"):
        tree.lay([Entry(name=b".wh." + deep.name)])


def test_records_of_a_layer_that_is_written_anew_have_a_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = image_of(pax((b"X.big", b"x")) + tar(file("f")))
    reproducible(image, 0)
    assert Contents(image).tree.get("f")
    monkeypatch.setattr(kept, "_RECORD", Limits().kept)
    with pytest.raises(LimitExceededError, match="more than 536870912 bytes"):
        reproducible(image, 0)
    with pytest.raises(LimitExceededError, match="more than 536870912 bytes"):
        _ = Contents(image).tree


def holes(size: int, data: bytes = b"", at: int = 0) -> bytes:
    """A layer with a file `big` of this size, of which only these bytes at this place are stored."""
    records = (
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"%d" % size),
        (b"GNU.sparse.name", b"big"),
    )
    regions = b"1\n%d\n%d\n" % (at, len(data)) if data else b"0\n"
    return pax(*records) + tar(file("big", regions.ljust(512, b"\0") + data))


def image_size(image: Image) -> int:
    return Contents(image).file("big").entry.size


def written_flat(image: Image) -> None:
    write_flat(Contents(image), io.BytesIO())


WAYS: dict[str, Callable[[Image], object]] = {
    "cat": lambda image: sum(len(chunk) for chunk in Contents(image).content("big")),
    "export": written_flat,
    "flatten": flatten,
    "diff": lambda image: list(
        file_differences(Contents(image), Contents(image_of(holes(image_size(image), b"x"))))
    ),
    "reproducible": lambda image: reproducible(image, 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_holes_count_where_they_are_written_out(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "Limits", lambda: SMALL)
    WAYS[way](image_of(holes(1 << 19, b"y")))
    with pytest.raises(InvalidLayerError, match=r"\d+ bytes have become \d+: more than 50 for one"):
        WAYS[way](image_of(holes(200 << 30, b"y")))


def test_holes_of_all_files_count_together() -> None:
    reader = TarReader(io.BytesIO(holes(700 << 10)[:-1024] + holes(700 << 10)), limits=SMALL)
    entries = iter(reader)
    assert next(entries).size == sum(len(part) for part in reader.whole())
    assert next(entries).size == 700 << 10
    with pytest.raises(InvalidLayerError, match=r"^entry 'big': .* is a bomb$"):
        list(reader.whole())


def test_a_copied_file_keeps_its_holes(tmp_path: Path) -> None:
    layer = holes(200 << 30, b"data", 100 << 30)
    with DockerArchive.create(tmp_path / "a.tar") as archive:
        image = image_of(layer)
        copy(image.source, str(image.digest), archive, "a:b")
    assert call(["fs", "cp", f"docker-archive:{tmp_path}/a.tar:a:b", "/big", f"{tmp_path}/f"]) == 0
    with (tmp_path / "f").open("rb") as file:
        file.seek((100 << 30) - 1)
        assert file.read(6) == b"\0data\0"
        assert os.fstat(file.fileno()).st_size == 200 << 30
        assert os.fstat(file.fileno()).st_blocks < 1000
