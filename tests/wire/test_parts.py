"""A large blob whose connection is slow: parts of it come side by side, and whatever fails, the blob is right."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.content.copy import Copying
from argosy.content.memory import MemoryStore
from argosy.content.protocols import SupportsRead
from argosy.content.verify import VerifyingReader
from argosy.content.workers import Turns
from argosy.errors import BlobUnknownError, DigestMismatchError, RegistryError
from argosy.remote import parts, places
from argosy.remote.download import Download
from argosy.remote.parts import Parts
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from tests.wire import scripted as s

Client = Callable[..., Repository]
DATA = random.Random(1).randbytes(200_000)
BLOB = Descriptor.of("application/octet-stream", DATA)
PATH = f"/v2/app/blobs/{BLOB.digest}"
SAMPLE, PART = 20_000, 5_000


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is slow, and little is much."""
    monkeypatch.setattr(parts, "SLOW", float("inf"))
    monkeypatch.setattr(places, "LARGE", 2 * SAMPLE)
    monkeypatch.setattr(parts, "SAMPLE", SAMPLE)
    monkeypatch.setattr(parts, "_LEAST", PART)
    monkeypatch.setattr(parts, "_MOST", PART)


def parted(part: s.Answer) -> s.Answer:
    """The blob, and something else for a range that does not go to its end."""

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        whole = seen.headers.get("range", f"-{len(DATA) - 1}").endswith(f"-{len(DATA) - 1}")
        return (s.blob(DATA) if whole else part)(seen, peer)

    return send


def ranges(scripted: s.Scripted) -> list[str]:
    return [seen.headers.get("range", "") for seen in scripted.requests("GET", PATH)]


def read(repository: Repository, turns: Turns, size: int = 1000) -> bytes:
    with repository.fetch(BLOB) as reader:
        assert isinstance(reader, VerifyingReader)
        reader.spread(turns)
        return b"".join(iter(lambda: reader.read(size), b""))


def taken(turns: Turns) -> Iterator[None]:
    while turns.spare():
        yield


def test_the_rest_comes_in_parts_each_asked_for_once(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", PATH, s.blob(DATA))
    turns = Turns(4)
    assert read(client(), turns) == DATA
    first, *others = ranges(scripted)
    assert first == ""
    begin = sorted(int(one.removeprefix("bytes=").partition("-")[0]) for one in others)
    assert begin == list(range(SAMPLE, len(DATA), PART))
    assert len(list(taken(turns))) == 4, "a turn was not given back"


def test_several_parts_are_on_their_way_at_a_time(scripted: s.Scripted, client: Client) -> None:
    meeting = threading.Barrier(3, timeout=30)
    first = {f"bytes={n}-{n + PART - 1}" for n in range(SAMPLE, SAMPLE + 3 * PART, PART)}

    def met(seen: s.Seen, peer: s.Peer) -> bool:
        if seen.headers["range"] in first:
            meeting.wait()
        return s.blob(DATA)(seen, peer)

    scripted.on("GET", PATH, parted(met))
    assert read(client(), Turns(3)) == DATA


@pytest.mark.parametrize("most", [0, 1])
def test_where_no_turn_is_to_spare_one_connection_does_it(
    scripted: s.Scripted, client: Client, most: int
) -> None:
    scripted.on("GET", PATH, s.blob(DATA))
    turns = Turns(most)
    assert not most or turns.spare()
    assert read(client(), turns) == DATA
    assert ranges(scripted) == [""]


def test_a_fast_connection_is_left_alone(
    scripted: s.Scripted, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "SLOW", 0.0)
    scripted.on("GET", PATH, s.blob(DATA))
    assert read(client(), Turns(4)) == DATA
    assert ranges(scripted) == [""]


@pytest.mark.parametrize(
    "part",
    [
        s.answer(500),
        s.answer(404),
        s.answer(416),
        s.answer(200, {}, DATA),
        s.reset(),
        s.answer(206, {"Content-Range": f"bytes 0-{PART - 1}/{len(DATA)}"}, DATA[:PART]),
        s.cut(DATA[:PART], 100, status=206, Content_Range=f"bytes 20000-24999/{len(DATA)}"),
    ],
    ids=["500", "404", "416", "200", "reset", "another range", "cut"],
)
def test_where_a_part_fails_the_first_way_does_it_as_ever(
    scripted: s.Scripted, client: Client, part: s.Answer
) -> None:
    scripted.on("GET", PATH, parted(part))
    turns = Turns(4)
    assert read(client(attempts=2), turns) == DATA
    assert len(scripted.requests()) > 2, "no part was asked for"
    assert len(list(taken(turns))) == 4


def test_what_the_first_way_fails_by_is_raised(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", PATH, s.blob(DATA), s.answer(404))
    with pytest.raises(BlobUnknownError):
        read(client(), Turns(4))


def test_wrong_bytes_in_a_part_are_found(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", PATH, parted(s.blob(bytes(len(DATA)))))
    with pytest.raises(DigestMismatchError):
        read(client(), Turns(4))


def test_a_reader_that_is_left_gives_its_turns_back(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", PATH, s.blob(DATA))
    turns = Turns(4)
    with client().fetch(BLOB) as reader:
        assert isinstance(reader, VerifyingReader)
        reader.spread(turns)
        for _ in range(25):
            reader.read(1000)
        spare = len(list(taken(turns)))
        assert spare < 4
    assert not [one for one in threading.enumerate() if one.name == "argosy-part"]
    assert len(list(taken(turns))) == 4 - spare


def test_where_others_want_the_turns_it_goes_on_over_one_connection(
    scripted: s.Scripted, client: Client
) -> None:
    class Scarce(Turns):
        asked = 0

        def spare(self) -> bool:
            self.asked += 1
            return self.asked <= 3 and super().spare()

    scripted.on("GET", PATH, s.blob(DATA))
    turns = Scarce(4)
    assert read(client(), turns) == DATA
    assert ranges(scripted)[0] == ""
    assert ranges(scripted)[4:] == [f"bytes={SAMPLE + 3 * PART}-{len(DATA) - 1}"]
    turns.asked = 0
    assert len(list(taken(turns))) == 3


def test_where_no_thread_may_be_had_one_connection_does_it(
    scripted: s.Scripted, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "argosy-part":
            raise RuntimeError("can't start new thread")
        start(thread)

    scripted.on("GET", PATH, s.blob(DATA))
    turns = Turns(4)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert read(client(), turns) == DATA
    assert ranges(scripted) == [""]
    assert len(list(taken(turns))) == 4


class Small(MemoryStore):
    """Takes little at a time."""

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Iterable[str] = ()) -> None:
        data = b"".join(iter(lambda: content.read(1000), b""))
        super().push(desc, io.BytesIO(data), tags=tuple(tags))


@pytest.mark.parametrize("jobs", [4, 1])
def test_a_copy_lends_the_turns_it_does_not_need(
    scripted: s.Scripted, client: Client, jobs: int
) -> None:
    config = Descriptor.of(mediatypes.OCI_EMPTY, b"{}")
    raw = Manifest(config=config, layers=(BLOB,)).encode()
    scripted.on("GET", ".*manifests.*", s.manifest(raw))
    scripted.on("HEAD", ".*manifests.*", s.manifest(raw))
    scripted.on("GET", f"/v2/app/blobs/{config.digest}", s.answer(200, {}, b"{}"))
    scripted.on("GET", PATH, s.blob(DATA))
    with Copying(client(), target := Small(), jobs=jobs) as run:
        run.one("v1", "v1")
    assert target.fetch(BLOB).readall() == DATA
    assert any(ranges(scripted)) == (jobs > 1)


class Whole(Download):
    """Reads from memory."""

    def __init__(self, data: bytes, start: int, stop: int, broken: frozenset[int]) -> None:
        self.data, self.at, self.stop, self.broken = data, start, stop, broken

    def start_at(self, offset: int, /) -> None:
        self.at = offset

    def read(self, size: int = -1, /) -> bytes:
        if self.at in self.broken:
            raise RegistryError("broken")
        stop = self.stop if size < 0 else min(self.at + size, self.stop)
        data, self.at = self.data[self.at : stop], stop
        return data

    def close(self) -> None:
        pass


@given(
    st.binary(max_size=300),
    st.frozensets(st.integers(0, 300)),
    st.lists(st.integers(-1, 90).filter(bool), min_size=1, max_size=20),
    st.integers(0, 5),
    st.integers(1, 50),
)
def test_any_reading_gives_the_bytes_in_their_order(
    data: bytes, broken: frozenset[int], sizes: list[int], most: int, length: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SAMPLE", 10), ("_LEAST", length), ("_MOST", length)):
            patch.setattr(parts, name, value)
        stream = Parts(
            Whole(data, 0, len(data), frozenset()),
            lambda start, stop: Whole(data, start, stop, broken),
            len(data),
        )
        turns, found, number = Turns(most), b"", 0
        stream.spread(turns)
        while piece := stream.read(sizes[number % len(sizes)]):
            found, number = found + piece, number + 1
        stream.close()
    assert found == data
    assert len(list(taken(turns))) == most
