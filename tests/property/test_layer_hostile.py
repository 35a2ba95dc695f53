"""Archives made to hurt: nothing outside the root changes, and what could not be done is always said."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.errors import ArgosyError
from argosy.layer.compression import uncompressed
from argosy.layer.entry import Entry, EntryType, Limits
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import TarWriter
from tests.layer.making import ME, listing


def assert_one_line(error: ArgosyError) -> None:
    assert "\n" not in str(error)


HARD = settings(max_examples=150)

part = st.sampled_from(
    [b"a", b"b", b"l", b"..", b".", b"", b"outside", b"secret", b".wh.a", b".wh.l", b".wh..wh..opq", b".wh.", b".wh..", b".wh..."]
)  # fmt: skip
names = st.lists(part, min_size=1, max_size=5).map(b"/".join)
targets = st.one_of(
    names,
    names.map(lambda name: b"/" + name),
    st.sampled_from(
        [
            b"../outside",
            b"../outside/secret",
            b"..",
            b"/",
            b".",
            b"../../../../../..",
            b"a/../../outside",
        ]
    ),
)


@st.composite
def members(draw: st.DrawFn) -> Entry:
    type_ = draw(
        st.sampled_from([t for t in EntryType if t not in (EntryType.CHARACTER, EntryType.BLOCK)])
    )
    linkname = draw(targets) if type_ in (EntryType.SYMLINK, EntryType.HARDLINK) else b""
    return Entry(
        name=draw(names),
        type=type_,
        mode=draw(st.sampled_from([0o777, 0o4755, 0])),
        linkname=linkname,
        **ME,
    )


@given(
    st.lists(st.lists(members(), max_size=8), min_size=1, max_size=3), st.booleans(), st.booleans()
)
@HARD
def test_no_archive_reaches_outside(layers: list[list[Entry]], openat2: bool, keep: bool) -> None:
    with tempfile.TemporaryDirectory() as top:
        root, outside = Path(top, "root"), Path(top, "outside")
        root.mkdir()
        outside.mkdir(mode=0o700)
        (outside / "secret").write_bytes(b"host")
        before = listing(outside), os.lstat(outside).st_mtime_ns
        for layer in layers:
            out = io.BytesIO()
            with TarWriter(out) as tar:
                for entry in layer:
                    tar.add(entry)
            try:
                with RootFS(root, Options(keep_dirlinks=keep), openat2=openat2) as tree:
                    tree.apply(io.BytesIO(out.getvalue()))
            except ArgosyError as error:
                assert_one_line(error)
        assert (listing(outside), os.lstat(outside).st_mtime_ns) == before
        assert sorted(os.listdir(top)) == ["outside", "root"]


def _layer() -> bytes:
    out = io.BytesIO()
    with TarWriter(out) as tar:
        tar.add(Entry(name=b"d/", type=EntryType.DIRECTORY, mode=0o755, **ME))
        tar.add(
            Entry(name=b"d/" + b"n" * 120, size=700, xattrs={b"user.a": b"1"}, **ME), [b"x" * 700]
        )
        tar.add(Entry(name=b"l", type=EntryType.SYMLINK, linkname=b"d", **ME))
    return out.getvalue()


LAYER = _layer()


@given(
    st.lists(
        st.tuples(st.integers(0, len(LAYER) - 1), st.binary(min_size=1, max_size=12)), max_size=4
    ),
    st.integers(0, len(LAYER)),
)
@HARD
def test_a_damaged_archive_is_read_or_refused_but_nothing_else(
    damage: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(LAYER)
    for at, value in damage:
        data[at : at + len(value)] = value
        start = at // 512 * 512
        if len(data) >= start + 512:
            data[start + 148 : start + 156] = b"        "
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    with tempfile.TemporaryDirectory() as top:
        Path(top, "root").mkdir()
        try:
            with RootFS(Path(top, "root"), Options(limits=Limits(content=1 << 20))) as tree:
                tree.apply(io.BytesIO(bytes(data[:cut])))
        except ArgosyError as error:
            assert_one_line(error)
        assert os.listdir(top) == ["root"]


@given(
    st.binary(max_size=3000),
    st.sampled_from([b"", bytes.fromhex("1f8b0800"), bytes.fromhex("28b52ffd")]),
)
@HARD
def test_any_bytes_are_read_or_refused_but_nothing_else(data: bytes, head: bytes) -> None:
    try:
        reader = TarReader(uncompressed(io.BytesIO(head + data), limits=Limits(content=1 << 24)))
        for _ in reader:
            b"".join(bytes(part) for part in reader.whole())
    except ArgosyError as error:
        assert_one_line(error)
