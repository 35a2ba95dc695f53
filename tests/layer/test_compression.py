"""Layers compressed and not: what may follow, what may not, and how much may come out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from argosy.errors import InvalidLayerError
from argosy.layer.compression import Compression, uncompressed
from argosy.layer.compressor import Compressor
from argosy.layer.entry import Limits
from argosy.layer.pump import Pump
from argosy.layer.tarstream import TarReader
from argosy.spec.digest import Digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"".join(b"line %d of a layer\n" % number for number in range(40_000))
SKIPPABLE = bytes.fromhex("5a2a4d1805000000") + b"12345"
PACK: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: lambda data: data,
    Compression.GZIP: lambda data: gzip.compress(data, mtime=0),
    Compression.ZSTD: lambda data: zstd.compress(
        data, options={zstd.CompressionParameter.checksum_flag: 1}
    ),
}
ALL = pytest.mark.parametrize("compression", list(Compression))
PACKED = pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])


def whole(data: bytes, compression: Compression | None = None, **limits: int) -> bytes:
    return b"".join(
        uncompressed(io.BytesIO(data), compression, limits=Limits(**limits), where="layer 1")
    )


@ALL
def test_the_first_bytes_tell_the_compression(compression: Compression) -> None:
    packed = PACK[compression](TEXT)
    assert Compression.sniff(packed) is compression
    assert whole(packed) == whole(packed, compression) == TEXT


def test_chunks_of_one_byte_are_enough() -> None:
    packed = PACK[Compression.GZIP](TEXT[:999])
    assert b"".join(uncompressed([bytes([byte]) for byte in packed])) == TEXT[:999]


@PACKED
def test_members_and_frames_may_follow_each_other(compression: Compression) -> None:
    pack = PACK[compression]
    assert whole(pack(TEXT) + pack(b"") + pack(b"more")) == TEXT + b"more"
    assert whole(b"".join(pack(b"%d" % n) for n in range(5000))) == b"".join(
        b"%d" % n for n in range(5000)
    )


def test_skippable_frames_are_skipped_wherever_they_are() -> None:
    frame = zstd.compress(b"text")
    for data in (SKIPPABLE + frame, frame + SKIPPABLE, frame + SKIPPABLE + frame + SKIPPABLE):
        for magic in (b"\x50", b"\x5a", b"\x5f"):
            assert whole(data.replace(b"\x5a", magic)) == b"text" * data.count(frame)
    for magic in (b"\x4f", b"\x60"):
        with pytest.raises(InvalidLayerError, match="neither another nor padding"):
            whole(frame + magic + SKIPPABLE[1:])


@PACKED
@pytest.mark.parametrize("count", [1, 511, 200_000])
def test_nul_bytes_may_follow_and_nothing_else(compression: Compression, count: int) -> None:
    packed = PACK[compression](TEXT)
    assert whole(packed + bytes(count)) == TEXT
    told = r"^layer 1: what follows the compressed stream is neither another nor padding"
    with pytest.raises(InvalidLayerError, match=told):
        whole(packed + bytes(count) + b"x")
    with pytest.raises(InvalidLayerError, match=told):
        whole(packed + b"x" * count)


@pytest.mark.parametrize(
    ("packed", "name"),
    [
        (lzma.compress(TEXT), "xz"),
        (bz2.compress(TEXT), "bzip2"),
        (bytes.fromhex("04224d18") + TEXT, "lz4"),
    ],
)
def test_a_compression_that_no_layer_has_is_named(packed: bytes, name: str) -> None:
    with pytest.raises(InvalidLayerError, match=f"^layer 1: compressed with {name}: ") as caught:
        whole(packed)
    assert caught.value.hint == f"uncompress it first: {name} -dc FILE"
    with pytest.raises(InvalidLayerError) as caught:
        next(iter(TarReader(uncompressed(io.BytesIO(packed)))))
    assert caught.value.hint == f"uncompress it first: {name} -dc FILE"


@PACKED
def test_a_cut_or_damaged_stream_is_told(compression: Compression) -> None:
    packed = PACK[compression](TEXT)
    for cut in (5, len(packed) // 2, len(packed) - 1):
        with pytest.raises(InvalidLayerError, match=r"^layer 1: the compressed stream is cut off"):
            whole(packed[:cut])
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    with pytest.raises(InvalidLayerError, match=r"^layer 1: "):
        whole(bytes(damaged))
    with pytest.raises(InvalidLayerError, match="cut off"):
        whole(b"", compression)


def test_a_wrong_checksum_of_gzip_is_told() -> None:
    packed = bytearray(PACK[Compression.GZIP](TEXT))
    packed[-6] ^= 1
    with pytest.raises(InvalidLayerError, match=r"^layer 1: uncompressing gzip failed: .*checksum"):
        whole(bytes(packed))


@PACKED
def test_a_media_type_that_is_not_true_is_told(compression: Compression) -> None:
    with pytest.raises(InvalidLayerError, match=f"^layer 1: not {compression.value}: "):
        whole(TEXT, compression)


@PACKED
def test_a_bomb_is_stopped_early(compression: Compression) -> None:
    packed = PACK[compression](bytes(64 << 20))
    sizes: list[int] = []
    pieces = map(len, uncompressed([packed], limits=Limits(ratio=100, grace=1 << 20)))
    with pytest.raises(InvalidLayerError, match="more than 100 for one is a bomb"):
        sizes.extend(pieces)
    assert sum(sizes) < 8 << 20
    assert max(sizes) <= 1 << 18
    with pytest.raises(InvalidLayerError, match="more than 1048576 bytes uncompressed"):
        whole(packed, content=1 << 20)


def test_a_zstd_window_too_large_for_us_is_refused() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    made = zstd.ZstdCompressor(options=options)
    packed = made.compress(TEXT) + made.flush()
    with pytest.raises(InvalidLayerError, match=r"uncompressing zstd failed: .*memory"):
        whole(packed)
    assert whole(packed, window=27) == TEXT


def skippable(size: int, number: int = 0) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + size.to_bytes(4, "little") + bytes(size)


@pytest.mark.parametrize("step", [1, 3, 7, 8, 9, 1 << 20])
def test_skippable_frames_are_skipped_however_they_are_cut(step: int) -> None:
    frames = skippable(0) + skippable(5, 15) + skippable(3 << 10)
    packed = frames + PACK[Compression.ZSTD](b"a") + frames + PACK[Compression.ZSTD](b"b") + frames
    for text in (packed, packed + bytes(9)):
        cut = [text[at : at + step] for at in range(0, len(text), step)]
        assert b"".join(uncompressed(cut)) == b"ab"
    for end in (1, 6):
        with pytest.raises(InvalidLayerError, match="cut off"):
            whole(packed + skippable(0)[:end])
    with pytest.raises(InvalidLayerError, match="cut off"):
        whole(packed[:-1])
    with pytest.raises(InvalidLayerError, match="neither another nor padding"):
        whole(packed + skippable(0) + b"x")


def test_no_decoder_is_made_for_a_skippable_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million of them in eight megabytes took sixteen seconds."""
    made = []
    decoder = zstd.ZstdDecompressor

    def counted(**more: Any) -> zstd.ZstdDecompressor:
        made.append(1)
        return decoder(**more)

    monkeypatch.setattr(zstd, "ZstdDecompressor", counted)
    assert whole(skippable(0) * 100_000 + PACK[Compression.ZSTD](TEXT)) == TEXT
    assert len(made) == 1


def test_a_pump_hands_errors_on_and_ends_its_thread() -> None:
    before = threading.active_count()
    with (
        pytest.raises(InvalidLayerError),
        Pump(io.BytesIO(PACK[Compression.GZIP](TEXT)[:-1])) as pump,
    ):
        list(pump)
    with Pump(io.BytesIO(os.urandom(64 << 20))) as pump:
        next(iter(pump))
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="diff_id"):
        _ = pump.diff_id


def test_a_pump_that_nobody_entered_pumps() -> None:
    assert b"".join(Pump(io.BytesIO(TEXT))) == TEXT


def test_a_pump_at_its_end_stays_there() -> None:
    with Pump(io.BytesIO(TEXT)) as pump:
        assert b"".join(pump) == TEXT
        assert list(pump) == []
    broken = Pump(io.BytesIO(PACK[Compression.GZIP](TEXT)[:-1]))
    for _ in range(2):
        with pytest.raises(InvalidLayerError):
            list(broken)


def test_a_closed_pump_gives_nothing() -> None:
    pump = Pump(io.BytesIO(os.urandom(64 << 20)))
    pieces = iter(pump)
    next(pieces)
    for _ in range(2):
        pump.close()
    for read in (pieces, iter(pump)):
        with pytest.raises(ValueError, match="closed"):
            next(read)


class Broken(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        raise OSError("the registry has gone")


def test_an_error_of_the_source_is_raised_where_it_is_read() -> None:
    with pytest.raises(OSError, match="registry has gone"), Pump(Broken()) as pump:
        list(pump)


# --- writing --------------------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 7])
def test_what_is_written_is_read_and_its_digests_are_right(
    compression: Compression, size: int
) -> None:
    data = (TEXT * 8)[:size]
    out = io.BytesIO()
    with Compressor(out, compression) as layer:
        layer.write(data)
    raw = out.getvalue()
    assert whole(raw, compression if size or compression is not Compression.NONE else None) == data
    made = layer.written
    assert (made.digest, made.size) == (Digest.of(raw), len(raw))
    assert (made.diff_id, made.uncompressed) == (Digest.of(data), size)
    if compression is Compression.GZIP:
        assert gzip.decompress(raw) == data
        assert raw[:10] == bytes.fromhex("1f8b08000000000000ff")


@ALL
def test_how_it_was_cut_into_writes_makes_no_difference(compression: Compression) -> None:
    data = TEXT * 6
    outs = []
    for step in (len(data), 1 << 20, 70_001, 512):
        out = io.BytesIO()
        with Compressor(out, compression) as layer:
            for at in range(0, len(data), step):
                layer.write(memoryview(data)[at : at + step])
        outs.append(out.getvalue())
    assert len(set(outs)) == 1


def test_gzip_is_not_much_larger_than_zlibs() -> None:
    data = b"".join(hash_line(number) for number in range(120_000))
    out = io.BytesIO()
    with Compressor(out) as layer:
        layer.write(data)
    assert layer.written.size < 1.12 * len(zlib.compress(data, 6))


def hash_line(number: int) -> bytes:
    digest = Digest.of(b"%d" % number).encoded[: number % 40].encode()
    return b"/usr/lib/python3/dist-packages/%s/__init__.py %d\n" % (digest, number)


def test_levels_are_checked() -> None:
    for compression, level in ((Compression.GZIP, 9), (Compression.ZSTD, 0), (Compression.NONE, 1)):
        with pytest.raises(ValueError, match="has no level"):
            Compressor(io.BytesIO(), compression, level=level)


class Full:
    def write(self, data: bytes | memoryview, /) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_and_no_thread_stays() -> None:
    before = threading.active_count()
    with pytest.raises(OSError, match="No space"), Compressor(Full()) as layer:
        layer.write(os.urandom(16 << 20))
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="not closed"):
        _ = layer.written
