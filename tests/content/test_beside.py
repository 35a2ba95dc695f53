"""Large content is hashed on a thread beside its reader, and proved all the same."""

from __future__ import annotations

import gc
import io
import os
import threading

import pytest

from argosy.content import verify
from argosy.content.verify import BESIDE, CHUNK, VerifyingReader
from argosy.errors import DigestMismatchError, InvalidDigestError
from argosy.spec.descriptor import Descriptor

DATA = os.urandom(CHUNK) * (BESIDE // CHUNK) + b"the end"
DESC = Descriptor.of("application/octet-stream", DATA)


def taken(reader: VerifyingReader, into: bytearray) -> None:
    """Read to the end, and keep what was handed out until then."""
    while data := reader.read(CHUNK):
        into += data


class Front:
    """A stream that can begin anywhere."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)

    def start_at(self, offset: int, /) -> None:
        self._file.seek(offset)


@pytest.mark.parametrize("piece", [CHUNK, 100_000, 3 * CHUNK + 1, -1])
def test_pieces_of_any_size_prove_the_whole(piece: int) -> None:
    reader = VerifyingReader(io.BytesIO(DATA), DESC)
    assert b"".join(iter(lambda: reader.read(piece), b"")) == DATA
    assert reader.proved


@pytest.mark.parametrize("at", [0, BESIDE // 2, len(DATA) - 1])
def test_one_wrong_byte_anywhere_is_found_before_the_end_is_handed_out(at: int) -> None:
    wrong = bytearray(DATA)
    wrong[at] ^= 1
    reader, got = VerifyingReader(io.BytesIO(bytes(wrong)), DESC), bytearray()
    with pytest.raises(DigestMismatchError):
        taken(reader, got)
    assert len(got) < len(DATA)


def test_a_front_part_and_a_new_beginning_are_hashed_in_order() -> None:
    reader = VerifyingReader(Front(DATA), DESC)
    assert reader.resume(io.BytesIO(DATA[: 5 * CHUNK])) == 5 * CHUNK
    reader.read(CHUNK)
    assert reader.rewind()
    assert reader.read() == DATA


def test_a_process_that_was_forked_hashes_with_threads_of_its_own() -> None:
    assert VerifyingReader(io.BytesIO(DATA), DESC).read() == DATA
    pid = os.fork()
    if not pid:
        try:
            guard = threading.Timer(30, lambda: os._exit(2))
            guard.daemon = True
            guard.start()
            right = VerifyingReader(io.BytesIO(DATA), DESC).read() == DATA
            os._exit(0 if right else 1)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_reader_may_hash_where_it_is_read_and_proves_as_much() -> None:
    wrong = bytearray(DATA)
    wrong[BESIDE // 2] ^= 1
    right, other = VerifyingReader(io.BytesIO(DATA), DESC), VerifyingReader(io.BytesIO(wrong), DESC)
    right.hash_here()
    other.hash_here()
    before = threading.active_count()
    assert right.read() == DATA
    assert right.proved
    with pytest.raises(DigestMismatchError):
        other.read()
    assert threading.active_count() == before


def hashing() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "argosy-hash"}


def test_a_thread_hashes_beside_only_while_a_core_is_free_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "_cores", lambda: 2)
    before = hashing()
    one, two = (VerifyingReader(io.BytesIO(DATA), DESC) for _ in range(2))
    one.read(CHUNK)
    assert len(hashing() - before) == 1
    front = two.read(CHUNK)
    assert len(hashing() - before) == 1
    one.read()
    assert not hashing() - before
    assert front + two.read() == DATA
    assert not hashing() - before


def test_a_thread_ends_with_a_content_that_nobody_reads_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "_cores", lambda: 2)
    before = hashing()
    reader = VerifyingReader(io.BytesIO(DATA), DESC)
    reader.read(CHUNK)
    (thread,) = hashing() - before
    del reader
    thread.join(30)
    assert not thread.is_alive()


def test_an_algorithm_nobody_here_computes_is_refused_and_nothing_else_said() -> None:
    unknown = Descriptor.decode(
        {"mediaType": "application/octet-stream", "digest": f"sha384:{'a' * 96}", "size": BESIDE}
    )
    with pytest.raises(InvalidDigestError):
        VerifyingReader(io.BytesIO(DATA), unknown)
    gc.collect()  # what was half made complains here, if at all; pytest makes an error of it
