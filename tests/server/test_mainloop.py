"""The main process: whether a worker has ended."""

from __future__ import annotations

import multiprocessing
import os
import threading

from argosy.server.mainloop import is_alive


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
