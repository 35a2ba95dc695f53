"""The main process: whether a worker has ended."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest
from granian.constants import Interfaces

from argosy.server import mainloop
from argosy.server.mainloop import Main, is_alive


def test_a_worker_of_whose_end_another_thread_heard_first_is_not_alive() -> None:
    leave = multiprocessing.get_context("fork").Event()
    worker = multiprocessing.get_context("fork").Process(target=leave.wait)
    worker.start()
    assert is_alive(worker)
    leave.set()
    assert worker.pid is not None
    other = threading.Thread(target=os.waitpid, args=(worker.pid, 0))
    other.start()
    other.join()
    assert worker.is_alive()
    assert not is_alive(worker)


def sleep(*_words: object) -> None:
    """What a worker of these tests does."""
    threading.Event().wait()


@pytest.fixture
def main() -> Main:
    made = Main("nothing", port=0, interface=Interfaces.ASGI, workers=2)
    made._sso = None  # no socket: nobody asks these workers anything
    return made


def test_a_worker_that_ends_while_it_is_told_to_hinders_no_stop(
    main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the others would be left, and the main process would wait for them for ever."""
    worker = main._spawn_worker(0, sleep, sleep)
    worker.start()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(mainloop, "is_alive", lambda process: process.join() is None)
    worker.terminate()  # type: ignore[no-untyped-call]
    assert not is_alive(worker.inner)


def test_no_worker_is_left_by_an_error(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = main._spawn_worker(0, sleep, sleep)

    def serve(**_given: object) -> None:
        worker.start()  # type: ignore[no-untyped-call]
        main.wrks.append(worker)
        raise OSError("the disk")

    monkeypatch.setattr(main, "serve", serve)
    with pytest.raises(OSError, match="the disk"):
        main.run(sleep)
    worker.inner.join(30)
    assert not is_alive(worker.inner)
