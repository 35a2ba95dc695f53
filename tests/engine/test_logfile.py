"""The log of a container: what it keeps, and what a disk that takes nothing costs."""

from __future__ import annotations

import pathlib
import resource
import signal

import pytest

from argosy.engine.logfile import LogWriter, read


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
    assert [line.text for line in read(path)] == ["first\n", "last\n"]


def test_a_log_is_begun_anew_where_it_has_become_long(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.engine.logfile.MAX_SIZE", 200)
    path = str(tmp_path / "output.log")
    log = LogWriter(path)
    for number in range(5):
        log.write("stdout", b"%d\n" % number)
    log.close()
    assert [line.text for line in read(path)] == ["0\n", "1\n", "2\n", "3\n", "4\n"][
        -len(list(read(path))) :
    ]
    assert (tmp_path / "output.log.1").exists()
