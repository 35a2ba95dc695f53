"""Waiting for a host: for how long, how often, and who waits with whom."""

from __future__ import annotations

import threading

import pytest

from argosy.errors import (
    ArgosyError,
    ResponseError,
    TooManyRequestsError,
    TransportError,
    UnauthorizedError,
    UsageError,
)
from argosy.remote.auth import Authenticator, Token
from argosy.remote.challenges import Challenge
from argosy.remote.config import Options
from argosy.remote.gate import Gate
from argosy.remote.session import Session
from argosy.remote.wire import Flow, Request, Response


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Says:
    """A transport that gives one answer after the other, the last one for ever."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers, self.sent = list(answers), list[Request]()

    def send(self, request: Request) -> Response:
        self.sent.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def session(*answers: Response | Exception, **options: object) -> tuple[Session, Says, Clock]:
    clock, says = Clock(), Says(*answers)
    gate = Gate(float(options.pop("rate", 0.0)), clock=clock, sleep=clock.sleep)  # type: ignore[arg-type]
    made = Session("registry.example", Options(**options), transport=says, gate=gate)  # type: ignore[arg-type]
    return made, says, clock


GET = Request(method="GET", url="/v2/x")


def test_the_wait_is_what_the_registry_asks_for() -> None:
    one, _, clock = session(Response(429, {"Retry-After": "20"}), Response(200))
    one.send(GET)
    assert 20 <= clock.now < 20.2


def test_the_wait_is_shared_by_all_requests_to_the_host() -> None:
    clock = Clock()
    gate = Gate(clock=clock, sleep=clock.sleep)
    gate.pause(5)
    gate.pause(3)
    gate.enter()
    assert clock.now == 5


def test_the_rate_is_kept() -> None:
    one, _, clock = session(Response(200), rate=4.0)
    for _ in range(9):
        one.send(GET)
    assert clock.now == pytest.approx(2.0)


def test_a_rate_of_next_to_nothing_waits_a_time_that_can_be_waited() -> None:
    one, _, clock = session(Response(200), rate=1e-320)
    for _ in range(2):
        one.send(GET)
    assert clock.slept == [1e6]


@pytest.mark.parametrize("wrong", ["nan", "inf", "-1"])
@pytest.mark.parametrize("name", ["timeout", "connect_timeout", "retry_delay", "max_wait", "rate"])
def test_a_number_without_sense_is_refused(name: str, wrong: str) -> None:
    """NaN is neither more nor less than any wait: as a limit it would be none."""
    with pytest.raises(UsageError, match=f"{name.replace('_', ' ')}: expected"):
        Options(**{name: float(wrong)})  # type: ignore[arg-type]


def test_the_delay_doubles_and_has_an_end() -> None:
    one, says, clock = session(TransportError("x"), attempts=12, retry_delay=1.0)
    with pytest.raises(TransportError):
        one.send(GET)
    assert len(says.sent) == 12
    assert all(delay <= 36 for delay in clock.slept)
    assert clock.slept[3] > clock.slept[0]


def test_who_is_not_told_how_long_waits_longer_each_time() -> None:
    one, says, clock = session(Response(503), attempts=4, retry_delay=1.0)
    with pytest.raises(ResponseError):
        one.send(GET)
    assert len(says.sent) == 4
    assert [round(slept / 2**count) for count, slept in enumerate(clock.slept)] == [1, 1, 1]


def test_more_than_the_most_wait_is_not_waited_and_told() -> None:
    fields = {"Retry-After": "300", "RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0"}
    refusal = Response(429, fields)
    one, says, clock = session(refusal, Response(200), max_wait=60.0)
    told = []
    for _ in range(2):
        with pytest.raises(TooManyRequestsError) as caught:
            one.send(GET)
        told.append((str(caught.value), caught.value.hint, caught.value.__notes__))
    assert told[0] == told[1]
    assert told[0][1:] == (
        "it asks to wait 300 seconds; see --max-wait",
        ["RateLimit-Limit: 100;w=21600", "RateLimit-Remaining: 0"],
    )
    assert (len(says.sent), clock.slept) == (1, [])
    clock.now = 300
    assert one.send(GET).status == 200


@pytest.mark.parametrize("status", [499, 520, 521, 523, 524])
def test_what_a_front_says_of_who_is_behind_it_may_be_different_soon(status: int) -> None:
    one, says, _ = session(Response(status), Response(200))
    assert one.send(GET).status == 200
    assert len(says.sent) == 2


def test_a_streamed_body_is_not_sent_twice() -> None:
    class Once:
        length = 1

        def open(self) -> None: ...

    one, says, _ = session(Response(503))
    with pytest.raises(ResponseError):
        one.send(Request(method="PUT", url="/v2/x", body=Once()))  # type: ignore[arg-type]
    assert len(says.sent) == 1


class Door:
    """The lock of an authenticator, which says when so many are at it that all others must be waiting."""

    def __init__(self, count: int) -> None:
        self._lock, self._arrived = threading.Lock(), threading.Semaphore(0)
        self._count = count

    def __enter__(self) -> None:
        self._arrived.release()
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def all_here(self) -> None:
        for _ in range(self._count):
            assert self._arrived.acquire(timeout=60)


class TokenServer:
    """Fails the first who asks, once all are at the door, and then serves."""

    def __init__(self, failure: ArgosyError, door: Door) -> None:
        self.failure, self.door, self.asked = failure, door, 0
        self.begun = threading.Event()

    def __call__(self, flow: Flow[Token]) -> Token:
        self.asked += 1
        flow.close()
        if self.asked > 1:
            return Token(value="good", scopes=tuple(s for both in SCOPES for s in both))
        self.begun.set()
        self.door.all_here()
        raise self.failure


SCOPES = [["repository:a:pull"], ["repository:b:pull"]]


@pytest.mark.parametrize(
    ("failure", "asked"), [(TransportError("silent"), 1), (UnauthorizedError("no"), 2)]
)
def test_who_waits_for_a_token_shares_the_failure_and_later_ones_do_not(
    failure: ArgosyError, asked: int
) -> None:
    door = Door(6)
    server = TokenServer(failure, door)
    auth = Authenticator("r.example", lambda *_: None, server)
    auth._lock = door  # type: ignore[assignment]
    challenge = Challenge("bearer", {"realm": "https://t.example/"})
    told: list[ArgosyError] = []

    def ask(scopes: list[str]) -> None:
        try:
            auth.answer([challenge], scopes, refused="", url="https://r.example/", named_by=None)
        except ArgosyError as exc:
            exc.add_note(str(len(told)))
            told.append(exc)

    first = threading.Thread(target=ask, args=(SCOPES[0],))
    first.start()
    assert server.begun.wait(60)
    others = [threading.Thread(target=ask, args=(SCOPES[i % 2],)) for i in range(5)]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join(60)
    # of another repository a refusal says nothing
    assert (len(told), server.asked) == ((6 if asked == 1 else 4), asked)
    assert {(type(exc), str(exc), len(exc.__notes__)) for exc in told} == {
        (type(failure), str(failure), 1)
    }
    before = len(told)
    ask(SCOPES[0])
    assert (len(told), server.asked) == (before, 2)
