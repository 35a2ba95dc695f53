"""The line to an upstream: nobody waits for what is known to be silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from argosy.errors import ArgosyError, ManifestUnknownError, RegistryError, TransportError
from argosy.server.line import Line


class Upstream:
    """Something to ask, at a time of its own."""

    def __init__(self) -> None:
        self.now, self.asked = 0.0, 0
        self.pool = ThreadPoolExecutor(1)
        self.line = Line("up.example", self.pool, clock=lambda: 0.0, ticks=lambda: self.now)

    def says(self, answer: str | ArgosyError, *, after: float = 0.0) -> Callable[[], str]:
        def call() -> str:
            self.asked += 1
            self.now += after
            if isinstance(answer, ArgosyError):
                raise answer
            return answer

        return call

    def ask(self, answer: str | ArgosyError, *, after: float = 0.0) -> str:
        return asyncio.run(self.line.ask(self.says(answer, after=after)))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    one = Upstream()
    with one.pool:
        yield one


def test_an_upstream_that_has_fallen_silent_is_not_waited_for_by_everybody(
    upstream: Upstream,
) -> None:
    with pytest.raises(TransportError, match=r"^timed out$"):
        upstream.ask(TransportError("timed out"), after=60)
    with pytest.raises(TransportError, match=r"^up\.example: not asked again yet: timed out$"):
        upstream.ask("here")
    assert upstream.asked == 1
    upstream.now += 10
    assert upstream.ask("here") == "here"
    assert upstream.ask("and still") == "and still"


@pytest.mark.parametrize("answer", [ManifestUnknownError("none"), RegistryError("500")])
def test_whatever_it_answers_it_is_not_silent(upstream: Upstream, answer: ArgosyError) -> None:
    with pytest.raises(TransportError):
        upstream.ask(TransportError("timed out"), after=60)
    upstream.now += 10
    with pytest.raises(type(answer)):
        upstream.ask(answer)
    assert upstream.ask("here") == "here"


def test_an_upstream_that_refuses_at_once_is_asked_each_time(upstream: Upstream) -> None:
    for _ in range(3):
        with pytest.raises(TransportError, match=r"^refused$"):
            upstream.ask(TransportError("refused"))
    assert upstream.asked == 3


def test_it_is_forgotten_after_a_minute_that_somebody_waited_in_vain(upstream: Upstream) -> None:
    async def wait(seconds: float, *, answered: bool) -> None:
        future = asyncio.get_running_loop().create_future()
        if answered:
            asyncio.get_running_loop().call_soon(future.set_result, None)
        await upstream.line.wait(future, seconds)

    with pytest.raises(TransportError, match=r"^no answer for 0\.01 s$"):
        asyncio.run(wait(0.01, answered=False))
    with pytest.raises(TransportError, match=r"^silent a moment ago$"):
        asyncio.run(wait(3600, answered=False))
    upstream.now += 61
    asyncio.run(wait(3600, answered=True))
