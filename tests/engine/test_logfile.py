"""The log of a container: what it keeps, and what a disk that takes nothing costs."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import signal

import pytest

from argosy.engine.logfile import MAX_LINE, LogReader, LogWriter, moment
from argosy.errors import UsageError


def texts(reader: LogReader) -> list[str]:
    return [line.text for line in reader.lines()]


def whole(path: str) -> list[str]:
    with contextlib.closing(LogReader(path)) as reader:
        return texts(reader)


def test_a_disk_that_takes_nothing_costs_lines_and_nothing_else(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "output.log")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = LogWriter(path)
    log.write("stdout", b"first\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for _ in range(3):
            log.write("stdout", b"lost\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.write("stdout", b"last\n")
    log.close()
    assert whole(path) == ["first\n", "last\n"]


def test_every_line_is_read_once_also_where_the_log_is_begun_anew(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.engine.logfile.MAX_SIZE", 1000)
    path = str(tmp_path / "output.log")
    log, reader = LogWriter(path), LogReader(path)
    seen, expected = [], []
    for number in range(200):
        log.write("stdout", b"%d\n" % number)
        expected.append(f"{number}\n")
        if number % 7 == 0:
            seen += texts(reader)
    log.close()
    assert seen + texts(reader) == expected
    reader.close()
    assert os.path.getsize(f"{path}.1") < 1200
    kept = whole(path)
    assert kept == expected[-len(kept) :]
    assert len(kept) > 10


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "output.log"
    path.write_text('{"log": "one", "stream": "stdout", ')
    reader = LogReader(str(path))
    assert texts(reader) == []
    with path.open("a") as file:
        file.write('"time": "now"}\n')
    assert texts(reader) == ["one"]
    reader.close()


def test_long_lines_are_split_and_nothing_else_is(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "output.log")
    log = LogWriter(path)
    long = b"x" * MAX_LINE
    for data in (b"a", b"b\n\nc\n", long + b"\n", long * 2 + b"y", b"z\nlast"):
        log.write("stdout", data)
    log.write("stderr", b'"quoted"\n')
    log.close()
    one = long.decode()
    assert whole(path) == ["ab\n", "\n", "c\n", f"{one}\n", one, one, "yz\n", '"quoted"\n', "last"]


def test_what_comes_at_once_is_written_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogWriter(str(tmp_path / "output.log"))
    writes: list[int] = []

    def write(data: bytes) -> int:
        writes.append(len(data))
        return len(data)

    monkeypatch.setattr(log._file, "write", write)
    log.write("stdout", b"line\n" * 1000 + b"rest")
    assert len(writes) == 1
    log.close()
    assert len(writes) == 2


def test_lines_before_a_time_are_left_out_also_of_those_that_come_later(
    tmp_path: pathlib.Path,
) -> None:
    path = str(tmp_path / "output.log")
    log = LogWriter(path)
    log.write("stdout", b"first\n")
    log.write("stdout", b"second\n")
    with contextlib.closing(LogReader(path)) as reader:
        one, two = (line.time for line in reader.lines())
    assert one < two
    with contextlib.closing(LogReader(path, since=moment(two))) as reader:
        assert texts(reader) == ["second\n"]
        log.write("stdout", b"third\n")
        assert texts(reader) == ["third\n"]
    with contextlib.closing(LogReader(path, since=moment("4000000000"))) as reader:
        log.write("stdout", b"fourth\n")
        assert texts(reader) == []
    log.close()


@pytest.mark.parametrize(
    "text", ["", "soon", "1d", "5m1h", "-1", "999999999h", "99999999999999", "2026-13-01", "1.5h"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected one as in RFC 3339"):
        moment(text)
