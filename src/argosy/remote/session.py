"""One registry host: how it is spoken to, who asks, where it may send us, and when to try again.

A `Session` is the `Transport` that flows of one registry run over. It settles the scheme before any credential is
looked up, answers challenges, follows redirects, waits where it is asked to, and turns error answers into errors.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping

from argosy.errors import ArgosyError, RegistryError, TransportError
from argosy.remote import network, userheaders
from argosy.remote.auth import Authenticator, Token, fetch_token
from argosy.remote.challenges import Challenge, parse_challenges
from argosy.remote.config import Options, host_of, ignore_exchange
from argosy.remote.connection import TLS, Network
from argosy.remote.flows import location_of, next_of
from argosy.remote.gate import Gate
from argosy.remote.refusals import RATE_LIMITS, RETRIED, error_of, login_hint, retry_after
from argosy.remote.transport import HTTPTransport
from argosy.remote.wire import (
    Exchange,
    Flow,
    Request,
    Response,
    SettledError,
    Transport,
    redact_headers,
    redact_url,
    run,
)
from argosy.spec.distribution import parse_warnings

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 10
_MAX_WARNINGS = 100
_PASSED_OVER = 300.0
"""Seconds: so long a place that failed is not asked where there is another, which may be out of reach for good."""


class Session:
    """One registry host, as flows see it. Safe to use from several threads.

    Args:
        registry: `host[:port]`, or `docker.io`.
        options: How to talk to it.
        insecure: Whether registries.conf calls this place insecure.
        transport: What sends; a pool of connections of its own if None.
        gate: When it may be asked.
    """

    def __init__(
        self,
        registry: str,
        options: Options,
        *,
        insecure: bool = False,
        transport: Transport | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.registry, self.options = registry, options
        self._host = host_of(registry)
        self._insecure = options.insecure or insecure
        self._transport = transport or HTTPTransport(self._network())
        self._gate = gate or Gate(options.rate)
        self._auth = Authenticator(
            registry, options.credentials.lookup, self._token, token_hosts=options.token_hosts
        )
        self._lock = threading.Lock()
        self._base = ""
        self._class: str | None = None
        self._headers: Mapping[str, str] | None = None
        self._warned: set[str] = set()
        self._passed = False
        self.rate_limit: dict[str, str] = {}

    def __str__(self) -> str:
        return self.registry

    @property
    def base(self) -> str:
        """`https://host[:port]`, or http where that was settled.

        Raises:
            TransportError: nobody listens there.
        """
        with self._lock:
            if not self._base:
                self._base = f"{self._scheme()}://{self._host}"
            return self._base

    def send(self, request: Request) -> Response:
        """Send a request to the registry: authenticated, redirected and repeated as need be.

        Returns:
            An answer of success, or of one of `request.statuses`; read into memory unless the request streams.

        Raises:
            ArgosyError: any other answer, as the class that its code or status stands for.
            TransportError: no answer.
        """
        self._gate.check()
        if request.url.startswith("/"):
            request = request.replace(url=self.base + request.url)
        return self._repeated(request, self._authorized)

    def send_elsewhere(self, request: Request) -> Response:
        """Send a request to a place the registry or its content named: without credentials, to no inner address."""
        return self._repeated(request, lambda r: self._followed(r, ""))

    def rest(self, failures: int) -> None:
        """Leave the host alone for a while, the longer the more often it failed."""
        self._gate.pause(self._delay(failures))

    def pass_over(self, failure: ArgosyError) -> None:
        """Have whoever asks be told a failure at once for some minutes, and warn of the first."""
        self._gate.shut(failure, _PASSED_OVER)
        with self._lock:
            first, self._passed = not self._passed, True
        if first:
            self.warn(f"passed over for {_PASSED_OVER / 60:.0f} minutes: {failure}")

    def authorization(self, scopes: tuple[str, ...]) -> str:
        """What the registry would be sent to allow `scopes`: the `Authorization` header's value, or nothing.

        Raises:
            UnauthorizedError: it allows nobody that is known here.
        """
        self.send(Request(method="GET", url="/v2/", scopes=scopes, statuses=(404,)))
        return self._auth.header(scopes)

    def mean(self, scope: str) -> None:
        """Have the first token for a repository allow this, too, which is going to be needed."""
        self._auth.mean(scope)

    def introduce(self, scopes: tuple[str, ...]) -> None:
        """Have the registry know who asks, where there is a credential: some answer anybody, and those they know more.

        Raises:
            UnauthorizedError: it does not take the credential.
        """
        if self._auth.known(scopes):
            self.authorization(scopes)
            self._auth.volunteer(scopes)

    def next_page(self, page: Response) -> str:
        """The next page's URL, or an empty string: at this host, or where a redirect led to this page.

        Raises:
            RegistryError: it is elsewhere.
        """
        url = next_of(page)
        if url and not self._is_own(url) and network.origin(url) != network.origin(page.url):
            shown = redact_url(url)[:200]
            raise RegistryError(f"{self.registry}: refused a next page at another host: {shown!r}")
        return url

    def warn(self, text: str) -> None:
        """Tell a warning about the registry, once."""
        with self._lock:
            fresh = text not in self._warned and len(self._warned) < _MAX_WARNINGS
            if fresh:
                self._warned.add(text)
        if fresh:
            self.options.warn(self.registry, text)

    def close(self) -> None:
        """Close connections nobody uses."""
        if isinstance(self._transport, HTTPTransport):
            self._transport.close()

    # -------------------------------------------------------------------------------------------------- where it is

    def _network(self) -> Network:
        options = self.options
        return Network(
            tls=self._tls,
            proxies=options.proxies,
            no_proxy=options.no_proxy,
            resolve=options.resolve,
            connect_timeout=options.connect_timeout,
            timeout=options.timeout,
        )

    def _tls(self, host: str) -> TLS:
        own = host == self._host.removesuffix(":443")
        return self.options.tls_of(self._host if own else host, own=own, insecure=self._insecure)

    def _scheme(self) -> str:
        if self.options.plain_http:
            return "http"
        _, name, port = network.origin(f"https://{self._host}")
        free = self._insecure or network.classify(name) == network.LOOPBACK
        free = free and self.registry not in self.options.https_only
        if not free or not isinstance(self._transport, HTTPTransport):
            return "https"
        try:
            return "https" if self._transport.speaks_tls(name, port) else "http"
        except TransportError:
            if self._host.rpartition(":")[2].isdigit():
                raise
            return "http"

    def _is_own(self, url: str) -> bool:
        return network.origin(url) == network.origin(self.base)

    # -------------------------------------------------------------------------------------------------- trying again

    def _repeated(self, request: Request, send: Callable[[Request], Response]) -> Response:
        attempt = 0
        while True:
            attempt += 1
            if attempt == 1 and request.pause:
                self._gate.pause(request.pause)
            self._gate.enter()
            last = attempt >= self.options.attempts
            try:
                response = send(request)
                if 200 <= response.status < 300 and not request.stream:
                    response.load(request.limit)  # which may break off, and is asked for again
            except TransportError as exc:
                if not request.retry or isinstance(exc, SettledError):
                    raise
                if last:  # nobody above shall count it again, and multiply the attempts
                    raise SettledError(str(exc), hint=exc.hint) from None
                self._gate.pause(self._delay(attempt))
                continue
            response.again |= attempt > 1
            if response.status in RETRIED and response.status not in request.statuses:
                self._wait(response, request, attempt, last=last or not request.retry)
                continue
            return self._finished(response, request)

    def _wait(self, response: Response, request: Request, attempt: int, *, last: bool) -> None:
        asked = retry_after(response.headers)
        too_long = asked is not None and asked > self.options.max_wait
        if asked is not None and not too_long:
            self._gate.pause(asked + 0.1 * _chance())
        if last or too_long or not _replayable(request):
            error = error_of(response.load_error(), request)
            if asked is not None and too_long:
                error.hint = f"it asks to wait {asked:.0f} seconds; see --max-wait"
                if self._is_own(response.url):
                    self._gate.shut(error, asked)
            raise error
        response.load_error()
        if asked is None:
            self._gate.pause(self._delay(attempt))

    def _delay(self, attempt: int) -> float:
        delay: float = min(30.0, self.options.retry_delay * 2 ** (attempt - 1))
        return delay * (0.8 + 0.4 * _chance())

    def _finished(self, response: Response, request: Request) -> Response:
        if not 200 <= response.status < 300:
            response.load_error()
            # also what is no error by its number: a 302 that leads nowhere has stored nothing
            if response.status not in request.statuses:
                raise self._advised(error_of(response, request), response, request)
            return response
        if response.data and response.coding:
            where = f"{request.method} {redact_url(response.url)}"
            raise RegistryError(f"{where}: sent in {response.coding[:100]!r}, unasked")
        return response

    # -------------------------------------------------------------------------------------------------- who asks

    def _advised(self, error: ArgosyError, response: Response, request: Request) -> ArgosyError:
        """An error with who was refused, and what to do about it: a log-in is for the registry alone."""
        if response.status in {401, 403}:
            own = self._is_own(response.url)
            error.hint = login_hint(self.registry) if own else None
            if own and (who := self._auth.who(request.scopes)):
                error.hint = error.hint if response.status == 401 else None
                error.add_note(f"with the credentials of {who}")
        return error

    def _authorized(self, request: Request) -> Response:
        own = self._is_own(request.url)
        sent = self._auth.header(request.scopes) if own else ""
        response = self._followed(request, sent)
        for _ in range(2):  # a token may be too old, and then too narrow
            if not own or response.status not in {401, 403} or not self._is_own(response.url):
                break
            challenges = parse_challenges(response.headers.get_all("WWW-Authenticate"))
            if response.status == 403 and not any(
                c.parameters.get("error") == "insufficient_scope" for c in challenges
            ):
                break
            response.load_error()
            if not challenges:
                challenges = self._pinged()
            if not challenges and sent:
                break
            sent = self._auth.answer(
                challenges,
                request.scopes,
                refused=sent,
                url=response.url,
                named_by=self._named_by(),
            )
            response = self._followed(request, sent)
        return response

    def _pinged(self) -> tuple[Challenge, ...]:
        # gcr.io leaves the challenge out of all answers but that of the ping
        response = self._exchange(Request(method="GET", url=f"{self.base}/v2/"), {})
        response.load_error()
        return parse_challenges(response.headers.get_all("WWW-Authenticate"))

    def _token(self, flow: Flow[Token]) -> Token:
        try:
            return run(flow, _Bare(self))
        except SettledError as exc:
            exc.add_note("while asking for a token")
            raise

    def _named_by(self) -> str | None:
        """The class of address the registry has, which what it names may share; public while it is not known."""
        if self._class is not None:
            return self._class
        return _class_of(Response(0, url=self.base))

    # -------------------------------------------------------------------------------------------------- where it leads

    def _wanted(self) -> Mapping[str, str]:
        """What the user has sent to the registry with every request."""
        if self._headers is None:
            written = userheaders.written(self.options.credentials.files)
            self._headers = userheaders.merged(written, self.options.headers)
        return self._headers

    def _followed(self, request: Request, authorization: str) -> Response:
        own = self._is_own(request.url)
        if not own:
            request = request.replace(named_by=request.named_by or self._named_by())
            self._check_step(self.base, request.url)
        headers = self._wanted() if own else {}
        if authorization:
            headers = userheaders.merged(headers, {"Authorization": authorization})
        asked = not own
        for _ in range(MAX_REDIRECTS):
            response = self._exchange(request, headers)
            if response.status == 401 and not asked and not self._is_own(request.url):
                asked = True
                if anonymous := self._stranger(response, request.url):
                    headers = {"Authorization": anonymous}
                    continue
            if response.status not in REDIRECTS or not response.headers.get("Location"):
                self._check_session(response)
                return response
            response.load_error()
            target = network.join(request.url, response.headers.get("Location"))
            self._check_step(request.url, target)
            if network.origin(target) != network.origin(request.url):
                headers = {}  # never a credential, a cookie or a wish of the user's to another host
            request = _redirected(request, response.status, target, _class_of(response))
        raise RegistryError(f"{redact_url(request.url)}: more than {MAX_REDIRECTS} redirects")

    def _stranger(self, response: Response, url: str) -> str:
        """What a host that a redirect led to is shown where it asks: a token for nobody in particular, or nothing."""
        challenges = parse_challenges(response.headers.get_all("WWW-Authenticate"))
        bearer = next((c.parameters for c in challenges if c.scheme == "bearer"), {})
        realm = network.join(url, bearer.get("realm", ""))
        if not bearer.get("realm") or network.origin(realm)[0] != network.origin(url)[0]:
            return ""
        response.load_error()
        scopes = tuple(s for s in bearer.get("scope", "").split(" ") if s)
        flow = fetch_token(realm, bearer.get("service", ""), scopes, named_by=_class_of(response))
        return f"Bearer {self._token(flow).value}"

    def _check_session(self, response: Response) -> None:
        """Refuse an upload at a third place, named by a host that cannot lead where the registry itself can."""
        named = response.status == 202 and "Location" in response.headers
        if not named or _class_of(response) == self._named_by() or self._is_own(response.url):
            return
        target = location_of(response)
        if not self._is_own(target) and network.origin(target) != network.origin(response.url):
            response.close()
            raise SettledError(
                f"{redact_url(response.url)}: refused to upload to {redact_url(target)}: only the registry may name "
                "another host"
            )

    @staticmethod
    def _check_step(before: str, after: str) -> None:
        if network.origin(before)[0] == "https" and network.origin(after)[0] == "http":
            raise SettledError(f"refused to go from https to {redact_url(after)}")

    def _exchange(self, request: Request, headers: Mapping[str, str]) -> Response:
        ours = {"User-Agent": self.options.user_agent}
        request = request.replace(headers=userheaders.merged(ours, headers, request.headers))
        started = time.perf_counter()
        try:
            response = self._transport.send(request)
        except TransportError as exc:
            self._observe(request, None, started, str(exc))
            raise
        response.url = request.url
        self._observe(request, response, started, "")
        if self._is_own(request.url):
            self._learn(response)
        return response

    def _learn(self, response: Response) -> None:
        if response.peer and self._class is None:
            self._class = network.classify(response.peer)
        for name in RATE_LIMITS:
            if value := response.headers.get(name):
                self.rate_limit[name] = value
        for value in response.headers.get_all("Warning"):
            for text in parse_warnings(value):
                self.warn(text)

    def _observe(
        self, request: Request, response: Response | None, started: float, error: str
    ) -> None:
        if self.options.observe is ignore_exchange:
            return
        own = self._wanted()
        self.options.observe(
            Exchange(
                method=request.method,
                url=redact_url(request.url),
                request_headers=redact_headers(request.headers.items(), own),
                status=response.status if response else 0,
                response_headers=redact_headers(response.headers, own) if response else (),
                seconds=time.perf_counter() - started,
                error=error,
            )
        )


class _Bare:
    """The way to a token server: no authentication of its own, but redirects, repeats and limits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def send(self, request: Request) -> Response:
        return self._session.send_elsewhere(request)


def _class_of(response: Response) -> str:
    """The class of address of whoever answered, which what the answer names may share; public where it is not known."""
    _, name, _ = network.origin(response.url)
    return network.classify(response.peer) or network.classify(name) or network.PUBLIC


def _redirected(request: Request, status: int, target: str, named_by: str | None) -> Request:
    changed = request.method not in {"GET", "HEAD"}
    if request.method == "POST" and status == 303:
        return Request(method="GET", url=target, named_by=named_by, limit=request.limit)
    # a page that is got instead, of a log-in perhaps, would say 200 and nothing was stored or deleted
    if changed and status in {301, 302, 303}:
        raise RegistryError(
            f"{request.method} {redact_url(request.url)}: a {status} redirect to {redact_url(target)} would lose "
            "what was asked for"
        )
    headers = dict(request.headers)
    if network.origin(target) != network.origin(request.url):
        if request.secret:
            raise SettledError(
                f"{request.method} {redact_url(request.url)}: refused to take a secret to {redact_url(target)}"
            )
        headers = {k: v for k, v in headers.items() if k.lower() not in {"authorization", "cookie"}}
    return request.replace(url=target, named_by=named_by, headers=headers)


def _replayable(request: Request) -> bool:
    return request.body is None or isinstance(request.body, bytes)


def _chance() -> float:
    """Something between 0 and 1: those who failed together shall not come back together."""
    return os.urandom(1)[0] / 255
