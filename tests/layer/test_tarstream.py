"""Every dialect of tar that is about, and every way in which an archive may lie."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from argosy.errors import InvalidLayerError
from argosy.layer.compression import uncompressed
from argosy.layer.entry import Entry, EntryType, Limits
from argosy.layer.tarheader import number, octal
from argosy.layer.tarsparse import checked
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import TarWriter, header
from tests.layer.making import NOON, file, folder, gzip, tar


def read(data: bytes, **limits: Any) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data), limits=Limits(**limits), where="layer 1")
    return [(entry, b"".join(reader.whole())) for entry in reader]


def names(data: bytes, **limits: Any) -> list[bytes]:
    return [entry.name for entry, _ in read(data, **limits)]


def patched(data: bytes, at: int, value: bytes) -> bytes:
    """The header at the start with a field changed and its checksum made right."""
    block = bytearray(data[:512])
    block[at : at + len(value)] = value
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


def pax(*records: tuple[bytes, bytes], flag: bytes = b"x") -> bytes:
    body = b""
    for key, value in records:
        rest = b" %s=%s\n" % (key, value)
        size = len(rest) + 1
        while len(str(size)) + len(rest) != size:
            size = len(str(size)) + len(rest)
        body += b"%d%s" % (size, rest)
    block = patched(header(Entry(name=b"pax", size=len(body))), 156, flag)
    return block + body + bytes(-len(body) % 512)


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes_is_read(format_: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as archive:
        for name, size in (("a/" * 60 + "name", 600), ("short", 0), ("d/" * 49 + "x", 512)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.gid, info.mode = size, 1234, 7, 8, 0o4755
            archive.addfile(info, io.BytesIO(b"x" * size))
    found = read(out.getvalue())
    assert [len(content) for _, content in found] == [600, 0, 512]
    assert found[0][0].name == b"a/" * 60 + b"name"
    assert {(e.uid, e.gid, e.mode, e.mtime) for e, _ in found} == {(7, 8, 0o4755, 1234 * 10**9)}


@pytest.mark.parametrize("format_", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes_is_read(format_: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_bytes(b"content")
    (tmp_path / "dir/hard").hardlink_to(tmp_path / "dir/file")
    (tmp_path / "dir/soft").symlink_to("file")
    data = subprocess.run(
        ["tar", f"--format={format_}", "--sort=name", "-C", tmp_path, "-c", "dir"],
        capture_output=True,
        check=True,
    ).stdout
    found = {entry.name: (entry, content) for entry, content in read(data)}
    assert found[b"dir/"][0].type is EntryType.DIRECTORY
    assert found[b"dir/file"][1] == b"content"
    assert found[b"dir/hard"][0].linkname == b"dir/file"
    assert found[b"dir/soft"][0].linkname == b"file"


@pytest.mark.parametrize("version", ["oldgnu", "0.0", "0.1", "1.0"])
def test_sparse_files_of_every_version_are_read(version: str, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as out:
        for at in range(0, 60 << 16, 1 << 16):
            out.seek(at)
            out.write(b"%08d" % at)
        out.truncate(5 << 20)
    options = (
        ["--format=oldgnu"]
        if version == "oldgnu"
        else ["--format=posix", f"--sparse-version={version}"]
    )
    data = subprocess.run(
        ["tar", "-S", *options, "-C", tmp_path, "-c", "holes"], capture_output=True, check=True
    ).stdout
    [(entry, content)] = read(data)
    assert entry.name == b"holes"
    assert entry.size == 5 << 20
    assert entry.sparse is not None
    assert len(entry.sparse) > 20
    assert content == (tmp_path / "holes").read_bytes()


def test_what_libarchive_says_of_attributes_is_read() -> None:
    records = (
        (b"LIBARCHIVE.xattr.user.a%20b", b"AP8"),
        (b"LIBARCHIVE.xattr.user.c", b"YQ"),
        (b"SCHILY.xattr.user.c", b"b"),
    )
    [(entry, _)] = read(pax(*records) + tar(file("f")))
    assert entry.xattrs == {b"user.a b": b"\0\xff", b"user.c": b"b"}


def test_attributes_keep_every_byte_and_may_be_empty() -> None:
    value = {b"security.capability": bytes(range(256)), b"user.empty": b"", b"user.=": b"\n"}
    [(entry, _)] = read(tar(file("f", xattrs={k: v for k, v in value.items() if k != b"user.="})))
    assert entry.xattrs == {k: v for k, v in value.items() if k != b"user.="}


def test_a_global_header_changes_nothing() -> None:  # storage: TestTypeXGlobalHeaderDoesNotFail
    assert names(pax((b"path", b"evil"), (b"comment", b"x"), flag=b"g") + tar(file("f"))) == [b"f"]


def test_a_prefix_under_gnus_magic_is_a_name_of_an_old_go() -> (
    None
):  # storage: TestUntarUstarGnuConflict
    gnu = patched(tar(file("name")), 257, b"ustar  \0")
    assert names(patched(gnu, 345, b"some/prefix")) == [b"some/prefix/name"]
    assert names(patched(gnu, 345, b"00001234567\0")) == [b"name"]


def test_the_size_of_pax_counts_not_that_of_the_header() -> None:
    # Two readers that disagree here see two archives in one (CVE-2025-62518).
    hidden = tar(file("hidden"))[:512]
    data = (
        pax((b"size", b"512"))
        + patched(tar(file("f")), 124, b"00000000000\0")[:512]
        + hidden
        + bytes(1024)
    )
    assert names(data) == [b"f"]


def test_numbers_of_base_256_are_read() -> None:
    data = patched(tar(file("f")), 108, b"\x80\0\0\0\0\x30\0\0")
    assert read(data)[0][0].uid == 0x300000


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (124, b"\xff" * 12),  # size -1
        (124, b"\x80" + b"\xff" * 11),  # size 2**95 - 1
        (124, b"-0000000001\0"),
        (124, b"0x000000001\0"),
        (124, b"000_0000001\0"),
        (108, b"\xff" * 8),  # uid -1
        (108, b"\x80\0\0\0\xff\xff\xff\xff"),  # uid 2**32 - 1: chown would leave the owner
        (116, b"\x80\0\0\1\0\0\0\0"),  # gid 2**32
        (100, b"\xff" * 8),  # mode -1
        (136, b"\x80" + b"\xff" * 11),
    ],
)
def test_numbers_that_no_file_has_are_refused(at: int, value: bytes) -> None:
    # umoci hardening: TestNegativeExpectedSize; storage: broken.tar (a huge uid)
    with pytest.raises(InvalidLayerError, match=r"^layer 1: entry 'f': "):
        read(patched(tar(file("f")), at, value))


@pytest.mark.parametrize(
    "record",
    [
        b"12 path=a/b",  # cut off
        b"99 path=a/b\n",  # longer than the header
        b"3 a\n",  # shorter than itself
        b"-1 path=a\n",
        b"11 path:a/b\n",
        b"6 =ab\n",
        b"12 pa\0h=a/b\n",
        b"0 \n",
        b"9999999999999999999 a=b\n",
    ],
)
def test_pax_records_that_lie_about_their_length_are_refused(record: bytes) -> None:
    block = patched(header(Entry(name=b"pax", size=len(record))), 156, b"x")
    with pytest.raises(InvalidLayerError, match="PAX record"):
        read(block + record + bytes(-len(record) % 512) + tar(file("f")))


def test_a_file_has_no_more_regions_than_the_limit() -> None:
    regions = [(0, 1), (2, 1), (4, 0), (4, 0)]
    assert checked(regions, 4, 2, Limits(sparse=2)) == ((0, 1), (2, 1))
    with pytest.raises(InvalidLayerError, match="more than 1 sparse regions"):
        checked(regions, 4, 2, Limits(sparse=1))


@pytest.mark.parametrize("key", [b"path", b"linkpath"])
def test_a_name_of_the_limit_is_read_and_one_byte_more_is_not(key: bytes) -> None:
    data = patched(header(Entry(name=b"l")), 156, b"2")
    assert read(pax((key, b"a" * 300)) + data, path=300)
    with pytest.raises(InvalidLayerError, match="more than 300 bytes"):
        read(pax((key, b"a" * 301)) + data, path=300)


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"path", b"a\0b"), (b"linkpath", b"\0"), (b"size", b"-1"), (b"size", b"1e9"), (b"uid", b"4294967295"), (b"mtime", b"now"), (b"mtime", b"99999999999999999")],
)  # fmt: skip
def test_pax_values_that_mean_nothing_are_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(InvalidLayerError):
        read(
            pax((key, value)) + tar((Entry(name=b"f", type=EntryType.SYMLINK, linkname=b"x"), b""))
        )


def test_an_empty_pax_value_leaves_the_header_alone() -> None:
    assert names(pax((b"path", b""), (b"size", b"")) + tar(file("f", b"abc"))) == [b"f"]


def test_times_of_pax_keep_their_nanoseconds() -> None:
    assert read(pax((b"mtime", b"-1.5")) + tar(file("f")))[0][0].mtime == -1_500_000_000


@pytest.mark.parametrize(
    ("regions", "size"),
    [
        (b"0,10,5,10", b"100"),
        (b"10,5,0,5", b"100"),
        (b"0,2000", b"100"),
        (b"0,5", b"9999999999999999"),
        (b"0", b"10"),
    ],
)
def test_sparse_maps_that_cannot_be_are_refused(regions: bytes, size: bytes) -> None:
    records = ((b"GNU.sparse.map", regions), (b"GNU.sparse.size", size), (b"GNU.sparse.name", b"f"))
    with pytest.raises(InvalidLayerError):
        read(pax(*records) + tar(file("f", b"x" * 20)))


def test_limits_are_kept_and_named() -> None:
    with pytest.raises(InvalidLayerError, match="more than 2 entries"):
        read(tar(file("a"), file("b"), file("c")), entries=2)
    with pytest.raises(InvalidLayerError, match="more than 100 bytes"):
        read(tar(file("a" * 300)), header=100)
    with pytest.raises(InvalidLayerError, match="more than 200 bytes"):
        read(tar(file("a" * 300)), path=200)
    with pytest.raises(InvalidLayerError, match="size 5 is outside 0 to 4"):
        read(tar(file("a", b"12345")), content=4)


def test_a_chain_of_extended_headers_counts_as_one() -> None:
    one = pax((b"comment", b"x" * 900))
    with pytest.raises(InvalidLayerError, match="extended headers of more than 2048 bytes"):
        read(one * 3 + tar(file("f")), header=2048)


@pytest.mark.parametrize("cut", [100, 512, 600, 1023, 1030, 1537])
def test_a_cut_archive_is_told(cut: int) -> None:
    whole = tar(file("a", b"x" * 600), file("b", b"y" * 10))
    with pytest.raises(InvalidLayerError, match=r"cut off|ends inside"):
        read(whole[:cut])


def test_an_archive_may_lack_its_end_but_not_the_entry_of_an_extended_header() -> None:
    assert names(tar(file("a"))[:512]) == [b"a"]
    assert names(b"") == []
    with pytest.raises(InvalidLayerError, match="after an extended header"):
        read(pax((b"path", b"x")))


def test_a_wrong_checksum_is_told_with_its_place() -> None:
    data = bytearray(tar(file("a", b"x"), file("b")))
    data[1024] ^= 1
    with pytest.raises(
        InvalidLayerError, match=r"^layer 1: at offset 1536: a header's checksum is wrong"
    ):
        read(bytes(data))


def test_a_signed_checksum_of_an_old_tar_is_right_too() -> None:
    data = bytearray(tar(file("é")))
    block = bytearray(data[-1536:-1024])
    block[148:156] = b"        "
    block[0] = 0xE9
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % signed
    assert names(bytes(block) + bytes(1024)) == [bytes(block[:100]).rstrip(b"\0")]


@pytest.mark.parametrize("flag", [b"V", b"M", b"D", b"A", b"\xff"])
def test_types_the_specification_does_not_have_are_refused(flag: bytes) -> None:
    with pytest.raises(InvalidLayerError, match="none of the file types"):
        read(patched(tar(file("f")), 156, flag))


def test_contiguous_files_and_old_directories_are_what_they_were() -> None:
    assert read(patched(tar(file("f", b"x")), 156, b"7"))[0][0].type is EntryType.FILE
    assert read(patched(tar(file("d/")), 156, b"\0"))[0][0].type is EntryType.DIRECTORY


def test_content_is_read_in_the_chunks_it_came_in() -> None:
    data = tar(file("a", b"x" * 5000), file("b", b"y"))
    chunks = [data[at : at + 7] for at in range(0, len(data), 7)]
    reader = TarReader(chunks)
    assert [(e.name, b"".join(reader.chunks())) for e in reader] == [
        (b"a", b"x" * 5000),
        (b"b", b"y"),
    ]


def test_offsets_lead_to_the_content() -> None:
    data = tar(file("a", b"first"), file("b" * 200, b"second"))
    for entry, content in read(data):
        assert data[entry.offset : entry.offset + entry.size] == content


# --- writing --------------------------------------------------------------------------------------------------------


def test_a_plain_header_has_the_bytes_of_go() -> None:
    block = header(
        Entry(name=b"etc/", type=EntryType.DIRECTORY, mode=0o755, uid=1, gid=2, mtime=NOON)
    )
    assert block[:100] == b"etc/".ljust(100, b"\0")
    assert block[100:148] == b"0000755\x000000001\x000000002\x0000000000000\x0013727410000\0"
    assert block[156:157] == b"5"
    assert block[257:265] == b"ustar\x0000"
    assert block[329:345] == b"0000000\x000000000\0"
    assert len(block) == 512


def test_a_long_name_is_split_where_ustar_can_and_recorded_where_it_cannot() -> None:
    split = header(Entry(name=b"a" * 90 + b"/" + b"b" * 90))
    assert len(split) == 512
    assert split[345:436] == b"a" * 90 + b"\0"
    recorded = header(Entry(name=b"a" * 101))
    assert len(recorded) == 1536
    assert recorded[:15] == b"PaxHeaders.0/aa"
    assert recorded[512:].startswith(b"111 path=aaa")
    assert recorded[1024:1124] == b"a" * 100


def test_names_that_are_not_ascii_are_recorded() -> None:
    made = header(Entry(name="dir/é".encode()))
    assert made[:22] == b"dir/PaxHeaders.0\0\0\0\0\0\0"
    assert made[512:].startswith("15 path=dir/é\n".encode())
    assert made[1024:1030] == b"dir/\0\0"


def test_records_come_sorted_and_a_name_among_them_is_whole() -> None:
    made = header(
        Entry(
            name=b"a" * 90 + b"/" + b"b" * 90,
            uid=1 << 22,
            xattrs={b"user.b": b"1", b"user.a": b"2"},
        )
    )
    body = made[512:1024]
    places = [
        body.index(key)
        for key in (b"SCHILY.xattr.user.a=2", b"SCHILY.xattr.user.b=1", b" path=", b" uid=4194304")
    ]
    assert places == sorted(places)


def test_times_are_whole_seconds_and_may_be_before_1970() -> None:
    assert b" mtime=" not in header(Entry(name=b"f", mtime=NOON + 999))
    assert b" mtime=-2\n" in header(Entry(name=b"f", mtime=-1_500_000_000))


def test_content_of_another_size_than_the_header_says_is_refused() -> None:
    with (
        pytest.raises(InvalidLayerError, match="not of the size 5"),
        TarWriter(io.BytesIO()) as archive,
    ):
        archive.add(Entry(name=b"f", size=5), [b"1234"])
    with (
        pytest.raises(InvalidLayerError, match="not of the size 5"),
        TarWriter(io.BytesIO()) as archive,
    ):
        archive.add(Entry(name=b"f", size=5), [b"123456"])


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_other_programs_read_what_is_written(program: str, tmp_path: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    long = "é" * 100 + "/" + "long" * 40
    data = tar(folder("d/"), file("d/f", b"content"), file(long, b"x"))
    subprocess.run([program, "-x", "-C", tmp_path], input=data, check=True)
    assert (tmp_path / "d/f").read_bytes() == b"content"
    assert (tmp_path / long).read_bytes() == b"x"
    assert os.stat(tmp_path / "d/f").st_mtime_ns == NOON


def test_numbers_of_both_kinds_are_read_back() -> None:
    for value in (0, 1, 0o7777777):
        field = octal(value, 8)
        assert field is not None
        assert number(field) == value
    assert octal(0o10000000, 8) is None


@pytest.mark.parametrize("more", [{"xattrs": {b"user.a=b": b"c"}}, {"records": {b"a=b": b"c"}}])
def test_a_key_with_an_equals_sign_is_not_written(more: dict[str, Any]) -> None:  # as Go refuses it
    with pytest.raises(
        InvalidLayerError, match=r"^entry 'f': no tar header holds an attribute '\S*a=b'"
    ):
        tar(file("f", **more))


def test_an_error_names_a_layer_once() -> None:
    cut = io.BytesIO(gzip(tar(file("f", os.urandom(4096))))[:-2000])
    reader = TarReader(uncompressed(cut, where="layer 1"), where="layer 1")
    with pytest.raises(
        InvalidLayerError, match=r"^layer 1: entry 'f': the compressed stream is cut off$"
    ):
        list(reader)
