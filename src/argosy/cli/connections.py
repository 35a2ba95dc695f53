"""The options every command that may talk to a registry has; they are added to a command when it is loaded.

Most are hidden from `--help`, which stays about the command, and shown by `--help-registry`. Commands with two ends
have each also as `--src-…` and `--dest-…` (`--from-…`, `--to-…` and `--dst-…` are understood).

Nothing is loaded for them but click: `argosy.cli.remotes` reads what was given once a registry is really named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import click

from argosy.cli.options import FILE, FILE_OR_NAME, FILE_OR_PLACE, PLACE
from argosy.spec._value import Value

META = "argosy.connections"
"""Where a context keeps what was given: option name → value, a side's own as `src.name`."""

_SIDES = {"src": ("src", "from"), "dest": ("dest", "dst", "to")}
_MARK = "_argosy_connections"


class Setting(Value):
    """One option: its name without dashes, its help, what else `click.Option` needs, and another tool's name for it."""

    name: str
    help: str
    kind: Mapping[str, Any]
    short: str = ""
    shown: bool = False
    other: str = ""

    @property
    def options(self) -> list[str]:
        """What is typed for it."""
        long = [f"--{name}" for name in (self.name, self.other) if name]
        return [*long, self.short] if self.short else long


_FLAG: dict[str, Any] = {"is_flag": True, "default": None}
_TEXT: dict[str, Any] = {"default": None}
_SECONDS: dict[str, Any] = {"type": click.FloatRange(0), "metavar": "SECONDS", "default": None}
_FILE: dict[str, Any] = {"type": FILE, "metavar": "FILE", "default": None}
_COUNT: dict[str, Any] = {"type": click.IntRange(0, 100), "metavar": "N", "default": None}
_RATE: dict[str, Any] = {"type": click.FloatRange(0), "metavar": "N", "default": None}
_BYTES: dict[str, Any] = {"type": click.IntRange(1), "metavar": "BYTES", "default": None}

SETTINGS = (
    Setting("authfile", "Read and write credentials in this file alone.", _FILE),
    Setting("creds", "User name and password, in place of those in files.", {"metavar": "USER:PASSWORD", **_TEXT}),
    Setting("registry-token", "A bearer token, ready to be sent.", {"metavar": "TOKEN", **_TEXT}),
    Setting("no-creds", "Use no credentials.", _FLAG),
    Setting("plain-http", "Speak http.", _FLAG),
    Setting("insecure", "Do not check certificates; speak http where there is no TLS.", _FLAG),
    Setting("tls-verify", "Check certificates (the default); --tls-verify=false is --insecure.",
            {"type": bool, "is_flag": False, "flag_value": True, "metavar": "BOOL", "default": None}),
    Setting("ca-file", "Trust the authorities in this file too.", _FILE),
    Setting("cert-dir", "A directory with *.crt, *.cert and *.key for the registry.",
            {"type": FILE, "metavar": "DIRECTORY", "default": None}),
    Setting("cert-file", "Show this certificate.", _FILE),
    Setting("key-file", "The certificate's key.", _FILE),
    Setting("resolve", "Connect to this address instead; repeatable.",
            {"multiple": True, "metavar": "HOST:PORT:ADDRESS[:PORT]"}),
    Setting("header", "Send this header to the registry, beside HttpHeaders of Docker's config.json; repeatable.",
            {"multiple": True, "metavar": "NAME:VALUE"}),
    Setting("timeout", "Give up after so long without progress. [default: 60]", _SECONDS),
    Setting("retry", "Send a request again so often. [default: 4]", _COUNT, other="retry-times"),
    Setting("retry-delay", "Wait so long before the first repeat. [default: 0.5]", _SECONDS),
    Setting("max-wait", "Wait at most so long because a registry asks for it. [default: 120]", _SECONDS),
    Setting("rate-limit", "Send at most so many requests a second.", _RATE),
    Setting("chunk-size", "Upload in chunks of so many bytes; whole blobs if absent.", _BYTES),
    Setting("referrers-mode", "How referrers are listed: by the API, the tag schema, or both; auto asks the API first.",
            {"type": click.Choice(["auto", "api", "tag", "both"]), "default": None}),
    Setting("user-agent", "Call ourselves this.", _TEXT),
    Setting("verbose", "Show every HTTP exchange on stderr, without secrets.", _FLAG, "-v", shown=True),
)  # fmt: skip


def wanted(command: click.Command) -> click.Command:
    """Mark a command that talks to registries though it takes no PLACE."""
    setattr(command, _MARK, True)
    return command


def two_ended(command: click.Command) -> click.Command:
    """As `wanted`, for a command that has two ends."""
    setattr(command, _MARK, "two")
    return command


def added(command: click.Command, args: Sequence[str] | None = None) -> click.Command:
    """Give a command the options, if it may talk to a registry and does not have them yet.

    Args:
        command: The command.
        args: What it is called with. Where nothing in it could be one of the options, they are not made: they are more
            than all its own. None makes them in any case.
    """
    places = [
        p
        for p in command.params
        if isinstance(p, click.Argument) and p.type in (PLACE, FILE_OR_PLACE, FILE_OR_NAME)
    ]
    if not (places or getattr(command, _MARK, False)) or getattr(command, _MARK, None) == "added":
        return command
    taken = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)}
    if args is not None and all(_is_known(arg, taken) for arg in args):
        return command
    both = len(places) > 1 or getattr(command, _MARK, None) == "two"
    command.params += [o for o in _options(both=both) if not taken & {*o.opts[:1]}]
    for option in command.params:
        if isinstance(option, click.Option) and option.callback is _keep and "-v" in taken:
            option.opts = [o for o in option.opts if o != "-v"]
    command.params.append(_help())
    setattr(command, _MARK, "added")
    return command


def _is_known(arg: str, taken: Container[str]) -> bool:
    """Whether an argument is no option, or one of these."""
    return not arg.startswith("-") or arg == "-" or arg.partition("=")[0] in taken


def _options(*, both: bool) -> Iterator[click.Option]:
    for setting in SETTINGS:
        yield _option(setting, "", setting.options)
        if both and not setting.short:
            for side, prefixes in _SIDES.items():
                yield _option(setting, side, [f"--{p}-{setting.name}" for p in prefixes])


def _option(setting: Setting, side: str, names: list[str]) -> click.Option:
    key = setting.name.replace("-", "_")
    return click.Option(
        [*names, f"connection_{side}_{key}"],
        help=setting.help,
        hidden=bool(side) or not setting.shown,
        expose_value=False,
        callback=_keep,
        **setting.kind,
    )


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value not in (None, ()):
        _, side, name = str(parameter.name).split("_", 2)
        ctx.meta.setdefault(META, {})[f"{side}.{name}" if side else name] = value


@contextlib.contextmanager
def over(given: Mapping[str, Any]) -> Iterator[None]:
    """Have clients that are made inside take these options, named as in `META`, over those of the command line."""
    meta = click.get_current_context().meta
    before = meta.get(META, {})
    meta[META] = {**before, **given}
    try:
        yield
    finally:
        meta[META] = before


def _help() -> click.Option:
    return click.Option(
        ["--help-registry"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show,
        help="Show the options for talking to registries.",
    )


def _show(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    formatter = ctx.make_formatter()
    rows = [(left(s), s.help) for s in SETTINGS]
    with formatter.section("Talking to registries"):
        formatter.write_dl(rows)
    formatter.write_paragraph()
    formatter.write_text(
        "Commands with two ends have each for one end too: --src-creds, --dest-plain-http. Credentials are looked for "
        "as containers-auth.json(5) says; `argosy auth ls --explain REGISTRY` shows where one comes from. "
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY (http, https and socks5), NO_PROXY, registries.conf(5) and certs.d are "
        "honoured; containerd's hosts.toml, credential-helpers of registries.conf, policy.json and registries.d are "
        "not: no signature is checked. A name without a registry is Docker Hub's; with ARGOSY_SHORT_NAMES=1 it is "
        "what aliases and unqualified-search-registries of registries.conf say. A registry on this machine "
        "(localhost) is spoken to in http if it does not speak TLS and https:// was not written before it."
    )
    click.echo(formatter.getvalue(), nl=False)
    ctx.exit()


def left(setting: Setting) -> str:
    """An option as it is listed: its names and what it takes."""
    name = ", ".join(setting.options)
    if setting.kind.get("is_flag"):
        return name
    metavar = setting.kind.get("metavar")
    kind = setting.kind.get("type")
    if isinstance(kind, click.Choice):
        return f"{name} [{'|'.join(map(str, kind.choices))}]"
    return f"{name} {metavar or 'TEXT'}"
