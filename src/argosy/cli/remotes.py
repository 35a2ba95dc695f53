"""Registries as a command line reaches them: its options and the environment, turned into clients."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any

import click

from argosy.cli.connections import META
from argosy.cli.failure import printable
from argosy.cli.options import HTTPS_ONLY, typed
from argosy.content.protocols import Target
from argosy.errors import NotFoundError, UsageError
from argosy.locate import Connect
from argosy.remote.config import Options, certificates_in, host_of
from argosy.remote.connection import TLS, Address
from argosy.remote.credentials import INLINE, Credential, CredentialStore, credential_files
from argosy.remote.registry import Registry
from argosy.remote.repository import Repository
from argosy.remote.wire import Exchange
from argosy.spec.reference import Reference, parse_registry

_REGISTRIES = "argosy.registries"
_REPOSITORIES = "argosy.repositories"
_INSTEAD = ({"creds", "registry_token", "no_creds"}, {"insecure", "tls_verify"})
"""Options that say the same in different ways: one of them for a side stands for all of them for both."""
_printing = threading.Lock()


def connect(ctx: click.Context, side: str, *, ahead: bool = False) -> Connect:
    """How to make a client for a repository, with the options of one side of a command. `ahead`: see `Repository`."""
    known: dict[Any, Repository] = ctx.meta.setdefault(_REPOSITORIES, {})

    def made(reference: Reference, write: bool) -> Target:
        place = registry(ctx, reference.registry, side)
        new = place.repository(reference.name, mirrors=not write, ahead=ahead)
        # images of one repository are of one place, and what is known of it holds for all
        return known.setdefault((place, reference.name, write), new) if ahead else new

    return made


def forget(ctx: click.Context) -> None:
    """Ask repositories anew for what was read: somebody else has changed it."""
    ctx.meta.pop(_REPOSITORIES, None)


def registry(ctx: click.Context, name: str, side: str = "") -> Registry:
    """The client of a registry; one a command, so that connections and tokens are shared.

    Raises:
        UsageError: the options contradict each other.
        InvalidConfigError: a configuration file is broken.
    """
    given = settings(ctx, side)
    known: dict[Any, Registry] = ctx.meta.setdefault(_REGISTRIES, {})
    key = (name, tuple(sorted((k, str(v)) for k, v in given.items())))
    if key not in known:
        known[key] = Registry(name, options(given, name, foreign=bool(ctx.params.get("foreign"))))
        ctx.call_on_close(known[key].close)
    return known[key]


def settings(ctx: click.Context, side: str = "") -> dict[str, Any]:
    """What was given for one side: the options of both, and its own over them; and `https_only`, for both."""
    given: Mapping[str, Any] = ctx.meta.get(META, {})
    own = {k.partition(".")[2]: v for k, v in given.items() if side and k.startswith(f"{side}.")}
    over = {key for kind in _INSTEAD if kind & own.keys() for key in kind}
    both = {key: v for key, v in given.items() if "." not in key and key not in over}
    https = ctx.meta.get(HTTPS_ONLY)
    return {**both, **own, **({"https_only": tuple(sorted(https))} if https else {})}


def store(given: Mapping[str, Any], name: str) -> CredentialStore:
    """Where credentials for a registry come from, as the options say.

    Raises:
        UsageError: the options contradict each other.
    """
    if sum(bool(given.get(key)) for key in ("creds", "registry_token", "no_creds")) > 1:
        raise UsageError("--creds, --registry-token and --no-creds exclude each other")
    files = () if given.get("no_creds") else credential_files(os.environ, given.get("authfile"))
    explicit: dict[str, Credential] = {}
    if creds := given.get("creds"):
        user, colon, password = str(creds).partition(":")
        if not colon or not user:
            raise UsageError("--creds: expected USER:PASSWORD")
        explicit[name] = Credential.of(user, password)
    if token := given.get("registry_token"):
        if not (token := str(token).strip()).isascii() or not token.isprintable() or " " in token:
            raise UsageError("--registry-token: it has characters that no token has")
        explicit[name] = Credential(registry_token=token)
    inline = "" if given.get("no_creds") or given.get("authfile") else os.environ.get(INLINE, "")
    return CredentialStore(files, given=explicit, environ=os.environ, inline=inline)


def options(given: Mapping[str, Any], name: str, *, foreign: bool = False) -> Options:
    """The client's options for one registry.

    Raises:
        UsageError: an option's value makes no sense, or what was typed of the registry says another thing.
        NotFoundError: there is no such `--authfile`.
        InvalidConfigError: a configuration file is broken.
    """
    authfile = given.get("authfile")
    if authfile and not given.get("no_creds") and not os.path.exists(authfile):
        raise NotFoundError(
            f"--authfile: {authfile}: no such file", hint="argosy login --authfile makes one"
        )
    if given.get("plain_http") and name in given.get("https_only", ()):
        raise UsageError(
            f"https://{name} and --plain-http exclude each other",
            hint=f"write {name}, where it speaks no TLS",
        )
    insecure = given.get("insecure", given.get("tls_verify") is False)
    more: dict[str, Any] = {
        "credentials": store(given, name),
        "plain_http": bool(given.get("plain_http")),
        "https_only": given.get("https_only", ()),
        "insecure": bool(insecure),
        "tls": _tls(given),
        "headers": dict(_header(text) for text in given.get("header", ())),
        "resolve": dict(_resolve(text) for text in given.get("resolve", ())),
        "warn": _warn,
        "foreign": foreign,
    }
    if given.get("verbose"):
        more["observe"] = trace
    if "retry" in given:
        more["attempts"] = given["retry"] + 1
    names = {
        "timeout": "timeout", "retry_delay": "retry_delay", "max_wait": "max_wait", "rate_limit": "rate",
        "chunk_size": "chunk_size", "referrers_mode": "referrers", "user_agent": "user_agent",
    }  # fmt: skip
    more |= {field: given[key] for key, field in names.items() if key in given}
    return Options.from_environment(os.environ, **more)


def _tls(given: Mapping[str, Any]) -> TLS:
    ca_files = (given["ca_file"],) if "ca_file" in given else ()
    cert, key = given.get("cert_file"), given.get("key_file")
    if key and not cert:
        raise UsageError("--key-file: the key of what? Give its certificate with --cert-file")
    folder = given.get("cert_dir")
    if folder and not os.path.isdir(folder):
        raise UsageError(f"--cert-dir: {folder} is no directory")
    found = certificates_in(folder) if folder else TLS()
    if not cert:
        cert, key = found.cert_file, found.key_file
    return TLS(ca_files=ca_files + found.ca_files, cert_file=cert, key_file=key)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError("--header: expected NAME:VALUE")
    return name.strip(), value.strip()


_RESOLVE = re.compile(
    r"(?P<host>\[[^]]*\]|[^][:]+):(?P<port>[0-9]{1,5}):"
    r"(?P<address>\[[^]]+\]|[^][:]+|[^][:]*:[^][:]*:[^][]*)(?::(?P<other>[0-9]{1,5}))?"
)


def _resolve(text: str) -> tuple[Address, Address]:
    """`HOST:PORT:ADDRESS[:PORT]`; Docker Hub is called so, or as it answers."""
    found = _RESOLVE.fullmatch(text)
    ports = [int(found[name] or found["port"]) for name in ("port", "other")] if found else []
    if not found or max(ports) > 65535:
        raise UsageError(
            f"--resolve: expected HOST:PORT:ADDRESS[:PORT], got {text[:100]!r}",
            hint="an IPv6 address stands in brackets, as in [::1]:5000:127.0.0.1",
        )
    host = host_of(typed(parse_registry, found["host"]))
    return (host.strip("[]"), ports[0]), (found["address"].strip("[]"), ports[1])


def _warn(name: str, text: str) -> None:
    print(f"warning: {name}: {printable(text)}", file=sys.stderr)


def trace(exchange: Exchange) -> None:
    """One HTTP exchange on stderr: what was sent, what came back."""
    lines = [f"--> {exchange.method} {exchange.url}"]
    lines += [f"{name}: {value}" for name, value in exchange.request_headers]
    lines.append("")
    if exchange.error:
        lines.append(f"<-- failed after {exchange.seconds * 1000:.1f} ms: {exchange.error}")
    else:
        lines.append(f"<-- {exchange.status} {exchange.url} ({exchange.seconds * 1000:.1f} ms)")
    lines += [f"{name}: {value}" for name, value in exchange.response_headers]
    with _printing:
        print("\n".join(printable(line) for line in lines) + "\n", file=sys.stderr, flush=True)
